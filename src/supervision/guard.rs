//! The guard: one future per actor that polls it, catches what it does wrong, and replaces it.
//!
//! ```text
//! Build -> Run -> fault -> (Hold | Backoff) -> Build ...      budget spent -> Ended
//! ```
//!
//! Invariants: at a fault the whole context goes, value and futures, before anything new is made,
//! so no hook and no timer ever sees the old state; the mailbox stays. The guard itself does not
//! panic; if it ever did, dropping it half-way escalates.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use actix::{ActorContext, Addr, AsyncContext, Context, dev::ContextFut};
use rand::{RngExt, rngs::StdRng};
use tokio::sync::watch;

use super::{
    Cause, Fault, Incarnation, Intensity, Supervise, SupervisionEvent, Verdict,
    fault::panic_text,
    mailbox::{Begin, Desk, Pump, Stopping},
    slot::{Order, RunState, Slot},
};
use crate::types::Origin;

/// One incarnation: the value in its context.
struct Body<A: Supervise> {
    future: ContextFut<A, Context<A>>,
    /// Keeps actix's own (unused) mailbox connected, without which a context cannot restart.
    _address: Addr<A>,
}

enum Stage<A: Supervise> {
    /// A value is to be made.
    Build,
    /// It runs, or is starting.
    Run(Box<Body<A>>),
    /// Waiting before the next attempt.
    Backoff(Pin<Box<tokio::time::Sleep>>),
    /// Waiting for a sibling to run again.
    Hold(Pin<Box<dyn Future<Output = ()>>>),
    /// Over.
    Ended,
}

/// See the module.
pub(super) struct Guard<A: Supervise, F> {
    slot: Arc<Slot>,
    desk: Rc<Desk<A>>,
    factory: F,
    intensity: Intensity,
    rng: StdRng,
    stage: Stage<A>,
    /// Set while polled, so that a panic of the guard's own is noticed when it is dropped.
    inside: bool,
}

// Nothing here is pinned in place: what must be is boxed.
impl<A: Supervise, F> Unpin for Guard<A, F> {}

impl<A, F> Guard<A, F>
where
    A: Supervise,
    F: FnMut(Incarnation) -> Result<A, Fault>,
{
    pub(super) fn new(desk: Desk<A>, factory: F, intensity: Intensity, rng: StdRng) -> Self {
        Self {
            slot: desk.slot.clone(),
            desk: Rc::new(desk),
            factory,
            intensity,
            rng,
            stage: Stage::Build,
            inside: false,
        }
    }

    /// Makes a new value and the context it will run in.
    fn build(&mut self) {
        let generation = self.slot.begin_build();
        self.desk.begin_incarnation();
        let incarnation = Incarnation::new(self.slot.clone(), generation);
        let made = catch_unwind(AssertUnwindSafe(|| (self.factory)(incarnation)));
        match made {
            Ok(Ok(value)) => self.stage = Stage::Run(self.embody(value, generation)),
            Ok(Err(fault)) => self.fault(fault, None),
            Err(panic) => self.fault(Fault::Panic(panic_text(&*panic)), None),
        }
    }

    fn embody(&self, value: A, generation: u64) -> Box<Body<A>> {
        let mut ctx = Context::new();
        let address = ctx.address();
        ctx.wait(Begin {
            desk: self.desk.clone(),
            generation,
        });
        ctx.spawn(Pump(self.desk.clone()));
        Box::new(Body {
            future: ctx.into_future(value),
            _address: address,
        })
    }

    /// Polls the actor once. `Pending` means that it goes on; otherwise the stage has changed.
    fn run(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        let Stage::Run(body) = &mut self.stage else {
            return Poll::Ready(());
        };
        self.desk.begin_turn();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut body.future).poll(task)));
        let declared = self.slot.take_declared();
        match (polled, declared) {
            (Err(panic), _) => self.fault(Fault::Panic(panic_text(&*panic)), None),
            (Ok(_), Some(declared)) => self.fault(declared.fault, declared.origin),
            (Ok(Poll::Pending), None) if self.slot.is_given_up() => self.end(RunState::Down),
            (Ok(Poll::Pending), None) => return Poll::Pending,
            (Ok(Poll::Ready(())), None) if self.desk.stopping.get() == Stopping::Done => {
                self.end(RunState::Stopped);
            }
            (Ok(Poll::Ready(())), None) => {
                self.fault(Fault::Exit("the actor stopped itself".to_owned()), None);
            }
        }
        Poll::Ready(())
    }

    /// Deals with the end of an incarnation.
    fn fault(&mut self, fault: Fault, origin: Option<Origin>) {
        let fault = if self.desk.started.get() {
            fault
        } else {
            fault.during_build()
        };
        // What was being handled now, or when the actor declared its fault.
        let origin = self.slot.set_handling(None).or(origin);
        let report = self.desk.hub.report(&fault, origin);
        if self.desk.stopping.get() != Stopping::No {
            tracing::error!(
                actor = A::NAME, cause = %report.cause, detail = report.detail,
                "an actor had a fault while it was being stopped"
            );
            self.slot.note_fault(&report, false);
            return self.end(RunState::Stopped);
        }
        let verdict = if fault.cause() == Cause::Admin {
            Verdict::Restart(Duration::ZERO)
        } else {
            let now = self.desk.hub.clock.elapsed();
            self.intensity.record(now, self.rng.random())
        };
        match verdict {
            Verdict::Restart(wait) => {
                tracing::warn!(
                    actor = A::NAME, cause = %report.cause, detail = report.detail,
                    blamed = report.blamed.as_ref().map(ToString::to_string), ?wait,
                    "restarting an actor"
                );
                self.slot.note_fault(&report, true);
                self.slot.set_state(RunState::Backoff);
                self.desk.hub.emit(SupervisionEvent::Fault {
                    actor: A::NAME,
                    report,
                });
                self.replace_stage(if wait.is_zero() {
                    Stage::Build
                } else {
                    Stage::Backoff(Box::pin(tokio::time::sleep(wait)))
                });
                if self.desk.started.get() {
                    // Told before this actor is built anew, so that the rest waits for that.
                    self.desk.hub.restart_rest(&self.slot);
                }
            }
            Verdict::Escalate => {
                self.desk.hub.escalate(&self.slot, report);
                self.end(RunState::Down);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Restart { detail, after } => self.restart(detail, after),
            Order::Stalled { generation, idle } => {
                // It may have been replaced, or have moved on, since the root looked.
                if generation == self.slot.current() && matches!(self.stage, Stage::Run(_)) {
                    let detail = format!("no progress for {idle:?} while waiting for a future");
                    self.fault(Fault::Stall(detail), None);
                }
            }
            Order::Stop if self.desk.stopping.get() != Stopping::No => {}
            Order::Stop if matches!(self.stage, Stage::Run(_)) => self.desk.begin_stop(),
            Order::Stop => self.end(RunState::Stopped),
        }
    }

    fn restart(&mut self, detail: String, after: Option<watch::Receiver<u64>>) {
        if self.desk.stopping.get() != Stopping::No || matches!(self.stage, Stage::Ended) {
            return;
        }
        let Some(mut running) = after else {
            return self.fault(Fault::Admin(detail), None);
        };
        // The rest was told already; nothing of this actor stays alive while it waits.
        self.desk.started.set(false);
        self.fault(Fault::Admin(detail), None);
        self.stage = Stage::Hold(Box::pin(async move {
            // The sender lives in the sibling's slot, which the root keeps.
            let _ = running.changed().await;
        }));
    }

    fn end(&mut self, state: RunState) {
        self.slot.set_state(state);
        self.replace_stage(Stage::Ended);
        self.desk.discard_all();
    }
}

impl<A: Supervise, F> Guard<A, F> {
    /// Moves on, and does away with the incarnation that ran.
    fn replace_stage(&mut self, next: Stage<A>) {
        if let Stage::Run(body) = std::mem::replace(&mut self.stage, next) {
            discard(body);
        }
    }
}

impl<A, F> Future for Guard<A, F>
where
    A: Supervise,
    F: FnMut(Incarnation) -> Result<A, Fault>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let slot = this.slot.clone();
        let _polling = slot.enter();
        slot.register(task.waker());
        this.inside = true;
        let polled = this.advance(task);
        this.inside = false;
        polled
    }
}

impl<A, F> Guard<A, F>
where
    A: Supervise,
    F: FnMut(Incarnation) -> Result<A, Fault>,
{
    fn advance(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            if self.slot.is_given_up() && !matches!(self.stage, Stage::Ended) {
                // By the root, while this thread was stuck.
                self.end(RunState::Down);
            }
            while let Some(order) = self.slot.take_order() {
                self.obey(order);
            }
            match &mut self.stage {
                Stage::Build => self.build(),
                Stage::Backoff(sleep) => {
                    ready!(sleep.as_mut().poll(task));
                    self.stage = Stage::Build;
                }
                Stage::Hold(sibling) => {
                    ready!(sibling.as_mut().poll(task));
                    self.stage = Stage::Build;
                }
                Stage::Run(_) => ready!(self.run(task)),
                Stage::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl<A: Supervise, F> Drop for Guard<A, F> {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        if self.inside {
            let fault = Fault::Panic("the supervisor itself failed".to_owned());
            let report = self.desk.hub.report(&fault, None);
            self.desk.hub.escalate(&self.slot, report);
        }
        // Otherwise the arbiter ends, which only happens when the whole system does.
        self.slot.set_state(RunState::Stopped);
        self.replace_stage(Stage::Ended);
    }
}

/// Drops an incarnation whose state may be corrupt: actix's hooks do not run, and a panic in a
/// destructor stays here.
fn discard<A: Supervise>(mut body: Box<Body<A>>) {
    // First the futures, then the value: a panic in one destructor must not meet one of the other
    // while it unwinds, which would abort the process.
    for _ in 0..2 {
        match catch_unwind(AssertUnwindSafe(|| body.future.restart())) {
            Ok(_) => break,
            Err(panic) => log_drop_panic::<A>(&*panic),
        }
    }
    // A context that is alive when dropped is polled once more by actix, hooks and all.
    body.future.ctx().terminate();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
        log_drop_panic::<A>(&*panic);
    }
}

fn log_drop_panic<A: Supervise>(panic: &(dyn Any + Send)) {
    tracing::error!(
        actor = A::NAME,
        detail = panic_text(panic),
        "a destructor panicked while an actor was being replaced"
    );
}
