use std::net::IpAddr;

use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use libp2p::core::ConnectedPoint;

use super::*;
use crate::{
    audit::Direction,
    identity::{Channel, Refusal, Role},
    network::{Admitted, Presented},
    types::{ManualClock, PeerId, SecurityInfo},
};

/// Bars one peer and one address.
struct Keeper(PeerId, IpAddr);

impl GateKeeper for Keeper {
    fn own_frame(&self, _: &Channel, _: Role) -> Arc<[u8]> {
        Arc::from([])
    }

    fn precheck(&self, peer: &PeerId, ip: Option<IpAddr>) -> Result<(), Refusal> {
        if *peer == self.0 || ip == Some(self.1) {
            return Err(Refusal::CoolingDown);
        }
        Ok(())
    }

    fn judge(&self, _: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        Box::pin(futures::future::err(Refusal::CoolingDown))
    }

    fn judge_open(
        &self,
        _: PeerId,
        _: Option<IpAddr>,
        _: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        Box::pin(futures::future::err(Refusal::CoolingDown))
    }

    fn refused(&self, _: &PeerId, _: Option<IpAddr>, _: Direction, _: &Refusal) {}
}

fn peer(n: u8) -> (PeerId, libp2p::PeerId) {
    let ours = PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key());
    (ours, convert::to_libp2p(&ours).unwrap())
}

fn dials(believing: bool) -> (Dials, DialBook) {
    let book = DialBook::default();
    let keeper = Arc::new(Keeper(peer(1).0, [8, 8, 4, 4].into()));
    let configured = HashSet::from([peer(7).1]);
    (
        Dials::new(
            keeper,
            book.clone(),
            configured,
            believing,
            Arc::new(ManualClock::default()),
        ),
        book,
    )
}

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// Whether a dial to a peer is let out.
fn ask(
    (dials, book): &mut (Dials, DialBook),
    purpose: Option<Purpose>,
    who: u8,
    address: &str,
) -> bool {
    let id = ConnectionId::new_unchecked(usize::from(who));
    if let Some(purpose) = purpose {
        book.note(id, purpose);
    }
    let addresses = [at(address)];
    dials
        .handle_pending_outbound_connection(id, Some(peer(who).1), &addresses, Endpoint::Dialer)
        .is_ok()
}

#[test]
fn who_is_banned_is_not_dialled_whatever_it_is_for() {
    let mut house = dials(true);
    let good = "/ip4/8.8.8.8/tcp/1";
    let through = format!("/ip4/8.8.4.4/tcp/1/p2p/{}/p2p-circuit", peer(9).1);
    for purpose in [None, Some(Purpose::Punch), Some(Purpose::Relay)] {
        assert!(ask(&mut house, purpose, 2, good));
        assert!(!ask(&mut house, purpose, 1, good));
        assert!(!ask(&mut house, purpose, 2, "/ip4/8.8.4.4/tcp/1"));
        assert!(!ask(&mut house, purpose, 2, &through));
    }
    assert_eq!(house.0.take_refused(), 9);
    assert_eq!(house.0.take_refused(), 0);
}

#[test]
fn a_probe_goes_where_the_peer_is_and_nowhere_else() {
    let mut house = dials(true);
    let probe = Some(Purpose::Probe);
    assert!(!ask(&mut house, probe, 2, "/ip4/10.0.0.2/tcp/1"));
    let endpoint = ConnectedPoint::Listener {
        local_addr: at("/ip4/10.0.0.1/tcp/1"),
        send_back_addr: at("/ip4/10.0.0.2/tcp/999"),
    };
    let event = libp2p::swarm::behaviour::ConnectionEstablished {
        peer_id: peer(2).1,
        connection_id: ConnectionId::new_unchecked(50),
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    };
    house
        .0
        .on_swarm_event(FromSwarm::ConnectionEstablished(event));
    assert!(ask(&mut house, probe, 2, "/ip4/10.0.0.2/tcp/1"));
    // Another peer's address, another peer, a name, a circuit.
    assert!(!ask(&mut house, probe, 2, "/ip4/10.0.0.3/tcp/1"));
    assert!(!ask(&mut house, probe, 3, "/ip4/10.0.0.2/tcp/1"));
    assert!(!ask(&mut house, probe, 2, "/dns4/example.org/tcp/1"));
    let circuit = format!("/ip4/10.0.0.2/tcp/1/p2p/{}/p2p-circuit", peer(9).1);
    assert!(!ask(&mut house, probe, 2, &circuit));
    let closed = libp2p::swarm::behaviour::ConnectionClosed {
        peer_id: peer(2).1,
        connection_id: ConnectionId::new_unchecked(50),
        endpoint: &endpoint,
        cause: None,
        remaining_established: 0,
    };
    house.0.on_swarm_event(FromSwarm::ConnectionClosed(closed));
    assert!(!ask(&mut house, probe, 2, "/ip4/10.0.0.2/tcp/1"));
    assert!(house.0.from.is_empty());
}

#[test]
fn holes_are_punched_at_direct_addresses_that_make_sense() {
    let punch = Some(Purpose::Punch);
    let mut house = dials(false);
    assert!(ask(&mut house, punch, 2, "/ip4/8.8.8.8/tcp/1"));
    assert!(!ask(&mut house, punch, 2, "/ip4/127.0.0.1/tcp/1"));
    assert!(!ask(&mut house, punch, 2, "/ip4/192.168.1.1/tcp/1"));
    let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{}/p2p-circuit", peer(9).1);
    assert!(!ask(&mut house, punch, 2, &circuit));
    let mut house = dials(true);
    assert!(ask(&mut house, punch, 2, "/ip4/127.0.0.1/tcp/1"));
    // The way to a relay: the operator's, or a sane one.
    let relay = Some(Purpose::Relay);
    let mut house = dials(false);
    assert!(ask(&mut house, relay, 7, "/ip4/127.0.0.1/tcp/1"));
    assert!(!ask(&mut house, relay, 8, "/ip4/127.0.0.1/tcp/1"));
    // What this node wants itself asks nobody's leave.
    assert!(ask(&mut house, None, 8, "/ip4/127.0.0.1/tcp/1"));
}

#[test]
fn a_note_is_for_one_dial() {
    let (mut dials, book) = dials(false);
    let id = |n| ConnectionId::new_unchecked(n);
    book.note(id(1), Purpose::Punch);
    let private = [at("/ip4/10.0.0.1/tcp/1")];
    let mut dial = |n| {
        dials
            .handle_pending_outbound_connection(id(n), Some(peer(2).1), &private, Endpoint::Dialer)
            .is_ok()
    };
    assert!(dial(2));
    assert!(!dial(1));
    assert!(dial(1));
}

/// What the Swarm tells of a dial that came to nothing.
fn failed(dials: &mut Dials, n: usize) {
    let event = libp2p::swarm::DialFailure {
        peer_id: None,
        error: &libp2p::swarm::DialError::Aborted,
        connection_id: ConnectionId::new_unchecked(n),
    };
    dials.on_swarm_event(FromSwarm::DialFailure(event));
}

#[test]
fn a_peer_that_asks_for_one_dial_after_another_gets_a_few() {
    let (mut dials, book) = dials(false);
    let mut dial = |n, who, purpose: Option<Purpose>, addresses: &[Multiaddr]| {
        let id = ConnectionId::new_unchecked(n);
        if let Some(purpose) = purpose {
            book.note(id, purpose);
        }
        let peer = Some(peer(who).1);
        let good = dials.handle_pending_outbound_connection(id, peer, addresses, Endpoint::Dialer);
        failed(&mut dials, n);
        good.is_ok()
    };
    let victim = [at("/ip4/8.8.8.8/tcp/1")];
    let mut made = |who, purpose| (0..100).filter(|n| dial(*n, who, purpose, &victim)).count();
    assert_eq!(made(2, Some(Purpose::Punch)), 3);
    assert_eq!(made(3, Some(Purpose::Punch)), 3);
    assert_eq!(made(3, Some(Purpose::Relay)), 4);
    // The operator's relay, and what this node wants itself.
    assert_eq!(made(7, Some(Purpose::Relay)), 100);
    assert_eq!(made(2, None), 100);
    // One punch, many victims.
    let many: Vec<_> = (1..=3)
        .map(|n| at(&format!("/ip4/8.8.8.{n}/tcp/1")))
        .collect();
    assert!(!dial(1, 4, Some(Purpose::Punch), &many));
    assert!(dial(1, 4, Some(Purpose::Punch), &many[..2]));
}

#[test]
fn peers_together_cause_so_many_dials_at_once() {
    let (mut dials, book) = dials(false);
    let address = [at("/ip4/8.8.8.8/tcp/1")];
    let dial = |dials: &mut Dials, n: u8| {
        let id = ConnectionId::new_unchecked(usize::from(n));
        book.note(id, Purpose::Punch);
        let peer = Some(peer(n).1);
        dials
            .handle_pending_outbound_connection(id, peer, &address, Endpoint::Dialer)
            .is_ok()
    };
    let made = (10..100).filter(|n| dial(&mut dials, *n)).count();
    assert_eq!(made, 16);
    failed(&mut dials, 10);
    assert!(dial(&mut dials, 100));
    assert!(!dial(&mut dials, 101));
}

#[test]
fn nobodys_ports_here_are_tried_for_a_peer_that_is_here_too() {
    let mut house = dials(false);
    let endpoint = ConnectedPoint::Listener {
        local_addr: at("/ip4/127.0.0.1/tcp/1"),
        send_back_addr: at("/ip4/127.0.0.1/tcp/999"),
    };
    let event = libp2p::swarm::behaviour::ConnectionEstablished {
        peer_id: peer(2).1,
        connection_id: ConnectionId::new_unchecked(50),
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    };
    house
        .0
        .on_swarm_event(FromSwarm::ConnectionEstablished(event));
    let probe = Some(Purpose::Probe);
    assert!(!ask(&mut house, probe, 2, "/ip4/127.0.0.1/tcp/22"));
}
