//! Calls to others, as the Swarm actor makes them: every request takes a ticket of
//! [`Outward`] before it goes out and reports what became of it.
//!
//! Nothing is decided here. What a breaker did is logged, counted and put on record in sums; the
//! limits are those in force, taken over within a tick when they change.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::Context;
use libp2p::request_response::{OutboundFailure, OutboundRequestId};
use rand::{SeedableRng, rngs::StdRng};

use super::SwarmActor;
use crate::{
    admin::{protocol, remote},
    audit::{Aggregator, AuditEvent},
    config::{Config, OutwardConfig},
    identity::{enrolment, wire as identity},
    messages::swarm::{CallsReport, SendFault},
    network::{
        NodeBehaviour,
        exchange::{Administration, Enrolment, Identity, Jobs, Protocol},
        outward::{
            BreakerConfig, Change, Limits, Outcome, Outward, PaceConfig, State, Ticket,
            owed::Owed,
            retry::{Attempts, RetryBudget, RetryPolicy},
        },
    },
    sandbox::wire as jobs,
    telemetry::Metrics,
    types::{PeerId, Timestamp, View},
};

/// Changes of breakers told apart until the next record: two for each of so many peers.
const CHANGE_KEYS: usize = 1_024;

/// The part of `outward.retry_reserve` that one destination can spend.
const DESTINATION_SHARE: u32 = 8;

/// A protocol of which this node makes calls.
pub(super) trait Calls: Protocol {
    /// Sends a request.
    fn send(
        node: &mut NodeBehaviour,
        to: &libp2p::PeerId,
        request: Self::Request,
    ) -> OutboundRequestId;

    /// Whether an answer says "not now", and how long to wait.
    fn pushed_back(response: &Self::Response) -> Option<Option<Duration>>;
}

fn millis(ms: Option<u32>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(u64::from(ms)))
}

impl Calls for Jobs {
    fn send(
        node: &mut NodeBehaviour,
        to: &libp2p::PeerId,
        request: jobs::Request,
    ) -> OutboundRequestId {
        node.jobs.send_request(to, Ok(request))
    }

    /// A full queue or a spent quota is about one job and not about the node: the job waits, what
    /// else is to be said goes on.
    fn pushed_back(response: &jobs::Response) -> Option<Option<Duration>> {
        use jobs::RefusalCode::{Rate, Stopping, Unavailable};
        match response {
            jobs::Response::Refused(refused) => match refused.code {
                Rate | Unavailable | Stopping => Some(millis(refused.retry_after_ms)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Calls for Identity {
    fn send(
        node: &mut NodeBehaviour,
        to: &libp2p::PeerId,
        request: identity::Request,
    ) -> OutboundRequestId {
        node.identity.send_request(to, Ok(request))
    }

    fn pushed_back(response: &identity::Response) -> Option<Option<Duration>> {
        matches!(response, identity::Response::Later).then_some(None)
    }
}

impl Calls for Enrolment {
    fn send(
        node: &mut NodeBehaviour,
        to: &libp2p::PeerId,
        request: enrolment::Request,
    ) -> OutboundRequestId {
        node.enrolment.send_request(to, Ok(request))
    }

    fn pushed_back(response: &enrolment::Response) -> Option<Option<Duration>> {
        use enrolment::RefusalCode::{Rate, Unavailable};
        match response {
            enrolment::Response::Refused(refused) => match refused.code {
                Rate | Unavailable => Some(millis(refused.retry_after_ms)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Calls for Administration {
    fn send(
        node: &mut NodeBehaviour,
        to: &libp2p::PeerId,
        request: remote::Request,
    ) -> OutboundRequestId {
        node.admin.send_request(to, Ok(request))
    }

    fn pushed_back(response: &remote::Response) -> Option<Option<Duration>> {
        match &*response.0 {
            protocol::Response::Error(failure) if failure.code == protocol::FailureCode::Again => {
                Some(None)
            }
            _ => None,
        }
    }
}

/// Limits as the core wants them.
fn limits(config: &OutwardConfig) -> Limits {
    Limits {
        breaker: BreakerConfig {
            failures: config.failures,
            window: config.failures_window.0,
            open: config.open.0,
            open_max: config.open_max.0,
            probes: config.probes,
            successes: config.successes,
        },
        pace: PaceConfig {
            per_second: f64::from(config.requests_per_second),
            burst: config.request_burst,
            under_way: config.requests_per_peer,
            settle: config.settle.0,
        },
        under_way: config.requests,
        lost_after: config.lost_after.0,
        retries: (config.retry_reserve / DESTINATION_SHARE).max(config.retry_reserve.min(1)),
    }
}

/// Calls of one incarnation.
#[derive(Debug)]
pub(super) struct Outbound {
    outward: Outward<PeerId>,
    tickets: HashMap<(&'static str, OutboundRequestId), Ticket>,
    settings: View<Config>,
    /// The configuration that is in force here.
    applied: Arc<Config>,
    budget: RetryBudget,
    /// Whom heads of status lists were not told.
    owed: Owed<PeerId>,
    rng: StdRng,
    changes: Aggregator<(&'static str, Option<PeerId>)>,
    metrics: Metrics,
}

impl Outbound {
    pub(super) fn new(settings: View<Config>, metrics: Metrics) -> Self {
        let applied = settings.load();
        Self {
            outward: Outward::new(limits(&applied.outward), rand::random()),
            tickets: HashMap::new(),
            settings,
            budget: RetryBudget::new(applied.outward.retry_reserve),
            applied,
            owed: Owed::default(),
            rng: StdRng::seed_from_u64(rand::random()),
            changes: Aggregator::new(CHANGE_KEYS, |(state, _)| (state, None)),
            metrics,
        }
    }

    /// The first of the attempts of a request that may be repeated.
    pub(super) fn attempts(&mut self, to: PeerId, now: Duration) -> Attempts {
        self.budget.first();
        self.outward.first(to, now);
        let config = &self.applied.outward;
        let policy = RetryPolicy {
            attempts: config.attempts,
            initial: config.retry_initial.0,
            max: config.retry_max.0,
            deadline: config.retry_deadline.0,
        };
        Attempts::begin(policy, now)
    }

    /// How long to wait before a request is repeated; `None`: it is not.
    pub(super) fn again(
        &mut self,
        to: &PeerId,
        attempts: &mut Attempts,
        not_before: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        let wait = attempts.again(now, not_before, &mut self.rng)?;
        (self.outward.again(to) && self.budget.again()).then_some(wait)
    }

    /// Heads that a peer should have been told were given up.
    pub(super) fn owe(&mut self, to: PeerId, now: Duration) {
        self.owed.owe(to, now);
    }

    /// A peer took the heads it was told.
    pub(super) fn heard(&mut self, to: &PeerId, now: Duration) {
        self.owed.heard(to, now);
    }

    /// A peer is gone: it is told everything when it comes again.
    pub(super) fn forget(&mut self, to: &PeerId) {
        self.owed.forget(to);
    }

    fn admit(&mut self, to: PeerId, now: Duration) -> Result<Ticket, SendFault> {
        self.outward.admit(to, now).map_err(|held| {
            self.metrics.reach().held(held.by);
            SendFault::Held {
                by: held.by,
                retry_after: held.retry_after,
            }
        })
    }

    /// What became of a call that was sent.
    pub(super) fn settle<P: Calls>(
        &mut self,
        id: OutboundRequestId,
        outcome: Outcome,
        (elapsed, now): (Duration, Timestamp),
    ) {
        let Some(ticket) = self.tickets.remove(&(P::LABEL, id)) else {
            return;
        };
        // The watchdog may have been here before.
        if self.outward.awaits(ticket) {
            self.metrics.reach().ended(outcome);
        }
        if let Some((to, change)) = self.outward.done(ticket, outcome, elapsed) {
            self.changed(to, change, (elapsed, now));
        }
    }

    /// Gives back what nobody will, and takes over limits that changed. Returns the calls that were
    /// given up: whoever waits for them waits in vain.
    fn tend(
        &mut self,
        (elapsed, now): (Duration, Timestamp),
    ) -> Vec<(&'static str, OutboundRequestId)> {
        let settings = self.settings.load();
        if !Arc::ptr_eq(&settings, &self.applied) {
            if settings.outward.retry_reserve != self.applied.outward.retry_reserve {
                self.budget = RetryBudget::new(settings.outward.retry_reserve);
            }
            self.outward.configure(limits(&settings.outward));
            self.applied = settings;
        }
        let lost = self.outward.watch(elapsed);
        let mut in_vain = Vec::new();
        if !lost.is_empty() {
            let outward = &self.outward;
            self.tickets.retain(|key, ticket| {
                let awaits = outward.awaits(*ticket);
                if !awaits {
                    in_vain.push(*key);
                }
                awaits
            });
        }
        for (to, change) in lost {
            tracing::warn!(peer = %to, "nothing was heard of a call: it is taken for lost");
            self.metrics.reach().lost();
            if let Some(change) = change {
                self.changed(to, change, (elapsed, now));
            }
        }
        self.metrics.reach().set_under_way(self.outward.under_way());
        in_vain
    }

    fn changed(&mut self, peer: PeerId, change: Change, (elapsed, now): (Duration, Timestamp)) {
        let state = match change {
            Change::Opened(span) => {
                tracing::warn!(%peer, ?span, "the peer does not answer: it is not called for a while");
                State::Open
            }
            Change::Closed => {
                tracing::info!(%peer, "the peer answers again");
                // What was held meanwhile is lost.
                self.owed.answers_again(peer, elapsed);
                State::Closed
            }
        };
        self.metrics.reach().breaker(state);
        self.changes.add((state.name(), Some(peer)), now);
    }

    /// What breakers did since the last time, in sums.
    pub(super) fn take_changes(&mut self) -> Vec<AuditEvent> {
        let changes = self.changes.drain().into_iter();
        changes
            .map(|((state, peer), tally)| AuditEvent::CallsChanged {
                peer,
                state: state.to_owned(),
                count: tally.count,
                first: tally.first,
                last: tally.last,
            })
            .collect()
    }

    /// How calls to a peer stand.
    pub(super) fn report(&self, peer: &PeerId, now: Duration) -> CallsReport {
        let standing = self.outward.standing(peer, now);
        standing.map_or_else(CallsReport::default, |one| CallsReport {
            breaker: one.state,
            failures: one.failures,
            open_for_ms: one.open_for.map(in_millis),
            under_way: one.under_way,
            per_second: one.pace,
        })
    }

    /// Calls under way in all, and peers that are not called as others are.
    pub(super) fn observe(&self, now: Duration) -> OutboundState {
        let standings = self.outward.standings(now).into_iter();
        let unwell = standings.filter(|one| one.state != State::Closed);
        OutboundState {
            under_way: self.outward.under_way(),
            not_closed: unwell
                .map(|one| (one.to.to_string(), one.state.name()))
                .take(MAX_SHOWN)
                .collect(),
        }
    }
}

/// Most peers shown in the actor's state.
const MAX_SHOWN: usize = 32;

/// What the actor shows of its calls.
#[derive(Debug, Clone, serde::Serialize)]
pub struct OutboundState {
    /// Calls under way.
    pub under_way: usize,
    /// Peers whose breaker is not closed, the first few, and its state.
    pub not_closed: Vec<(String, &'static str)>,
}

fn in_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What a failure says of the peer that was called.
pub(super) fn outcome_of(error: &OutboundFailure) -> Outcome {
    match error {
        // It was never sent, or the peer is alive and speaks something else.
        OutboundFailure::DialFailure | OutboundFailure::UnsupportedProtocols => Outcome::Abandoned,
        OutboundFailure::ConnectionClosed => Outcome::Cut,
        OutboundFailure::Timeout | OutboundFailure::Io(_) => Outcome::Failed,
    }
}

impl SwarmActor {
    /// Makes a call, when the peer is connected and may be called now.
    pub(super) fn call<P: Calls>(
        &mut self,
        peer: PeerId,
        request: P::Request,
    ) -> Result<OutboundRequestId, SendFault> {
        let target = self.reach(peer)?;
        let swarm = self.swarm.as_mut().ok_or(SendFault::NotConnected)?;
        let ticket = self.outbound.admit(peer, self.tools.clock.elapsed())?;
        let id = P::send(swarm.behaviour_mut(), &target, request);
        self.outbound.tickets.insert((P::LABEL, id), ticket);
        Ok(id)
    }

    /// Looks after the calls under way: the watchdog.
    pub(super) fn tend_calls(&mut self, ctx: &mut Context<Self>) {
        let moment = self.moment();
        for (label, id) in self.outbound.tend(moment) {
            // Should the answer come after all, nobody waits for it any more.
            let broken = SendFault::Broken;
            match label {
                Jobs::LABEL => self.calls.answered(id, Err(broken)),
                Identity::LABEL => self.identity_answered(id, Err(broken), ctx),
                Enrolment::LABEL => self.enrolments.answered(id, Err(broken)),
                _ => self.commands.answered(id, Err(broken)),
            }
        }
        for peer in self.outbound.owed.due(moment.0) {
            if self.peers.get(&peer).is_some() {
                self.show_all_heads(peer, ctx);
            } else {
                self.outbound.forget(&peer);
            }
        }
    }

    pub(super) fn moment(&self) -> (Duration, Timestamp) {
        (self.tools.clock.elapsed(), self.tools.clock.now())
    }
}
