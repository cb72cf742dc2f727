//! What others ask of Swarm.

use std::time::Duration;

use actix::{
    Context, Handler, MessageResult, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};

use super::SwarmActor;
use crate::{
    actors::judge::Question,
    audit::AuditEvent,
    identity::Tier,
    messages::{
        reputation::Standing,
        swarm::{
            DescribeLimits, DescribeSwarm, Drain, LimitUse, ListPeers, PeerReport, PublishFault,
            Subscribe, SwarmReport,
        },
    },
    network,
    policy::Action,
    types::{Topic, TrustScore},
};

impl SwarmActor {
    /// What this node may do itself, by the same rules as everybody.
    pub(super) fn may_i(&self, action: Action, topic: &Topic) -> Result<(), PublishFault> {
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
            return Ok(());
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
            .map_err(|()| PublishFault::Failed("too many subscriptions".to_owned()))
    }
}

impl Handler<ListPeers> for SwarmActor {
    type Result = Vec<PeerReport>;

    fn handle(&mut self, _: ListPeers, _: &mut Context<Self>) -> Self::Result {
        let mut peers: Vec<PeerReport> = self
            .peers
            .iter()
            .map(|(who, peer)| PeerReport {
                calls: self.outbound.report(who, self.tools.clock.elapsed()),
                ..peer.report(*who)
            })
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
        let (reachability, external) = self.reachability();
        MessageResult(SwarmReport {
            reachability,
            external,
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
        let (address, subnet) = admission.most_of_a_place();
        LimitUse {
            inbound: count(counts.inbound),
            outbound: count(counts.outbound),
            most_of_a_peer: count(admission.most_of_a_peer()),
            most_of_an_address: count(address),
            most_of_a_subnet: count(subnet),
            pending: count(counts.pending),
            memory: counts.memory,
            tracked_keys: count(self.tools.limiter.load().usage().fullest()),
        }
    }
}

/// How long what was published last gets to leave before its connections are closed: a queue of small
/// frames is gone in a fraction of it.
const LAST_WORDS: Duration = Duration::from_millis(100);

impl Handler<Drain> for SwarmActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> Self::Result {
        self.memory.draining = true;
        self.remember();
        self.flush_outbox();
        self.abandon_outbox();
        self.leave_floors();
        self.report_refusals();
        let quiet = self.tools.clock.now().since(self.last_sent);
        if quiet >= LAST_WORDS {
            self.close_all();
            return Box::pin(fut::ready(()));
        }
        let leaving = tokio::time::sleep(LAST_WORDS).into_actor(self);
        Box::pin(leaving.map(|(), act, _| act.close_all()))
    }
}

impl SwarmActor {
    fn close_all(&mut self) {
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
