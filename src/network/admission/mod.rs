//! Admission: the first behaviour, asked before any other about every connection.
//!
//! Before the handshake (over TCP so before any cryptography; QUIC has answered the first packet
//! by then, and its address may be forged): how much memory the process takes, how
//! many connections are under way, in total, from one address and from one subnet, how many
//! stand, and what the node's [`Admission`] says (bans by address, rates). After it: a connection
//! is established only with the record that the identity gate filed for it, and within the limit
//! per peer.
//!
//! Inbound and dialled connections have limits of their own below the total: a crowd of inbound
//! peers cannot keep the node from dialling its own. Refusals make no event each; [`Behaviour::take_denials`] hands
//! them out in sums. When the node's view is gone, its [`Admission`] has to deny.

mod denials;
mod memory;
mod pending;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::IpAddr,
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
use crate::{
    audit::Direction,
    config::LimitsConfig,
    types::{Clock, Source},
};

use denials::Denials;
pub use denials::Refused;
use memory::Gauge;
pub use memory::{Memory, ProcessMemory};
use pending::{Pending, Tally};

/// What the node says about an address before the handshake.
pub trait Admission: Send + Sync + 'static {
    /// Whether a new inbound connection may begin its handshake. Runs inside the Swarm for every
    /// connection: it must answer from views.
    ///
    /// # Errors
    /// The reason's stable name, for counters and the log.
    fn admit_pending(&self, source: Source) -> Result<(), &'static str>;

    /// Refusals at the gate since the last call that were not recorded one by one.
    fn take_refused(&self) -> Vec<Refused> {
        Vec::new()
    }
}

/// A connection denied here, inside libp2p's [`ConnectionDenied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("connection denied: {0}")]
pub struct Denied(pub &'static str);

/// Too many handshakes under way.
pub const PENDING: &str = "pending_connections";
/// Too many handshakes under way whose address may be anybody's: QUIC's, before they end.
pub const PENDING_UNVALIDATED: &str = "pending_unvalidated";
/// Too many handshakes under way from one address.
pub const PENDING_PER_ADDRESS: &str = "pending_per_address";
/// Too many handshakes under way from one subnet.
pub const PENDING_PER_SUBNET: &str = "pending_per_subnet";
/// The process takes too much memory.
pub const MEMORY: &str = "memory";
/// Too many connections that others dialled.
pub const INBOUND: &str = "inbound_connections";
/// Too many connections that this node dialled.
pub const OUTBOUND: &str = "outbound_connections";
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
    /// Bytes of memory the process took when that was last looked at.
    pub memory: u64,
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
    pending: Pending,
    memory: Gauge,
    /// Let through here, but not yet established: another behaviour may still deny.
    entering: HashMap<ConnectionId, Admitted>,
    standing: HashMap<ConnectionId, Standing>,
    per_peer: Tally<libp2p::PeerId>,
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
    inbound: usize,
    outbound: usize,
    per_peer: usize,
    pending: usize,
    pending_per_address: usize,
    pending_per_subnet: usize,
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
                inbound: count(limits.inbound_connections),
                outbound: count(limits.outbound_connections),
                per_peer: count(limits.connections_per_peer),
                pending: count(limits.pending_connections),
                pending_per_address: count(limits.pending_per_address),
                pending_per_subnet: count(limits.pending_per_subnet),
            },
            pending: Pending::default(),
            memory: Gauge::new(Arc::new(ProcessMemory::open()), limits.memory.0),
            entering: HashMap::new(),
            standing: HashMap::new(),
            per_peer: Tally::default(),
            inbound: 0,
            outbound: 0,
            denials: Denials::default(),
        }
    }

    /// The same, with another measure of memory.
    #[cfg(test)]
    fn measuring(mut self, memory: Arc<dyn Memory>, limit: u64) -> Self {
        self.memory = Gauge::new(memory, limit);
        self
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
            memory: self.memory.used(),
            upgrading: self.ledger.under_way(),
            denied: self.denials.totals().clone(),
        }
    }

    /// Looks how much memory the process takes, unless that was done just now.
    pub fn look_at_memory(&mut self) {
        self.memory.look(self.clock.elapsed());
    }

    /// Most connections that one peer has.
    #[must_use]
    pub fn most_of_a_peer(&self) -> usize {
        self.per_peer.most()
    }

    /// How much memory the process takes, and whether that leaves room for another connection.
    fn check_memory(&mut self) -> Result<(), &'static str> {
        if self.memory.has_room(self.clock.elapsed()) {
            Ok(())
        } else {
            Err(MEMORY)
        }
    }

    fn check_pending(&mut self, source: Source) -> Result<(), &'static str> {
        let inbound = self.inbound.saturating_add(self.pending.len());
        if inbound >= self.limits.inbound {
            Err(INBOUND)
        } else if inbound.saturating_add(self.outbound) >= self.limits.connections {
            Err(CONNECTIONS)
        } else if self.pending.len() >= self.limits.pending {
            Err(PENDING)
        } else if source.is_unvalidated()
            && self.pending.unvalidated() >= self.limits.pending.div_ceil(2)
        {
            Err(PENDING_UNVALIDATED)
        } else if self.pending.of_host(source) >= self.limits.pending_per_address {
            Err(PENDING_PER_ADDRESS)
        } else if self.pending.of_subnet(source) >= self.limits.pending_per_subnet {
            Err(PENDING_PER_SUBNET)
        } else {
            self.check_memory()?;
            // Last, because it charges a budget.
            self.admission.admit_pending(source)
        }
    }

    /// Whether another connection fits beside those that stand.
    fn check_standing(&self, direction: Direction) -> Result<(), &'static str> {
        let all = self.inbound.saturating_add(self.outbound);
        match direction {
            Direction::Inbound if self.inbound >= self.limits.inbound => Err(INBOUND),
            Direction::Outbound if self.outbound >= self.limits.outbound => Err(OUTBOUND),
            _ if all >= self.limits.connections => Err(CONNECTIONS),
            _ => Ok(()),
        }
    }

    fn check_dial(&mut self) -> Result<(), &'static str> {
        self.check_standing(Direction::Outbound)?;
        self.check_memory()
    }

    fn enter(
        &mut self,
        id: ConnectionId,
        peer: &libp2p::PeerId,
        direction: Direction,
        admitted: Option<Admitted>,
    ) -> Result<(), &'static str> {
        // Fail closed: whatever came here without passing the gate goes no further.
        let admitted = admitted.ok_or(NO_RECORD)?;
        self.check_standing(direction)?;
        if self.per_peer.of(peer) >= self.limits.per_peer {
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
        self.pending.settle(id);
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
        self.per_peer.more(peer);
        let counter = self.counter(direction);
        *counter = counter.saturating_add(1);
    }

    fn closed(&mut self, id: ConnectionId, peer: libp2p::PeerId) {
        let Some(gone) = self.standing.remove(&id) else {
            return;
        };
        let counter = self.counter(gone.direction);
        *counter = counter.saturating_sub(1);
        self.per_peer.fewer(&peer);
    }

    fn counter(&mut self, direction: Direction) -> &mut usize {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }
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
        let source = convert::source_of(local, remote);
        self.check_pending(source)
            .map_err(|reason| self.deny(reason, source.ip()))?;
        self.ledger.pend_inbound(id, local, remote);
        self.pending.begin(id, source);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.settle(id);
        let admitted = self.ledger.take_inbound(id, &peer, local, remote);
        self.enter(id, &peer, Direction::Inbound, admitted)
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
        self.check_dial()
            .map_err(|reason| self.deny(reason, None))?;
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
        self.enter(id, &peer, Direction::Outbound, admitted)
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
                if let Some(reason) = gate::inbound_failure(event.error) {
                    // A QUIC handshake that failed has not shown whose the address is.
                    let ip = convert::source_of(event.local_addr, event.send_back_addr).ip();
                    self.denials.add(reason, ip, self.clock.now());
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
