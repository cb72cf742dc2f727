//! What others ask of Swarm.

use std::time::Duration;

use actix::{Context, Handler, MessageResult};

use super::SwarmActor;
use crate::{
    actors::judge::Question,
    audit::AuditEvent,
    identity::Tier,
    messages::{
        reputation::Standing,
        swarm::{
            DescribeLimits, DescribeSwarm, Drain, LimitUse, ListPeers, PeerReport, Publish,
            PublishFault, Published, Subscribe, SwarmReport,
        },
    },
    network::{self, Envelope, PublishRefusal},
    policy::Action,
    types::{Topic, TrustScore},
};

/// Said to a publisher over its budget when the limiter does not know better.
const OWN_RATE_PAUSE: Duration = Duration::from_secs(1);

impl SwarmActor {
    /// What this node may do itself, by the same rules as everybody.
    fn may_i(&self, action: Action, topic: &Topic) -> Result<Option<[u8; 32]>, PublishFault> {
        if self.memory.draining {
            return Err(PublishFault::Failed("the node is stopping".to_owned()));
        }
        let own = self.tools.own.load();
        let identity = own.identity.as_ref();
        let now = self.tools.clock.now();
        let decision = self.judge.decide(&Question {
            action,
            peer: self.me,
            tier: identity.map_or(Tier::Unverified, |identity| identity.tier),
            identity,
            // A node has no opinion of itself that could be worse than this.
            standing: Some(Standing {
                score: TrustScore::ONE,
                banned_until: None,
                probation: false,
            }),
            status: self
                .tools
                .statuses
                .load()
                .of_peer(identity.map(|one| &**one), now),
            topic: Some(topic),
            command: None,
            footing: None,
            now,
        });
        if decision.permits() {
            return Ok(identity.map(|identity| identity.credential_hash));
        }
        let rule = &decision.rule;
        self.tools.audit.note(AuditEvent::Decided {
            action: action.name().to_owned(),
            peer: self.me,
            topic: Some(topic.clone()),
            verdict: decision.verdict.name().to_owned(),
            rule: rule.to_string(),
        });
        let tier = identity.map(|identity| identity.tier);
        Err(PublishFault::Denied(match (tier, decision.hint()) {
            (_, Some(hint)) => format!("{rule}: {hint}"),
            (Some(Tier::Member), None) => format!("{rule}: see `policy.member_topics`"),
            (Some(Tier::SelfSigned), None) => format!("{rule}: see `policy.unverified_topics`"),
            (Some(Tier::Unverified | Tier::Invited | Tier::RenewalOnly) | None, None) => format!(
                "{rule}: this node has no valid credential of an issuer it trusts; see \
                 `quantraband identity show` and `identity request`"
            ),
        }))
    }

    fn listeners(&self, topic: &Topic) -> usize {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.topics.contains(topic))
            .count()
    }
}

impl Handler<Publish> for SwarmActor {
    type Result = Result<Published, PublishFault>;

    fn handle(&mut self, message: Publish, _: &mut Context<Self>) -> Self::Result {
        let Publish {
            topic,
            mut payload,
            seal_to,
        } = message;
        let credential = self.may_i(Action::Publish, &topic)?;
        let sealed = !seal_to.is_empty();
        if sealed {
            payload = self.seal(&topic, &payload, &seal_to)?;
        }
        let limit = self.tools.config.limits.max_message_size.as_usize();
        if payload.len() > limit {
            return Err(PublishFault::TooLarge {
                size: payload.len(),
                limit,
            });
        }
        // The neighbours hold this node to the same budget and would drop in silence what is
        // over it: say so here instead.
        if let Err(denial) = self.tools.limiter.load().charge_author(self.me, 1) {
            self.tools.metrics.message_refused("own_rate");
            return Err(PublishFault::OverRate(
                denial.retry_after.unwrap_or(OWN_RATE_PAUSE),
            ));
        }
        self.sequence = self.sequence.saturating_add(1);
        let sent = self.tools.clock.now();
        let envelope = Envelope {
            sent,
            sequence: self.sequence,
            credential,
            payload,
            sealed,
        };
        let listeners = self.listeners(&topic);
        let swarm = self
            .swarm
            .as_mut()
            .ok_or_else(|| PublishFault::Failed("the network is not up".to_owned()))?;
        let gossip = &mut swarm.behaviour_mut().gossip;
        let message_id = match network::publish(gossip, &topic, &envelope, limit) {
            Ok(id) => Some(hex::encode(id.0)),
            Err(PublishRefusal::NoListeners) => None,
            Err(PublishRefusal::Backpressure) => return Err(PublishFault::Backpressure),
            Err(PublishRefusal::TooLarge { size, limit }) => {
                return Err(PublishFault::TooLarge { size, limit });
            }
            Err(other) => return Err(PublishFault::Failed(other.to_string())),
        };
        self.sent = self.sent.saturating_add(1);
        self.tools.metrics.message_sent();
        self.deliver(topic, self.me, envelope);
        Ok(Published {
            message_id,
            listeners,
        })
    }
}

impl Handler<Subscribe> for SwarmActor {
    type Result = Result<(), PublishFault>;

    fn handle(&mut self, message: Subscribe, _: &mut Context<Self>) -> Self::Result {
        let Subscribe { topic, sink } = message;
        self.may_i(Action::Subscribe, &topic)?;
        let swarm = self
            .swarm
            .as_mut()
            .ok_or_else(|| PublishFault::Failed("the network is not up".to_owned()))?;
        network::subscribe(&mut swarm.behaviour_mut().gossip, &topic)
            .map_err(|error| PublishFault::Failed(error.to_string()))?;
        self.subscribers
            .add(topic, sink)
            .map(drop)
            .map_err(|()| PublishFault::Backpressure)
    }
}

impl Handler<ListPeers> for SwarmActor {
    type Result = Vec<PeerReport>;

    fn handle(&mut self, _: ListPeers, _: &mut Context<Self>) -> Self::Result {
        let mut peers: Vec<PeerReport> = self
            .peers
            .iter()
            .map(|(who, peer)| peer.report(*who))
            .collect();
        peers.sort_by_key(|peer| peer.since);
        peers
    }
}

impl Handler<DescribeSwarm> for SwarmActor {
    type Result = MessageResult<DescribeSwarm>;

    fn handle(&mut self, _: DescribeSwarm, _: &mut Context<Self>) -> Self::Result {
        let missing = self
            .plan
            .missing()
            .filter(|peer| self.bootstrap.contains(peer));
        MessageResult(SwarmReport {
            listen: self.listen_addresses(),
            connected: self.peers.len(),
            missing_bootstrap: missing.collect(),
            topics: self.subscribers.topics(),
        })
    }
}

impl Handler<DescribeLimits> for SwarmActor {
    type Result = LimitUse;

    fn handle(&mut self, _: DescribeLimits, _: &mut Context<Self>) -> LimitUse {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let Some(swarm) = self.swarm.as_mut() else {
            return LimitUse::default();
        };
        let admission = &mut swarm.behaviour_mut().admission;
        admission.look_at_memory();
        let counts = admission.counts();
        LimitUse {
            inbound: count(counts.inbound),
            outbound: count(counts.outbound),
            most_of_a_peer: count(admission.most_of_a_peer()),
            pending: count(counts.pending),
            memory: counts.memory,
            tracked_keys: count(self.tools.limiter.load().usage().fullest()),
        }
    }
}

impl Handler<Drain> for SwarmActor {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {
        self.memory.draining = true;
        self.remember();
        self.report_refusals();
        let Some(swarm) = self.swarm.as_mut() else {
            return;
        };
        for id in std::mem::take(&mut self.listeners).into_keys() {
            swarm.remove_listener(id);
        }
        let peers: Vec<_> = self.peers.iter().map(|(who, _)| *who).collect();
        for who in peers {
            self.close_peer(who, "node stops");
        }
    }
}
