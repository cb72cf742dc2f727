//! When a checkpoint is made, and how: signed, to its file, into the log.
//!
//! The file comes first. A crash in between leaves a file that is newer than the log's own record,
//! never an older one, so that an older file, or none, is somebody's work. What a checkpoint speaks
//! of is durable before it is signed, so no crash and no power failure makes a log shorter than it.

use std::time::Duration;

use super::{
    super::{record::Body, verify::CHECKPOINT_FILE},
    Failure, Log, SignedCheckpoint, fault_of,
};
use crate::messages::audit::AuditFault;

/// Wait after a checkpoint could not be made: a full disk is not asked again with each batch.
const AGAIN: Duration = Duration::from_secs(1);

/// Where signing stands.
#[derive(Debug, Default)]
pub(super) struct Signing {
    /// The newest checkpoint, as its file has it.
    pub(super) kept: Option<SignedCheckpoint>,
    /// Records after it, its own record left out.
    uncovered: u64,
    /// When the first of them was written, or signing failed last.
    since: Option<Duration>,
    failed: bool,
}

impl Log {
    /// Remembers that so many records are not covered by a checkpoint.
    pub(super) fn note_uncovered(&mut self, records: u64) {
        if records == 0 || self.options.checkpoints.is_none() {
            return;
        }
        let signing = &mut self.signing;
        signing.uncovered = signing.uncovered.saturating_add(records);
        if signing.since.is_none() {
            signing.since = Some(self.options.clock.elapsed());
        }
    }

    /// How long until a checkpoint is due; `None`: there is nothing to be covered.
    #[must_use]
    pub fn checkpoint_due_in(&self) -> Option<Duration> {
        let with = self.options.checkpoints.as_ref()?;
        let signing = &self.signing;
        let waited = self.options.clock.elapsed().saturating_sub(signing.since?);
        let wait = match (signing.failed, signing.uncovered >= with.records) {
            (true, _) => AGAIN,
            (false, true) => Duration::ZERO,
            (false, false) => with.interval,
        };
        Some(wait.saturating_sub(waited))
    }

    /// Makes a checkpoint when it is due. A failure is said and tried again later: what is recorded
    /// stays recorded.
    pub fn checkpoint_if_due(&mut self) {
        if self.checkpoint_due_in() == Some(Duration::ZERO) {
            self.checkpoint_or_warn();
        }
    }

    /// Makes a checkpoint where there is a key for it and something to be covered.
    pub(in crate::audit) fn checkpoint_or_warn(&mut self) {
        if self.options.checkpoints.is_some()
            && let Err(fault) = self.checkpoint()
        {
            tracing::warn!(%fault, "no checkpoint of the audit log could be made");
        }
    }

    /// A checkpoint of everything that is durable: the newest one when nothing came after it.
    ///
    /// # Errors
    /// [`AuditFault`]; [`AuditFault::NoKey`] when nobody signs this log.
    pub fn checkpoint(&mut self) -> Result<SignedCheckpoint, AuditFault> {
        if self.signing.uncovered == 0
            && let Some(kept) = &self.signing.kept
        {
            return Ok(kept.clone());
        }
        let made = self.make_checkpoint();
        if made.is_err() && self.signing.uncovered > 0 {
            self.signing.failed = true;
            self.signing.since = Some(self.options.clock.elapsed());
        }
        made
    }

    fn make_checkpoint(&mut self) -> Result<SignedCheckpoint, AuditFault> {
        let with = self.options.checkpoints.as_ref();
        let key = with.ok_or(AuditFault::NoKey)?.key.clone();
        self.ready().map_err(|error| fault_of(&error))?;
        let signed = SignedCheckpoint::sign(self.head.size, self.tree.root(), &key)
            .map_err(|error| AuditFault::Io(error.to_string()))?;
        let note = signed.encode();
        self.storage
            .replace(CHECKPOINT_FILE, note.as_bytes())
            .map_err(|error| fault_of(&error))?;
        self.signing = Signing {
            kept: Some(signed.clone()),
            ..Signing::default()
        };
        let id = self.head.fingerprint.derive_id(CHECKPOINT_FILE.as_bytes());
        let mut lines = self.no_lines();
        self.line(id, Body::Checkpoint(&note), &mut lines)?;
        match self.write(&lines.bytes) {
            Ok(()) => {
                self.ids.insert(id, self.head.size);
                self.advance(lines);
            }
            // The file has it; the log's next record of one vouches for as much and more.
            Err(Failure::CutOff(error) | Failure::Poisoned(error)) => {
                tracing::warn!(%error, "a checkpoint could not be recorded in the log itself");
            }
        }
        Ok(signed)
    }
}
