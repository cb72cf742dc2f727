//! The envelope of a gossip message: what its author signs besides the topic.
//!
//! One envelope carries 1 to [`MAX_ENTRIES`] messages of one author on one topic, so that one
//! signature serves for all of them. Deterministic CBOR (RFC 8949, core deterministic encoding) of
//! maps with ascending integer keys, so there is exactly one way to write it; the schema is
//! `docs/reference/envelope.cddl`:
//!
//! | key | value |
//! |---|---|
//! | 1 | version, 2 |
//! | 2 | sent, milliseconds since 1970 |
//! | 3 | sequence of the first entry, chosen by the author, ascending; entry i has this plus i |
//! | 4 | SHA-256 of the author's credential, or null |
//! | 5 | the entries |
//!
//! An entry is a map: 1 the payload for everybody or 2 the sealed payload
//! (`docs/reference/sealed.md`), then optionally 3 `traceparent` and 4 `tracestate`.
//!
//! Pure and bounded. The signature is gossipsub's, over the whole envelope. Anything but the one
//! encoding is refused while it is read: two spellings of a message would have two ids. The bytes
//! are frozen by `tests/fixtures/network/envelope.hex`.

mod trace;
mod wire;

use thiserror::Error;

use crate::types::Timestamp;
use wire::{Reader, bytes_head, head_len};

pub use trace::{Trace, TraceError};

/// Version of the envelope.
pub const VERSION: u64 = 2;
/// Most entries of one envelope: at 256 bytes each it is then a quarter of a megabyte, and more
/// entries save nothing that is worth the wait.
pub const MAX_ENTRIES: usize = 1_024;
/// Most bytes around the entries: map head, five keys, version, two integers of 9, hash of 34, head
/// of the list.
const HEAD: usize = 1 + 5 + 1 + 9 + 9 + 34 + 3;
/// Most bytes of an entry beside its payload: map head, three keys, payload head of 9, both parts of
/// a trace context with their heads.
const ENTRY: usize = 1 + 3 + 9 + (2 + Trace::PARENT_LEN) + (3 + Trace::MAX_STATE);
/// Most bytes an envelope of one entry adds to its payload. An envelope of several is no longer
/// than one with the largest payload may be.
pub const OVERHEAD: usize = HEAD + ENTRY;

/// The keys of a payload within an entry.
const PLAIN: u64 = 1;
const SEALED: u64 = 2;
/// Those of a trace context.
const TRACEPARENT: u64 = 3;
const TRACESTATE: u64 = 4;
/// Entries of the outer map.
const FIELDS: u64 = 5;

/// Messages of an author on one topic, as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// When its author says it was sent.
    pub sent: Timestamp,
    /// The author's own count, ascending over envelopes: that of the first entry.
    pub first: u64,
    /// SHA-256 of the author's credential; `None` when it has none.
    pub credential: Option<[u8; 32]>,
    /// What it says: 1 to [`MAX_ENTRIES`].
    pub entries: Vec<Entry>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// What it says.
    pub payload: Vec<u8>,
    /// Whether that is sealed to some.
    pub sealed: bool,
    /// What its author was doing, for whoever follows traces.
    pub trace: Option<Box<Trace>>,
}

impl Entry {
    /// A message for everybody, without a trace context.
    #[must_use]
    pub fn plain(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Bytes it takes in an envelope.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let payload = self.payload.len();
        let trace = self.trace.as_deref().map_or(0, |trace| {
            let state = trace.state();
            let state = state.map_or(0, |text| 1 + head_len(text.len()) + text.len());
            3 + Trace::PARENT_LEN + state
        });
        2 + head_len(payload) + payload + trace
    }

    fn fields(&self) -> u64 {
        let trace = self.trace.as_deref();
        1 + trace.map_or(0, |trace| 1 + u64::from(trace.state().is_some()))
    }
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// A payload, or all of it, is longer than allowed.
    #[error("a payload has more than {limit} bytes, or all of them together have")]
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
    /// A trace context that is none. Apart, since trace contexts are not part of what names a
    /// message: another one of the same name may be flawless.
    #[error("malformed trace context")]
    Trace,
}

impl Envelope {
    /// The number of its entries, each of which counts as a message. At most [`MAX_ENTRIES`] after
    /// [`Envelope::decode`].
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of its payloads.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.payload.len()).sum()
    }

    /// The one encoding of this envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entries: usize = self.entries.iter().map(Entry::encoded_len).sum();
        let mut out = Vec::with_capacity(HEAD + entries);
        wire::head(&mut out, wire::MAP, FIELDS);
        wire::pair(&mut out, 1, wire::UINT, VERSION);
        wire::pair(&mut out, 2, wire::UINT, self.sent.millis());
        wire::pair(&mut out, 3, wire::UINT, self.first);
        wire::head(&mut out, wire::UINT, 4);
        match &self.credential {
            Some(hash) => {
                wire::head(&mut out, wire::BYTES, 32);
                out.extend_from_slice(hash);
            }
            None => out.push(wire::NULL),
        }
        wire::pair(&mut out, 5, wire::ARRAY, u64::from(self.count()));
        for entry in &self.entries {
            wire::head(&mut out, wire::MAP, entry.fields());
            wire::head(&mut out, wire::UINT, payload_key(entry.sealed));
            bytes_head(&mut out, wire::BYTES, entry.payload.len());
            out.extend_from_slice(&entry.payload);
            if let Some(trace) = entry.trace.as_deref() {
                wire::text(&mut out, TRACEPARENT, trace.parent());
                if let Some(state) = trace.state() {
                    wire::text(&mut out, TRACESTATE, state);
                }
            }
        }
        out
    }

    /// Reads an envelope whose payloads have at most `max_payload` bytes each, and which is no
    /// longer than one message of that size may be. Nothing is kept of what it claims before it is
    /// known to be there.
    ///
    /// # Errors
    /// As [`EnvelopeError`] says.
    pub fn decode(bytes: &[u8], max_payload: usize) -> Result<Self, EnvelopeError> {
        let too_large = EnvelopeError::TooLarge { limit: max_payload };
        if bytes.len() > max_payload.saturating_add(OVERHEAD) {
            return Err(too_large);
        }
        let mut reader = Reader::new(bytes);
        let Head {
            sent,
            first,
            credential,
            count,
        } = Head::read(&mut reader)?;
        // An entry takes two bytes at least: a count that lies reserves nothing.
        let mut entries = Vec::with_capacity(count.min(reader.left() / 2));
        for _ in 0..count {
            let (sealed, payload, trace) = read_entry(&mut reader)?;
            if payload.len() > max_payload {
                return Err(too_large);
            }
            let trace = match trace {
                Some((parent, state)) => Some(Box::new(
                    Trace::exact(parent, state).map_err(|_| EnvelopeError::Trace)?,
                )),
                None => None,
            };
            entries.push(Entry {
                payload: payload.to_vec(),
                sealed,
                trace,
            });
        }
        reader.finish()?;
        Ok(Self {
            sent,
            first,
            credential,
            entries,
        })
    }
}

struct Head {
    sent: Timestamp,
    first: u64,
    credential: Option<[u8; 32]>,
    count: usize,
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Result<Self, EnvelopeError> {
        // The version comes first, so that a later one is named as such whatever follows.
        let fields = reader.of_kind(wire::MAP)?;
        let version = reader.pair(1, wire::UINT)?;
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        if fields != FIELDS {
            return Err(EnvelopeError::Malformed);
        }
        let sent = Timestamp::from_millis(reader.pair(2, wire::UINT)?);
        let first = reader.pair(3, wire::UINT)?;
        let credential = reader.credential()?;
        let count =
            usize::try_from(reader.pair(5, wire::ARRAY)?).map_err(|_| EnvelopeError::Malformed)?;
        // The last sequence exists, too.
        let last = u64::try_from(count).ok().and_then(|n| first.checked_add(n));
        if !(1..=MAX_ENTRIES).contains(&count) || last.is_none() {
            return Err(EnvelopeError::Malformed);
        }
        Ok(Self {
            sent,
            first,
            credential,
            count,
        })
    }
}

type Texts<'a> = (&'a str, Option<&'a str>);

/// Whether it is sealed, its payload, and its trace context unchecked.
fn read_entry<'a>(
    reader: &mut Reader<'a>,
) -> Result<(bool, &'a [u8], Option<Texts<'a>>), EnvelopeError> {
    let fields = reader.of_kind(wire::MAP)?;
    let sealed = match reader.of_kind(wire::UINT)? {
        PLAIN => false,
        SEALED => true,
        _ => return Err(EnvelopeError::Malformed),
    };
    let payload = reader.string(wire::BYTES)?;
    let trace = match fields {
        1 => None,
        2 => Some((reader.text(TRACEPARENT)?, None)),
        3 => Some((reader.text(TRACEPARENT)?, Some(reader.text(TRACESTATE)?))),
        _ => return Err(EnvelopeError::Malformed),
    };
    Ok((sealed, payload, trace))
}

/// Hands the parts of an encoded envelope that name its content to `part`: all but the trace
/// contexts, which say how a message came about and not what it says. `false` when the bytes are no
/// envelope; what was handed over then means nothing.
#[must_use]
pub(super) fn content(bytes: &[u8], mut part: impl FnMut(&[u8])) -> bool {
    let mut reader = Reader::new(bytes);
    let Ok(head) = Head::read(&mut reader) else {
        return false;
    };
    let length = bytes.len().saturating_sub(reader.left());
    part(bytes.get(..length).unwrap_or_default());
    for _ in 0..head.count {
        let Ok((sealed, payload, _)) = read_entry(&mut reader) else {
            return false;
        };
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let [a, b, c, d, e, f, g, h] = length.to_be_bytes();
        part(&[u8::from(sealed), a, b, c, d, e, f, g, h]);
        part(payload);
    }
    reader.finish().is_ok()
}

fn payload_key(sealed: bool) -> u64 {
    if sealed { SEALED } else { PLAIN }
}

#[cfg(test)]
mod tests;
