//! Processor time: a bucket for each peer that an hour refills.
//!
//! Kept as one moment a peer, when its debt will be paid (the "theoretical arrival time" of the
//! generic cell rate algorithm, ITU-T I.371): a cost of `c` moves it `c / budget` hours on. A
//! peer may begin as long as less than a whole hour is owed, so one that pauses has at most one
//! hour's budget at once, and a job that is begun may overdraw by what its own limit allows.

use std::{collections::HashMap, time::Duration};

use crate::types::{PeerId, Timestamp};

/// The span that the budget is for.
const HOUR: Duration = Duration::from_secs(3_600);
/// Peers with a debt that are remembered, about 100 bytes each. Beyond, the smallest debt is
/// forgiven: whoever wants that must make 65,536 others work first.
const MAX_PEERS: usize = 65_536;

/// See the module.
#[derive(Debug, Clone)]
pub struct Quota {
    budget: Duration,
    paid_at: HashMap<PeerId, Timestamp>,
}

impl Quota {
    /// So much processor time an hour.
    #[must_use]
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            paid_at: HashMap::new(),
        }
    }

    /// How long a peer must wait; `None`: not at all.
    #[must_use]
    pub fn wait(&self, peer: &PeerId, now: Timestamp) -> Option<Duration> {
        let owed = self.paid_at.get(peer)?.since(now);
        let wait = owed.checked_sub(HOUR)?;
        // Exactly an hour owed: nothing is left, but the next millisecond brings some.
        Some(wait.max(Duration::from_millis(1)))
    }

    /// A job of a peer took so much.
    pub fn charge(&mut self, peer: PeerId, cpu_us: u64, now: Timestamp) {
        let budget = self.budget.as_micros().max(1);
        let cost = u128::from(cpu_us).saturating_mul(HOUR.as_millis()) / budget;
        let cost = Duration::from_millis(u64::try_from(cost).unwrap_or(u64::MAX));
        if cost.is_zero() {
            return;
        }
        if self.paid_at.len() >= MAX_PEERS && !self.paid_at.contains_key(&peer) {
            self.forgive_smallest();
        }
        let until = self.paid_at.entry(peer).or_insert(now);
        *until = (*until).max(now).after(cost);
    }

    /// Takes over a debt; the longer counts.
    pub fn restore(&mut self, peer: PeerId, until: Timestamp) {
        if self.paid_at.len() < MAX_PEERS || self.paid_at.contains_key(&peer) {
            let known = self.paid_at.entry(peer).or_insert(until);
            *known = (*known).max(until);
        }
    }

    /// Forgets what is paid.
    pub fn sweep(&mut self, now: Timestamp) {
        self.paid_at.retain(|_, until| *until > now);
    }

    /// Every debt: who, and when it is paid.
    pub fn debts(&self) -> impl Iterator<Item = (&PeerId, &Timestamp)> {
        self.paid_at.iter()
    }

    fn forgive_smallest(&mut self) {
        let smallest = self.paid_at.iter().min_by_key(|(_, until)| **until);
        if let Some(peer) = smallest.map(|(peer, _)| *peer) {
            self.paid_at.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer() -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key())
    }

    #[test]
    fn a_spent_hour_comes_back_within_an_hour() {
        let mut quota = Quota::new(Duration::from_secs(60));
        let now = Timestamp::from_secs(1_000);
        assert_eq!(quota.wait(&peer(), now), None);
        quota.charge(peer(), 59_000_000, now);
        assert_eq!(quota.wait(&peer(), now), None, "a second is left");
        quota.charge(peer(), 2_000_000, now);
        // A second too much is a minute of refilling.
        assert_eq!(quota.wait(&peer(), now), Some(Duration::from_secs(60)));
        let later = now.after(Duration::from_secs(61));
        assert_eq!(quota.wait(&peer(), later), None);
        quota.sweep(now.after(Duration::from_secs(3_661)));
        assert_eq!(quota.debts().count(), 0);
    }

    proptest! {
        /// Whoever begins only when allowed gets, in any time, no more than the bucket, what was
        /// refilled, and one job's overdraft.
        #[test]
        fn no_more_than_the_bucket_and_the_refill(
            costs in prop::collection::vec((0_u64..20_000_000, 0_u64..600_000), 1..100)
        ) {
            let budget = Duration::from_secs(60);
            let mut quota = Quota::new(budget);
            let start = Timestamp::from_secs(1_000_000);
            let (mut now, mut got, mut last) = (start, 0_u64, 0_u64);
            for (cost, pause) in costs {
                now = now.after(Duration::from_millis(pause));
                if quota.wait(&peer(), now).is_none() {
                    quota.charge(peer(), cost, now);
                    got += cost;
                    last = cost;
                }
                let refill = u64::try_from(now.since(start).as_micros()).unwrap() * 60 / 3_600;
                // A millisecond of rounding for each charge.
                prop_assert!(got <= 60_000_000 + refill + last + 100 * 17);
            }
        }
    }
}
