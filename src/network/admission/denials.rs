//! Denials in sums: what a flood leaves behind is a few numbers, not a line each.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::types::Timestamp;

/// Addresses told apart between two drains; beyond it denials are summed without an address.
/// A drain every few seconds then writes at most so many records.
const MAX_KEYS: usize = 256;

/// Connections denied for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason's stable name.
    pub reason: &'static str,
    /// The address, when it was told apart.
    pub address: Option<IpAddr>,
    /// How many.
    pub count: u64,
    /// When the first was denied.
    pub first: Timestamp,
    /// When the last was denied.
    pub last: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Denials {
    sums: HashMap<(&'static str, Option<IpAddr>), Refused>,
    totals: BTreeMap<&'static str, u64>,
}

impl Denials {
    pub(super) fn add(&mut self, reason: &'static str, ip: Option<IpAddr>, now: Timestamp) {
        *self.totals.entry(reason).or_default() += 1;
        // Reasons are constants of this program, so what is beyond the bound is bounded too.
        let known = self.sums.contains_key(&(reason, ip)) || self.sums.len() < MAX_KEYS;
        let address = ip.filter(|_| known);
        let sum = self.sums.entry((reason, address)).or_insert(Refused {
            reason,
            address,
            count: 0,
            first: now,
            last: now,
        });
        sum.count = sum.count.saturating_add(1);
        sum.last = now;
    }

    pub(super) fn take(&mut self) -> Vec<Refused> {
        let mut all: Vec<Refused> = self.sums.drain().map(|(_, sum)| sum).collect();
        all.sort_by_key(|sum| (sum.reason, sum.address));
        all
    }

    pub(super) fn totals(&self) -> &BTreeMap<&'static str, u64> {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_from_many_addresses_stays_small_and_loses_no_count() {
        let mut denials = Denials::default();
        for n in 0..10_000u32 {
            let ip = IpAddr::V4(Ipv4Addr::from(n));
            denials.add("rate", Some(ip), Timestamp::from_millis(u64::from(n)));
        }
        let sums = denials.take();
        assert_eq!(sums.len(), MAX_KEYS + 1);
        assert_eq!(sums.iter().map(|sum| sum.count).sum::<u64>(), 10_000);
        let rest = sums.iter().find(|sum| sum.address.is_none()).unwrap();
        assert_eq!(rest.last, Timestamp::from_millis(9_999));
        assert!(denials.take().is_empty());
        assert_eq!(denials.totals()["rate"], 10_000);
    }
}
