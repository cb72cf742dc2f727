//! Which neighbour may listen to which topic, asked by gossip before it sends anything.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    actors::audit::AuditHandle,
    audit::AuditEvent,
    config::Config,
    identity::StatusView,
    network::{Admitted, Listeners},
    telemetry::Metrics,
    trust::{
        decision::{self, Action, Decision, Request, Subject, Verdict},
        reputation::{self, Standings},
    },
    types::{Clock, PeerId, SubjectId, Topic, View},
};

/// Decisions about one neighbour that are written down, one for each topic: as many as it may
/// listen to. What it asks beyond is decided and counted, not recorded.
const RECORDED: usize = 128;

struct Neighbour {
    admitted: Arc<Admitted>,
    recorded: HashSet<(Topic, bool)>,
}

/// Connected peers as the gate let them in. Belongs to one incarnation of the Swarm actor, which
/// writes it; its own gossip behaviour reads it, on the same thread.
pub(super) struct Neighbours {
    admitted: Mutex<HashMap<PeerId, Neighbour>>,
    audit: AuditHandle,
    standings: View<Standings>,
    statuses: View<StatusView>,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Neighbours {
    pub(super) fn new(
        audit: AuditHandle,
        (standings, statuses): (View<Standings>, View<StatusView>),
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            admitted: Mutex::default(),
            audit,
            standings,
            statuses,
            config,
            clock,
            metrics,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<PeerId, Neighbour>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self, admitted: Arc<Admitted>) {
        let mut all = self.admitted();
        let neighbour = all.entry(admitted.peer).or_insert_with(|| Neighbour {
            admitted: Arc::clone(&admitted),
            recorded: HashSet::new(),
        });
        neighbour.admitted = admitted;
    }

    /// The member that answers for what comes over a neighbour's connection.
    pub(super) fn answering(&self, peer: &PeerId) -> Option<SubjectId> {
        let now = self.clock.now();
        let all = self.admitted();
        let identity = all.get(peer)?.admitted.identity.as_deref();
        let revoked = self.statuses.load().of_peer(identity, now).is_revoked();
        reputation::answers(identity, now).filter(|_| !revoked)
    }

    pub(super) fn gone(&self, peer: &PeerId) {
        self.admitted().remove(peer);
    }
}

impl Neighbours {
    /// Writes a decision down, once for each neighbour, topic and outcome.
    fn record(&self, peer: PeerId, topic: &Topic, decision: &Decision) {
        let allowed = decision.verdict == Verdict::Allow;
        let mut all = self.admitted();
        let Some(neighbour) = all.get_mut(&peer) else {
            return;
        };
        if neighbour.recorded.len() >= RECORDED
            || !neighbour.recorded.insert((topic.clone(), allowed))
        {
            return;
        }
        drop(all);
        // Noted, not awaited: gossip wants its answer now. What is granted is a neighbour's
        // place among those a topic is sent to, and it ends with the connection, whose own
        // grant was durable before.
        self.audit.note(AuditEvent::Decided {
            action: Action::Subscribe.name().to_owned(),
            peer,
            topic: Some(topic.clone()),
            verdict: decision.verdict.name().to_owned(),
            rule: decision.rule.to_owned(),
        });
    }
}

impl Listeners for Neighbours {
    fn may_listen(&self, peer: &PeerId, topic: &Topic) -> bool {
        let known = self
            .admitted()
            .get(peer)
            .map(|neighbour| Arc::clone(&neighbour.admitted));
        let Some(admitted) = known else { return false };
        let now = self.clock.now();
        let standings = self.standings.load();
        let identity = admitted.identity.as_deref();
        let decision = decision::evaluate(&Request {
            action: Action::Subscribe,
            subject: Subject {
                peer: *peer,
                tier: admitted.tier,
                identity,
                standing: standings.standing_of(peer, identity, now),
                status: self.statuses.load().of_peer(identity, now),
            },
            topic: Some(topic),
            security: Some(admitted.security),
            now,
            policy: &self.config.policy,
        });
        self.metrics.decided(Action::Subscribe, decision.verdict);
        self.record(*peer, topic, &decision);
        let allowed = decision.verdict == Verdict::Allow;
        if !allowed {
            self.metrics.denied("subscribe");
            tracing::debug!(%peer, %topic, rule = decision.rule, "a subscription was denied");
        }
        allowed
    }
}
