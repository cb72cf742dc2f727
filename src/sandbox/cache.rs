//! Compiled modules on disk, which nobody but this node can have written.
//!
//! Owner: the pool. A compiled module is machine code, so the disk is not believed: each file
//! carries an HMAC-SHA256 over what it is for and all its bytes, and [`Cache::load`] answers only
//! with bytes that were verified in full, held in memory, where nobody can exchange them any
//! more. A file that fails (changed, cut, renamed, from another version) is deleted and counted,
//! and the module is compiled again: the worst a writer of this directory can do is cost time.
//!
//! The directory is bounded in bytes and files; what was used longest ago goes first (after a
//! start: what was written longest ago). A failing disk means that nothing is found or kept,
//! never that a job fails. Nothing is synced to disk: what a power failure leaves half-written
//! does not verify.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use hmac::{Hmac, KeyInit, Mac};
use nix::libc;
use sha2::Sha256;
use tracing::warn;
use zeroize::Zeroizing;

use super::{
    ContentHash,
    worker::protocol::{MAX_ARTIFACT, Mode},
};

/// First bytes of a file: name and version of its layout.
const MAGIC: &[u8; 8] = b"QBcode\0\x01";
/// Bytes before the code: magic, fingerprint, module, length.
const HEADER: usize = 8 + 32 + 32 + 8;
/// Bytes after it.
const TAG: usize = 32;
/// Most files: the index in memory has about 200 bytes for each.
const MAX_FILES: usize = 4_096;
/// How names end.
const SUFFIX: &str = ".code";
/// Machine code is private to this node.
const FILE_MODE: u32 = 0o600;
/// The directory likewise.
const DIRECTORY_MODE: u32 = 0o700;

/// What a compiled module is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CodeKey {
    /// The module.
    pub(crate) module: ContentHash,
    /// How it was compiled.
    pub(crate) mode: Mode,
    /// What the compiled form depends on besides: program version, settings, processor.
    pub(crate) fingerprint: ContentHash,
}

impl CodeKey {
    fn file_name(&self) -> String {
        // The fingerprint is in the name so that another version's file is not taken for a
        // changed one; it goes when it was not used for long.
        let fingerprint = self.fingerprint.to_string();
        let short = fingerprint.get(..16).unwrap_or_default();
        format!("{}-{}-{short}{SUFFIX}", self.module, self.mode.name())
    }

    fn header(&self, length: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let (magic, rest) = header.split_at_mut(8);
        let (fingerprint, rest) = rest.split_at_mut(32);
        let (module, size) = rest.split_at_mut(32);
        magic.copy_from_slice(MAGIC);
        fingerprint.copy_from_slice(&self.fingerprint.0);
        module.copy_from_slice(&self.module.0);
        size.copy_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        header
    }
}

/// What the cache has for a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The compiled module, verified.
    Code(Vec<u8>),
    /// Nothing.
    Nothing,
    /// A file that this node did not write as it is; it is gone now.
    Tampered,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<String, Entry>,
    bytes: u64,
    uses: u64,
}

/// The directory.
pub(crate) struct Cache {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
    most: u64,
    index: Mutex<Index>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens or makes the directory; what is over the bound goes at once. Blocks.
    ///
    /// # Errors
    /// When it cannot be made or listed.
    pub(crate) fn open(dir: &Path, key: Zeroizing<[u8; 32]>, most: u64) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') && name.ends_with(".tmp") {
                // Half a file of a node that died while it wrote.
                remove(&entry.path());
            } else if name.ends_with(SUFFIX)
                && let Ok(data) = entry.metadata()
            {
                found.push((
                    data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    name,
                    data.len(),
                ));
            }
        }
        found.sort();
        let mut index = Index::default();
        for (_, name, size) in found {
            index.insert(name, size);
        }
        let cache = Self {
            dir: dir.to_owned(),
            key,
            most,
            index: Mutex::new(index),
        };
        cache.shrink(&mut cache.lock());
        Ok(cache)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Looks a compiled module up and verifies it. Blocks.
    pub(crate) fn load(&self, key: &CodeKey) -> Found {
        let name = key.file_name();
        let path = self.dir.join(&name);
        let bytes = match read_regular(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().remove(&name);
                return Found::Nothing;
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "a compiled module cannot be read");
                self.discard(&name);
                return Found::Tampered;
            }
        };
        match self.unseal(key, bytes) {
            Some(code) => {
                self.lock().touch(&name);
                Found::Code(code)
            }
            None => {
                warn!(file = %path.display(), "a compiled module is not what this node wrote");
                self.discard(&name);
                Found::Tampered
            }
        }
    }

    /// Keeps a compiled module, unless it is larger than the whole cache. Blocks.
    pub(crate) fn store(&self, key: &CodeKey, code: &[u8]) {
        let name = key.file_name();
        let size = code.len().saturating_add(HEADER).saturating_add(TAG);
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > self.most {
            return;
        }
        if let Err(error) = self.write(key, &name, code) {
            warn!(dir = %self.dir.display(), %error, "a compiled module cannot be kept");
            return;
        }
        let mut index = self.lock();
        index.insert(name, size);
        self.shrink(&mut index);
    }

    /// Forgets a compiled module that a worker could not use.
    pub(crate) fn forget(&self, key: &CodeKey) {
        self.discard(&key.file_name());
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // The index is a hint: a panic in the middle of an update leaves at worst a wrong sum.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mac(&self, header: &[u8], code: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).ok()?;
        mac.update(header);
        mac.update(code);
        Some(mac)
    }

    /// The code inside `bytes`, if this node sealed it for this key.
    fn unseal(&self, key: &CodeKey, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let length = bytes.len().checked_sub(HEADER + TAG)?;
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let (code, tag) = rest.split_at_checked(length)?;
        if header != key.header(length) {
            return None;
        }
        // Compares in constant time.
        self.mac(header, code)?.verify_slice(tag).ok()?;
        bytes.truncate(HEADER.saturating_add(length));
        bytes.drain(..HEADER);
        Some(bytes)
    }

    fn write(&self, key: &CodeKey, name: &str, code: &[u8]) -> io::Result<()> {
        let header = key.header(code.len());
        let mac = self.mac(&header, code);
        let tag = mac.ok_or_else(|| io::Error::other("no key"))?.finalize();
        let temporary = self
            .dir
            .join(format!(".{:016x}.tmp", rand::random::<u64>()));
        // O_EXCL: follows no link and takes over no file that somebody prepared.
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&header)?;
                file.write_all(code)?;
                file.write_all(&tag.into_bytes())
            })
            .and_then(|()| fs::rename(&temporary, self.dir.join(name)));
        if written.is_err() {
            remove(&temporary);
        }
        written
    }

    fn discard(&self, name: &str) {
        remove(&self.dir.join(name));
        self.lock().remove(name);
    }

    fn shrink(&self, index: &mut Index) {
        while index.bytes > self.most || index.entries.len() > MAX_FILES {
            let Some(oldest) = index.oldest() else {
                return;
            };
            remove(&self.dir.join(&oldest));
            index.remove(&oldest);
        }
    }
}

impl Index {
    fn insert(&mut self, name: String, size: u64) {
        self.remove(&name);
        self.uses = self.uses.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
        let used = self.uses;
        self.entries.insert(name, Entry { size, used });
    }

    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes = self.bytes.saturating_sub(entry.size);
        }
    }

    fn touch(&mut self, name: &str) {
        self.uses = self.uses.saturating_add(1);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.used = self.uses;
        }
    }

    /// Linear, over at most [`MAX_FILES`] entries, once for each file that goes.
    fn oldest(&self) -> Option<String> {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used)?;
        Some(oldest.0.clone())
    }
}

/// Reads a file of ours; no link is followed, no FIFO waited for, and no more kept than any
/// compiled module has.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let data = file.metadata()?;
    let most = u64::try_from(MAX_ARTIFACT + HEADER + TAG).unwrap_or(u64::MAX);
    if !data.is_file() || data.len() > most {
        return Err(io::Error::other("not a file of this cache"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or(0));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn remove(path: &Path) {
    // A directory in the place of a file is somebody's doing as well.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(file = %path.display(), %error, "cannot be removed");
    }
}

#[cfg(test)]
mod tests;
