//! Typed trees: values with version and checksum, and a running sum over all of them.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{StoreError, guard::guarded, lock};

/// Longest name of a tree, bytes.
pub(super) const MAX_NAME: usize = 64;
/// Longest key, bytes: a peer id or a CIDR network is far shorter.
const MAX_KEY: usize = 256;
/// Largest value, bytes: a job with the longest arguments and environment, every character of
/// them escaped, takes 400 KiB.
const MAX_VALUE: usize = 512 * 1024;
/// First byte of every value and digest; another layout gets another number.
const FORMAT: u8 = 1;
/// Where a tree's [`Position`] lies. Callers' keys begin with [`KEY_MARK`].
const POSITION_KEY: &[u8] = b"!";
const KEY_MARK: u8 = b'k';
/// Bytes of a checksum: half a SHA-256, so no accident collides.
const CHECK: usize = 16;
/// Format, version, checksum.
const HEADER: usize = 2 + CHECK;

/// How far a tree has come, and the sum of its entries' checksums modulo 2^128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    sequence: u64,
    sum: u128,
}

impl Position {
    /// 1 byte format, 8 bytes sequence, 16 bytes sum, 16 bytes checksum.
    fn encode(self, tree: &str) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.sum.to_be_bytes());
        bytes.extend(checksum(tree, POSITION_KEY, 0, &bytes));
        bytes
    }

    fn decode(tree: &str, bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(25)?;
        if check != checksum(tree, POSITION_KEY, 0, body) {
            return None;
        }
        let (&format, rest) = body.split_first()?;
        let (sequence, sum) = rest.split_at_checked(8)?;
        (format == FORMAT).then_some(())?;
        Some(Self {
            sequence: u64::from_be_bytes(sequence.try_into().ok()?),
            sum: u128::from_be_bytes(sum.try_into().ok()?),
        })
    }
}

#[derive(Debug, Default)]
struct TreeState {
    position: Position,
    /// A write failed or panicked: memory and disk may disagree.
    failed: bool,
}

/// What all handles of one tree share.
#[derive(Debug)]
pub(super) struct TreeInner {
    name: String,
    raw: sled::Tree,
    path: PathBuf,
    /// Held while writing, so that the sum and the entries change together.
    state: Mutex<TreeState>,
}

impl TreeInner {
    pub(super) fn empty(name: &str, raw: sled::Tree, path: &Path) -> Self {
        Self {
            name: name.to_owned(),
            raw,
            path: path.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Reads a whole tree and checks every value and the sum.
    pub(super) fn validated(name: &str, raw: sled::Tree, path: &Path) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("tree `{name}`: {what}"));
        let mut stored = None;
        let mut sum = 0_u128;
        guarded(path, || {
            for entry in &raw {
                let (key, value) = entry?;
                if key == POSITION_KEY {
                    stored = Position::decode(name, &value);
                } else {
                    let check = verify(name, &key, &value).ok_or_else(damaged_value)?;
                    sum = sum.wrapping_add(check);
                }
            }
            Ok(())
        })?;
        let position = match stored {
            Some(position) => position,
            // sled makes the tree first and the first batch later: a crash between is no damage.
            None if sum == 0 && raw.is_empty() => Position::default(),
            None => return Err(corrupt("its position is missing or damaged")),
        };
        if position.sum != sum {
            return Err(corrupt("entries are missing or stale"));
        }
        let inner = Self::empty(name, raw, path);
        lock(&inner.state).position = position;
        Ok(inner)
    }

    /// Name and sequence number, for the seal.
    pub(super) fn position(&self) -> (String, u64) {
        (self.name.clone(), lock(&self.state).position.sequence)
    }

    fn corrupt(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("tree `{}`: {what}", self.name))
    }

    /// Writes `changes` and the new position in one atomic batch.
    fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.failed {
            return Err(StoreError::Failed(self.name.clone()));
        }
        let mut next = state.position;
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let old = guarded(&self.path, || self.raw.get(&key))?;
            if let Some(old) = old {
                let check =
                    verify(&self.name, &key, &old).ok_or_else(|| self.corrupt("bad checksum"))?;
                next.sum = next.sum.wrapping_sub(check);
            }
            match value {
                Some(value) => {
                    let check =
                        verify(&self.name, &key, &value).ok_or_else(|| self.corrupt("encoding"))?;
                    next.sum = next.sum.wrapping_add(check);
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        next.sequence = next.sequence.saturating_add(1);
        batch.insert(POSITION_KEY, next.encode(&self.name));
        // Set first: whatever happens below, only a complete write clears it.
        state.failed = true;
        guarded(&self.path, || self.raw.apply_batch(batch))?;
        state.position = next;
        state.failed = false;
        Ok(())
    }
}

/// Changes to a tree that become visible and durable together. The last change of a key counts.
#[derive(Debug)]
pub struct Batch<T> {
    changes: std::collections::BTreeMap<Vec<u8>, Option<T>>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            changes: std::collections::BTreeMap::new(),
        }
    }
}

impl<T> Batch<T> {
    /// Sets `key`.
    pub fn put(&mut self, key: &[u8], value: T) {
        self.changes.insert(key.to_vec(), Some(value));
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &[u8]) {
        self.changes.insert(key.to_vec(), None);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many keys change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }
}

/// A named set of keys with values of type `T`. Clones share it.
#[derive(Debug)]
pub struct Tree<T> {
    inner: Arc<TreeInner>,
    version: u8,
    values: PhantomData<fn() -> T>,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            version: self.version,
            values: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Tree<T> {
    pub(super) fn new(inner: Arc<TreeInner>, version: u8) -> Self {
        Self {
            inner,
            version,
            values: PhantomData,
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Version`] or [`StoreError::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let key = self.full_key(key)?;
        let found = guarded(&self.inner.path, || self.inner.raw.get(&key))?;
        found.map(|value| self.decode(&key, &value)).transpose()
    }

    /// Sets `key`; durable only after [`super::Store::flush_durable`].
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Failed`], [`StoreError::Io`] and so on.
    pub fn put(&self, key: &[u8], value: &T) -> Result<(), StoreError> {
        let key = self.full_key(key)?;
        let value = self.encode(&key, value)?;
        self.inner.write(vec![(key, Some(value))])
    }

    /// Removes `key`.
    ///
    /// # Errors
    /// As [`Tree::put`].
    pub fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        self.inner.write(vec![(self.full_key(key)?, None)])
    }

    /// Applies all of `batch` or, when the process dies meanwhile, none of it.
    ///
    /// # Errors
    /// As [`Tree::put`].
    pub fn apply(&self, batch: &Batch<T>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let changes = batch.changes.iter().map(|(key, value)| {
            let key = self.full_key(key)?;
            let value = value.as_ref().map(|v| self.encode(&key, v)).transpose()?;
            Ok((key, value))
        });
        self.inner
            .write(changes.collect::<Result<_, StoreError>>()?)
    }

    /// Every key and value in the order of keys, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] beyond `limit`, and as [`Tree::get`].
    pub fn scan(&self, limit: usize) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let raw = guarded(&self.inner.path, || {
            let entries = self.inner.raw.range([KEY_MARK]..[KEY_MARK + 1]);
            entries
                .take(limit.saturating_add(1))
                .collect::<sled::Result<Vec<_>>>()
        })?;
        if raw.len() > limit {
            return Err(StoreError::TooMany {
                tree: self.inner.name.clone(),
                limit,
            });
        }
        raw.iter()
            .map(|(key, value)| {
                let own = key.get(1..).unwrap_or_default().to_vec();
                Ok((own, self.decode(key, value)?))
            })
            .collect()
    }

    fn full_key(&self, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.bounded(key.len(), MAX_KEY)?;
        Ok([&[KEY_MARK], key].concat())
    }

    fn bounded(&self, size: usize, limit: usize) -> Result<(), StoreError> {
        if size <= limit {
            return Ok(());
        }
        Err(StoreError::TooLarge {
            tree: self.inner.name.clone(),
            size,
            limit,
        })
    }

    fn encode(&self, key: &[u8], value: &T) -> Result<Vec<u8>, StoreError> {
        let body = serde_json::to_vec(value).map_err(|e| {
            self.inner
                .corrupt(&format!("a value cannot be encoded: {e}"))
        })?;
        self.bounded(body.len(), MAX_VALUE)?;
        let mut bytes = vec![FORMAT, self.version];
        bytes.extend(checksum(&self.inner.name, key, self.version, &body));
        bytes.extend(body);
        Ok(bytes)
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        if verify(&self.inner.name, key, value).is_none() {
            return Err(self.inner.corrupt("a value's checksum is wrong"));
        }
        let found = value.get(1).copied().unwrap_or_default();
        if found != self.version {
            return Err(StoreError::Version {
                tree: self.inner.name.clone(),
                found,
                expected: self.version,
            });
        }
        let body = value.get(HEADER..).unwrap_or_default();
        serde_json::from_slice(body)
            .map_err(|e| self.inner.corrupt(&format!("a value cannot be read: {e}")))
    }
}

/// The checksum of a value as a number, when the value is whole.
fn verify(tree: &str, key: &[u8], value: &[u8]) -> Option<u128> {
    let (header, body) = value.split_at_checked(HEADER)?;
    let (&format, rest) = header.split_first()?;
    let (&version, check) = rest.split_first()?;
    let whole = format == FORMAT && check == checksum(tree, key, version, body);
    whole
        .then(|| check.try_into().ok().map(u128::from_be_bytes))
        .flatten()
}

fn checksum(tree: &str, key: &[u8], version: u8, body: &[u8]) -> [u8; CHECK] {
    let mut hash = Sha256::new();
    for part in [tree.as_bytes(), key, &[version]] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    let full: [u8; 32] = hash.finalize().into();
    let mut half = [0; CHECK];
    half.iter_mut().zip(full).for_each(|(to, from)| *to = from);
    half
}

/// Carries a bad checksum out of a closure that answers in sled's errors.
fn damaged_value() -> sled::Error {
    sled::Error::ReportableBug("a value's checksum is wrong".to_owned())
}
