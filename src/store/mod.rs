//! The embedded database: typed trees with checked values. The only room that knows sled.
//!
//! Owned by whoever opens it (`node.rs`, once for a process); actors hold clones and [`Tree`]s.
//! Every call blocks on the disk, so the actors that use it run on arbiters of their own.
//!
//! # Invariants
//! - A value is read back exactly as it was written, or the read fails: each carries a checksum
//!   over its tree, key, version and bytes.
//! - A tree is whole: each write carries, in the same atomic batch, a sequence number and a sum
//!   over all entries, so that entries which vanished or went back in time are noticed at open.
//! - What [`Store::flush_durable`] acknowledged is on the disk (`fsync`, which sled's own flush
//!   is not) and cannot be rolled back unnoticed: the seal beside sled's files knows the
//!   sequence number every tree had.
//!
//! These are checks against broken disks and torn files, not against someone who can write to
//! the data directory.
//!
//! # When it fails
//! A corrupt store is renamed aside (`state.corrupt-<ms>`), said aloud by [`SetAside`], and a
//! new one is begun; never silently empty. After a failed write the tree refuses all further
//! ones ([`StoreError::Failed`]), since sled's memory and disk may disagree.

mod guard;
mod open;
mod seal;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::types::Timestamp;
use guard::guarded;
use seal::Seal;
pub use tree::{Batch, Tree};
use tree::{MAX_NAME, TreeInner};

/// Most trees of a store. The node uses a dozen; more is a bug.
const MAX_TREES: usize = 64;

/// Why the store cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process (or another opening in this one) holds the store.
    #[error("the store {0} is in use: stop the other node that runs on this data directory")]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("the store {path}: {source}: check space, permissions and health of the disk")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Damage was found while running; the next start sets the store aside.
    #[error("the store is damaged ({0}): restart the node, which sets it aside and begins anew")]
    Corrupt(String),
    /// A value is larger than a value may be.
    #[error("a value of {size} bytes for tree `{tree}` exceeds {limit} bytes")]
    TooLarge {
        /// The tree's name.
        tree: String,
        /// Bytes of the value or key.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A tree holds more entries than the reader will take.
    #[error("tree `{tree}` holds more than {limit} entries: raise the limit that bounds it")]
    TooMany {
        /// The tree's name.
        tree: String,
        /// Most entries the reader takes.
        limit: usize,
    },
    /// A value was written by another version of the program.
    #[error("tree `{tree}` holds a value of version {found}, this program reads {expected}")]
    Version {
        /// The tree's name.
        tree: String,
        /// The version found.
        found: u8,
        /// The version this program reads.
        expected: u8,
    },
    /// An earlier write failed half way.
    #[error("an earlier write to tree `{0}` failed: restart the node")]
    Failed(String),
    /// The name of a tree is empty, too long or reserved, or there are too many trees.
    #[error("`{0}` is no name for a tree, or there are too many trees")]
    Name(String),
    /// So many corrupt stores lie beside this one that the disk must be at fault.
    #[error("{count} corrupt stores lie beside {path}: check the disk, then move them away")]
    TooManySetAside {
        /// Where the store should be.
        path: PathBuf,
        /// How many were set aside before.
        count: usize,
    },
}

/// A corrupt store was moved out of the way, and a new one begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where the old files are now.
    pub path: PathBuf,
    /// What was wrong with them.
    pub reason: String,
}

/// The open database. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    db: sled::Db,
    path: PathBuf,
    trees: Mutex<BTreeMap<String, Arc<TreeInner>>>,
    /// What is known to be on the disk; the lock also makes durable flushes take turns.
    seal: Mutex<Seal>,
    /// Durable flushes that reached the disk.
    synced: AtomicU64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in the directory `path`, creating it when there is none. A corrupt one is
    /// renamed to `<path>.corrupt-<now in ms>` and the second value says so: audit it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it, [`StoreError::Io`] when the
    /// operating system refuses, [`StoreError::TooManySetAside`] when it was corrupt too often.
    pub fn open(path: &Path, now: Timestamp) -> Result<(Self, Option<SetAside>), StoreError> {
        open::open(path, now)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The tree called `name`, whose values are `T` in `version`. Created when there is none.
    ///
    /// # Errors
    /// [`StoreError::Name`] for an unusable name, [`StoreError::Io`] or [`StoreError::Corrupt`].
    pub fn tree<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        version: u8,
    ) -> Result<Tree<T>, StoreError> {
        let mut trees = lock(&self.0.trees);
        if let Some(inner) = trees.get(name) {
            return Ok(Tree::new(Arc::clone(inner), version));
        }
        if name.is_empty()
            || name.len() > MAX_NAME
            || name.starts_with("__")
            || trees.len() >= MAX_TREES
        {
            return Err(StoreError::Name(name.escape_debug().to_string()));
        }
        let raw = guarded(&self.0.path, || self.0.db.open_tree(name))?;
        let inner = Arc::new(TreeInner::empty(name, raw, &self.0.path));
        trees.insert(name.to_owned(), Arc::clone(&inner));
        Ok(Tree::new(inner, version))
    }

    /// Hands everything written so far to the operating system: it survives the death of the
    /// process (`kill -9`), not a loss of power.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Corrupt`].
    pub fn flush(&self) -> Result<(), StoreError> {
        guarded(&self.0.path, || self.0.db.flush()).map(drop)
    }

    /// How often [`Store::flush_durable`] had something to write and has synced every file of the
    /// store (`fsync`): what a test asks that must know.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.synced.load(Ordering::Acquire)
    }

    /// Makes everything written so far durable: it survives a loss of power, and its loss would
    /// be noticed. Costs a few `fsync`s; nothing when nothing was written since the last time.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Corrupt`]; then nothing may be acknowledged.
    pub fn flush_durable(&self) -> Result<(), StoreError> {
        let mut sealed = lock(&self.0.seal);
        let next = Seal::of(lock(&self.0.trees).values().map(|tree| tree.position()));
        if next == *sealed {
            return Ok(());
        }
        self.flush()?;
        let io = |source| StoreError::Io {
            path: self.0.path.clone(),
            source,
        };
        sync_all_below(&self.0.path).map_err(io)?;
        next.write(&self.0.path).map_err(io)?;
        *sealed = next;
        self.0.synced.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// `fsync` of every file and directory of the store: the data file, sled's snapshots and blobs.
/// A file that sled removes meanwhile holds nothing any more.
fn sync_all_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // sled nests one level (`blobs/`); the walk ends there.
            for blob in fs::read_dir(entry.path())? {
                sync(&blob?.path())?;
            }
        }
        sync(&entry.path())?;
    }
    File::open(dir)?.sync_all()
}

fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(other),
    }
}

/// A poisoned lock is taken all the same: what these locks guard is changed in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
