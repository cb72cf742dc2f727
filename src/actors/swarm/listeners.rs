//! Which neighbour may listen to which topic, asked by gossip before it sends anything.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    actors::{
        audit::AuditHandle,
        judge::{Judge, Question},
    },
    audit::{Aggregator, AuditEvent, Tally},
    identity::StatusView,
    network::{Admits, Admitted, Listeners, Load},
    policy::{Action, Decision, Rule},
    telemetry::Metrics,
    trust::{
        rate::{Denial, DenialReason, Limiter},
        reputation::{self, Standings},
    },
    types::{Clock, Footing, PeerId, SubjectId, Topic, View},
};

/// Decisions about one neighbour that are written down, one for each topic: as many as it may
/// listen to. What it asks beyond is decided and counted, not recorded.
const RECORDED: usize = 128;
/// Topics asked for in vain that are remembered of one neighbour: each is asked about again in
/// every review. Of more it hears when it connects the next time.
const DENIED: usize = 16;
/// What a subscription weighs in a neighbour's budget, bytes: a decision takes some tens of
/// microseconds, as long as forwarding a message of this size. With the default budget some three
/// thousand a second.
const SUBSCRIPTION_BYTES: u64 = 16 << 10;

struct Neighbour {
    admitted: Arc<Admitted>,
    footing: Footing,
    recorded: HashSet<(Topic, Rule)>,
    /// Topics it asked for in vain.
    denied: BTreeSet<Topic>,
}

/// Kinds of refused frames told apart until the next record.
const REFUSAL_KEYS: usize = 1_024;

/// Which budget was spent, and whose.
type Refusal = (&'static str, Option<PeerId>);

/// Connected peers as the gate let them in. Belongs to one incarnation of the Swarm actor, which
/// writes it; its own gossip behaviour reads it, on the same thread.
pub(super) struct Neighbours {
    admitted: Mutex<HashMap<PeerId, Neighbour>>,
    refused: Mutex<Aggregator<Refusal>>,
    audit: AuditHandle,
    standings: View<Standings>,
    statuses: View<StatusView>,
    limiter: View<Limiter>,
    judge: Arc<Judge>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Neighbours {
    pub(super) fn new(
        audit: AuditHandle,
        (standings, statuses, limiter): (View<Standings>, View<StatusView>, View<Limiter>),
        judge: Arc<Judge>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            admitted: Mutex::default(),
            refused: Mutex::new(Aggregator::new(REFUSAL_KEYS, |(reason, _)| (reason, None))),
            audit,
            standings,
            statuses,
            limiter,
            judge,
            clock,
            metrics,
        }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<PeerId, Neighbour>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer was let in, showed a newer credential, or has a connection more or less.
    pub(super) fn stands(&self, admitted: &Arc<Admitted>, footing: Footing) {
        let mut all = self.admitted();
        let neighbour = all.entry(admitted.peer).or_insert_with(|| Neighbour {
            admitted: Arc::clone(admitted),
            footing,
            recorded: HashSet::new(),
            denied: BTreeSet::new(),
        });
        neighbour.admitted = Arc::clone(admitted);
        neighbour.footing = footing;
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

    /// Charges a neighbour for what it sent. First for what the protocol says to itself: a neighbour
    /// over its budget of messages is not to lose the answers it owes and the places it takes or gives
    /// up, which it would pay for with its good name.
    pub(super) fn pays(&self, peer: &PeerId, load: &Load) -> Admits {
        let messages = load.messages.saturating_add(load.invalid);
        if let Err(denial) = self.charge(peer, load.control, load.control_bytes) {
            self.refuse(peer, denial, messages.saturating_add(load.control));
            return Admits::Nothing;
        }
        if let Err(denial) = self.charge(peer, messages, load.bytes) {
            self.refuse(peer, denial, messages);
            return Admits::NoMessages;
        }
        Admits::Everything
    }

    fn charge(&self, peer: &PeerId, frames: usize, bytes: usize) -> Result<(), Denial> {
        if frames == 0 {
            return Ok(());
        }
        let limiter = self.limiter.load();
        limiter.charge_frames(*peer, u32::try_from(frames).unwrap_or(u32::MAX))?;
        limiter.charge_neighbour(*peer, u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    fn refuse(&self, peer: &PeerId, denial: Denial, messages: usize) {
        let reason = match denial.reason {
            DenialReason::TooMuchAtOnce => "neighbour_frames",
            other => other.code(),
        };
        self.metrics.message_refused_many(reason, messages);
        let count = u64::try_from(messages.max(1)).unwrap_or(u64::MAX);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.add_many((reason, Some(*peer)), count, self.clock.now());
    }

    /// What was refused since this was last asked.
    pub(super) fn take_refused(&self) -> Vec<(Refusal, Tally)> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.drain()
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
        } else if neighbour.denied.len() < DENIED {
            neighbour.denied.insert(topic.clone());
        }
        if neighbour.recorded.len() >= RECORDED
            || !neighbour
                .recorded
                .insert((topic.clone(), decision.rule.clone()))
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
            .map(|one| (Arc::clone(&one.admitted), one.footing));
        let Some((admitted, footing)) = known else {
            return false;
        };
        // A decision costs time, and who asks pays for it.
        let limiter = self.limiter.load();
        if limiter.charge_neighbour(*peer, SUBSCRIPTION_BYTES).is_err() {
            self.metrics.denied("subscribe_rate");
            return false;
        }
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
            footing: Some(footing),
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

#[cfg(test)]
mod tests;
