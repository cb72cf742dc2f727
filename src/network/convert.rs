//! Between libp2p's words and this node's: peer ids, addresses, text that is safe to log.
//!
//! Pure. Everything that comes from a peer is bounded and escaped before it may reach a log.

use std::{cell::RefCell, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::types::{PeerId, PeerIdError, Source};

/// libp2p's form of a peer id.
///
/// # Errors
/// Never for a [`PeerId`] that exists: its 38 bytes are an identity multihash. Kept as an error
/// so that nothing here can panic.
pub fn to_libp2p(peer: &PeerId) -> Result<libp2p::PeerId, PeerIdError> {
    libp2p::PeerId::from_bytes(&peer.to_bytes()).map_err(|_| PeerIdError::NotEd25519)
}

/// Peers whose keys this thread has checked: a check takes as long as everything else that is done
/// about a small message. A power of two.
const CHECKED: usize = 1_024;

thread_local! {
    /// Each peer has one place, given by its key. Who shares one with another by bad luck or on
    /// purpose is checked each time, as everybody was before.
    static KNOWN: RefCell<Vec<Option<(libp2p::PeerId, PeerId)>>> = const { RefCell::new(Vec::new()) };
}

/// This node's form of a peer id; only Ed25519 keys have one.
///
/// # Errors
/// [`PeerIdError`] for every other key, and for weak ones.
pub fn from_libp2p(peer: &libp2p::PeerId) -> Result<PeerId, PeerIdError> {
    let place = match peer.as_ref().digest() {
        [.., a, b] => usize::from(u16::from_be_bytes([*a, *b])) % CHECKED,
        _ => return Err(PeerIdError::NotEd25519),
    };
    KNOWN.with_borrow_mut(|known| {
        known.resize(CHECKED, None);
        match known.get_mut(place) {
            Some(Some((checked, ours))) if checked == peer => Ok(*ours),
            slot => {
                let ours = PeerId::from_bytes(&peer.to_bytes())?;
                if let Some(slot) = slot {
                    *slot = Some((*peer, ours));
                }
                Ok(ours)
            }
        }
    })
}

/// The IP address a connection comes from or goes to, IPv4-mapped addresses unmapped.
///
/// `None` for a relayed address (the IP would be the relay's) and for what has no IP.
#[must_use]
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
    let ip = match address.iter().next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    (!relayed).then(|| ip.to_canonical())
}

/// Whether an address is one of QUIC's.
#[must_use]
pub fn is_quic(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    parts.any(|part| matches!(part, Protocol::QuicV1 | Protocol::Quic))
}

/// Whom an inbound connection counts for: its address, or the relay it comes over, which
/// stands before `/p2p-circuit` in the local address.
#[must_use]
pub fn source_of(local: &Multiaddr, remote: &Multiaddr) -> Source {
    if let Some(ip) = ip_of(remote) {
        // QUIC: the handshake has not shown yet that the peer receives what is sent there.
        return if is_quic(remote) {
            Source::Unvalidated(ip)
        } else {
            Source::Address(ip)
        };
    }
    let mut relay = None;
    for part in local {
        match part {
            Protocol::P2p(peer) => relay = Some(peer),
            Protocol::P2pCircuit => {
                let relay = relay.and_then(|relay| from_libp2p(&relay).ok());
                return relay.map_or(Source::Unknown, Source::Relay);
            }
            _ => {}
        }
    }
    Source::Unknown
}

/// The address without a trailing `/p2p/PEER`, and that peer.
#[must_use]
pub fn split_p2p(address: &Multiaddr) -> (Multiaddr, Option<libp2p::PeerId>) {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(peer)) => (rest, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// The address ending in `/p2p/PEER`, whatever it ended in before.
#[must_use]
pub fn with_p2p(address: &Multiaddr, peer: libp2p::PeerId) -> Multiaddr {
    split_p2p(address).0.with(Protocol::P2p(peer))
}

/// Text of a peer made safe to log: at most `max` characters, control characters escaped.
#[must_use]
pub fn loggable(text: &str, max: usize) -> String {
    let mut out: String = text
        .chars()
        .take(max)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn peer_ids_survive_both_ways(seed: [u8; 32]) {
            let ours = PeerId::from(&SigningKey::from_bytes(&seed).verifying_key());
            let theirs = to_libp2p(&ours).unwrap();
            prop_assert_eq!(theirs.to_string(), ours.to_string());
            prop_assert_eq!(from_libp2p(&theirs).unwrap(), ours);
            let key = libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap();
            prop_assert_eq!(key.public().to_peer_id(), theirs);
        }

        #[test]
        fn logged_text_is_bounded_and_printable(text: String, max in 0usize..64) {
            let out = loggable(&text, max);
            prop_assert!(!out.chars().any(char::is_control));
            // escape_debug writes at most ten characters for one (`\u{10ffff}`).
            prop_assert!(out.chars().count() <= max * 10 + 1);
        }
    }

    #[test]
    fn peers_that_share_a_place_are_told_apart() {
        let mut places = std::collections::HashMap::new();
        let mut seeds = (0_u32..).map(|n| {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            PeerId::from(&SigningKey::from_bytes(&seed).verifying_key())
        });
        let (one, two) = seeds
            .find_map(|peer| {
                let [.., a, b] = peer.key_bytes();
                let place = usize::from(u16::from_be_bytes([a, b])) % CHECKED;
                places.insert(place, peer).map(|other| (other, peer))
            })
            .unwrap();
        for peer in [one, two, one, one, two] {
            assert_eq!(from_libp2p(&to_libp2p(&peer).unwrap()), Ok(peer));
        }
    }

    #[test]
    fn only_direct_addresses_have_an_ip() {
        let ip = |text: &str| ip_of(&text.parse().unwrap());
        assert_eq!(ip("/ip4/10.0.0.1/tcp/1"), Some([10, 0, 0, 1].into()));
        let mapped = ip("/ip6/::ffff:10.0.0.1/tcp/1");
        assert_eq!(mapped, Some([10, 0, 0, 1].into()));
        assert_eq!(ip("/dns4/example.org/tcp/1"), None);
        let peer = libp2p::PeerId::random();
        assert_eq!(
            ip(&format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit")),
            None
        );
    }

    #[test]
    fn the_peer_is_split_off_and_put_back() {
        let peer = libp2p::PeerId::random();
        let bare: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let full = with_p2p(&bare, peer);
        assert_eq!(split_p2p(&full), (bare.clone(), Some(peer)));
        assert_eq!(split_p2p(&bare), (bare, None));
        assert_eq!(with_p2p(&full, peer), full);
    }
}
