//! The ids of the newest records, by which a repeated event is recognised.

use std::collections::{HashMap, VecDeque};

use crate::types::EventId;

/// Ids and the places of their records; at most `capacity`, the oldest is forgotten first.
#[derive(Debug)]
pub(super) struct Remembered {
    places: HashMap<EventId, u64>,
    order: VecDeque<EventId>,
    capacity: usize,
}

impl Remembered {
    /// Remembers nothing yet, and `capacity` ids at most (`audit.remembered_ids`).
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::new(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Where the record of this id stands.
    pub(super) fn place(&self, id: &EventId) -> Option<u64> {
        self.places.get(id).copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.order.len() >= self.capacity
    }

    /// Adds the newest.
    pub(super) fn insert(&mut self, id: EventId, sequence: u64) {
        if self.places.insert(id, sequence).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
    }

    /// Adds ids older than all that are known, given oldest first, as far as there is room.
    pub(super) fn insert_older(&mut self, ids: &[(EventId, u64)]) {
        for (id, sequence) in ids.iter().rev() {
            if self.is_full() {
                return;
            }
            if !self.places.contains_key(id) {
                self.places.insert(*id, *sequence);
                self.order.push_front(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let id = |n| EventId([n; 16]);
        let mut ids = Remembered::new(3);
        ids.insert(id(5), 5);
        ids.insert(id(6), 6);
        ids.insert_older(&[(id(3), 3), (id(4), 4), (id(5), 1)]);
        assert_eq!(
            [3, 4, 5, 6].map(|n| ids.place(&id(n))),
            [None, Some(4), Some(5), Some(6)]
        );
        ids.insert(id(7), 7);
        assert_eq!(ids.place(&id(4)), None);
        assert!(ids.is_full());
    }
}
