//! Signed notes, as `c2sp.org/signed-note` defines them: a text, and lines that sign it.
//!
//! A note is read in its one encoding and within bounds ([`MAX_NOTE`], [`MAX_SIGNATURES`]); reading
//! verifies nothing. Keys are known by name and key id, and signatures of others are passed over,
//! as the specification demands: [`VerifierKey`].

pub(in crate::audit) mod base64;
mod key;

use std::fmt;

use thiserror::Error;

pub(in crate::audit) use key::SIGNING_KINDS;
pub use key::{BadKey, Kind, NotVerified, VerifierKey, keys_of_text};

/// Most signatures of a note. The specification wants at least 16 to be read; here two for the log
/// and two for each of 15 witnesses.
pub const MAX_SIGNATURES: usize = 32;
/// Longest key name or origin: `quantraband/audit/` and a PeerId have 70 bytes.
pub const MAX_NAME: usize = 255;
/// Longest text that is signed: an origin, a size, a root.
pub const MAX_TEXT: usize = 1_024;
/// Longest signature after its key id: a time and one of ML-DSA-65 have 3,317 bytes; C2SP speaks of
/// nearly 5 kB for others.
const MAX_SIGNATURE: usize = 5_120;
/// Longest note: [`MAX_SIGNATURES`] of the longest name and `MAX_SIGNATURE` in base 64, and the
/// text.
pub const MAX_NOTE: usize = MAX_TEXT + 1 + MAX_SIGNATURES * (MAX_NAME + MAX_SIGNATURE * 4 / 3 + 16);
/// Before a signature's name: em dash, space.
const DASH: &str = "\u{2014} ";

/// Why a text is no signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadNote {
    /// Longer than any.
    #[error("it is longer than any note")]
    TooLong,
    /// No UTF-8, or control characters in it.
    #[error("it is no plain text")]
    NoText,
    /// The text, the blank line or the last newline is missing.
    #[error("it is no text followed by a blank line and signatures")]
    NoSignatures,
    /// A line where a signature should stand is none.
    #[error("a line where a signature should stand is none")]
    BadLine,
    /// More than [`MAX_SIGNATURES`].
    #[error("it has more than {MAX_SIGNATURES} signatures")]
    TooMany,
}

/// A line that signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key.
    pub name: String,
    /// The id of the key.
    pub id: u32,
    /// The signature itself.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, bytes } = self;
        write!(f, "Signature({name}+{id:08x}, {} bytes)", bytes.len())
    }
}

impl Signature {
    /// The line, with its newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        format!("{DASH}{} {}\n", self.name, base64::encode(&bytes))
    }

    /// Reads a line without its newline.
    pub(in crate::audit) fn read(line: &str) -> Option<Self> {
        let (name, text) = line.strip_prefix(DASH)?.split_once(' ')?;
        if !is_name(name) || text.len() > MAX_SIGNATURE * 4 / 3 + 8 {
            return None;
        }
        let bytes = base64::decode(text)?;
        let (id, bytes) = bytes.split_first_chunk::<4>()?;
        (!bytes.is_empty()).then(|| Self {
            name: name.to_owned(),
            id: u32::from_be_bytes(*id),
            bytes: bytes.to_vec(),
        })
    }
}

/// Whether a text may be the name of a key: not empty, without spaces and plus.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A text and the lines that sign it; nothing of it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A note to be signed; `text` must end in a newline and be plain.
    ///
    /// # Errors
    /// [`BadNote`] when it does not, or there are too many signatures.
    pub fn new(text: String, signatures: Vec<Signature>) -> Result<Self, BadNote> {
        if text.len() > MAX_TEXT {
            return Err(BadNote::TooLong);
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(BadNote::TooMany);
        }
        if !is_plain(&text) {
            return Err(BadNote::NoText);
        }
        let note = Self { text, signatures };
        if note.text.ends_with('\n') {
            Ok(note)
        } else {
            Err(BadNote::NoSignatures)
        }
    }

    /// Reads a note in its one encoding.
    ///
    /// # Errors
    /// [`BadNote`].
    pub fn read(bytes: &[u8]) -> Result<Self, BadNote> {
        if bytes.len() > MAX_NOTE {
            return Err(BadNote::TooLong);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| BadNote::NoText)?;
        if !is_plain(whole) {
            return Err(BadNote::NoText);
        }
        // The last empty line divides the text from the signatures.
        let at = whole.rfind("\n\n").ok_or(BadNote::NoSignatures)?;
        let (text, rest) = whole
            .split_at_checked(at + 1)
            .ok_or(BadNote::NoSignatures)?;
        let lines = rest
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .ok_or(BadNote::NoSignatures)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(BadNote::TooMany);
            }
            signatures.push(Signature::read(line).ok_or(BadNote::BadLine)?);
        }
        Self::new(text.to_owned(), signatures)
    }

    /// What is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines that sign it.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// [`BadNote::TooMany`].
    pub fn add(&mut self, signature: Signature) -> Result<(), BadNote> {
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(BadNote::TooMany);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The note's text with its signatures.
    #[must_use]
    pub fn encode(&self) -> String {
        let lines: String = self.signatures.iter().map(Signature::line).collect();
        format!("{}\n{lines}", self.text)
    }
}

/// Whether there are no ASCII control characters but newlines.
fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| byte < b' ' && byte != b'\n')
}

#[cfg(test)]
mod tests;
