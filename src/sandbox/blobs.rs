//! Modules and inputs on disk, named by their hash.
//!
//! Owner: one actor. Blocking; the actor has a thread of its own. A complete blob lies under its
//! hash, one that is still arriving under `HASH.PEER.part`: each peer's own, so that nobody spoils
//! or stalls what another one sends. What is pinned (a job needs it) is kept; of the rest, what
//! was used longest ago goes first when room is needed.
//!
//! # Invariants
//! - A file under its hash was hashed when it arrived and had that hash. ([`Blobs::ensure`] hashes
//!   what a former process left once more before it is believed: disks rot.)
//! - Complete and arriving blobs together never take more than the capacity: an arriving blob
//!   has its whole size reserved from its first piece on.
//! - Nothing is thrown away for what cannot fit anyway.
//!
//! # When it fails
//! What had arrived when the process died is hashed again and goes on from there. Nothing is
//! synced, and renaming is all that completes a blob: what a power failure tears is found out by
//! its hash, and sent again.

mod error;
mod files;
mod room;

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

pub use self::error::BlobError;
use self::files::append_to;
pub(super) use self::files::{hash_file, read_from};
use super::{ContentHash, Hasher};
use crate::types::PeerId;

/// Most blobs that may be arriving at the same time; each holds a file and about 300 bytes
/// of memory. More than the default's unfinished jobs can have, with a module and an input each.
const MAX_ARRIVING: usize = 4_096;
/// Most blobs remembered; about 100 bytes each.
const MAX_BLOBS: usize = 65_536;
/// Pairs of peer and blob remembered as shown; about 100 bytes each.
const MAX_SHOWN: usize = 65_536;
/// How far a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub have: u64,
    /// Whether that is all, with the right hash.
    pub complete: bool,
}

/// An arriving blob, and who sends it.
type Key = (ContentHash, PeerId);

#[derive(Debug)]
struct Arriving {
    /// Bytes it will have; as many as are here while nobody has said.
    size: u64,
    have: u64,
    /// Of all that is here; `None`: a former process left it, it is not hashed yet.
    hasher: Option<Hasher>,
    last_used: u64,
}

#[derive(Debug, Clone, Copy)]
struct Complete {
    size: u64,
    last_used: u64,
    /// Whether this process saw that it has its hash.
    seen: bool,
}

/// What a file is, and what can be thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Complete(ContentHash),
    Arriving(Key),
}

/// See the module.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    capacity: u64,
    complete: HashMap<ContentHash, Complete>,
    arriving: HashMap<Key, Arriving>,
    pins: HashMap<ContentHash, u32>,
    /// Who showed that they have a blob's bytes.
    shown: HashSet<Key>,
    used: u64,
    /// Counts uses: the order of eviction needs no clock.
    uses: u64,
}

impl Blobs {
    /// Opens the directory, making it when it is missing. Files that are no blobs are removed.
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
            shown: HashSet::new(),
            used: 0,
            uses: 0,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let meta = entry.metadata().map_err(fail)?;
            if !meta.is_file() {
                continue;
            }
            match entry.file_name().to_str().and_then(files::name_of) {
                Some(name) if found.len() < MAX_BLOBS => {
                    found.push((meta.modified().ok(), meta.len(), name));
                }
                _ => fs::remove_file(entry.path()).map_err(fail)?,
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        for (_, size, name) in found {
            blobs.adopt(size, name);
        }
        // Nothing is pinned yet, so what is too much can go.
        blobs.make_room(0, None)?;
        while blobs.arriving.len() > MAX_ARRIVING {
            blobs.evict_arriving()?;
        }
        Ok(blobs)
    }

    fn adopt(&mut self, size: u64, name: Name) {
        let last_used = self.tick();
        self.used = self.used.saturating_add(size);
        match name {
            Name::Complete(blob) => {
                let complete = Complete {
                    size,
                    last_used,
                    seen: false,
                };
                self.complete.insert(blob, complete);
            }
            Name::Arriving(key) => {
                let arriving = Arriving {
                    size,
                    have: size,
                    hasher: None,
                    last_used,
                };
                self.arriving.insert(key, arriving);
            }
        }
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

    fn part(&self, (blob, owner): &Key) -> PathBuf {
        self.dir.join(format!("{blob}.{owner}.part"))
    }

    /// Bytes in use or reserved.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// How large a blob is, when all of it is here. The empty blob always is.
    #[must_use]
    pub fn size(&self, blob: &ContentHash) -> Option<u64> {
        let empty = (*blob == ContentHash::of(b"")).then_some(0);
        empty.or_else(|| Some(self.complete.get(blob)?.size))
    }

    /// Whether all of it is here.
    #[must_use]
    pub fn have(&self, blob: &ContentHash) -> bool {
        self.size(blob).is_some()
    }

    /// Whether all of it is here, and that is `size` bytes. Whoever says another size is not
    /// believed: its job would pass a limit of size with a small lie.
    #[must_use]
    pub fn holds(&self, blob: &ContentHash, size: u64) -> bool {
        self.size(blob) == Some(size)
    }

    /// Whether this peer showed that it has the blob's bytes, by sending them. Who merely knows
    /// a hash (receipts name them) must not be given what others sent: its job could print it.
    #[must_use]
    pub fn is_shown(&self, owner: &PeerId, blob: &ContentHash) -> bool {
        *blob == ContentHash::of(b"") || self.shown.contains(&(*blob, *owner))
    }

    /// Notes that a peer has the blob's bytes, as its job's record tells of before a restart.
    pub fn show(&mut self, owner: PeerId, blob: ContentHash) {
        if self.shown.len() >= MAX_SHOWN {
            // Everybody sends once more.
            self.shown.clear();
        }
        self.shown.insert((blob, owner));
    }

    /// How much of a blob that is not complete is here from this peer.
    #[must_use]
    pub fn partial(&self, owner: &PeerId, blob: &ContentHash) -> u64 {
        let arriving = self.arriving.get(&(*blob, *owner));
        arriving.map_or(0, |arriving| arriving.have)
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
            // When it cannot be removed it is found again at the next start.
            let _ = fs::remove_file(self.path(blob));
        }
    }

    /// Takes the next piece of a blob of `size` bytes from `owner`.
    ///
    /// # Errors
    /// As [`BlobError`] says; after [`BlobError::Offset`] go on from what is here.
    pub fn append(
        &mut self,
        owner: &PeerId,
        blob: &ContentHash,
        size: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Progress, BlobError> {
        if let Some(known) = self.size(blob)
            && (known != size || self.is_shown(owner, blob))
        {
            return if known == size {
                Ok(Progress {
                    have: size,
                    complete: true,
                })
            } else {
                Err(BlobError::Size { size: known })
            };
        }
        let key = (*blob, *owner);
        if self
            .arriving
            .get(&key)
            .is_some_and(|arriving| arriving.contradicts(size))
        {
            // What it said before was wrong, or this is: it begins anew.
            self.drop_arriving(&key);
        }
        let have = self.partial(owner, blob);
        if offset != have {
            return Err(BlobError::Offset { offset, have });
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let after = have.saturating_add(length);
        if after > size {
            return Err(BlobError::Size { size });
        }
        self.begin(&key, size)?;
        self.write(&key, bytes, after)?;
        if after < size {
            return Ok(Progress {
                have: after,
                complete: false,
            });
        }
        self.complete(&key)
    }

    /// Reserves room for a blob that begins to arrive, or goes on after a restart.
    fn begin(&mut self, key: &Key, size: u64) -> Result<(), BlobError> {
        let Some(known) = self.arriving.get(key) else {
            self.make_room(size, None)?;
            while self.arriving.len() >= MAX_ARRIVING {
                self.evict_arriving()?;
            }
            let last_used = self.tick();
            self.used = self.used.saturating_add(size);
            let arriving = Arriving {
                size,
                have: 0,
                hasher: Some(Hasher::default()),
                last_used,
            };
            self.arriving.insert(*key, arriving);
            return Ok(());
        };
        if known.hasher.is_some() {
            return Ok(());
        }
        let have = known.have;
        let more = size.saturating_sub(known.size);
        self.make_room(more, Some(key))?;
        let path = self.part(key);
        match hash_file(&path) {
            Ok((hasher, length)) if length == have => {
                self.used = self.used.saturating_add(more);
                if let Some(arriving) = self.arriving.get_mut(key) {
                    arriving.size = size;
                    arriving.hasher = Some(hasher);
                }
                Ok(())
            }
            Ok(_) => {
                self.drop_arriving(key);
                Err(BlobError::Offset {
                    offset: have,
                    have: 0,
                })
            }
            Err(source) => {
                self.drop_arriving(key);
                Err(BlobError::Io { path, source })
            }
        }
    }

    fn write(&mut self, key: &Key, bytes: &[u8], after: u64) -> Result<(), BlobError> {
        let (path, last_used) = (self.part(key), self.tick());
        let Some(arriving) = self.arriving.get_mut(key) else {
            return Err(BlobError::Missing { blob: key.0 });
        };
        if let Err(source) = append_to(&path, arriving.have, bytes) {
            self.drop_arriving(key);
            return Err(BlobError::Io { path, source });
        }
        if let Some(hasher) = &mut arriving.hasher {
            hasher.update(bytes);
        }
        arriving.have = after;
        arriving.last_used = last_used;
        Ok(())
    }

    /// All bytes are here: are they the right ones?
    fn complete(&mut self, key: &Key) -> Result<Progress, BlobError> {
        let (blob, _) = *key;
        let Some(arriving) = self.arriving.get(key) else {
            return Err(BlobError::Missing { blob });
        };
        let size = arriving.size;
        let hash = arriving.hasher.as_ref().map(Hasher::finish);
        if hash != Some(blob) {
            self.drop_arriving(key);
            return Err(BlobError::WrongHash { blob });
        }
        self.show(key.1, blob);
        if self.complete.contains_key(&blob) {
            // Another's copy is here: this one was a proof and no more.
            self.drop_arriving(key);
            return Ok(Progress {
                have: size,
                complete: true,
            });
        }
        let (from, path) = (self.part(key), self.path(&blob));
        if let Err(source) = fs::rename(&from, &path) {
            self.drop_arriving(key);
            return Err(BlobError::Io { path, source });
        }
        self.arriving.remove(key);
        let complete = Complete {
            size,
            last_used: self.tick(),
            seen: true,
        };
        self.complete.insert(blob, complete);
        Ok(Progress {
            have: size,
            complete: true,
        })
    }

    fn drop_arriving(&mut self, key: &Key) {
        if let Some(gone) = self.arriving.remove(key) {
            self.used = self.used.saturating_sub(gone.size);
            // When it cannot be removed, the next first piece replaces it.
            let _ = fs::remove_file(self.part(key));
        }
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

    /// Makes sure that a blob is what its name says before it is believed: what arrived in this
    /// process was hashed then, what a former one left is hashed now, once. What is wrong is
    /// thrown away, to be sent again.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::WrongHash`], [`BlobError::Io`].
    pub fn ensure(&mut self, blob: &ContentHash) -> Result<(), BlobError> {
        let last_used = self.tick();
        let path = self.path(blob);
        let Some(known) = self.complete.get_mut(blob) else {
            return if self.have(blob) {
                Ok(())
            } else {
                Err(BlobError::Missing { blob: *blob })
            };
        };
        known.last_used = last_used;
        if known.seen {
            return Ok(());
        }
        match hash_file(&path) {
            Ok((hasher, _)) if hasher.finish() == *blob => {
                known.seen = true;
                Ok(())
            }
            Ok(_) => {
                self.discard(blob);
                Err(BlobError::WrongHash { blob: *blob })
            }
            Err(source) => Err(BlobError::Io { path, source }),
        }
    }
}

impl Arriving {
    /// Whether it cannot be a blob of this size.
    fn contradicts(&self, size: u64) -> bool {
        match self.hasher {
            Some(_) => self.size != size,
            None => self.have > size,
        }
    }
}

#[cfg(test)]
mod tests;
