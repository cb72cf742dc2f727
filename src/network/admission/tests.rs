use super::*;
use crate::types::{ChannelKind, Cipher, Group, ManualClock, PeerId, SecurityInfo};
use ed25519_dalek::SigningKey;
use libp2p::{
    core::ConnectedPoint,
    swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure},
};

struct Open;

impl Admission for Open {
    fn admit_pending(&self, _: Source, _: bool) -> Result<(), &'static str> {
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

#[test]
fn forged_addresses_of_quic_leave_half_of_the_handshakes_to_others() {
    let limits = LimitsConfig {
        pending_connections: 8,
        ..LimitsConfig::default()
    };
    let mut behaviour = behaviour(&limits);
    let quic = |n: u8| -> Multiaddr { format!("/ip4/198.51.{n}.1/udp/9/quic-v1").parse().unwrap() };
    let mut forged = |n: u8| {
        let id = ConnectionId::new_unchecked(usize::from(n));
        let source = convert::source_of(&local(), &quic(n));
        assert_eq!((source.ip(), source.is_unvalidated()), (None, true));
        let checked = behaviour.check_pending(source);
        if checked.is_ok() {
            behaviour.pending.begin(id, source);
        }
        checked
    };
    let outcomes: Vec<_> = (1..=6).map(&mut forged).collect();
    let (let_in, denied) = outcomes.split_at(4);
    assert!(let_in.iter().all(Result::is_ok));
    assert!(
        denied
            .iter()
            .all(|denied| *denied == Err(PENDING_UNVALIDATED))
    );
    // A quarter more is for hosts that are known.
    for n in 1..=2 {
        arrive(&mut behaviour, &format!("198.51.{n}.1")).unwrap();
    }
    assert_eq!(arrive(&mut behaviour, "198.51.3.1"), Err(PENDING));
    for n in 1..=4 {
        behaviour.pending.settle(ConnectionId::new_unchecked(n));
    }
    assert_eq!(behaviour.pending.unvalidated(), 0);
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
    connect_from(behaviour, n, "10.0.0.1", admitted(peer(record_of).0))
}

/// The same from this address, let in as this.
fn connect_from(
    behaviour: &mut Behaviour,
    n: u8,
    from: &str,
    admitted: Admitted,
) -> Result<ConnectionId, &'static str> {
    let id = ConnectionId::new_unchecked(rand::random::<u32>() as usize);
    let (near, far) = (local(), address(from));
    let slot = behaviour.ledger.arrive(&near, &far);
    behaviour
        .handle_pending_inbound_connection(id, &near, &far)
        .map_err(|denied| denied.downcast::<Denied>().unwrap().0)?;
    slot.set(admitted).unwrap();
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
            fail(behaviour, id, from);
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
        pending_connections: 5,
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
fn one_subnet_cannot_take_all_the_handshakes_by_rotating_its_addresses() {
    let limits = LimitsConfig {
        pending_per_address: 2,
        pending_per_subnet: 3,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    let first = arrive(&mut node, "10.0.0.1").unwrap();
    arrive(&mut node, "10.0.0.2").unwrap();
    arrive(&mut node, "::ffff:10.0.0.3").unwrap();
    assert_eq!(arrive(&mut node, "10.0.0.4"), Err(PENDING_PER_SUBNET));
    arrive(&mut node, "10.0.1.4").unwrap();
    // A /48 is one customer, whatever /64 of it is used.
    for n in 1..=3 {
        arrive(&mut node, &format!("2001:db8:1:{n}::1")).unwrap();
    }
    assert_eq!(
        arrive(&mut node, "2001:db8:1:9::1"),
        Err(PENDING_PER_SUBNET)
    );
    fail(&mut node, first, "10.0.0.1");
    arrive(&mut node, "10.0.0.4").unwrap();
}

/// An inbound circuit over the relay with this number.
fn relayed(behaviour: &mut Behaviour, relay: u8, n: u8) -> Result<ConnectionId, &'static str> {
    let id = ConnectionId::new_unchecked(rand::random::<u32>() as usize);
    let relay = convert::with_p2p(&address("192.0.2.1"), peer(relay).1);
    let near: Multiaddr = relay.with(multiaddr::Protocol::P2pCircuit);
    let far: Multiaddr = format!("/p2p/{}", peer(n).1).parse().unwrap();
    behaviour.ledger.arrive(&near, &far);
    behaviour
        .handle_pending_inbound_connection(id, &near, &far)
        .map(|()| id)
        .map_err(|denied| denied.downcast::<Denied>().unwrap().0)
}

#[test]
fn circuits_count_for_their_relay_and_for_nobody_else() {
    let limits = LimitsConfig {
        pending_per_address: 2,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    relayed(&mut node, 1, 11).unwrap();
    relayed(&mut node, 1, 12).unwrap();
    assert_eq!(relayed(&mut node, 1, 13), Err(PENDING_PER_ADDRESS));
    // Another relay, and the address the relay itself has.
    relayed(&mut node, 2, 13).unwrap();
    arrive(&mut node, "192.0.2.1").unwrap();
}

/// Memory as a test says.
#[derive(Default)]
struct Told(std::sync::Mutex<(Option<u64>, usize)>);

impl Memory for Told {
    fn used(&self) -> Option<u64> {
        let mut told = self.0.lock().unwrap();
        told.1 += 1;
        told.0
    }
}

#[test]
fn too_much_memory_keeps_new_connections_out_until_there_is_room_again() {
    let clock = ManualClock::default();
    let told = Arc::new(Told::default());
    let tell = |used| told.0.lock().unwrap().0 = used;
    let looks = || told.0.lock().unwrap().1;
    let limits = LimitsConfig::default();
    let admission = Arc::new(Open);
    let mut node = Behaviour::new(
        &limits,
        Ledger::default(),
        admission,
        Arc::new(clock.clone()),
    )
    .measuring(told.clone(), 1_000);
    tell(Some(999));
    for _ in 0..20 {
        arrive(&mut node, "10.0.0.1").unwrap();
    }
    assert_eq!(looks(), 1);

    tell(Some(1_000));
    clock.advance(std::time::Duration::from_millis(100));
    assert_eq!(arrive(&mut node, "10.0.0.2"), Err(MEMORY));
    let id = ConnectionId::new_unchecked(7);
    let dial = node.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer);
    let denied = dial.unwrap_err().downcast::<Denied>().unwrap();
    assert_eq!((denied, looks()), (Denied(MEMORY), 2));

    // What cannot be told is too much.
    tell(None);
    clock.advance(std::time::Duration::from_millis(100));
    assert_eq!(arrive(&mut node, "10.0.0.2"), Err(MEMORY));
    tell(Some(10));
    clock.advance(std::time::Duration::from_millis(100));
    arrive(&mut node, "10.0.0.2").unwrap();
    assert_eq!(node.counts().memory, 10);
}

#[test]
fn a_crowd_of_inbound_peers_leaves_room_for_dials() {
    let limits = LimitsConfig {
        connections: 3,
        inbound_connections: 2,
        outbound_connections: 1,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    connect(&mut node, 1, 1).unwrap();
    connect(&mut node, 2, 2).unwrap();
    assert_eq!(arrive(&mut node, "10.0.0.3"), Err(INBOUND));
    dialled(&mut node, 3).unwrap();
    assert_eq!(dialled(&mut node, 4), Err(OUTBOUND));
    assert_eq!((node.counts().inbound, node.counts().outbound), (2, 1));
}

/// Dials a peer that passes the gate.
fn dialled(node: &mut Behaviour, n: u8) -> Result<(), &'static str> {
    let id = ConnectionId::new_unchecked(rand::random::<u32>() as usize);
    let (to, (ours, theirs)) = (address("10.0.0.9"), peer(n));
    let reason = |denied: ConnectionDenied| denied.downcast::<Denied>().unwrap().0;
    node.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer)
        .map_err(reason)?;
    node.ledger
        .dial(&convert::with_p2p(&to, theirs))
        .set(admitted(ours))
        .unwrap();
    node.handle_established_outbound_connection(id, theirs, &to, Endpoint::Dialer, PortUse::New)
        .map_err(reason)?;
    node.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: theirs,
        connection_id: id,
        endpoint: &ConnectedPoint::Dialer {
            address: to,
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        },
        failed_addresses: &[],
        other_established: 0,
    }));
    Ok(())
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
    let memory = node.counts().memory;
    let none = Counts {
        memory,
        ..Counts::default()
    };
    assert_eq!(node.counts(), none);
    assert_eq!(node.ledger.under_way(), 0);
    assert!(node.pending.is_empty() && node.per_peer.is_empty());
    assert!(node.hosts.is_empty() && node.subnets.is_empty());
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

fn stranger(n: u8) -> Admitted {
    Admitted {
        tier: Tier::Unverified,
        ..admitted(peer(n).0)
    }
}

fn leave(node: &mut Behaviour, n: u8, id: ConnectionId) {
    node.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer(n).1,
        connection_id: id,
        endpoint: &endpoint(),
        cause: None,
        remaining_established: 0,
    }));
}

#[test]
fn one_host_and_one_subnet_hold_no_more_than_their_share() {
    let limits = LimitsConfig {
        connections_per_address: 3,
        connections_per_subnet: 5,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    let mut come = |n: u8, from: &str| connect_from(&mut node, n, from, stranger(n));
    let first = come(1, "10.0.0.1").unwrap();
    come(2, "10.0.0.1").unwrap();
    come(3, "::ffff:10.0.0.1").unwrap();
    // A new key makes no new host.
    assert_eq!(come(4, "10.0.0.1"), Err(CONNECTIONS_PER_ADDRESS));
    come(5, "10.0.0.2").unwrap();
    come(6, "10.0.0.3").unwrap();
    assert_eq!(come(7, "10.0.0.4"), Err(CONNECTIONS_PER_SUBNET));
    come(8, "10.0.1.1").unwrap();
    // IPv6: a /64 is one host, a /48 one subnet.
    for n in 9..=11 {
        come(n, &format!("2001:db8:1:1::{n}")).unwrap();
    }
    assert_eq!(come(12, "2001:db8:1:1::c"), Err(CONNECTIONS_PER_ADDRESS));
    come(13, "2001:db8:1:2::1").unwrap();
    come(14, "2001:db8:1:3::1").unwrap();
    assert_eq!(come(15, "2001:db8:1:4::1"), Err(CONNECTIONS_PER_SUBNET));
    assert_eq!(node.most_of_a_place(), (3, 5));
    leave(&mut node, 1, first);
    connect_from(&mut node, 16, "10.0.0.1", stranger(16)).unwrap();
}

#[test]
fn handshakes_that_race_end_within_the_share_of_their_host() {
    let limits = LimitsConfig {
        connections_per_address: 1,
        ..LimitsConfig::default()
    };
    let mut node = behaviour(&limits);
    let (near, far) = (local(), address("10.0.0.1"));
    let ids = [1, 2].map(ConnectionId::new_unchecked);
    let slots = ids.map(|id| {
        let slot = node.ledger.arrive(&near, &far);
        node.handle_pending_inbound_connection(id, &near, &far)
            .unwrap();
        slot
    });
    let outcomes: Vec<_> = [(1, ids[0], &slots[0]), (2, ids[1], &slots[1])]
        .into_iter()
        .map(|(n, id, slot)| {
            slot.set(admitted(peer(n).0)).unwrap();
            let entered = node.handle_established_inbound_connection(id, peer(n).1, &near, &far);
            node.established(id, peer(n).1, Direction::Inbound);
            entered
                .map(drop)
                .map_err(|denied| denied.downcast().unwrap())
        })
        .collect();
    assert_eq!(outcomes, [Ok(()), Err(Denied(CONNECTIONS_PER_ADDRESS))]);
}

/// Exempts one network, and remembers who was said to be known.
#[derive(Default)]
struct Favouring(std::sync::Mutex<Vec<bool>>);

impl Admission for Favouring {
    fn admit_pending(&self, _: Source, known: bool) -> Result<(), &'static str> {
        self.0.lock().unwrap().push(known);
        Ok(())
    }

    fn is_exempt(&self, source: Source) -> bool {
        source.ip() == Some(IpAddr::from([192, 168, 0, 1]))
    }
}

#[test]
fn hosts_of_members_and_exempt_networks_find_a_place_when_strangers_took_theirs() {
    let limits = LimitsConfig {
        pending_connections: 8,
        connections_per_address: 1,
        ..LimitsConfig::default()
    };
    let clock = ManualClock::default();
    let asked = Arc::new(Favouring::default());
    let mut node = Behaviour::new(
        &limits,
        Ledger::default(),
        asked.clone(),
        Arc::new(clock.clone()),
    );
    let member = connect_from(&mut node, 1, "10.0.0.1", admitted(peer(1).0)).unwrap();
    leave(&mut node, 1, member);
    let once = connect_from(&mut node, 2, "10.0.1.1", stranger(2)).unwrap();
    leave(&mut node, 2, once);
    // Silent strangers from everywhere, as many as are heard.
    for n in 0..6 {
        arrive(&mut node, &format!("198.51.{n}.1")).unwrap();
    }
    assert_eq!(arrive(&mut node, "198.51.9.1"), Err(PENDING));
    // Having been let in as a stranger is worth nothing: keys are free.
    assert_eq!(arrive(&mut node, "10.0.1.1"), Err(PENDING));
    let back = connect_from(&mut node, 1, "10.0.0.1", admitted(peer(1).0)).unwrap();
    assert_eq!(asked.0.lock().unwrap().last(), Some(&true));
    leave(&mut node, 1, back);
    // The operator's own networks have no share to keep to either.
    for n in 3..=5 {
        connect_from(&mut node, n, "192.168.0.1", admitted(peer(n).0)).unwrap();
    }
    // An hour later nobody is owed anything.
    clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(arrive(&mut node, "10.0.0.1"), Err(PENDING));
}

#[test]
fn while_memory_is_over_its_limit_strangers_are_closed_newest_first() {
    let clock = ManualClock::default();
    let told = Arc::new(Told::default());
    let tell = |used| told.0.lock().unwrap().0 = Some(used);
    let mut node = Behaviour::new(
        &LimitsConfig::default(),
        Ledger::default(),
        Arc::new(Open),
        Arc::new(clock.clone()),
    )
    .measuring(told.clone(), 1_000);
    tell(999);
    let mut strangers = Vec::new();
    for n in 1..=16 {
        let from = format!("10.{n}.0.1");
        strangers.push(connect_from(&mut node, n, &from, stranger(n)).unwrap());
    }
    let member = connect_from(&mut node, 20, "10.0.0.1", admitted(peer(20).0)).unwrap();
    assert!(node.shed().is_empty());

    // They fill their buffers after they were let in.
    tell(1_000);
    let mut n = 16;
    let mut rounds = 0;
    while n > 0 {
        clock.advance(std::time::Duration::from_secs(1));
        for id in node.shed() {
            assert_eq!(Some(id), strangers.pop());
            leave(&mut node, n, id);
            n -= 1;
        }
        rounds += 1;
        assert!(rounds <= 16);
    }
    // The member stays while memory does not grow, though it does not fall either.
    clock.advance(std::time::Duration::from_secs(1));
    assert!(node.shed().is_empty());
    tell(1_001);
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(node.shed(), [member]);
    assert_eq!(node.counts().denied[SHED], 17);
    tell(10);
    clock.advance(std::time::Duration::from_secs(1));
    assert!(node.shed().is_empty());
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
