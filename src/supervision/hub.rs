//! What every guard shares with the root: the children, the events, the escalation.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use actix::ArbiterHandle;
use tokio::sync::{mpsc, watch};

use super::{
    ActorControl, Cause, CoolDowns, Fault, FaultReport, Strategy, lock,
    slot::{Order, RunState, Slot},
};
use crate::types::{Clock, Origin};

/// Exit code of a node whose restart budget is spent: `EX_SOFTWARE` of `sysexits.h`.
pub const EXIT_ESCALATED: u8 = 70;

/// Events that may wait for the node: faults come at most a few a second from each actor.
pub(super) const EVENTS: usize = 1_024;

/// What happens among the actors. Published for the audit log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisionEvent {
    /// An actor had a fault and will be restarted.
    Fault {
        /// Its name.
        actor: &'static str,
        /// What happened.
        report: FaultReport,
    },
    /// An incarnation is ready for messages.
    Started {
        /// Its name.
        actor: &'static str,
        /// Which incarnation, counted from 1.
        generation: u64,
    },
    /// An actor made no progress for longer than its limit.
    Stalled {
        /// Its name.
        actor: &'static str,
        /// Whether its thread is stuck; otherwise it is restarted in place.
        thread: bool,
    },
    /// An actor will not be restarted: the node must stop.
    Escalated {
        /// Its name.
        actor: &'static str,
        /// The last fault.
        report: FaultReport,
    },
}

/// Why the node must stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// The actor that cannot be kept running.
    pub actor: &'static str,
    /// Its last fault.
    pub report: FaultReport,
    /// What the process should exit with.
    pub code: u8,
}

/// One supervised actor.
pub(super) struct Child {
    pub(super) control: Arc<dyn ActorControl>,
    pub(super) slot: Arc<Slot>,
    /// Its own arbiter, when it has one.
    pub(super) arbiter: Option<ArbiterHandle>,
}

/// See the module.
pub(super) struct Hub {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cooldowns: Arc<CoolDowns>,
    pub(super) allow_injection: bool,
    pub(super) strategy: Strategy,
    pub(super) events: mpsc::Sender<SupervisionEvent>,
    pub(super) dropped_events: AtomicU64,
    pub(super) escalation: watch::Sender<Option<Escalation>>,
    /// Whether someone learned of the escalation.
    pub(super) acknowledged: AtomicBool,
    /// In the order they were spawned.
    pub(super) children: Mutex<Vec<Child>>,
    /// Moves while the root's thread does its rounds.
    pub(super) heartbeat: AtomicU64,
}

impl Hub {
    /// Publishes an event; when nobody keeps up it is counted and dropped.
    pub(super) fn emit(&self, event: SupervisionEvent) {
        if self.events.try_send(event).is_err() {
            self.dropped_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The report of a fault; whoever is blamed begins to cool down.
    pub(super) fn report(&self, fault: &Fault, origin: Option<Origin>) -> FaultReport {
        let blamed = origin.filter(|_| fault.cause() != Cause::Admin);
        if let Some(origin) = &blamed {
            self.cooldowns.blame(origin);
        }
        let party = blamed.and_then(|origin| origin.party());
        FaultReport::new(fault, self.clock.now(), party)
    }

    /// Gives an actor up: the node has to stop. The first escalation counts.
    pub(super) fn escalate(&self, slot: &Slot, report: FaultReport) {
        slot.note_fault(&report, false);
        slot.set_state(RunState::Down);
        tracing::error!(
            actor = slot.name, cause = %report.cause, detail = report.detail,
            "an actor cannot be kept running: the node has to stop"
        );
        self.emit(SupervisionEvent::Escalated {
            actor: slot.name,
            report: report.clone(),
        });
        self.escalation.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(Escalation {
                    actor: slot.name,
                    report,
                    code: EXIT_ESCALATED,
                });
            }
            first
        });
    }

    /// By [`Strategy::RestForOne`], has every actor spawned after `failed` restarted, each once
    /// its predecessor runs again. Called before `failed` itself is built anew.
    pub(super) fn restart_rest(&self, failed: &Arc<Slot>) {
        if self.strategy != Strategy::RestForOne {
            return;
        }
        let children = lock(&self.children);
        let mut before = failed.running();
        let mut behind = false;
        for child in children.iter() {
            if behind && !child.slot.state().is_final() {
                let next = child.slot.running();
                child.slot.order(Order::Restart {
                    detail: format!("{} was restarted before it", failed.name),
                    after: Some(std::mem::replace(&mut before, next)),
                });
            }
            behind |= Arc::ptr_eq(&child.slot, failed);
        }
    }
}
