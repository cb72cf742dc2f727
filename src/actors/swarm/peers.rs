//! The connected peers of one Swarm incarnation, and the identities of authors seen lately.
//!
//! Both tables are bounded: connections by `limits.connections` (the admission gate counts
//! them), topics of one peer and remembered authors by constants here.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::judge::Author;
use crate::{
    audit::Direction,
    identity::VerifiedIdentity,
    messages::swarm::{CallsReport, ConnectionReport, PeerReport},
    network::{Admitted, convert},
    types::{Footing, PeerId, SecurityInfo, Timestamp, Topic},
};

/// Topics remembered of one peer: as many as the subscription filter lets it have.
pub(super) const MAX_TOPICS_PER_PEER: usize = 128;

/// Authors remembered after they disconnected, so that their last messages, still on their way
/// through others, can be judged. About 1 KiB each.
const MAX_AUTHORS: usize = 4_096;

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// What the gate admitted.
    pub(super) admitted: Arc<Admitted>,
    /// Since when it is connected.
    pub(super) since: Timestamp,
    /// Topics it listens to.
    pub(super) topics: BTreeSet<Topic>,
    /// Last round trip.
    pub(super) rtt: Option<Duration>,
    /// Why this node is closing its connections, once it is.
    pub(super) closing: Option<&'static str>,
    connections: Vec<Connection>,
}

/// One connection of a peer.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    address: Multiaddr,
    direction: Direction,
    security: SecurityInfo,
    /// Whether the peer proved its ML-DSA key over it by the exporter.
    pq_auth: bool,
    /// The relay it goes through.
    relay: Option<libp2p::PeerId>,
}

/// What a new connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The peer's first.
    First,
    /// One more.
    Another,
    /// One of a peer that is being thrown out: it was on its way meanwhile, and must be closed.
    Unwelcome,
}

/// All connected peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: HashMap<PeerId, Peer>,
    authors: HashMap<PeerId, (Arc<VerifiedIdentity>, u64)>,
}

impl Peers {
    /// Notes a connection. A peer that is being thrown out stays so: its newest proof was judged
    /// before that.
    pub(super) fn connected(
        &mut self,
        admitted: Arc<Admitted>,
        id: ConnectionId,
        (address, relay): (Multiaddr, Option<libp2p::PeerId>),
        direction: Direction,
        now: Timestamp,
    ) -> Arrival {
        let (peer, security) = (admitted.peer, admitted.security);
        let pq_auth = admitted.identity.as_ref().is_some_and(|one| one.pq_auth);
        if let Some(identity) = &admitted.identity {
            self.remember(Arc::clone(identity), admitted.epoch, now);
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            admitted: Arc::clone(&admitted),
            since: now,
            topics: BTreeSet::new(),
            rtt: None,
            closing: None,
            connections: Vec::new(),
        });
        // The newest proof counts: a renewed credential takes effect with the next connection.
        entry.admitted = admitted;
        entry.connections.push(Connection {
            id,
            address,
            direction,
            security,
            pq_auth,
            relay,
        });
        match (entry.closing, entry.connections.len()) {
            (Some(_), _) => Arrival::Unwelcome,
            (None, 1) => Arrival::First,
            (None, _) => Arrival::Another,
        }
    }

    /// This node is closing a peer's connections from now on.
    pub(super) fn close(&mut self, peer: &PeerId, why: &'static str) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.closing = Some(why);
        }
    }

    /// Whose connections are to be closed, and why: those of peers that are `barred`, and once more of
    /// those that are being thrown out and still are here.
    pub(super) fn doomed(
        &self,
        barred: impl Fn(PeerId, &Peer) -> Option<&'static str>,
    ) -> Vec<(PeerId, &'static str)> {
        let doomed = self.peers.iter().filter_map(|(who, peer)| {
            let why = peer.closing.or_else(|| barred(*who, peer))?;
            Some((*who, why))
        });
        doomed.collect()
    }

    /// Forgets a connection; the peer itself when it was the last.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Option<Peer> {
        let entry = self.peers.get_mut(peer)?;
        entry.connections.retain(|known| known.id != id);
        if entry.connections.is_empty() {
            self.peers.remove(peer)
        } else {
            None
        }
    }

    /// A connected peer showed a renewed credential. `false` when it is gone, or was judged anew
    /// meanwhile.
    pub(super) fn renewed(&mut self, admitted: &Arc<Admitted>, now: Timestamp) -> bool {
        let Some(entry) = self.peers.get_mut(&admitted.peer) else {
            return false;
        };
        let keys = |admitted: &Admitted| admitted.identity.as_ref().and_then(|i| i.keys.clone());
        if keys(&entry.admitted) != keys(admitted) {
            return false;
        }
        entry.admitted = Arc::clone(admitted);
        if let Some(identity) = &admitted.identity {
            self.remember(Arc::clone(identity), admitted.epoch, now);
        }
        true
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter()
    }

    /// The verified identities of peers that are connected, and of authors that were.
    pub(super) fn identities(&self) -> impl Iterator<Item = &VerifiedIdentity> {
        let connected = self.peers.values();
        let connected = connected.filter_map(|peer| peer.admitted.identity.as_deref());
        connected.chain(self.authors.values().map(|(identity, _)| identity.as_ref()))
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// How the author of a message is known: by the credential that the message names, if that was
    /// verified, or else by a connection that stands.
    pub(super) fn author(&self, author: &PeerId, credential: Option<&[u8; 32]>) -> Option<Author> {
        let remembered = self.authors.get(author).map(|(identity, _)| identity);
        let peer = self.peers.get(author);
        let known = |tier, identity| Author {
            tier,
            identity,
            footing: peer.map(Peer::footing),
        };
        if let Some(named) = remembered
            && credential == Some(&named.credential_hash)
            && peer.is_none_or(|peer| peer.admitted.identity.is_some())
        {
            return Some(known(named.tier, Some(Arc::clone(named))));
        }
        match peer {
            Some(peer) => Some(known(peer.admitted.tier, peer.admitted.identity.clone())),
            None => remembered.map(|named| known(named.tier, Some(Arc::clone(named)))),
        }
    }

    /// Forgets remembered authors for whom `keep` does not hold (trust withdrawn, expired).
    pub(super) fn forget_authors(&mut self, keep: impl Fn(&VerifiedIdentity, u64) -> bool) {
        self.authors
            .retain(|_, (identity, epoch)| keep(identity, *epoch));
    }

    /// Remembers an author whose identity was verified when this node's trust had that epoch.
    pub(super) fn remember(&mut self, identity: Arc<VerifiedIdentity>, epoch: u64, now: Timestamp) {
        if self.authors.len() >= MAX_AUTHORS && !self.authors.contains_key(&identity.peer) {
            self.authors.retain(|_, (known, _)| known.expires > now);
            // Still full of valid ones: forget any; it costs that author one reconnection.
            if self.authors.len() >= MAX_AUTHORS
                && let Some(any) = self.authors.keys().next().copied()
            {
                self.authors.remove(&any);
            }
        }
        self.authors.insert(identity.peer, (identity, epoch));
    }
}

impl Connection {
    fn report(&self) -> ConnectionReport {
        ConnectionReport {
            address: self.address.to_string(),
            direction: self.direction.name().to_owned(),
            security: self.security,
            pq_auth: self.pq_auth,
            relay: self.relay.map(|relay| relay.to_string()),
        }
    }
}

impl Peer {
    /// Addresses of all its connections.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.connections.iter().map(|one| &one.address)
    }

    /// How it is connected.
    pub(super) fn footing(&self) -> Footing {
        Footing {
            security: self.security(),
            pq_auth: self.connections.iter().all(|one| one.pq_auth),
            ip: self.ip(),
        }
    }

    /// Where it comes from: the address of its oldest connection that has one of its own.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.addresses().find_map(convert::ip_of)
    }

    /// Its connections through relays.
    pub(super) fn relayed(&self) -> impl Iterator<Item = ConnectionId> {
        let all = self.connections.iter();
        all.filter(|one| one.relay.is_some()).map(|one| one.id)
    }

    /// The weakest encryption among its connections: libp2p may use any of them.
    pub(super) fn security(&self) -> SecurityInfo {
        let all = self.connections.iter().map(|one| one.security);
        all.reduce(SecurityInfo::weaker)
            .unwrap_or(self.admitted.security)
    }

    /// Address and direction of the oldest connection that stands.
    pub(super) fn route(&self) -> Option<(&Multiaddr, Direction)> {
        let first = self.connections.first();
        first.map(|one| (&one.address, one.direction))
    }

    /// What an operator sees.
    pub(super) fn report(&self, peer: PeerId) -> PeerReport {
        let identity = self.admitted.identity.as_deref();
        let route = self.route();
        PeerReport {
            peer_id: peer,
            address: route
                .map(|(address, _)| address.to_string())
                .unwrap_or_default(),
            direction: route
                .map_or(Direction::Inbound, |(_, direction)| direction)
                .name()
                .to_owned(),
            security: self.security(),
            connections: self.connections.iter().map(Connection::report).collect(),
            tier: self.admitted.tier.to_string(),
            identity: identity.map(|i| format!("{}/{}", i.issuer, i.subject)),
            formerly: self.admitted.formerly,
            expires: identity.map(|i| i.expires),
            since: self.since,
            topics: self.topics.iter().cloned().collect(),
            rtt_us: self
                .rtt
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            calls: CallsReport::default(),
        }
    }
}

#[cfg(test)]
mod tests;
