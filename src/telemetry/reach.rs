//! The metrics of calls to others, of discovery and of relays.
//!
//! Labels come from the program; which peer it is about stands in `quantraband peers` and the log.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::metrics::as_gauge;
use crate::network::outward::{HeldBy, Outcome, State};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLabel {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabel {
    event: &'static str,
}

/// What happens while peers are found and reached.
const EVENTS: [&str; 13] = [
    "hint",
    "hint_refused",
    "hint_banned",
    "dial_refused",
    "record_refused",
    "reservation",
    "reservation_lost",
    "relay_reservation",
    "relay_circuit",
    "relay_denied",
    "hole_punched",
    "hole_not_punched",
    "probe",
];

/// See the module. Part of [`super::Metrics`].
#[derive(Debug, Default)]
pub struct ReachMetrics {
    calls: Family<OutcomeLabel, Counter>,
    held: Family<ByLabel, Counter>,
    lost: Counter,
    under_way: Gauge,
    breakers: Family<StateLabel, Counter>,
    events: Family<EventLabel, Counter>,
    candidates: Gauge,
}

impl ReachMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for outcome in Outcome::NAMES {
            drop(self.calls.get_or_create(&OutcomeLabel { outcome }));
        }
        for by in HeldBy::ALL {
            drop(self.held.get_or_create(&ByLabel { by: by.name() }));
        }
        for state in [State::Open, State::Closed] {
            let state = state.name();
            drop(self.breakers.get_or_create(&StateLabel { state }));
        }
        for event in EVENTS {
            drop(self.events.get_or_create(&EventLabel { event }));
        }
        registry.register(
            "calls",
            "Requests of this node to others that have ended, by outcome",
            self.calls.clone(),
        );
        registry.register(
            "calls_held",
            "Requests that were not sent, by what held them",
            self.held.clone(),
        );
        registry.register(
            "calls_lost",
            "Requests of which nothing was heard any more",
            self.lost.clone(),
        );
        registry.register(
            "calls_under_way",
            "Requests of this node that wait for an answer",
            self.under_way.clone(),
        );
        registry.register(
            "breaker_changes",
            "Changes of circuit breakers, by the state they went to",
            self.breakers.clone(),
        );
        registry.register(
            "reach",
            "What happened while peers were found and reached",
            self.events.clone(),
        );
        registry.register(
            "dial_candidates",
            "Found peers that may be dialled",
            self.candidates.clone(),
        );
    }

    /// A call has ended.
    pub fn ended(&self, outcome: Outcome) {
        let outcome = outcome.name();
        self.calls.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A call was not made.
    pub fn held(&self, by: HeldBy) {
        self.held.get_or_create(&ByLabel { by: by.name() }).inc();
    }

    /// Nobody told the end of a call.
    pub fn lost(&self) {
        self.lost.inc();
        self.ended(Outcome::Failed);
    }

    /// Calls under way.
    pub fn set_under_way(&self, count: usize) {
        self.under_way.set(as_gauge(count));
    }

    /// A breaker went to a state.
    pub fn breaker(&self, state: State) {
        let state = state.name();
        self.breakers.get_or_create(&StateLabel { state }).inc();
    }

    /// One of the events that the reference lists.
    pub fn event(&self, event: &'static str) {
        self.events.get_or_create(&EventLabel { event }).inc();
    }

    /// Found peers that may be dialled.
    pub fn set_candidates(&self, count: usize) {
        self.candidates.set(as_gauge(count));
    }
}
