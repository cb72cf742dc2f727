//! [`Dials`]: asked about every dial of this node, by whichever behaviour it is wanted.
//!
//! Second in the node's behaviour. It knows from [`DialBook`] what a dial is for: a behaviour whose
//! dials go to addresses that a peer chose notes that before the Swarm takes the dial up, which it
//! does in the same call. What is not noted is the node's own will. Fails closed: a dial that
//! cannot be judged is not made.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{
    Allowance, MAX_ADDRESSES,
    scope::{self, Scope},
};
use crate::{
    network::{admission::Denied, convert, gate::GateKeeper},
    types::Clock,
};

/// What a dial is for that a peer has a hand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Trying for a peer whether it can be reached: at the address it comes from, nowhere else.
    Probe,
    /// A hole punch: the peer at the other end of a circuit chose the addresses.
    Punch,
    /// The way to a relay, for a circuit or a place.
    Relay,
}

/// IP addresses that one hole punch may go to: of both families, or of two lines. Eight ports of as
/// many victims would be a flood on somebody else's word.
const MAX_PUNCHED: usize = 2;
/// A dial that was refused here.
const REFUSED: &str = "dial_refused";

/// What the next dial is for. Shared by the behaviours of one Swarm.
#[derive(Debug, Clone, Default)]
pub struct DialBook(Arc<Mutex<Option<(ConnectionId, Purpose)>>>);

impl DialBook {
    /// The Swarm is about to take up this dial.
    pub fn note(&self, id: ConnectionId, purpose: Purpose) {
        // One value, replaced as a whole.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, purpose));
    }

    fn take(&self, id: ConnectionId) -> Option<Purpose> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.take_if(|(noted, _)| *noted == id).map(|(_, p)| p)
    }
}

/// See the module.
pub struct Dials {
    keeper: Arc<dyn GateKeeper>,
    book: DialBook,
    /// Whose addresses the operator wrote down.
    configured: HashSet<libp2p::PeerId>,
    /// Whether private addresses are believed whoever tells them.
    believing: bool,
    /// Where peers are connected from, relayed connections left out.
    from: HashMap<libp2p::PeerId, HashMap<ConnectionId, IpAddr>>,
    allowance: Allowance,
    clock: Arc<dyn Clock>,
    refused: u64,
}

impl Dials {
    /// Judges dials by what `keeper` says of peers and addresses, by what they are for, and by how
    /// many there were.
    #[must_use]
    pub fn new(
        keeper: Arc<dyn GateKeeper>,
        book: DialBook,
        configured: HashSet<libp2p::PeerId>,
        believing: bool,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            keeper,
            book,
            configured,
            believing,
            from: HashMap::new(),
            allowance: Allowance::default(),
            clock,
            refused: 0,
        }
    }

    /// Dials refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn may(
        &self,
        purpose: Option<Purpose>,
        peer: Option<libp2p::PeerId>,
        addresses: &[Multiaddr],
    ) -> bool {
        let ours = peer.and_then(|peer| convert::from_libp2p(&peer).ok());
        if let Some(ours) = &ours {
            // Before any address is looked at: the peer may be banned itself.
            let barred = |ip| self.keeper.precheck(ours, ip).is_err();
            let mut ips = addresses.iter().map(scope::first_ip);
            if barred(None) || ips.any(|ip| ip.is_some() && barred(ip)) {
                return false;
            }
        }
        let Some(purpose) = purpose else {
            return true;
        };
        let Some(peer) = peer.filter(|_| ours.is_some() && addresses.len() <= MAX_ADDRESSES) else {
            return false;
        };
        let teller = match self.believing {
            true => Scope::Machine,
            false => Scope::World,
        };
        match purpose {
            Purpose::Probe => {
                let from = self.from.get(&peer);
                let known = |ip| from.is_some_and(|all| all.values().any(|one| *one == ip));
                // Whoever comes from this machine or this network may share the address with
                // others, whose ports are no business of its.
                let sane = |one| scope::is_sane(one, teller);
                !addresses.is_empty()
                    && addresses
                        .iter()
                        .all(|one| sane(one) && convert::ip_of(one).is_some_and(known))
            }
            Purpose::Punch => {
                let sane = |one| convert::ip_of(one).is_some() && scope::is_sane(one, teller);
                let ips: HashSet<_> = addresses.iter().map(scope::first_ip).collect();
                addresses.iter().all(sane) && ips.len() <= MAX_PUNCHED
            }
            Purpose::Relay => {
                self.configured.contains(&peer)
                    || addresses.iter().all(|one| scope::is_sane(one, teller))
            }
        }
    }
}

impl Dials {
    /// Counts a dial that a peer has a hand in; whether it is within what there may be.
    fn counts(
        &mut self,
        id: ConnectionId,
        purpose: Option<Purpose>,
        peer: Option<libp2p::PeerId>,
    ) -> bool {
        let Some(purpose) = purpose else {
            return true;
        };
        let Some(peer) = peer else {
            return false;
        };
        // The way to the operator's own relays is the node's own will.
        (purpose == Purpose::Relay && self.configured.contains(&peer))
            || self.allowance.take(id, peer, purpose, self.clock.elapsed())
    }
}

impl NetworkBehaviour for Dials {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<libp2p::PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let purpose = self.book.take(id);
        if self.may(purpose, peer, addresses) && self.counts(id, purpose, peer) {
            return Ok(Vec::new());
        }
        self.refused = self.refused.saturating_add(1);
        Err(ConnectionDenied::new(Denied(REFUSED)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::DialFailure(event) => self.allowance.ended(event.connection_id),
            FromSwarm::ConnectionEstablished(event) => {
                self.allowance.ended(event.connection_id);
                if let Some(ip) = convert::ip_of(event.endpoint.get_remote_address()) {
                    let all = self.from.entry(event.peer_id).or_default();
                    all.insert(event.connection_id, ip);
                }
            }
            FromSwarm::ConnectionClosed(event) => {
                if let Some(all) = self.from.get_mut(&event.peer_id) {
                    all.remove(&event.connection_id);
                    if all.is_empty() {
                        self.from.remove(&event.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: libp2p::PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
