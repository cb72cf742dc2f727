//! Taking up a log where it was left: by an orderly end, a crash, or a power failure.

use std::{io, sync::Arc};

use super::{
    super::{
        AuditEvent,
        checkpoint::{Checkpoint, NotBelieved, SignedCheckpoint, log_keys},
        lines::{Line, Lines, segment_name, segments},
        merkle::{Frontier, Hash},
        record,
        verify::{self, CHECKPOINT_FILE, Damage, Finding, kept_checkpoint},
    },
    Log, OpenError, failed, write_all,
};

/// What the segments say of the checkpoint that is kept beside them.
#[derive(Default)]
struct Witnessed {
    /// How many records that speaks of.
    size: Option<u64>,
    /// The root over so many records, as the segments have it.
    root: Option<Hash>,
    /// The newest checkpoint in the log.
    newest: Option<Checkpoint>,
    /// Lines of the newest segment.
    lines: u64,
}

impl Witnessed {
    fn look(&mut self, tree: &Frontier) {
        if self.size == Some(tree.size()) {
            self.root = Some(tree.root());
        }
    }
}

impl Log {
    /// Reads back the newest segment and as many older ones as repeats need.
    pub(super) fn recover(&mut self) -> Result<Vec<AuditEvent>, OpenError> {
        let storage = Arc::clone(&self.storage);
        let place = storage.place();
        // A former writer may have died between a removal and its sync: what is listed now has to
        // be what a crash leaves, or a removed segment comes back and shadows what follows.
        storage
            .sync_directory()
            .map_err(failed(format!("{place}: syncing the directory")))?;
        let mut numbers = segments(&*storage).map_err(failed(place.clone()))?;
        let kept = kept_checkpoint(&*storage).map_err(failed(CHECKPOINT_FILE))?;
        let kept = kept
            .transpose()
            .map_err(|_| self.tampered(Damage::BadCheckpoint))?;
        let mut witnessed = Witnessed {
            size: kept.as_ref().map(|kept| kept.checkpoint().size),
            ..Witnessed::default()
        };
        let mut repairs = Vec::new();
        while let Some(&number) = numbers.last() {
            if let Some(repair) = self.resume(number, &mut witnessed)? {
                repairs.push(repair);
            }
            if self.file.is_some() {
                break;
            }
            // It was never begun: the one before is the newest.
            numbers.pop();
        }
        self.judge_kept(kept, &numbers, &witnessed)?;
        // Older segments are read for their ids only; `audit verify` judges them. Lines that a
        // later segment set aside were never acknowledged and are no repeats.
        let aside = verify::set_asides(&*storage, &numbers).map_err(failed(place))?;
        for &number in numbers.iter().rev().skip(1) {
            if self.ids.is_full() {
                break;
            }
            let ids = verify::ids_of(&*storage, number, verify::limit_of(&aside, number))
                .map_err(failed(segment_name(number)))?;
            self.ids.insert_older(&ids);
        }
        Ok(repairs)
    }

    /// Takes up a segment where it ends. Leaves `self.file` empty when the segment has no whole
    /// line, after moving it out of the way.
    fn resume(
        &mut self,
        number: u64,
        witnessed: &mut Witnessed,
    ) -> Result<Option<AuditEvent>, OpenError> {
        let name = segment_name(number);
        let storage = Arc::clone(&self.storage);
        let mut lines = Lines::open(&*storage, number).map_err(failed(name.clone()))?;
        let mut chain = verify::Chain::at_segment(number);
        let mut torn = Vec::new();
        let mut ids = Vec::new();
        while let Some(line) = lines.next().map_err(failed(name.clone()))? {
            if let Line::Torn(bytes) = line {
                torn = bytes;
                break;
            }
            let entry = chain.check(&line).map_err(OpenError::Damaged)?;
            if let Some(before) = entry
                .segment
                .as_ref()
                .and_then(record::SegmentHead::frontier)
            {
                witnessed.look(&before);
            }
            if let Some(tree) = chain.tree() {
                witnessed.look(tree);
            }
            if let Some(note) = &entry.checkpoint {
                let read = SignedCheckpoint::read(note.as_bytes()).ok();
                witnessed.newest = read.map(|signed| signed.checkpoint().clone());
            }
            witnessed.lines = chain.line();
            ids.push((entry.id, entry.sequence));
        }
        let (whole, total) = (
            lines.whole_bytes,
            storage.size(&name).map_err(failed(name.clone()))?,
        );
        let lost = total.saturating_sub(whole);
        let repair = (lost > 0).then(|| AuditEvent::LogRecovered {
            segment: name.clone(),
            bytes: lost,
        });
        if lost > 0 {
            self.quarantine(&name, &torn)
                .map_err(failed(format!("{name}: its torn line")))?;
        }
        if whole == 0 {
            storage.remove(&name).map_err(failed(name.clone()))?;
            storage.sync_directory().map_err(failed(name))?;
            // Should there be no other segment, this one's number is used again.
            return Ok(repair);
        }
        let mut file = storage.open(&name).map_err(failed(name.clone()))?;
        if lost > 0 {
            file.truncate(whole).map_err(failed(name.clone()))?;
        }
        // What was read may still be in the page cache only, of a writer that died before its
        // sync: from here on it counts.
        file.sync().map_err(failed(name))?;
        self.file = Some(file);
        self.number = number;
        self.bytes = whole;
        self.head = chain.head();
        self.tree = chain.tree().cloned().unwrap_or_default();
        for (id, sequence) in ids {
            self.ids.insert(id, sequence);
        }
        Ok(repair)
    }

    /// Holds the log against the checkpoint beside it: shorter, or other records, is nobody's crash.
    fn judge_kept(
        &mut self,
        kept: Option<SignedCheckpoint>,
        numbers: &[u64],
        witnessed: &Witnessed,
    ) -> Result<(), OpenError> {
        let Some(kept) = kept else {
            return match &witnessed.newest {
                Some(_) => Err(self.tampered(Damage::CheckpointMissing)),
                None => {
                    self.note_uncovered(self.head.size);
                    Ok(())
                }
            };
        };
        let Checkpoint { size, root, .. } = *kept.checkpoint();
        if size > self.head.size {
            return Err(OpenError::Damaged(Finding {
                file: segment_name(self.number.max(1)),
                line: witnessed.lines.saturating_add(1),
                sequence: self.head.size,
                damage: Damage::Shortened,
            }));
        }
        let own = match &witnessed.newest {
            Some(newest) if newest.size > size => {
                return Err(self.tampered(Damage::CheckpointMissing));
            }
            Some(newest) if newest.size == size => {
                if newest != kept.checkpoint() {
                    return Err(self.tampered(Damage::BadCheckpoint));
                }
                // Its record is the one after what it speaks of.
                1
            }
            Some(_) | None => 0,
        };
        let found = match witnessed.root {
            Some(found) => Some(found),
            None => self.root_at(size, numbers)?,
        };
        if found != Some(root) {
            return Err(self.tampered(Damage::CheckpointDiffers));
        }
        if let Some(with) = &self.options.checkpoints {
            match kept.verify(&log_keys(with.key.public())) {
                Ok(()) => {}
                // As after this node changed its keys. That the log continues it was seen above.
                Err(NotBelieved::OtherLog(origin)) => {
                    tracing::warn!(
                        origin,
                        "the newest checkpoint is of this node's former keys"
                    );
                }
                Err(NotBelieved::NotSigned | NotBelieved::Forged) => {
                    return Err(self.tampered(Damage::BadCheckpoint));
                }
            }
        }
        self.signing.kept = Some(kept);
        let covered = size.saturating_add(own);
        self.note_uncovered(self.head.size.saturating_sub(covered));
        Ok(())
    }

    /// Damage at the checkpoint beside the segments.
    fn tampered(&self, damage: Damage) -> OpenError {
        OpenError::Damaged(Finding {
            file: CHECKPOINT_FILE.to_owned(),
            line: 0,
            sequence: self.head.size,
            damage,
        })
    }

    /// The root over the first `size` records, from the newest segment that begins before.
    fn root_at(&self, size: u64, numbers: &[u64]) -> Result<Option<Hash>, OpenError> {
        for &number in numbers.iter().rev() {
            let read = || self.root_in(size, number);
            match read().map_err(failed(segment_name(number)))? {
                Found::Earlier => {}
                Found::Root(root) => return Ok(root),
            }
        }
        Ok((size == 0).then(Hash::empty))
    }

    fn root_in(&self, size: u64, number: u64) -> io::Result<Found> {
        let mut lines = Lines::open(&*self.storage, number)?;
        let mut tree: Option<Frontier> = None;
        while let Some(Line::Whole(line)) = lines.next()? {
            let mut before = match tree.take() {
                Some(tree) => tree,
                // A first line; what is none says nothing of the lines after it.
                None => match record::read(&line).ok().and_then(|entry| entry.segment) {
                    Some(head) if head.size <= size => match head.frontier() {
                        Some(frontier) => frontier,
                        None => return Ok(Found::Root(None)),
                    },
                    _ => return Ok(Found::Earlier),
                },
            };
            if before.size() == size {
                return Ok(Found::Root(Some(before.root())));
            }
            before.push(Hash::leaf(&line));
            tree = Some(before);
        }
        Ok(match tree {
            // Never begun.
            None => Found::Earlier,
            Some(tree) => Found::Root((tree.size() == size).then(|| tree.root())),
        })
    }

    /// Keeps the bytes of a torn line in a file beside the segment.
    fn quarantine(&self, segment: &str, torn: &[u8]) -> io::Result<()> {
        for n in 0..100 {
            let name = if n == 0 {
                format!("{segment}.torn")
            } else {
                format!("{segment}.torn{n}")
            };
            match self.storage.create(&name) {
                Ok(mut file) => {
                    write_all(&mut *file, torn)?;
                    file.sync()?;
                    return self.storage.sync_directory();
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "100 torn lines lie beside this segment: check the disk",
        ))
    }
}

/// What one segment says of an earlier size.
enum Found {
    /// It begins later.
    Earlier,
    /// The root at that size; none: it does not reach so far.
    Root(Option<Hash>),
}
