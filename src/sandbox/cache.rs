//! Compiled modules on disk, authenticated: what was tampered with is never mapped.
//!
//! Owner: the pool. A file is named by the module's hash and the mode it was compiled in. It
//! begins with a label and an HMAC-SHA256 (RFC 2104) over that name and all of its bytes, under a
//! key that only the node has; it is checked in full before a byte of it goes to a worker. (A
//! worker does not get the key: a guest that took one over could otherwise plant code for others.)
//!
//! # Invariants
//! - What [`Cache::get`] gives is what [`Cache::put`] was given under the same name.
//! - No more bytes on disk than the capacity; what was used longest ago goes first.
//!
//! # When it fails
//! A file that cannot be read or does not verify is removed, said aloud and counted; the module
//! is compiled again. A file that cannot be written is no harm.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ContentHash, worker::Mode};

/// What a file begins with. The number grows when the engine's settings change.
const LABEL: &[u8; 8] = b"QBCODE1\n";
/// Bytes of the code.
const CODE: usize = 32;
/// Most files; about 200 bytes each are remembered.
const MAX_FILES: usize = 65_536;

/// A compiled module's name.
pub(super) type Key = (ContentHash, Mode);

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    last_used: u64,
}

/// What a look came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is there and authentic.
    Hit(Vec<u8>),
    /// It is not there.
    Miss,
    /// It was there, but is not what was put: it was removed.
    Tampered,
}

/// See the module.
pub(super) struct Cache {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
    capacity: u64,
    entries: HashMap<String, Entry>,
    used: u64,
    uses: u64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn name((module, mode): Key) -> String {
    format!("{module}.{}", mode.name())
}

impl Cache {
    /// Opens the directory, making it when it is missing.
    pub(super) fn open(dir: &Path, key: Zeroizing<[u8; 32]>, capacity: u64) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let mut cache = Self {
            dir: dir.to_owned(),
            key,
            capacity,
            entries: HashMap::new(),
            used: 0,
            uses: 0,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let name = entry.file_name().to_str().map(str::to_owned);
            match name {
                Some(name) if meta.is_file() && !name.ends_with(".part") => {
                    found.push((meta.modified().ok(), name, meta.len()));
                }
                _ if meta.is_file() => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        found.sort();
        for (_, name, size) in found {
            cache.note(name, size);
        }
        cache.make_room(0);
        Ok(cache)
    }

    /// Bytes on disk.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    fn note(&mut self, name: String, size: u64) {
        self.uses = self.uses.saturating_add(1);
        let entry = Entry {
            size,
            last_used: self.uses,
        };
        let before = self.entries.insert(name, entry);
        self.used = self
            .used
            .saturating_sub(before.map_or(0, |entry| entry.size));
        self.used = self.used.saturating_add(size);
    }

    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.entries.remove(name) {
            self.used = self.used.saturating_sub(entry.size);
        }
        // When it stays it is found to be wrong again.
        let _ = fs::remove_file(self.dir.join(name));
    }

    fn make_room(&mut self, size: u64) {
        while self.used.saturating_add(size) > self.capacity || self.entries.len() >= MAX_FILES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.remove(&name);
        }
    }

    fn code(&self, key: Key, compiled: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.key).ok()?;
        let name = name(key);
        let length = |n: usize| u64::try_from(n).unwrap_or(u64::MAX).to_be_bytes();
        mac.update(LABEL);
        mac.update(&length(name.len()));
        mac.update(name.as_bytes());
        mac.update(&length(compiled.len()));
        mac.update(compiled);
        Some(mac)
    }

    /// A compiled module, when it is there and authentic.
    pub(super) fn get(&mut self, key: Key) -> Look {
        let name = name(key);
        let Some(entry) = self.entries.get(&name).copied() else {
            return Look::Miss;
        };
        let path = self.dir.join(&name);
        if let Some(compiled) = read(&path, entry.size).and_then(|file| self.verified(key, file)) {
            self.note(name, entry.size);
            return Look::Hit(compiled);
        }
        tracing::warn!(
            path = %path.display(),
            "a compiled module is not what this node wrote: removed, and compiled again"
        );
        self.remove(&name);
        Look::Tampered
    }

    fn verified(&self, key: Key, mut file: Vec<u8>) -> Option<Vec<u8>> {
        let label = file.get(..LABEL.len())?;
        let begin = LABEL.len().checked_add(CODE)?;
        let code = file.get(LABEL.len()..begin)?;
        let compiled = file.get(begin..)?;
        if label != LABEL {
            return None;
        }
        // In constant time.
        self.code(key, compiled)?.verify_slice(code).ok()?;
        file.drain(..begin);
        Some(file)
    }

    /// Keeps a compiled module.
    pub(super) fn put(&mut self, key: Key, compiled: &[u8]) {
        let name = name(key);
        let Some(code) = self.code(key, compiled) else {
            return;
        };
        let code = code.finalize().into_bytes();
        let size = [LABEL.len(), CODE, compiled.len()]
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(*part));
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > self.capacity {
            return;
        }
        self.remove(&name);
        self.make_room(size);
        let path = self.dir.join(&name);
        if let Err(error) = write(&path, &[LABEL, &code, compiled]) {
            tracing::warn!(path = %path.display(), %error, "a compiled module is not kept");
            return;
        }
        self.note(name, size);
    }

    /// Forgets one that is of no use any more.
    pub(super) fn discard(&mut self, key: Key) {
        self.remove(&name(key));
    }
}

/// A file, when it still has the size it had.
fn read(path: &Path, size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    let most = size.saturating_add(1);
    file.take(most).read_to_end(&mut bytes).ok()?;
    (u64::try_from(bytes.len()).ok()? == size).then_some(bytes)
}

fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&part)?;
    for bytes in parts {
        file.write_all(bytes)?;
    }
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> Key {
        (ContentHash([n; 32]), Mode::Epoch)
    }

    fn cache(dir: &Path, secret: u8, capacity: u64) -> Cache {
        Cache::open(dir, Zeroizing::new([secret; 32]), capacity).unwrap()
    }

    #[test]
    fn what_was_put_is_there_for_its_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = cache(dir.path(), 1, 10_000);
        first.put(key(1), b"code");
        assert_eq!(first.get(key(1)), Look::Hit(b"code".to_vec()));
        assert_eq!(first.get(key(2)), Look::Miss);
        assert_eq!(first.get((key(1).0, Mode::Fuel)), Look::Miss);
        // The next process finds it.
        assert_eq!(
            cache(dir.path(), 1, 10_000).get(key(1)),
            Look::Hit(b"code".to_vec())
        );
        // Under another key it is nothing.
        assert_eq!(cache(dir.path(), 2, 10_000).get(key(1)), Look::Tampered);
        assert_eq!(cache(dir.path(), 1, 10_000).get(key(1)), Look::Miss);
    }

    #[test]
    fn code_of_one_module_does_not_pass_for_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let mut own = cache(dir.path(), 1, 10_000);
        own.put(key(1), b"mine");
        own.put(key(2), b"his");
        let path = |key| dir.path().join(name(key));
        fs::copy(path(key(1)), path(key(2))).unwrap();
        let mut again = cache(dir.path(), 1, 10_000);
        assert_eq!(again.get(key(2)), Look::Tampered);
        assert!(!path(key(2)).exists(), "it is gone");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut small = cache(dir.path(), 1, 3 * 50);
        for n in 1..=3 {
            small.put(key(n), b"code");
        }
        assert_eq!(small.get(key(1)), Look::Hit(b"code".to_vec()));
        small.put(key(4), b"code");
        assert_eq!(small.get(key(2)), Look::Miss);
        assert!(small.used() <= 150);
        small.put(key(5), &[0; 200]);
        assert_eq!(small.get(key(5)), Look::Miss, "larger than all room");
    }

    proptest! {
        #[test]
        fn any_change_of_any_byte_is_noticed(at in 0_usize..60, bit in 0_u8..8, cut: bool) {
            let dir = tempfile::tempdir().unwrap();
            cache(dir.path(), 1, 10_000).put(key(1), b"twenty bytes of code");
            let path = dir.path().join(name(key(1)));
            let mut file = fs::read(&path).unwrap();
            if cut {
                file.truncate(at);
            } else {
                let index = at % file.len();
                file[index] ^= 1 << bit;
            }
            fs::write(&path, file).unwrap();
            prop_assert_eq!(cache(dir.path(), 1, 10_000).get(key(1)), Look::Tampered);
        }
    }
}
