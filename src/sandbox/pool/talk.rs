//! One conversation with one worker: the order goes in, frames come out, and every limit ends it.
//!
//! The node's clock decides here, not the worker's word: whatever the worker does, the
//! conversation ends [`GRACE`] after its limit at the latest, and the process with it.

use std::os::unix::process::ExitStatusExt;
use std::{io, process::ExitStatus, time::Duration};

use futures::StreamExt;
use nix::libc;
use tokio::{
    io::AsyncWriteExt,
    process::ChildStdin,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{bytes::Bytes, sync::CancellationToken};
use tracing::warn;

use super::{
    GRACE, Output,
    process::{Worker, bury},
};
use crate::{
    sandbox::{
        CancelledBy, JobFault, LimitName, Outcome, Usage,
        worker::protocol::{FromWorker, ProtocolError, Verdict, from_node},
    },
    types::{Clock, SystemClock},
};

/// How long a worker may take to receive its bytes and load them, before its work begins. 256
/// MiB pass in less than a second.
const LOAD_TIME: Duration = Duration::from_secs(20);

/// Threads of a worker, which can use that many processors at most.
const THREADS: u64 = 3;

/// Frames of output beyond the full ones that a worker may send at once, and how many more a
/// millisecond, in thousandths: it sends what it collected of two streams every ten milliseconds
/// (two hundred a second), and may come late. Each frame costs this node a write to the disk.
const FRAMES: (u64, u64) = (256, 400);
/// What a process used beside its work, or between two counts of the kernel's (10 ms each).
const PROCESS_CPU: Duration = Duration::from_millis(30);

/// What is asked of a worker, and what it may do meanwhile.
pub(super) struct Ask {
    /// The order's frame.
    pub(super) order: Vec<u8>,
    /// The bytes it announces.
    pub(super) bytes: Vec<Bytes>,
    /// Time on the wall since the work began.
    pub(super) wall: Duration,
    /// What that limit is called, here also for processor time the kernel refuses.
    pub(super) wall_name: LimitName,
    /// The name of the kernel's limit of processor time.
    pub(super) cpu_name: LimitName,
    /// What an allocation that the kernel refuses is called; a worker aborts then.
    pub(super) abort_name: Option<LimitName>,
    /// Most output, bytes.
    pub(super) output: u64,
    /// Most linear memory, bytes: a worker that claims more is not believed that far.
    pub(super) memory: u64,
    /// The fuel it was given; likewise.
    pub(super) fuel: Option<u64>,
    /// Whether a compiled module is the answer.
    pub(super) artifact: bool,
}

/// Who listens, and who may end it.
pub(super) struct Audience<'a> {
    /// Where output goes.
    pub(super) output: mpsc::Sender<Output>,
    /// The job is cancelled.
    pub(super) cancel: &'a CancellationToken,
    /// The pool is closed.
    pub(super) closed: &'a CancellationToken,
}

/// The result of a conversation.
pub(super) struct Heard {
    /// What became of it.
    pub(super) outcome: Outcome,
    /// What was used: output as the node counted it, the rest as the worker said, within what
    /// the node saw.
    pub(super) usage: Usage,
    /// The compiled module.
    pub(super) artifact: Option<Vec<u8>>,
    /// The worker could not use the compiled module it got.
    pub(super) stale: bool,
}

/// Why a conversation ended.
enum End {
    Said(Verdict),
    /// End of file, or a protocol that was broken.
    Died,
    Deadline,
    Cancelled,
    Closed,
}

struct State {
    clock: SystemClock,
    started: Option<Duration>,
    cancelling: bool,
    pending: Option<Output>,
    stdout: u64,
    stderr: u64,
    /// Frames of output.
    frames: u64,
    artifact: Option<Vec<u8>>,
}

/// Holds the conversation to its end; then the process is gone.
pub(super) async fn talk(worker: Worker, ask: Ask, audience: Audience<'_>) -> Heard {
    let Worker {
        mut child,
        stdin,
        mut frames,
        slot,
    } = worker;
    frames.decoder_mut().artifact = ask.artifact;
    let mut state = State::new();
    let before = child.id().and_then(processor_time).unwrap_or_default();
    let order = (ask.order.clone(), ask.bytes.clone());
    let sending = send(stdin, order);
    tokio::pin!(sending);
    let mut sent = Sent::Not;
    let deadline = sleep(LOAD_TIME);
    tokio::pin!(deadline);
    let end = loop {
        tokio::select! {
            biased;
            () = audience.closed.cancelled() => break End::Closed,
            () = gone(&audience), if !state.cancelling => {
                let Sent::All(stdin) = &mut sent else { break End::Cancelled };
                state.cancelling = true;
                state.pending = None;
                if !cancel(stdin).await { break End::Cancelled; }
                deadline.set(sleep(GRACE));
            }
            () = &mut deadline => break End::Deadline,
            done = &mut sending, if matches!(sent, Sent::Not) => {
                // A worker that is gone says so on the other pipe.
                sent = done.map_or(Sent::Broken, Sent::All);
            }
            // That nobody listens any more is seen above, the next time round.
            Ok(room) = audience.output.reserve(), if state.pending.is_some() => {
                if let Some(piece) = state.pending.take() { room.send(piece); }
            }
            frame = frames.next(), if state.pending.is_none() => {
                let before = state.started.is_some();
                match state.hear(frame, &ask) {
                    Ok(None) => {}
                    Ok(Some(end)) => break end,
                    Err(error) => {
                        warn!(%error, "a worker process broke the protocol");
                        break End::Died;
                    }
                }
                if !before && state.started.is_some() && !state.cancelling {
                    deadline.set(sleep(ask.wall.saturating_add(GRACE)));
                }
            }
        }
    };
    let cpu = child.id().and_then(processor_time);
    let cpu = cpu.map(|cpu| cpu.saturating_sub(before));
    let status = match end {
        End::Died => timeout(GRACE, child.wait()).await.ok().and_then(Result::ok),
        _ => None,
    };
    bury(child, slot).await;
    state.conclude(end, status, cpu, &ask)
}

/// How far the order got.
enum Sent {
    Not,
    All(ChildStdin),
    Broken,
}

async fn send(mut stdin: ChildStdin, what: (Vec<u8>, Vec<Bytes>)) -> io::Result<ChildStdin> {
    stdin.write_all(&what.0).await?;
    for bytes in what.1 {
        stdin.write_all(&bytes).await?;
    }
    stdin.flush().await?;
    Ok(stdin)
}

async fn cancel(stdin: &mut ChildStdin) -> bool {
    let Ok(frame) = from_node::cancel() else {
        return false;
    };
    matches!(timeout(GRACE, stdin.write_all(&frame)).await, Ok(Ok(())))
}

/// Nobody wants the result any more.
async fn gone(audience: &Audience<'_>) {
    tokio::select! {
        () = audience.cancel.cancelled() => {}
        () = audience.output.closed() => {}
    }
}

impl State {
    fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            started: None,
            cancelling: false,
            pending: None,
            stdout: 0,
            stderr: 0,
            frames: 0,
            artifact: None,
        }
    }

    /// Takes the next frame; an error means that the worker is not believed any more.
    fn hear(
        &mut self,
        frame: Option<Result<FromWorker, ProtocolError>>,
        ask: &Ask,
    ) -> Result<Option<End>, ProtocolError> {
        let Some(frame) = frame else {
            return Ok(Some(End::Died));
        };
        match (frame?, self.started) {
            (FromWorker::Started, None) => self.started = Some(self.clock.elapsed()),
            (FromWorker::Output(stream, bytes), Some(_)) => {
                let count = match stream {
                    crate::sandbox::Stream::Stdout => &mut self.stdout,
                    crate::sandbox::Stream::Stderr => &mut self.stderr,
                };
                *count = count.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                if self.stdout.saturating_add(self.stderr) > ask.output {
                    return Err(ProtocolError::Unexpected("so much output"));
                }
                self.frames = self.frames.saturating_add(1);
                if self.frames > self.most_frames() {
                    return Err(ProtocolError::Unexpected("so many small pieces of output"));
                }
                if !self.cancelling {
                    self.pending = Some(Output { stream, bytes });
                }
            }
            (FromWorker::Artifact(bytes), Some(_)) if self.artifact.is_none() => {
                self.artifact = Some(bytes);
            }
            (FromWorker::Verdict(verdict), _) => return Ok(Some(End::Said(verdict))),
            (FromWorker::Refused(reason), None) => {
                warn!(reason, "a worker process refuses to work");
                return Ok(Some(End::Died));
            }
            _ => return Err(ProtocolError::Unexpected("that frame, now")),
        }
        Ok(None)
    }

    /// How many frames of output an honest worker can have sent by now.
    fn most_frames(&self) -> u64 {
        let chunk = u64::try_from(super::MAX_CHUNK).unwrap_or(u64::MAX);
        let full = self.stdout.saturating_add(self.stderr) / chunk;
        let since = self.started.unwrap_or_default();
        let ms = micros(self.clock.elapsed().saturating_sub(since)) / 1_000;
        let (at_once, more) = FRAMES;
        let small = at_once.saturating_add(ms.saturating_mul(more) / 1_000);
        full.saturating_add(small)
    }

    fn conclude(
        self,
        end: End,
        status: Option<ExitStatus>,
        cpu: Option<Duration>,
        ask: &Ask,
    ) -> Heard {
        let wall = self
            .started
            .map(|started| self.clock.elapsed().saturating_sub(started))
            .unwrap_or_default();
        // Without the kernel's word for it: one core all the time.
        let cpu_us = micros(cpu.unwrap_or(wall));
        let mut heard = Heard {
            outcome: failed(JobFault::WorkerDied),
            usage: Usage {
                wall_ms: micros(wall) / 1_000,
                cpu_us,
                stdout: self.stdout,
                stderr: self.stderr,
                ..Usage::default()
            },
            artifact: None,
            stale: false,
        };
        let cancelled = Outcome::Cancelled {
            by: CancelledBy::Submitter,
        };
        match end {
            End::Said(verdict) => {
                heard.stale = verdict.stale && self.started.is_none();
                heard.usage.wall_ms = heard.usage.wall_ms.min(verdict.usage.wall_ms);
                let all = micros(self.clock.elapsed()).saturating_mul(THREADS);
                // A worker that was taken over may say too little: the kernel knows better.
                let least = cpu.unwrap_or_default().saturating_sub(PROCESS_CPU);
                heard.usage.cpu_us = verdict.usage.cpu_us.min(all).max(micros(least));
                heard.usage.fuel = verdict
                    .usage
                    .fuel
                    .and_then(|used| Some(used.min(ask.fuel?)));
                heard.usage.memory_peak = verdict.usage.memory_peak.min(ask.memory);
                heard.artifact = self.artifact;
                if is_for_worker_to_say(&verdict.outcome, self.cancelling) {
                    heard.outcome = verdict.outcome;
                }
            }
            End::Died if self.cancelling => heard.outcome = cancelled,
            End::Died => {
                let signal = status.and_then(|status| status.signal());
                warn!(?status, "a worker process died");
                match (signal, ask.abort_name) {
                    (Some(libc::SIGXCPU), _) => heard.outcome = stopped(ask.cpu_name),
                    (Some(libc::SIGABRT), Some(name)) => heard.outcome = stopped(name),
                    _ => {}
                }
            }
            End::Deadline if self.cancelling => heard.outcome = cancelled,
            End::Deadline if self.started.is_some() => heard.outcome = stopped(ask.wall_name),
            // The machine is too slow to hand over the bytes.
            End::Deadline => heard.outcome = failed(JobFault::Executor),
            End::Cancelled => heard.outcome = cancelled,
            End::Closed => heard.outcome = failed(JobFault::Interrupted),
        }
        heard
    }
}

/// Whether a worker may say this: it knows nothing of restarts, and of no cancellation but the
/// node's.
fn is_for_worker_to_say(outcome: &Outcome, cancelling: bool) -> bool {
    match outcome {
        Outcome::Exited { .. } | Outcome::Trapped { .. } | Outcome::Stopped { .. } => true,
        Outcome::Cancelled { .. } => cancelling,
        Outcome::Failed { fault } => matches!(
            fault,
            JobFault::InvalidModule | JobFault::Link | JobFault::Executor
        ),
    }
}

fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}

fn stopped(limit: LimitName) -> Outcome {
    Outcome::Stopped { limit }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Processor time of a process that cannot say it itself any more; also of one that has ended
/// and was not waited for. Hundredths of a second.
fn processor_time(pid: u32) -> Option<Duration> {
    processor_time_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn processor_time_of(stat: &str) -> Option<Duration> {
    /// The unit of these figures, fixed for programs on Linux (USER_HZ).
    const TICKS_PER_SECOND: u64 = 100;
    // The program's name may hold spaces and brackets; the last bracket ends it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next()?.checked_add(next()?)?;
    ticks
        .checked_mul(1_000 / TICKS_PER_SECOND)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
