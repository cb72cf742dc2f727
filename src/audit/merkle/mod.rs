//! The Merkle tree over a log's lines, as RFC 6962 (and RFC 9162, section 2.1) defines it.
//!
//! A leaf is a line's bytes without the newline; its place is the record's sequence. Lines that a
//! later segment set aside are no leaves. The writer keeps a [`Frontier`], some 50 hashes at the
//! most; proofs are collected by reading the log once ([`Collector`]) and checked without it
//! ([`verify_inclusion`], [`verify_consistency`]).
//!
//! Invariants: a frontier and the naive recursive definition give the same root; a proof has at
//! most [`MAX_PROOF`] hashes; nothing here recurses, and nothing panics for any input.

mod proof;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

pub use proof::{
    Collector, MAX_PROOF, NotProved, Range, consistency_ranges, inclusion_ranges,
    verify_consistency, verify_inclusion,
};

/// Before a leaf's bytes: no leaf can be taken for an inner node (RFC 6962, section 2.1).
const LEAF: u8 = 0;
/// Before the two hashes of an inner node.
const NODE: u8 = 1;
/// Most leaves of a tree: a record's sequence is an integer within 2^53, as JSON carries it.
pub const MAX_SIZE: u64 = 1 << 53;

/// A hash of the tree: of a leaf, of an inner node, or its root.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of a line (without its newline) as a leaf.
    #[must_use]
    pub fn leaf(line: &[u8]) -> Self {
        let digest = Sha256::new().chain_update([LEAF]).chain_update(line);
        Self(digest.finalize().into())
    }

    /// The hash of an inner node.
    #[must_use]
    pub fn node(left: Self, right: Self) -> Self {
        let digest = Sha256::new()
            .chain_update([NODE])
            .chain_update(left.0)
            .chain_update(right.0);
        Self(digest.finalize().into())
    }

    /// The root of the tree without leaves: the hash of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// The right edge of a growing tree: the roots of its perfect subtrees, the largest first. Enough
/// to add leaves and to tell the root, in memory that grows with the logarithm of the size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes up a frontier that was written down; `None` when so many hashes are no frontier of a
    /// tree of this size.
    #[must_use]
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        let fits = size <= MAX_SIZE && u32::try_from(peaks.len()) == Ok(size.count_ones());
        fits.then_some(Self { size, peaks })
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, the largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each one at the end of the size is a perfect subtree that the new one completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = Hash::node(left, hash);
            }
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// The root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut smallest_first = self.peaks.iter().rev().copied();
        smallest_first.next().map_or_else(Hash::empty, |first| {
            smallest_first.fold(first, |right, left| Hash::node(left, right))
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
