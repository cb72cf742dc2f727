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

/// What one peer owes.
#[derive(Debug, Clone, Copy)]
struct Debt {
    /// When it is paid.
    until: Timestamp,
    /// When this was written: what was left then is the most that can be left later.
    at: Timestamp,
}

impl Debt {
    /// What is left of it: never more than when it was written, though the clock went back.
    fn left(&self, now: Timestamp) -> Duration {
        self.until.since(now).min(self.until.since(self.at))
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Quota {
    budget: Duration,
    debts: HashMap<PeerId, Debt>,
}

impl Quota {
    /// So much processor time an hour.
    #[must_use]
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            debts: HashMap::new(),
        }
    }

    /// How long a peer must wait; `None`: not at all.
    #[must_use]
    pub fn wait(&self, peer: &PeerId, now: Timestamp) -> Option<Duration> {
        let owed = self.debts.get(peer)?.left(now);
        let wait = owed.checked_sub(HOUR)?;
        // Exactly an hour owed: nothing is left, but the next millisecond brings some.
        Some(wait.max(Duration::from_millis(1)))
    }

    /// A job of a peer took so much.
    pub fn charge(&mut self, peer: PeerId, cpu_us: u64, now: Timestamp) {
        let budget = self.budget.as_micros().max(1);
        // Rounded up: a thousand tiny jobs are not free.
        let cost = u128::from(cpu_us).saturating_mul(HOUR.as_millis());
        let cost = u64::try_from(cost.div_ceil(budget)).unwrap_or(u64::MAX);
        if cost == 0 {
            return;
        }
        if self.debts.len() >= MAX_PEERS && !self.debts.contains_key(&peer) {
            self.forgive_smallest();
        }
        let left = self
            .debts
            .get(&peer)
            .map_or(Duration::ZERO, |debt| debt.left(now));
        let left = left.saturating_add(Duration::from_millis(cost));
        let until = now.after(left);
        self.debts.insert(peer, Debt { until, at: now });
    }

    /// Takes over a debt; the longer counts.
    pub fn restore(&mut self, peer: PeerId, until: Timestamp, now: Timestamp) {
        if self.debts.len() < MAX_PEERS || self.debts.contains_key(&peer) {
            let known = self.debts.entry(peer).or_insert(Debt { until, at: now });
            known.until = known.until.max(until);
        }
    }

    /// Forgets what is paid.
    pub fn sweep(&mut self, now: Timestamp) {
        self.debts.retain(|_, debt| !debt.left(now).is_zero());
    }

    /// Every debt: who, and when it is paid.
    pub fn debts(&self) -> impl Iterator<Item = (&PeerId, &Timestamp)> {
        self.debts.iter().map(|(peer, debt)| (peer, &debt.until))
    }

    fn forgive_smallest(&mut self) {
        let smallest = self.debts.iter().min_by_key(|(_, debt)| debt.until);
        if let Some(peer) = smallest.map(|(peer, _)| *peer) {
            self.debts.remove(&peer);
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

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let mut quota = Quota::new(Duration::from_secs(60));
        let now = Timestamp::from_secs(1_000_000);
        quota.charge(peer(), 61_000_000, now);
        let back = Timestamp::from_secs(1_000);
        assert_eq!(quota.wait(&peer(), back), Some(Duration::from_secs(60)));
        quota.charge(peer(), 1_000_000, back);
        assert_eq!(quota.wait(&peer(), back), Some(Duration::from_secs(120)));
    }

    #[test]
    fn no_job_is_free() {
        let mut quota = Quota::new(Duration::from_secs(3_600));
        let now = Timestamp::from_secs(1_000);
        quota.charge(peer(), 1, now);
        assert_eq!(quota.debts().count(), 1);
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
                let refill = now.since(start).as_micros() * 60 / 3_600;
                // A millisecond of rounding for each charge.
                let most = 60_000_000 + refill + u128::from(last) + 100 * 17;
                prop_assert!(u128::from(got) <= most);
            }
        }
    }
}
