//! Tells supervision whose input libp2p is handling, so that a panic is blamed on the right peer.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    network::Attribution,
    supervision::{CoolDowns, HandlingScope, Incarnation},
    types::{Origin, PeerId},
};

/// One incarnation's attribution.
pub(super) struct SwarmAttribution {
    incarnation: Incarnation,
    cooldowns: Arc<CoolDowns>,
    /// The scope of the behaviour call under way. A panic leaves it here: the guard then reads
    /// the origin from the incarnation, before anything of the old value is dropped.
    scope: Mutex<Option<HandlingScope>>,
}

impl SwarmAttribution {
    pub(super) fn new(incarnation: Incarnation, cooldowns: Arc<CoolDowns>) -> Self {
        Self { incarnation, cooldowns, scope: Mutex::new(None) }
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

    fn task_panicked(&self, origin: Origin, detail: &str) {
        self.cooldowns.blame(&origin);
        self.incarnation.fail(format!("a connection task panicked: {detail}"));
    }
}
