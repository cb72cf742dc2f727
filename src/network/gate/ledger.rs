//! Which connection was admitted as what: the gate writes, the admission behaviour reads.
//!
//! The key is the Swarm's connection id, which the transport never sees. It is learnt from the
//! order in which the Swarm calls: `Transport::poll` yields an incoming connection and
//! `handle_pending_inbound_connection` follows at once; `handle_pending_outbound_connection` is
//! followed at once by `Transport::dial`. Should a later libp2p change that order, the record is
//! not found and the connection denied; `tests/identity_gate.rs` pins it.
//!
//! Bounded by the connections under way: a slot goes when its connection is established, fails,
//! or is denied. Racing connections of one peer have an id each and cannot mix.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use libp2p::{Multiaddr, core::transport::ListenerId, swarm::ConnectionId};

use super::Admitted;
use crate::{identity::Tier, network::convert};

/// Where one upgrade files its result.
pub(crate) type Slot = Arc<OnceLock<Admitted>>;

/// The shared book of one Swarm; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// What `Transport::poll` yielded last, until the Swarm names it.
    arriving: Option<Ticket>,
    /// The id for which the Swarm is about to call `Transport::dial`.
    dialling: Option<ConnectionId>,
    /// Slots of the connections under way; a dial has one for each address.
    under_way: HashMap<ConnectionId, Vec<Ticket>>,
    /// Listeners that ask for no credential.
    open: HashSet<ListenerId>,
    /// The connection whose record was taken last, and as what it was admitted. The Swarm asks
    /// all behaviours about one connection in one call, admission first: those after it learn
    /// here whom they are asked about.
    taken: Option<(ConnectionId, Tier)>,
}

#[derive(Debug)]
struct Ticket {
    ends: Ends,
    slot: Slot,
}

#[derive(Debug, PartialEq, Eq)]
enum Ends {
    Inbound(Multiaddr, Multiaddr),
    Outbound(Multiaddr),
}

impl Ends {
    fn inbound(local: &Multiaddr, remote: &Multiaddr) -> Self {
        Self::Inbound(local.clone(), remote.clone())
    }

    /// The Swarm names a dialled address with and without the peer at its end.
    fn outbound(address: &Multiaddr) -> Self {
        Self::Outbound(convert::split_p2p(address).0)
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change below is a single insert or remove: a poisoned book is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exempts a listener from the credential exchange.
    pub(crate) fn open(&self, listener: ListenerId) {
        self.book().open.insert(listener);
    }

    pub(super) fn close(&self, listener: ListenerId) {
        self.book().open.remove(&listener);
    }

    pub(super) fn is_open(&self, listener: ListenerId) -> bool {
        self.book().open.contains(&listener)
    }

    /// The transport yields an incoming connection.
    pub(crate) fn arrive(&self, local: &Multiaddr, remote: &Multiaddr) -> Slot {
        let slot = Slot::default();
        self.book().arriving = Some(Ticket {
            ends: Ends::inbound(local, remote),
            slot: slot.clone(),
        });
        slot
    }

    /// The transport is asked to dial.
    pub(crate) fn dial(&self, address: &Multiaddr) -> Slot {
        let slot = Slot::default();
        let mut book = self.book();
        if let Some(id) = book.dialling {
            book.under_way.entry(id).or_default().push(Ticket {
                ends: Ends::outbound(address),
                slot: slot.clone(),
            });
        }
        slot
    }

    /// The Swarm names the connection that just arrived.
    pub(crate) fn pend_inbound(&self, id: ConnectionId, local: &Multiaddr, remote: &Multiaddr) {
        let mut book = self.book();
        if let Some(ticket) = book.arriving.take()
            && ticket.ends == Ends::inbound(local, remote)
        {
            book.under_way.insert(id, vec![ticket]);
        }
    }

    /// The Swarm names the connection it dials next.
    pub(crate) fn pend_outbound(&self, id: ConnectionId) {
        self.book().dialling = Some(id);
    }

    /// Takes what the gate filed for an inbound connection.
    pub(crate) fn take_inbound(
        &self,
        id: ConnectionId,
        peer: &libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Option<Admitted> {
        self.take(id, peer, &Ends::inbound(local, remote))
    }

    /// Takes what the gate filed for a dialled connection.
    pub(crate) fn take_outbound(
        &self,
        id: ConnectionId,
        peer: &libp2p::PeerId,
        address: &Multiaddr,
    ) -> Option<Admitted> {
        self.take(id, peer, &Ends::outbound(address))
    }

    fn take(&self, id: ConnectionId, peer: &libp2p::PeerId, ends: &Ends) -> Option<Admitted> {
        let mut book = self.book();
        book.taken = None;
        let tickets = book.under_way.remove(&id)?;
        let peer = convert::from_libp2p(peer).ok()?;
        let admitted = tickets
            .into_iter()
            .filter(|ticket| ticket.ends == *ends)
            .find_map(|ticket| ticket.slot.get().cloned())
            .filter(|admitted| admitted.peer == peer)?;
        book.taken = Some((id, admitted.tier));
        Some(admitted)
    }

    /// Whether the connection whose record was taken last is this one, and a member's. To be asked
    /// while the Swarm establishes it.
    pub(crate) fn is_member(&self, id: ConnectionId) -> bool {
        self.book().taken == Some((id, Tier::Member))
    }

    /// The connection failed or was denied.
    pub(crate) fn forget(&self, id: ConnectionId) {
        let mut book = self.book();
        book.under_way.remove(&id);
        if book.dialling == Some(id) {
            book.dialling = None;
        }
    }

    /// Connections with a slot, for tests and the actor's observable state.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.book().under_way.len()
    }
}
