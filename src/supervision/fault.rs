//! What can go wrong with an actor, and how it is reported.

use std::{any::Any, fmt};

use serde::{Deserialize, Serialize};

use crate::types::{Party, Timestamp};

/// Longest detail text kept, in bytes: a panic may carry a peer's input, and the text ends up in
/// the audit log and in every listing of actors.
pub const MAX_DETAIL: usize = 512;

/// Why an incarnation of an actor ended, with the detail in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A handler, timer or spawned future panicked.
    #[error("panic: {0}")]
    Panic(String),
    /// The actor gave up by [`Incarnation::fail`](super::Incarnation::fail).
    #[error("error: {0}")]
    Error(String),
    /// The actor's context ended, as by `ctx.stop()`.
    #[error("exit: {0}")]
    Exit(String),
    /// The actor made no progress for longer than its limit.
    #[error("stall: {0}")]
    Stall(String),
    /// An operator or a sibling asked for the restart. Spends no budget.
    #[error("restart: {0}")]
    Admin(String),
    /// The factory or `on_start` failed or panicked.
    #[error("build: {0}")]
    Build(String),
}

impl Fault {
    /// A failure to build or start, from any error.
    pub fn build(error: impl fmt::Display) -> Self {
        Self::Build(error.to_string())
    }

    /// An error the actor cannot go on from.
    pub fn error(error: impl fmt::Display) -> Self {
        Self::Error(error.to_string())
    }

    /// The kind of fault.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Panic(_) => Cause::Panic,
            Self::Error(_) => Cause::Error,
            Self::Exit(_) => Cause::Exit,
            Self::Stall(_) => Cause::Stall,
            Self::Admin(_) => Cause::Admin,
            Self::Build(_) => Cause::Build,
        }
    }

    /// What happened, in words.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Panic(text)
            | Self::Error(text)
            | Self::Exit(text)
            | Self::Stall(text)
            | Self::Admin(text)
            | Self::Build(text) => text,
        }
    }

    /// The same as seen while an actor was being built: only an admin's wish stays what it is.
    pub(super) fn during_build(self) -> Self {
        match self {
            Self::Panic(text) => Self::Build(format!("panic: {text}")),
            Self::Error(text) | Self::Exit(text) => Self::Build(text),
            other @ (Self::Stall(_) | Self::Admin(_) | Self::Build(_)) => other,
        }
    }
}

/// The kind of a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// [`Fault::Panic`]
    Panic,
    /// [`Fault::Error`]
    Error,
    /// [`Fault::Exit`]
    Exit,
    /// [`Fault::Stall`]
    Stall,
    /// [`Fault::Admin`]
    Admin,
    /// [`Fault::Build`]
    Build,
}

impl Cause {
    /// A stable name, for logs, metrics and the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Exit => "exit",
            Self::Stall => "stall",
            Self::Admin => "admin",
            Self::Build => "build",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault as it is remembered and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// The kind of fault.
    pub cause: Cause,
    /// What happened, in words; at most [`MAX_DETAIL`] bytes, control characters escaped.
    pub detail: String,
    /// When.
    pub at: Timestamp,
    /// Whose input was being handled.
    pub blamed: Option<Party>,
}

impl FaultReport {
    /// The report of `fault`.
    pub(super) fn new(fault: &Fault, at: Timestamp, blamed: Option<Party>) -> Self {
        Self {
            cause: fault.cause(),
            detail: tame(fault.detail()),
            at,
            blamed,
        }
    }
}

/// `text` on one line, without control characters, at most [`MAX_DETAIL`] bytes long.
fn tame(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let before = out.len();
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > MAX_DETAIL {
            out.truncate(before);
            break;
        }
    }
    out
}

/// The text of a caught panic.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}
