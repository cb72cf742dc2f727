//! The issuer's side of rotation: which statement of a subject it took last, and what of the old
//! keys it has to take back.
//!
//! `DIR/rotations/SUBJECT`, one file for each subject, replaced as a whole. It is written, durably,
//! before the credential is handed out, and holds it: a repeat of the same statement gives the same
//! answer, also after a crash, and an older one gives none. From the answer on, whatever was issued
//! to other keys of the subject before it counts for nothing here: not the keys that were given up
//! last, and none before them. Owner: the issuer actor and the commands on the issuer's folder. It
//! fails with a [`RotationsError`] that names the file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Chain, Continuity, DiskError, MAX_CHAIN_BYTES, Name, disk};
use crate::types::{PeerId, Timestamp};

/// The folder in the issuer's.
const DIR: &str = "rotations";
/// The chain in hexadecimal, and a few numbers.
const MAX_RECORD_BYTES: usize = 2 * MAX_CHAIN_BYTES + 4 * 1024;
/// Most subjects looked through at a start.
const MAX_SUBJECTS: usize = 1 << 16;
/// Most documents of one subject that wait to be taken back; a node that rotates more often within
/// one grace is told to wait.
const MAX_OLD: usize = 16;
const MODE: u32 = 0o600;
/// Least time between two rotations of a subject that a node answers: each takes a place of the
/// status list for good, and a list of 131,072 places shall outlive any member that plays with it.
const PACE: Duration = Duration::from_hours(1);

/// Why nothing can be said of a subject's rotations.
#[derive(Debug, Error)]
pub enum RotationsError {
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record that is none.
    #[error(
        "{}: {why}; restore it from a backup: it keeps an older statement from being taken",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a statement is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// It is no newer than the last one.
    #[error("rotation.replayed: a statement with the sequence {0} was taken before")]
    Replayed(u64),
    /// It is by keys that the subject does not have any more.
    #[error("rotation.superseded: these keys were given up")]
    GivenUp,
    /// Too many old credentials wait to be taken back.
    #[error("rotation.often: the last rotations are not over yet")]
    Often,
}

/// What is known of a subject's rotations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    sequence: u64,
    #[serde(with = "hex::serde")]
    statement: [u8; 32],
    /// Who the subject was.
    former: PeerId,
    /// Who it is.
    peer: PeerId,
    /// When the statement was answered; seconds since 1970.
    at: u64,
    /// Whether it took the place of one that was given up within [`PACE`].
    replaced: bool,
    /// Whether the new keys were seen: then nothing is asked with the former ones any more.
    proved: bool,
    /// The credential given for the last statement; empty once the old ones were taken back.
    #[serde(with = "hex::serde")]
    chain: Vec<u8>,
    /// Indexes to be taken back, oldest first.
    old: Vec<u32>,
    /// When they are, at the latest; seconds since 1970.
    until: u64,
}

/// What is to be done with a statement.
#[derive(Debug)]
pub(crate) enum Weighed {
    /// It was answered before, with this.
    Answered(Box<Chain>, Timestamp),
    /// It is new: what else is to be taken back, then.
    New(Vec<u32>),
}

impl Record {
    /// Who the subject is by its last statement.
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether a credential of these keys counts for nothing: the subject has had others since.
    pub(crate) fn gave_up(&self, peer: PeerId, issued: Timestamp) -> bool {
        self.peer != peer && issued.secs() <= self.at
    }

    /// Whether the last statement can still be of no effect at the node: its maker may ask again, or
    /// have given it up and state something else.
    fn is_open_to(&self, former: PeerId, now: Timestamp) -> bool {
        let over = self.chain.is_empty() || now >= self.until();
        self.former == former && !self.proved && !over
    }

    /// How long another statement has to wait, when it is too early for one. The keys that the last
    /// one led away from may replace it once: it was given up.
    pub(crate) fn wait(&self, statement: &Continuity, now: Timestamp) -> Option<Duration> {
        let free = !self.replaced && self.is_open_to(statement.former(), now);
        let since = now.since(Timestamp::from_secs(self.at));
        (!free && since < PACE).then(|| PACE.saturating_sub(since))
    }

    /// The record after these places were taken back for the statement with this hash. When another statement has come since, only what was taken back is.
    pub(crate) fn taken_back(mut self, statement: &[u8; 32], indexes: &[u32]) -> Self {
        if self.statement == *statement {
            return self.done();
        }
        self.old.retain(|index| !indexes.contains(index));
        self
    }

    /// The hash of the statement.
    pub(crate) fn statement(&self) -> &[u8; 32] {
        &self.statement
    }

    /// Whether the new keys were seen.
    pub(crate) fn is_proved(&self) -> bool {
        self.proved
    }

    /// The record after the new keys were seen.
    pub(crate) fn with_proof(mut self) -> Self {
        self.proved = true;
        self
    }

    /// What is to be taken back.
    pub(crate) fn old(&self) -> &[u32] {
        &self.old
    }

    /// When, at the latest.
    pub(crate) fn until(&self) -> Timestamp {
        Timestamp::from_secs(self.until)
    }

    /// The record after its old credentials were taken back.
    fn done(mut self) -> Self {
        self.old.clear();
        self.chain.clear();
        self
    }
}

/// What the maker of a statement was issued.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// When the credential was issued that it showed.
    pub(crate) issued: Timestamp,
    /// Places of its credentials in this issuer's list.
    pub(crate) indexes: Vec<u32>,
}

/// Weighs a statement against what is known of its subject. That its maker holds the former keys was
/// verified before.
///
/// # Errors
/// [`NotTaken`].
pub(crate) fn weigh(
    known: Option<&Record>,
    statement: &Continuity,
    shown: &Shown,
    now: Timestamp,
) -> Result<Weighed, NotTaken> {
    let Some(known) = known else {
        return Ok(Weighed::New(united(&[], &shown.indexes)));
    };
    let former = statement.former();
    if known.gave_up(former, shown.issued) && !known.is_open_to(former, now) {
        return Err(NotTaken::GivenUp);
    }
    let answer = Chain::decode(&known.chain).ok();
    if known.statement == statement.hash()
        && let Some(chain) = &answer
    {
        return Ok(Weighed::Answered(Box::new(chain.clone()), known.until()));
    }
    if statement.sequence() <= known.sequence {
        return Err(NotTaken::Replayed(known.sequence));
    }
    // A rotation that is not over: what it gave may be of keys that were abandoned.
    let given = answer.and_then(|chain| chain.credential().claims().status);
    let given: Vec<u32> = given.into_iter().chain(shown.indexes.clone()).collect();
    let old = united(&known.old, &given);
    match old.len() <= MAX_OLD {
        true => Ok(Weighed::New(old)),
        false => Err(NotTaken::Often),
    }
}

/// Both, each number once.
fn united(first: &[u32], then: &[u32]) -> Vec<u32> {
    let mut all = Vec::new();
    for index in first.iter().chain(then) {
        if !all.contains(index) {
            all.push(*index);
        }
    }
    all
}

/// The record of a statement that was answered with `chain` at the first time; the old credentials
/// are taken back at the second, at the latest. `known` is the subject's record before.
pub(crate) fn answered(
    known: Option<&Record>,
    statement: &Continuity,
    chain: &Chain,
    old: Vec<u32>,
    (at, until): (Timestamp, Timestamp),
) -> Record {
    let early = |known: &Record| at.since(Timestamp::from_secs(known.at)) < PACE;
    Record {
        replaced: known.is_some_and(early),
        sequence: statement.sequence(),
        statement: statement.hash(),
        former: statement.former(),
        peer: statement.new_keys().peer,
        at: at.secs(),
        proved: false,
        chain: chain.encode(),
        old,
        until: until.secs(),
    }
}

fn path(dir: &Path, subject: &Name) -> PathBuf {
    dir.join(DIR).join(subject.as_str())
}

/// Reads what is known of a subject.
pub(crate) fn load(dir: &Path, subject: &Name) -> Result<Option<Record>, RotationsError> {
    let path = path(dir, subject);
    let bytes = match disk::read_bounded(&path, MAX_RECORD_BYTES) {
        Ok(bytes) => bytes,
        Err(DiskError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|why| RotationsError::Record {
            path,
            why: why.to_string(),
        })
}

/// Keeps what is known of a subject, durably.
pub(crate) fn save(dir: &Path, subject: &Name, record: &Record) -> Result<(), RotationsError> {
    let path = path(dir, subject);
    disk::make_dir(&dir.join(DIR))?;
    let text = serde_json::to_vec(record).map_err(|why| RotationsError::Record {
        path: path.clone(),
        why: why.to_string(),
    })?;
    Ok(disk::write_atomic(&path, &text, MODE)?)
}

/// The subjects whose old credentials are still to be taken back, with their records.
pub(crate) fn open(dir: &Path) -> Result<Vec<(Name, Record)>, RotationsError> {
    let listed = dir.join(DIR);
    let listing = match fs::read_dir(&listed) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(disk::io_error("list", &listed)(error).into()),
    };
    let mut all = Vec::new();
    for entry in listing.take(MAX_SUBJECTS) {
        let entry = entry.map_err(disk::io_error("list", &listed))?;
        // A temporary file begins with a dot, and so has no name.
        let Some(subject) = entry
            .file_name()
            .to_str()
            .and_then(|n| Name::try_new(n).ok())
        else {
            continue;
        };
        let record = load(dir, &subject)?.filter(|record| !record.old.is_empty());
        all.extend(record.map(|record| (subject, record)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
