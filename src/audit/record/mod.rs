//! A record: one event as one line of canonical JSON, sealed and chained.
//!
//! `docs/reference/audit-log.md` describes the format. Invariants: a line has at most
//! [`MAX_LINE`] bytes; its fingerprint covers every other byte of it; it names the fingerprint
//! of its predecessor. A line that cannot be read is said to be so, never guessed at.

mod classes;
mod ocsf;
mod text;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{
    AuditEvent,
    merkle::{Frontier, Hash},
};
use crate::types::{EventId, Timestamp};
use text::Cutter;

/// Most bytes of a line without its newline: just below 64 KiB.
pub const MAX_LINE: usize = 65_535;
/// What stands where the head of a log without records is wanted. Its SHA-256 is
/// [`Fingerprint::genesis`].
pub const GENESIS: &str = "quantraband audit log, format 1, genesis";
/// Before the fingerprint's digits, in every line exactly once outside of a string: inside one
/// the quotes would be escaped.
const SEAL_OPEN: &[u8] = br#""attestation_list":[{"fingerprint":{"algorithm_id":3,"value":""#;
/// The same place before the fingerprint is put in.
const SEAL_PLACE: &[u8] = br#""attestation_list":[{"#;
/// OCSF's number for SHA-256.
const SHA_256: u8 = 3;

/// SHA-256 over a record's canonical text without the fingerprint itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The head of a log without records.
    #[must_use]
    pub fn genesis() -> Self {
        Self(Sha256::digest(GENESIS).into())
    }

    /// An event id drawn from this fingerprint and `salt`, for records the log writes by
    /// itself: the same place in the same log always gives the same id.
    pub(super) fn derive_id(self, salt: &[u8]) -> EventId {
        let digest = Sha256::new()
            .chain_update(self.0)
            .chain_update(salt)
            .finalize();
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        EventId(id)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Where a log stands: how many records it has, and its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Records so far; the next record's sequence.
    pub size: u64,
    /// Fingerprint of the newest record; [`Fingerprint::genesis`] when there is none.
    pub fingerprint: Fingerprint,
    /// Id of the newest record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<EventId>,
}

impl Head {
    /// The head of a log without records.
    #[must_use]
    pub fn genesis() -> Self {
        Self {
            size: 0,
            fingerprint: Fingerprint::genesis(),
            uid: None,
        }
    }
}

/// Why a segment was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentCause {
    /// The log's first.
    Genesis,
    /// The one before reached its size.
    Size,
    /// An operator asked for it.
    Command,
    /// Writing or syncing the one before failed.
    WriteFailed,
    /// The one before was removed or replaced under the running node.
    Replaced,
    /// A start after a crash found this segment without a first line.
    Recovered,
}

impl SegmentCause {
    /// Whether lines of earlier segments at or past this segment's `size` are set aside: they
    /// were written there, never acknowledged there, and are repeated from here on.
    #[must_use]
    pub fn sets_aside(self) -> bool {
        matches!(self, Self::WriteFailed | Self::Replaced | Self::Recovered)
    }
}

/// What the first line of a segment says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHead {
    /// Why it was begun.
    pub cause: SegmentCause,
    /// Version of the line format; 1.
    pub format: u32,
    /// Fingerprint of the newest record before this segment.
    pub head: Fingerprint,
    /// The segment's number, as in its file name.
    pub number: u64,
    /// Records before this segment.
    pub size: u64,
    /// The Merkle tree's frontier over them, the largest subtree first: with it the tree goes on
    /// without a look at earlier segments.
    pub tree: Vec<Hash>,
}

impl SegmentHead {
    /// The frontier it names; `None` when it is none of a log of its size.
    #[must_use]
    pub fn frontier(&self) -> Option<Frontier> {
        Frontier::from_parts(self.size, self.tree.clone())
    }
}

/// Version of the line format.
pub const FORMAT: u32 = 1;

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    /// Something that happened.
    Event(&'a AuditEvent),
    /// The first line of a segment.
    Segment(&'a SegmentHead),
    /// A signed checkpoint of the records before this one.
    Checkpoint(&'a str),
}

/// A line in the making: who wrote it, when, under which id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    /// Version of the program.
    pub(super) version: &'a str,
    pub(super) id: EventId,
    pub(super) time: Timestamp,
    pub(super) body: Body<'a>,
}

/// Appends the line of `draft`, newline included, to `out`; returns the head after it.
pub(super) fn write(draft: &Draft<'_>, head: &Head, out: &mut Vec<u8>) -> serde_json::Result<Head> {
    let mut cut = Cutter::default();
    let mut record = match draft.body {
        Body::Event(event) => classes::record(event, &mut cut),
        Body::Segment(segment) => classes::segment(segment.clone()),
        Body::Checkpoint(note) => classes::checkpoint(note),
    };
    // OCSF wants an aggregate's time to be that of its first event.
    record.time = record
        .start_time
        .unwrap_or_else(|| classes::exact(draft.time.millis()));
    record.attestation_list = [ocsf::Attestation {
        prev_event: head.uid.map(|uid| ocsf::PrevEvent {
            fingerprint: ocsf::FingerprintObject {
                algorithm_id: SHA_256,
                value: head.fingerprint,
            },
            uid,
        }),
    }];
    record.metadata = ocsf::Metadata {
        is_truncated: cut.truncated(),
        product: ocsf::Product {
            name: classes::PRODUCT,
            version: Some(draft.version.to_owned()),
            ..ocsf::Product::default()
        },
        profiles: ["record_integrity", "security_control"],
        sequence: head.size,
        uid: draft.id.to_string(),
        version: ocsf::VERSION,
    };
    // The attributes are declared in the order RFC 8785 sorts them, all numbers are integers, and
    // serde_json escapes as it demands: so this is canonical already, and the writer's
    // thread has more time for the disk.
    let bare = serde_json::to_vec(&record)?;
    debug_assert_eq!(
        serde_json_canonicalizer::to_vec(&record).ok().as_ref(),
        Some(&bare),
        "declare the attributes in sorted order"
    );
    let fingerprint = seal(&bare, out)?;
    out.push(b'\n');
    Ok(Head {
        size: head.size + 1,
        fingerprint,
        uid: Some(draft.id),
    })
}

/// Puts the fingerprint of `bare` into its place.
fn seal(bare: &[u8], out: &mut Vec<u8>) -> serde_json::Result<Fingerprint> {
    let at = find(bare, SEAL_PLACE).map(|at| at + SEAL_PLACE.len());
    let (before, after) = at
        .and_then(|at| bare.split_at_checked(at))
        .ok_or_else(|| serde::ser::Error::custom("no place for the fingerprint"))?;
    let fingerprint = Fingerprint(Sha256::digest(bare).into());
    out.reserve(bare.len() + 128);
    out.extend_from_slice(before);
    out.extend_from_slice(br#""fingerprint":{"algorithm_id":3,"value":""#);
    out.extend_from_slice(fingerprint.to_string().as_bytes());
    out.extend_from_slice(br#""}"#);
    if !after.starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(after);
    Ok(fingerprint)
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    // Jump from quote to quote: far faster than comparing at every byte.
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = from + rest.iter().position(|byte| *byte == b'"')?;
        if text.get(at..)?.starts_with(pattern) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// What a reader needs of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub sequence: u64,
    /// The event's id.
    pub id: EventId,
    /// The fingerprint it claims.
    pub fingerprint: Fingerprint,
    /// The fingerprint of its predecessor, as it claims.
    pub previous: Option<Fingerprint>,
    /// The event's stable name.
    pub event: String,
    /// When, milliseconds since 1970.
    pub time: u64,
    /// What it says as the first line of a segment.
    pub segment: Option<SegmentHead>,
    /// The signed checkpoint it carries.
    pub checkpoint: Option<String>,
    /// Whether the line's bytes have the fingerprint it claims.
    pub sound: bool,
}

impl Entry {
    /// The head of a log whose newest record this is.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            size: self.sequence.saturating_add(1),
            fingerprint: self.fingerprint,
            uid: Some(self.id),
        }
    }
}

#[derive(Deserialize)]
struct Parsed {
    attestation_list: [ParsedAttestation; 1],
    metadata: ParsedMetadata,
    time: u64,
    unmapped: ParsedUnmapped,
}

#[derive(Deserialize)]
struct ParsedAttestation {
    fingerprint: ParsedFingerprint,
    prev_event: Option<ParsedPrevious>,
}

#[derive(Deserialize)]
struct ParsedPrevious {
    fingerprint: ParsedFingerprint,
}

#[derive(Deserialize)]
struct ParsedFingerprint {
    value: Fingerprint,
}

#[derive(Deserialize)]
struct ParsedMetadata {
    sequence: u64,
    uid: EventId,
}

#[derive(Deserialize)]
struct ParsedUnmapped {
    checkpoint: Option<String>,
    event: String,
    segment: Option<SegmentHead>,
}

/// Reads a line (without its newline).
///
/// # Errors
/// When it is no record at all; a record that was altered is read, and not `sound`.
pub fn read(line: &[u8]) -> Result<Entry, serde_json::Error> {
    let parsed: Parsed = serde_json::from_slice(line)?;
    let [attestation] = parsed.attestation_list;
    let fingerprint = attestation.fingerprint.value;
    Ok(Entry {
        sequence: parsed.metadata.sequence,
        id: parsed.metadata.uid,
        fingerprint,
        previous: attestation.prev_event.map(|prev| prev.fingerprint.value),
        event: parsed.unmapped.event,
        time: parsed.time,
        segment: parsed.unmapped.segment,
        checkpoint: parsed.unmapped.checkpoint,
        sound: unseal(line) == Some(fingerprint),
    })
}

/// The fingerprint the line should have: over its bytes without the fingerprint, which must
/// stand in the line exactly as [`seal`] puts it.
fn unseal(line: &[u8]) -> Option<Fingerprint> {
    let at = find(line, SEAL_OPEN)?;
    let before = line.get(..at + SEAL_PLACE.len())?;
    let rest = line.get(at + SEAL_OPEN.len()..)?;
    let (digits, rest) = rest.split_at_checked(64)?;
    if !digits
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let rest = rest.strip_prefix(br#""}"#)?;
    // No comma exactly when nothing follows, as `seal` writes it.
    let rest = if rest.starts_with(b"}") {
        rest
    } else {
        rest.strip_prefix(b",")?
    };
    let digest = Sha256::new()
        .chain_update(before)
        .chain_update(rest)
        .finalize();
    Some(Fingerprint(digest.into()))
}

#[cfg(test)]
mod tests;
