//! Drives libp2p's Swarm inside the actor.
//!
//! `Swarm`'s stream never ends, so it stays a field and this future polls it: at most
//! [`EVENTS_PER_POLL`] events, then it wakes itself and lets the mailbox and the timers have
//! their turn. No second task, no channel.

use std::{
    pin::Pin,
    task::{Context as Waking, Poll},
};

use actix::{Context, fut::ActorFuture};
use futures::Stream as _;

use super::SwarmActor;

/// Events handled before the actor's other work gets its turn: enough to amortise the wake-up
/// (a few microseconds each), few enough that a command waits well under a millisecond.
const EVENTS_PER_POLL: usize = 32;

/// The future that [`SwarmActor::on_start`](crate::supervision::Supervise::on_start) spawns.
#[derive(Debug)]
pub(super) struct Drive;

impl ActorFuture<SwarmActor> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut SwarmActor,
        ctx: &mut Context<SwarmActor>,
        waking: &mut Waking<'_>,
    ) -> Poll<()> {
        for _ in 0..EVENTS_PER_POLL {
            let Some(swarm) = act.swarm.as_mut() else { return Poll::Ready(()) };
            match Pin::new(swarm).poll_next(waking) {
                Poll::Ready(Some(event)) => act.on_swarm_event(event, ctx),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        waking.waker().wake_by_ref();
        Poll::Pending
    }
}
