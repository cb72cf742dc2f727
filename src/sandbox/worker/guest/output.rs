//! The guest's stdout and stderr: frames to the node, counted against one limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use super::{
    super::{Teller, frame::Kind},
    Stop,
};
use crate::sandbox::{LimitName, Stream};

/// Bytes of one write; WASI's own usual permit.
const PERMIT: usize = 64 << 10;

/// What was written, and how much may be.
#[derive(Debug, Clone)]
pub(super) struct Counter(Arc<Count>);

#[derive(Debug)]
struct Count {
    most: u64,
    stdout: AtomicU64,
    stderr: AtomicU64,
}

impl Counter {
    pub(super) fn new(most: u64) -> Self {
        Self(Arc::new(Count {
            most,
            stdout: AtomicU64::new(0),
            stderr: AtomicU64::new(0),
        }))
    }

    /// Bytes told so far.
    pub(super) fn written(&self) -> (u64, u64) {
        let count = &self.0;
        (
            count.stdout.load(Ordering::SeqCst),
            count.stderr.load(Ordering::SeqCst),
        )
    }

    /// How many of so many bytes may still be told. Only the guest's thread writes.
    fn take(&self, stream: Stream, wanted: usize) -> usize {
        let (out, err) = self.written();
        let left = self.0.most.saturating_sub(out.saturating_add(err));
        let taken = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        let side = match stream {
            Stream::Stdout => &self.0.stdout,
            Stream::Stderr => &self.0.stderr,
        };
        side.fetch_add(u64::try_from(taken).unwrap_or(u64::MAX), Ordering::SeqCst);
        taken
    }
}

/// One of the two.
#[derive(Debug, Clone)]
pub(super) struct GuestOutput {
    stream: Stream,
    counter: Counter,
    teller: Teller,
}

impl GuestOutput {
    pub(super) fn new(stream: Stream, counter: &Counter, teller: &Teller) -> Self {
        Self {
            stream,
            counter: counter.clone(),
            teller: teller.clone(),
        }
    }

    /// Tells what the limit allows; that is written even when it is not all.
    fn put(&self, bytes: &[u8]) -> StreamResult<()> {
        let kind = match self.stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        let taken = self.counter.take(self.stream, bytes.len());
        let allowed = bytes.get(..taken).unwrap_or_default();
        for piece in allowed.chunks(PERMIT) {
            self.teller.tell(kind, piece);
        }
        if taken < bytes.len() {
            return Err(StreamError::Trap(Stop::Limit(LimitName::Output).into()));
        }
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for GuestOutput {
    // It blocks while the node does not read: then the guest waits, which is what is wanted.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 1 writes through `p2_stream`; whoever else asks gets nothing to write to.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
