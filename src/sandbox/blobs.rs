//! Modules and inputs on disk, named by their hash.
//!
//! Owner: one actor. Blocking; the actor has a thread of its own. A complete blob lies under its
//! hash, one that is still arriving under `HASH.part`. What is pinned (a job needs it) is kept;
//! of the rest, what was used longest ago goes first when room is needed.
//!
//! # Invariants
//! - A file under its hash was hashed when it arrived and has that hash. (It is hashed again
//!   wherever its bytes are believed: disks rot.)
//! - Complete and arriving blobs together never take more than the capacity: an arriving blob
//!   has its whole size reserved from its first piece on.
//!
//! # When it fails
//! Nothing is synced: a blob that a power failure tears is found out by its hash and sent again.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{ContentHash, Hasher};

/// Most blobs that may be arriving at the same time; each holds a file name and a hash state.
const MAX_ARRIVING: usize = 1_024;
/// Most blobs remembered; about 100 bytes each.
const MAX_BLOBS: usize = 65_536;
/// Bytes hashed at a time.
const BUFFER: usize = 64 << 10;

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

/// How far a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub have: u64,
    /// Whether that is all, with the right hash.
    pub complete: bool,
}

#[derive(Debug)]
struct Arriving {
    size: u64,
    have: u64,
    hasher: Hasher,
    last_used: u64,
}

#[derive(Debug, Clone, Copy)]
struct Complete {
    size: u64,
    last_used: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    capacity: u64,
    complete: HashMap<ContentHash, Complete>,
    arriving: HashMap<ContentHash, Arriving>,
    pins: HashMap<ContentHash, u32>,
    used: u64,
    /// Counts uses: the order of eviction needs no clock.
    uses: u64,
}

impl Blobs {
    /// Opens the directory, making it when it is missing. What a former process left half-arrived
    /// is thrown away: it is sent again.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(dir: &Path, capacity: u64) -> Result<Self, BlobError> {
        let fail = |source| BlobError::Io {
            path: dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(fail)?;
        let mut blobs = Self {
            dir: dir.to_owned(),
            capacity,
            complete: HashMap::new(),
            arriving: HashMap::new(),
            pins: HashMap::new(),
            used: 0,
            uses: 0,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let meta = entry.metadata().map_err(fail)?;
            let name = entry.file_name();
            let hash = name
                .to_str()
                .and_then(|name| name.parse::<ContentHash>().ok());
            match hash {
                Some(hash) if meta.is_file() && found.len() < MAX_BLOBS => {
                    found.push((meta.modified().ok(), hash, meta.len()));
                }
                _ if meta.is_file() => fs::remove_file(entry.path()).map_err(fail)?,
                _ => {}
            }
        }
        found.sort();
        for (_, hash, size) in found {
            let last_used = blobs.tick();
            blobs.complete.insert(hash, Complete { size, last_used });
            blobs.used = blobs.used.saturating_add(size);
        }
        blobs.make_room(0)?;
        Ok(blobs)
    }

    fn tick(&mut self) -> u64 {
        self.uses = self.uses.saturating_add(1);
        self.uses
    }

    /// Where a complete blob lies.
    #[must_use]
    pub fn path(&self, blob: &ContentHash) -> PathBuf {
        self.dir.join(blob.to_string())
    }

    fn part(&self, blob: &ContentHash) -> PathBuf {
        self.dir.join(format!("{blob}.part"))
    }

    /// Bytes in use or reserved.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether all of it is here. The empty blob always is.
    #[must_use]
    pub fn have(&self, blob: &ContentHash) -> bool {
        self.complete.contains_key(blob) || *blob == ContentHash::of(b"")
    }

    /// How much of a blob that is not complete is here.
    #[must_use]
    pub fn partial(&self, blob: &ContentHash) -> u64 {
        self.arriving.get(blob).map_or(0, |arriving| arriving.have)
    }

    /// Keeps a blob, here or still to come, until it is unpinned as often.
    pub fn pin(&mut self, blob: &ContentHash) {
        let pins = self.pins.entry(*blob).or_default();
        *pins = pins.saturating_add(1);
        let last_used = self.tick();
        if let Some(known) = self.complete.get_mut(blob) {
            known.last_used = last_used;
        }
    }

    /// Takes back one [`pin`](Self::pin).
    pub fn unpin(&mut self, blob: &ContentHash) {
        if let Some(pins) = self.pins.get_mut(blob) {
            *pins = pins.saturating_sub(1);
            if *pins == 0 {
                self.pins.remove(blob);
            }
        }
    }

    /// Forgets a blob whose bytes turned out not to be its own.
    pub fn discard(&mut self, blob: &ContentHash) {
        if let Some(gone) = self.complete.remove(blob) {
            self.used = self.used.saturating_sub(gone.size);
            // When it cannot be removed it is found, and hashed, once more.
            let _ = fs::remove_file(self.path(blob));
        }
    }

    /// Takes the next piece of a blob of `size` bytes.
    ///
    /// # Errors
    /// As [`BlobError`] says; after [`BlobError::Offset`] go on from what is here.
    pub fn append(
        &mut self,
        blob: &ContentHash,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Progress, BlobError> {
        if self.have(blob) {
            return Ok(Progress {
                have: size,
                complete: true,
            });
        }
        let have = self.partial(blob);
        if offset != have {
            return Err(BlobError::Offset { offset, have });
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let after = have.saturating_add(length);
        let known = self
            .arriving
            .get(blob)
            .map_or(size, |arriving| arriving.size);
        if known != size || after > size {
            return Err(BlobError::Size { size: known });
        }
        self.begin(blob, size)?;
        let last_used = self.tick();
        let path = self.part(blob);
        let written = append_to(&path, offset, bytes);
        let Some(arriving) = self.arriving.get_mut(blob) else {
            return Err(BlobError::Missing { blob: *blob });
        };
        if let Err(source) = written {
            self.drop_arriving(blob);
            return Err(BlobError::Io { path, source });
        }
        arriving.hasher.update(bytes);
        arriving.have = after;
        arriving.last_used = last_used;
        if after < size {
            return Ok(Progress {
                have: after,
                complete: false,
            });
        }
        self.complete(blob)
    }

    /// Reserves room for a blob that begins to arrive.
    fn begin(&mut self, blob: &ContentHash, size: u64) -> Result<(), BlobError> {
        if self.arriving.contains_key(blob) {
            return Ok(());
        }
        self.make_room(size)?;
        let last_used = self.tick();
        self.used = self.used.saturating_add(size);
        self.arriving.insert(
            *blob,
            Arriving {
                size,
                have: 0,
                hasher: Hasher::default(),
                last_used,
            },
        );
        Ok(())
    }

    /// All bytes are here: are they the right ones?
    fn complete(&mut self, blob: &ContentHash) -> Result<Progress, BlobError> {
        let Some(arriving) = self.arriving.get(blob) else {
            return Err(BlobError::Missing { blob: *blob });
        };
        let size = arriving.size;
        if arriving.hasher.finish() != *blob {
            self.drop_arriving(blob);
            return Err(BlobError::WrongHash { blob: *blob });
        }
        let (from, path) = (self.part(blob), self.path(blob));
        if let Err(source) = fs::rename(&from, &path) {
            self.drop_arriving(blob);
            return Err(BlobError::Io { path, source });
        }
        self.arriving.remove(blob);
        let last_used = self.tick();
        self.complete.insert(*blob, Complete { size, last_used });
        Ok(Progress {
            have: size,
            complete: true,
        })
    }

    fn drop_arriving(&mut self, blob: &ContentHash) {
        if let Some(gone) = self.arriving.remove(blob) {
            self.used = self.used.saturating_sub(gone.size);
            // When it cannot be removed, the next first piece replaces it.
            let _ = fs::remove_file(self.part(blob));
        }
    }

    /// Throws away what was used longest ago until `size` more bytes fit.
    fn make_room(&mut self, size: u64) -> Result<(), BlobError> {
        let full = |blobs: &Self| {
            blobs.used.saturating_add(size) > blobs.capacity
                || blobs.complete.len() >= MAX_BLOBS
                || blobs.arriving.len() >= MAX_ARRIVING
        };
        while full(self) {
            let complete = self.complete.iter().map(|(blob, c)| (c.last_used, *blob));
            let arriving = self.arriving.iter().map(|(blob, a)| (a.last_used, *blob));
            let oldest = complete
                .chain(arriving)
                .filter(|(_, blob)| !self.pins.contains_key(blob))
                .min();
            let Some((_, blob)) = oldest else {
                return if size == 0 {
                    // At the opening: what is pinned is not known yet, so nothing is.
                    Ok(())
                } else {
                    Err(BlobError::Full {
                        size,
                        used: self.used,
                        capacity: self.capacity,
                    })
                };
            };
            self.discard(&blob);
            self.drop_arriving(&blob);
        }
        Ok(())
    }

    /// At most `most` bytes of a complete blob, from `offset` on.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Io`].
    pub fn read(&self, blob: &ContentHash, offset: u64, most: usize) -> Result<Vec<u8>, BlobError> {
        if !self.complete.contains_key(blob) {
            return if self.have(blob) {
                Ok(Vec::new())
            } else {
                Err(BlobError::Missing { blob: *blob })
            };
        }
        let path = self.path(blob);
        read_from(&path, offset, most).map_err(|source| BlobError::Io { path, source })
    }

    /// Hashes a complete blob again: whether the disk still holds what arrived.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::WrongHash`], [`BlobError::Io`].
    pub fn check(&self, blob: &ContentHash) -> Result<(), BlobError> {
        let (mut hasher, mut offset) = (Hasher::default(), 0_u64);
        loop {
            let bytes = self.read(blob, offset, BUFFER)?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            offset = offset.saturating_add(length);
        }
        if hasher.finish() == *blob {
            Ok(())
        } else {
            Err(BlobError::WrongHash { blob: *blob })
        }
    }
}

fn append_to(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    // Whatever lies there from before is none of ours.
    options.truncate(offset == 0);
    let mut file = options.open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

/// At most `most` bytes of a file, from `offset` on.
pub(super) fn read_from(path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
