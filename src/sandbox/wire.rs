//! The job protocol `/quantraband/job/1`: one request, one response, a stream each.
//!
//! Deterministic CBOR, one encoding for each message; the table of fields is in
//! `docs/reference/job-protocol.md`. Pure and bounded: size and number of items are checked before
//! anything is built, texts are bounded, and a job's description has passed [`JobSpec::check`].
//! The bytes are frozen by `tests/fixtures/sandbox/{request,response}.hex`.
//!
//! Sent by the submitter: [`Request`]. Sent by the executor: [`Response`]. Every request may be
//! repeated: `Submit` names the same job, `Put` says how much is there, `Fetch` moves nothing but
//! the submitter's own cursors, `Cancel` of an ended job changes nothing. Reading fails with a
//! [`Malformed`] that names the rule; the network room then closes that stream.

use std::{borrow::Cow, time::Duration};

use ciborium::Value;

use super::{
    ContentHash, JobId, JobSpec, JobState, Limits, MAX_PIECE,
    form::{self, bytes, number, text},
    receipt::MAX_RECEIPT_BYTES,
};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    telemetry::printable,
};

/// The protocol's name; its number changes with any byte of this file.
pub const PROTOCOL: &str = "/quantraband/job/1";
/// Most bytes of a module or an input in one [`Request::Put`], and of each stream in one
/// [`Response::Progress`].
pub const MAX_CHUNK: usize = MAX_PIECE;
/// What a message holds besides its chunks: heads, hashes and numbers.
const OVERHEAD: usize = 4 << 10;
/// Longest request: a chunk. Arguments and environment of a [`Request::Submit`] fit in that.
pub const MAX_REQUEST: usize = MAX_CHUNK + OVERHEAD;
/// Longest response: a chunk of each stream, and the receipt.
pub const MAX_RESPONSE: usize = 2 * MAX_CHUNK + MAX_RECEIPT_BYTES + OVERHEAD;
/// Longest message in either direction.
pub const MAX_FRAME: usize = MAX_RESPONSE;
/// Longest a [`Request::Fetch`] may wait for news, well below any time-out of a request.
pub const MAX_WAIT: Duration = Duration::from_secs(10);
/// Most blobs that are missing: module and input.
pub const MAX_WANTED: usize = 2;
/// Longest explanation of a refusal, in characters: two lines for a person.
pub const MAX_DETAIL: usize = 256;
/// Most CBOR items of a message: 256 arguments, 256 variables of three items each, and fewer than
/// a hundred besides.
const MAX_ITEMS: usize = 1_280;

/// What a submitter asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Take this job, or say how it stands if it is there already.
    Submit(Box<JobSpec>),
    /// Here is a piece of a module or an input.
    Put {
        /// The job it is for.
        job: JobId,
        /// The blob.
        blob: ContentHash,
        /// Where in the blob the piece begins.
        offset: u64,
        /// The piece, 1 to [`MAX_CHUNK`] bytes.
        bytes: Vec<u8>,
    },
    /// What is new?
    Fetch {
        /// The job.
        job: JobId,
        /// How much of stdout the submitter has.
        stdout: u64,
        /// How much of stderr the submitter has.
        stderr: u64,
        /// How long to wait when nothing is new, milliseconds, at most [`MAX_WAIT`].
        wait_ms: u32,
    },
    /// Stop the job.
    Cancel {
        /// The job.
        job: JobId,
    },
}

/// A blob of which the executor lacks some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The blob.
    pub blob: ContentHash,
    /// Bytes that are there, from the beginning: the offset of the next [`Request::Put`].
    pub have: u64,
    /// Its whole size, bytes.
    pub size: u64,
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Where in the stream it begins.
    pub offset: u64,
    /// At most [`MAX_CHUNK`] bytes.
    pub bytes: Vec<u8>,
}

/// What an executor answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Submit`]: the job is here.
    Submitted {
        /// Its name.
        job: JobId,
        /// Where it is.
        state: JobState,
        /// What it gets.
        limits: Limits,
        /// What must still come, at most [`MAX_WANTED`].
        wanted: Vec<Wanted>,
    },
    /// To [`Request::Put`].
    Stored {
        /// The blob.
        blob: ContentHash,
        /// Bytes that are there now, from the beginning.
        have: u64,
    },
    /// To [`Request::Fetch`].
    Progress {
        /// Where the job is.
        state: JobState,
        /// Which attempt it is in, from 1; 0 before the first.
        attempt: u32,
        /// What is new on stdout.
        stdout: Piece,
        /// What is new on stderr.
        stderr: Piece,
        /// The receipt, exactly when the job is finished and both cursors have reached the end.
        receipt: Option<Vec<u8>>,
    },
    /// To [`Request::Cancel`].
    Cancelled {
        /// Where the job is now.
        state: JobState,
    },
    /// To any request: no.
    Refused(Refused),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub code: RefusalCode,
    /// For people: at most [`MAX_DETAIL`] printable characters.
    pub detail: String,
    /// When it may be worth trying again, from now.
    pub retry_after_ms: Option<u32>,
}

impl Refused {
    /// A refusal; `detail` is made printable and cut to [`MAX_DETAIL`].
    #[must_use]
    pub fn new(code: RefusalCode, detail: &str) -> Self {
        Self {
            code,
            detail: clean(detail).into_owned(),
            retry_after_ms: None,
        }
    }

    /// The same, with a time after which to try again.
    #[must_use]
    pub fn after(mut self, span: Duration) -> Self {
        self.retry_after_ms = Some(u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
        self
    }
}

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The executor runs no jobs.
    Disabled,
    /// Its access decision says no.
    Denied,
    /// The request makes no sense, as a chunk behind the end of its blob.
    Invalid,
    /// A limit was asked for that is above the executor's ceiling.
    LimitAboveCeiling,
    /// The executor's queue is full.
    QueueFull,
    /// The submitter's share of the queue is full.
    PeerQueueFull,
    /// The submitter's processor time of this hour is used up.
    CpuQuota,
    /// Too many requests.
    Rate,
    /// There is no such job, or no longer.
    UnknownJob,
    /// The key names another job of the same submitter.
    KeyReused,
    /// Module or input is larger than the executor takes.
    TooLarge,
    /// A part of the executor is down for a moment.
    Unavailable,
    /// The executor is shutting down.
    Stopping,
}

impl RefusalCode {
    /// All of them, in the order of this type.
    pub const ALL: [Self; 13] = [
        Self::Disabled,
        Self::Denied,
        Self::Invalid,
        Self::LimitAboveCeiling,
        Self::QueueFull,
        Self::PeerQueueFull,
        Self::CpuQuota,
        Self::Rate,
        Self::UnknownJob,
        Self::KeyReused,
        Self::TooLarge,
        Self::Unavailable,
        Self::Stopping,
    ];

    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::LimitAboveCeiling => "limit_above_ceiling",
            Self::QueueFull => "queue_full",
            Self::PeerQueueFull => "peer_queue_full",
            Self::CpuQuota => "cpu_quota",
            Self::Rate => "rate",
            Self::UnknownJob => "unknown_job",
            Self::KeyReused => "key_reused",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Stopping => "stopping",
        }
    }

    /// Whether it passes by itself, so that the same request is worth repeating later.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self {
            Self::QueueFull
            | Self::PeerQueueFull
            | Self::CpuQuota
            | Self::Rate
            | Self::Unavailable
            | Self::Stopping => true,
            Self::Disabled
            | Self::Denied
            | Self::Invalid
            | Self::LimitAboveCeiling
            | Self::UnknownJob
            | Self::KeyReused
            | Self::TooLarge => false,
        }
    }
}

const KIND: i64 = 1;
const SUBMIT: u64 = 1;
const PUT: u64 = 2;
const FETCH: u64 = 3;
const CANCEL: u64 = 4;

const SUBMITTED: u64 = 1;
const STORED: u64 = 2;
const PROGRESS: u64 = 3;
const CANCELLED: u64 = 4;
const REFUSED: u64 = 5;

impl Request {
    /// The one encoding of this request. What breaks a bound of this file (an empty or a longer
    /// chunk, a job that [`JobSpec::check`] refuses) is encoded as it is, and refused by the peer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&match self {
            Self::Submit(spec) => {
                form::fields([(KIND, number(SUBMIT)), (2, Some(form::spec(spec)))])
            }
            Self::Put {
                job,
                blob,
                offset,
                bytes: piece,
            } => form::fields([
                (KIND, number(PUT)),
                (2, bytes(&job.0)),
                (3, bytes(&blob.0)),
                (4, number(*offset)),
                (5, bytes(piece)),
            ]),
            Self::Fetch {
                job,
                stdout,
                stderr,
                wait_ms,
            } => form::fields([
                (KIND, number(FETCH)),
                (2, bytes(&job.0)),
                (3, number(*stdout)),
                (4, number(*stderr)),
                (5, number(*wait_ms)),
            ]),
            Self::Cancel { job } => form::fields([(KIND, number(CANCEL)), (2, bytes(&job.0))]),
        })
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(received: &[u8]) -> Result<Self, Malformed> {
        let value = cbor::decode_counted(received, MAX_REQUEST, MAX_ITEMS)?;
        let mut fields = Fields::of(value)?;
        let request = match cbor::uint(fields.need(KIND)?)? {
            SUBMIT => Self::Submit(Box::new(form::read_spec(fields.need(2)?)?)),
            PUT => read_put(&mut fields)?,
            FETCH => Self::Fetch {
                job: form::read_job(fields.need(2)?)?,
                stdout: cbor::uint(fields.need(3)?)?,
                stderr: cbor::uint(fields.need(4)?)?,
                wait_ms: read_wait(fields.need(5)?)?,
            },
            CANCEL => Self::Cancel {
                job: form::read_job(fields.need(2)?)?,
            },
            _ => return Err(Malformed("a kind of request is unknown")),
        };
        fields.finish()?;
        cbor::same(received, &request.encode())?;
        Ok(request)
    }
}

fn read_put(fields: &mut Fields) -> Read<Request> {
    let job = form::read_job(fields.need(2)?)?;
    let blob = form::read_hash(fields.need(3)?)?;
    let Piece { offset, bytes } = piece(fields.need(4)?, fields.need(5)?)?;
    if bytes.is_empty() {
        return Err(Malformed("a chunk is empty"));
    }
    Ok(Request::Put {
        job,
        blob,
        offset,
        bytes,
    })
}

fn read_wait(value: Value) -> Read<u32> {
    let wait_ms = form::read_u32(value)?;
    if Duration::from_millis(wait_ms.into()) > MAX_WAIT {
        return Err(Malformed("a wait is longer than allowed"));
    }
    Ok(wait_ms)
}

impl Response {
    /// The one encoding of this response. A detail is cleaned; what else breaks a bound of this
    /// file is encoded as it is, and refused by the peer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&match self {
            Self::Submitted {
                job,
                state,
                limits,
                wanted,
            } => form::fields([
                (KIND, number(SUBMITTED)),
                (2, bytes(&job.0)),
                (3, text(state.name())),
                (4, Some(form::limits(limits))),
                (
                    5,
                    Some(Value::Array(wanted.iter().map(want_value).collect())),
                ),
            ]),
            Self::Stored { blob, have } => form::fields([
                (KIND, number(STORED)),
                (2, bytes(&blob.0)),
                (3, number(*have)),
            ]),
            Self::Progress {
                state,
                attempt,
                stdout,
                stderr,
                receipt,
            } => form::fields([
                (KIND, number(PROGRESS)),
                (2, text(state.name())),
                (3, number(*attempt)),
                (4, Some(piece_value(stdout))),
                (5, Some(piece_value(stderr))),
                (6, receipt.as_deref().and_then(bytes)),
            ]),
            Self::Cancelled { state } => {
                form::fields([(KIND, number(CANCELLED)), (2, text(state.name()))])
            }
            Self::Refused(refused) => form::fields([
                (KIND, number(REFUSED)),
                (2, text(refused.code.name())),
                (3, text(&clean(&refused.detail))),
                (4, refused.retry_after_ms.and_then(number)),
            ]),
        })
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(received: &[u8]) -> Result<Self, Malformed> {
        let value = cbor::decode_counted(received, MAX_RESPONSE, MAX_ITEMS)?;
        let mut fields = Fields::of(value)?;
        let response = match cbor::uint(fields.need(KIND)?)? {
            SUBMITTED => Self::Submitted {
                job: form::read_job(fields.need(2)?)?,
                state: form::read_state(fields.need(3)?)?,
                limits: form::read_limits(fields.need(4)?)?,
                wanted: cbor::array(fields.need(5)?, MAX_WANTED)?
                    .into_iter()
                    .map(read_want)
                    .collect::<Read<Vec<Wanted>>>()?,
            },
            STORED => Self::Stored {
                blob: form::read_hash(fields.need(2)?)?,
                have: cbor::uint(fields.need(3)?)?,
            },
            PROGRESS => read_progress(&mut fields)?,
            CANCELLED => Self::Cancelled {
                state: form::read_state(fields.need(2)?)?,
            },
            REFUSED => Self::Refused(read_refused(&mut fields)?),
            _ => return Err(Malformed("a kind of response is unknown")),
        };
        fields.finish()?;
        cbor::same(received, &response.encode())?;
        Ok(response)
    }
}

fn want_value(want: &Wanted) -> Value {
    form::fields([
        (1, bytes(&want.blob.0)),
        (2, number(want.have)),
        (3, number(want.size)),
    ])
}

fn read_want(value: Value) -> Read<Wanted> {
    let mut fields = Fields::of(value)?;
    let want = Wanted {
        blob: form::read_hash(fields.need(1)?)?,
        have: cbor::uint(fields.need(2)?)?,
        size: cbor::uint(fields.need(3)?)?,
    };
    fields.finish()?;
    if want.have > want.size {
        return Err(Malformed("more of a blob is there than it has"));
    }
    Ok(want)
}

fn piece_value(piece: &Piece) -> Value {
    form::fields([(1, number(piece.offset)), (2, bytes(&piece.bytes))])
}

fn read_piece(value: Value) -> Read<Piece> {
    let mut fields = Fields::of(value)?;
    let piece = piece(fields.need(1)?, fields.need(2)?)?;
    fields.finish()?;
    Ok(piece)
}

/// A piece that is not too long and ends where a number can still name it.
fn piece(offset: Value, bytes: Value) -> Read<Piece> {
    let offset = cbor::uint(offset)?;
    let bytes = cbor::bytes(bytes)?;
    let end = u64::try_from(bytes.len())
        .ok()
        .and_then(|n| offset.checked_add(n));
    if bytes.len() > MAX_CHUNK || end.is_none() {
        return Err(Malformed("a chunk is longer than allowed, or too far out"));
    }
    Ok(Piece { offset, bytes })
}

fn read_progress(fields: &mut Fields) -> Read<Response> {
    let state = form::read_state(fields.need(2)?)?;
    let attempt = form::read_u32(fields.need(3)?)?;
    let stdout = read_piece(fields.need(4)?)?;
    let stderr = read_piece(fields.need(5)?)?;
    let receipt = fields.take(6).map(cbor::bytes).transpose()?;
    if let Some(receipt) = &receipt
        && (receipt.len() > MAX_RECEIPT_BYTES || state != JobState::Finished)
    {
        return Err(Malformed("a receipt is too long, or comes too early"));
    }
    Ok(Response::Progress {
        state,
        attempt,
        stdout,
        stderr,
        receipt,
    })
}

fn read_refused(fields: &mut Fields) -> Read<Refused> {
    let refused = Refused {
        code: form::named(&RefusalCode::ALL, RefusalCode::name, fields.need(2)?)?,
        detail: cbor::text(fields.need(3)?)?,
        retry_after_ms: fields.take(4).map(form::read_u32).transpose()?,
    };
    if clean(&refused.detail) != refused.detail {
        return Err(Malformed("a detail is too long or not printable"));
    }
    Ok(refused)
}

/// A text that is safe to print, of at most [`MAX_DETAIL`] characters.
fn clean(text: &str) -> Cow<'_, str> {
    let text = printable(text);
    match text.char_indices().nth(MAX_DETAIL) {
        None => text,
        Some((end, _)) => Cow::Owned(text.get(..end).unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
