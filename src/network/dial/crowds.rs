//! How much one network has to bear from dials that somebody else's word causes.
//!
//! Whoever answers a walk can name any number of peers, all of them at one victim's addresses. So
//! what is dialled counts for its network: /24 of IPv4, /64 of IPv6, so that neither ports nor
//! neighbouring addresses make a difference.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use libp2p::Multiaddr;

use crate::network::discovery::scope;

/// Dials under way in one network.
pub(super) const MAX_UNDER_WAY: usize = 2;
/// Failed dials in one network at once; then one in [`REFILL`].
const BURST: u32 = 8;
const REFILL: Duration = Duration::from_secs(15);
/// Networks that are remembered; the one that is free again soonest is forgotten first.
const MAX_NETWORKS: usize = 1_024;

/// One network: its first address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(IpAddr);

impl Network {
    /// Where an address leads first; `None`: a name.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        Some(Self(match scope::first_ip(address)? {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        }))
    }
}

/// Networks in which dials failed lately.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    /// When the failures so far would be over at an even pace.
    until: BTreeMap<Network, Duration>,
}

impl Crowds {
    /// Whether one more dial may go there now.
    pub(super) fn is_open(&self, network: Network, now: Duration) -> bool {
        let ahead = REFILL.saturating_mul(BURST.saturating_sub(1));
        let until = self.until.get(&network).copied().unwrap_or_default();
        until.saturating_sub(ahead) <= now
    }

    /// A dial there failed.
    pub(super) fn failed(&mut self, network: Network, now: Duration) {
        if self.until.len() >= MAX_NETWORKS && !self.until.contains_key(&network) {
            self.until.retain(|_, until| *until > now);
            let soonest = self.until.iter().min_by_key(|(_, until)| **until);
            if self.until.len() >= MAX_NETWORKS
                && let Some(soonest) = soonest.map(|(network, _)| *network)
            {
                self.until.remove(&soonest);
            }
        }
        let until = self.until.entry(network).or_default();
        *until = (*until).max(now).saturating_add(REFILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Option<Network> {
        Network::of(&text.parse().unwrap())
    }

    #[test]
    fn ports_and_neighbours_are_one_network() {
        let one = network("/ip4/8.8.8.8/tcp/1");
        assert_eq!(one, network("/ip4/8.8.8.9/udp/2/quic-v1"));
        assert_eq!(one, network("/ip6/::ffff:8.8.8.1/tcp/1"));
        assert_ne!(one, network("/ip4/8.8.9.8/tcp/1"));
        let six = network("/ip6/2606:4700:1:2::1/tcp/1");
        assert_eq!(six, network("/ip6/2606:4700:1:2:ffff::1/tcp/1"));
        assert_ne!(six, network("/ip6/2606:4700:1:3::1/tcp/1"));
        assert_eq!(network("/dns4/example.org/tcp/1"), None);
    }

    #[test]
    fn a_network_where_nobody_answers_is_left_alone() {
        let mut crowds = Crowds::default();
        let network = network("/ip4/8.8.8.8/tcp/1").unwrap();
        let mut dials = 0;
        for tick in 0..6_000_u64 {
            let now = Duration::from_millis(tick * 100);
            if crowds.is_open(network, now) {
                crowds.failed(network, now);
                dials += 1;
            }
        }
        // Ten minutes.
        assert_eq!(dials, 7 + 40);
    }

    #[test]
    fn networks_are_bounded() {
        let mut crowds = Crowds::default();
        for n in 0..5_000_u32 {
            let [.., a, b] = n.to_be_bytes();
            let address = format!("/ip4/8.{a}.{b}.1/tcp/1");
            crowds.failed(network(&address).unwrap(), Duration::ZERO);
        }
        assert_eq!(crowds.until.len(), MAX_NETWORKS);
    }
}
