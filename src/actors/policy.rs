//! Policy: owns the policies in force and who is in quarantine, publishes both.
//!
//! It judges nothing: judges ([`Judge`](super::judge::Judge)) read the published view. A set of
//! policies replaces another as a whole or not at all: it is read, parsed, validated and passes
//! its own tests before, on a thread for that, and then waits until it is taken
//! ([`PreparePolicies`](crate::messages::policy::PreparePolicies)). A quarantine takes effect first,
//! is told to the log, and then made durable.
//!
//! # Invariants
//! - The view always holds a set that was good: the node does not start without one, and a reload
//!   that fails changes nothing.
//! - A new incarnation takes the set from the view, not from the disk, where meanwhile something
//!   else may lie.
//! - A quarantine that could not be made durable stays in force: the next incarnation finds it in
//!   the view and stores it.
//!
//! # When it fails
//! Judges go on with the last view, in which quarantines still end by themselves; a peer that a
//! policy would put in quarantine meanwhile is judged so each time it asks. Runs on an arbiter of
//! its own, since disk and store block.

mod handlers;
mod load;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context};
use serde::Serialize;

pub use load::{Loaded, load};

use crate::{
    audit::AuditEvent,
    config::PolicyConfig,
    messages::policy::{Oddity, PolicyReport},
    policy::Settings,
    store::{Batch, Store, StoreError, Tree},
    supervised,
    supervision::{Fault, Incarnation, Supervise},
    telemetry::Metrics,
    trust::quarantine::{Begun, Entry, Quarantines},
    types::{Clock, Party, Publisher},
};

/// How often ended quarantines are noticed: by how much the record of an end may lag behind it.
const TICK: Duration = Duration::from_secs(1);
/// Most records taken from the store; more than there may be.
const MAX_RECORDS: usize = 1 << 17;
const TREE: &str = "quarantines";
const TREE_VERSION: u8 = 1;

/// Where the actor tells the audit log what happened.
pub type Note = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// What judges read.
#[derive(Debug, Clone)]
pub struct PolicyView {
    /// The policies in force.
    pub loaded: Arc<Loaded>,
    /// The settings that they read.
    pub settings: Arc<Settings>,
    /// How long a quarantine lasts.
    pub span: Duration,
    /// Who is in quarantine.
    pub quarantines: Arc<Quarantines>,
}

impl PolicyView {
    /// The first view of a node.
    #[must_use]
    pub fn new(loaded: Loaded, config: &PolicyConfig, max_cpu: Duration) -> Self {
        Self {
            loaded: Arc::new(loaded),
            settings: Arc::new(Settings::new(config, max_cpu)),
            span: config.quarantine.0,
            quarantines: Arc::default(),
        }
    }
}

/// What an incarnation is made of.
#[derive(Clone)]
pub struct PolicySetup {
    /// The folder that paths of the configuration are relative to.
    pub home: PathBuf,
    /// `sandbox.max_cpu_time`, a fact of policies.
    pub max_cpu: Duration,
    /// How long oddities are collected before they are told (`audit.aggregate`).
    pub aggregate: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where quarantines are kept.
    pub store: Store,
    /// Where the view is published. Its first value has a good set.
    pub publisher: Publisher<PolicyView>,
    /// Usually `AuditHandle::note`.
    pub note: Note,
    /// Counters.
    pub metrics: Metrics,
}

impl fmt::Debug for PolicySetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySetup").finish_non_exhaustive()
    }
}

/// See the module.
pub struct PolicyActor {
    incarnation: Incarnation,
    setup: PolicySetup,
    view: PolicyView,
    /// Set by `on_start`.
    tree: Option<Tree<Entry>>,
    oddities: BTreeMap<Oddity, u64>,
    /// Oddities beyond those that are kept apart.
    others: u64,
    next_report: Duration,
    /// Whether a set is being read.
    preparing: bool,
    /// Names the set that was read last.
    ticket: u64,
    /// A good set, until it is taken or another is read.
    prepared: Option<Prepared>,
}

/// A set that passed its tests, and the configuration that names it.
struct Prepared {
    loaded: Loaded,
    config: PolicyConfig,
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyState {
    /// The policies in force.
    pub policy: PolicyReport,
    /// Parties in quarantine.
    pub quarantined: usize,
}

impl PolicyActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: PolicySetup) -> Self {
        let view = PolicyView::clone(&setup.publisher.view().load());
        Self {
            incarnation,
            setup,
            view,
            tree: None,
            oddities: BTreeMap::new(),
            others: 0,
            next_report: Duration::ZERO,
            preparing: false,
            ticket: 0,
            prepared: None,
        }
    }

    /// Takes over what was stored and what the former incarnation had in force: a disk that failed
    /// ends no quarantine.
    fn restore(&mut self) -> Result<(), StoreError> {
        let tree: Tree<Entry> = self.setup.store.tree(TREE, TREE_VERSION)?;
        let now = self.setup.clock.now();
        let mut batch = Batch::default();
        let mut all = BTreeMap::new();
        for (key, entry) in tree.scan(MAX_RECORDS)? {
            match std::str::from_utf8(&key).ok().and_then(|t| t.parse().ok()) {
                Some(party) => drop(all.insert(party, entry)),
                None => batch.remove(&key),
            }
        }
        for (party, entry) in self.view.quarantines.iter() {
            if all.get(party) != Some(entry) {
                batch.put(party.to_string().as_bytes(), entry.clone());
                all.insert(party.clone(), entry.clone());
            }
        }
        let (ended, lasting): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, entry)| entry.until <= now);
        for (party, _) in &ended {
            batch.remove(party.to_string().as_bytes());
        }
        self.view.quarantines = Arc::new(Quarantines::restore(lasting, now));
        self.publish();
        for (party, entry) in &ended {
            if !entry.released {
                self.ended(party, "expired");
            }
        }
        if !batch.is_empty() {
            tree.apply(&batch)?;
            self.setup.store.flush_durable()?;
        }
        self.tree = Some(tree);
        Ok(())
    }

    /// Who is in quarantine from now on.
    fn put_in_force(&mut self, quarantines: Quarantines) {
        self.view.quarantines = Arc::new(quarantines);
        self.publish();
    }

    fn publish(&self) {
        let count = self.view.quarantines.held();
        self.setup.metrics.policy().set_quarantined(count);
        self.setup.publisher.publish(self.view.clone());
    }

    /// Writes what these are now: together, and durably.
    fn save(&self, parties: &[Party]) -> Result<(), StoreError> {
        let Some(tree) = &self.tree else {
            return Ok(());
        };
        let mut batch = Batch::default();
        for party in parties {
            let key = party.to_string();
            match self.view.quarantines.get(party) {
                Some(entry) => batch.put(key.as_bytes(), entry.clone()),
                None => batch.remove(key.as_bytes()),
            }
        }
        tree.apply(&batch)?;
        self.setup.store.flush_durable()
    }

    /// Puts a party in quarantine. In effect at once, whatever becomes of the store.
    fn begin(&mut self, party: &Party, entry: Entry) -> Result<Begun, StoreError> {
        let reason = entry.reason.clone();
        let before = Arc::clone(&self.view.quarantines);
        let mut quarantines = Quarantines::clone(&before);
        let begun = quarantines.begin(party.clone(), entry);
        let mut changed = vec![party.clone()];
        match &begun {
            Begun::Known | Begun::Full => return Ok(begun),
            Begun::Prolonged => self.put_in_force(quarantines),
            Begun::New(gone) => {
                self.put_in_force(quarantines);
                let until = self.view.quarantines.get(party).map(|entry| entry.until);
                tracing::warn!(%party, reason, "in quarantine");
                (self.setup.note)(AuditEvent::QuarantineStarted {
                    party: party.clone(),
                    until: until.unwrap_or_default(),
                    reason,
                });
                if let Some(gone) = gone {
                    if before.get(gone).is_some_and(|entry| !entry.released) {
                        self.ended(gone, "yielded");
                    }
                    changed.push(gone.clone());
                }
            }
        }
        self.save(&changed)?;
        Ok(begun)
    }

    /// Releases those of `parties` that are in quarantine, and says which were.
    fn end(
        &mut self,
        parties: &[Party],
        cause: &'static str,
        release: impl Fn(&mut Quarantines, &Party) -> bool,
    ) -> Result<Vec<Party>, StoreError> {
        let mut quarantines = Quarantines::clone(&self.view.quarantines);
        let held = parties.iter().filter(|one| release(&mut quarantines, one));
        let ended: Vec<Party> = held.cloned().collect();
        if !ended.is_empty() {
            self.put_in_force(quarantines);
            for party in &ended {
                self.ended(party, cause);
            }
            self.save(&ended)?;
        }
        Ok(ended)
    }

    fn ended(&self, party: &Party, cause: &'static str) {
        tracing::info!(%party, cause, "out of quarantine");
        (self.setup.note)(AuditEvent::QuarantineEnded {
            party: party.clone(),
            cause: cause.to_owned(),
        });
    }

    fn tick(&mut self) {
        let now = self.setup.clock.now();
        if self.view.quarantines.has_ended(now) {
            let mut quarantines = Quarantines::clone(&self.view.quarantines);
            let swept = quarantines.sweep(now);
            self.put_in_force(quarantines);
            for (party, entry) in &swept {
                if !entry.released {
                    self.ended(party, "expired");
                }
            }
            let swept: Vec<Party> = swept.into_iter().map(|(party, _)| party).collect();
            // One flush, however many end at once: each may take a second on a busy disk.
            if let Err(error) = self.save(&swept) {
                return self.incarnation.fail(error);
            }
        }
        let elapsed = self.setup.clock.elapsed();
        if elapsed >= self.next_report {
            self.next_report = elapsed.saturating_add(self.setup.aggregate);
            self.report_oddities();
        }
    }

    fn report_oddities(&mut self) {
        for (oddity, count) in std::mem::take(&mut self.oddities) {
            (self.setup.note)(match oddity {
                Oddity::Erred { what, action } => {
                    tracing::error!(action, what, count, "a policy erred: requests are denied");
                    AuditEvent::PolicyErred {
                        action: action.to_owned(),
                        what,
                        count,
                    }
                }
                Oddity::Differs {
                    action,
                    active,
                    shadow,
                } => {
                    tracing::info!(action, active, shadow, count, "the shadow set differs");
                    AuditEvent::ShadowDiffered {
                        action: action.to_owned(),
                        active,
                        shadow,
                        count,
                    }
                }
            });
        }
        if self.others > 0 {
            tracing::warn!(
                count = self.others,
                "more oddities of policies than are kept apart"
            );
            self.others = 0;
        }
    }

    fn refused(&self, why: &str) {
        tracing::error!(
            why,
            "policies were not taken: the former ones stay in force"
        );
        (self.setup.note)(AuditEvent::PolicyRefused {
            why: why.to_owned(),
        });
    }

    fn take(&mut self, loaded: Loaded, config: &PolicyConfig) -> PolicyReport {
        let report = loaded.report.clone();
        self.view.loaded = Arc::new(loaded);
        self.view.settings = Arc::new(Settings::new(config, self.setup.max_cpu));
        self.view.span = config.quarantine.0;
        self.publish();
        self.tell_loaded();
        report
    }

    fn tell_loaded(&self) {
        let report = &self.view.loaded.report;
        tracing::info!(
            hash = report.hash,
            policies = report.policies,
            "policies in force"
        );
        (self.setup.note)(AuditEvent::PolicyLoaded {
            dir: report.dir.as_ref().map(|dir| dir.display().to_string()),
            policies: report.policies,
            hash: report.hash.clone(),
            shadow: report.shadow.clone(),
        });
    }
}

impl Actor for PolicyActor {
    type Context = Context<Self>;
}

supervised!(PolicyActor);

impl Supervise for PolicyActor {
    const NAME: &'static str = "policy";
    type Observable = PolicyState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.restore().map_err(Fault::build)?;
        if self.incarnation.generation() == 1 {
            self.tell_loaded();
        }
        ctx.run_interval(TICK, |act, _| act.tick());
        Ok(())
    }

    fn observe(&self) -> PolicyState {
        PolicyState {
            policy: self.view.loaded.report.clone(),
            quarantined: self.view.quarantines.held(),
        }
    }
}
