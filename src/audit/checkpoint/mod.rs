//! Checkpoints, as `c2sp.org/tlog-checkpoint` defines them: which log, how many records, and the
//! root of the tree over them, signed by the node's keys.
//!
//! The log's origin is the name of its keys: `quantraband/audit/` and the node's PeerId. Both of
//! the node's keys sign; whoever verifies says which keys he wants, and all of them must have
//! signed ([`SignedCheckpoint::verify`]). Nothing else the node signs begins like an origin, so
//! that no signature of another kind can be taken for one of these.

mod proof;

use thiserror::Error;

use super::{
    merkle::{Hash, MAX_SIZE},
    note::{BadNote, Kind, MAX_NAME, Note, SIGNING_KINDS, VerifierKey, base64},
};
use crate::{
    identity::{NodeKey, NodePublic},
    types::{PeerId, Timestamp},
};

pub use proof::{BadProof, InclusionProof, MAX_BUNDLE};

/// Before the PeerId in a log's origin.
const ORIGIN: &str = "quantraband/audit/";

/// The origin of a node's log.
#[must_use]
pub fn origin_of(peer: &PeerId) -> String {
    format!("{ORIGIN}{peer}")
}

/// The keys with which a node signs its log's checkpoints.
#[must_use]
pub fn log_keys(node: &NodePublic) -> Vec<VerifierKey> {
    let origin = origin_of(&node.peer);
    SIGNING_KINDS
        .into_iter()
        .filter_map(|kind| VerifierKey::of_node(&origin, kind, node))
        .collect()
}

/// How many records a log has, and the root over them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why something is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadCheckpoint {
    /// No signed note.
    #[error(transparent)]
    Note(#[from] BadNote),
    /// The note's text is no origin, size and root.
    #[error("its text is not an origin, a size and a root")]
    Text,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotBelieved {
    /// No key of this origin was given.
    #[error("it is of the log {0}, of which no key was given")]
    OtherLog(String),
    /// A key that had to sign did not.
    #[error("a key that has to sign it did not")]
    NotSigned,
    /// A signature does not verify.
    #[error("a signature of it does not verify")]
    Forged,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let root = base64::encode(&self.root.0);
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// Reads the text. Lines after the root are refused: the specification advises against them,
    /// and nobody checks them.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        if lines.next().is_some() || origin.is_empty() || origin.len() > MAX_NAME {
            return None;
        }
        let size = decimal(size).filter(|size| *size <= MAX_SIZE)?;
        let root = read_hash(root)?;
        Some(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}

/// A number in its one decimal text: no sign, no leading zeros.
pub(in crate::audit) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = text.parse().ok().filter(|_| digits)?;
    (number.to_string() == text).then_some(number)
}

/// A hash in base 64.
pub(in crate::audit) fn read_hash(text: &str) -> Option<Hash> {
    // 32 bytes have 44 letters: what is longer is not decoded at all.
    let short = text.len() == 44;
    Some(Hash(
        base64::decode(text).filter(|_| short)?.try_into().ok()?,
    ))
}

/// A checkpoint with its signatures, as read; nothing of it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Signs with both keys of the node, whose log it must be.
    ///
    /// # Errors
    /// [`BadNote`] never happens for a node's own origin.
    pub fn sign(size: u64, root: Hash, key: &NodeKey) -> Result<Self, BadNote> {
        let checkpoint = Checkpoint {
            origin: origin_of(&key.peer()),
            size,
            root,
        };
        let text = checkpoint.text();
        let signatures = log_keys(key.public())
            .iter()
            .map(|own| own.sign(key, &text, Timestamp::from_secs(0)))
            .collect();
        let note = Note::new(text, signatures)?;
        Ok(Self { checkpoint, note })
    }

    /// Reads a checkpoint in its one encoding.
    ///
    /// # Errors
    /// [`BadCheckpoint`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        let note = Note::read(bytes)?;
        let checkpoint = Checkpoint::read(note.text()).ok_or(BadCheckpoint::Text)?;
        Ok(Self { checkpoint, note })
    }

    /// What it says.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note that carries it.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Its text with the signatures.
    #[must_use]
    pub fn encode(&self) -> String {
        self.note.encode()
    }

    /// Every one of `keys` that is named as this log has to have signed it, and there has to be one.
    /// Keys of witnesses do not vouch for a log.
    ///
    /// # Errors
    /// [`NotBelieved`].
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<(), NotBelieved> {
        let of_log = |key: &&VerifierKey| {
            key.name() == self.checkpoint.origin && matches!(key.kind(), Kind::Log | Kind::LogMlDsa)
        };
        let mut some = false;
        for key in keys.iter().filter(of_log) {
            some = true;
            let verified = key.verify(&self.note).ok_or(NotBelieved::NotSigned)?;
            verified.map_err(|_| NotBelieved::Forged)?;
        }
        if some {
            Ok(())
        } else {
            Err(NotBelieved::OtherLog(self.checkpoint.origin.clone()))
        }
    }

    /// The same checkpoint with more signatures; `note` must be its note and more.
    pub(in crate::audit) fn with_note(&self, note: Note) -> Self {
        debug_assert_eq!(note.text(), self.note.text());
        Self {
            checkpoint: self.checkpoint.clone(),
            note,
        }
    }
}

#[cfg(test)]
mod tests;
