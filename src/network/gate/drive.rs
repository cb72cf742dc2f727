//! Driving a connection while something is awaited over one of its streams.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::pin,
    task::{Context, Poll},
};

use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};

use crate::{
    identity::Refusal,
    network::{attribution, secure::Breach},
    types::PeerId,
};

/// What driving a connection must know of its peer.
#[derive(Clone, Copy)]
pub(super) struct Who {
    pub(super) peer: PeerId,
    pub(super) ip: Option<IpAddr>,
    /// It was seen to speak the gate's protocol.
    pub(super) speaks: bool,
}

/// Streams the peer opens beside the gate's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// End the exchange: this node did not accept the peer yet.
    Forbidden,
    /// Wait in the muxer: the peer has our acceptance, or needs none, and may begin.
    Wait,
}

/// Polls `future` and the connection together, so that either can make progress.
pub(super) async fn drive<F: Future>(
    muxer: &mut StreamMuxerBox,
    who: Who,
    others: Others,
    future: F,
) -> Result<F::Output, Refusal> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        attribution::note(who.peer, who.ip);
        let lost = match poll_muxer(muxer, others, cx) {
            Muxer::Alive => false,
            Muxer::Lost(None) => true,
            Muxer::Lost(breach) => return Poll::Ready(Err(ended(breach))),
            Muxer::Stream if who.speaks => {
                let early = Refusal::Violation("a stream before acceptance");
                return Poll::Ready(Err(early));
            }
            // A plain client that just begins to talk: it knows no better.
            Muxer::Stream => return Poll::Ready(Err(Refusal::Missing)),
        };
        match future.as_mut().poll(cx) {
            // What arrived before the connection was lost still counts.
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if lost => Poll::Ready(Err(ended(None))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What the end of a connection comes to at the gate.
pub(super) fn ended(breach: Option<Breach>) -> Refusal {
    breach.map_or(Refusal::Interrupted("connection lost"), |breach| {
        Refusal::Violation(breach.code())
    })
}

/// What one poll of the connection came to.
pub(super) enum Muxer {
    Alive,
    /// The connection is gone, perhaps because the peer went over its bounds.
    Lost(Option<Breach>),
    /// The peer opened a stream; it is dropped.
    Stream,
}

pub(super) fn poll_muxer(
    muxer: &mut StreamMuxerBox,
    others: Others,
    cx: &mut Context<'_>,
) -> Muxer {
    if others == Others::Forbidden {
        match muxer.poll_inbound_unpin(cx) {
            Poll::Ready(Ok(_)) => return Muxer::Stream,
            Poll::Ready(Err(error)) => return Muxer::Lost(Breach::of(&error)),
            Poll::Pending => {}
        }
    }
    match muxer.poll_unpin(cx) {
        Poll::Ready(Err(error)) => Muxer::Lost(Breach::of(&error)),
        Poll::Ready(Ok(_)) => {
            // An address change is of no interest here, but the poll must be repeated.
            cx.waker().wake_by_ref();
            Muxer::Alive
        }
        Poll::Pending => Muxer::Alive,
    }
}
