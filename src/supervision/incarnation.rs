//! One life of an actor: given to its factory, kept by the value.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use actix::{Actor, ActorFuture};

use super::{Fault, slot::Slot};
use crate::types::Origin;

/// A handle of an actor's present life; cheap to clone. One of an earlier life does nothing.
#[derive(Debug, Clone)]
pub struct Incarnation {
    slot: Arc<Slot>,
    generation: u64,
}

impl Incarnation {
    pub(super) fn new(slot: Arc<Slot>, generation: u64) -> Self {
        Self { slot, generation }
    }

    /// Which life this is, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Asks for a restart with an `error` fault. The message at hand is finished, no further one
    /// is taken, and the value is replaced when the current poll returns.
    pub fn fail(&self, error: impl fmt::Display) {
        self.slot.declare(self.generation, Fault::error(error));
    }

    /// Says whose input is handled while the returned scope lives. When a panic unwinds through
    /// the scope, the origin is blamed for it. Never hold it across an await: use
    /// [`attribute`](Self::attribute) there.
    pub fn handling(&self, origin: Origin) -> HandlingScope {
        HandlingScope {
            before: self.slot.set_handling(Some(origin)),
            slot: self.slot.clone(),
        }
    }

    /// Wraps a future so that whatever goes wrong while it is polled is blamed on `origin`.
    pub fn attribute<A, F>(&self, origin: Origin, future: F) -> Attributed<F>
    where
        A: Actor,
        F: ActorFuture<A>,
    {
        Attributed {
            incarnation: self.clone(),
            origin,
            future: Box::pin(future),
        }
    }

    /// Tells the stall watch that work is going on. For loops and waits that keep messages
    /// waiting for longer than a fraction of the actor's stall limit.
    pub fn progress(&self) {
        if self.slot.current() == self.generation {
            self.slot.advance();
        }
    }
}

/// See [`Incarnation::handling`].
#[derive(Debug)]
#[must_use = "the origin is forgotten when the scope is dropped"]
pub struct HandlingScope {
    slot: Arc<Slot>,
    before: Option<Origin>,
}

impl Drop for HandlingScope {
    fn drop(&mut self) {
        // An unwinding panic keeps the origin, for the guard to blame.
        if !std::thread::panicking() {
            self.slot.set_handling(self.before);
        }
    }
}

/// See [`Incarnation::attribute`].
pub struct Attributed<F> {
    incarnation: Incarnation,
    origin: Origin,
    future: Pin<Box<F>>,
}

impl<F> fmt::Debug for Attributed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributed")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl<A: Actor, F: ActorFuture<A>> ActorFuture<A> for Attributed<F> {
    type Output = F::Output;

    fn poll(
        self: Pin<&mut Self>,
        act: &mut A,
        ctx: &mut A::Context,
        task: &mut TaskContext<'_>,
    ) -> Poll<Self::Output> {
        let this = self.get_mut();
        let _scope = this.incarnation.handling(this.origin);
        this.future.as_mut().poll(act, ctx, task)
    }
}
