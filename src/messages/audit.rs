//! Audit: what others tell the log, and ask of it.
//!
//! The mailbox is bounded: when it is full the sender gets `Overloaded`, and denies.

use actix::Message;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    audit::{AuditEvent, checkpoint::SignedCheckpoint},
    types::EventId,
};

/// Where a durable record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Position in the log, counted from 0 over all segments.
    pub sequence: u64,
    /// Whether the event had been recorded before under the same id.
    pub repeated: bool,
}

/// Why an event is not (known to be) durable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditFault {
    /// The writer's queue is full.
    #[error("the audit log's queue is full")]
    QueueFull,
    /// The disk is full; what is granted waits until there is space.
    #[error("the audit log's disk is full: free some space or move the log")]
    DiskFull,
    /// Writing failed, also on a fresh segment.
    #[error("the audit log cannot be written: {0}")]
    Io(String),
    /// The writer stopped before the record was durable; ask again with the same id.
    #[error("the audit log's writer stopped; ask again")]
    Stopped,
    /// Nobody signs this log.
    #[error("this audit log has no key to sign checkpoints with")]
    NoKey,
}

impl AuditFault {
    /// Whether asking again at once may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::QueueFull | Self::Stopped)
    }
}

// Used by everyone.

/// Appends an event; answered only after `fdatasync`. A repeat of the same id is recognised.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Recorded, AuditFault>")]
pub struct RecordEvent {
    /// Chosen by the caller, kept for repeats.
    pub id: EventId,
    /// What happened.
    pub event: AuditEvent,
}

// Used by Admin.

/// The newest `count` lines as JSON text, oldest first (at most [`Tail::MAX`]).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<String>, AuditFault>")]
pub struct Tail {
    /// How many lines.
    pub count: usize,
}

impl Tail {
    /// Most lines one answer carries: 10,000 lines of at most 64 KiB come from disk in bounded
    /// time, and a larger wish is for `audit verify` or a file viewer.
    pub const MAX: usize = 10_000;
}

/// Closes the segment and begins the next.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<String, AuditFault>")]
pub struct RotateLog;

/// Signs everything that is durable, unless the newest checkpoint covers it already; answers with
/// the newest checkpoint.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<SignedCheckpoint, AuditFault>")]
pub struct CheckpointLog;

// Used by the node at shutdown.

/// Makes everything accepted so far durable, and a checkpoint of it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), AuditFault>")]
pub struct FlushLog;
