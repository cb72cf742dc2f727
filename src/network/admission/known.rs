//! Hosts that members came from lately: a part of what a flood can fill is kept for them.

use std::{collections::HashMap, time::Duration};

use super::pending::Tally;
use crate::types::Source;

/// How long a host is remembered after its last member left.
const KEPT: Duration = Duration::from_secs(3_600);
/// Hosts remembered at most; beyond it the one that was seen longest ago goes. Only members make
/// entries, so strangers cannot drive anybody out.
const MAX_HOSTS: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Members' connections that stand, by host.
    standing: Tally<Source>,
    /// When the last one of a host ended.
    seen: HashMap<Source, Duration>,
}

/// The host, where there is one: a relay is none, and others come over it too.
fn host_of(source: Source) -> Option<Source> {
    source.ip().map(|_| source.host())
}

impl Known {
    /// Whether a member is connected from this host, or was lately.
    pub(super) fn has(&self, source: Source, now: Duration) -> bool {
        let lately = |seen: &Duration| now.saturating_sub(*seen) < KEPT;
        host_of(source).is_some_and(|host| {
            self.standing.of(&host) > 0 || self.seen.get(&host).is_some_and(lately)
        })
    }

    pub(super) fn came(&mut self, source: Source) {
        if let Some(host) = host_of(source) {
            self.standing.more(host);
        }
    }

    pub(super) fn left(&mut self, source: Source, now: Duration) {
        let Some(host) = host_of(source) else {
            return;
        };
        self.standing.fewer(&host);
        if self.seen.len() >= MAX_HOSTS && !self.seen.contains_key(&host) {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| **seen);
            if let Some(oldest) = oldest.map(|(host, _)| *host) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(host, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn hosts_are_remembered_for_an_hour_and_the_oldest_goes_when_there_are_too_many() {
        let host = |n: u32| Source::from(IpAddr::from(n.to_be_bytes()));
        let at = Duration::from_secs;
        let mut known = Known::default();
        known.came(host(1));
        known.came(Source::Unknown);
        assert!(!known.has(Source::Unknown, at(0)));
        assert!(known.has(host(1), at(1_000_000)) && !known.has(host(2), at(0)));
        known.left(host(1), at(10));
        assert!(known.has(host(1), at(3_609)) && !known.has(host(1), at(3_610)));
        for n in 0..5_000 {
            known.left(host(n + 2), at(20));
        }
        assert_eq!(known.seen.len(), MAX_HOSTS);
        assert!(!known.has(host(1), at(20)) && known.has(host(5_001), at(20)));
    }
}
