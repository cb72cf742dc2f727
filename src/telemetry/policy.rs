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
