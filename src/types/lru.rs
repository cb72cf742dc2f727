//! A bounded map: at most so many values, the least recently used forgotten first.
//!
//! Pure: time is the monotonic time since the start, given by the caller. Invariant: `order` holds
//! each key once, under the turn of its value.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    values: HashMap<K, Kept<V>>,
    order: BTreeMap<u64, K>,
    turn: u64,
    most: usize,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    until: Duration,
    turn: u64,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// An empty one for at most `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: BTreeMap::new(),
            turn: 0,
            most,
        }
    }

    /// The value, unless its time is over.
    pub(crate) fn get(&mut self, key: &K, now: Duration) -> Option<&V> {
        if self.values.get(key)?.until <= now {
            self.remove(key);
            return None;
        }
        self.turn = self.turn.saturating_add(1);
        let kept = self.values.get_mut(key)?;
        self.order.remove(&kept.turn);
        self.order.insert(self.turn, *key);
        kept.turn = self.turn;
        Some(&kept.value)
    }

    /// Keeps a value, exclusive of `until`.
    pub(crate) fn put(&mut self, key: K, value: V, until: Duration) {
        self.remove(&key);
        if self.values.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
        self.turn = self.turn.saturating_add(1);
        let turn = self.turn;
        self.order.insert(turn, key);
        self.values.insert(key, Kept { value, until, turn });
    }

    /// Forgets one, and gives it back.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let kept = self.values.remove(key)?;
        self.order.remove(&kept.turn);
        Some(kept.value)
    }

    /// Forgets the least recently used, and gives it back.
    pub(crate) fn pop(&mut self) -> Option<V> {
        let (_, oldest) = self.order.pop_first()?;
        self.values.remove(&oldest).map(|kept| kept.value)
    }

    /// Forgets what `keep` does not keep.
    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.values.retain(|_, kept| keep(&kept.value));
        let values = &self.values;
        self.order.retain(|_, key| values.contains_key(key));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.order.clear();
    }

    /// Values held.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = Lru::new(3);
        for key in 0..3 {
            lru.put(key, key, Duration::MAX);
        }
        assert_eq!(lru.get(&0, Duration::ZERO), Some(&0));
        lru.put(3, 3, Duration::from_secs(1));
        assert_eq!(lru.get(&1, Duration::ZERO), None);
        assert_eq!(lru.get(&3, Duration::from_secs(1)), None);
        lru.retain(|value| *value != 2);
        assert_eq!((lru.len(), lru.order.len()), (1, 1));
    }
}
