//! Messages and subscriptions of neighbours, and what peers tell by identify and ping.

use std::{mem, sync::Arc};

use actix::Context;
use libp2p::{
    gossipsub::{self, MessageAcceptance, MessageId, TopicHash},
    ping,
};

use super::{
    SwarmActor,
    authors::ParkedMessage,
    judge::{Incoming, Judgement, Views, judge},
    peers::{MAX_TOPICS_PER_PEER, Peer},
};
use crate::{
    actors::judge::Question,
    audit::AuditEvent,
    identity::StatusView,
    messages::{reputation::Standing, swarm::Delivery},
    network::{Entry, Envelope, NodeBehaviourEvent, convert},
    policy::{Action, Decision},
    trust::{rate::Limiter, reputation::Standings},
    types::{Origin, PeerId, Timestamp, Topic},
};

/// Author, topic and rule of decisions that were recorded; about 250 bytes each.
const MAX_PUBLISHERS: usize = 4_096;

impl SwarmActor {
    pub(super) fn on_behaviour_event(
        &mut self,
        event: NodeBehaviourEvent,
        ctx: &mut Context<Self>,
    ) {
        match event {
            NodeBehaviourEvent::Gossip(event) => self.on_gossip(*event),
            NodeBehaviourEvent::Jobs(event) => self.on_jobs(*event, ctx),
            NodeBehaviourEvent::Identity(event) => self.on_identity(*event, ctx),
            NodeBehaviourEvent::Enrolment(event) => self.on_enrolment(*event, ctx),
            NodeBehaviourEvent::Admin(event) => self.on_admin(*event, ctx),
            NodeBehaviourEvent::Ping(ping::Event {
                peer,
                result: Ok(rtt),
                ..
            }) => {
                if let Ok(who) = convert::from_libp2p(&peer)
                    && let Some(peer) = self.peers.get_mut(&who)
                {
                    peer.rtt = Some(rtt);
                }
            }
            // Told from the second time on that none came back; libp2p itself closes nothing. Who
            // does not speak the protocol may be quiet.
            NodeBehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result: Err(failure),
            }) => {
                if !matches!(failure, ping::Failure::Unsupported)
                    && let Some(swarm) = self.swarm.as_mut()
                {
                    tracing::debug!(%peer, %failure, "a connection answers no pings");
                    swarm.close_connection(connection);
                }
            }
            NodeBehaviourEvent::Identify(event) => self.on_identify(*event),
            NodeBehaviourEvent::Found(found) => self.on_found(found),
            NodeBehaviourEvent::Mdns(event) => self.on_mdns(event),
            NodeBehaviourEvent::Relay(event) => self.on_relay(&event),
            NodeBehaviourEvent::Circuit(event) => self.on_circuit(&event),
            NodeBehaviourEvent::Punch(event) => self.on_punch(*event),
            NodeBehaviourEvent::Probe(event) => self.on_probe(&event),
            NodeBehaviourEvent::Probed(event) => self.on_probed(&event),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => {
                self.on_message(&propagation_source, &message_id, &message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.on_subscribed(&peer_id, &topic);
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let (Ok(who), Ok(topic)) = (
                    convert::from_libp2p(&peer_id),
                    Topic::try_new(topic.as_str()),
                ) && let Some(peer) = self.peers.get_mut(&who)
                {
                    peer.topics.remove(&topic);
                }
            }
            gossipsub::Event::SlowPeer {
                peer_id,
                failed_messages,
            } => {
                let lost = failed_messages
                    .priority
                    .saturating_add(failed_messages.non_priority);
                tracing::warn!(peer = %peer_id, lost, "a neighbour is too slow; frames to it are lost");
                self.tools
                    .metrics
                    .message_refused_many("slow_neighbour", lost);
            }
            // A member that does not speak gossipsub can still be a peer.
            gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    /// Where a test has it so: what a peer's input does that a parser does not withstand.
    fn panic_on_purpose(&self, data: &[u8]) {
        let poison = self.tools.config.testing.panic_on.as_bytes();
        let poisoned =
            !poison.is_empty() && data.windows(poison.len()).any(|bytes| bytes == poison);
        assert!(!poisoned, "testing.panic_on: a peer sent it");
    }

    fn on_message(
        &mut self,
        neighbour: &libp2p::PeerId,
        id: &MessageId,
        message: &gossipsub::Message,
    ) {
        // The strict mode of gossipsub lets no message without an author through.
        let author = message
            .source
            .and_then(|author| convert::from_libp2p(&author).ok());
        let forwarder = convert::from_libp2p(neighbour);
        let topic = Topic::try_new(message.topic.as_str());
        let (Some(author), Ok(forwarder), Ok(topic)) = (author, forwarder, topic) else {
            return self.answer(id, neighbour, MessageAcceptance::Reject);
        };
        let _scope = self.incarnation.handling(Origin::peer(forwarder));
        self.panic_on_purpose(&message.data);
        let (limiter, standings) = (self.tools.limiter.load(), self.tools.standings.load());
        let statuses = self.tools.statuses.load();
        let incoming = Incoming {
            author,
            topic: &topic,
            data: &message.data,
        };
        let mut mark = mem::take(&mut self.mark);
        let judgement = {
            let mut windows = self.tools.replay.windows();
            let views = self.views(&limiter, &standings, &statuses);
            let authors = |credential: Option<&[u8; 32]>| self.peers.author(&author, credential);
            judge(&incoming, &authors, (&mut windows, &mut mark), &views)
        };
        self.mark = mark;
        if let Judgement::Park(envelope, credential, taken) = judgement {
            let parked = ParkedMessage {
                id: id.clone(),
                neighbour: *neighbour,
                author,
                topic,
                envelope,
                taken,
            };
            return self.park(forwarder, credential, parked);
        }
        self.settle(id, neighbour, (author, topic), judgement);
    }

    /// What a message is judged from.
    pub(super) fn views<'a>(
        &'a self,
        limiter: &'a Limiter,
        standings: &'a Standings,
        statuses: &'a StatusView,
    ) -> Views<'a> {
        Views {
            limiter,
            standings,
            statuses,
            judge: &self.judge,
            elapsed: self.tools.clock.elapsed(),
            max_payload: self.tools.config.limits.max_message_size.as_usize(),
            now: self.tools.clock.now(),
        }
    }

    /// Does what was judged.
    pub(super) fn settle(
        &mut self,
        id: &MessageId,
        neighbour: &libp2p::PeerId,
        (author, topic): (PeerId, Topic),
        judgement: Judgement,
    ) {
        match judgement {
            Judgement::Accept(envelope, decision) => {
                self.answer(id, neighbour, MessageAcceptance::Accept);
                let count = u64::from(envelope.count());
                self.received = self.received.saturating_add(count);
                self.tools.metrics.messages_received(count);
                self.record_publisher(author, &topic, &decision);
                self.deliver(&topic, author, envelope);
            }
            // A message is parked once.
            Judgement::Park(..) => self.answer(id, neighbour, MessageAcceptance::Ignore),
            Judgement::Ignore(reason) => {
                self.answer(id, neighbour, MessageAcceptance::Ignore);
                self.refuse_message(reason, author);
            }
            Judgement::Deny(reason, decision) => {
                self.answer(id, neighbour, MessageAcceptance::Ignore);
                self.refuse_message(reason, author);
                self.record_publisher(author, &topic, &decision);
            }
            Judgement::Blame(reason) => {
                self.answer(id, neighbour, MessageAcceptance::Ignore);
                self.refuse_message(reason, author);
                self.charge_invalid(author, format!("a signed message on `{topic}`: {reason}"));
            }
            Judgement::Reject(reason) => {
                self.answer(id, neighbour, MessageAcceptance::Reject);
                self.refuse_message(reason, author);
                self.charge_invalid(author, format!("a signed message on `{topic}`: {reason}"));
            }
        }
    }

    /// Writes down what becomes of an author's messages on a topic, and by which rule: once, not
    /// for each message.
    fn record_publisher(&mut self, author: PeerId, topic: &Topic, decision: &Decision) {
        let key = (author, topic.clone(), decision.rule.clone());
        if self.publishers.contains(&key) {
            return;
        }
        if self.publishers.len() >= MAX_PUBLISHERS {
            // Forgotten ones are recorded again with their next message.
            self.publishers.clear();
        }
        self.publishers.insert(key);
        let verdict = decision.verdict;
        self.tools.metrics.decided(Action::Publish, verdict);
        self.tools.audit.note(AuditEvent::Decided {
            action: Action::Publish.name().to_owned(),
            peer: author,
            topic: Some(topic.clone()),
            verdict: verdict.name().to_owned(),
            rule: decision.rule.to_string(),
        });
    }

    pub(super) fn answer(
        &mut self,
        id: &MessageId,
        neighbour: &libp2p::PeerId,
        answer: MessageAcceptance,
    ) {
        if let Some(swarm) = self.swarm.as_mut() {
            let gossip = &mut swarm.behaviour_mut().gossip;
            // `false`: the message left the cache meanwhile and is not forwarded. Nothing to do.
            let _ = gossip.report_message_validation_result(id, neighbour, answer);
        }
    }

    pub(super) fn refuse_message(&mut self, reason: &'static str, author: PeerId) {
        self.tools.metrics.message_refused(reason);
        self.refused
            .add((reason, Some(author)), self.tools.clock.now());
    }

    /// Delivers the messages of an envelope in order.
    pub(super) fn deliver(&mut self, topic: &Topic, author: PeerId, envelope: Envelope) {
        // Nobody here listens: then it need not be opened either.
        if !self.subscribers.has(topic) {
            return;
        }
        let Envelope { sent, entries, .. } = envelope;
        let mut dropped = 0_usize;
        for mut entry in entries {
            let Some(payload) = self.readable(topic, author, &mut entry) else {
                continue;
            };
            let Entry { sealed, trace, .. } = entry;
            // A span of this node's own, sampled as this node samples: the author's is linked.
            let span = trace.as_deref().map(|trace| {
                tracing::info_span!(
                    parent: None,
                    "message",
                    %topic,
                    %author,
                    link.trace_id = trace.trace_id(),
                    link.span_id = trace.span_id(),
                )
            });
            let entered = span.as_ref().map(tracing::Span::enter);
            let outcome = self.subscribers.deliver(Delivery {
                topic: topic.clone(),
                author,
                sent,
                payload,
                sealed,
                trace,
            });
            dropped = dropped.saturating_add(outcome.dropped);
            if entered.is_some() {
                tracing::debug!(
                    delivered = outcome.delivered,
                    "a message with a trace context"
                );
            }
        }
        if dropped > 0 {
            let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
            self.tools.metrics.deliveries_dropped(dropped);
        }
    }

    /// Gossip asked whether the neighbour may listen before it told of it.
    fn on_subscribed(&mut self, peer: &libp2p::PeerId, topic: &TopicHash) {
        if let (Ok(who), Ok(topic)) = (convert::from_libp2p(peer), Topic::try_new(topic.as_str()))
            && let Some(peer) = self.peers.get_mut(&who)
            && peer.topics.len() < MAX_TOPICS_PER_PEER
        {
            peer.topics.insert(topic);
        }
    }

    /// What the rules say of a connected peer now. Not counted as a decision: nobody asked.
    pub(super) fn evaluate(
        &self,
        action: Action,
        who: PeerId,
        peer: &Peer,
        standing: Option<Standing>,
        topic: Option<&Topic>,
        now: Timestamp,
    ) -> Arc<Decision> {
        let identity = peer.admitted.identity.as_ref();
        let statuses = self.tools.statuses.load();
        self.judge.review(&Question {
            action,
            peer: who,
            tier: peer.admitted.tier,
            identity,
            standing,
            status: statuses.of_peer(identity.map(|one| &**one), now),
            topic,
            command: None,
            footing: Some(peer.footing()),
            now,
        })
    }

    /// Closes every connection of a peer; why is recorded when the last one is gone.
    pub(super) fn close_peer(&mut self, who: PeerId, why: &'static str) {
        self.peers.close(&who, why);
        if let (Some(swarm), Ok(peer)) = (self.swarm.as_mut(), convert::to_libp2p(&who)) {
            // An error means that it is not connected any more, which was the wish.
            let _ = swarm.disconnect_peer_id(peer);
        }
    }
}
