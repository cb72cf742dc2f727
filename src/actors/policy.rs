//! Policy: owns the policies in force and who is in quarantine, publishes both.
//!
//! It judges nothing: judges ([`Judge`](super::judge::Judge)) read the published view. A set of
//! policies replaces another as a whole or not at all: it is read, parsed, validated and passes
//! its own tests before. A quarantine takes effect first, is then made durable, and then told to
//! the log.
//!
//! # Invariants
//! - The view always holds a set that was good: the node does not start without one, and a reload
//!   that fails changes nothing.
//! - A new incarnation takes the set from the view, not from the disk, where meanwhile something
//!   else may lie.
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
    store::{Store, StoreError, Tree},
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
        }
    }

    fn restore(&mut self) -> Result<(), StoreError> {
        let tree: Tree<Entry> = self.setup.store.tree(TREE, TREE_VERSION)?;
        let now = self.setup.clock.now();
        let mut stored = Vec::new();
        for (key, entry) in tree.scan(MAX_RECORDS)? {
            let party = std::str::from_utf8(&key).ok().and_then(|t| t.parse().ok());
            match party {
                Some(party) if now < entry.until => stored.push((party, entry)),
                _ => tree.remove(&key)?,
            }
        }
        self.tree = Some(tree);
        self.change(|quarantines| *quarantines = Quarantines::restore(stored, now));
        Ok(())
    }

    /// Changes who is in quarantine, and publishes it.
    fn change<T>(&mut self, change: impl FnOnce(&mut Quarantines) -> T) -> T {
        let mut quarantines = Quarantines::clone(&self.view.quarantines);
        let done = change(&mut quarantines);
        self.view.quarantines = Arc::new(quarantines);
        self.publish();
        done
    }

    fn publish(&self) {
        let count = self.view.quarantines.len();
        self.setup.metrics.policy().set_quarantined(count);
        self.setup.publisher.publish(self.view.clone());
    }

    /// Writes what `party` is now, durably.
    fn save(&self, party: &Party) -> Result<(), StoreError> {
        let Some(tree) = &self.tree else {
            return Ok(());
        };
        let key = party.to_string();
        match self.view.quarantines.get(party) {
            Some(entry) => tree.put(key.as_bytes(), entry)?,
            None => tree.remove(key.as_bytes())?,
        }
        self.setup.store.flush_durable()
    }

    /// Puts a party in quarantine. In effect at once, whatever becomes of the store.
    fn begin(&mut self, party: &Party, entry: Entry) -> Result<Begun, StoreError> {
        let reason = entry.reason.clone();
        let begun = self.change(|all| all.begin(party.clone(), entry));
        if let Begun::New(gone) = &begun {
            let until = self.view.quarantines.get(party).map(|entry| entry.until);
            tracing::warn!(%party, reason, "in quarantine");
            (self.setup.note)(AuditEvent::QuarantineStarted {
                party: party.clone(),
                until: until.unwrap_or_default(),
                reason,
            });
            if let Some(gone) = gone {
                self.ended(gone, "yielded");
                self.save(gone)?;
            }
        }
        match begun {
            Begun::New(_) | Begun::Prolonged => self.save(party)?,
            Begun::Known | Begun::Full => {}
        }
        Ok(begun)
    }

    fn end(&mut self, party: &Party, cause: &'static str) -> Result<bool, StoreError> {
        if self.view.quarantines.get(party).is_none() {
            return Ok(false);
        }
        self.change(|all| all.release(party));
        self.ended(party, cause);
        self.save(party)?;
        Ok(true)
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
            for party in self.change(|all| all.sweep(now)) {
                self.ended(&party, "expired");
                if let Err(error) = self.save(&party) {
                    return self.incarnation.fail(error);
                }
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

    fn load(&mut self, config: &PolicyConfig) -> Result<PolicyReport, String> {
        let loaded = load(config, &self.setup.home).inspect_err(|why| {
            tracing::error!(
                why,
                "policies were not taken: the former ones stay in force"
            );
            (self.setup.note)(AuditEvent::PolicyRefused { why: why.clone() });
        })?;
        let report = loaded.report.clone();
        self.view.loaded = Arc::new(loaded);
        self.view.settings = Arc::new(Settings::new(config, self.setup.max_cpu));
        self.view.span = config.quarantine.0;
        self.publish();
        self.tell_loaded();
        Ok(report)
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
            quarantined: self.view.quarantines.len(),
        }
    }
}
