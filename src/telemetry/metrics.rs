//! Every metric of the node, by name.
//!
//! Invariant: the values of labels come from the program's text (`&'static str`, enums), never
//! from a peer, so the number of time series is bounded by the program. Cheap to clone; methods
//! are lock-free or take a short read lock, and never fail.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{
    gossip::GossipMetrics, jobs::JobMetrics, policy::PolicyMetrics, reach::ReachMetrics,
    status::StatusMetrics,
};
use crate::{
    audit::Direction,
    policy::{Action, Verdict},
    types::{ChannelKind, SecurityInfo, Timestamp, TrustScore},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: &'static str,
    hybrid: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnrolmentLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    action: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActorLabel {
    actor: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestartLabel {
    actor: &'static str,
    cause: &'static str,
}

/// The node's metrics. Cheap to clone: all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    connections: Family<DirectionLabel, Counter>,
    connections_active: Gauge,
    channels: Family<ChannelLabel, Counter>,
    enrolments: Family<EnrolmentLabel, Counter>,
    denials: Family<ReasonLabel, Counter>,
    dial_failures: Counter,
    messages_received: Counter,
    messages_sent: Counter,
    messages_refused: Family<ReasonLabel, Counter>,
    deliveries_dropped: Counter,
    decisions: Family<DecisionLabel, Counter>,
    trust_score: Histogram,
    bans_active: Gauge,
    mailbox_depth: Family<ActorLabel, Gauge>,
    actor_restarts: Family<RestartLabel, Counter>,
    audit_latency: Histogram,
    audit_records: Counter,
    audit_dropped: Counter,
    credential_expiry: Gauge,
    gossip: GossipMetrics,
    jobs: JobMetrics,
    status: StatusMetrics,
    policy: PolicyMetrics,
    reach: ReachMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Series that every node has, from the start. Reasons of refusals come as they happen.
    fn begin_at_zero(&self) {
        for direction in ["inbound", "outbound"] {
            drop(
                self.connections
                    .get_or_create(&DirectionLabel { direction }),
            );
        }
        for kind in ChannelKind::ALL {
            let hybrid = kind == ChannelKind::Stacked;
            drop(self.channels.get_or_create(&channel(kind, hybrid)));
        }
        for reason in [
            "address_rate",
            "banned",
            "hybrid_required",
            "malformed",
            "missing",
            "signature",
            "chain",
            "possession",
            "wrong_key",
            "continuity",
        ] {
            drop(self.denials.get_or_create(&ReasonLabel { reason }));
        }
        for reason in [
            "author_rate",
            "author_unknown",
            "envelope",
            "backpressure",
            "neighbour_bytes",
            "neighbour_frames",
            "policy",
            "replayed",
            "slow_neighbour",
        ] {
            drop(self.messages_refused.get_or_create(&ReasonLabel { reason }));
        }
        for action in ["connect", "publish", "run_job", "subscribe"] {
            for verdict in ["allow", "deny", "quarantine"] {
                drop(
                    self.decisions
                        .get_or_create(&DecisionLabel { action, verdict }),
                );
            }
        }
    }
}

impl Metrics {
    /// Every metric at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("quantraband"),
            connections: Family::default(),
            connections_active: Gauge::default(),
            channels: Family::default(),
            enrolments: Family::default(),
            denials: Family::default(),
            dial_failures: Counter::default(),
            messages_received: Counter::default(),
            messages_sent: Counter::default(),
            messages_refused: Family::default(),
            deliveries_dropped: Counter::default(),
            decisions: Family::default(),
            trust_score: Histogram::new([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
            bans_active: Gauge::default(),
            mailbox_depth: Family::default(),
            actor_restarts: Family::default(),
            // 0.1 ms (no sync at all) to 13 s (past every deadline), doubling.
            audit_latency: Histogram::new(exponential_buckets(0.0001, 2.0, 18)),
            audit_records: Counter::default(),
            audit_dropped: Counter::default(),
            credential_expiry: Gauge::default(),
            gossip: GossipMetrics::default(),
            jobs: JobMetrics::default(),
            status: StatusMetrics::default(),
            policy: PolicyMetrics::default(),
            reach: ReachMetrics::default(),
        };
        inner.gossip.register(&mut inner.registry);
        inner.jobs.register(&mut inner.registry);
        inner.status.register(&mut inner.registry);
        inner.policy.register(&mut inner.registry);
        inner.reach.register(&mut inner.registry);
        inner.register_network();
        inner.register_rest();
        inner.begin_at_zero();
        Self(Arc::new(inner))
    }

    /// Shows an actor's series from the start: an alert on an increase needs the zero before it.
    pub fn expect_actor(&self, actor: &'static str) {
        for cause in ["panic", "error", "exit", "stall", "admin", "build"] {
            drop(
                self.0
                    .actor_restarts
                    .get_or_create(&RestartLabel { actor, cause }),
            );
        }
        drop(self.0.mailbox_depth.get_or_create(&ActorLabel { actor }));
    }

    /// A connection was let in.
    pub fn connected(&self, direction: Direction, security: SecurityInfo) {
        let direction = direction.name();
        let label = DirectionLabel { direction };
        self.0.connections.get_or_create(&label).inc();
        let label = channel(security.kind, security.is_hybrid());
        self.0.channels.get_or_create(&label).inc();
        self.0.connections_active.inc();
    }

    /// A connection that was let in has ended.
    pub fn disconnected(&self) {
        self.0.connections_active.dec();
    }

    /// Sets the number of connections, as after a restart of Swarm, which ends all of them.
    pub fn set_connections_active(&self, count: usize) {
        self.0.connections_active.set(as_gauge(count));
    }

    /// A connection or peer was refused; a stable name of why.
    pub fn denied(&self, reason: &'static str) {
        let label = ReasonLabel { reason };
        self.0.denials.get_or_create(&label).inc();
    }

    /// What became of a request for a credential, on either side.
    pub fn enrolment(&self, result: &'static str) {
        let label = EnrolmentLabel { result };
        self.0.enrolments.get_or_create(&label).inc();
    }

    /// A peer that this node dialled did not answer.
    pub fn dial_failed(&self) {
        self.0.dial_failures.inc();
    }

    /// So many messages were accepted from a peer.
    pub fn messages_received(&self, count: u64) {
        self.0.messages_received.inc_by(count);
    }

    /// So many messages of this node were published.
    pub fn messages_sent(&self, count: u64) {
        self.0.messages_sent.inc_by(count);
    }

    /// A message was refused or ignored; a stable name of why.
    pub fn message_refused(&self, reason: &'static str) {
        self.message_refused_many(reason, 1);
    }

    /// So many messages, for the same reason.
    pub fn message_refused_many(&self, reason: &'static str, count: usize) {
        let label = ReasonLabel { reason };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.messages_refused.get_or_create(&label).inc_by(count);
    }

    /// A local subscriber was too slow for so many messages.
    pub fn deliveries_dropped(&self, count: u64) {
        self.0.deliveries_dropped.inc_by(count);
    }

    /// An access decision was made.
    pub fn decided(&self, action: Action, verdict: Verdict) {
        let (action, verdict) = (action.name(), verdict.name());
        let label = DecisionLabel { action, verdict };
        self.0.decisions.get_or_create(&label).inc();
    }

    /// A peer's score when it was judged.
    pub fn trust_score(&self, score: TrustScore) {
        self.0.trust_score.observe(score.get());
    }

    /// The number of bans in force.
    pub fn set_bans_active(&self, count: usize) {
        self.0.bans_active.set(as_gauge(count));
    }

    /// Messages that wait in an actor's mailbox.
    pub fn set_mailbox_depth(&self, actor: &'static str, depth: usize) {
        let label = ActorLabel { actor };
        let gauge = self.0.mailbox_depth.get_or_create(&label);
        gauge.set(as_gauge(depth));
    }

    /// An actor was restarted; the cause's stable name.
    pub fn actor_restarted(&self, actor: &'static str, cause: &'static str) {
        let label = RestartLabel { actor, cause };
        self.0.actor_restarts.get_or_create(&label).inc();
    }

    /// A record became durable after this long.
    pub fn audit_recorded(&self, latency: Duration) {
        self.0.audit_records.inc();
        self.0.audit_latency.observe(latency.as_secs_f64());
    }

    /// Events that grant nothing were dropped, because the log could not keep up.
    pub fn audit_dropped(&self, count: u64) {
        self.0.audit_dropped.inc_by(count);
    }

    /// When the own credential expires; 0 for none.
    pub fn set_credential_expiry(&self, expires: Option<Timestamp>) {
        let seconds = expires.map_or(0, Timestamp::secs);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.0.credential_expiry.set(seconds);
    }

    /// The metrics of batches.
    #[must_use]
    pub fn gossip(&self) -> &GossipMetrics {
        &self.0.gossip
    }

    /// The metrics of jobs.
    #[must_use]
    pub fn jobs(&self) -> &JobMetrics {
        &self.0.jobs
    }

    /// The metrics of policies and quarantines.
    #[must_use]
    pub fn policy(&self) -> &PolicyMetrics {
        &self.0.policy
    }

    /// The metrics of calls to others, of discovery and of relays.
    #[must_use]
    pub fn reach(&self) -> &ReachMetrics {
        &self.0.reach
    }

    /// Those of status lists and verified identities.
    #[must_use]
    pub fn status(&self) -> &StatusMetrics {
        &self.0.status
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; an empty body would be seen by the scraper.
        match text::encode(&mut out, &self.0.registry) {
            Ok(()) => out,
            Err(_) => String::new(),
        }
    }
}

impl Inner {
    fn register_network(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "connections",
            "Connections let in, by who opened them",
            self.connections.clone(),
        );
        registry.register(
            "connections_active",
            "Connections that stand now",
            self.connections_active.clone(),
        );
        registry.register(
            "channels",
            "Connections let in, by how they are encrypted and whether ML-KEM took part",
            self.channels.clone(),
        );
        registry.register(
            "enrolments",
            "Requests for a credential, served or made, by result",
            self.enrolments.clone(),
        );
        registry.register(
            "denials",
            "Connections and peers refused, by reason",
            self.denials.clone(),
        );
        registry.register(
            "dial_failures",
            "Dials of this node that came to nothing",
            self.dial_failures.clone(),
        );
        registry.register(
            "messages_received",
            "Messages accepted from peers",
            self.messages_received.clone(),
        );
        registry.register(
            "messages_sent",
            "Messages published by this node",
            self.messages_sent.clone(),
        );
        registry.register(
            "messages_refused",
            "Messages refused or ignored, by reason",
            self.messages_refused.clone(),
        );
        registry.register(
            "deliveries_dropped",
            "Messages dropped for local subscribers that read too slowly",
            self.deliveries_dropped.clone(),
        );
    }

    fn register_rest(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "decisions",
            "Access decisions, by action and verdict",
            self.decisions.clone(),
        );
        registry.register(
            "trust_score",
            "Scores of peers when they were judged, 0 to 1",
            self.trust_score.clone(),
        );
        registry.register("bans_active", "Bans in force", self.bans_active.clone());
        registry.register(
            "mailbox_depth",
            "Messages that wait in an actor's mailbox",
            self.mailbox_depth.clone(),
        );
        registry.register(
            "actor_restarts",
            "Restarts of actors, by actor and cause",
            self.actor_restarts.clone(),
        );
        registry.register_with_unit(
            "audit_latency",
            "Time until an audit record was durable",
            Unit::Seconds,
            self.audit_latency.clone(),
        );
        registry.register(
            "audit_records",
            "Audit records made durable",
            self.audit_records.clone(),
        );
        registry.register(
            "audit_dropped",
            "Audit events that grant nothing, dropped because the log could not keep up",
            self.audit_dropped.clone(),
        );
        registry.register_with_unit(
            "credential_expiry",
            "When the own credential expires, since 1970; 0 without one",
            Unit::Seconds,
            self.credential_expiry.clone(),
        );
        let build = [
            ("version", crate::VERSION),
            ("revision", crate::REVISION.unwrap_or("unknown")),
        ];
        registry.register("build", "The program", Info::new(build));
    }
}

fn channel(kind: ChannelKind, hybrid: bool) -> ChannelLabel {
    ChannelLabel {
        channel: kind.name(),
        hybrid: if hybrid { "true" } else { "false" },
    }
}

pub(super) fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_as_documented() {
        let metrics = Metrics::new();
        let security = SecurityInfo {
            kind: ChannelKind::Stacked,
            group: crate::types::Group::X25519MlKem768,
            cipher: crate::types::Cipher::Aes256Gcm,
        };
        metrics.connected(Direction::Inbound, security);
        metrics.connected(Direction::Outbound, security);
        metrics.disconnected();
        metrics.denied("banned");
        metrics.decided(Action::Publish, Verdict::Quarantine { permitted: false });
        metrics.trust_score(TrustScore::NEUTRAL);
        metrics.actor_restarted("swarm", "panic");
        metrics.set_mailbox_depth("audit", 3);
        metrics.audit_recorded(Duration::from_millis(3));
        metrics.message_refused("rate");
        metrics.clone().messages_sent(1);
        let text = metrics.encode();
        for line in [
            "quantraband_connections_total{direction=\"inbound\"} 1",
            "quantraband_connections_active 1",
            "quantraband_channels_total{channel=\"stacked\",hybrid=\"true\"} 2",
            "quantraband_channels_total{channel=\"noise\",hybrid=\"false\"} 0",
            "quantraband_denials_total{reason=\"banned\"} 1",
            "quantraband_messages_received_total 0",
            "quantraband_messages_sent_total 1",
            "quantraband_messages_refused_total{reason=\"rate\"} 1",
            "quantraband_decisions_total{action=\"publish\",verdict=\"quarantine\"} 1",
            "quantraband_trust_score_count 1",
            "quantraband_mailbox_depth{actor=\"audit\"} 3",
            "quantraband_actor_restarts_total{actor=\"swarm\",cause=\"panic\"} 1",
            "quantraband_audit_latency_seconds_count 1",
            "quantraband_audit_records_total 1",
            "quantraband_deliveries_dropped_total 0",
            "quantraband_credential_expiry_seconds 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    /// The reference and the registry list the same names.
    #[test]
    fn the_reference_lists_every_metric() {
        let reference = include_str!("../../docs/reference/metrics.md");
        for line in Metrics::new().encode().lines() {
            let Some(name) = line
                .strip_prefix("# TYPE ")
                .and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            assert!(
                reference.contains(&format!("`{name}")),
                "{name} is not documented"
            );
        }
    }
}
