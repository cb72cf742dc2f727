//! Handshakes under way: in all, from one host, from one subnet.

use std::{collections::HashMap, hash::Hash};

use libp2p::swarm::ConnectionId;

use crate::types::Source;

/// Inbound handshakes under way, and whom each counts for. As many entries as handshakes, whose
/// number the owner bounds.
#[derive(Debug, Default)]
pub(super) struct Pending {
    from: HashMap<ConnectionId, Source>,
    hosts: Tally<Source>,
    subnets: Tally<Source>,
    unvalidated: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.from.len()
    }

    pub(super) fn of_host(&self, source: Source) -> usize {
        self.hosts.of(&source.host())
    }

    /// Relays are no subnets: for them it is the same as [`Pending::of_host`].
    pub(super) fn of_subnet(&self, source: Source) -> usize {
        self.subnets.of(&source.subnet())
    }

    /// Those whose address may be anybody's.
    pub(super) fn unvalidated(&self) -> usize {
        self.unvalidated
    }

    pub(super) fn begin(&mut self, id: ConnectionId, source: Source) {
        if self.from.insert(id, source).is_none() {
            let more = usize::from(source.is_unvalidated());
            self.unvalidated = self.unvalidated.saturating_add(more);
            self.hosts.more(source.host());
            self.subnets.more(source.subnet());
        }
    }

    pub(super) fn settle(&mut self, id: ConnectionId) {
        if let Some(source) = self.from.remove(&id) {
            let fewer = usize::from(source.is_unvalidated());
            self.unvalidated = self.unvalidated.saturating_sub(fewer);
            self.hosts.fewer(&source.host());
            self.subnets.fewer(&source.subnet());
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.from.is_empty() && self.hosts.0.is_empty() && self.subnets.0.is_empty()
    }
}

/// How many of each key there are; keys of none are gone.
#[derive(Debug)]
pub(super) struct Tally<K>(HashMap<K, usize>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Tally<K> {
    pub(super) fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    pub(super) fn more(&mut self, key: K) {
        let count = self.0.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn fewer(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// The largest count.
    pub(super) fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
