//! [`Walker`]: Kademlia that finds and does nothing else.
//!
//! It asks only peers that are connected: a dial that its queries want becomes a [`Found`], and the
//! query goes on without. It adds only those peers to its table that its owner names
//! ([`Walker::add`]), and it stores no records and no providers, neither foreign nor own: this node
//! needs to find peers, and everything else that others could have it keep is somebody else's data
//! at this node's cost. Two locks hold that: inserts are filtered, and the store has no room.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    kad::{
        self, BucketInserts, Caching, InboundRequest, Mode, RoutingUpdate, StoreInserts,
        store::{MemoryStore, MemoryStoreConfig},
    },
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dial_opts::DialOpts,
    },
};

/// The protocol; this node's own, so that it shares no table with anybody else's.
pub const PROTOCOL: &str = "/quantraband/kad/1";

/// How long one walk may take.
const WALK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers of one bucket; and asked, and named in one answer, at most.
const BUCKET: NonZeroUsize = NonZeroUsize::new(20).unwrap();
/// Addresses kept of one peer of the table.
const TABLE_ADDRESSES: usize = 4;
/// Longest address that makes sense, bytes: IPv6, QUIC, a relay, and the peer behind it.
const LONGEST_ADDRESS: usize = 128;
/// What a message says of a peer beside its addresses, bytes: its name, how it is connected, and
/// what protobuf adds to each.
const PEER_BYTES: usize = 64;
/// Largest message: a whole bucket with all its addresses fits, or one peer could silence this
/// node's answers by the length of its own; and what it is about.
const MAX_MESSAGE: usize =
    BUCKET.get() * (PEER_BYTES + TABLE_ADDRESSES * (LONGEST_ADDRESS + 4)) + 1_024;
/// Walks at once.
const MAX_WALKS: usize = 4;
/// Found peers that wait to be told of; more are forgotten: they are found again.
const MAX_WAITING: usize = 256;

/// What the walker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A peer that is not connected, and where it is said to be.
    Peer {
        /// Who.
        peer: libp2p::PeerId,
        /// Where, as others said.
        addresses: Vec<Multiaddr>,
    },
    /// A peer wanted something stored. It was not.
    Record(libp2p::PeerId),
    /// Whether this node answers others changed.
    Answers(bool),
}

/// See the module.
pub struct Walker {
    inner: kad::Behaviour<MemoryStore>,
    waiting: VecDeque<Found>,
}

impl Walker {
    /// A walker of this node. `mode`: whether it answers; `None`: once it has an address at which
    /// it can be reached.
    #[must_use]
    pub fn new(me: libp2p::PeerId, mode: Option<Mode>) -> Self {
        let store = MemoryStoreConfig {
            max_records: 0,
            max_value_bytes: 0,
            max_providers_per_key: 0,
            max_provided_keys: 0,
        };
        let mut config = kad::Config::new(StreamProtocol::new(PROTOCOL));
        config
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_kbucket_size(BUCKET)
            .set_replication_factor(BUCKET)
            .set_max_packet_size(MAX_MESSAGE)
            .set_query_timeout(WALK_TIMEOUT)
            .set_substreams_timeout(ANSWER_TIMEOUT)
            // Nothing is stored, so nothing is republished.
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_caching(Caching::Disabled)
            // Walks are its owner's, by the node's clock.
            .set_periodic_bootstrap_interval(None);
        let store = MemoryStore::with_config(me, store);
        let mut inner = kad::Behaviour::with_config(me, store, config);
        inner.set_mode(mode);
        Self {
            inner,
            waiting: VecDeque::new(),
        }
    }

    /// A connected member that answers, and where it says it is: all of it, in place of what it said
    /// before. The first few addresses are kept.
    pub fn add(&mut self, peer: &libp2p::PeerId, addresses: &[Multiaddr]) {
        let told: Vec<&Multiaddr> = addresses.iter().take(TABLE_ADDRESSES).collect();
        let known = self.addresses(peer);
        if known.is_empty() {
            // It may wait for a place, with what it said before.
            self.inner.remove_peer(peer);
        }
        for address in &told {
            if self.inner.add_address(peer, (*address).clone()) == RoutingUpdate::Failed {
                tracing::debug!(%peer, "not in the table: its bucket is full");
                return;
            }
        }
        for old in known.iter().filter(|old| !told.contains(old)) {
            if !told.is_empty() {
                self.inner.remove_address(peer, old);
            }
        }
    }

    /// What is kept of a peer of the table.
    fn addresses(&mut self, peer: &libp2p::PeerId) -> Vec<Multiaddr> {
        let Some(bucket) = self.inner.kbucket(*peer) else {
            return Vec::new();
        };
        let mut all = bucket.iter();
        let found = all.find(|one| one.node.key.preimage() == peer);
        found.map_or_else(Vec::new, |one| one.node.value.iter().cloned().collect())
    }

    /// Kademlia itself adds the address of each connection that this node opened.
    fn trim(&mut self, peer: &libp2p::PeerId) {
        let all = self.addresses(peer);
        let surplus = all.len().saturating_sub(TABLE_ADDRESSES);
        for address in all.iter().take(surplus) {
            self.inner.remove_address(peer, address);
        }
    }

    /// A peer that is not to be named to anybody.
    pub fn remove(&mut self, peer: &libp2p::PeerId) {
        self.inner.remove_peer(peer);
    }

    /// Peers in the table.
    pub fn known(&mut self) -> usize {
        self.inner
            .kbuckets()
            .map(|bucket| bucket.num_entries())
            .sum()
    }

    /// Walks towards a random place, unless enough walks are under way.
    pub fn walk(&mut self) {
        if self.inner.iter_queries().count() < MAX_WALKS {
            self.inner.get_closest_peers(libp2p::PeerId::random());
        }
    }

    /// Turns a dial that a query wants into something found.
    fn found(&mut self, opts: &DialOpts) {
        let (id, Some(peer)) = (opts.connection_id(), opts.get_peer_id()) else {
            return;
        };
        let known =
            self.inner
                .handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
        if let Ok(addresses) = known
            && !addresses.is_empty()
        {
            self.tell(Found::Peer { peer, addresses });
        }
        self.inner
            .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: &DialError::Aborted,
                connection_id: id,
            }));
    }

    fn tell(&mut self, found: Found) {
        if self.waiting.len() < MAX_WAITING && !self.waiting.contains(&found) {
            self.waiting.push_back(found);
        }
    }

    fn on_event(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request } => match request {
                InboundRequest::PutRecord { source, .. } => self.tell(Found::Record(source)),
                InboundRequest::AddProvider {
                    record: Some(record),
                } => self.tell(Found::Record(record.provider)),
                _ => {}
            },
            kad::Event::ModeChanged { new_mode } => {
                self.tell(Found::Answers(new_mode == Mode::Server));
            }
            _ => {}
        }
    }
}

impl NetworkBehaviour for Walker {
    type ConnectionHandler = THandler<kad::Behaviour<MemoryStore>>;
    type ToSwarm = Found;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    /// Knows addresses, but adds none to dials of others: they go where they were meant to.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<libp2p::PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, id, event);
        self.trim(&peer);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Found, THandlerInEvent<Self>>> {
        loop {
            if let Some(found) = self.waiting.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(found));
            }
            let Poll::Ready(action) = self.inner.poll(cx) else {
                return Poll::Pending;
            };
            match action {
                ToSwarm::Dial { opts } => self.found(&opts),
                ToSwarm::GenerateEvent(event) => self.on_event(event),
                // What others say where a peer is stays a hint.
                ToSwarm::NewExternalAddrOfPeer { .. } => {}
                other => return Poll::Ready(other.map_out(|_| Found::Answers(false))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;
    use crate::network::discovery::scope::{self, Scope};

    fn walker() -> Walker {
        Walker::new(libp2p::PeerId::random(), Some(Mode::Server))
    }

    /// A name as long as this network's are.
    fn name() -> libp2p::PeerId {
        let key = libp2p::identity::Keypair::generate_ed25519();
        key.public().to_peer_id()
    }

    fn ports(peer: libp2p::PeerId, ports: std::ops::Range<u16>) -> Vec<Multiaddr> {
        let at = |port| format!("/ip4/8.8.8.8/tcp/{port}/p2p/{peer}");
        ports.map(|port| at(port).parse().unwrap()).collect()
    }

    #[test]
    fn a_peer_that_moves_without_end_has_a_few_addresses_in_the_table() {
        let (mut walker, peer) = (walker(), name());
        for round in 1..100 {
            let told = ports(peer, round * 8..round * 8 + 8);
            walker.add(&peer, &told);
            assert_eq!(walker.addresses(&peer), told[..TABLE_ADDRESSES]);
        }
        assert_eq!(walker.known(), 1);
        // A part of it is news; and what it told stays when it tells nothing.
        let told = ports(peer, 795..797);
        walker.add(&peer, &told);
        let mut kept = walker.addresses(&peer);
        kept.sort();
        assert_eq!(kept, told);
        walker.add(&peer, &[]);
        assert_eq!(walker.addresses(&peer).len(), 2);
        // What Kademlia adds by itself is bounded as well.
        for address in ports(peer, 1_000..1_020) {
            walker.inner.add_address(&peer, address);
            walker.trim(&peer);
        }
        assert_eq!(walker.addresses(&peer), ports(peer, 1_016..1_020));
    }

    #[test]
    fn a_full_bucket_with_the_longest_addresses_fits_one_answer() {
        let longest = format!(
            "/ip6/2606:4700:4700:4700:4700:4700:4700:4700/udp/65535/quic-v1/p2p/{}/p2p-circuit",
            name()
        );
        let longest: Multiaddr = longest.parse().unwrap();
        let longest = longest.with(Protocol::P2p(name()));
        assert!(scope::is_sane(&longest, Scope::World));
        assert!(longest.to_vec().len() <= LONGEST_ADDRESS);
        // A field's key and its length: at most three bytes an address, and so for the peer.
        let peer = name().to_bytes().len() + 12 + TABLE_ADDRESSES * (longest.to_vec().len() + 3);
        assert!(BUCKET.get() * peer < MAX_MESSAGE);
    }
}
