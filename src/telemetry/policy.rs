//! The metrics of policies and quarantines.
//!
//! Labels come from the program: actions. Which policy and which peer stand in the audit log.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::metrics::as_gauge;
use crate::policy::Action;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabel {
    action: &'static str,
}

/// See the module. Part of [`super::Metrics`].
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    quarantined: Gauge,
    verdicts: Gauge,
    verdict_bytes: Gauge,
    differences: Family<ActionLabel, Counter>,
    errors: Family<ActionLabel, Counter>,
}

impl PolicyMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for action in Action::JUDGED {
            let label = ActionLabel {
                action: action.name(),
            };
            drop(self.differences.get_or_create(&label));
            drop(self.errors.get_or_create(&label));
        }
        registry.register(
            "quarantines_active",
            "Parties in quarantine",
            self.quarantined.clone(),
        );
        registry.register(
            "policy_verdicts",
            "Verdicts that are remembered, by all judges together",
            self.verdicts.clone(),
        );
        registry.register(
            "policy_verdict_bytes",
            "Bytes that the remembered verdicts take, by all judges together",
            self.verdict_bytes.clone(),
        );
        registry.register(
            "policy_shadow_differences",
            "Decisions of which the shadow set of policies says otherwise, by action",
            self.differences.clone(),
        );
        registry.register(
            "policy_errors",
            "Decisions in which a policy could not be evaluated, by action; each is a denial",
            self.errors.clone(),
        );
    }

    /// How many parties are in quarantine.
    pub fn set_quarantined(&self, count: usize) {
        self.quarantined.set(as_gauge(count));
    }

    /// One judge remembers other verdicts than before: how many, and their bytes.
    pub fn remembered(&self, before: (usize, usize), now: (usize, usize)) {
        let change = |gauge: &Gauge, before: usize, now: usize| {
            gauge.inc_by(as_gauge(now).saturating_sub(as_gauge(before)));
        };
        change(&self.verdicts, before.0, now.0);
        change(&self.verdict_bytes, before.1, now.1);
    }

    /// The shadow set says otherwise.
    pub fn differed(&self, action: Action) {
        let action = action.name();
        self.differences
            .get_or_create(&ActionLabel { action })
            .inc();
    }

    /// A policy erred.
    pub fn erred(&self, action: Action) {
        let action = action.name();
        self.errors.get_or_create(&ActionLabel { action }).inc();
    }
}
