//! What others tell and ask of Policy.

use actix::{
    Context, Handler, MessageResult, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};

use super::{PolicyActor, Prepared, load};
use crate::{
    messages::policy::{
        DescribePolicies, ListQuarantines, PolicyReport, PreparePolicies, PreparedPolicies,
        PutInQuarantine, Quarantined, Release, ReleasedByCredential, SawOddity, TakePolicies,
    },
    trust::quarantine::{Begun, Entry, QuarantineInfo, Quarantines, grant_of, party_of},
    types::Party,
};

/// Kinds of oddities kept apart between two reports; more are counted together.
const MAX_ODDITIES: usize = 64;

impl Handler<Quarantined> for PolicyActor {
    type Result = ();

    fn handle(&mut self, message: Quarantined, _: &mut Context<Self>) {
        let now = self.setup.clock.now();
        let identity = message.identity.as_deref();
        let party = party_of(&message.peer, identity);
        // Many judges tell of the same peer before they see the view that holds it.
        let known = self.view.quarantines.get(&party);
        let lasts = |known: &Entry| !known.released && known.until.since(now) > self.view.span / 2;
        if known.is_some_and(lasts) {
            return;
        }
        let entry = Entry {
            since: now,
            caused: now,
            until: now.after(self.view.span),
            reason: message.rule.to_string(),
            rule: Some(message.rule.to_string()),
            released: false,
            by_operator: false,
            grant: identity.map(grant_of),
        };
        if let Err(error) = self.begin(&party, entry) {
            self.incarnation.fail(error);
        }
    }
}

impl Handler<ReleasedByCredential> for PolicyActor {
    type Result = ();

    fn handle(&mut self, message: ReleasedByCredential, _: &mut Context<Self>) {
        let ReleasedByCredential { peer, identity } = message;
        let released = self.view.quarantines.released(&peer, &identity);
        let ended = self.end(&released, "credential", |all, party| {
            all.release(party).is_some()
        });
        if let Err(error) = ended {
            self.incarnation.fail(error);
        }
    }
}

impl Handler<SawOddity> for PolicyActor {
    type Result = ();

    fn handle(&mut self, SawOddity(oddity): SawOddity, _: &mut Context<Self>) {
        if self.oddities.len() < MAX_ODDITIES || self.oddities.contains_key(&oddity) {
            let count = self.oddities.entry(oddity).or_default();
            *count = count.saturating_add(1);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }
}

impl Handler<PreparePolicies> for PolicyActor {
    type Result = ResponseActFuture<Self, Result<PreparedPolicies, String>>;

    fn handle(&mut self, message: PreparePolicies, _: &mut Context<Self>) -> Self::Result {
        if self.preparing {
            let why = "policies are being read already: try again".to_owned();
            return Box::pin(fut::ready(Err(why)));
        }
        self.preparing = true;
        // The former one is not taken any more, whatever comes of this one.
        self.prepared = None;
        self.ticket = self.ticket.saturating_add(1);
        let (config, home) = (message.config.clone(), self.setup.home.clone());
        // A large set with its tests takes seconds, which an actor's thread may not be away for.
        let tried = tokio::task::spawn_blocking(move || load(&config, &home));
        Box::pin(tried.into_actor(self).map(move |tried, act, _| {
            act.preparing = false;
            let tried = tried.unwrap_or_else(|error| Err(format!("not read: {error}")));
            let loaded = tried.inspect_err(|why| act.refused(why))?;
            let report = loaded.report.clone();
            act.prepared = Some(Prepared {
                loaded,
                config: message.config,
            });
            Ok(PreparedPolicies {
                ticket: act.ticket,
                report,
            })
        }))
    }
}

impl Handler<TakePolicies> for PolicyActor {
    type Result = Result<PolicyReport, String>;

    fn handle(&mut self, message: TakePolicies, _: &mut Context<Self>) -> Self::Result {
        let prepared = self.prepared.take_if(|_| message.ticket == self.ticket);
        let Some(Prepared { loaded, config }) = prepared else {
            return Err("others were prepared meanwhile: try again".to_owned());
        };
        Ok(self.take(loaded, &config))
    }
}

impl Handler<DescribePolicies> for PolicyActor {
    type Result = MessageResult<DescribePolicies>;

    fn handle(&mut self, _: DescribePolicies, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.view.loaded.report.clone())
    }
}

impl Handler<PutInQuarantine> for PolicyActor {
    type Result = Result<Vec<QuarantineInfo>, String>;

    fn handle(&mut self, message: PutInQuarantine, _: &mut Context<Self>) -> Self::Result {
        let PutInQuarantine {
            parties,
            span,
            reason,
        } = message;
        if parties.iter().any(|one| matches!(one, Party::Address(_))) {
            return Err("an address cannot be in quarantine, only banned: name a peer".to_owned());
        }
        let now = self.setup.clock.now();
        let entry = Entry {
            since: now,
            caused: now,
            until: now.after(span),
            reason,
            rule: None,
            released: false,
            by_operator: true,
            grant: None,
        };
        for party in &parties {
            match self.begin(party, entry.clone()) {
                Ok(Begun::Full) => {
                    return Err("the table of quarantines is full: release some".to_owned());
                }
                Ok(_) => {}
                Err(error) => {
                    self.incarnation.fail(&error);
                    return Err(error.to_string());
                }
            }
        }
        let all = self.view.quarantines.list().into_iter();
        let held: Vec<_> = all.filter(|info| parties.contains(&info.party)).collect();
        if held.is_empty() {
            return Err("it has ended already".to_owned());
        }
        Ok(held)
    }
}

impl Handler<Release> for PolicyActor {
    type Result = Result<Vec<Party>, String>;

    fn handle(&mut self, message: Release, _: &mut Context<Self>) -> Self::Result {
        let (now, span) = (self.setup.clock.now(), self.view.span);
        let lift = |all: &mut Quarantines, party: &Party| all.lift(party, now, span);
        let ended = self.end(&message.parties, "released", lift);
        ended.map_err(|error| {
            self.incarnation.fail(&error);
            error.to_string()
        })
    }
}

impl Handler<ListQuarantines> for PolicyActor {
    type Result = MessageResult<ListQuarantines>;

    fn handle(&mut self, _: ListQuarantines, _: &mut Context<Self>) -> Self::Result {
        let now = self.setup.clock.now();
        let all = self.view.quarantines.list().into_iter();
        MessageResult(all.filter(|info| now < info.until).collect())
    }
}
