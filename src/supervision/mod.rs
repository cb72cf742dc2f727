//! Supervision: restart policy, guard, actor reference, root. Knows no concrete actor.
//!
//! Each actor runs under a guard, a future that polls it and catches what goes wrong:
//! a panic, an error it declares, its own exit, an async hang. The value is then replaced by a
//! fresh one, while its [`ActorRef`]s and the messages that wait for it live on. Who has too many
//! faults in a sliding window is given up: the fault *escalates* and the node stops in order,
//! with exit code [`EXIT_ESCALATED`]. A peer whose input was being handled cools down first, so
//! that this is no remote kill.
//!
//! ```text
//!  ActorRef --ask/tell--> bounded mailbox --> Guard { context { value, futures } }
//!                                              ^ orders      | faults
//!  root-watch --watches--> root (rounds) ------+             +--> events, cool-downs, escalation
//! ```
//!
//! What fails here: the root's thread, which a second plain thread watches; a guard, which
//! escalates when it is dropped in the middle of a poll. Decisions and measured facts are in
//! `docs/decisions/0001-supervision.md`.

mod actor;
mod actor_ref;
mod control;
mod cooldown;
mod fault;
mod guard;
mod hub;
mod incarnation;
mod mailbox;
mod policy;
mod root;
mod slot;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use actor::Supervise;
pub use actor_ref::{ActorRef, AskError, TellError};
pub use control::{ActorControl, ControlError, Inject, Observed};
pub use cooldown::CoolDowns;
pub use fault::{Cause, Fault, FaultReport, MAX_DETAIL};
pub use hub::{EXIT_ESCALATED, Escalation, SupervisionEvent};
pub use incarnation::{Attributed, HandlingScope, Incarnation};
pub use policy::{Intensity, PolicyError, RestartPolicy, Strategy, Verdict};
pub use root::{Placement, Root, RootOptions, StopError};
pub use slot::{ActorSnapshot, RunState};
pub use watch::{LastResort, OnLastResort};

pub use crate::supervised;

/// Locks; what a panicking holder left behind is used as it is, because every critical section
/// here is a plain assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
