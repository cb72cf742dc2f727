//! Which addresses make sense, seen from whoever tells them.
//!
//! A peer on the internet has no business naming machines on this node's own network or on this
//! machine: believed, such an address makes the node knock at doors that the peer cannot reach
//! itself. So an address is believed when its reach is at least that of the address its teller is
//! connected from, or when the configuration believes all.

use std::net::IpAddr;

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::network::convert;

/// How far an address reaches, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This machine.
    Machine,
    /// This link.
    Link,
    /// A private network, or a provider's (100.64.0.0/10).
    Site,
    /// The internet.
    World,
}

/// How far an IP address reaches; `None`: nobody can be there (unspecified, multicast, for
/// documentation, reserved).
#[must_use]
pub fn of(ip: IpAddr) -> Option<Scope> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let octets = ip.octets();
            if ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_documentation()
                || octets[0] == 0
                || octets[0] >= 240
            {
                None
            } else if ip.is_loopback() {
                Some(Scope::Machine)
            } else if ip.is_link_local() {
                Some(Scope::Link)
            } else if ip.is_private() || (octets[0] == 100 && octets[1] & 0xc0 == 64) {
                Some(Scope::Site)
            } else {
                Some(Scope::World)
            }
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            let documentation = first == 0x2001 && ip.segments()[1] == 0x0db8;
            if ip.is_unspecified() || ip.is_multicast() || documentation {
                None
            } else if ip.is_loopback() {
                Some(Scope::Machine)
            } else if ip.is_unicast_link_local() {
                Some(Scope::Link)
            } else if ip.is_unique_local() {
                Some(Scope::Site)
            } else {
                Some(Scope::World)
            }
        }
    }
}

/// Where a teller is, as seen from here. Through a relay it could be anywhere.
#[must_use]
pub fn of_teller(ip: Option<IpAddr>) -> Scope {
    ip.and_then(of).unwrap_or(Scope::World)
}

/// Whether an address of a peer is believed when a teller at `scope` names it: an IP address with a
/// TCP port, or a UDP port for QUIC; with a relay behind it, or not. Names are not looked up for
/// anybody.
#[must_use]
pub fn is_sane(address: &Multiaddr, scope: Scope) -> bool {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return false,
    };
    let port = match parts.next() {
        Some(Protocol::Tcp(port)) => port,
        Some(Protocol::Udp(port)) if parts.next() == Some(Protocol::QuicV1) => port,
        _ => return false,
    };
    let rest: Vec<_> = parts.take(4).collect();
    let shape = matches!(
        rest.as_slice(),
        [] | [Protocol::P2p(_)]
            | [Protocol::P2p(_), Protocol::P2pCircuit]
            | [Protocol::P2p(_), Protocol::P2pCircuit, Protocol::P2p(_)]
    );
    port != 0 && shape && of(ip).is_some_and(|reach| reach >= scope)
}

/// The IP an address begins with, also when it leads on through a relay.
#[must_use]
pub fn first_ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip).to_canonical()),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// The relay that an address leads through.
#[must_use]
pub fn relay_of(address: &Multiaddr) -> Option<libp2p::PeerId> {
    let mut last = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => last = Some(peer),
            Protocol::P2pCircuit => return last,
            _ => {}
        }
    }
    None
}

/// The sane ones of the addresses that a teller at `scope` names for `peer`, each ending in it, at
/// most [`super::MAX_ADDRESSES`].
#[must_use]
pub fn sane(addresses: &[Multiaddr], peer: libp2p::PeerId, scope: Scope) -> Vec<Multiaddr> {
    let mut out = Vec::new();
    for address in addresses.iter().take(super::MAX_ADDRESSES) {
        let (_, named) = convert::split_p2p(address);
        let whole = match named {
            Some(named) if named != peer => continue,
            _ => convert::with_p2p(address, peer),
        };
        if is_sane(&whole, scope) && !out.contains(&whole) {
            out.push(whole);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sane_at(text: &str, scope: Scope) -> bool {
        is_sane(&text.parse().unwrap(), scope)
    }

    #[test]
    fn who_is_far_away_knows_nothing_of_what_is_near() {
        for (address, scope) in [
            ("/ip4/127.0.0.1/tcp/1", Scope::Machine),
            ("/ip6/::1/tcp/1", Scope::Machine),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Scope::Machine),
            ("/ip4/169.254.1.1/tcp/1", Scope::Link),
            ("/ip6/fe80::1/udp/1/quic-v1", Scope::Link),
            ("/ip4/10.0.0.1/tcp/1", Scope::Site),
            ("/ip4/100.100.0.1/tcp/1", Scope::Site),
            ("/ip6/fd00::1/tcp/1", Scope::Site),
            ("/ip4/8.8.8.8/udp/1/quic-v1", Scope::World),
            ("/ip6/2606:4700::1/tcp/1", Scope::World),
        ] {
            for teller in [Scope::Machine, Scope::Link, Scope::Site, Scope::World] {
                assert_eq!(sane_at(address, teller), scope >= teller, "{address}");
            }
        }
        assert_eq!(of_teller(None), Scope::World);
    }

    #[test]
    fn what_cannot_be_an_address_of_a_peer_is_none() {
        let peer = libp2p::PeerId::random();
        for address in [
            "/ip4/0.0.0.0/tcp/1".to_owned(),
            "/ip4/224.0.0.1/tcp/1".to_owned(),
            "/ip4/255.255.255.255/tcp/1".to_owned(),
            "/ip4/192.0.2.1/tcp/1".to_owned(),
            "/ip4/8.8.8.8/tcp/0".to_owned(),
            "/ip4/8.8.8.8/udp/1".to_owned(),
            "/ip4/8.8.8.8".to_owned(),
            "/dns4/example.org/tcp/1".to_owned(),
            "/ip4/8.8.8.8/tcp/1/ws".to_owned(),
            format!("/p2p/{peer}"),
            format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}/p2p/{peer}"),
        ] {
            assert!(!sane_at(&address, Scope::Machine), "{address}");
        }
        let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}");
        assert!(sane_at(&circuit, Scope::World));
        assert_eq!(relay_of(&circuit.parse().unwrap()), Some(peer));
        assert_eq!(
            first_ip(&circuit.parse().unwrap()),
            Some([8, 8, 8, 8].into())
        );
    }

    #[test]
    fn an_address_that_names_another_peer_is_not_taken() {
        let (one, other) = (libp2p::PeerId::random(), libp2p::PeerId::random());
        let bare: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        let theirs = bare.clone().with(Protocol::P2p(other));
        let own = bare.clone().with(Protocol::P2p(one));
        assert_eq!(sane(&[theirs, bare, own.clone()], one, Scope::World), [own]);
    }

    proptest! {
        #[test]
        fn nothing_is_sane_twice_or_without_end(ips in prop::collection::vec(any::<u32>(), 0..40)) {
            let peer = libp2p::PeerId::random();
            let all: Vec<Multiaddr> = ips
                .iter()
                .map(|ip| Multiaddr::from(IpAddr::from(ip.to_be_bytes())).with(Protocol::Tcp(9)))
                .collect();
            let out = sane(&all, peer, Scope::Machine);
            prop_assert!(out.len() <= super::super::MAX_ADDRESSES);
            for (n, one) in out.iter().enumerate() {
                prop_assert!(is_sane(one, Scope::Machine) && !out[..n].contains(one));
            }
        }
    }
}
