//! The language of `DATA/admin.sock`: one JSON object a line, both ways.
//!
//! A client sends one [`Request`] and reads [`Response`] lines. Every request is answered by
//! exactly one line, except four that stream: `subscribe` ([`Response::Subscribed`], then a line
//! a message until the client hangs up), `publish_stream` (a line a message from the client), `audit_tail` (a line a record, then
//! [`Response::Done`]), and `job_follow` (output as it comes, then [`Response::Job`]). [`Response::Error`] may stand in place of any line and is the last one.
//!
//! Payload bytes travel as lower-case hex: half as dense as the bytes, but readable with any
//! tool and without a dependency. [`MAX_LINE`] is chosen so that the largest payload fits.
//!
//! Who may talk is decided by the file system: the socket has mode 0600.
mod report;
mod request;
mod response;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use report::{ActorFault, ActorReport, LimitReport, MessageReport, StatusReport};
pub use request::{FaultKind, Request};
pub use response::Response;

/// A line of a `publish_stream`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamedMessage {
    /// The payload, in hex on the wire.
    #[serde(with = "hex::serde")]
    pub payload: Vec<u8>,
}

/// The socket's file name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Most bytes of a payload: the upper bound of `limits.max_message_size`, above its default of
/// 10 MB so that an operator can raise it a little without a new version of the protocol.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Most bytes of a line, its end not counted: the largest payload in hex (2 characters a byte)
/// and 64 KiB for everything around it. A longer line ends the connection.
pub const MAX_LINE: usize = 2 * MAX_PAYLOAD + (64 << 10);

/// Most characters of a free text in a request (reasons): it ends up in the audit log.
pub const MAX_TEXT: usize = 256;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind, for programs.
    pub code: FailureCode,
    /// What happened and what would help, for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Kinds of failure; `cli::exit` says which exit code each becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request is not understood, or an argument is out of bounds.
    Invalid,
    /// There is no actor of that name.
    UnknownActor,
    /// There is no job of that id.
    UnknownJob,
    /// The access decision, or the configuration, forbids it.
    Denied,
    /// The payload is larger than `limits.max_message_size`.
    TooLarge,
    /// An actor restarted, is overloaded or did not answer in time: trying again may help.
    Again,
    /// A part of the node is down.
    Unavailable,
    /// Reading or writing failed.
    Io,
    /// Anything else.
    Failed,
}

/// Milliseconds of a span, for the wire.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
