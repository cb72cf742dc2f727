//! The log as one writer sees it: chain, batches, segments; recovery of what a crash left.
//!
//! Owned by the writer's thread, and by nobody else: a lock in the directory keeps others out.
//!
//! # Invariants
//! - [`Log::append`] answers `Ok` for a record only after its bytes were synced.
//! - After a failed sync the file is never synced again (the kernel may have dropped the pages):
//!   its unacknowledged records are written to a new segment, whose first line says from where
//!   on the old segment's lines are set aside.
//! - A failed write is cut off again; when that fails too the segment is given up likewise.
//!
//! # When it fails
//! Records are refused ([`AuditFault`]), nothing that was acknowledged is touched, and the next
//! batch tries again. Damage found at start is an error: going on would bury it.

use std::{any::Any, collections::HashMap, io, sync::Arc, time::Duration};

use thiserror::Error;

use super::{
    AuditEvent,
    checkpoint::SignedCheckpoint,
    ids::Remembered,
    lines::segment_name,
    merkle::{Frontier, Hash},
    record::{self, Body, Draft, FORMAT, Head, SegmentCause, SegmentHead},
    storage::{Storage, StoredFile},
    verify::Finding,
};
use crate::{
    identity::NodeKey,
    messages::audit::{AuditFault, Recorded},
    types::{Clock, EventId},
};

/// How checkpoints are made.
#[derive(Debug, Clone)]
pub struct Checkpointing {
    /// Signs them; the log is this node's.
    pub key: NodeKey,
    /// Records after which one is made (`audit.checkpoint_records`).
    pub records: u64,
    /// How long a record stands without one at most (`audit.checkpoint_interval`).
    pub interval: Duration,
}

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size at which a segment is closed (`audit.segment_size`), bytes.
    pub segment_size: u64,
    /// Event ids remembered to recognise repeats (`audit.remembered_ids`).
    pub remembered_ids: usize,
    /// Version of the program, written into each record.
    pub version: String,
    /// Dates records.
    pub clock: Arc<dyn Clock>,
    /// Signs what the log holds; `None`: nobody does, as for a log of a benchmark.
    pub checkpoints: Option<Checkpointing>,
}

/// Why a log cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another writer has it.
    #[error("{0}: another writer holds the log")]
    Locked(String),
    /// It is damaged: what is there was altered, and a new record must not vouch for it.
    #[error("{0}")]
    Damaged(Finding),
    /// The file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |source| OpenError::Io { what, source }
}

/// A record to be appended.
pub(super) type Pending = (EventId, AuditEvent);

/// An open log. See the module.
pub struct Log {
    storage: Arc<dyn Storage>,
    options: LogOptions,
    /// The current segment; `None` when it was given up and no other could be begun yet.
    file: Option<Box<dyn StoredFile>>,
    number: u64,
    /// Durable bytes of the current segment.
    bytes: u64,
    /// Durable head.
    head: Head,
    /// The Merkle tree over the durable records.
    tree: Frontier,
    signing: Signing,
    ids: Remembered,
    /// A segment that could not be begun lies in the way: the next one has to cover it.
    obstructed: bool,
    /// A failed write was cut off, but no sync has made that durable: after a power failure the
    /// remains may stand there again, so the next segment has to set them aside.
    remains: bool,
    _lock: Box<dyn Any + Send>,
}

impl Log {
    /// Opens the log, or begins one. Repairs what a crash left behind (a torn last line, a
    /// segment that was not begun) and records that it did.
    ///
    /// # Errors
    /// As [`OpenError`] says.
    pub fn open(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Self, OpenError> {
        let place = storage.place();
        let lock = storage
            .lock()
            .map_err(failed(format!("{place}: cannot be locked")))?
            .ok_or_else(|| OpenError::Locked(place.clone()))?;
        let mut log = Self {
            ids: Remembered::new(options.remembered_ids),
            storage,
            options,
            file: None,
            number: 0,
            bytes: 0,
            head: Head::genesis(),
            tree: Frontier::default(),
            signing: Signing::default(),
            obstructed: false,
            remains: false,
            _lock: lock,
        };
        let repairs = log.recover()?;
        if log.file.is_none() {
            let cause = if log.number == 0 {
                SegmentCause::Genesis
            } else {
                SegmentCause::Recovered
            };
            log.begin_segment(cause)
                .map_err(failed(format!("{place}: a new segment")))?;
        }
        for event in repairs {
            let id = EventId::random();
            for answer in log.append(&[(id, event)]) {
                answer.map_err(|fault| OpenError::Io {
                    what: format!("{place}: recording a repair"),
                    source: io::Error::other(fault),
                })?;
            }
        }
        Ok(log)
    }

    /// Where the log stands.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// File name of the current segment.
    #[must_use]
    pub fn segment(&self) -> String {
        segment_name(self.number)
    }

    /// The Merkle tree over the durable records.
    #[must_use]
    pub fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Appends a batch, one sync for all of it. One answer for each, in order.
    pub fn append(&mut self, batch: &[Pending]) -> Vec<Result<Recorded, AuditFault>> {
        let fault = match self.ready() {
            Ok(()) => match self.commit(batch) {
                Ok(answers) => {
                    self.rotate_if_full();
                    return answers;
                }
                Err(fault) => fault,
            },
            Err(error) => fault_of(&error),
        };
        batch
            .iter()
            .map(|(id, _)| match self.ids.place(id) {
                Some(sequence) => Ok(Recorded {
                    sequence,
                    repeated: true,
                }),
                None => Err(fault.clone()),
            })
            .collect()
    }

    /// Makes sure that there is a segment to write to, and that it is still the one on disk.
    fn ready(&mut self) -> io::Result<()> {
        let cause = match &self.file {
            None => SegmentCause::WriteFailed,
            Some(file) if !file.attached()? => {
                tracing::error!(
                    segment = self.segment(),
                    "the audit log's segment was removed or replaced under the running node"
                );
                SegmentCause::Replaced
            }
            Some(_) => return Ok(()),
        };
        self.file = None;
        self.begin_segment(cause)
    }

    fn commit(
        &mut self,
        batch: &[Pending],
    ) -> Result<Vec<Result<Recorded, AuditFault>>, AuditFault> {
        let (lines, answers) = self.encode(batch)?;
        if lines.bytes.is_empty() {
            return Ok(answers);
        }
        match self.write(&lines.bytes) {
            Ok(()) => {}
            Err(Failure::CutOff(error)) => return Err(fault_of(&error)),
            Err(Failure::Poisoned(error)) => {
                tracing::error!(
                    segment = self.segment(), %error,
                    "the audit log's segment is given up; its unacknowledged records go to a new one"
                );
                self.begin_segment(SegmentCause::WriteFailed)
                    .map_err(|e| fault_of(&e))?;
                return self.commit_again(batch);
            }
        }
        self.committed(batch, &answers, lines);
        Ok(answers)
    }

    /// The second and last try, on the fresh segment.
    fn commit_again(
        &mut self,
        batch: &[Pending],
    ) -> Result<Vec<Result<Recorded, AuditFault>>, AuditFault> {
        let (lines, answers) = self.encode(batch)?;
        match self.write(&lines.bytes) {
            Ok(()) => {
                self.committed(batch, &answers, lines);
                Ok(answers)
            }
            Err(Failure::CutOff(error) | Failure::Poisoned(error)) => Err(fault_of(&error)),
        }
    }

    fn committed(
        &mut self,
        batch: &[Pending],
        answers: &[Result<Recorded, AuditFault>],
        lines: Lines,
    ) {
        self.note_uncovered(lines.head.size.saturating_sub(self.head.size));
        self.advance(lines);
        for ((id, _), answer) in batch.iter().zip(answers) {
            if let Ok(Recorded {
                sequence,
                repeated: false,
            }) = answer
            {
                self.ids.insert(*id, *sequence);
            }
        }
    }

    /// These lines are durable.
    fn advance(&mut self, lines: Lines) {
        let added = u64::try_from(lines.bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(added);
        (self.head, self.tree) = (lines.head, lines.tree);
    }

    /// The batch's lines, and what is answered once they are durable.
    fn encode(
        &self,
        batch: &[Pending],
    ) -> Result<(Lines, Vec<Result<Recorded, AuditFault>>), AuditFault> {
        let mut lines = self.no_lines();
        let mut fresh: HashMap<EventId, u64> = HashMap::new();
        let mut answers = Vec::with_capacity(batch.len());
        for (id, event) in batch {
            let known = self.ids.place(id).or_else(|| fresh.get(id).copied());
            if let Some(sequence) = known {
                answers.push(Ok(Recorded {
                    sequence,
                    repeated: true,
                }));
                continue;
            }
            let sequence = lines.head.size;
            self.line(*id, Body::Event(event), &mut lines)?;
            fresh.insert(*id, sequence);
            answers.push(Ok(Recorded {
                sequence,
                repeated: false,
            }));
        }
        Ok((lines, answers))
    }

    fn no_lines(&self) -> Lines {
        Lines {
            bytes: Vec::new(),
            head: self.head,
            tree: self.tree.clone(),
        }
    }

    /// Adds a line.
    fn line(&self, id: EventId, body: Body<'_>, lines: &mut Lines) -> Result<(), AuditFault> {
        let draft = Draft {
            version: &self.options.version,
            id,
            time: self.options.clock.now(),
            body,
        };
        let from = lines.bytes.len();
        lines.head = record::write(&draft, &lines.head, &mut lines.bytes)
            .map_err(|error| AuditFault::Io(error.to_string()))?;
        let line = lines.bytes.get(from..).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        lines.tree.push(Hash::leaf(line));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(file) = self.file.as_mut() else {
            return Err(Failure::CutOff(io::Error::other(
                "no segment could be begun",
            )));
        };
        if let Err(error) = write_all(&mut **file, bytes) {
            // Nothing of it was synced, so cutting it off leaves the segment as it was.
            return match file.truncate(self.bytes) {
                Ok(()) => {
                    self.remains = true;
                    Err(Failure::CutOff(error))
                }
                Err(_) => {
                    self.file = None;
                    Err(Failure::Poisoned(error))
                }
            };
        }
        if let Err(error) = file.sync() {
            // What the page cache still shows may never have reached the disk, and a restarted
            // actor would read it back as good. Cut it off; if even that fails, the next
            // segment's first line sets it aside.
            if let Err(error) = file.truncate(self.bytes) {
                tracing::warn!(%error, "a failed write's remains stay in the audit log's segment");
            }
            self.file = None;
            return Err(Failure::Poisoned(error));
        }
        self.remains = false;
        Ok(())
    }

    /// Begins the next segment: first line, sync of the file and of the directory. When it fails
    /// the file is removed again, as far as that is possible; `self` is as before then.
    fn begin_segment(&mut self, cause: SegmentCause) -> io::Result<()> {
        let number = self.number.saturating_add(1);
        let name = segment_name(number);
        let cause = if self.obstructed || self.remains {
            SegmentCause::WriteFailed
        } else {
            cause
        };
        let segment = SegmentHead {
            cause,
            format: FORMAT,
            head: self.head.fingerprint,
            number,
            size: self.head.size,
            tree: self.tree.peaks().to_vec(),
        };
        let id = self.head.fingerprint.derive_id(name.as_bytes());
        let mut lines = self.no_lines();
        self.line(id, Body::Segment(&segment), &mut lines)
            .map_err(io::Error::other)?;
        let mut file = self.storage.create(&name)?;
        let begun = write_all(&mut *file, &lines.bytes)
            .and_then(|()| file.sync())
            .and_then(|()| self.storage.sync_directory());
        if let Err(error) = begun {
            // Empty, it counts as never begun should its removal not last.
            let emptied = file.truncate(0);
            drop(file);
            let gone = self
                .storage
                .remove(&name)
                .and_then(|()| self.storage.sync_directory());
            if gone.is_err() {
                // It may stand in the way, now or after a crash, so the next try takes the next
                // number; a segment that sets others aside covers it.
                tracing::warn!(
                    segment = name,
                    ?emptied,
                    "a segment that was not begun remains"
                );
                self.number = number;
                self.obstructed = true;
            }
            return Err(error);
        }
        self.obstructed = false;
        self.remains = false;
        self.file = Some(file);
        self.number = number;
        self.bytes = 0;
        self.advance(lines);
        self.note_uncovered(1);
        self.ids.insert(id, segment.size);
        Ok(())
    }

    fn rotate_if_full(&mut self) {
        if self.bytes >= self.options.segment_size
            && let Err(error) = self.rotate(SegmentCause::Size)
        {
            tracing::warn!(%error, "the audit log's segment could not be closed; it grows on");
        }
    }

    /// Closes the segment with a checkpoint and begins the next; returns its file name.
    ///
    /// # Errors
    /// When no segment could be begun; the log goes on in the present one, unless a leftover
    /// with a later number already follows it: then the next record begins a fresh one.
    pub fn rotate(&mut self, cause: SegmentCause) -> io::Result<String> {
        self.checkpoint_or_warn();
        // Given up, now or before: the next segment says what of it does not count.
        let cause = match self.file {
            Some(_) => cause,
            None => SegmentCause::WriteFailed,
        };
        let current = self.file.take();
        match self.begin_segment(cause) {
            Ok(()) => Ok(self.segment()),
            Err(error) => {
                if !self.obstructed {
                    self.file = current;
                }
                Err(error)
            }
        }
    }
}

/// Lines to be written, and where the log stands once they are durable.
struct Lines {
    bytes: Vec<u8>,
    head: Head,
    tree: Frontier,
}

enum Failure {
    /// The segment is as it was before.
    CutOff(io::Error),
    /// The segment must not be written to any more.
    Poisoned(io::Error),
}

fn write_all(file: &mut dyn StoredFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn fault_of(error: &io::Error) -> AuditFault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AuditFault::DiskFull,
        _ => AuditFault::Io(error.to_string()),
    }
}

mod checkpoints;
mod recover;

use checkpoints::Signing;

#[cfg(test)]
mod tests;
