//! Which addresses make sense, seen from whoever tells them.
//!
//! A peer on the internet has no business naming machines on this node's own network or on this
//! machine: believed, such an address makes the node knock at doors that the peer cannot reach
//! itself. So an address is believed when its reach is at least that of the address its teller is
//! connected from, or when the configuration believes all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
/// documentation, reserved). An IPv6 address that stands for an IPv4 one reaches as far as that.
#[must_use]
pub fn of(ip: IpAddr) -> Option<Scope> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => of_v4(ip),
        IpAddr::V6(ip) => of_v6(ip),
    }
}

fn of_v4(ip: Ipv4Addr) -> Option<Scope> {
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
    } else {
        let special = match octets {
            // A provider's; for benchmarks; the IETF's own (RFC 6890).
            [100, second, ..] => second & 0xc0 == 64,
            [198, 18 | 19, ..] | [192, 0, 0, _] => true,
            _ => ip.is_private(),
        };
        Some(if special { Scope::Site } else { Scope::World })
    }
}

fn of_v6(ip: Ipv6Addr) -> Option<Scope> {
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(Scope::Machine);
    }
    if ip.is_unicast_link_local() {
        return Some(Scope::Link);
    }
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // NAT64 (RFC 6052), 6to4 (RFC 3056), compatible with IPv4 (RFC 4291, long obsolete).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        // A network's own NAT64 (RFC 8215), unique local, and what was site-local once.
        [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(Scope::Site),
        // For documentation, and Teredo, which hides an IPv4 address.
        [0x2001, 0x0db8 | 0, ..] | [0x3fff, 0..=0x0fff, ..] => None,
        [0x2000..=0x3fff, ..] => Some(Scope::World),
        // Given to nobody (IANA's registry of IPv6 unicast addresses).
        _ => None,
    }
}

/// The view to judge an address by when nobody knows which of several tellers named it: that of the
/// furthest. Without any, the strictest there is.
pub fn furthest(tellers: impl Iterator<Item = Scope>) -> Scope {
    tellers.max().unwrap_or(Scope::World)
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

/// Whether an address that somebody named leads anywhere for this node: a direct one does; one
/// through a relay when this node uses relays and knows that one already, for the way there is a
/// dial, and a connection that stands, of the teller's choice.
#[must_use]
pub fn may_lead(
    address: &Multiaddr,
    circuits: bool,
    known: impl FnOnce(&libp2p::PeerId) -> bool,
) -> bool {
    let leads = |relay| circuits && known(&relay);
    let mut parts = address.iter();
    !parts.any(|part| part == Protocol::P2pCircuit) || relay_of(address).is_some_and(leads)
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
    fn an_address_that_stands_for_another_reaches_as_far_as_that() {
        for (ip, scope) in [
            ("64:ff9b::7f00:1", Some(Scope::Machine)),
            ("64:ff9b::a9fe:a9fe", Some(Scope::Link)),
            ("64:ff9b::808:808", Some(Scope::World)),
            ("64:ff9b:1::1", Some(Scope::Site)),
            ("2002:a00:1::", Some(Scope::Site)),
            ("2002:7f00:1::1", Some(Scope::Machine)),
            ("2002:808:808::1", Some(Scope::World)),
            ("::10.0.0.1", Some(Scope::Site)),
            ("::127.0.0.1", Some(Scope::Machine)),
            ("2001:0:4136:e378::1", None),
            ("fec0::1", Some(Scope::Site)),
            ("100::1", None),
            ("3fff::1", None),
            ("198.18.0.1", Some(Scope::Site)),
            ("198.19.255.1", Some(Scope::Site)),
            ("198.20.0.1", Some(Scope::World)),
            ("192.0.0.8", Some(Scope::Site)),
            ("192.0.1.8", Some(Scope::World)),
        ] {
            assert_eq!(of(ip.parse().unwrap()), scope, "{ip}");
        }
    }

    #[test]
    fn one_far_teller_is_enough_to_be_strict() {
        let all = |scopes: &[Scope]| furthest(scopes.iter().copied());
        assert_eq!(all(&[Scope::Machine, Scope::World]), Scope::World);
        assert_eq!(all(&[Scope::Link, Scope::Machine]), Scope::Link);
        assert_eq!(all(&[]), Scope::World);
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
    fn circuits_lead_through_relays_that_are_known() {
        let (peer, relay) = (libp2p::PeerId::random(), libp2p::PeerId::random());
        let direct = format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}").parse().unwrap();
        let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}");
        let circuit = circuit.parse().unwrap();
        for circuits in [false, true] {
            for known in [false, true] {
                assert!(may_lead(&direct, circuits, |_| known));
                let leads = may_lead(&circuit, circuits, |named| known && *named == relay);
                assert_eq!(leads, circuits && known);
            }
        }
        assert!(!may_lead(&"/p2p-circuit".parse().unwrap(), true, |_| true));
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
