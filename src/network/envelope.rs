//! The envelope of a gossip message: what its author signs besides the topic.
//!
//! Deterministic CBOR (RFC 8949, core deterministic encoding) of one fixed map with ascending
//! integer keys, so there is exactly one way to write a message:
//!
//! | key | value |
//! |---|---|
//! | 1 | version, 1 |
//! | 2 | sent, milliseconds since 1970 |
//! | 3 | sequence, chosen by the author, ascending |
//! | 4 | SHA-256 of the author's credential, or null |
//! | 5 or 6 | payload: 5 for everybody, 6 sealed (`docs/reference/sealed.md`) |
//!
//! Pure and bounded. The signature is gossipsub's, over the whole envelope. Anything but the one
//! encoding is refused: two spellings of a message would have two ids. The bytes are frozen by
//! `tests/fixtures/network/envelope.hex`.

use thiserror::Error;

use crate::types::Timestamp;

/// Version of the envelope.
pub const VERSION: u64 = 1;
/// Most bytes an envelope adds to its payload: map head, five keys, version, two integers of 9,
/// hash of 34, payload head of 9.
pub const OVERHEAD: usize = 1 + 5 + 1 + 9 + 9 + 34 + 9;

// Major types of CBOR, in the upper three bits of a head.
const UINT: u8 = 0 << 5;
const BYTES: u8 = 2 << 5;
const MAP: u8 = 5 << 5;
const NULL: u8 = 0xf6;
/// The key of a sealed payload, which is also how it is written.
const SEALED: u8 = 6;
/// Entries of the map.
const ENTRIES: u64 = 5;

/// A message of an author, as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When its author says it was sent.
    pub sent: Timestamp,
    /// The author's own count, ascending; with `sent` the key of the replay window.
    pub sequence: u64,
    /// SHA-256 of the author's credential; `None` when it has none.
    pub credential: Option<[u8; 32]>,
    /// What it says.
    pub payload: Vec<u8>,
    /// Whether that is sealed to some.
    pub sealed: bool,
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The payload is longer than allowed.
    #[error("the payload has more than {limit} bytes")]
    TooLarge {
        /// Most bytes of a payload.
        limit: usize,
    },
    /// A version this node does not speak.
    #[error("unknown version {0} of the envelope")]
    Version(u64),
    /// Not the one encoding of an envelope.
    #[error("malformed envelope")]
    Malformed,
}

impl Envelope {
    /// The one encoding of this envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + OVERHEAD);
        head(&mut out, MAP, ENTRIES);
        entry(&mut out, 1, UINT, VERSION);
        entry(&mut out, 2, UINT, self.sent.millis());
        entry(&mut out, 3, UINT, self.sequence);
        head(&mut out, UINT, 4);
        match &self.credential {
            Some(hash) => {
                head(&mut out, BYTES, 32);
                out.extend_from_slice(hash);
            }
            None => out.push(NULL),
        }
        // usize fits u64 on every platform this runs on.
        let length = u64::try_from(self.payload.len()).unwrap_or(u64::MAX);
        entry(&mut out, payload_key(self.sealed), BYTES, length);
        out.extend_from_slice(&self.payload);
        out
    }

    /// Reads an envelope whose payload has at most `max_payload` bytes.
    ///
    /// # Errors
    /// As [`EnvelopeError`] says.
    pub fn decode(bytes: &[u8], max_payload: usize) -> Result<Self, EnvelopeError> {
        if bytes.len() > max_payload.saturating_add(OVERHEAD) {
            return Err(EnvelopeError::TooLarge { limit: max_payload });
        }
        let mut reader = Reader(bytes);
        // The version comes first, so that a later one is named as such whatever follows.
        let (kind, _) = reader.head()?;
        if kind != MAP {
            return Err(EnvelopeError::Malformed);
        }
        let version = reader.entry(1, UINT)?;
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        let sent = Timestamp::from_millis(reader.entry(2, UINT)?);
        let sequence = reader.entry(3, UINT)?;
        let credential = reader.credential()?;
        let sealed = reader.0.first() == Some(&SEALED);
        let length = reader.entry(payload_key(sealed), BYTES)?;
        let length = usize::try_from(length).map_err(|_| EnvelopeError::Malformed)?;
        if length > max_payload {
            return Err(EnvelopeError::TooLarge { limit: max_payload });
        }
        let payload = reader.take(length)?.to_vec();
        let envelope = Self {
            sent,
            sequence,
            credential,
            payload,
            sealed,
        };
        // One spelling only: shortest heads, this many entries, nothing behind.
        if envelope.encode() == bytes {
            Ok(envelope)
        } else {
            Err(EnvelopeError::Malformed)
        }
    }
}

fn payload_key(sealed: bool) -> u64 {
    if sealed { u64::from(SEALED) } else { 5 }
}

/// Writes a CBOR head in its shortest form.
fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (info, tail) = match value {
        0..24 => (bytes.get(7).copied().unwrap_or(0), 8),
        24..0x100 => (24, 7),
        0x100..0x1_0000 => (25, 6),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 0),
    };
    out.push(major | info);
    out.extend_from_slice(bytes.get(tail..).unwrap_or_default());
}

fn entry(out: &mut Vec<u8>, key: u64, major: u8, value: u64) {
    head(out, UINT, key);
    head(out, major, value);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(EnvelopeError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A head of any length: whether it was the shortest is seen when it is written again.
    fn head(&mut self) -> Result<(u8, u64), EnvelopeError> {
        let first = *self.take(1)?.first().ok_or(EnvelopeError::Malformed)?;
        let (major, info) = (first & 0xe0, first & 0x1f);
        let bytes = match info {
            0..24 => return Ok((major, u64::from(info))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err(EnvelopeError::Malformed),
        };
        let value = self.take(bytes)?;
        let value = value
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Ok((major, value))
    }

    fn entry(&mut self, key: u64, major: u8) -> Result<u64, EnvelopeError> {
        if self.head()? != (UINT, key) {
            return Err(EnvelopeError::Malformed);
        }
        match self.head()? {
            (found, value) if found == major => Ok(value),
            _ => Err(EnvelopeError::Malformed),
        }
    }

    fn credential(&mut self) -> Result<Option<[u8; 32]>, EnvelopeError> {
        if self.head()? != (UINT, 4) {
            return Err(EnvelopeError::Malformed);
        }
        if let Some(rest) = self.0.strip_prefix(&[NULL]) {
            self.0 = rest;
            return Ok(None);
        }
        if self.head()? != (BYTES, 32) {
            return Err(EnvelopeError::Malformed);
        }
        let hash = self.take(32)?.try_into();
        hash.map(Some).map_err(|_| EnvelopeError::Malformed)
    }
}

#[cfg(test)]
mod tests;
