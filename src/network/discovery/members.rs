//! [`MembersOnly`]: a behaviour that exists for connections of members alone.
//!
//! Whoever is connected as anything else gets no handler of it, so the node does not speak the
//! protocol with them; and the behaviour does not learn of them, so it asks nothing of them either.
//! What a connection was admitted as is what the gate filed for it ([`Ledger::is_member`]); without
//! a record it is nobody's.

use std::{
    collections::{HashMap, HashSet},
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished, derive_prelude::Either, dummy,
    },
};

use super::{DialBook, Purpose};
use crate::network::gate::Ledger;

/// See the module.
pub struct MembersOnly<B> {
    /// Boxed: most nodes have none of them, and all would pay for their size.
    inner: Box<B>,
    ledger: Ledger,
    /// Connections of members, by peer. Bounded by the limit of connections.
    members: HashMap<libp2p::PeerId, Vec<ConnectionId>>,
    /// The same, all of them.
    all: HashSet<ConnectionId>,
    /// What dials of the behaviour are for.
    dials: Option<(DialBook, Purpose)>,
}

impl<B> MembersOnly<B> {
    /// Shows `inner` only to members.
    pub fn new(inner: B, ledger: Ledger) -> Self {
        Self {
            inner: Box::new(inner),
            ledger,
            members: HashMap::new(),
            all: HashSet::new(),
            dials: None,
        }
    }

    /// As [`new`](Self::new), for a behaviour that dials.
    pub fn dialling(inner: B, ledger: Ledger, book: DialBook, purpose: Purpose) -> Self {
        Self {
            dials: Some((book, purpose)),
            ..Self::new(inner, ledger)
        }
    }

    fn knows(&self, peer: &libp2p::PeerId, id: ConnectionId) -> bool {
        self.members.get(peer).is_some_and(|all| all.contains(&id))
    }

    /// Notes a member's connection. Fails closed.
    fn enter(&mut self, peer: libp2p::PeerId, id: ConnectionId) -> bool {
        let member = self.ledger.is_member(id);
        if member {
            self.members.entry(peer).or_default().push(id);
            self.all.insert(id);
        }
        member
    }

    fn leave(&mut self, peer: &libp2p::PeerId, id: ConnectionId) -> usize {
        let Some(all) = self.members.get_mut(peer) else {
            return 0;
        };
        all.retain(|one| *one != id);
        self.all.remove(&id);
        let left = all.len();
        if left == 0 {
            self.members.remove(peer);
        }
        left
    }
}

impl<B> Deref for MembersOnly<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for MembersOnly<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> MembersOnly<B> {
    /// An action of the behaviour as the Swarm may have it; `None`: it is about nobody.
    fn pass(
        &self,
        action: ToSwarm<B::ToSwarm, THandlerInEvent<B>>,
    ) -> Option<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
        Some(match action {
            ToSwarm::Dial { opts } => {
                if let Some((book, purpose)) = &self.dials {
                    book.note(opts.connection_id(), *purpose);
                }
                ToSwarm::Dial { opts }
            }
            ToSwarm::NotifyHandler {
                peer_id,
                handler,
                event,
            } => {
                let id = match handler {
                    // By its id alone: a relay's request for the one end of a circuit bears the
                    // name of the other.
                    NotifyHandler::One(id) => self.all.get(&id).copied()?,
                    // Any connection of the peer might be one that has no such handler.
                    NotifyHandler::Any => *self.members.get(&peer_id)?.first()?,
                };
                ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(id),
                    event: Either::Left(event),
                }
            }
            other => other.map_in(Either::Left),
        })
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for MembersOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.enter(peer, id) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let inner = &mut self.inner;
        let handler = inner.handle_established_inbound_connection(id, peer, local, remote);
        handler.map(Either::Left).inspect_err(|_| {
            self.leave(&peer, id);
        })
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
        if !self.enter(peer, id) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let inner = &mut self.inner;
        let handler =
            inner.handle_established_outbound_connection(id, peer, address, role, port_use);
        handler.map(Either::Left).inspect_err(|_| {
            self.leave(&peer, id);
        })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                if !self.knows(&event.peer_id, event.connection_id) {
                    return;
                }
                let all = self.members.get(&event.peer_id).map_or(0, Vec::len);
                let event = ConnectionEstablished {
                    other_established: all.saturating_sub(1),
                    ..event
                };
                self.inner
                    .on_swarm_event(FromSwarm::ConnectionEstablished(event));
            }
            FromSwarm::ConnectionClosed(event) => {
                if !self.knows(&event.peer_id, event.connection_id) {
                    return;
                }
                let event = ConnectionClosed {
                    remaining_established: self.leave(&event.peer_id, event.connection_id),
                    ..event
                };
                self.inner
                    .on_swarm_event(FromSwarm::ConnectionClosed(event));
            }
            FromSwarm::AddressChange(event) if !self.knows(&event.peer_id, event.connection_id) => {
            }
            // Denied by another behaviour after it had been let in here.
            FromSwarm::ListenFailure(event) => {
                if let Some(peer) = event.peer_id {
                    self.leave(&peer, event.connection_id);
                }
                self.inner.on_swarm_event(FromSwarm::ListenFailure(event));
            }
            FromSwarm::DialFailure(event) => {
                if let Some(peer) = event.peer_id {
                    self.leave(&peer, event.connection_id);
                }
                self.inner.on_swarm_event(FromSwarm::DialFailure(event));
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) if self.knows(&peer, id) => {
                self.inner.on_connection_handler_event(peer, id, event);
            }
            // Its connection has ended meanwhile.
            Either::Left(_) => {}
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
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
