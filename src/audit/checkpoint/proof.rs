//! That one line is in a log, in one file: `c2sp.org/tlog-proof`, with the line as its extra data.
//!
//! The extra data is not signed; it is the leaf that the proof is about, so a changed line has no
//! proof any more.

use thiserror::Error;

use super::{
    super::{
        merkle::{Hash, MAX_PROOF, NotProved, verify_inclusion},
        note::{MAX_NOTE, VerifierKey, base64},
        record::MAX_LINE,
    },
    BadCheckpoint, NotBelieved, SignedCheckpoint, decimal, read_hash,
};

/// The first line.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// Longest bundle: a record's line in base 64, the hashes, the checkpoint.
pub const MAX_BUNDLE: usize = 128 + MAX_LINE.div_ceil(3) * 4 + 45 * MAX_PROOF + MAX_NOTE;

/// A line, where it stands, and the proof that it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The line, without its newline.
    pub line: Vec<u8>,
    /// Its place in the log.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<Hash>,
    /// The tree it stands in.
    pub checkpoint: SignedCheckpoint,
}

/// Why a bundle proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadProof {
    /// Longer than any.
    #[error("it is longer than any proof")]
    TooLong,
    /// Not in the format.
    #[error("it is no proof of an audit record as `audit prove` writes it")]
    Form,
    /// Its checkpoint is none.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] BadCheckpoint),
    /// Its checkpoint is not believed.
    #[error("its checkpoint: {0}")]
    NotBelieved(#[from] NotBelieved),
    /// The hashes prove something else.
    #[error(transparent)]
    NotProved(#[from] NotProved),
}

impl InclusionProof {
    /// The bundle as a file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = format!(
            "{MAGIC}\nextra {}\nindex {}\n",
            base64::encode(&self.line),
            self.index
        );
        for hash in &self.hashes {
            out.push_str(&base64::encode(&hash.0));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.checkpoint.encode());
        out
    }

    /// Reads a bundle in its one encoding; verifies nothing.
    ///
    /// # Errors
    /// [`BadProof`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadProof> {
        if bytes.len() > MAX_BUNDLE {
            return Err(BadProof::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadProof::Form)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(BadProof::Form)?;
        let mut lines = head.split('\n');
        let (magic, extra, index) = (lines.next(), lines.next(), lines.next());
        if magic != Some(MAGIC) {
            return Err(BadProof::Form);
        }
        let line = extra
            .and_then(|extra| extra.strip_prefix("extra "))
            .and_then(base64::decode)
            .filter(|line| line.len() <= MAX_LINE)
            .ok_or(BadProof::Form)?;
        let index = index
            .and_then(|index| index.strip_prefix("index "))
            .and_then(decimal)
            .ok_or(BadProof::Form)?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MAX_PROOF {
                return Err(BadProof::TooLong);
            }
            hashes.push(read_hash(line).ok_or(BadProof::Form)?);
        }
        Ok(Self {
            line,
            index,
            hashes,
            checkpoint: SignedCheckpoint::read(checkpoint.as_bytes())?,
        })
    }

    /// Checks that the line stands at its place in the log of the checkpoint, and that the log's
    /// keys among `keys` signed that.
    ///
    /// # Errors
    /// [`BadProof`].
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<(), BadProof> {
        self.checkpoint.verify(keys)?;
        let tree = self.checkpoint.checkpoint();
        let leaf = Hash::leaf(&self.line);
        verify_inclusion(leaf, self.index, (tree.size, tree.root), &self.hashes)?;
        Ok(())
    }
}
