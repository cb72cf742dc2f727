//! Everything a worker writes goes through here: one lock, one last word.
//!
//! Output is collected for a moment (a tick at most), each stream by itself, so that a guest that
//! writes byte by byte, here and there, does not cost its node a frame each. The last word flushes it and ends the process; whoever
//! says it first (the guest's thread, the ticker, the control thread) wins.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use super::protocol::{self, FromWorker, Verdict};
use crate::{
    sandbox::{LimitName, MAX_CHUNK, Outcome, Stream, Usage, raw},
    types::{Clock, SystemClock},
};

/// How a worker's voice is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The guest wrote more than it may; what fitted was sent.
    #[error("stopped by limit output")]
    Limit,
    /// The node does not listen any more.
    #[error("nobody listens")]
    Gone,
}

#[derive(Debug)]
struct State {
    pipe: File,
    out: Collected,
    err: Collected,
    limit: u64,
    ended: bool,
}

/// What one stream of the guest's has to say.
#[derive(Debug)]
struct Collected {
    stream: Stream,
    bytes: Vec<u8>,
    /// Bytes in all, sent or not.
    total: u64,
}

impl Collected {
    fn of(stream: Stream) -> Self {
        Self {
            stream,
            bytes: Vec::with_capacity(MAX_CHUNK),
            total: 0,
        }
    }

    fn flush(&mut self, pipe: &mut File) -> Result<(), Refusal> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(MAX_CHUNK));
        let frame = FromWorker::Output(self.stream, bytes);
        protocol::say(pipe, &frame).map_err(|_| Refusal::Gone)
    }

    fn write(&mut self, mut rest: &[u8], pipe: &mut File) -> Result<(), Refusal> {
        let length = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(length);
        while !rest.is_empty() {
            let space = MAX_CHUNK.saturating_sub(self.bytes.len());
            let (now, later) = rest.split_at(rest.len().min(space));
            self.bytes.extend_from_slice(now);
            rest = later;
            if self.bytes.len() >= MAX_CHUNK {
                self.flush(pipe)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: SystemClock,
    started: AtomicU64,
    cpu_before: AtomicU64,
    memory_peak: AtomicU64,
}

/// The worker's voice. Clones are the same voice.
#[derive(Debug, Clone)]
pub(crate) struct Voice(Arc<Shared>);

/// The work has not begun.
const NOT_STARTED: u64 = u64::MAX;

impl Voice {
    /// A voice on this pipe.
    pub(crate) fn new(pipe: File) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                pipe,
                out: Collected::of(Stream::Stdout),
                err: Collected::of(Stream::Stderr),
                limit: 0,
                ended: false,
            }),
            clock: SystemClock::new(),
            started: AtomicU64::new(NOT_STARTED),
            cpu_before: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked left whole frames or none: the pipe is written in one call.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that is no output and not the last word.
    pub(crate) fn say(&self, word: &FromWorker) -> io::Result<()> {
        protocol::say(&mut self.lock().pipe, word)
    }

    /// The work begins now: wall clock and processor time count from here. The guest may write
    /// `output` bytes.
    pub(crate) fn start(&self, output: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.limit = output;
        self.0
            .started
            .store(micros(self.0.clock.elapsed()), Ordering::SeqCst);
        protocol::say(&mut state.pipe, &FromWorker::Started)
    }

    /// Processor time used until now is the process's own, not the job's.
    pub(crate) fn count_from_here(&self) {
        self.0.cpu_before.store(process_cpu(), Ordering::SeqCst);
    }

    /// Time since the work began; `None` before.
    pub(crate) fn wall(&self) -> Option<Duration> {
        match self.0.started.load(Ordering::SeqCst) {
            NOT_STARTED => None,
            started => Some(
                self.0
                    .clock
                    .elapsed()
                    .saturating_sub(Duration::from_micros(started)),
            ),
        }
    }

    /// Processor time of the job until now.
    pub(crate) fn cpu(&self) -> Duration {
        let before = self.0.cpu_before.load(Ordering::SeqCst);
        Duration::from_micros(process_cpu().saturating_sub(before))
    }

    /// The guest has this much memory now.
    pub(crate) fn memory(&self, bytes: u64) {
        self.0.memory_peak.fetch_max(bytes, Ordering::SeqCst);
    }

    /// The guest writes. Blocks while the node does not read.
    pub(crate) fn output(&self, stream: Stream, bytes: &[u8]) -> Result<(), Refusal> {
        let mut state = self.lock();
        let State {
            pipe,
            out,
            err,
            limit,
            ..
        } = &mut *state;
        let room = limit.saturating_sub(out.total.saturating_add(err.total));
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let collected = match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        };
        collected.write(bytes.get(..fits).unwrap_or_default(), pipe)?;
        if fits < bytes.len() {
            return Err(Refusal::Limit);
        }
        Ok(())
    }

    /// Sends what was collected, unless the guest's thread is sending just now.
    pub(crate) fn flush_if_idle(&self) {
        if let Ok(mut state) = self.0.state.try_lock()
            && state.flush().is_err()
        {
            raw::exit_now(1);
        }
    }

    /// The last word, and the end of the process.
    pub(crate) fn end(&self, outcome: Outcome, fuel: Option<u64>) -> ! {
        self.finish(&mut self.lock(), outcome, fuel, false)
    }

    /// The last word when the compiled module is none for this program.
    pub(crate) fn end_stale(&self, outcome: Outcome) -> ! {
        self.finish(&mut self.lock(), outcome, None, true)
    }

    /// The last word, unless somebody speaks just now: then the caller tries again later.
    pub(crate) fn try_end(&self, outcome: Outcome) {
        if let Ok(mut state) = self.0.state.try_lock() {
            self.finish(&mut state, outcome, None, false)
        }
    }

    /// As [`Self::end`] with `stopped`.
    pub(crate) fn try_stop(&self, limit: LimitName) {
        self.try_end(Outcome::Stopped { limit });
    }

    fn finish(&self, state: &mut State, outcome: Outcome, fuel: Option<u64>, stale: bool) -> ! {
        if !state.ended && state.flush().is_ok() {
            state.ended = true;
            let usage = Usage {
                wall_ms: micros(self.wall().unwrap_or_default()) / 1_000,
                cpu_us: micros(self.cpu()),
                fuel,
                memory_peak: self.0.memory_peak.load(Ordering::SeqCst),
                stdout: state.out.total,
                stderr: state.err.total,
            };
            let verdict = Verdict {
                outcome,
                usage,
                stale,
            };
            // When nobody listens there is nobody to tell.
            let _ = protocol::say(&mut state.pipe, &FromWorker::Verdict(verdict));
        }
        raw::exit_now(0)
    }
}

impl State {
    fn flush(&mut self) -> Result<(), Refusal> {
        self.out.flush(&mut self.pipe)?;
        self.err.flush(&mut self.pipe)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Processor time of this process, all threads, microseconds.
fn process_cpu() -> u64 {
    // Without an answer (there always is one) the wall clock still bounds the job.
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        let spent = usage.user_time() + usage.system_time();
        u64::try_from(spent.num_microseconds()).unwrap_or(0)
    })
}
