//! A job that was given away: which request comes next, and what an answer means.
//!
//! Pure: the Jobs actor asks [`SentJob::next`], sends, and feeds the answer back. Owner: the Jobs
//! actor, one value a job.
//!
//! # Invariants
//! - Output is taken exactly once and in order: a piece counts only where it begins at the
//!   cursor.
//! - A job ends once: by a receipt that was verified against everything this node knows of it,
//!   or by one [`SentFault`].
//! - Whatever the executor answers, the exchange makes progress, pauses, or ends: there is no
//!   answer that makes this node spin, none that makes it send module and input without end, and
//!   none that keeps the job unfinished for ever ([`SentJob::overdue`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ContentHash, JobId, JobSpec, JobState, Limits, MAX_PIECE, Stream,
    registry::MAX_ATTEMPTS,
    wire::{MAX_WAIT, Piece, RefusalCode, Refused, Request, Response, Wanted},
};
use crate::types::{PeerId, Timestamp};

/// First pause after a request without answer, and the longest; each doubles the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Pause after an answer that brought nothing, and the longest: each doubles the one before when
/// the executor does not wait as asked.
const IDLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Answers in a row to pieces that brought the upload no further.
const MAX_STALLS: u32 = 16;
/// How often a job that the executor forgot is submitted anew.
const MAX_RESUBMISSIONS: u32 = 8;
/// How often module and input are sent at most: an executor's disk may lose them, but not for ever.
const MAX_UPLOADS: u64 = 4;
/// How long a job may be said to run beyond its limit of time on the wall: its module has to be
/// compiled before, its receipt recorded after.
const RUN_GRACE: Duration = Duration::from_secs(3_600);
/// How long after a cancellation the executor's receipt is waited for.
const CANCEL_GRACE: Duration = Duration::from_secs(60);

/// Why a job that was given away has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum SentFault {
    /// The executor did not accept it.
    Refused {
        /// The refusal's stable name.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// The executor was out of reach for longer than `jobs.patience`.
    Unreachable,
    /// The executor no longer knows the job, and part of its output was here already.
    Forgotten,
    /// What came is not what the receipt says, or breaks the protocol; which part.
    BadResult {
        /// The field that differs, or the rule that was broken.
        what: String,
    },
    /// The output is larger than `jobs.max_output`.
    TooMuchOutput,
    /// This node's disk failed.
    Disk {
        /// What it said.
        detail: String,
    },
    /// Cancelled here, and the executor gave no receipt for it: it may not even have had it.
    Cancelled,
    /// The executor has had it for longer than `jobs.deadline`, or has run it for longer than it
    /// may run.
    Overdue,
}

impl SentFault {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unreachable => "unreachable",
            Self::Forgotten => "forgotten",
            Self::BadResult { .. } => "bad_result",
            Self::TooMuchOutput => "too_much_output",
            Self::Disk { .. } => "disk",
            Self::Cancelled => "cancelled",
            Self::Overdue => "overdue",
        }
    }
}

impl std::fmt::Display for SentFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { code, detail } => write!(f, "the executor refused ({code}): {detail}"),
            Self::Unreachable => f.write_str(
                "the executor was out of reach for longer than jobs.patience: look at \
                 `quantraband peers`",
            ),
            Self::Forgotten => f.write_str(
                "the executor no longer knows the job, and part of its output was here already: \
                 submit it again",
            ),
            Self::BadResult { what } => write!(
                f,
                "the executor's result is not what its receipt says ({what}): do not trust it"
            ),
            Self::TooMuchOutput => f.write_str("the output is larger than jobs.max_output"),
            Self::Disk { detail } => write!(f, "this node's disk: {detail}"),
            Self::Cancelled => f.write_str("cancelled; the executor gave no receipt for it"),
            Self::Overdue => f.write_str(
                "the executor did not finish it in time (jobs.deadline, or its own limit of time \
                 on the wall): submit it to another peer",
            ),
        }
    }
}

/// What is written down of a job that was given away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRecord {
    /// Its id.
    pub job: JobId,
    /// Who runs it.
    pub executor: PeerId,
    /// What it is.
    pub spec: JobSpec,
    /// When it was submitted here.
    pub submitted: Timestamp,
    /// What the executor granted, once it did.
    pub limits: Option<Limits>,
    /// Whether it is to be cancelled.
    pub cancel: bool,
    /// How it ended.
    pub end: Option<SentEnd>,
}

/// The one end of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentEnd {
    /// When.
    pub at: Timestamp,
    /// The verified receipt, or why there is none.
    pub result: Result<Vec<u8>, SentFault>,
}

/// What the actor is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Ask(Request),
    /// Read this piece of a blob, and send it as a `Put`.
    Piece {
        /// Which blob.
        blob: ContentHash,
        /// From where.
        offset: u64,
        /// At most so many bytes.
        most: usize,
    },
    /// Nothing: it is over.
    Over,
}

/// Which request an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// [`Request::Submit`].
    Submit,
    /// [`Request::Put`].
    Put,
    /// [`Request::Fetch`].
    Fetch,
    /// [`Request::Cancel`].
    Cancel,
}

impl Asked {
    /// The kind of a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Submit(_) => Self::Submit,
            Request::Put { .. } => Self::Put,
            Request::Fetch { .. } => Self::Fetch,
            Request::Cancel { .. } => Self::Cancel,
        }
    }

    /// Whether a response can be an answer to it.
    fn fits(self, response: &Response) -> bool {
        match response {
            Response::Submitted { .. } => self == Self::Submit,
            Response::Stored { .. } => self == Self::Put,
            Response::Progress { .. } => self == Self::Fetch,
            Response::Cancelled { .. } => self == Self::Cancel,
            Response::Refused(_) => true,
        }
    }
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the record down.
    Save,
    /// Append to the output.
    Append(Stream, Vec<u8>),
    /// Verify this receipt; then [`SentJob::end`] with it, or with why not.
    Verify(Vec<u8>),
    /// Wait so long before the next request.
    Pause(Duration),
    /// It is over: write it down, tell everybody.
    End(SentFault),
}

/// One job.
#[derive(Debug, Clone)]
pub struct SentJob {
    record: SentRecord,
    /// Bytes of stdout and stderr that are here.
    cursor: (u64, u64),
    /// Whether the executor said, since this value was made, that it has the job.
    confirmed: bool,
    cancelling: bool,
    state: JobState,
    attempt: u32,
    wanted: Vec<Wanted>,
    stalls: u32,
    resubmissions: u32,
    /// Bytes of module and input that may still be sent.
    uploads_left: u64,
    /// Since when nothing goes forward, by the monotonic clock.
    failing_since: Option<Duration>,
    /// Since when the attempt that is told runs, by the monotonic clock, and its number.
    running_since: Option<(Duration, u32)>,
    cancelled_at: Option<Duration>,
    /// When the last answer came.
    heard: Option<Duration>,
    idle: Duration,
    pause: Duration,
    bounds: Bounds,
}

/// What a submitter puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most output that is taken, bytes.
    pub output: u64,
    /// How long the executor may be out of reach.
    pub patience: Duration,
    /// How long it may have the job in all.
    pub deadline: Duration,
}

impl SentJob {
    /// A job as written down, with so much output here already.
    #[must_use]
    pub fn new(record: SentRecord, cursor: (u64, u64), bounds: Bounds) -> Self {
        let size = record
            .spec
            .module_size
            .saturating_add(record.spec.input_size);
        Self {
            record,
            cursor,
            confirmed: false,
            cancelling: false,
            state: JobState::Waiting,
            attempt: 0,
            wanted: Vec::new(),
            stalls: 0,
            resubmissions: 0,
            uploads_left: size.saturating_mul(MAX_UPLOADS),
            failing_since: None,
            running_since: None,
            cancelled_at: None,
            heard: None,
            idle: IDLE.0,
            pause: PAUSE.0,
            bounds,
        }
    }

    /// What is written down.
    #[must_use]
    pub fn record(&self) -> &SentRecord {
        &self.record
    }

    /// Where the executor says it is, and how often it began.
    #[must_use]
    pub fn progress(&self) -> (JobState, u32) {
        if self.is_over() {
            (JobState::Finished, self.attempt)
        } else {
            (self.state, self.attempt)
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.end.is_some()
    }

    /// Asks for its cancellation. `true` when that changed something.
    pub fn cancel(&mut self) -> bool {
        let new = !self.record.cancel && !self.is_over();
        self.record.cancel |= new;
        new
    }

    /// Ends it. `false` when it had ended before: then nothing changes.
    pub fn end(&mut self, result: Result<Vec<u8>, SentFault>, now: Timestamp) -> bool {
        if self.is_over() {
            return false;
        }
        self.record.end = Some(SentEnd { at: now, result });
        true
    }

    /// Whether a cancellation is still to be told to the executor.
    #[must_use]
    pub fn wants_cancel(&self) -> bool {
        self.record.cancel && !self.cancelling && !self.is_over()
    }

    /// With what the job is given up, if its time is over. `elapsed` is monotonic time.
    pub fn overdue(&mut self, now: Timestamp, elapsed: Duration) -> Option<SentFault> {
        if self.is_over() {
            return None;
        }
        if self.record.cancel {
            let since = *self.cancelled_at.get_or_insert(elapsed);
            if elapsed.saturating_sub(since) >= CANCEL_GRACE {
                return Some(SentFault::Cancelled);
            }
        }
        let limit = self.record.limits.map(|limits| limits.wall_clock());
        let runs = self.running_since.zip(limit).is_some_and(|(run, limit)| {
            elapsed.saturating_sub(run.0) >= limit.saturating_add(RUN_GRACE)
        });
        let old = now.since(self.record.submitted) >= self.bounds.deadline;
        (runs || old).then_some(SentFault::Overdue)
    }

    /// The next request.
    #[must_use]
    pub fn next(&self) -> Next {
        let job = self.record.job;
        if self.is_over() {
            Next::Over
        } else if self.wants_cancel() {
            Next::Ask(Request::Cancel { job })
        } else if !self.confirmed {
            Next::Ask(Request::Submit(Box::new(self.record.spec.clone())))
        } else if let Some(wanted) = self.wanted.first() {
            Next::Piece {
                blob: wanted.blob,
                offset: wanted.have,
                most: MAX_PIECE,
            }
        } else {
            Next::Ask(Request::Fetch {
                job,
                stdout: self.cursor.0,
                stderr: self.cursor.1,
                wait_ms: u32::try_from(MAX_WAIT.as_millis()).unwrap_or(u32::MAX),
            })
        }
    }

    /// No answer came. `elapsed` is monotonic time.
    pub fn unanswered(&mut self, elapsed: Duration) -> Effect {
        // Whether the executor still has the job is not known any more.
        self.confirmed = false;
        self.cancelling = false;
        self.retry(None, elapsed, SentFault::Unreachable)
    }

    /// The request was not sent: the executor is called less for a while. Nothing is known anew
    /// of the job. `elapsed` is monotonic time.
    pub fn held(&mut self, retry_after: Duration, elapsed: Duration) -> Effect {
        self.cancelling = false;
        self.retry(Some(retry_after), elapsed, SentFault::Unreachable)
    }

    /// An answer to a request of this kind came. `elapsed` is monotonic time.
    pub fn answered(&mut self, to: Asked, response: Response, elapsed: Duration) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        if !to.fits(&response) {
            return bad("answer");
        }
        let waited = elapsed.saturating_sub(self.heard.replace(elapsed).unwrap_or_default());
        if waited >= MAX_WAIT / 2 {
            self.idle = IDLE.0;
        }
        let good = !matches!(response, Response::Refused(_));
        let effects = match response {
            Response::Submitted {
                job,
                state,
                limits,
                wanted,
            } => self.on_submitted(job, state, limits, wanted),
            Response::Stored { blob, have } => self.on_stored(&blob, have),
            Response::Progress {
                state,
                attempt,
                stdout,
                stderr,
                receipt,
            } => {
                let effects = self.on_progress((state, attempt), stdout, stderr, receipt);
                self.note_running(elapsed);
                effects
            }
            Response::Cancelled { state } => {
                self.cancelling = true;
                self.state = state;
                Vec::new()
            }
            Response::Refused(refused) => self.on_refused(refused, elapsed),
        };
        if good {
            self.failing_since = None;
            self.pause = PAUSE.0;
        }
        effects
    }

    /// Time of a run counts from the first word of it; only a new attempt begins it anew.
    fn note_running(&mut self, elapsed: Duration) {
        let known = self.running_since.map(|(_, attempt)| attempt);
        if self.state == JobState::Running && known.is_none_or(|known| self.attempt > known) {
            self.running_since = Some((elapsed, self.attempt));
        }
    }

    fn on_submitted(
        &mut self,
        job: JobId,
        state: JobState,
        limits: Limits,
        wanted: Vec<Wanted>,
    ) -> Vec<Effect> {
        let spec = &self.record.spec;
        let ours = |wanted: &Wanted| {
            let sizes = [
                (spec.module, spec.module_size),
                (spec.input, spec.input_size),
            ];
            sizes.contains(&(wanted.blob, wanted.size)) && wanted.have < wanted.size
        };
        if job != self.record.job {
            return bad("job");
        }
        if !wanted.iter().all(ours) {
            return bad("wanted");
        }
        let counted = spec.deterministic.is_some();
        let new = match self.record.limits {
            // What was granted once stays so.
            Some(granted) if granted != limits => return bad("limits"),
            Some(_) => false,
            None if !limits.grants(&spec.limits, counted) => return bad("limits"),
            None => true,
        };
        self.confirmed = true;
        self.state = state;
        self.wanted = wanted;
        self.record.limits = Some(limits);
        if new { vec![Effect::Save] } else { Vec::new() }
    }

    fn on_stored(&mut self, blob: &ContentHash, have: u64) -> Vec<Effect> {
        let Some(index) = self.wanted.iter().position(|wanted| wanted.blob == *blob) else {
            return bad("stored");
        };
        let Some(wanted) = self.wanted.get_mut(index) else {
            return bad("stored");
        };
        if have > wanted.size {
            return bad("stored");
        }
        if have <= wanted.have {
            self.stalls = self.stalls.saturating_add(1);
        }
        // What a piece took on the way counts, whether it was kept or not.
        let piece = u64::try_from(MAX_PIECE).unwrap_or(u64::MAX);
        let sent = wanted.size.saturating_sub(wanted.have).min(piece);
        let Some(left) = self.uploads_left.checked_sub(sent) else {
            return bad("uploads without end");
        };
        self.uploads_left = left;
        wanted.have = have;
        if have == wanted.size {
            self.wanted.remove(index);
        }
        if self.stalls > MAX_STALLS {
            return bad("stored");
        }
        Vec::new()
    }

    fn on_progress(
        &mut self,
        (state, attempt): (JobState, u32),
        stdout: Piece,
        stderr: Piece,
        receipt: Option<Vec<u8>>,
    ) -> Vec<Effect> {
        if stdout.offset != self.cursor.0 || stderr.offset != self.cursor.1 {
            return bad("cursor");
        }
        let length = |piece: &Piece| u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX);
        let (out, err) = (
            self.cursor.0.saturating_add(length(&stdout)),
            self.cursor.1.saturating_add(length(&stderr)),
        );
        let granted = self.record.limits.map_or(u64::MAX, |limits| limits.output);
        if attempt > MAX_ATTEMPTS {
            return bad("attempt");
        }
        if out.saturating_add(err) > self.bounds.output {
            return vec![Effect::End(SentFault::TooMuchOutput)];
        }
        if out.saturating_add(err) > granted {
            return bad("output limit");
        }
        (self.state, self.attempt) = (state, attempt);
        self.cursor = (out, err);
        let mut effects = Vec::new();
        for (stream, piece) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if !piece.bytes.is_empty() {
                effects.push(Effect::Append(stream, piece.bytes));
            }
        }
        if let Some(receipt) = receipt {
            effects.push(Effect::Verify(receipt));
        } else if state == JobState::Waiting {
            // Module or input are gone there, or another upload is still under way: ask which.
            self.confirmed = false;
            effects.push(self.idle());
        } else if effects.is_empty() {
            effects.push(self.idle());
        } else {
            self.idle = IDLE.0;
        }
        effects
    }

    /// A pause after an answer that brought nothing new.
    fn idle(&mut self) -> Effect {
        let pause = self.idle;
        self.idle = pause.saturating_mul(2).min(IDLE.1);
        Effect::Pause(pause)
    }

    fn on_refused(&mut self, refused: Refused, elapsed: Duration) -> Vec<Effect> {
        let Refused {
            code,
            detail,
            retry_after_ms,
        } = refused;
        let again = retry_after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let fault = SentFault::Refused {
            code: code.name().to_owned(),
            detail,
        };
        if code == RefusalCode::UnknownJob {
            if self.record.cancel {
                return vec![Effect::End(SentFault::Cancelled)];
            }
            self.resubmissions = self.resubmissions.saturating_add(1);
            if self.cursor != (0, 0) || self.resubmissions > MAX_RESUBMISSIONS {
                return vec![Effect::End(SentFault::Forgotten)];
            }
            // It may grant something else now, and its run begins anew.
            self.record.limits = None;
            self.running_since = None;
            self.confirmed = false;
            return vec![self.idle()];
        }
        if code.is_passing() {
            vec![self.retry(again, elapsed, fault)]
        } else {
            vec![Effect::End(fault)]
        }
    }

    /// A pause that doubles, or the end when patience ran out.
    fn retry(&mut self, after: Option<Duration>, elapsed: Duration, fault: SentFault) -> Effect {
        let since = *self.failing_since.get_or_insert(elapsed);
        if elapsed.saturating_sub(since) >= self.bounds.patience {
            return Effect::End(fault);
        }
        let pause = after.unwrap_or(self.pause).min(PAUSE.1);
        self.pause = self.pause.saturating_mul(2).min(PAUSE.1);
        Effect::Pause(pause.max(PAUSE.0))
    }
}

fn bad(what: &str) -> Vec<Effect> {
    vec![Effect::End(SentFault::BadResult {
        what: what.to_owned(),
    })]
}

#[cfg(test)]
mod tests;
