//! What an accepted peer may do with streams, whatever transport carries them.
//!
//! Counted where every transport passes: streams a peer has open at once, and how fast it opens
//! them. The second matters because a stream that is opened and reset at once costs a
//! negotiation and never counts as open. Over either bound the connection ends, and whoever
//! asked is told once.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt};
use tokio::time::{Sleep, sleep};

use super::{Breach, Window};
use crate::{config::LimitsConfig, types::Clock};

/// How long the peer may take to let a connection end in order. One that does not read could
/// hold its place for ever.
const CLOSE: Duration = Duration::from_millis(250);

type Substream = <StreamMuxerBox as StreamMuxer>::Substream;

/// How many streams a peer may have and open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Open at once on one connection.
    pub at_once: usize,
    /// Opened in a second.
    pub per_second: u32,
    /// Opened at once after a pause.
    pub burst: u32,
}

impl From<&LimitsConfig> for StreamLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            at_once: usize::try_from(limits.streams_per_connection).unwrap_or(usize::MAX),
            // A job request takes a stream.
            per_second: limits
                .streams_per_second
                .max(limits.job_requests_per_second),
            burst: limits.stream_burst.max(limits.job_request_burst),
        }
    }
}

/// Stream openings a peer has left, in thousandths.
#[derive(Debug)]
struct Budget {
    limits: StreamLimits,
    left: u64,
    at: Duration,
}

impl Budget {
    fn new(limits: StreamLimits, now: Duration) -> Self {
        Self {
            limits,
            left: u64::from(limits.burst).saturating_mul(1_000),
            at: now,
        }
    }

    fn spend(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at);
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        if passed > 0 {
            // Fractions of a millisecond are not given away twice.
            self.at = self.at.saturating_add(Duration::from_millis(passed));
            let most = u64::from(self.limits.burst).saturating_mul(1_000);
            let earned = passed.saturating_mul(u64::from(self.limits.per_second));
            self.left = self.left.saturating_add(earned).min(most);
        }
        match self.left.checked_sub(1_000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Told once, when a peer went over a bound.
pub type OnBreach = Box<dyn FnOnce(Breach) + Send>;

/// A connection of an accepted peer, within its bounds.
pub struct Bounded {
    inner: StreamMuxerBox,
    window: Option<Window>,
    clock: Arc<dyn Clock>,
    limits: StreamLimits,
    budget: Budget,
    open: Arc<AtomicUsize>,
    /// When the budget of control frames is given again.
    next_second: Duration,
    on_breach: Option<OnBreach>,
    breach: Option<Breach>,
    /// Runs since the connection was first to be closed.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    /// Puts bounds around a connection whose peer was accepted.
    #[must_use]
    pub fn new(
        inner: StreamMuxerBox,
        window: Option<Window>,
        limits: StreamLimits,
        clock: Arc<dyn Clock>,
        on_breach: OnBreach,
    ) -> Self {
        if let Some(window) = &window {
            window.accept();
        }
        let now = clock.elapsed();
        Self {
            inner,
            window,
            limits,
            budget: Budget::new(limits, now),
            open: Arc::default(),
            next_second: now.saturating_add(Duration::from_secs(1)),
            clock,
            on_breach: Some(on_breach),
            breach: None,
            closing: None,
        }
    }

    fn breached(&mut self, breach: Breach) -> io::Error {
        self.breach = Some(breach);
        if let Some(told) = self.on_breach.take() {
            told(breach);
        }
        breach.into()
    }

    fn seen<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| match Breach::of(&error) {
            Some(breach) => self.breached(breach),
            None => error,
        })
    }

    fn check(&self) -> io::Result<()> {
        self.breach.map_or(Ok(()), |breach| Err(breach.into()))
    }

    fn tick(&mut self) {
        let now = self.clock.elapsed();
        if now >= self.next_second {
            self.next_second = now.saturating_add(Duration::from_secs(1));
            if let Some(window) = &self.window {
                window.forgive();
            }
        }
    }
}

impl StreamMuxer for Bounded {
    type Substream = Counted;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        self.check()?;
        let polled = ready!(self.inner.poll_inbound_unpin(cx));
        let stream = self.seen(polled)?;
        if !self.budget_left() {
            return Poll::Ready(Err(self.breached(Breach::StreamRate)));
        }
        if self.open.load(Ordering::Relaxed) >= self.limits.at_once {
            return Poll::Ready(Err(self.breached(Breach::Streams)));
        }
        Poll::Ready(Ok(Counted::new(stream, Some(&self.open))))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        self.check()?;
        let polled = ready!(self.inner.poll_outbound_unpin(cx));
        let stream = self.seen(polled)?;
        // This node's own: its number is the node's affair.
        Poll::Ready(Ok(Counted::new(stream, None)))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.check()?;
        self.tick();
        let polled = ready!(self.inner.poll_unpin(cx));
        Poll::Ready(self.seen(polled))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = self.inner.poll_close_unpin(cx) {
            return Poll::Ready(closed);
        }
        // Whoever closes drops the connection next.
        let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE)));
        closing.as_mut().poll(cx).map(Ok)
    }
}

impl Bounded {
    fn budget_left(&mut self) -> bool {
        let now = self.clock.elapsed();
        self.budget.spend(now)
    }
}

/// A stream that counts as open while it lives.
pub struct Counted {
    inner: Substream,
    open: Option<Arc<AtomicUsize>>,
}

impl Counted {
    fn new(inner: Substream, open: Option<&Arc<AtomicUsize>>) -> Self {
        let open = open.map(Arc::clone);
        if let Some(open) = &open {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Self { inner, open }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_no_more_than_a_burst_after_a_pause() {
        let limits = StreamLimits {
            at_once: 1,
            per_second: 10,
            burst: 5,
        };
        let at = Duration::from_millis;
        let mut budget = Budget::new(limits, at(0));
        let spent = |budget: &mut Budget, now| (0..100).filter(|_| budget.spend(now)).count();
        assert_eq!(spent(&mut budget, at(0)), 5);
        assert_eq!(spent(&mut budget, at(99)), 0);
        assert_eq!(spent(&mut budget, at(100)), 1);
        assert_eq!(spent(&mut budget, at(300)), 2);
        assert_eq!(spent(&mut budget, at(100_000)), 5);
        // A clock that stands still gives nothing.
        assert_eq!(spent(&mut budget, at(100_000)), 0);
    }
}
