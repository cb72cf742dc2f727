//! Collects identical refusals, so that a flood of them becomes one record.
//!
//! An attacker chooses how often it is refused; it must not choose how much disk that costs.
//! The owner adds each refusal and drains the counts once in `audit.aggregate`.

use std::{collections::HashMap, hash::Hash};

use crate::types::Timestamp;

/// How often something happened, and when first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
}

impl Tally {
    fn once(now: Timestamp) -> Self {
        Self {
            count: 1,
            first: now,
            last: now,
        }
    }

    fn again(&mut self, now: Timestamp) {
        self.count = self.count.saturating_add(1);
        self.last = now;
    }
}

/// Tallies by key, at most `capacity` of them; what does not fit is tallied under the key that
/// `coarsen` makes of it (fewer details, never fewer counts).
#[derive(Debug)]
pub struct Aggregator<K> {
    tallies: HashMap<K, Tally>,
    capacity: usize,
    coarsen: fn(K) -> K,
}

impl<K: Eq + Hash + Clone> Aggregator<K> {
    /// An empty aggregator. `coarsen` must map the keys to a small, fixed set (for example: drop
    /// the address, keep the reason): that set is what may exceed `capacity`.
    #[must_use]
    pub fn new(capacity: usize, coarsen: fn(K) -> K) -> Self {
        Self {
            tallies: HashMap::new(),
            capacity,
            coarsen,
        }
    }

    /// Counts one more.
    pub fn add(&mut self, key: K, now: Timestamp) {
        let key = if self.tallies.len() >= self.capacity && !self.tallies.contains_key(&key) {
            (self.coarsen)(key)
        } else {
            key
        };
        self.tallies
            .entry(key)
            .and_modify(|t| t.again(now))
            .or_insert_with(|| Tally::once(now));
    }

    /// Counts so many more.
    pub fn add_many(&mut self, key: K, count: u64, now: Timestamp) {
        if count == 0 {
            return;
        }
        self.add(key.clone(), now);
        let key = if self.tallies.contains_key(&key) {
            key
        } else {
            (self.coarsen)(key)
        };
        if let Some(tally) = self.tallies.get_mut(&key) {
            tally.count = tally.count.saturating_add(count - 1);
        }
    }

    /// Takes all tallies.
    pub fn drain(&mut self) -> Vec<(K, Tally)> {
        self.tallies.drain().collect()
    }

    /// Keys held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Whether nothing was counted since the last drain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason_only((reason, _): (u8, u32)) -> (u8, u32) {
        (reason, 0)
    }

    proptest! {
        /// However many distinct keys come, nothing is lost from the counts and the table stays
        /// within its bound (plus one key for each reason).
        #[test]
        fn bounded_and_complete(inputs in proptest::collection::vec((0u8..3, 1u32..1000), 0..500)) {
            let mut tallies = Aggregator::new(16, reason_only);
            for (i, input) in inputs.iter().enumerate() {
                tallies.add(*input, Timestamp::from_millis(i as u64));
                prop_assert!(tallies.len() <= 16 + 3);
            }
            let total: u64 = tallies.drain().iter().map(|(_, tally)| tally.count).sum();
            prop_assert_eq!(total, inputs.len() as u64);
            prop_assert!(tallies.is_empty());
        }
    }
}
