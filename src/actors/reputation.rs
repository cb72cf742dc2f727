//! Reputation: owns scores and bans, publishes where everybody stands.
//!
//! A ban takes effect first: it is published at once, then made durable, and only then
//! acknowledged. Scores are written behind, each second and at the stop. A new incarnation loads
//! the store and what the former one had published and perhaps not saved.
//!
//! # Invariants
//! - An acknowledged ban, or lifting of one, is on the disk.
//! - The view is never older than the store.
//!
//! # When it fails
//! Gate and Swarm go on with the last view, in which bans still end by themselves. A failing
//! store is a fault: the restart budget decides. Runs on an arbiter of its own, since the store
//! blocks.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, MessageResult};
use serde::Serialize;

use crate::{
    audit::AuditEvent,
    config::ReputationConfig,
    messages::reputation::{
        Ban, BanInfo, Charge, CreditConnection, GetStanding, LiftBan, ListBans, SaveScores,
    },
    store::{Batch, Store, StoreError, Tree},
    supervised,
    supervision::{Fault, Incarnation, Supervise},
    trust::reputation::{Account, Effect, Input, Reputation, Standings},
    types::{Clock, Party, Publisher, Timestamp},
};

/// How often ended bans are noticed and changed scores written: what `kill -9` can lose of the
/// scores, and by how much the record of a ban's end may lag behind its end.
const TICK: Duration = Duration::from_secs(1);
/// Accounts in one atomic write. Bounds the memory of a save, not what is saved.
const CHUNK: usize = 4_096;
/// Most accounts taken from the store: ten times the default of `reputation.tracked_parties`, for
/// keys and for subjects.
const MAX_RECORDS: usize = 2_000_000;
const TREE: &str = "reputation";
const CLOCK_TREE: &str = "reputation_clock";
const TREE_VERSION: u8 = 1;
/// The one key of [`CLOCK_TREE`]: the latest time seen.
const LATEST: &[u8] = b"latest";

/// Where the actor tells the audit log what happened.
pub type Note = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// What an incarnation is made of.
#[derive(Clone)]
pub struct ReputationSetup {
    /// What misdeeds cost, and when they ban.
    pub rules: Arc<ReputationConfig>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where accounts are kept.
    pub store: Store,
    /// Where standings are published. Its first value should be [`Standings::unknown`].
    pub publisher: Publisher<Standings>,
    /// Usually `AuditHandle::note`.
    pub note: Note,
}

impl fmt::Debug for ReputationSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReputationSetup").finish_non_exhaustive()
    }
}

/// See the module.
pub struct ReputationActor {
    incarnation: Incarnation,
    setup: ReputationSetup,
    core: Reputation,
    /// Set by `on_start`.
    trees: Option<Trees>,
    /// Changed and not written yet; bounded by what the core remembers and forgets in a tick.
    dirty: BTreeSet<Party>,
}

struct Trees {
    accounts: Tree<Account>,
    clock: Tree<Timestamp>,
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct ReputationState {
    /// Parties remembered.
    pub parties: usize,
    /// Bans in force.
    pub bans: usize,
    /// Changes not written yet.
    pub unsaved: usize,
}

impl ReputationActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: ReputationSetup) -> Self {
        let now = setup.clock.now();
        let nothing = Standings::unknown(Arc::clone(&setup.rules));
        let (core, _) = Reputation::restore(Arc::clone(&setup.rules), [], &nothing, now, now);
        Self {
            incarnation,
            setup,
            core,
            trees: None,
            dirty: BTreeSet::new(),
        }
    }

    fn restore(&mut self) -> Result<(), StoreError> {
        let setup = &self.setup;
        let accounts = setup.store.tree(TREE, TREE_VERSION)?;
        let clock = setup.store.tree(CLOCK_TREE, TREE_VERSION)?;
        let mut saved = Vec::new();
        for (key, account) in accounts.scan(MAX_RECORDS)? {
            match std::str::from_utf8(&key)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                Some(party) => saved.push((party, account)),
                None => accounts.remove(&key)?,
            }
        }
        let latest = clock.get(LATEST)?.unwrap_or_default();
        let published = setup.publisher.view().load();
        let (core, effects) = Reputation::restore(
            Arc::clone(&setup.rules),
            saved,
            &published,
            latest,
            setup.clock.now(),
        );
        self.core = core;
        self.trees = Some(Trees { accounts, clock });
        self.carry_out(effects)
    }

    /// Publishes, then makes durable what must be, then tells the log. What happened is told
    /// even when the disk fails: it is in effect.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), StoreError> {
        let mut durable_now = false;
        let mut publish = false;
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Publish => publish = true,
                Effect::Persist { party, durable } => {
                    self.dirty.insert(party);
                    durable_now |= durable;
                }
                Effect::Audit(event) => events.push(event),
            }
        }
        if publish {
            self.setup.publisher.publish(self.core.standings());
        }
        let written = if durable_now { self.save(true) } else { Ok(()) };
        events
            .into_iter()
            .for_each(|event| (self.setup.note)(event));
        written
    }

    /// As [`Self::carry_out`], where the caller has no use for the error.
    fn carry_out_or_fail(&mut self, effects: Vec<Effect>) {
        if let Err(error) = self.carry_out(effects) {
            self.incarnation.fail(error);
        }
    }

    fn tick(&mut self) {
        let effects = self.core.apply(Input::Tick, self.setup.clock.now());
        let done = self.carry_out(effects).and_then(|()| self.save(false));
        if let Err(error) = done {
            self.incarnation.fail(error);
        }
    }

    /// Writes what changed. What could not be written stays marked.
    fn save(&mut self, durable: bool) -> Result<(), StoreError> {
        let Some(trees) = &self.trees else {
            return Ok(());
        };
        if !self.dirty.is_empty() {
            let parties: Vec<_> = self.dirty.iter().cloned().collect();
            for chunk in parties.chunks(CHUNK) {
                let mut batch = Batch::default();
                for party in chunk {
                    let key = party.to_string();
                    match self.core.account(party) {
                        Some(account) => batch.put(key.as_bytes(), account.clone()),
                        None => batch.remove(key.as_bytes()),
                    }
                }
                trees.accounts.apply(&batch)?;
                self.incarnation.progress();
            }
            trees.clock.put(LATEST, &self.core.latest())?;
            if !durable {
                self.setup.store.flush()?;
            }
        }
        if durable {
            self.setup.store.flush_durable()?;
        }
        self.dirty.clear();
        Ok(())
    }
}

impl Actor for ReputationActor {
    type Context = Context<Self>;
}

supervised!(ReputationActor);

impl Supervise for ReputationActor {
    const NAME: &'static str = "reputation";
    type Observable = ReputationState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.restore().map_err(Fault::build)?;
        ctx.run_interval(TICK, |act, _| act.tick());
        Ok(())
    }

    fn observe(&self) -> ReputationState {
        let (parties, bans) = self.core.counts();
        ReputationState {
            parties,
            bans,
            unsaved: self.dirty.len(),
        }
    }

    fn on_stop(&mut self, _: &mut Context<Self>) {
        if let Err(error) = self.save(true) {
            tracing::error!(%error, "scores of the last second are lost");
        }
    }
}

impl Handler<Charge> for ReputationActor {
    type Result = MessageResult<Charge>;

    fn handle(&mut self, charge: Charge, _: &mut Context<Self>) -> Self::Result {
        let now = self.setup.clock.now();
        let party = charge.party.clone();
        let effects = self.core.apply(
            Input::Charge {
                party: charge.party,
                subject: charge.subject.clone(),
                address: charge.address,
                severity: charge.severity,
                evidence: charge.evidence,
                summed: charge.summed,
            },
            now,
        );
        self.carry_out_or_fail(effects);
        MessageResult(match party {
            Party::Peer(peer) => self.core.standing_of(&peer, charge.subject.as_ref(), now),
            other => self.core.standing(&other, now),
        })
    }
}

impl Handler<CreditConnection> for ReputationActor {
    type Result = ();

    fn handle(&mut self, credit: CreditConnection, _: &mut Context<Self>) {
        let input = Input::Credit {
            peer: credit.peer,
            subject: credit.subject,
        };
        let effects = self.core.apply(input, self.setup.clock.now());
        self.carry_out_or_fail(effects);
    }
}

impl Handler<GetStanding> for ReputationActor {
    type Result = MessageResult<GetStanding>;

    fn handle(&mut self, question: GetStanding, _: &mut Context<Self>) -> Self::Result {
        let GetStanding { peer, subject } = question;
        let now = self.setup.clock.now();
        MessageResult(self.core.standing_of(&peer, subject.as_ref(), now))
    }
}

impl Handler<Ban> for ReputationActor {
    type Result = Result<BanInfo, String>;

    fn handle(&mut self, ban: Ban, _: &mut Context<Self>) -> Self::Result {
        let now = self.setup.clock.now();
        let (info, effects) = self
            .core
            .ban(ban.party, ban.span, &ban.reason, now)
            .map_err(|error| error.to_string())?;
        self.carry_out(effects).map_err(|error| {
            self.incarnation.fail(&error);
            format!("the ban is in force and not yet on the disk: {error}")
        })?;
        Ok(info)
    }
}

impl Handler<LiftBan> for ReputationActor {
    type Result = Result<bool, String>;

    fn handle(&mut self, lift: LiftBan, _: &mut Context<Self>) -> Self::Result {
        let (lifted, effects) = self.core.lift(lift.party, self.setup.clock.now());
        self.carry_out(effects).map_err(|error| {
            self.incarnation.fail(&error);
            format!("the ban is lifted, and may be back after a restart: {error}")
        })?;
        Ok(lifted)
    }
}

impl Handler<ListBans> for ReputationActor {
    type Result = MessageResult<ListBans>;

    fn handle(&mut self, _: ListBans, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.standings().bans(self.setup.clock.now()))
    }
}

impl Handler<SaveScores> for ReputationActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: SaveScores, _: &mut Context<Self>) -> Self::Result {
        self.save(true).map_err(|error| {
            self.incarnation.fail(&error);
            error.to_string()
        })
    }
}
