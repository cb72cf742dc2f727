//! Whose turn it is: peers with queued jobs take turns, each peer's own jobs come in order.
//!
//! # Invariants
//! - A peer is in `order` exactly once when it has queued jobs, and not at all otherwise.
//! - A peer that had its turn stands behind everybody else who waits; one that was passed over
//!   keeps its place among those that were passed over.

use std::collections::{BTreeMap, VecDeque};

use crate::{sandbox::JobId, types::PeerId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Queued jobs of each peer, first come first served. None is empty.
    queues: BTreeMap<PeerId, VecDeque<JobId>>,
    /// Peers with queued jobs; the first has the next turn.
    order: VecDeque<PeerId>,
    /// How many jobs of each peer run. None is zero.
    running: BTreeMap<PeerId, usize>,
    total: usize,
}

impl Turns {
    /// How many jobs run.
    pub(super) fn running(&self) -> usize {
        self.total
    }

    /// How many jobs of a peer run.
    pub(super) fn running_of(&self, peer: &PeerId) -> usize {
        self.running.get(peer).copied().unwrap_or(0)
    }

    /// A job waits for its peer's turn.
    pub(super) fn push(&mut self, peer: PeerId, id: JobId) {
        let queue = self.queues.entry(peer).or_default();
        queue.push_back(id);
        if queue.len() == 1 {
            self.order.push_back(peer);
        }
    }

    /// A job waits no longer.
    pub(super) fn remove(&mut self, peer: &PeerId, id: &JobId) {
        if let Some(queue) = self.queues.get_mut(peer) {
            queue.retain(|queued| queued != id);
            if queue.is_empty() {
                self.queues.remove(peer);
                self.order.retain(|turn| turn != peer);
            }
        }
    }

    /// The next job of the first peer that `may` have a turn; it counts as running from now on.
    pub(super) fn take(&mut self, may: impl Fn(&Self, &PeerId) -> bool) -> Option<JobId> {
        for _ in 0..self.order.len() {
            let peer = self.order.pop_front()?;
            if !may(self, &peer) {
                self.order.push_back(peer);
                continue;
            }
            let Some(queue) = self.queues.get_mut(&peer) else {
                continue;
            };
            let id = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&peer);
            } else {
                self.order.push_back(peer);
            }
            if id.is_some() {
                let count = self.running.entry(peer).or_default();
                *count = count.saturating_add(1);
                self.total = self.total.saturating_add(1);
                return id;
            }
        }
        None
    }

    /// A running job of this peer ended.
    pub(super) fn done(&mut self, peer: &PeerId) {
        if let Some(count) = self.running.get_mut(peer) {
            *count = count.saturating_sub(1);
            self.total = self.total.saturating_sub(1);
            if *count == 0 {
                self.running.remove(peer);
            }
        }
    }

    /// Panics when an invariant is broken: `queued` and `running` are what the jobs' states say.
    #[cfg(test)]
    pub(super) fn check(&self, queued: &[(PeerId, JobId)], running: &[PeerId]) {
        let mut own: Vec<_> = self
            .queues
            .iter()
            .flat_map(|(peer, queue)| queue.iter().map(|id| (*peer, *id)))
            .collect();
        let mut theirs = queued.to_vec();
        own.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(own, theirs, "queues and states differ");
        let mut order: Vec<_> = self.order.iter().copied().collect();
        order.sort_unstable();
        assert!(
            self.queues.keys().copied().eq(order),
            "turns and queues differ"
        );
        assert!(self.queues.values().all(|queue| !queue.is_empty()));
        let counted = running.iter().fold(BTreeMap::new(), |mut all, peer| {
            *all.entry(*peer).or_insert(0_usize) += 1;
            all
        });
        assert_eq!(self.running, counted, "running and states differ");
        assert_eq!(self.total, running.len());
    }
}
