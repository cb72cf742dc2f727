//! Which neighbour may listen to which topic, asked by gossip before it sends anything.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    actors::{
        audit::AuditHandle,
        judge::{Judge, Question},
    },
    audit::AuditEvent,
    identity::StatusView,
    network::{Admitted, Listeners},
    policy::{Action, Decision},
    telemetry::Metrics,
    trust::reputation::{self, Standings},
    types::{Clock, PeerId, SecurityInfo, SubjectId, Topic, View},
};

/// Decisions about one neighbour that are written down, one for each topic: as many as it may
/// listen to. What it asks beyond is decided and counted, not recorded.
const RECORDED: usize = 128;

struct Neighbour {
    admitted: Arc<Admitted>,
    ip: Option<IpAddr>,
    /// The weakest encryption of its connections: libp2p may use any of them.
    security: SecurityInfo,
    recorded: HashSet<(Topic, bool)>,
    /// Topics it asked for in vain.
    denied: BTreeSet<Topic>,
}

/// Connected peers as the gate let them in. Belongs to one incarnation of the Swarm actor, which
/// writes it; its own gossip behaviour reads it, on the same thread.
pub(super) struct Neighbours {
    admitted: Mutex<HashMap<PeerId, Neighbour>>,
    audit: AuditHandle,
    standings: View<Standings>,
    statuses: View<StatusView>,
    judge: Arc<Judge>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Neighbours {
    pub(super) fn new(
        audit: AuditHandle,
        (standings, statuses): (View<Standings>, View<StatusView>),
        judge: Arc<Judge>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            admitted: Mutex::default(),
            audit,
            standings,
            statuses,
            judge,
            clock,
            metrics,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<PeerId, Neighbour>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer was let in, or showed a newer credential over a connection that stands; `ip` is
    /// then what it was.
    pub(super) fn connected(&self, admitted: Arc<Admitted>, ip: Option<IpAddr>) {
        let mut all = self.admitted();
        let neighbour = all.entry(admitted.peer).or_insert_with(|| Neighbour {
            admitted: Arc::clone(&admitted),
            ip,
            security: admitted.security,
            recorded: HashSet::new(),
            denied: BTreeSet::new(),
        });
        neighbour.security = neighbour.security.weaker(admitted.security);
        neighbour.admitted = admitted;
        neighbour.ip = neighbour.ip.or(ip);
    }

    /// The topics that a neighbour asked for in vain.
    pub(super) fn denied(&self, peer: &PeerId) -> Vec<Topic> {
        let all = self.admitted();
        let neighbour = all.get(peer);
        neighbour.map_or_else(Vec::new, |one| one.denied.iter().cloned().collect())
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
        let allowed = decision.permits();
        let mut all = self.admitted();
        let Some(neighbour) = all.get_mut(&peer) else {
            return;
        };
        if allowed {
            neighbour.denied.remove(topic);
        } else if neighbour.denied.len() < RECORDED {
            neighbour.denied.insert(topic.clone());
        }
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
            rule: decision.rule.to_string(),
        });
    }
}

impl Listeners for Neighbours {
    fn may_listen(&self, peer: &PeerId, topic: &Topic) -> bool {
        let known = self
            .admitted()
            .get(peer)
            .map(|one| (Arc::clone(&one.admitted), one.ip, one.security));
        let Some((admitted, ip, security)) = known else {
            return false;
        };
        let now = self.clock.now();
        let standings = self.standings.load();
        let identity = admitted.identity.as_deref();
        let decision = self.judge.decide(&Question {
            action: Action::Subscribe,
            peer: *peer,
            tier: admitted.tier,
            identity: admitted.identity.as_ref(),
            standing: standings.standing_of(peer, identity, now),
            status: self.statuses.load().of_peer(identity, now),
            topic: Some(topic),
            command: None,
            security: Some(security),
            ip,
            now,
        });
        self.record(*peer, topic, &decision);
        if !decision.permits() {
            self.metrics.denied("subscribe");
            tracing::debug!(%peer, %topic, rule = %decision.rule, "a subscription was denied");
        }
        decision.permits()
    }
}
