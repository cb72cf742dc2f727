//! Cool-downs: whoever's input was being handled at a fault is refused for a growing while.
//!
//! A peer that can make an actor panic must not be able to make it panic until the budget is
//! spent, or escalation would be a remote kill. The table is bounded: evicting one entry costs
//! an attacker one fault, so it cannot be flushed within a budget.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::lock;
use crate::{
    config::CoolDownConfig,
    types::{Clock, Origin, Party},
};

/// Who is being refused, and until when.
#[derive(Debug)]
pub struct CoolDowns {
    clock: Arc<dyn Clock>,
    initial: Duration,
    max: Duration,
    capacity: usize,
    table: Mutex<HashMap<Party, Entry>>,
    /// Length of the table, so that the common case (nobody) costs one load.
    len: AtomicUsize,
    refused: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    faults: u32,
    since: Duration,
    until: Duration,
}

impl CoolDowns {
    /// An empty table.
    #[must_use]
    pub fn new(config: &CoolDownConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            initial: config.initial.0,
            max: config.max.0.max(config.initial.0),
            capacity: config.tracked.max(1),
            table: Mutex::default(),
            len: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// How much longer `origin` is refused, when it is: the longest of its peer's and its
    /// address's cool-down.
    #[must_use]
    pub fn is_cooling(&self, origin: &Origin) -> Option<Duration> {
        if self.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let now = self.clock.elapsed();
        let table = lock(&self.table);
        parties(origin)
            .filter_map(|party| table.get(&party))
            .map(|entry| entry.until.saturating_sub(now))
            .max()
            .filter(|left| !left.is_zero())
    }

    /// Blames a fault on `origin`: its peer and its address are refused, twice as long as the
    /// last time.
    pub fn blame(&self, origin: &Origin) {
        let now = self.clock.elapsed();
        let mut table = lock(&self.table);
        // A party that stayed quiet for as long as the longest cool-down begins anew.
        table.retain(|_, entry| now < entry.until.saturating_add(self.max));
        for party in parties(origin) {
            let faults = table.get(&party).map_or(0, |entry| entry.faults);
            if faults == 0 && table.len() >= self.capacity {
                evict_oldest(&mut table);
            }
            let span = self
                .initial
                .saturating_mul(1 << faults.min(31))
                .min(self.max);
            let entry = Entry {
                faults: faults.saturating_add(1),
                since: now,
                until: now.saturating_add(span),
            };
            table.insert(party, entry);
        }
        self.len.store(table.len(), Ordering::Release);
    }

    /// How many messages were dropped because their origin was cooling down.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Parties remembered now.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn parties(origin: &Origin) -> impl Iterator<Item = Party> {
    let peer = origin.peer.map(Party::Peer);
    let address = origin.address.map(Party::address);
    peer.into_iter().chain(address)
}

fn evict_oldest(table: &mut HashMap<Party, Entry>) {
    let oldest = table.iter().min_by_key(|(_, entry)| entry.since);
    if let Some(party) = oldest.map(|(party, _)| party.clone()) {
        table.remove(&party);
    }
}
