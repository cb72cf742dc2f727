//! Whether the node does its job, from what can be seen without asking anybody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    identity::OwnIdentity,
    supervision::{Root, RunState},
    telemetry::{Health, Metrics, Readiness},
    trust::reputation::Standings,
    types::{Clock, View},
};

/// A credential that expires within this many seconds needs an eye on it: two weeks.
const EXPIRES_SOON: u64 = 14 * 24 * 3600;

/// See the module.
#[derive(Debug)]
pub(super) struct NodeHealth {
    /// Knows the actors.
    pub(super) root: Root,
    /// The own credential.
    pub(super) own: View<OwnIdentity>,
    /// Bans in force.
    pub(super) standings: View<Standings>,
    /// Time.
    pub(super) clock: Arc<dyn Clock>,
    /// Set when the node begins to stop.
    pub(super) stopping: AtomicBool,
}

impl Health for NodeHealth {
    fn live(&self) -> bool {
        self.root
            .actors()
            .iter()
            .all(|actor| actor.state != RunState::Down)
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        if self.stopping.load(Ordering::Acquire) {
            readiness.reasons.push("the node is stopping".to_owned());
        }
        for actor in self.root.actors() {
            if actor.state != RunState::Running {
                readiness
                    .reasons
                    .push(format!("actor {}: {}", actor.name, actor.state.name()));
            }
        }
        let own = self.own.load();
        match (&own.chain, &own.problem) {
            (None, _) => readiness.notes.push(
                "this node has no credential: peers that require one refuse it \
                 (`quantraband identity request`)"
                    .to_owned(),
            ),
            (Some(_), Some(problem)) => {
                readiness
                    .notes
                    .push(format!("the own credential is not valid here: {problem}"));
            }
            (Some(_), None) => {}
        }
        if let Some(identity) = &own.identity {
            let (expires, now) = (identity.expires, self.clock.now());
            if expires <= now {
                readiness
                    .reasons
                    .push(format!("the credential expired at {expires}"));
            } else if expires.secs().saturating_sub(now.secs()) < EXPIRES_SOON {
                readiness
                    .notes
                    .push(format!("the credential expires at {expires}"));
            }
        }
        readiness
    }

    fn collect(&self, metrics: &Metrics) {
        for control in self.root.controls() {
            metrics.expect_actor(control.name());
            metrics.set_mailbox_depth(control.name(), control.snapshot().mailbox);
        }
        metrics.set_bans_active(self.standings.load().bans_active(self.clock.now()));
        metrics.set_credential_expiry(self.own.load().identity.as_ref().map(|i| i.expires));
    }
}
