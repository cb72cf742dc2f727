//! What a log is held against: the checkpoints in it, the file with the newest one, and what an
//! auditor brings: keys, and a checkpoint that was kept elsewhere.

use std::io::{self, Read};

use super::{Chain, Damage, Finding, Report};
use crate::audit::{
    checkpoint::{BadCheckpoint, Checkpoint, NotBelieved, SignedCheckpoint},
    note::{MAX_NOTE, VerifierKey},
    record::{Entry, Head},
    storage::Storage,
};

/// The file beside the segments that holds the newest checkpoint. It is written before the log's own
/// record of the checkpoint, so it is never older than that.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// What an auditor knows of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The log's keys, from outside; none: only consistency is judged.
    pub keys: &'a [VerifierKey],
    /// A checkpoint that was kept elsewhere: the log has to continue it.
    pub checkpoint: Option<&'a SignedCheckpoint>,
}

/// The newest checkpoint as its file has it; `None`: there is no such file.
///
/// # Errors
/// When the file cannot be read.
pub fn kept_checkpoint(
    storage: &dyn Storage,
) -> io::Result<Option<Result<SignedCheckpoint, BadCheckpoint>>> {
    let reader = match storage.read(CHECKPOINT_FILE, 0) {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One byte over the bound is enough to know that it is too long.
    let bound = u64::try_from(MAX_NOTE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    reader.take(bound).read_to_end(&mut bytes)?;
    Ok(Some(SignedCheckpoint::read(&bytes)))
}

/// A checkpoint from outside of the log, until the log has grown to its size.
struct Awaited {
    checkpoint: Checkpoint,
    /// Whether the keys that were given signed it, or none were given.
    signed: bool,
}

/// The state of holding a log against what is known of it.
pub(super) struct Against<'a> {
    keys: &'a [VerifierKey],
    awaited: Vec<Awaited>,
    /// Whether the file is there and readable, and what it says.
    kept: Option<Result<Checkpoint, BadCheckpoint>>,
    /// Whether the signatures of what is awaited hold; those that do not are said at the end.
    forged: bool,
    /// The newest checkpoint in the log.
    newest: Option<Checkpoint>,
}

impl<'a> Against<'a> {
    pub(super) fn new(storage: &dyn Storage, expected: &Expected<'a>) -> io::Result<Self> {
        let kept = kept_checkpoint(storage)?;
        let mut against = Self {
            keys: expected.keys,
            awaited: Vec::new(),
            kept: None,
            forged: false,
            newest: None,
        };
        if let Some(Ok(signed)) = &kept {
            against.await_one(signed);
        }
        against.kept = kept.map(|kept| kept.map(|signed| signed.checkpoint().clone()));
        if let Some(signed) = expected.checkpoint {
            against.await_one(signed);
        }
        Ok(against)
    }

    fn await_one(&mut self, signed: &SignedCheckpoint) {
        let judged = signed.verify(self.keys);
        let other = matches!(judged, Err(NotBelieved::OtherLog(_)));
        self.forged |= judged.is_err() && !other;
        self.awaited.push(Awaited {
            checkpoint: signed.checkpoint().clone(),
            signed: judged.is_ok() || self.keys.is_empty(),
        });
    }

    /// Looks at a good line, after the chain took it.
    pub(super) fn look(&mut self, chain: &Chain, entry: &Entry, report: &mut Report) {
        if let Some(note) = &entry.checkpoint
            && let Ok(signed) = SignedCheckpoint::read(note.as_bytes())
        {
            self.judge(&signed, chain, report);
        }
        let Some(tree) = chain.tree() else {
            return;
        };
        for Awaited { checkpoint, signed } in &self.awaited {
            if checkpoint.size != tree.size() {
                continue;
            }
            if tree.root() != checkpoint.root {
                report.found(chain.finding(Damage::CheckpointDiffers));
            } else if *signed {
                report.vouched = Some(checkpoint.size);
            }
        }
    }

    fn judge(&mut self, signed: &SignedCheckpoint, chain: &Chain, report: &mut Report) {
        let size = signed.checkpoint().size;
        self.newest = Some(signed.checkpoint().clone());
        if self.keys.is_empty() {
            report.checkpoints = report.checkpoints.saturating_add(1);
            report.vouched = Some(size);
            return;
        }
        match signed.verify(self.keys) {
            Ok(()) => {
                report.checkpoints = report.checkpoints.saturating_add(1);
                report.vouched = Some(size);
            }
            Err(NotBelieved::OtherLog(_)) => {
                report.other_keys = report.other_keys.saturating_add(1);
            }
            Err(NotBelieved::NotSigned | NotBelieved::Forged) => {
                report.found(chain.finding(Damage::BadCheckpoint));
            }
        }
    }

    /// The log ended at this line of this file.
    pub(super) fn finish(
        self,
        (file, line): (String, u64),
        head: Option<Head>,
        report: &mut Report,
    ) {
        report.keys_given = !self.keys.is_empty();
        let size = head.map_or(0, |head| head.size);
        let beside = |damage| Finding {
            file: CHECKPOINT_FILE.to_owned(),
            line: 0,
            sequence: self.newest.as_ref().map_or(size, |newest| newest.size),
            damage,
        };
        let found = match (&self.kept, &self.newest) {
            (Some(Err(_)), _) => Some(Damage::BadCheckpoint),
            (Some(Ok(kept)), Some(newest)) if newest.size > kept.size => {
                Some(Damage::CheckpointMissing)
            }
            // The same one, under another log's name.
            (Some(Ok(kept)), Some(newest)) if newest.size == kept.size && newest != kept => {
                Some(Damage::BadCheckpoint)
            }
            (None, Some(_)) => Some(Damage::CheckpointMissing),
            (Some(Ok(_)) | None, _) => None,
        };
        if let Some(damage) = found {
            report.found(beside(damage));
        }
        if self.forged {
            report.found(beside(Damage::BadCheckpoint));
        }
        // What is damaged inside has been said; how long it was cannot be told then.
        let longest = self.awaited.iter().map(|awaited| awaited.checkpoint.size);
        if head.is_some() && longest.max().is_some_and(|longest| longest > size) {
            report.found(Finding {
                file,
                line: line.saturating_add(1),
                sequence: size,
                damage: Damage::Shortened,
            });
        }
        if report.keys_given && report.vouched.is_none() {
            report.found(beside(Damage::NotSigned));
        }
    }
}
