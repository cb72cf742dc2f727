use super::*;
use crate::{
    identity::Tier,
    types::{ChannelKind, Cipher, Group, ManualClock, PeerId, SecurityInfo},
};
use ed25519_dalek::SigningKey;
use libp2p::{
    core::ConnectedPoint,
    swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure},
};

struct Open;

impl Admission for Open {
    fn admit_pending(&self, _: Option<IpAddr>) -> Result<(), &'static str> {
        Ok(())
    }
}

fn behaviour(limits: &LimitsConfig) -> Behaviour {
    let clock = Arc::new(ManualClock::default());
    Behaviour::new(limits, Ledger::default(), Arc::new(Open), clock)
}

fn address(ip: &str) -> Multiaddr {
    let kind = if ip.contains(':') { "ip6" } else { "ip4" };
    format!("/{kind}/{ip}/tcp/4001").parse().unwrap()
}

fn local() -> Multiaddr {
    address("127.0.0.1")
}

/// The Swarm's calls for one inbound connection until its upgrade begins.
fn arrive(behaviour: &mut Behaviour, ip: &str) -> Result<ConnectionId, &'static str> {
    let id = ConnectionId::new_unchecked(rand::random::<u32>() as usize);
    behaviour.ledger.arrive(&local(), &address(ip));
    behaviour
        .handle_pending_inbound_connection(id, &local(), &address(ip))
        .map(|()| id)
        .map_err(|denied| denied.downcast::<Denied>().unwrap().0)
}

fn fail(behaviour: &mut Behaviour, id: ConnectionId, ip: &str) {
    behaviour.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
        local_addr: &local(),
        send_back_addr: &address(ip),
        error: &libp2p::swarm::ListenError::Aborted,
        connection_id: id,
        peer_id: None,
    }));
}

fn peer(n: u8) -> (PeerId, libp2p::PeerId) {
    let ours = PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key());
    (ours, convert::to_libp2p(&ours).unwrap())
}

fn admitted(peer: PeerId) -> Admitted {
    Admitted {
        peer,
        tier: Tier::Member,
        identity: None,
        invitation: None,
        formerly: None,
        rule: "test".to_owned(),
        security: SecurityInfo {
            kind: ChannelKind::Noise,
            group: Group::X25519,
            cipher: Cipher::ChaCha20Poly1305,
        },
        epoch: 0,
    }
}

/// Arrives, passes the gate as `by` says, and is established if it is let in.
fn connect(behaviour: &mut Behaviour, n: u8, record_of: u8) -> Result<ConnectionId, &'static str> {
    let id = ConnectionId::new_unchecked(rand::random::<u32>() as usize);
    let (near, far) = (local(), address("10.0.0.1"));
    let slot = behaviour.ledger.arrive(&near, &far);
    behaviour
        .handle_pending_inbound_connection(id, &near, &far)
        .unwrap();
    slot.set(admitted(peer(record_of).0)).unwrap();
    let outcome = behaviour.handle_established_inbound_connection(id, peer(n).1, &near, &far);
    match outcome {
        Ok(_) => {
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer(n).1,
                connection_id: id,
                endpoint: &endpoint(),
                failed_addresses: &[],
                other_established: 0,
            }));
            Ok(id)
        }
        Err(denied) => {
            fail(behaviour, id, "10.0.0.1");
            Err(denied.downcast::<Denied>().unwrap().0)
        }
    }
}

fn endpoint() -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: local(),
        send_back_addr: address("10.0.0.1"),
    }
}

#[test]
fn one_address_cannot_take_all_the_handshakes() {
    let limits = LimitsConfig {
        pending_connections: 4,
        pending_per_address: 2,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    let first = arrive(&mut node, "10.0.0.1").unwrap();
    arrive(&mut node, "10.0.0.1").unwrap();
    assert_eq!(arrive(&mut node, "10.0.0.1"), Err(PENDING_PER_ADDRESS));
    arrive(&mut node, "2001:db8::1").unwrap();
    arrive(&mut node, "2001:db8::2").unwrap();
    // The table is full for everybody.
    assert_eq!(arrive(&mut node, "10.0.0.2"), Err(PENDING));

    fail(&mut node, first, "10.0.0.1");
    // One host owns its whole /64.
    assert_eq!(arrive(&mut node, "2001:db8::3"), Err(PENDING_PER_ADDRESS));
    arrive(&mut node, "10.0.0.1").unwrap();
    let denied = node.counts().denied;
    assert_eq!((denied[PENDING], denied[PENDING_PER_ADDRESS]), (1, 2));
}

#[test]
fn every_counter_returns_to_zero() {
    let mut node = behaviour(&LimitsConfig::default());
    let pending: Vec<_> = (0..5)
        .map(|_| arrive(&mut node, "10.0.0.1").unwrap())
        .collect();
    let standing = connect(&mut node, 1, 1).unwrap();
    assert_eq!((node.counts().pending, node.counts().inbound), (5, 1));
    assert_eq!(node.admitted(standing), Some(&admitted(peer(1).0)));

    for id in pending {
        fail(&mut node, id, "10.0.0.1");
    }
    node.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer(1).1,
        connection_id: standing,
        endpoint: &endpoint(),
        cause: None,
        remaining_established: 0,
    }));
    assert_eq!(node.counts(), Counts::default());
    assert_eq!(node.ledger.under_way(), 0);
    assert!(node.pending_from.is_empty() && node.per_peer.is_empty());
    assert!(node.entering.is_empty() && node.standing.is_empty());
}

#[test]
fn connections_of_one_peer_and_in_total_are_limited() {
    let limits = LimitsConfig {
        connections: 3,
        connections_per_peer: 2,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    connect(&mut node, 1, 1).unwrap();
    connect(&mut node, 1, 1).unwrap();
    assert_eq!(connect(&mut node, 1, 1), Err(CONNECTIONS_PER_PEER));
    connect(&mut node, 2, 2).unwrap();
    assert_eq!(arrive(&mut node, "10.0.0.3"), Err(CONNECTIONS));
    assert_eq!(node.counts().inbound, 3);
}

#[test]
fn a_record_of_another_peer_or_none_lets_nobody_in() {
    let mut node = behaviour(&LimitsConfig::default());
    assert_eq!(connect(&mut node, 1, 2), Err(NO_RECORD));

    // A connection the gate never saw.
    let id = ConnectionId::new_unchecked(usize::MAX);
    let (near, far) = (local(), address("10.0.0.1"));
    let denied = node
        .handle_established_inbound_connection(id, peer(1).1, &near, &far)
        .err()
        .unwrap();
    assert_eq!(denied.downcast::<Denied>().unwrap(), Denied(NO_RECORD));
    let denied = node
        .handle_established_outbound_connection(id, peer(1).1, &far, Endpoint::Dialer, PortUse::New)
        .err()
        .unwrap();
    assert_eq!(denied.downcast::<Denied>().unwrap(), Denied(NO_RECORD));
}

#[test]
fn racing_dials_of_one_peer_do_not_share_a_record() {
    let mut node = behaviour(&LimitsConfig::default());
    let (ours, theirs) = peer(1);
    let to = address("10.0.0.1");
    let ids = [1, 2].map(ConnectionId::new_unchecked);
    let slots = ids.map(|id| {
        node.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer)
            .unwrap();
        node.ledger.dial(&convert::with_p2p(&to, theirs))
    });
    // Only the second passed the gate.
    slots[1].set(admitted(ours)).unwrap();
    let outcomes = ids.map(|id| {
        node.handle_established_outbound_connection(id, theirs, &to, Endpoint::Dialer, PortUse::New)
            .is_ok()
    });
    assert_eq!(outcomes, [false, true]);
}
