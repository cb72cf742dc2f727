//! Drives libp2p's Swarm inside the actor.
//!
//! `Swarm`'s stream never ends, so it stays a field and this future polls it: at most
//! [`EVENTS_PER_POLL`] events, then it wakes itself and lets the mailbox and the timers have
//! their turn. No second task, no channel. Before each turn it hands over the batches that are due,
//! and it wakes when the next one is.

use std::{
    pin::Pin,
    task::{Context as Waking, Poll},
    time::Duration,
};

use actix::{Context, fut::ActorFuture};
use futures::Stream as _;
use tokio::time::{Sleep, sleep};

use super::SwarmActor;

/// Events handled before the actor's other work gets its turn: enough to amortise the wake-up
/// (a few microseconds each), few enough that a command waits well under a millisecond.
const EVENTS_PER_POLL: usize = 32;

/// The future that [`SwarmActor::on_start`](crate::supervision::Supervise::on_start) spawns.
#[derive(Debug, Default)]
pub(super) struct Drive {
    /// Wakes it for the batch that is due then.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Drive {
    /// Has the task woken when the next batch is due. `true`: it is.
    fn arm(&mut self, act: &SwarmActor, waking: &mut Waking<'_>) -> bool {
        let Some(due) = act.outbox.next_due() else {
            self.timer = None;
            return false;
        };
        let now = act.tools.clock.elapsed();
        if due <= now {
            return true;
        }
        match &self.timer {
            Some((armed, _)) if *armed == due => {}
            _ => self.timer = Some((due, Box::pin(sleep(due.saturating_sub(now))))),
        }
        let timer = self.timer.as_mut();
        timer.is_some_and(|(_, timer)| timer.as_mut().poll(waking).is_ready())
    }
}

impl ActorFuture<SwarmActor> for Drive {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        act: &mut SwarmActor,
        ctx: &mut Context<SwarmActor>,
        waking: &mut Waking<'_>,
    ) -> Poll<()> {
        let mut more = act.flush_batches();
        for _ in 0..EVENTS_PER_POLL {
            let Some(swarm) = act.swarm.as_mut() else {
                return Poll::Ready(());
            };
            match Pin::new(swarm).poll_next(waking) {
                Poll::Ready(Some(event)) => act.on_swarm_event(event, ctx),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if !more => {
                    more = self.arm(act, waking);
                    if !more {
                        return Poll::Pending;
                    }
                    break;
                }
                Poll::Pending => break,
            }
        }
        waking.waker().wake_by_ref();
        Poll::Pending
    }
}
