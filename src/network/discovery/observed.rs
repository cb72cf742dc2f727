//! [`Observed`]: identify, of whose word about this node's own address little is taken.
//!
//! A peer tells by identify at which address it sees this node. libp2p hands each such observation
//! to AutoNAT, which has it tried, and to hole punching, which gives it to others as this node's
//! own. Nobody but a member may have a say in that, and a member no endless one: [`Hearsay`]
//! decides, and bounds what either of them keeps. And of one connection only so many messages a
//! minute are handed on at all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    identify,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::scope::{self, Scope};
use crate::{
    network::{convert, gate::Ledger},
    types::Clock,
};

/// Observations in force. AutoNAT keeps each for good, and sorts them all every few seconds.
const MAX_OBSERVED: usize = 32;
/// Of them those of one peer: a few colluding ones must not shut out everybody else. An honest one
/// sees this node at one address, which becomes one for each listener.
const MAX_OF_PEER: usize = 4;
/// For how long an observation is in force: a node that moves is seen elsewhere.
const KEPT: Duration = Duration::from_hours(24);
/// Time between two changes of one connection's observation.
const CHANGE_INTERVAL: Duration = Duration::from_secs(60);
/// Messages of one connection at once; an honest peer sends one at the start, and one more when its
/// own listeners change.
const BURST: u32 = 8;
/// Time in which one more may come.
const REFILL: Duration = Duration::from_secs(10);

/// Which observations are taken. Pure: time is the clock's `elapsed`.
#[derive(Debug)]
pub struct Hearsay {
    /// Whether anybody has a use for them.
    wanted: bool,
    /// Whether private addresses are believed.
    believing: bool,
    /// Connections, as long as they stand.
    connections: HashMap<ConnectionId, Heard>,
    /// What is in force: who said it, and until when. At most [`MAX_OBSERVED`].
    kept: BTreeMap<Multiaddr, (libp2p::PeerId, Duration)>,
    /// Whose observations come next: those of the message just handed on.
    speaking: Option<(libp2p::PeerId, ConnectionId)>,
}

/// What one connection said so far.
#[derive(Debug, Default)]
struct Heard {
    /// Of a member, and direct: through a relay nobody sees this node.
    trusted: bool,
    /// When the messages so far would be over at an even pace.
    until: Duration,
    /// When its observation may change again.
    next: Duration,
}

impl Hearsay {
    /// Nothing was heard. Nothing is taken unless it is `wanted`; private addresses only when
    /// `believing`.
    #[must_use]
    pub fn new(wanted: bool, believing: bool) -> Self {
        Self {
            wanted,
            believing,
            connections: HashMap::new(),
            kept: BTreeMap::new(),
            speaking: None,
        }
    }

    /// A connection is being established; `trusted`: it is a member's, and direct.
    pub fn enter(&mut self, id: ConnectionId, trusted: bool) {
        let heard = Heard {
            trusted,
            ..Heard::default()
        };
        self.connections.insert(id, heard);
    }

    /// A connection is gone, or was not to be.
    pub fn leave(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// A message came; whether it is handed on. What it says of this node's address is asked about
    /// next, with [`Hearsay::may`].
    pub fn message(&mut self, id: ConnectionId, peer: libp2p::PeerId, now: Duration) -> bool {
        self.speaking = None;
        let Some(heard) = self.connections.get_mut(&id) else {
            return false;
        };
        let ahead = REFILL.saturating_mul(BURST.saturating_sub(1));
        if heard.until.saturating_sub(ahead) > now {
            return false;
        }
        heard.until = heard.until.max(now).saturating_add(REFILL);
        if heard.trusted && heard.next <= now {
            self.speaking = Some((peer, id));
        }
        true
    }

    /// Something else happened: no observation of the last message follows.
    pub fn interrupted(&mut self) {
        self.speaking = None;
    }

    /// Whether an observation of the last message is taken.
    pub fn may(&mut self, address: &Multiaddr, now: Duration) -> bool {
        let Some((peer, id)) = self.speaking.filter(|_| self.wanted) else {
            return false;
        };
        let scope = match self.believing {
            true => Scope::Machine,
            false => Scope::World,
        };
        if convert::ip_of(address).is_none() || !scope::is_sane(address, scope) {
            return false;
        }
        if let Some(heard) = self.connections.get_mut(&id) {
            heard.next = now.saturating_add(CHANGE_INTERVAL);
        }
        self.kept.retain(|_, (_, until)| *until > now);
        if self.kept.contains_key(address) {
            return true;
        }
        let all = self.kept.values();
        let told = all.filter(|(teller, _)| *teller == peer).count();
        let room = self.kept.len() < MAX_OBSERVED && told < MAX_OF_PEER;
        if room {
            let until = now.saturating_add(KEPT);
            self.kept.insert(address.clone(), (peer, until));
        }
        room
    }
}

/// See the module.
pub struct Observed {
    inner: identify::Behaviour,
    ledger: Ledger,
    hearsay: Hearsay,
    clock: Arc<dyn Clock>,
}

impl Observed {
    /// `inner`, behind what `hearsay` decides; `ledger` says who is a member.
    #[must_use]
    pub fn new(
        inner: identify::Behaviour,
        ledger: Ledger,
        hearsay: Hearsay,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            inner,
            ledger,
            hearsay,
            clock,
        }
    }

    fn enter(&mut self, id: ConnectionId, remote: &Multiaddr) {
        let trusted = self.ledger.is_member(id) && convert::ip_of(remote).is_some();
        self.hearsay.enter(id, trusted);
    }

    /// An action as the Swarm may have it.
    fn pass(
        &mut self,
        action: ToSwarm<identify::Event, THandlerInEvent<Self>>,
    ) -> Option<ToSwarm<identify::Event, THandlerInEvent<Self>>> {
        let now = self.clock.elapsed();
        // What a message says of this node's address comes right behind it.
        let taken = match &action {
            ToSwarm::GenerateEvent(identify::Event::Received {
                connection_id,
                peer_id,
                ..
            }) => self.hearsay.message(*connection_id, *peer_id, now),
            ToSwarm::NewExternalAddrCandidate(address) => self.hearsay.may(address, now),
            _ => {
                self.hearsay.interrupted();
                true
            }
        };
        taken.then_some(action)
    }
}

impl NetworkBehaviour for Observed {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, remote);
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<libp2p::PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, address);
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(event) => self.hearsay.leave(event.connection_id),
            FromSwarm::ListenFailure(event) => self.hearsay.leave(event.connection_id),
            FromSwarm::DialFailure(event) => self.hearsay.leave(event.connection_id),
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<identify::Event, THandlerInEvent<Self>>> {
        loop {
            let Poll::Ready(action) = self.inner.poll(cx) else {
                return Poll::Pending;
            };
            if let Some(action) = self.pass(action) {
                return Poll::Ready(action);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: &str = "/ip4/8.8.8.8/tcp/4001";

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    /// One message with one observation.
    fn say(hearsay: &mut Hearsay, n: usize, peer: libp2p::PeerId, text: &str, now: u64) -> bool {
        let now = Duration::from_secs(now);
        hearsay.message(id(n), peer, now);
        hearsay.may(&at(text), now)
    }

    #[test]
    fn strangers_and_whoever_comes_through_a_relay_are_not_heard() {
        let peer = libp2p::PeerId::random();
        let mut hearsay = Hearsay::new(true, false);
        hearsay.enter(id(1), true);
        hearsay.enter(id(2), false);
        assert!(!say(&mut hearsay, 2, peer, FAR, 0));
        assert!(!say(&mut hearsay, 3, peer, FAR, 0));
        // Between a member's message and an observation there was somebody else's.
        assert!(hearsay.message(id(1), peer, Duration::ZERO));
        assert!(!say(&mut hearsay, 2, peer, FAR, 0));
        assert!(hearsay.message(id(1), peer, Duration::ZERO));
        hearsay.interrupted();
        assert!(!hearsay.may(&at(FAR), Duration::ZERO));
        assert!(say(&mut hearsay, 1, peer, FAR, 0));
        hearsay.leave(id(1));
        assert!(!say(&mut hearsay, 1, peer, FAR, 1_000));
        // Nobody wants to know.
        let mut hearsay = Hearsay::new(false, true);
        hearsay.enter(id(1), true);
        assert!(!say(&mut hearsay, 1, peer, FAR, 0));
    }

    #[test]
    fn an_observation_that_makes_no_sense_is_not_taken() {
        let peer = libp2p::PeerId::random();
        for (text, believing) in [
            ("/ip4/10.0.0.1/tcp/1", false),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/dns4/example.org/tcp/1", true),
            ("/ip4/224.0.0.1/tcp/1", true),
        ] {
            let mut hearsay = Hearsay::new(true, believing);
            hearsay.enter(id(1), true);
            assert!(!say(&mut hearsay, 1, peer, text, 0), "{text}");
        }
        let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}/p2p-circuit");
        let mut hearsay = Hearsay::new(true, true);
        hearsay.enter(id(1), true);
        assert!(!say(&mut hearsay, 1, peer, &circuit, 0));
        assert!(say(&mut hearsay, 1, peer, "/ip4/10.0.0.1/tcp/1", 0));
    }

    #[test]
    fn a_member_that_sees_this_node_everywhere_is_heard_a_few_times() {
        let mut hearsay = Hearsay::new(true, false);
        let mut taken = 0;
        for n in 0..200_u64 {
            // Many peers, many connections, each with something new once a minute.
            let connection = usize::try_from(n % 50).unwrap();
            let seed = [u8::try_from(n % 50).unwrap(); 32];
            let key = libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap();
            hearsay.enter(id(connection), true);
            let text = format!("/ip4/8.8.8.{n}/tcp/1");
            let peer = key.public().to_peer_id();
            taken += usize::from(say(&mut hearsay, connection, peer, &text, n * 60));
        }
        assert_eq!((taken, hearsay.kept.len()), (MAX_OBSERVED, MAX_OBSERVED));
        // What is known already is nothing new.
        let peer = libp2p::PeerId::random();
        assert!(say(&mut hearsay, 1, peer, "/ip4/8.8.8.0/tcp/1", 13_000));
        // A day later all of it is forgotten, but no peer has more than its share.
        let day = KEPT.as_secs() + 20_000;
        taken = 0;
        for n in 0..100 {
            let text = format!("/ip4/9.9.9.{n}/tcp/1");
            taken += usize::from(say(&mut hearsay, 1, peer, &text, day + n * 60));
        }
        assert_eq!(taken, MAX_OF_PEER);
    }

    #[test]
    fn one_connection_changes_its_mind_once_a_minute_and_is_heard_out_a_few_times() {
        let peer = libp2p::PeerId::random();
        let mut hearsay = Hearsay::new(true, false);
        hearsay.enter(id(1), true);
        assert!(say(&mut hearsay, 1, peer, FAR, 0));
        assert!(!say(&mut hearsay, 1, peer, "/ip4/8.8.4.4/tcp/1", 59));
        assert!(say(&mut hearsay, 1, peer, "/ip4/8.8.4.4/tcp/1", 60));
        let mut hearsay = Hearsay::new(true, false);
        hearsay.enter(id(1), true);
        let mut handed_on = |now| {
            (0..1_000)
                .filter(|_| hearsay.message(id(1), peer, now))
                .count()
        };
        assert_eq!(handed_on(Duration::ZERO), usize::try_from(BURST).unwrap());
        assert_eq!(handed_on(REFILL), 1);
    }
}
