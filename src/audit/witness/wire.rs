//! What witnesses and logs say to one another, within bounds and in one encoding.

use thiserror::Error;

use super::super::{
    checkpoint::{BadCheckpoint, SignedCheckpoint, decimal, read_hash},
    merkle::{Hash, MAX_PROOF},
    note::{MAX_NOTE, MAX_SIGNATURES, Signature, VerifierKey, base64},
};

/// Longest request: the old size, 63 hashes, a checkpoint.
pub const MAX_REQUEST: usize = 32 + 45 * MAX_PROOF + MAX_NOTE;
/// Longest response: as many signatures as a note takes.
pub const MAX_RESPONSE: usize = MAX_NOTE;
/// Longest proof of equivocation: two checkpoints in base 64.
pub const MAX_EQUIVOCATION: usize = 128 + 2 * (MAX_NOTE.div_ceil(3) * 4);
/// The first line of a proof of equivocation.
const MAGIC: &str = "quantraband/equivocation/v1";

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadMessage {
    /// Longer than any.
    #[error("it is longer than any such message")]
    TooLong,
    /// Not in the format.
    #[error("it is not in the format")]
    Form,
    /// The checkpoint in it is none.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] BadCheckpoint),
}

/// A log asks for a cosignature: the body of C2SP's `add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Size of the head that the witness cosigned last; 0: none.
    pub old: u64,
    /// That the new tree continues it.
    pub proof: Vec<Hash>,
    /// The new head.
    pub checkpoint: SignedCheckpoint,
}

impl Request {
    /// The request as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = format!("old {}\n", self.old);
        for hash in &self.proof {
            out.push_str(&base64::encode(&hash.0));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.checkpoint.encode());
        out
    }

    /// Reads a request in its one encoding; verifies nothing.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadMessage> {
        let text = bounded(bytes, MAX_REQUEST)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(BadMessage::Form)?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(decimal)
            .ok_or(BadMessage::Form)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MAX_PROOF {
                return Err(BadMessage::TooLong);
            }
            proof.push(read_hash(line).ok_or(BadMessage::Form)?);
        }
        Ok(Self {
            old,
            proof,
            checkpoint: SignedCheckpoint::read(checkpoint.as_bytes())?,
        })
    }
}

/// A witness's answer. C2SP's has the meaning in the HTTP status; here it is the first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// 200: it is durable, and these lines cosign it.
    Cosigned(Vec<Signature>),
    /// 409: the witness's head has this size.
    Conflict(u64),
    /// 403: not signed with the keys of the peer that asks.
    NotSigned,
    /// 422: the proof does not hold.
    NotProved,
    /// The witness keeps heads of no more logs.
    Full,
    /// Not now: another head of this log is being written, or the disk failed.
    Busy,
}

impl Response {
    /// The response as text.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Cosigned(lines) => {
                let lines: String = lines.iter().map(Signature::line).collect();
                format!("cosigned\n{lines}")
            }
            Self::Conflict(size) => format!("conflict {size}\n"),
            Self::NotSigned => "not-signed\n".to_owned(),
            Self::NotProved => "not-proved\n".to_owned(),
            Self::Full => "full\n".to_owned(),
            Self::Busy => "busy\n".to_owned(),
        }
    }

    /// Reads a response in its one encoding; verifies nothing.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadMessage> {
        let text = bounded(bytes, MAX_RESPONSE)?;
        let (first, rest) = text.split_once('\n').ok_or(BadMessage::Form)?;
        if first == "cosigned" {
            return read_lines(rest).map(Self::Cosigned);
        }
        if !rest.is_empty() {
            return Err(BadMessage::Form);
        }
        match first {
            "not-signed" => Ok(Self::NotSigned),
            "not-proved" => Ok(Self::NotProved),
            "full" => Ok(Self::Full),
            "busy" => Ok(Self::Busy),
            other => other
                .strip_prefix("conflict ")
                .and_then(decimal)
                .map(Self::Conflict)
                .ok_or(BadMessage::Form),
        }
    }
}

/// At least one signature, each a line.
fn read_lines(text: &str) -> Result<Vec<Signature>, BadMessage> {
    let lines = text.strip_suffix('\n').ok_or(BadMessage::Form)?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        if signatures.len() == MAX_SIGNATURES {
            return Err(BadMessage::TooLong);
        }
        signatures.push(Signature::read(line).ok_or(BadMessage::Form)?);
    }
    Ok(signatures)
}

/// That a log signed two histories: two roots of one size, each with the log's signatures. Believed by
/// whoever has the log's keys, whoever hands it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    first: SignedCheckpoint,
    second: SignedCheckpoint,
}

impl Equivocation {
    /// What two checkpoints of one log prove; `None`: nothing. Their signatures are not looked at.
    #[must_use]
    pub fn of(one: &SignedCheckpoint, other: &SignedCheckpoint) -> Option<Self> {
        let (a, b) = (one.checkpoint(), other.checkpoint());
        let two = (&a.origin, a.size) == (&b.origin, b.size) && a.root != b.root;
        two.then(|| Self {
            first: one.clone(),
            second: other.clone(),
        })
    }

    /// Whether both are signed with the log's keys.
    #[must_use]
    pub fn verify(&self, keys: &[VerifierKey]) -> bool {
        self.first.verify(keys).is_ok() && self.second.verify(keys).is_ok()
    }

    /// The log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.first.checkpoint().origin
    }

    /// The size of which there are two roots.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.first.checkpoint().size
    }

    /// The proof as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let [first, second] =
            [&self.first, &self.second].map(|signed| base64::encode(signed.encode().as_bytes()));
        format!("{MAGIC}\n{first}\n{second}\n")
    }

    /// Reads a proof in its one encoding; verifies nothing but that it is two roots of one size.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadMessage> {
        let text = bounded(bytes, MAX_EQUIVOCATION)?;
        let mut lines = text.strip_suffix('\n').ok_or(BadMessage::Form)?.split('\n');
        let (magic, first, second) = (lines.next(), lines.next(), lines.next());
        if magic != Some(MAGIC) || lines.next().is_some() {
            return Err(BadMessage::Form);
        }
        let read = |line: Option<&str>| {
            let bytes = line.and_then(base64::decode).ok_or(BadMessage::Form)?;
            SignedCheckpoint::read(&bytes).map_err(BadMessage::from)
        };
        Self::of(&read(first)?, &read(second)?).ok_or(BadMessage::Form)
    }
}

fn bounded(bytes: &[u8], max: usize) -> Result<&str, BadMessage> {
    if bytes.len() > max {
        return Err(BadMessage::TooLong);
    }
    std::str::from_utf8(bytes).map_err(|_| BadMessage::Form)
}
