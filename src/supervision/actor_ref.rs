//! The only handle of an actor that others hold. It survives restarts.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Handler, Message};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Supervise,
    hub::Hub,
    mailbox::{Call, Job, Letter},
    slot::{ActorSnapshot, Slot},
};
use crate::types::{Origin, Timestamp};

/// Why an actor did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskError {
    /// The actor was restarted while it handled the message, or dropped it because its origin is
    /// cooling down. Whether it took effect is unknown: ask again if that is safe.
    #[error("the actor was restarted while it handled the message")]
    Restarted,
    /// The actor was stopped, or its restart budget is spent. It will not answer again.
    #[error("the actor is down")]
    Down,
    /// No answer within the deadline. A message still queued is then dropped unhandled.
    #[error("the actor did not answer in time")]
    Timeout,
    /// The mailbox is full: try again later, or deny.
    #[error("the actor's mailbox is full")]
    Overloaded,
}

impl AskError {
    /// A stable name, for logs, metrics and the admin protocol.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::Down => "down",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Why a message was not even queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TellError {
    /// The mailbox is full.
    #[error("the actor's mailbox is full")]
    Full,
    /// The actor was stopped, or its restart budget is spent.
    #[error("the actor is down")]
    Down,
}

impl From<TellError> for AskError {
    fn from(error: TellError) -> Self {
        match error {
            TellError::Full => Self::Overloaded,
            TellError::Down => Self::Down,
        }
    }
}

/// The senders' side of an actor.
pub(super) struct Door<A: Supervise> {
    pub(super) slot: Arc<Slot>,
    pub(super) hub: Arc<Hub>,
    pub(super) letters: mpsc::Sender<Box<dyn Letter<A>>>,
    pub(super) jobs: mpsc::Sender<Job<A>>,
    pub(super) last_seen: Mutex<Option<(Timestamp, serde_json::Value)>>,
}

impl<A: Supervise> Door<A> {
    pub(super) fn snapshot(&self) -> ActorSnapshot {
        let capacity = self.letters.max_capacity();
        let waiting = capacity.saturating_sub(self.letters.capacity());
        self.slot.snapshot(waiting, capacity)
    }

    fn post<M>(&self, call: Call<M>) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        if self.slot.is_closed() {
            return Err(TellError::Down);
        }
        self.letters
            .try_send(Box::new(call))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => TellError::Full,
                mpsc::error::TrySendError::Closed(_) => TellError::Down,
            })
    }
}

/// The only handle of an actor that others hold. Cheap to clone; survives restarts.
pub struct ActorRef<A: Supervise>(pub(super) Arc<Door<A>>);

impl<A: Supervise> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Supervise> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef({})", A::NAME)
    }
}

impl<A: Supervise> ActorRef<A> {
    /// Sends `msg` and waits for the answer, at most for `deadline`.
    ///
    /// # Errors
    /// As [`AskError`] says. A message that was still queued at a fault is answered by the next
    /// incarnation, not refused.
    pub async fn ask<M>(&self, msg: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.call(None, msg, deadline).await
    }

    /// As [`ask`](Self::ask), for input of a peer: at a fault it is blamed, and while it cools
    /// down its messages are dropped ([`AskError::Restarted`]).
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub async fn ask_for<M>(
        &self,
        origin: Origin,
        msg: M,
        deadline: Duration,
    ) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.call(Some(origin), msg, deadline).await
    }

    async fn call<M>(
        &self,
        origin: Option<Origin>,
        message: M,
        deadline: Duration,
    ) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (reply, answer) = oneshot::channel();
        self.0.post(Call {
            message,
            reply: Some(reply),
            origin,
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_dropped)) if self.0.slot.is_closed() => Err(AskError::Down),
            Ok(Err(_dropped)) => Err(AskError::Restarted),
            Err(_elapsed) => Err(AskError::Timeout),
        }
    }

    /// Queues `msg`; nobody learns what became of it.
    ///
    /// # Errors
    /// As [`TellError`] says.
    pub fn tell<M>(&self, msg: M) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.0.post(Call {
            message: msg,
            reply: None,
            origin: None,
        })
    }

    /// As [`tell`](Self::tell), for input of a peer; see [`ask_for`](Self::ask_for).
    ///
    /// # Errors
    /// As [`TellError`] says.
    pub fn tell_for<M>(&self, origin: Origin, msg: M) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.0.post(Call {
            message: msg,
            reply: None,
            origin: Some(origin),
        })
    }

    /// The incarnation that runs, 0 before the first; changes when a new one is ready.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.0.slot.running()
    }

    /// The actor as an operator sees it.
    #[must_use]
    pub fn snapshot(&self) -> ActorSnapshot {
        self.0.snapshot()
    }
}
