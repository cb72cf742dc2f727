//! Admission: the first behaviour, asked before any other about every connection.
//!
//! Before the handshake, and so before any cryptography: how many connections are under way,
//! in total and from one address, how many stand, and what the node's [`Admission`] says (bans
//! by address, rates). After it: a connection is established only with the record that the
//! identity gate filed for it, and within the limit per peer.
//!
//! Inbound and dialled connections are counted apart: a crowd of inbound peers cannot keep the
//! node from dialling its own. Refusals make no event each; [`Behaviour::take_denials`] hands
//! them out in sums. When the node's view is gone, its [`Admission`] has to deny.

mod denials;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
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
use serde::Serialize;
use thiserror::Error;

use super::{
    convert,
    gate::{self, Admitted, Ledger},
};
use crate::{audit::Direction, config::LimitsConfig, types::Clock};

use denials::Denials;
pub use denials::Refused;

/// What the node says about an address before the handshake.
pub trait Admission: Send + Sync + 'static {
    /// Whether a new inbound connection may begin its handshake. `None`: a connection without
    /// an IP of its own. Runs inside the Swarm for every connection: it must answer from views.
    ///
    /// # Errors
    /// The reason's stable name, for counters and the log.
    fn admit_pending(&self, ip: Option<IpAddr>) -> Result<(), &'static str>;
}

/// A connection denied here, inside libp2p's [`ConnectionDenied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("connection denied: {0}")]
pub struct Denied(pub &'static str);

/// Too many handshakes under way.
pub const PENDING: &str = "pending_connections";
/// Too many handshakes under way from one address.
pub const PENDING_PER_ADDRESS: &str = "pending_per_address";
/// Too many connections.
pub const CONNECTIONS: &str = "connections";
/// Too many connections of one peer.
pub const CONNECTIONS_PER_PEER: &str = "connections_per_peer";
/// The identity gate filed no record for the connection.
pub const NO_RECORD: &str = "no_gate_record";

/// How many connections there are, and how many were denied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Inbound handshakes under way.
    pub pending: usize,
    /// Established inbound connections.
    pub inbound: usize,
    /// Established connections this node dialled.
    pub outbound: usize,
    /// Places the identity gate holds for upgrades under way, dials included.
    pub upgrading: usize,
    /// Denials since the start, by reason.
    pub denied: BTreeMap<&'static str, u64>,
}

/// The admission behaviour.
pub struct Behaviour {
    ledger: Ledger,
    admission: Arc<dyn Admission>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Inbound handshakes under way, and whom each counts for.
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    pending_from: HashMap<Option<IpAddr>, usize>,
    /// Let through here, but not yet established: another behaviour may still deny.
    entering: HashMap<ConnectionId, Admitted>,
    standing: HashMap<ConnectionId, Standing>,
    per_peer: HashMap<libp2p::PeerId, usize>,
    inbound: usize,
    outbound: usize,
    denials: Denials,
}

struct Standing {
    admitted: Admitted,
    direction: Direction,
}

struct Limits {
    connections: usize,
    per_peer: usize,
    pending: usize,
    pending_per_address: usize,
}

impl Behaviour {
    /// Admission within `limits`, by the records of `ledger` and the answers of `admission`.
    #[must_use]
    pub fn new(
        limits: &LimitsConfig,
        ledger: Ledger,
        admission: Arc<dyn Admission>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            ledger,
            admission,
            clock,
            limits: Limits {
                connections: count(limits.connections),
                per_peer: count(limits.connections_per_peer),
                pending: count(limits.pending_connections),
                pending_per_address: count(limits.pending_per_address),
            },
            pending: HashMap::new(),
            pending_from: HashMap::new(),
            entering: HashMap::new(),
            standing: HashMap::new(),
            per_peer: HashMap::new(),
            inbound: 0,
            outbound: 0,
            denials: Denials::default(),
        }
    }

    /// The gate's book, to register open listeners.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// As what an established connection was let in.
    #[must_use]
    pub fn admitted(&self, id: ConnectionId) -> Option<&Admitted> {
        self.standing.get(&id).map(|standing| &standing.admitted)
    }

    /// Every established connection with what it was let in as.
    pub fn standing(&self) -> impl Iterator<Item = (ConnectionId, Direction, &Admitted)> {
        let all = self.standing.iter();
        all.map(|(id, standing)| (*id, standing.direction, &standing.admitted))
    }

    /// What was denied since the last call, in sums.
    pub fn take_denials(&mut self) -> Vec<Refused> {
        self.denials.take()
    }

    /// How many connections there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            pending: self.pending.len(),
            inbound: self.inbound,
            outbound: self.outbound,
            upgrading: self.ledger.under_way(),
            denied: self.denials.totals().clone(),
        }
    }

    fn check_pending(&self, ip: Option<IpAddr>) -> Result<(), &'static str> {
        let from_here = self.pending_from.get(&group(ip)).copied().unwrap_or(0);
        if self.inbound + self.pending.len() >= self.limits.connections {
            Err(CONNECTIONS)
        } else if self.pending.len() >= self.limits.pending {
            Err(PENDING)
        } else if from_here >= self.limits.pending_per_address {
            Err(PENDING_PER_ADDRESS)
        } else {
            // Last, because it charges a budget.
            self.admission.admit_pending(ip)
        }
    }

    fn settle_pending(&mut self, id: ConnectionId) {
        let Some(whom) = self.pending.remove(&id) else {
            return;
        };
        if let Some(count) = self.pending_from.get_mut(&whom) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pending_from.remove(&whom);
            }
        }
    }

    fn enter(
        &mut self,
        id: ConnectionId,
        peer: &libp2p::PeerId,
        standing: usize,
        admitted: Option<Admitted>,
    ) -> Result<(), &'static str> {
        // Fail closed: whatever came here without passing the gate goes no further.
        let admitted = admitted.ok_or(NO_RECORD)?;
        if standing >= self.limits.connections {
            return Err(CONNECTIONS);
        }
        if self.per_peer.get(peer).copied().unwrap_or(0) >= self.limits.per_peer {
            return Err(CONNECTIONS_PER_PEER);
        }
        self.entering.insert(id, admitted);
        Ok(())
    }

    fn deny(&mut self, reason: &'static str, ip: Option<IpAddr>) -> ConnectionDenied {
        self.denials.add(reason, ip, self.clock.now());
        ConnectionDenied::new(Denied(reason))
    }

    fn failed(&mut self, id: ConnectionId) {
        self.settle_pending(id);
        self.entering.remove(&id);
        self.ledger.forget(id);
    }

    fn established(&mut self, id: ConnectionId, peer: libp2p::PeerId, direction: Direction) {
        let Some(admitted) = self.entering.remove(&id) else {
            return;
        };
        let standing = Standing {
            admitted,
            direction,
        };
        self.standing.insert(id, standing);
        *self.per_peer.entry(peer).or_default() += 1;
        *self.counter(direction) += 1;
    }

    fn closed(&mut self, id: ConnectionId, peer: libp2p::PeerId) {
        let Some(gone) = self.standing.remove(&id) else {
            return;
        };
        let counter = self.counter(gone.direction);
        *counter = counter.saturating_sub(1);
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }

    fn counter(&mut self, direction: Direction) -> &mut usize {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }
}

/// Whom a handshake under way counts for: an IPv4 address, or the /64 that one IPv6 host can
/// draw any number of addresses from.
fn group(ip: Option<IpAddr>) -> Option<IpAddr> {
    Some(match ip?.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    })
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = convert::ip_of(remote);
        self.check_pending(ip)
            .map_err(|reason| self.deny(reason, ip))?;
        self.ledger.pend_inbound(id, local, remote);
        let whom = group(ip);
        self.pending.insert(id, whom);
        *self.pending_from.entry(whom).or_default() += 1;
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.settle_pending(id);
        let admitted = self.ledger.take_inbound(id, &peer, local, remote);
        self.enter(id, &peer, self.inbound, admitted)
            .map_err(|reason| self.deny(reason, convert::ip_of(remote)))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<libp2p::PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.ledger.pend_outbound(id);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let admitted = self.ledger.take_outbound(id, &peer, address);
        self.enter(id, &peer, self.outbound, admitted)
            .map_err(|reason| self.deny(reason, convert::ip_of(address)))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let direction = if event.endpoint.is_dialer() {
                    Direction::Outbound
                } else {
                    Direction::Inbound
                };
                self.established(event.connection_id, event.peer_id, direction);
            }
            FromSwarm::ConnectionClosed(event) => self.closed(event.connection_id, event.peer_id),
            FromSwarm::ListenFailure(event) => {
                // A handshake that failed before anybody was known: counted, as a crowd of them
                // must not fill the log. Where the peer is known the gate has told.
                if let Some(fault) = gate::unknown_peers_fault(event.error) {
                    let ip = convert::ip_of(event.send_back_addr);
                    self.denials.add(fault.code(), ip, self.clock.now());
                }
                self.failed(event.connection_id);
            }
            FromSwarm::DialFailure(event) => self.failed(event.connection_id),
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
