//! Proofs: which subtrees they are made of, how those are collected, how they are checked.
//!
//! Making follows RFC 9162, sections 2.1.3.1 and 2.1.4.1, with the recursion unrolled; checking
//! follows sections 2.1.3.2 and 2.1.4.2 step by step.

use std::ops;

use thiserror::Error;

use super::{Frontier, Hash};

/// Most hashes of a proof: one a level, and a tree of at most 2^53 leaves has 53; C2SP's witness
/// protocol allows as many as this.
pub const MAX_PROOF: usize = 63;

/// A subtree: the leaves from `start` up to `end`, without it.
pub type Range = ops::Range<u64>;

/// Why something is not proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotProved {
    /// The record is not within the tree, or the older tree is the larger one.
    #[error("the sizes do not fit: what is to be proved is not within the tree")]
    Size,
    /// The proof has too few or too many hashes.
    #[error("the proof does not have as many hashes as trees of these sizes want")]
    Length,
    /// The hashes lead to another root.
    #[error("the proof leads to another root: this is not what the tree holds")]
    Root,
}

/// Where the tree over `leaves` leaves (more than one) divides: the largest power of two below.
fn split(leaves: u64) -> u64 {
    leaves
        .saturating_sub(1)
        .checked_ilog2()
        .map_or(0, |log| 1 << log)
}

/// The subtrees whose hashes prove that leaf `index` is in the tree of `size` leaves, in the
/// proof's order; `None` when it is not.
#[must_use]
pub fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// The subtrees whose hashes prove that the tree of `new` leaves continues that of `old`, in the
/// proof's order; `None` when `old` is the larger.
#[must_use]
pub fn consistency_ranges(old: u64, new: u64) -> Option<Vec<Range>> {
    if old > new {
        return None;
    }
    let (mut start, mut end) = (0, new);
    let mut ranges = Vec::new();
    if old == 0 || old == new {
        return Some(ranges);
    }
    // Goes down to the subtree that ends where the old tree does.
    while end > old {
        let middle = start + split(end - start);
        if old <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    if start > 0 {
        // Otherwise that subtree is the old tree itself, whose root the verifier has.
        ranges.push(start..end);
    }
    ranges.reverse();
    Some(ranges)
}

/// Collects the hashes of subtrees while the leaves go by once, in order.
#[derive(Debug)]
pub struct Collector {
    wanted: Vec<(Range, Frontier)>,
}

impl Collector {
    /// Collects the hashes of these subtrees.
    #[must_use]
    pub fn of(ranges: Vec<Range>) -> Self {
        let wanted = ranges.into_iter().map(|range| (range, Frontier::default()));
        Self {
            wanted: wanted.collect(),
        }
    }

    /// Takes the leaf at `index`.
    pub fn leaf(&mut self, index: u64, hash: Hash) {
        for (range, frontier) in &mut self.wanted {
            if range.contains(&index) {
                frontier.push(hash);
            }
        }
    }

    /// The hashes, in the order of the ranges; `None` when not all of their leaves went by.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Hash>> {
        let whole = |(range, frontier): (Range, Frontier)| {
            (range.end.checked_sub(range.start) == Some(frontier.size())).then(|| frontier.root())
        };
        self.wanted.into_iter().map(whole).collect()
    }
}

/// Checks that the leaf `leaf` is the one at `index` in the tree of `size` leaves and this root.
///
/// # Errors
/// As [`NotProved`] says.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    (size, root): (u64, Hash),
    proof: &[Hash],
) -> Result<(), NotProved> {
    if index >= size {
        return Err(NotProved::Size);
    }
    let mut path = Path {
        left: index,
        last: size - 1,
    };
    let mut hash = leaf;
    for step in proof {
        hash = if path.goes_left()? {
            Hash::node(*step, hash)
        } else {
            Hash::node(hash, *step)
        };
    }
    path.ends(hash == root)
}

/// Checks that the tree `new` (size, root) continues the tree `old`: that its first leaves are
/// those of `old`.
///
/// # Errors
/// As [`NotProved`] says.
pub fn verify_consistency(
    old: (u64, Hash),
    new: (u64, Hash),
    proof: &[Hash],
) -> Result<(), NotProved> {
    if old.0 > new.0 {
        return Err(NotProved::Size);
    }
    if old.0 == 0 || old.0 == new.0 {
        if !proof.is_empty() {
            return Err(NotProved::Length);
        }
        let same = if old.0 == 0 {
            old.1 == Hash::empty() && (new.0 > 0 || new.1 == old.1)
        } else {
            old.1 == new.1
        };
        return if same { Ok(()) } else { Err(NotProved::Root) };
    }
    let mut path = Path {
        left: old.0 - 1,
        last: new.0 - 1,
    };
    let ones = path.left.trailing_ones();
    path.up(ones);
    // A whole old tree is where the proof begins, and is not sent.
    let mut steps = proof.iter().copied();
    let first = if old.0.is_power_of_two() {
        old.1
    } else {
        steps.next().ok_or(NotProved::Length)?
    };
    let (mut older, mut newer) = (first, first);
    for step in steps {
        if path.goes_left()? {
            older = Hash::node(step, older);
            newer = Hash::node(step, newer);
        } else {
            newer = Hash::node(newer, step);
        }
    }
    path.ends(older == old.1 && newer == new.1)
}

/// The way from a leaf up to the root; `fn` and `sn` of the RFC.
struct Path {
    left: u64,
    last: u64,
}

impl Path {
    /// One level up: whether the proof's next hash stands to the left.
    fn goes_left(&mut self) -> Result<bool, NotProved> {
        if self.last == 0 {
            return Err(NotProved::Length);
        }
        let left = self.left & 1 == 1 || self.left == self.last;
        if left && self.left & 1 == 0 {
            // The last of its level has no sibling until it is a right child. A tree's levels
            // are below 64.
            let zeros = self.left.trailing_zeros().min(63);
            self.up(zeros);
        }
        self.up(1);
        Ok(left)
    }

    fn up(&mut self, levels: u32) {
        self.left = self.left.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }

    fn ends(&self, same: bool) -> Result<(), NotProved> {
        match (self.last, same) {
            (0, true) => Ok(()),
            (0, false) => Err(NotProved::Root),
            _ => Err(NotProved::Length),
        }
    }
}
