//! Witnesses: peers that keep the newest checkpoint of a node's log, and cosign it.
//!
//! Pure: a request and what is known of the log give a [`Verdict`]; the caller writes to disk what
//! it says, and only then gets what to cosign ([`Witness::persisted`]). What is asked and answered
//! is the text of `c2sp.org/tlog-witness`: [`Request`], [`Response`].
//!
//! # Invariants
//! - A head moves only to one that continues it, proved, and signed with the log's own keys: nobody
//!   can brick a log by claiming a longer head for it.
//! - Of a log one head is on its way to the disk at a time, so a slower request cannot put an older
//!   one in the place of a newer.
//! - Two roots of one size, both signed by the log, are [`Equivocation`]; the head that was known
//!   stays.

mod wire;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checkpoint::SignedCheckpoint,
    merkle::{Hash, verify_consistency},
    note::{BadNote, Kind, Signature, VerifierKey},
};
use crate::{
    identity::{NodeKey, NodePublic},
    types::{PeerId, Timestamp},
};

pub use wire::{
    BadMessage, Equivocation, MAX_EQUIVOCATION, MAX_REQUEST, MAX_RESPONSE, Request, Response,
};

/// Before the PeerId in the name of a witness's keys.
const NAME: &str = "quantraband/witness/";

/// The name of a node's keys as a witness.
#[must_use]
pub fn witness_name(peer: &PeerId) -> String {
    format!("{NAME}{peer}")
}

/// The keys with which a node cosigns.
#[must_use]
pub fn witness_keys(node: &NodePublic) -> Vec<VerifierKey> {
    let name = witness_name(&node.peer);
    [Kind::Witness, Kind::WitnessMlDsa]
        .into_iter()
        .filter_map(|kind| VerifierKey::of_node(&name, kind, node))
        .collect()
}

/// Cosigns a checkpoint with both keys. Only what [`Witness::persisted`] gave may be cosigned.
#[must_use]
pub fn cosign(checkpoint: &SignedCheckpoint, key: &NodeKey, now: Timestamp) -> Vec<Signature> {
    let text = checkpoint.note().text();
    witness_keys(key.public())
        .iter()
        .map(|own| own.sign(key, text, now))
        .collect()
}

/// When every one of a witness's keys among `keys` cosigned the checkpoint; `None` when one did not,
/// or there is none of that name. Times differ by algorithm only if somebody put lines of two
/// answers together: then the earlier counts.
#[must_use]
pub fn cosigned(
    checkpoint: &SignedCheckpoint,
    name: &str,
    keys: &[VerifierKey],
) -> Option<Timestamp> {
    let of_witness = |key: &&VerifierKey| {
        key.name() == name && matches!(key.kind(), Kind::Witness | Kind::WitnessMlDsa)
    };
    let mut earliest = None;
    for key in keys.iter().filter(of_witness) {
        let time = key.verify(checkpoint.note())?.ok()??;
        earliest = Some(earliest.map_or(time, |known: Timestamp| known.min(time)));
    }
    earliest
}

/// Adds a witness's answer to a checkpoint, so far as it verifies.
///
/// # Errors
/// [`BadNote::TooMany`].
pub fn add_cosignatures(
    checkpoint: &SignedCheckpoint,
    lines: &[Signature],
    keys: &[VerifierKey],
) -> Result<SignedCheckpoint, BadNote> {
    let mut note = checkpoint.note().clone();
    for line in lines {
        let alone = super::note::Note::new(note.text().to_owned(), vec![line.clone()])?;
        let good = keys
            .iter()
            .any(|key| matches!(key.verify(&alone), Some(Ok(Some(_)))));
        let known = note
            .signatures()
            .iter()
            .any(|other| (&other.name, other.id) == (&line.name, line.id));
        if good && !known {
            note.add(line.clone())?;
        }
    }
    Ok(checkpoint.with_note(note))
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Make this head durable, then call [`Witness::persisted`] or [`Witness::failed`].
    Persist(Ticket),
    /// It is durable already: cosign it again.
    Known(SignedCheckpoint),
    /// Answer this.
    Answer(Response),
    /// The log signed two histories: keep the proof, tell everybody, answer this.
    Equivocation(Box<Equivocation>, Response),
}

/// A head on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    head: SignedCheckpoint,
}

impl Ticket {
    /// What is to be made durable, under its origin.
    #[must_use]
    pub fn head(&self) -> &SignedCheckpoint {
        &self.head
    }
}

/// The heads that this node keeps for others.
#[derive(Debug)]
pub struct Witness {
    heads: BTreeMap<String, SignedCheckpoint>,
    /// Origins whose next head is on its way to the disk.
    writing: BTreeSet<String>,
    most: usize,
}

impl Witness {
    /// Keeps heads of at most `most` logs; none is forgotten for another, for that would let a log
    /// begin anew.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            heads: BTreeMap::new(),
            writing: BTreeSet::new(),
            most,
        }
    }

    /// Takes a head over from the disk. `false`: there is no room.
    pub fn restore(&mut self, head: SignedCheckpoint) -> bool {
        let origin = head.checkpoint().origin.clone();
        if self.heads.len() >= self.most && !self.heads.contains_key(&origin) {
            return false;
        }
        self.heads.insert(origin, head);
        true
    }

    /// The newest durable head of a log.
    #[must_use]
    pub fn head(&self, origin: &str) -> Option<&SignedCheckpoint> {
        self.heads.get(origin)
    }

    /// Judges a request. `keys` are those of the peer that the connection proved: no other log's
    /// head is taken from it.
    #[must_use]
    pub fn consider(&mut self, request: &Request, keys: &[VerifierKey]) -> Verdict {
        let next = &request.checkpoint;
        if next.verify(keys).is_err() {
            return Verdict::Answer(Response::NotSigned);
        }
        let origin = &next.checkpoint().origin;
        if self.writing.contains(origin) {
            return Verdict::Answer(Response::Busy);
        }
        if let Some(two) = self
            .heads
            .get(origin)
            .and_then(|known| Equivocation::of(known, next))
        {
            let size = next.checkpoint().size;
            return Verdict::Equivocation(Box::new(two), Response::Conflict(size));
        }
        let known = self.heads.get(origin).map(SignedCheckpoint::checkpoint);
        let (size, root) = known.map_or((0, Hash::empty()), |known| (known.size, known.root));
        if request.old != size {
            return Verdict::Answer(Response::Conflict(size));
        }
        let tree = next.checkpoint();
        if tree.size < size || tree.size == 0 {
            return Verdict::Answer(Response::Conflict(size));
        }
        if verify_consistency((size, root), (tree.size, tree.root), &request.proof).is_err() {
            return Verdict::Answer(Response::NotProved);
        }
        if tree.size == size {
            // Of the same tree; what is known is durable.
            return Verdict::Known(next.clone());
        }
        if known.is_none() && self.heads.len().saturating_add(self.writing.len()) >= self.most {
            return Verdict::Answer(Response::Full);
        }
        self.writing.insert(origin.clone());
        Verdict::Persist(Ticket { head: next.clone() })
    }

    /// The head is durable: it is the known one from here on, and may be cosigned.
    pub fn persisted(&mut self, ticket: Ticket) -> SignedCheckpoint {
        let origin = ticket.head.checkpoint().origin.clone();
        self.writing.remove(&origin);
        self.heads.insert(origin, ticket.head.clone());
        ticket.head
    }

    /// The head could not be made durable, or nobody knows whether it was: the known one stays, and
    /// nothing is cosigned. Should the disk hold the newer one after all, the next start takes that.
    pub fn failed(&mut self, ticket: &Ticket) -> Response {
        self.writing.remove(&ticket.head.checkpoint().origin);
        Response::Busy
    }

    /// Looks at a head that another witness has of a log whose keys these are. Some: the log told it
    /// another history than this node.
    #[must_use]
    pub fn compare(&self, other: &SignedCheckpoint, keys: &[VerifierKey]) -> Option<Equivocation> {
        other.verify(keys).ok()?;
        let known = self.heads.get(&other.checkpoint().origin)?;
        Equivocation::of(known, other)
    }
}

#[cfg(test)]
mod tests;
