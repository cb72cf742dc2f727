//! Proving that a record is in the log, from the files alone: reads the log once, or twice when the
//! record is named by its id, in memory that does not grow with it.

use std::io;

use thiserror::Error;

use super::{
    checkpoint::InclusionProof,
    merkle::{Collector, Frontier, Hash, inclusion_ranges},
    storage::Storage,
    verify::{for_each_record, kept_checkpoint},
};
use crate::types::EventId;

/// Which record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one at this place.
    Sequence(u64),
    /// The one of this id.
    Id(EventId),
}

impl std::str::FromStr for Which {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write a record's sequence, or its id of 32 hexadecimal digits";
        let mut id = [0; 16];
        if hex::decode_to_slice(text, &mut id).is_ok() {
            return Ok(Self::Id(EventId(id)));
        }
        text.parse().map(Self::Sequence).map_err(|_| WRONG)
    }
}

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum NoProof {
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No checkpoint lies beside the log.
    #[error("no checkpoint of this log was made yet: `quantraband audit checkpoint` makes one")]
    NoCheckpoint,
    /// The newest checkpoint is older than the record.
    #[error(
        "record {sequence} is newer than the newest checkpoint, of {size} records: `quantraband \
         audit checkpoint` makes another"
    )]
    NotCovered {
        /// The record's place.
        sequence: u64,
        /// Records of the newest checkpoint.
        size: u64,
    },
    /// There is no such record.
    #[error("there is no such record in this log")]
    NotFound,
    /// The log is not what the checkpoint speaks of.
    #[error("this log is damaged: `quantraband audit verify` says where")]
    Damaged,
}

/// Proves that a record is in the log of the newest checkpoint.
///
/// # Errors
/// [`NoProof`].
pub fn prove(storage: &dyn Storage, which: Which) -> Result<InclusionProof, NoProof> {
    let checkpoint = match kept_checkpoint(storage)? {
        None => return Err(NoProof::NoCheckpoint),
        Some(Err(_)) => return Err(NoProof::Damaged),
        Some(Ok(checkpoint)) => checkpoint,
    };
    let (size, root) = {
        let tree = checkpoint.checkpoint();
        (tree.size, tree.root)
    };
    let index = match which {
        Which::Sequence(sequence) => sequence,
        Which::Id(id) => find(storage, id)?,
    };
    // What it is made of, even when there is nothing to be proved: the record may not exist at all.
    let ranges = inclusion_ranges(index, size).unwrap_or_default();
    let mut collector = Collector::of(ranges);
    let (mut tree, mut line) = (Frontier::default(), None);
    for_each_record(storage, |entry, bytes| {
        if entry.sequence == index {
            line = Some(bytes.to_vec());
        }
        if entry.sequence < size && entry.sequence == tree.size() {
            let leaf = Hash::leaf(bytes);
            tree.push(leaf);
            collector.leaf(entry.sequence, leaf);
        }
    })?;
    if (tree.size(), tree.root()) != (size, root) {
        return Err(NoProof::Damaged);
    }
    let line = line.ok_or(NoProof::NotFound)?;
    if index >= size {
        return Err(NoProof::NotCovered {
            sequence: index,
            size,
        });
    }
    Ok(InclusionProof {
        line,
        index,
        hashes: collector.finish().ok_or(NoProof::Damaged)?,
        checkpoint,
    })
}

fn find(storage: &dyn Storage, id: EventId) -> Result<u64, NoProof> {
    let mut found = None;
    for_each_record(storage, |entry, _| {
        if entry.id == id {
            found = Some(entry.sequence);
        }
    })?;
    found.ok_or(NoProof::NotFound)
}

#[cfg(test)]
mod tests;
