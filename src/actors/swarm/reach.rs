//! Finding peers and being reached: what the optional behaviours tell, and what follows.
//!
//! Everything that a peer says here is a hint for the dial plan, bounded and filtered; who answers
//! there must pass the gate. Places at relays are asked for again and again, with the waits of
//! dials.

use std::time::Duration;

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use libp2p::{
    Multiaddr, autonat::v2 as autonat, core::transport::ListenerId, dcutr, identify, mdns,
    multiaddr::Protocol, relay, swarm::ConnectionId,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::SwarmActor;
use crate::{
    identity::Tier,
    messages::swarm::Reachability,
    network::{
        self, convert,
        discovery::{Found, MAX_ADDRESSES, PROTOCOL, scope},
    },
    types::PeerId,
};

/// How long the system's resolver may take for a relay's name.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);
/// Doublings beyond which any sensible wait has passed any sensible cap.
const MAX_DOUBLINGS: u32 = 20;
/// Time after the start until the first walk: the first connections stand by then.
const FIRST_WALK: Duration = Duration::from_secs(2);

/// One relay at which a place is kept.
#[derive(Debug)]
struct Place {
    relay: Multiaddr,
    /// Its listener, while there is one or one is asked for.
    listener: Option<ListenerId>,
    /// Being looked up.
    resolving: bool,
    next: Duration,
    failures: u32,
}

/// What an incarnation knows of how it is reached.
#[derive(Debug)]
pub(super) struct Reach {
    places: Vec<Place>,
    next_walk: Duration,
    reachability: Reachability,
    rng: StdRng,
}

impl Reach {
    pub(super) fn new(relays: &[Multiaddr]) -> Self {
        let place = |relay: &Multiaddr| Place {
            relay: relay.clone(),
            listener: None,
            resolving: false,
            next: Duration::ZERO,
            failures: 0,
        };
        Self {
            places: relays.iter().map(place).collect(),
            next_walk: FIRST_WALK,
            reachability: Reachability::Unknown,
            rng: StdRng::seed_from_u64(rand::random()),
        }
    }

    fn place(&mut self, id: ListenerId) -> Option<&mut Place> {
        self.places.iter_mut().find(|one| one.listener == Some(id))
    }

    /// A place is lost, or was not to be had: when it is asked for again.
    fn lost(&mut self, index: usize, (initial, max): (Duration, Duration), now: Duration) {
        let wait = self.rng.random_range(0.5..=1.0);
        if let Some(place) = self.places.get_mut(index) {
            let factor = 1_u32
                .checked_shl(place.failures.min(MAX_DOUBLINGS))
                .unwrap_or(u32::MAX);
            let full = initial.saturating_mul(factor).min(max);
            place.failures = place.failures.saturating_add(1);
            place.listener = None;
            place.resolving = false;
            place.next = now.saturating_add(full.mul_f64(wait));
        }
    }
}

impl SwarmActor {
    /// Where others reach this node, as the operator says.
    pub(super) fn announce_addresses(&mut self) {
        let announce = self.tools.config.discovery.announce.clone();
        if let Some(swarm) = self.swarm.as_mut() {
            for address in announce {
                swarm.add_external_address(address);
            }
        }
    }

    /// Walks, asks for places, and takes stock, as far as it is time for it.
    pub(super) fn tend_reach(&mut self, ctx: &mut Context<Self>) {
        let now = self.tools.clock.elapsed();
        if now >= self.reach.next_walk {
            let wait = self.tools.config.discovery.walk.0;
            let wait = wait.mul_f64(self.reach.rng.random_range(0.5..=1.0));
            self.reach.next_walk = now.saturating_add(wait);
            if let Some(walker) = self
                .swarm
                .as_mut()
                .and_then(|swarm| swarm.behaviour_mut().walker.as_mut())
            {
                walker.walk();
            }
        }
        self.ask_for_places(now, ctx);
        let metrics = self.tools.metrics.reach();
        metrics.set_candidates(self.plan.found());
        if let Some(swarm) = self.swarm.as_mut() {
            for _ in 0..swarm.behaviour_mut().dials.take_refused() {
                metrics.event("dial_refused");
            }
        }
    }

    fn ask_for_places(&mut self, now: Duration, ctx: &mut Context<Self>) {
        let due = self.reach.places.iter_mut().enumerate();
        let due: Vec<_> = due
            .filter(|(_, one)| one.listener.is_none() && !one.resolving && one.next <= now)
            .map(|(index, one)| {
                one.resolving = true;
                (index, one.relay.clone())
            })
            .collect();
        for (index, relay) in due {
            let resolving = async move { network::resolve(&relay, RESOLVE_DEADLINE).await };
            ctx.spawn(resolving.into_actor(self).map(move |found, act, _| {
                let first = found.ok().and_then(|all| all.into_iter().next());
                act.ask_for_place(index, first);
            }));
        }
    }

    fn ask_for_place(&mut self, index: usize, relay: Option<Multiaddr>) {
        let now = self.tools.clock.elapsed();
        let network = &self.tools.config.network;
        let waits = (network.dial_backoff_initial.0, network.dial_backoff_max.0);
        if self.memory.draining {
            return;
        }
        let listener = match (self.swarm.as_mut(), relay) {
            (Some(swarm), Some(relay)) => swarm.listen_on(relay.with(Protocol::P2pCircuit)).ok(),
            _ => None,
        };
        match (listener, self.reach.places.get_mut(index)) {
            (Some(id), Some(place)) => {
                place.listener = Some(id);
                place.resolving = false;
            }
            _ => self.reach.lost(index, waits, now),
        }
    }

    /// Whether a listener that closed was a place at a relay. It is asked for again.
    pub(super) fn place_lost(&mut self, id: ListenerId, why: &str) -> bool {
        let places = &self.reach.places;
        let Some(index) = places.iter().position(|one| one.listener == Some(id)) else {
            return false;
        };
        let network = &self.tools.config.network;
        let waits = (network.dial_backoff_initial.0, network.dial_backoff_max.0);
        let now = self.tools.clock.elapsed();
        if let Some(place) = self.reach.places.get(index) {
            tracing::warn!(relay = %place.relay, why, "no place at the relay");
        }
        self.reach.lost(index, waits, now);
        self.tools.metrics.reach().event("reservation_lost");
        true
    }

    /// A listener has an address: a place was given, when it is one.
    pub(super) fn place_kept(&mut self, id: ListenerId) {
        if let Some(place) = self.reach.place(id) {
            place.failures = 0;
        }
    }

    /// What identify says is good for nothing but to be found: where members say that they listen.
    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else {
            return;
        };
        let Some(who) = self.member(&peer_id) else {
            return;
        };
        let speaks = info.protocols.iter().any(|one| one.as_ref() == PROTOCOL);
        let scope = self.scope_of(&who);
        let sane = scope::sane(&info.listen_addrs, peer_id, scope);
        let refused = info.listen_addrs.len().min(MAX_ADDRESSES) > sane.len();
        if refused {
            self.tools.metrics.reach().event("hint_refused");
        }
        let Some(walker) = self
            .swarm
            .as_mut()
            .and_then(|swarm| swarm.behaviour_mut().walker.as_mut())
        else {
            return;
        };
        if speaks {
            for address in sane {
                walker.add(&peer_id, address);
            }
        } else {
            walker.remove(&peer_id);
        }
    }

    pub(super) fn on_found(&mut self, found: Found) {
        match found {
            Found::Peer { peer, addresses } => {
                let scope = self.furthest();
                self.hint(peer, &scope::sane(&addresses, peer, scope));
            }
            Found::Record(peer) => {
                self.tools.metrics.reach().event("record_refused");
                if let Ok(who) = convert::from_libp2p(&peer) {
                    // No node of this kind ever asks for that.
                    self.charge_invalid(who, "a record to be stored by Kademlia".to_owned());
                }
            }
            Found::Answers(answers) => {
                tracing::info!(answers, "whether others are told of members here");
            }
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        if let mdns::Event::Discovered(found) = event {
            // Multicast reaches no further than the link, and so do those who answer.
            for (peer, address) in found.into_iter().take(MAX_ADDRESSES) {
                self.hint(peer, &scope::sane(&[address], peer, scope::Scope::Link));
            }
        }
    }

    /// Addresses at which a peer might be.
    fn hint(&mut self, peer: libp2p::PeerId, addresses: &[Multiaddr]) {
        let metrics = self.tools.metrics.reach();
        let Ok(who) = convert::from_libp2p(&peer) else {
            return metrics.event("hint_refused");
        };
        if who == self.me || self.peers.get(&who).is_some() {
            return;
        }
        if addresses.is_empty() || self.is_banned(&who) {
            return metrics.event("hint_refused");
        }
        for address in addresses {
            let taken = self.plan.hint(address);
            metrics.event(if taken { "hint" } else { "hint_refused" });
        }
    }

    /// Whether a peer is not to be dialled. Where nobody knows, nobody is.
    pub(super) fn is_banned(&self, who: &PeerId) -> bool {
        let now = self.tools.clock.now();
        let standing = self.tools.standings.load().standing_of(who, None, now);
        standing.is_none_or(|standing| standing.banned_until.is_some())
    }

    pub(super) fn on_relay(&self, event: &relay::Event) {
        let metrics = self.tools.metrics.reach();
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                tracing::info!(peer = %src_peer_id, "a place was given");
                metrics.event("relay_reservation");
            }
            relay::Event::CircuitReqAccepted {
                src_peer_id,
                dst_peer_id,
            } => {
                tracing::info!(from = %src_peer_id, to = %dst_peer_id, "a circuit stands");
                metrics.event("relay_circuit");
            }
            relay::Event::ReservationReqDenied { .. } | relay::Event::CircuitReqDenied { .. } => {
                metrics.event("relay_denied");
            }
            _ => {}
        }
    }

    pub(super) fn on_circuit(&self, event: &relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted {
            relay_peer_id,
            renewal,
            ..
        } = event
        {
            tracing::info!(relay = %relay_peer_id, renewal, "a place at the relay is kept");
            self.tools.metrics.reach().event("reservation");
        }
    }

    /// A direct connection stands beside the relayed one, which is closed: the relay is spared,
    /// and nothing goes on by the long way.
    pub(super) fn on_punch(&mut self, event: dcutr::Event) {
        let dcutr::Event {
            remote_peer_id,
            result,
        } = event;
        let metrics = self.tools.metrics.reach();
        match result {
            Ok(_) => {
                metrics.event("hole_punched");
                tracing::info!(peer = %remote_peer_id, "connected directly");
                let Ok(who) = convert::from_libp2p(&remote_peer_id) else {
                    return;
                };
                let relayed: Vec<ConnectionId> = self
                    .peers
                    .get(&who)
                    .map(|peer| peer.relayed().collect())
                    .unwrap_or_default();
                if let Some(swarm) = self.swarm.as_mut() {
                    for id in relayed {
                        swarm.close_connection(id);
                    }
                }
            }
            Err(error) => {
                metrics.event("hole_not_punched");
                tracing::info!(peer = %remote_peer_id, %error, "still connected through a relay");
            }
        }
    }

    pub(super) fn on_probe(&mut self, event: &autonat::client::Event) {
        let reached = event.result.is_ok();
        let (address, by) = (&event.tested_addr, &event.server);
        tracing::info!(%address, %by, reached, "tried whether this node can be reached");
        self.reach.reachability = match reached {
            true => Reachability::Reachable,
            // One address that is good is enough.
            false if self.reach.reachability == Reachability::Reachable => Reachability::Reachable,
            false => Reachability::Unreachable,
        };
    }

    pub(super) fn on_probed(&self, event: &autonat::server::Event) {
        tracing::debug!(peer = %event.client, reached = event.result.is_ok(), "tried for a peer");
        self.tools.metrics.reach().event("probe");
    }

    /// Whether this node can be reached, and where.
    pub(super) fn reachability(&self) -> (Reachability, Vec<String>) {
        let known = self.swarm.as_ref();
        let external: Vec<String> = known
            .into_iter()
            .flat_map(libp2p::Swarm::external_addresses)
            .map(ToString::to_string)
            .collect();
        (self.reach.reachability, external)
    }

    /// A peer whose connection was admitted as a member's.
    fn member(&self, peer: &libp2p::PeerId) -> Option<PeerId> {
        let who = convert::from_libp2p(peer).ok()?;
        let member = self.peers.get(&who)?.admitted.tier == Tier::Member;
        member.then_some(who)
    }

    /// Where a peer is, as seen from here.
    fn scope_of(&self, who: &PeerId) -> scope::Scope {
        if self.tools.config.discovery.private_addresses {
            return scope::Scope::Machine;
        }
        scope::of_teller(self.peers.get(who).and_then(super::peers::Peer::ip))
    }

    /// Where the furthest member is: a walk does not say who named an address, so it is believed
    /// when it would be whoever did.
    fn furthest(&self) -> scope::Scope {
        let members = self.peers.iter();
        let members = members.filter(|(_, peer)| peer.admitted.tier == Tier::Member);
        members
            .map(|(who, _)| self.scope_of(who))
            .max()
            .unwrap_or(scope::Scope::World)
    }
}
