//! Which neighbour may listen to which topic, asked by gossip before it sends anything.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    config::Config,
    network::{Admitted, Listeners},
    telemetry::Metrics,
    trust::{
        decision::{self, Action, Request, Subject, Verdict},
        reputation::Standings,
    },
    types::{Clock, PeerId, Topic, View},
};

/// Connected peers as the gate let them in. Belongs to one incarnation of the Swarm actor, which
/// writes it; its own gossip behaviour reads it, on the same thread.
pub(super) struct Neighbours {
    admitted: Mutex<HashMap<PeerId, Arc<Admitted>>>,
    standings: View<Standings>,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Neighbours {
    pub(super) fn new(
        standings: View<Standings>,
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            admitted: Mutex::default(),
            standings,
            config,
            clock,
            metrics,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Admitted>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self, admitted: Arc<Admitted>) {
        self.admitted().insert(admitted.peer, admitted);
    }

    pub(super) fn gone(&self, peer: &PeerId) {
        self.admitted().remove(peer);
    }
}

impl Listeners for Neighbours {
    fn may_listen(&self, peer: &PeerId, topic: &Topic) -> bool {
        let Some(admitted) = self.admitted().get(peer).cloned() else {
            return false;
        };
        let now = self.clock.now();
        let decision = decision::evaluate(&Request {
            action: Action::Subscribe,
            subject: Subject {
                peer: *peer,
                tier: admitted.tier,
                identity: admitted.identity.as_deref(),
                standing: self.standings.load().standing(peer, now),
            },
            topic: Some(topic),
            now,
            policy: &self.config.policy,
        });
        self.metrics.decided(Action::Subscribe, decision.verdict);
        let allowed = decision.verdict == Verdict::Allow;
        if !allowed {
            self.metrics.denied("subscribe");
            tracing::info!(%peer, %topic, rule = decision.rule, "a subscription was denied");
        }
        allowed
    }
}
