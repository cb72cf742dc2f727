//! What libp2p reports: listeners, connections, dials.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use libp2p::{
    Multiaddr,
    core::{ConnectedPoint, transport::ListenerId},
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{SwarmActor, peers::Arrival};
use crate::{
    audit::{AuditEvent, Direction},
    identity::Tier,
    messages::{enrolment::KeyProved, reputation::CreditConnection},
    network::{self, Due, NodeBehaviourEvent, convert, dial::Class, discovery::scope, gate},
    trust::reputation,
    types::PeerId,
};

/// Longest cause of a closed connection that is kept, in characters.
const MAX_CAUSE: usize = 200;
/// How long the system's resolver may take for one bootstrap name.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

/// Who opened a connection, the address of the other end, and the relay between.
fn route(
    endpoint: &ConnectedPoint,
    peer: libp2p::PeerId,
) -> (Direction, Multiaddr, Option<libp2p::PeerId>) {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => {
            let relay = scope::relay_of(address);
            (Direction::Outbound, address.clone(), relay)
        }
        // The other end of a circuit has no address of its own: it is where the relay is.
        ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => {
            let address = local_addr.clone().with(Protocol::P2p(peer));
            (Direction::Inbound, address, scope::relay_of(local_addr))
        }
        ConnectedPoint::Listener { send_back_addr, .. } => {
            (Direction::Inbound, send_back_addr.clone(), None)
        }
    }
}

impl SwarmActor {
    pub(super) fn on_swarm_event(
        &mut self,
        event: SwarmEvent<NodeBehaviourEvent>,
        ctx: &mut Context<Self>,
    ) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, ctx),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.on_established(&peer_id, connection_id, &endpoint, ctx);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                let cause = cause.map(|error| error.to_string());
                self.on_closed(&peer_id, connection_id, cause);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_dial_failed(peer_id, &error);
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                tracing::info!(%address, "listening");
                self.on_listening(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::warn!(%address, "no longer listening");
                self.listening.remove(&address);
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } if !self.memory.draining => {
                let why = reason.as_ref().err().map(ToString::to_string);
                if self.place_lost(listener_id, &why.unwrap_or_default()) {
                    return;
                }
                // A node nobody can reach is no node: begin anew.
                let error = reason.err().map(|e| e.to_string()).unwrap_or_default();
                self.incarnation
                    .fail(format!("a listener closed ({addresses:?}): {error}"));
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener had an error");
            }
            // Refusals are counted by the admission behaviour and recorded by the gate; no event
            // each.
            _ => {}
        }
    }

    /// Remembers which port the system chose for a listener, so that it stays the same.
    fn on_listening(&mut self, id: ListenerId, address: Multiaddr) {
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        });
        self.place_kept(id);
        if let (Some(configured), Some(port)) = (self.listeners.get(&id), port) {
            self.memory.ports.insert(configured.clone(), port);
            self.remember();
        }
        self.listening.insert(address);
    }

    fn on_established(
        &mut self,
        peer: &libp2p::PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        ctx: &mut Context<Self>,
    ) {
        let Some(swarm) = self.swarm.as_mut() else {
            return;
        };
        let Some(admitted) = swarm.behaviour().admission.admitted(id).cloned() else {
            // Cannot happen: the behaviour denied it. If it does, nothing may come of it.
            swarm.close_connection(id);
            return;
        };
        let who = admitted.peer;
        let (direction, address, relay) = route(endpoint, *peer);
        if direction == Direction::Outbound {
            let whole = convert::with_p2p(&address, *peer);
            match self.plan.knows(&who) {
                Some(Class::Kept) => drop(self.memory.dialled.insert(whole)),
                Some(Class::Found) => drop(self.memory.found.insert(whole)),
                // A hole was punched, or it was tried whether the peer can be reached.
                None => {}
            }
            self.remember();
        }
        let (tier, identity) = (admitted.tier, admitted.identity.clone());
        let security = admitted.security;
        if let Some(known) = identity.as_ref().filter(|_| admitted.formerly.is_some())
            && tier == Tier::Member
        {
            // When Issuer is full or down it takes the old credential back after its grace.
            let _ = self.tools.issuer.tell(KeyProved {
                peer: who,
                issuer: known.issuer.clone(),
                subject: known.subject.clone(),
            });
        }
        let now = self.tools.clock.now();
        let admitted = Arc::new(admitted);
        let arrival = self
            .peers
            .connected(admitted, id, (address, relay), direction, now);
        self.tell_footing(who);
        self.tell_standing(who);
        if arrival == Arrival::Unwelcome
            && let Some(swarm) = self.swarm.as_mut()
        {
            swarm.close_connection(id);
        }
        self.plan.connected(&who, self.tools.clock.elapsed());
        self.tools.metrics.connected(direction, security);
        if arrival == Arrival::First {
            self.show_all_heads(who, ctx);
            tracing::info!(peer = %who, %tier, ?direction, %security, "connected");
        }
        if identity.is_some() && !tier.is_limited() {
            let credit = CreditConnection {
                peer: who,
                subject: reputation::answers(identity.as_deref(), now),
            };
            // When Reputation is full or down the credit is lost: it is worth 0.01.
            let _ = self.tools.reputation.tell(credit);
        }
    }

    /// Tells those who judge a neighbour's subscriptions how it is connected now.
    pub(super) fn tell_footing(&self, who: PeerId) {
        if let Some(peer) = self.peers.get(&who) {
            self.neighbours.stands(&peer.admitted, peer.footing());
        }
    }

    fn on_closed(&mut self, peer: &libp2p::PeerId, id: ConnectionId, cause: Option<String>) {
        self.tools.metrics.disconnected();
        let Ok(who) = convert::from_libp2p(peer) else {
            return;
        };
        let Some(gone) = self.peers.closed(&who, id) else {
            self.tell_footing(who);
            return;
        };
        self.neighbours.gone(&who);
        self.commands.end_streams(&who);
        self.outbound.forget(&who);
        if let Ok(peer) = convert::to_libp2p(&who) {
            let other = |address: &Multiaddr| convert::split_p2p(address).1 != Some(peer);
            self.memory.dialled.retain(other);
            self.memory.found.retain(other);
            self.remember();
            if gone.closing.is_some()
                && let Some(walker) = self
                    .swarm
                    .as_mut()
                    .and_then(|swarm| swarm.behaviour_mut().walker.as_mut())
            {
                walker.remove(&peer);
            }
        }
        self.plan.disconnected(&who, self.tools.clock.elapsed());
        let cause = match (gone.closing, cause) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(error)) => convert::loggable(&error, MAX_CAUSE),
            (None, None) => "closed in order".to_owned(),
        };
        tracing::info!(peer = %who, cause, "disconnected");
        self.tools.audit.note(AuditEvent::ConnectionClosed {
            peer: who,
            lasted: self.tools.clock.now().since(gone.since),
            cause,
        });
    }

    fn on_dial_failed(&mut self, peer: Option<libp2p::PeerId>, error: &DialError) {
        let Some(who) = peer.and_then(|peer| convert::from_libp2p(&peer).ok()) else {
            return;
        };
        self.plan.failed(&who, self.tools.clock.elapsed());
        self.tools.metrics.dial_failed();
        match gate::refusal_of(error) {
            Some(refusal) => tracing::warn!(peer = %who, %refusal, "not connected"),
            None => tracing::debug!(peer = %who, %error, "not reached"),
        }
    }

    /// Dials who is due; names are resolved first, without holding anything up.
    pub(super) fn dial_due(&mut self, ctx: &mut Context<Self>) {
        let wanted = self.tools.config.discovery.peers;
        // Strangers cost nothing to make: they must not use up the room of those that are found.
        let members = self.peers.iter();
        let members = members.filter(|(_, peer)| peer.admitted.tier == Tier::Member);
        let room = wanted.saturating_sub(members.count());
        for Due { peer, addresses } in self.plan.due(self.tools.clock.elapsed(), room) {
            let resolving = async move {
                let mut found = Vec::new();
                for address in addresses {
                    match network::resolve(&address, RESOLVE_DEADLINE).await {
                        Ok(resolved) => found.extend(resolved),
                        Err(error) => tracing::warn!(%peer, %error, "address not resolved"),
                    }
                }
                found
            };
            let dial = resolving.into_actor(self);
            ctx.spawn(dial.map(move |addresses, act, _| act.dial(peer, addresses)));
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let now = self.tools.clock.elapsed();
        if self.plan.knows(&peer) == Some(Class::Found) && self.is_banned(&peer) {
            return self.plan.remove(&peer);
        }
        let (Some(swarm), Ok(target)) = (self.swarm.as_mut(), convert::to_libp2p(&peer)) else {
            return;
        };
        let (standings, wall) = (self.tools.standings.load(), self.tools.clock.now());
        let mut addresses = addresses;
        addresses.retain(|address| {
            convert::ip_of(address).is_none_or(|ip| standings.address_banned(ip, wall).is_none())
        });
        if self.memory.draining || addresses.is_empty() {
            return self.plan.failed(&peer, now);
        }
        if swarm.is_connected(&target) {
            return self.plan.connected(&peer, now);
        }
        let mut dial = DialOpts::peer_id(target)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses);
        if self.plan.knows(&peer) == Some(Class::Found) {
            // Somebody else chose the addresses: one after the other.
            dial = dial.override_dial_concurrency_factor(NonZeroU8::MIN);
        }
        let dial = dial.build();
        if let Err(error) = swarm.dial(dial) {
            tracing::debug!(%peer, %error, "not dialled");
            self.plan.failed(&peer, now);
        }
    }

    /// Publishes what the next incarnation needs.
    pub(super) fn remember(&self) {
        self.tools.memory.publish(self.memory.clone());
    }

    /// Addresses it listens on, each ending in `/p2p/PEER`.
    pub(super) fn listen_addresses(&self) -> Vec<String> {
        let Ok(me) = convert::to_libp2p(&self.me) else {
            return Vec::new();
        };
        self.listening
            .iter()
            .map(|address| convert::with_p2p(address, me).to_string())
            .collect()
    }
}
