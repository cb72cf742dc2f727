//! What an operator may do with any actor, whatever its type.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use actix::{AsyncContext, fut::wrap_future};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{
    ActorSnapshot, AskError, Fault, Supervise,
    actor_ref::Door,
    lock,
    mailbox::Job,
    slot::{Order, RunState, Slot},
};
use crate::types::Timestamp;

/// Faults that can be injected where the configuration allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inject {
    /// A panic between two messages.
    Panic,
    /// An error, as by [`Incarnation::fail`](super::Incarnation::fail).
    Error,
    /// An async hang: the context waits for a future that never ends.
    Hang,
    /// A stuck thread. It stays stuck until the process ends.
    Block,
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "panic" => Ok(Self::Panic),
            "error" => Ok(Self::Error),
            "hang" => Ok(Self::Hang),
            "block" => Ok(Self::Block),
            other => Err(format!(
                "`{}` is no fault: write panic, error, hang or block",
                other.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Block => "block",
        })
    }
}

/// Why a command about an actor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlError {
    /// It was stopped, or its restart budget is spent.
    #[error("the actor is down: restart the node")]
    Down,
    /// Too many commands wait for it.
    #[error("too many commands wait for the actor: try again, or restart it if it hangs")]
    Busy,
    /// Fault injection is not allowed.
    #[error(
        "fault injection is off: set `testing.fault_injection = true` in a node made for tests"
    )]
    InjectionForbidden,
}

/// An actor's observable state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The state; `null` when the actor never told one.
    pub state: serde_json::Value,
    /// When it was told.
    pub at: Option<Timestamp>,
    /// Why the actor did not tell it now, so that an older one is shown.
    pub stale: Option<AskError>,
}

/// What an operator may do with any actor.
pub trait ActorControl: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What is known of it without asking it.
    fn snapshot(&self) -> ActorSnapshot;

    /// Has it replaced by a fresh incarnation; spends no restart budget. Returns at once.
    ///
    /// # Errors
    /// [`ControlError::Down`].
    fn restart(&self, reason: &str) -> Result<(), ControlError>;

    /// Makes it fail. Returns at once.
    ///
    /// # Errors
    /// As [`ControlError`] says; only where the configuration allows injection.
    fn inject(&self, kind: Inject) -> Result<(), ControlError>;

    /// Asks it for its observable state; shows the last known one when it does not answer within
    /// `deadline`.
    fn observe(&self, deadline: Duration) -> BoxFuture<'static, Observed>;

    /// Begins an orderly stop and waits for its end: the queue is emptied, then `on_stop` runs.
    fn stop(&self) -> BoxFuture<'static, ()>;
}

/// [`ActorControl`] of one actor.
pub(super) struct Control<A: Supervise>(pub(super) Arc<Door<A>>);

impl<A: Supervise> Control<A> {
    fn enqueue(&self, job: Job<A>) -> Result<(), ControlError> {
        if self.0.slot.state().is_final() {
            return Err(ControlError::Down);
        }
        self.0.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlError::Down,
        })
    }
}

impl<A: Supervise> ActorControl for Control<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn snapshot(&self) -> ActorSnapshot {
        self.0.snapshot()
    }

    fn restart(&self, reason: &str) -> Result<(), ControlError> {
        if self.0.slot.state().is_final() {
            return Err(ControlError::Down);
        }
        self.0.slot.order(Order::Restart {
            detail: reason.to_owned(),
            after: None,
        });
        Ok(())
    }

    fn inject(&self, kind: Inject) -> Result<(), ControlError> {
        if !self.0.hub.allow_injection {
            return Err(ControlError::InjectionForbidden);
        }
        tracing::warn!(actor = A::NAME, fault = %kind, "injecting a fault");
        self.enqueue(injection::<A>(kind, self.0.slot.clone()))
    }

    fn observe(&self, deadline: Duration) -> BoxFuture<'static, Observed> {
        let (tx, rx) = oneshot::channel();
        let job: Job<A> = Box::new(move |act, _ctx| {
            // The asker may have gone.
            let _ = tx.send(act.observe());
        });
        let queued = self.enqueue(job);
        let door = self.0.clone();
        Box::pin(async move {
            let answer = match queued {
                Ok(()) => match tokio::time::timeout(deadline, rx).await {
                    Ok(Ok(state)) => Ok(state),
                    Ok(Err(_)) if door.slot.is_closed() => Err(AskError::Down),
                    Ok(Err(_)) => Err(AskError::Restarted),
                    Err(_) => Err(AskError::Timeout),
                },
                Err(ControlError::Down) => Err(AskError::Down),
                Err(_) => Err(AskError::Overloaded),
            };
            remember(&door, answer)
        })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        let mut states = self.0.slot.states();
        self.0.slot.order(Order::Stop);
        Box::pin(async move {
            // The sender lives in the slot, which the receiver's owner keeps: never closed.
            let _ = states.wait_for(|state| RunState::is_final(*state)).await;
        })
    }
}

fn remember<A: Supervise>(door: &Door<A>, answer: Result<A::Observable, AskError>) -> Observed {
    let mut last = lock(&door.last_seen);
    let stale = match answer {
        Ok(state) => {
            let value = serde_json::to_value(state)
                .unwrap_or_else(|error| serde_json::json!({ "unprintable": error.to_string() }));
            *last = Some((door.hub.clock.now(), value));
            None
        }
        Err(error) => Some(error),
    };
    Observed {
        state: last
            .as_ref()
            .map_or(serde_json::Value::Null, |(_, value)| value.clone()),
        at: last.as_ref().map(|(at, _)| *at),
        stale,
    }
}

#[expect(clippy::panic, reason = "a panic is what was asked for")]
fn injection<A: Supervise>(kind: Inject, slot: Arc<Slot>) -> Job<A> {
    match kind {
        Inject::Panic => Box::new(|_, _| panic!("injected panic")),
        Inject::Error => Box::new(move |_, _| {
            slot.declare(slot.current(), Fault::Error("injected error".to_owned()));
        }),
        Inject::Hang => Box::new(|_, ctx| ctx.wait(wrap_future(std::future::pending()))),
        Inject::Block => Box::new(|_, _| {
            loop {
                std::thread::park();
            }
        }),
    }
}
