//! Yamux with bounds that libp2p's adapter has no settings for.
//!
//! libp2p-yamux offers the number of streams alone: windows may grow to 1 GiB a connection, and
//! whoever opens more streams than fit is told so but stays. Here what lies unread in a connection
//! is bounded by [`CONNECTION_WINDOW`] ([`STRANGER_WINDOW`] before the peer is accepted) by not
//! reading the socket further, which slows down that peer alone; and what no honest peer does, a
//! [`Breach`], ends the connection.
//!
//! Streams that nobody takes yet wait in a queue of [`QUEUE`]; one more is a breach.

mod meter;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use thiserror::Error;
use yamux::{ConnectionError, Mode};

use meter::Meter;
pub use meter::{CONNECTION_WINDOW, STRANGER_WINDOW};

/// Streams one connection may have at once, both directions together, as Yamux sees it. Above
/// what `secure::bounded` lets a peer have.
pub const MAX_STREAMS: usize = 256;
/// Streams Yamux may keep, those dropped here included; the meter ends the connection before
/// Yamux's own limit, which ends nothing, is reached.
const MOST_KEPT: usize = 2 * MAX_STREAMS;
/// Inbound streams that wait to be taken. The Swarm settles 32 at a time and takes none meanwhile.
const QUEUE: usize = 96;
/// By how much the windows of all streams of a connection may grow beyond 256 KiB each.
const GROWTH: usize = 2 << 20;
/// A stream's first window, by Yamux's specification.
const FIRST_WINDOW: usize = 256 << 10;
/// Nested errors looked through for a breach.
const MAX_DEPTH: usize = 8;

/// What no honest peer does on a connection; it ends the connection, and the peer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Breach {
    /// More streams at once than a connection may have, or than wait to be served.
    #[error("too many streams at once")]
    Streams,
    /// Streams opened faster than the budget allows, whether or not they stay open.
    #[error("streams opened too fast")]
    StreamRate,
    /// A frame larger than any window.
    #[error("a frame larger than any window")]
    Frame,
    /// A flood of frames that carry nothing.
    #[error("a flood of control frames")]
    Controls,
    /// A stream opened under a number that is taken, or not the peer's to give.
    #[error("a stream opened under a wrong number")]
    Opening,
    /// A window full of data for streams this node dropped, from a peer that reads nothing.
    #[error("sends to dropped streams and does not read")]
    Unread,
}

impl Breach {
    /// A stable, bounded name for metrics and audit.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Streams => "too_many_streams",
            Self::StreamRate => "stream_rate",
            Self::Frame => "oversize_frame",
            Self::Controls => "control_flood",
            Self::Opening => "wrong_stream_number",
            Self::Unread => "does_not_read",
        }
    }

    /// The breach inside a muxer's error, when it was one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        let mut error = error;
        for _ in 0..MAX_DEPTH {
            let inner = error.get_ref()?;
            if let Some(found) = inner.downcast_ref::<Self>() {
                return Some(*found);
            }
            error = inner.downcast_ref::<io::Error>()?;
        }
        None
    }
}

impl From<Breach> for io::Error {
    fn from(breach: Breach) -> Self {
        Self::other(breach)
    }
}

/// The handle by which a connection's bounds are widened once its peer is accepted.
#[derive(Clone, Default)]
pub struct Window(Arc<Mutex<Meter>>);

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Window").finish()
    }
}

impl Window {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        // Changed in whole steps; a panic of another holder leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, tell: impl FnOnce(&mut Meter) -> Option<Waker>) {
        let waker = tell(&mut self.meter());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The peer was accepted: its window is an ordinary one from now on.
    pub fn accept(&self) {
        self.told(Meter::accept);
    }

    /// A second has passed: the budget of control frames is whole again.
    pub(super) fn forgive(&self) {
        self.meter().forgive();
    }

    fn breach(&self) -> Option<Breach> {
        self.meter().breach()
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.meter().total()
    }
}

/// A connection whose incoming frames are metered.
struct Metered<C> {
    io: C,
    window: Window,
    /// Set when the socket took no more writes.
    held_up: Arc<AtomicBool>,
}

impl<C> Metered<C> {
    fn seen<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.held_up.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let room = {
            let mut meter = self.window.meter();
            match meter.room()? {
                Some(room) => room,
                None => {
                    meter.wait(cx.waker());
                    return Poll::Pending;
                }
            }
        };
        let most = room.min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most) else {
            return Poll::Ready(Ok(0));
        };
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if let Some(bytes) = buffer.get(..read) {
            self.window.meter().arrived(bytes)?;
        }
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.seen(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.seen(polled)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// A Yamux connection within bounds.
pub(super) struct Muxer<C> {
    connection: yamux::Connection<Metered<C>>,
    window: Window,
    held_up: Arc<AtomicBool>,
    waiting: VecDeque<Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    pub(super) fn new(io: C, mode: Mode, window: Window) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MOST_KEPT);
        config.set_max_connection_receive_window(Some(MOST_KEPT * FIRST_WINDOW + GROWTH));
        window.meter().peer_is_client(mode == Mode::Server);
        let held_up = Arc::<AtomicBool>::default();
        let metered = Metered {
            io,
            window: window.clone(),
            held_up: Arc::clone(&held_up),
        };
        Self {
            connection: yamux::Connection::new(metered, config, mode),
            window,
            held_up,
            waiting: VecDeque::new(),
            taker: None,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.held_up.store(false, Ordering::Relaxed);
        self.window.meter().polling();
        let Poll::Ready(next) = self.connection.poll_next_inbound(cx) else {
            let written = !self.held_up.load(Ordering::Relaxed);
            let idle = self.window.meter().idle(written);
            if let Some(waker) = idle? {
                waker.wake();
            }
            return Poll::Pending;
        };
        Poll::Ready(match next {
            Some(Ok(stream)) => Ok(Stream::new(stream, self.window.clone())),
            Some(Err(error)) => Err(self.failure(error)),
            None => Err(self.failure(ConnectionError::Closed)),
        })
    }

    /// What the connection died of; a breach comes before what Yamux makes of it.
    fn failure(&self, error: ConnectionError) -> io::Error {
        match (self.window.breach(), error) {
            (Some(breach), _) => breach.into(),
            (None, ConnectionError::Io(error)) => error,
            (None, error) => io::Error::other(error),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.next(cx);
        if next.is_pending() {
            self.taker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let opened = ready!(self.connection.poll_new_outbound(cx));
        Poll::Ready(match opened {
            Ok(stream) => {
                self.window.meter().opened(stream.id().val());
                Ok(Stream::new(stream, self.window.clone()))
            }
            Err(error) => Err(self.failure(error)),
        })
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.next(cx))?;
        if self.waiting.len() >= QUEUE {
            return Poll::Ready(Err(Breach::Streams.into()));
        }
        self.waiting.push_back(stream);
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
        // Others get their turn before the next frame.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(self.connection.poll_close(cx));
        Poll::Ready(closed.map_err(|error| self.failure(error)))
    }
}

/// A stream that tells the meter what is read of it.
pub(super) struct Stream {
    // Dropped in this order: the meter hears of it once Yamux could.
    inner: yamux::Stream,
    part: Part,
}

/// A stream's place in the meter.
struct Part {
    id: u32,
    window: Window,
}

impl Stream {
    fn new(inner: yamux::Stream, window: Window) -> Self {
        let id = inner.id().val();
        let part = Part { id, window };
        Self { inner, part }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.window.told(|meter| meter.gone(self.id));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let Part { id, window } = &self.part;
        window.told(|meter| meter.consumed(*id, read));
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
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
