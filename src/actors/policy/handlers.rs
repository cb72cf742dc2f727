//! What others tell and ask of Policy.

use actix::{Context, Handler, MessageResult};

use super::PolicyActor;
use crate::{
    messages::policy::{
        DescribePolicies, ListQuarantines, LoadPolicies, PolicyReport, PutInQuarantine,
        Quarantined, Release, ReleasedByCredential, SawOddity,
    },
    trust::quarantine::{Begun, Entry, QuarantineInfo, grant_of, party_of},
    types::Party,
};

/// Kinds of oddities kept apart between two reports; more are counted together.
const MAX_ODDITIES: usize = 64;

impl Handler<Quarantined> for PolicyActor {
    type Result = ();

    fn handle(&mut self, message: Quarantined, _: &mut Context<Self>) {
        let now = self.setup.clock.now();
        let identity = message.identity.as_deref();
        let entry = Entry {
            since: now,
            until: now.after(self.view.span),
            reason: message.rule.to_string(),
            by_operator: false,
            grant: identity.map(grant_of),
        };
        if let Err(error) = self.begin(&party_of(&message.peer, identity), entry) {
            self.incarnation.fail(error);
        }
    }
}

impl Handler<ReleasedByCredential> for PolicyActor {
    type Result = ();

    fn handle(&mut self, message: ReleasedByCredential, _: &mut Context<Self>) {
        let ReleasedByCredential { peer, identity } = message;
        for party in self.view.quarantines.released(&peer, &identity) {
            if let Err(error) = self.end(&party, "credential") {
                return self.incarnation.fail(error);
            }
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

impl Handler<LoadPolicies> for PolicyActor {
    type Result = Result<PolicyReport, String>;

    fn handle(&mut self, message: LoadPolicies, _: &mut Context<Self>) -> Self::Result {
        self.load(&message.config)
    }
}

impl Handler<DescribePolicies> for PolicyActor {
    type Result = MessageResult<DescribePolicies>;

    fn handle(&mut self, _: DescribePolicies, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.view.loaded.report.clone())
    }
}

impl Handler<PutInQuarantine> for PolicyActor {
    type Result = Result<QuarantineInfo, String>;

    fn handle(&mut self, message: PutInQuarantine, _: &mut Context<Self>) -> Self::Result {
        let PutInQuarantine {
            party,
            span,
            reason,
        } = message;
        if matches!(party, Party::Address(_)) {
            return Err("an address cannot be in quarantine, only banned: name a peer".to_owned());
        }
        let now = self.setup.clock.now();
        let entry = Entry {
            since: now,
            until: now.after(span),
            reason,
            by_operator: true,
            grant: None,
        };
        match self.begin(&party, entry) {
            Ok(Begun::Full) => Err("the table of quarantines is full: release some".to_owned()),
            Ok(_) => {
                let mut all = self.view.quarantines.list().into_iter();
                let found = all.find(|info| info.party == party);
                found.ok_or_else(|| "it has ended already".to_owned())
            }
            Err(error) => {
                self.incarnation.fail(&error);
                Err(error.to_string())
            }
        }
    }
}

impl Handler<Release> for PolicyActor {
    type Result = Result<bool, String>;

    fn handle(&mut self, message: Release, _: &mut Context<Self>) -> Self::Result {
        self.end(&message.party, "released").map_err(|error| {
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
