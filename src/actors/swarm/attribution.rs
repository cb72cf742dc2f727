//! Tells supervision whose input libp2p is handling, so that a panic is blamed on the right peer.

use std::sync::{Arc, Mutex, PoisonError};

use super::listeners::Neighbours;
use crate::{
    actors::reputation::ReputationActor,
    messages::reputation::{Charge, Severity},
    network::{Admits, Attribution, Load},
    supervision::{ActorRef, CoolDowns, HandlingScope, Incarnation},
    types::{Origin, Party, PeerId},
};

/// Invalid messages of one frame that are charged one by one: more than these get any peer
/// banned, whatever its score.
const MAX_CHARGES: usize = 20;

/// One incarnation's attribution.
pub(super) struct SwarmAttribution {
    incarnation: Incarnation,
    cooldowns: Arc<CoolDowns>,
    reputation: ActorRef<ReputationActor>,
    neighbours: Arc<Neighbours>,
    /// The scope of the behaviour call under way. A panic leaves it here: the guard then reads
    /// the origin from the incarnation, before anything of the old value is dropped.
    scope: Mutex<Option<HandlingScope>>,
}

impl SwarmAttribution {
    pub(super) fn new(
        incarnation: Incarnation,
        cooldowns: Arc<CoolDowns>,
        reputation: ActorRef<ReputationActor>,
        neighbours: Arc<Neighbours>,
    ) -> Self {
        Self {
            incarnation,
            cooldowns,
            reputation,
            neighbours,
            scope: Mutex::new(None),
        }
    }

    fn replace(&self, scope: Option<HandlingScope>) {
        let mut slot = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        // The old scope first: it restores what was noted before it.
        drop(slot.take());
        *slot = scope;
    }
}

impl Attribution for SwarmAttribution {
    fn begin(&self, peer: PeerId) {
        self.replace(None);
        self.replace(Some(self.incarnation.handling(Origin::peer(peer))));
    }

    fn end(&self) {
        self.replace(None);
    }

    fn invalid_messages(&self, neighbour: PeerId, count: usize) {
        let origin = Origin::peer(neighbour);
        let subject = self.neighbours.answering(&neighbour);
        for _ in 0..count.min(MAX_CHARGES) {
            let charge = Charge {
                party: Party::Peer(neighbour),
                subject: subject.clone(),
                address: None,
                severity: Severity::InvalidMessage,
                evidence: "a message whose signature or form is wrong".to_owned(),
                summed: false,
            };
            if self.reputation.tell_for(origin, charge).is_err() {
                tracing::warn!(peer = %neighbour, "a charge was lost: Reputation is busy");
                return;
            }
        }
    }

    fn admits(&self, neighbour: PeerId, load: &Load) -> Admits {
        self.neighbours.pays(&neighbour, load)
    }

    fn task_panicked(&self, origin: Origin, detail: &str) {
        self.cooldowns.blame(&origin);
        self.incarnation
            .fail(format!("a connection task panicked: {detail}"));
    }
}
