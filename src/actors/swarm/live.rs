//! Judges live connections again and again: what was right to let in may be wrong to keep.

use std::{sync::Arc, time::Duration};

use actix::Context;

use super::{REVIEW, SwarmActor, peers::Peer, publish};
use crate::{
    audit::AuditEvent,
    network::{self, Refused, convert},
    policy::Action,
    types::{PeerId, Timestamp},
};

/// Questions asked about live connections in one tick, a tenth of a second: some tens of
/// milliseconds when none of the answers is remembered. A thousand peers with a handful of topics
/// each are looked at in less than a second.
const QUESTIONS: usize = 1_000;
/// How long a peer that may do nothing but ask for a credential stays connected: many times what
/// one answer takes.
const LIMITED_STAY: Duration = Duration::from_secs(60);

impl SwarmActor {
    pub(super) fn on_tick(&mut self, ctx: &mut Context<Self>) {
        let elapsed = self.tools.clock.elapsed();
        self.tend_parking();
        self.move_mark(ctx);
        self.tend_outbox();
        self.tell_standings(elapsed >= self.next_review);
        self.outbox
            .set_rules(publish::rules(&self.tools.live.load()));
        let waiting = self.outbox.waiting();
        self.tools.metrics.gossip().set_waiting(waiting);
        self.tend_calls(ctx);
        if !self.memory.draining {
            self.dial_due(ctx);
            self.tend_reach(ctx);
        }
        if elapsed >= self.next_review {
            self.next_review = elapsed.saturating_add(REVIEW);
            self.leave_topics();
            self.review();
        }
        self.review_rights();
        self.shed();
        if elapsed >= self.next_report {
            self.next_report = elapsed.saturating_add(self.tools.config.audit.aggregate.0);
            self.report_refusals();
        }
    }

    /// Tells gossip how its neighbours stand, when that changed or `again` because it changes with
    /// time.
    fn tell_standings(&mut self, again: bool) {
        let standings = self.tools.standings.load();
        let same = self
            .told
            .as_ref()
            .is_some_and(|told| Arc::ptr_eq(told, &standings));
        if same && !again {
            return;
        }
        let peers: Vec<PeerId> = self.peers.iter().map(|(who, _)| *who).collect();
        for who in peers {
            self.tell_standing(who);
        }
        self.told = Some(standings);
    }

    /// Tells gossip how a neighbour stands. Before it is connected gossip would not listen.
    pub(super) fn tell_standing(&mut self, who: PeerId) {
        let Some(peer) = self.peers.get(&who) else {
            return;
        };
        let (standings, now) = (self.tools.standings.load(), self.tools.clock.now());
        let identity = peer.admitted.identity.as_deref();
        let Some(standing) = standings.standing_of(&who, identity, now) else {
            return;
        };
        let rules = &self.tools.live.load().reputation;
        if let (Some(swarm), Ok(peer)) = (self.swarm.as_mut(), convert::to_libp2p(&who)) {
            let gossip = &mut swarm.behaviour_mut().gossip;
            let scale = (rules.neutral, rules.ban_below);
            network::stands(gossip, &peer, standing.score, scale);
        }
    }

    fn leave_topics(&mut self) {
        for topic in self.subscribers.prune() {
            if let Some(swarm) = self.swarm.as_mut() {
                let topic = libp2p::gossipsub::IdentTopic::new(topic.as_str());
                swarm.behaviour_mut().gossip.unsubscribe(&topic);
            }
        }
    }

    /// Ends every connection of those who are nobody here any more, and begins a round of looking
    /// at what the others may.
    fn review(&mut self) {
        let now = self.tools.clock.now();
        let doomed = self.peers.doomed(|who, peer| self.barred(who, peer, now));
        for (who, why) in doomed {
            self.throw_out(who, why);
        }
        if self.reviewing.is_empty() {
            self.reviewing = self.peers.iter().map(|(who, _)| *who).collect();
        }
        let trust = self.tools.trust.load();
        let statuses = self.tools.statuses.load();
        self.peers.forget_authors(|identity, epoch| {
            identity.expires > now
                && trust.covers(&identity.anchor, epoch)
                && !statuses.standing(identity, now).is_revoked()
        });
    }

    /// Looks at what peers may, as many as fit in one tick.
    fn review_rights(&mut self) {
        let now = self.tools.clock.now();
        let mut asked = 0_usize;
        while asked < QUESTIONS
            && let Some(who) = self.reviewing.pop_front()
        {
            let Some(peer) = self.peers.get(&who).filter(|one| one.closing.is_none()) else {
                continue;
            };
            asked = asked.saturating_add(peer.topics.len()).saturating_add(1);
            if let Some(why) = self.not_permitted(who, peer, now) {
                self.throw_out(who, why);
            }
        }
    }

    /// Closes a peer's connections; again, when it was told before and is still there.
    fn throw_out(&mut self, who: PeerId, why: &'static str) {
        if self
            .peers
            .get(&who)
            .is_some_and(|one| one.closing.is_none())
        {
            tracing::warn!(peer = %who, why, "closing a live connection");
            self.tools.metrics.denied("live_review");
        }
        self.close_peer(who, why);
    }

    /// Why a connected peer is nobody here any more, whatever the policies say.
    fn barred(&self, who: PeerId, peer: &Peer, now: Timestamp) -> Option<&'static str> {
        let standings = self.tools.standings.load();
        let limited = peer.admitted.tier.is_limited();
        if limited && now.since(peer.since) >= LIMITED_STAY {
            return Some("a connection for enrolment has ended");
        }
        if let Some(identity) = &peer.admitted.identity {
            if identity.expires <= now && !limited {
                return Some("credential expired");
            }
            if !self
                .tools
                .trust
                .load()
                .covers(&identity.anchor, peer.admitted.epoch)
            {
                return Some("issuer no longer trusted");
            }
            if self
                .tools
                .statuses
                .load()
                .standing(identity, now)
                .is_revoked()
            {
                return Some("credential revoked");
            }
        }
        let banned = |address| {
            let ip = convert::ip_of(address);
            ip.is_some_and(|ip| standings.address_banned(ip, now).is_some())
        };
        let standing = standings.standing_of(&who, peer.admitted.identity.as_deref(), now);
        // Where nobody knows, nobody stays.
        let barred = standing.is_none_or(|standing| standing.banned_until.is_some());
        (barred || peer.addresses().any(banned)).then_some("banned")
    }

    /// What a connected peer does that it may not do now.
    fn not_permitted(&self, who: PeerId, peer: &Peer, now: Timestamp) -> Option<&'static str> {
        let standings = self.tools.standings.load();
        let standing = standings.standing_of(&who, peer.admitted.identity.as_deref(), now);
        let may = |action, topic| {
            self.evaluate(action, who, peer, standing, topic, now)
                .permits()
        };
        if !may(Action::Connect, None) {
            return Some("denied by policy");
        }
        // Gossip asks once, when a subscription is told; only another connection asks again.
        if !peer.topics.iter().all(|t| may(Action::Subscribe, Some(t))) {
            return Some("may no longer listen to a topic");
        }
        let denied = self.neighbours.denied(&who);
        let mut denied = denied.iter();
        denied
            .any(|topic| may(Action::Subscribe, Some(topic)))
            .then_some("may listen to more topics now")
    }

    /// Closes some connections while the process takes too much memory.
    fn shed(&mut self) {
        let Some(swarm) = self.swarm.as_mut() else {
            return;
        };
        let gone = swarm.behaviour_mut().admission.shed();
        if gone.is_empty() {
            return;
        }
        tracing::warn!(
            count = gone.len(),
            "too much memory: connections are closed"
        );
        for id in gone {
            swarm.close_connection(id);
        }
    }

    /// Writes down what was refused since the last time, in sums.
    pub(super) fn report_refusals(&mut self) {
        for ((reason, author), tally) in self.refused.drain() {
            self.tools.audit.note(AuditEvent::MessagesRefused {
                author,
                reason: reason.to_owned(),
                count: tally.count,
                first: tally.first,
                last: tally.last,
            });
        }
        for ((reason, _), tally) in self.neighbours.take_refused() {
            self.tools.audit.note(AuditEvent::MessagesRefused {
                author: None,
                reason: reason.to_owned(),
                count: tally.count,
                first: tally.first,
                last: tally.last,
            });
        }
        for event in self.outbound.take_changes() {
            self.tools.audit.note(event);
        }
        let Some(swarm) = self.swarm.as_mut() else {
            return;
        };
        // Each was counted when it was denied.
        let denied = swarm.behaviour_mut().admission.take_denials();
        let refused = self.tools.admission.take_refused();
        for refused in denied.into_iter().chain(refused) {
            let Refused {
                reason,
                address,
                count,
                first,
                last,
            } = refused;
            self.tools.audit.note(AuditEvent::ConnectionsRefused {
                reason: reason.to_owned(),
                address,
                count,
                first,
                last,
            });
        }
    }
}
