//! The issuer's side: its directory keeps which sequence was used last and which indexes are
//! revoked.
//!
//! `DIR/status-state` (text, private) is written, durably, *before* anything is signed with its
//! sequence; then `DIR/NAME.status`, the list to be handed out. A crash between the two loses a
//! sequence and nothing else: none is used twice, also when two commands run at once. Owner: the
//! issuer's operator, through the commands. It fails with [`FolderError`].

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::list::{MAX_ENTRIES, MAX_STATUS_BYTES, Statement, StatusHead, StatusList};
use crate::{
    cbor::Malformed,
    identity::{Delegation, DiskError, IssuerKey, claims::MAX_SECONDS, disk},
    types::Timestamp,
};

/// Extension of the list that is handed out.
pub const STATUS_EXTENSION: &str = "status";
/// How long a list holds when nobody says: a week, so that a weekly refresh with a day's grace is
/// too late only when it is forgotten.
pub const DEFAULT_NEXT_UPDATE: Duration = Duration::from_hours(8 * 24);
/// Longest a list may hold.
pub const MAX_NEXT_UPDATE: Duration = Duration::from_hours(366 * 24);

const STATE_FILE: &str = "status-state";
const LOCK_FILE: &str = ".status-state.lock";
/// The state: 32 KiB of hex digits and a few numbers.
const MAX_STATE_BYTES: usize = 40 * 1024;
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;
/// Entries a list grows by: its length tells how many credentials there are to a thousand.
const GROWTH: u32 = 1_024;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The credential or delegation with this index.
    Index(u32),
    /// All that was issued before.
    IssuedBefore(Timestamp),
    /// Nothing new: the list is signed again.
    Refresh,
}

/// Why no list was made.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The state is none.
    #[error(
        "{}: {why}; restore it from a backup. Without it, `NAME.status` beside it tells the \
         sequence and the entries that were handed out last", path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The index cannot be one of this issuer's.
    #[error("{0} is beyond the {MAX_ENTRIES} entries a list can have")]
    Index(u32),
    /// A span that is none.
    #[error("a list holds between 1s and 366 days")]
    NextUpdate,
    /// A time in the future would revoke what is not issued yet.
    #[error("`issued-before` {0} is in the future, or before the year 1970 ended")]
    IssuedBefore(Timestamp),
    /// The list breaks its own rules.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    sequence: u64,
    issued_before: u64,
    #[serde(with = "hex::serde")]
    bits: Vec<u8>,
}

/// An issuer's directory.
#[derive(Debug)]
pub struct Folder<'a> {
    dir: &'a Path,
    key: &'a IssuerKey,
}

impl<'a> Folder<'a> {
    /// The directory of the issuer with this key.
    #[must_use]
    pub fn new(dir: &'a Path, key: &'a IssuerKey) -> Self {
        Self { dir, key }
    }

    /// The file that is handed out.
    #[must_use]
    pub fn list_file(&self) -> PathBuf {
        let name = self.key.name();
        self.dir.join(format!("{name}.{STATUS_EXTENSION}"))
    }

    /// Whether the last list takes this back; none does where there is no list.
    #[must_use]
    pub fn is_revoked(&self, index: u32) -> bool {
        let bytes = disk::read_bounded(&self.list_file(), MAX_STATUS_BYTES).ok();
        let list = bytes.and_then(|bytes| StatusList::decode(&bytes).ok());
        list.is_some_and(|list| list.is_set(index))
    }

    /// How long the last list was meant to hold; the longest there is for one that begins: once
    /// there is a list it must be kept fresh, and whoever never kept one should not have to soon.
    #[must_use]
    pub fn usual_span(&self) -> Duration {
        let bytes = disk::read_bounded(&self.list_file(), MAX_STATUS_BYTES).ok();
        let list = bytes.and_then(|bytes| StatusList::decode(&bytes).ok());
        let span = list.map(|list| list.statement().next_update.since(list.statement().issued));
        span.filter(|span| span.as_secs() > 0)
            .map_or(MAX_NEXT_UPDATE, |span| span.min(MAX_NEXT_UPDATE))
    }

    /// Takes something back and signs the next list, which holds for `next_update`. `above` are
    /// the delegations to this issuer.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn publish(
        &self,
        what: &Revocation,
        above: &[Delegation],
        next_update: Duration,
        now: Timestamp,
    ) -> Result<StatusList, FolderError> {
        if next_update.as_secs() == 0 || next_update > MAX_NEXT_UPDATE {
            return Err(FolderError::NextUpdate);
        }
        let lock_path = self.dir.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&lock_path)
            .map_err(disk::io_error("open", &lock_path))?;
        lock.lock().map_err(disk::io_error("lock", &lock_path))?;
        let mut state = self.load()?;
        apply(&mut state, what, now)?;
        state.sequence = state
            .sequence
            .checked_add(1)
            .ok_or_else(|| self.wrong("the last sequence was used"))?;
        self.save(&state)?;
        let list = self.sign(&state, above, next_update, now)?;
        disk::write_atomic(&self.list_file(), &list.as_bytes(), PUBLIC)?;
        Ok(list)
    }

    fn sign(
        &self,
        state: &State,
        above: &[Delegation],
        next_update: Duration,
        now: Timestamp,
    ) -> Result<StatusList, FolderError> {
        let issued = now.secs().min(MAX_SECONDS);
        let until = issued
            .saturating_add(next_update.as_secs())
            .min(MAX_SECONDS);
        let entries = u32::try_from(state.bits.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(8);
        let statement = Statement {
            issuer: self.key.name().clone(),
            sequence: state.sequence,
            issued: Timestamp::from_secs(issued),
            next_update: Timestamp::from_secs(until),
            issued_before: Timestamp::from_secs(state.issued_before),
            entries,
            hash: Sha256::digest(&state.bits).into(),
        };
        let head = StatusHead::sign(statement, self.key.signer());
        Ok(StatusList::try_new(
            head,
            state.bits.clone(),
            above.to_vec(),
        )?)
    }

    /// The state, and what the list beside it says: whichever is further counts, so that a state
    /// out of a backup neither uses a sequence again nor forgets a revocation that was handed out.
    fn load(&self) -> Result<State, FolderError> {
        let path = self.dir.join(STATE_FILE);
        let mut state = match disk::read_bounded(&path, MAX_STATE_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| self.wrong(why))?,
            Err(DiskError::Missing(_)) => State::default(),
            Err(error) => return Err(error.into()),
        };
        let bytes = match disk::read_bounded(&self.list_file(), MAX_STATUS_BYTES) {
            Ok(bytes) => bytes,
            Err(DiskError::Missing(_)) => return Ok(state),
            Err(error) => return Err(error.into()),
        };
        let Ok(list) = StatusList::decode(&bytes) else {
            return Ok(state);
        };
        let (said, own) = (list.statement(), self.key.public());
        if said.issuer == *self.key.name() && list.head().verify(own).is_ok() {
            state.sequence = state.sequence.max(said.sequence);
            state.issued_before = state.issued_before.max(said.issued_before.secs());
            grow(&mut state.bits, list.bits().len());
            let pairs = state.bits.iter_mut().zip(list.bits());
            pairs.for_each(|(have, said)| *have |= said);
        }
        Ok(state)
    }

    fn save(&self, state: &State) -> Result<(), FolderError> {
        let path = self.dir.join(STATE_FILE);
        let text = serde_json::to_vec(state).map_err(|why| self.wrong(why))?;
        Ok(disk::write_atomic(&path, &text, PRIVATE)?)
    }

    fn wrong(&self, why: impl std::fmt::Display) -> FolderError {
        FolderError::State {
            path: self.dir.join(STATE_FILE),
            why: why.to_string(),
        }
    }
}

fn apply(state: &mut State, what: &Revocation, now: Timestamp) -> Result<(), FolderError> {
    match *what {
        Revocation::Refresh => {}
        Revocation::Index(index) => {
            if index >= MAX_ENTRIES {
                return Err(FolderError::Index(index));
            }
            let entries = (index / GROWTH).saturating_add(1).saturating_mul(GROWTH);
            grow(&mut state.bits, usize::try_from(entries / 8).unwrap_or(0));
            let at = usize::try_from(index / 8).unwrap_or(usize::MAX);
            if let Some(byte) = state.bits.get_mut(at) {
                *byte |= 1 << (index % 8);
            }
        }
        Revocation::IssuedBefore(before) => {
            if before > now || before.secs() == 0 {
                return Err(FolderError::IssuedBefore(before));
            }
            // Whole seconds, and never less than what was asked for.
            let up = u64::from(before.millis() % 1_000 != 0);
            state.issued_before = state.issued_before.max(before.secs().saturating_add(up));
        }
    }
    Ok(())
}

fn grow(bits: &mut Vec<u8>, bytes: usize) {
    if bits.len() < bytes {
        bits.resize(bytes, 0);
    }
}
