//! Which refusals at the gate are recorded one by one, and what becomes of the others.
//!
//! The first few of a reason in an interval are told in full, as an operator looks for them. A
//! crowd of strangers, each properly connected, must not choose how fast the log grows: the rest
//! is kept in sums, which [`Refusals::take`] hands out once in an interval. No count is lost.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use crate::{audit::Aggregator, network::Refused, types::Timestamp};

/// Refusals of one reason that are recorded one by one in one interval (`audit.aggregate`).
const SINGLY: u32 = 10;
/// Addresses and reasons told apart in the sums; beyond it they are summed by reason alone.
const KEYS: usize = 64;

type Key = (&'static str, Option<IpAddr>);

#[derive(Debug)]
struct Interval {
    singly: HashMap<&'static str, u32>,
    rest: Aggregator<Key>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<Interval>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Interval {
            // Reasons are constants of this program.
            singly: HashMap::new(),
            rest: Aggregator::new(KEYS, |(reason, _)| (reason, None)),
        }))
    }
}

impl Refusals {
    /// Whether this one is told in full. It is counted in the sums when it is not.
    pub(super) fn is_single(
        &self,
        reason: &'static str,
        ip: Option<IpAddr>,
        now: Timestamp,
    ) -> bool {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = interval.singly.entry(reason).or_default();
        let single = *seen < SINGLY;
        *seen = seen.saturating_add(1);
        if !single {
            interval.rest.add((reason, ip), now);
        }
        single
    }

    /// Ends the interval and hands out its sums.
    pub(super) fn take(&self) -> Vec<Refused> {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        interval.singly.clear();
        let sums = interval.rest.drain().into_iter();
        let mut sums: Vec<Refused> = sums
            .map(|((reason, address), tally)| Refused {
                reason,
                address,
                count: tally.count,
                first: tally.first,
                last: tally.last,
            })
            .collect();
        sums.sort_by_key(|sum| (sum.reason, sum.address));
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_records_and_no_count_is_lost() {
        let refusals = Refusals::default();
        let mut single = 0;
        for n in 0..10_000u32 {
            let ip = IpAddr::from(n.to_be_bytes());
            let now = Timestamp::from_millis(u64::from(n));
            single += u64::from(refusals.is_single("no_credential", Some(ip), now));
        }
        assert!(refusals.is_single("banned", None, Timestamp::from_millis(0)));
        assert_eq!(single, u64::from(SINGLY));
        let sums = refusals.take();
        assert!(sums.len() <= KEYS + 1);
        let summed: u64 = sums.iter().map(|sum| sum.count).sum();
        assert_eq!(single + summed, 10_000);

        // The next interval begins anew.
        assert!(refusals.take().is_empty());
        assert!(refusals.is_single("no_credential", None, Timestamp::from_millis(0)));
    }
}
