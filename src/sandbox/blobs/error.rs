//! Why a piece was not taken, or a blob cannot be read.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{ContentHash, MAX_ARRIVING};

/// Why a piece was not taken, or a blob cannot be read.
#[derive(Debug, Error)]
pub enum BlobError {
    /// It does not begin where the last one ended.
    #[error("the piece begins at {offset}, but {have} bytes are here")]
    Offset {
        /// Where it begins.
        offset: u64,
        /// How much is here.
        have: u64,
    },
    /// More bytes than the blob has, or another size than before.
    #[error("the piece does not fit a blob of {size} bytes")]
    Size {
        /// The blob's size.
        size: u64,
    },
    /// The whole is not what its name says; it was thrown away.
    #[error("the bytes are not those of {blob}")]
    WrongHash {
        /// The name.
        blob: ContentHash,
    },
    /// No room, and nothing that could go.
    #[error("no room for {size} bytes: {used} of {capacity} are in use")]
    Full {
        /// Bytes needed.
        size: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes there may be.
        capacity: u64,
    },
    /// Too many blobs are arriving.
    #[error("{MAX_ARRIVING} blobs are arriving already: try again")]
    Crowded,
    /// It is not here.
    #[error("{blob} is not here")]
    Missing {
        /// The name.
        blob: ContentHash,
    },
    /// The disk.
    #[error("{path}: {source}: check space, permissions and health of the disk")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}
