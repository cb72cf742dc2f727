//! Taking up a log where it was left: by an orderly end, a crash, or a power failure.

use std::{io, sync::Arc};

use super::{
    super::{
        AuditEvent,
        lines::{Line, Lines, segment_name, segments},
        verify,
    },
    Log, OpenError, failed, write_all,
};

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
        let mut repairs = Vec::new();
        while let Some(&number) = numbers.last() {
            if let Some(repair) = self.resume(number)? {
                repairs.push(repair);
            }
            if self.file.is_some() {
                break;
            }
            // It was never begun: the one before is the newest.
            numbers.pop();
        }
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
    fn resume(&mut self, number: u64) -> Result<Option<AuditEvent>, OpenError> {
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
        for (id, sequence) in ids {
            self.ids.insert(id, sequence);
        }
        Ok(repair)
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
