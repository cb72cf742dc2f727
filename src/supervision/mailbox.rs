//! The mailbox: a bounded queue that belongs to the guard and outlives every incarnation.
//!
//! The queue is not actix's own. That one cannot be interrupted fairly: `ctx.wait(yield_now())`
//! lets actix poll one spawned future for each yield, and with three or more of them some are
//! never polled under a flood. Here a [`Pump`], itself a spawned future of the actor, hands over
//! at most [`TURN`] messages and then lets everything else run. See
//! `docs/decisions/0001-supervision.md`.

use std::{
    cell::{Cell, RefCell},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use actix::{
    ActorContext, ActorFuture, AsyncContext, Context, Handler, Message, dev::MessageResponse,
};
use tokio::sync::{mpsc, oneshot};

use super::{Supervise, SupervisionEvent, hub::Hub, slot::Slot};
use crate::types::Origin;

/// Messages handled before the actor's futures and then the runtime get their turn. At about a
/// microsecond each this costs a waiting socket some 30 µs.
pub(super) const TURN: u32 = 32;
/// Observations and injections that may wait for one actor: operators are few.
pub(super) const JOBS: usize = 16;

/// Something in the mailbox.
pub(super) trait Letter<A: Supervise>: Send {
    /// Whose input it is, when it is a peer's.
    fn origin(&self) -> Option<Origin>;
    /// Whether anyone still waits for it.
    fn wanted(&self) -> bool;
    /// Handles it.
    fn deliver(self: Box<Self>, act: &mut A, ctx: &mut Context<A>);
}

/// A message with its way back.
pub(super) struct Call<M: Message> {
    pub(super) message: M,
    /// `None` for a `tell`.
    pub(super) reply: Option<oneshot::Sender<M::Result>>,
    pub(super) origin: Option<Origin>,
}

impl<A, M> Letter<A> for Call<M>
where
    A: Supervise + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn origin(&self) -> Option<Origin> {
        self.origin
    }

    fn wanted(&self) -> bool {
        !self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn deliver(self: Box<Self>, act: &mut A, ctx: &mut Context<A>) {
        let Self { message, reply, .. } = *self;
        act.handle(message, ctx).handle(ctx, reply);
    }
}

/// Work on the actor that no message stands for: an observation, an injected fault.
pub(super) type Job<A> = Box<dyn FnOnce(&mut A, &mut Context<A>) + Send>;

/// How far an orderly stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    /// No stop is wanted.
    No,
    /// The queue is being emptied.
    Draining,
    /// `on_stop` was called; what it waits for is being finished.
    Hooked,
    /// The context was told to stop.
    Done,
}

/// What guard and pump share; both live on the actor's thread.
pub(super) struct Desk<A: Supervise> {
    pub(super) slot: Arc<Slot>,
    pub(super) hub: Arc<Hub>,
    letters: RefCell<mpsc::Receiver<Box<dyn Letter<A>>>>,
    jobs: RefCell<mpsc::Receiver<Job<A>>>,
    /// Messages left in this turn.
    turn: Cell<u32>,
    /// Whether the pump has not yet run in this turn: it counts as progress once, or a context
    /// that polls its futures in circles would look alive.
    fresh: Cell<bool>,
    pub(super) started: Cell<bool>,
    pub(super) stopping: Cell<Stopping>,
    /// Whether the last message made the context wait, so that its origin stays to blame.
    blame_kept: Cell<bool>,
}

impl<A: Supervise> Desk<A> {
    pub(super) fn new(
        slot: Arc<Slot>,
        hub: Arc<Hub>,
        letters: mpsc::Receiver<Box<dyn Letter<A>>>,
        jobs: mpsc::Receiver<Job<A>>,
    ) -> Self {
        Self {
            slot,
            hub,
            letters: RefCell::new(letters),
            jobs: RefCell::new(jobs),
            turn: Cell::new(0),
            fresh: Cell::new(false),
            started: Cell::new(false),
            stopping: Cell::new(Stopping::No),
            blame_kept: Cell::new(false),
        }
    }

    /// A new turn begins: the guard is about to poll the context.
    pub(super) fn begin_turn(&self) {
        self.turn.set(TURN);
        self.fresh.set(true);
    }

    /// A new incarnation begins.
    pub(super) fn begin_incarnation(&self) {
        self.started.set(false);
        self.blame_kept.set(false);
    }

    /// Takes no further message; those that wait are still handled.
    pub(super) fn begin_stop(&self) {
        self.slot.refuse_messages();
        self.letters.borrow_mut().close();
        self.stopping.set(Stopping::Draining);
    }

    /// Drops whatever waits, so that its callers learn that nobody answers.
    pub(super) fn discard_all(&self) {
        let mut letters = self.letters.borrow_mut();
        letters.close();
        while letters.try_recv().is_ok() {}
        let mut jobs = self.jobs.borrow_mut();
        jobs.close();
        while jobs.try_recv().is_ok() {}
    }

    fn hand_over(&self, letter: Box<dyn Letter<A>>, act: &mut A, ctx: &mut Context<A>) {
        self.turn.set(self.turn.get().saturating_sub(1));
        self.slot.advance();
        if !letter.wanted() {
            return;
        }
        let Some(origin) = letter.origin() else {
            letter.deliver(act, ctx);
            return;
        };
        if self.hub.cooldowns.is_cooling(&origin).is_some() {
            self.hub.cooldowns.count_refusal();
            return;
        }
        self.slot.set_handling(Some(origin));
        letter.deliver(act, ctx);
        if ctx.waiting() {
            self.blame_kept.set(true);
        } else {
            self.slot.set_handling(None);
        }
    }
}

/// The spawned future that hands messages to the actor.
pub(super) struct Pump<A: Supervise>(pub(super) Rc<Desk<A>>);

impl<A: Supervise> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let desk = &self.0;
        if desk.blame_kept.replace(false) {
            desk.slot.set_handling(None);
        }
        if desk.fresh.replace(false) {
            desk.slot.advance();
        }
        while !ctx.waiting() {
            let next = desk.jobs.borrow_mut().poll_recv(task);
            let Poll::Ready(Some(job)) = next else { break };
            job(act, ctx);
        }
        // While the context waits it polls nothing else; when it is done it comes back here.
        while !ctx.waiting() && !desk.slot.is_over() {
            if desk.turn.get() == 0 {
                yield_to_runtime(task);
                break;
            }
            let next = desk.letters.borrow_mut().poll_recv(task);
            match next {
                Poll::Ready(Some(letter)) => desk.hand_over(letter, act, ctx),
                Poll::Ready(None) => {
                    wind_up(desk, act, ctx);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}

/// Has the task polled again after the runtime looked after its timers and sockets; a plain wake
/// would run it again before them.
fn yield_to_runtime(task: &mut TaskContext<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(task);
}

/// The queue is closed and empty: the last steps of an orderly stop.
fn wind_up<A: Supervise>(desk: &Desk<A>, act: &mut A, ctx: &mut Context<A>) {
    if desk.stopping.get() == Stopping::Draining {
        desk.stopping.set(Stopping::Hooked);
        act.on_stop(ctx);
    }
    if desk.stopping.get() == Stopping::Hooked && !ctx.waiting() {
        desk.stopping.set(Stopping::Done);
        ctx.stop();
    }
}

/// The wait that runs `on_start` before the first message.
pub(super) struct Begin<A: Supervise> {
    pub(super) desk: Rc<Desk<A>>,
    pub(super) generation: u64,
}

impl<A: Supervise> ActorFuture<A> for Begin<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut A,
        ctx: &mut Context<A>,
        _task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let desk = &self.desk;
        match act.on_start(ctx) {
            Ok(()) => {
                desk.started.set(true);
                desk.slot.started(self.generation);
                desk.hub.emit(SupervisionEvent::Started {
                    actor: desk.slot.name,
                    generation: self.generation,
                });
                Poll::Ready(())
            }
            Err(fault) => {
                // The guard takes it up when this poll returns; nothing is handled before.
                desk.slot.declare(self.generation, fault);
                Poll::Pending
            }
        }
    }
}
