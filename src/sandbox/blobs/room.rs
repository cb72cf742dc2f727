//! Room for blobs: what goes when there is too little.

use super::{BlobError, Blobs, Key, MAX_BLOBS, Name};

impl Blobs {
    /// Throws away what was used longest ago until `size` more bytes fit; not `keep`.
    pub(super) fn make_room(&mut self, size: u64, keep: Option<&Key>) -> Result<(), BlobError> {
        let capacity = self.capacity;
        let fits = |blobs: &Self| {
            let there = blobs.used.saturating_add(size) <= capacity;
            there && (size == 0 || blobs.complete.len() < MAX_BLOBS)
        };
        if fits(self) {
            return Ok(());
        }
        let mut victims = self.victims(keep);
        let most = victims
            .iter()
            .fold(0_u64, |sum, (_, size, _)| sum.saturating_add(*size));
        let least = self.used.saturating_sub(most).saturating_add(size);
        victims.sort_unstable_by_key(|(last_used, ..)| *last_used);
        let mut victims = victims.into_iter();
        while !fits(self) {
            let next = victims.next().filter(|_| least <= capacity);
            let Some((_, _, victim)) = next else {
                return Err(BlobError::Full {
                    size,
                    used: self.used,
                    capacity,
                });
            };
            match victim {
                Name::Complete(blob) => self.discard(&blob),
                Name::Arriving(key) => self.drop_arriving(&key),
            }
        }
        Ok(())
    }

    /// What is not pinned, with its last use and its size.
    fn victims(&self, keep: Option<&Key>) -> Vec<(u64, u64, Name)> {
        let complete = self.complete.iter().map(|(blob, one)| {
            let victim = Name::Complete(*blob);
            (blob, (one.last_used, one.size, victim))
        });
        let arriving = self.arriving.iter().filter(|(key, _)| Some(*key) != keep);
        let arriving = arriving.map(|(key, one)| {
            let victim = Name::Arriving(*key);
            (&key.0, (one.last_used, one.size, victim))
        });
        complete
            .chain(arriving)
            .filter(|(blob, _)| !self.pins.contains_key(blob))
            .map(|(_, victim)| victim)
            .collect()
    }

    /// Throws away the arriving blob that nobody waits for and that moved longest ago.
    pub(super) fn evict_arriving(&mut self) -> Result<(), BlobError> {
        let victims = self.victims(None).into_iter();
        let arriving = victims.filter_map(|(last_used, _, victim)| match victim {
            Name::Arriving(key) => Some((last_used, key)),
            Name::Complete(_) => None,
        });
        let (_, key) = arriving.min().ok_or(BlobError::Crowded)?;
        self.drop_arriving(&key);
        Ok(())
    }
}
