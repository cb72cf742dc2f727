//! How many exchanges are under way with each executor, and which jobs wait for one.
//!
//! Each exchange is a stream of one connection; an executor serves sixty-four of this protocol at
//! once and ends a connection with more than a hundred and twenty-eight in all. A thousand jobs
//! given to one peer must therefore take turns.

use std::collections::{HashMap, VecDeque};

use crate::{sandbox::JobId, types::PeerId};

/// Exchanges with one executor at once. Below what it serves, so that a cancellation, which does
/// not wait for its turn, finds room.
pub(super) const LANES: usize = 48;

/// See the module. Bounded by `jobs.unfinished`: each job waits at most once.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<PeerId, Lane>);

#[derive(Debug, Default)]
struct Lane {
    under_way: usize,
    waiting: VecDeque<JobId>,
}

impl Lanes {
    /// Whether an exchange may begin now; if not, the job waits for its turn.
    pub(super) fn enter(&mut self, executor: PeerId, job: JobId) -> bool {
        let lane = self.0.entry(executor).or_default();
        if lane.under_way < LANES {
            lane.under_way = lane.under_way.saturating_add(1);
            return true;
        }
        if !lane.waiting.contains(&job) {
            lane.waiting.push_back(job);
        }
        false
    }

    /// An exchange ended.
    pub(super) fn leave(&mut self, executor: &PeerId) {
        if let Some(lane) = self.0.get_mut(executor) {
            lane.under_way = lane.under_way.saturating_sub(1);
            if lane.under_way == 0 && lane.waiting.is_empty() {
                self.0.remove(executor);
            }
        }
    }

    /// Whose turn it is, if there is room: it waits no longer, and has to enter.
    pub(super) fn next(&mut self, executor: &PeerId) -> Option<JobId> {
        let lane = self.0.get_mut(executor)?;
        if lane.under_way >= LANES {
            return None;
        }
        let next = lane.waiting.pop_front();
        if next.is_none() && lane.under_way == 0 {
            self.0.remove(executor);
        }
        next
    }

    /// Whether jobs wait for their turn with this executor: nobody should hold one for long then.
    pub(super) fn is_crowded(&self, executor: &PeerId) -> bool {
        let lane = self.0.get(executor);
        lane.is_some_and(|lane| !lane.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key())
    }

    fn job(n: usize) -> JobId {
        JobId((n as u128).to_be_bytes())
    }

    #[test]
    fn a_thousand_jobs_of_one_executor_take_turns_and_no_other_waits() {
        let mut lanes = Lanes::default();
        let entered = (0..1_000).filter(|n| lanes.enter(peer(1), job(*n))).count();
        assert_eq!(entered, LANES);
        assert!(lanes.enter(peer(2), job(0)));
        assert!(lanes.is_crowded(&peer(1)) && !lanes.is_crowded(&peer(2)));
        assert!(!lanes.enter(peer(1), job(LANES)), "it waits once");
        assert_eq!(lanes.next(&peer(1)), None, "there is no room");
        let mut order = Vec::new();
        for _ in LANES..1_000 {
            lanes.leave(&peer(1));
            let next = lanes.next(&peer(1)).unwrap();
            assert!(lanes.enter(peer(1), next), "the turn is its own");
            order.push(next);
        }
        assert_eq!(order, (LANES..1_000).map(job).collect::<Vec<_>>());
        for _ in 0..LANES {
            lanes.leave(&peer(1));
        }
        lanes.leave(&peer(2));
        assert!(lanes.0.is_empty(), "nothing is left behind");
    }
}
