//! The metrics of status lists and of verified identities.
//!
//! Sums over all issuers: whose list it is stands in `quantraband status list`, for labels come
//! from the program and never from a peer.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::identity::status::ListReport;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What a list can be.
const STATES: [&str; 5] = ["in_force", "stale", "behind", "untrusted", "cut"];

/// See the module. Part of [`super::Metrics`].
#[derive(Debug, Default)]
pub struct StatusMetrics {
    lists: Family<StateLabel, Gauge>,
    revoked: Gauge,
    sequence: Gauge,
    oldest: Gauge,
    next_update: Gauge,
    accepted: Counter,
    refused: Family<ReasonLabel, Counter>,
    cache: Family<ResultLabel, Counter>,
}

impl StatusMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for state in STATES {
            drop(self.lists.get_or_create(&StateLabel { state }));
        }
        registry.register(
            "status_lists",
            "Status lists known, by state",
            self.lists.clone(),
        );
        registry.register(
            "status_list_entries_revoked",
            "Revoked entries of all status lists together",
            self.revoked.clone(),
        );
        registry.register(
            "status_list_sequence_highest",
            "Highest sequence of all status lists",
            self.sequence.clone(),
        );
        registry.register_with_unit(
            "status_list_oldest",
            "When the oldest status list in force was signed, since 1970; 0 without one",
            Unit::Seconds,
            self.oldest.clone(),
        );
        registry.register_with_unit(
            "status_list_next_update",
            "When the first status list in force becomes stale, since 1970; 0 without one",
            Unit::Seconds,
            self.next_update.clone(),
        );
        registry.register(
            "status_lists_accepted",
            "Newer status lists and heads that were put in force",
            self.accepted.clone(),
        );
        registry.register(
            "status_lists_refused",
            "Status lists and heads refused, by reason",
            self.refused.clone(),
        );
        for result in ["hit", "miss", "refused"] {
            drop(self.cache.get_or_create(&ResultLabel { result }));
        }
        registry.register(
            "identity_cache",
            "Looks into the cache of verified identities",
            self.cache.clone(),
        );
    }

    /// What is known now.
    pub fn set_lists(&self, reports: &[ListReport]) {
        for state in STATES {
            let count = reports
                .iter()
                .filter(|report| report.state == state)
                .count();
            let gauge = self.lists.get_or_create(&StateLabel { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let number = |value: Option<u64>| i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX);
        let in_force = || {
            let counts = |report: &&ListReport| !matches!(&*report.state, "untrusted" | "cut");
            reports.iter().filter(counts)
        };
        self.revoked
            .set(number(Some(in_force().map(|r| u64::from(r.revoked)).sum())));
        self.sequence
            .set(number(in_force().map(|r| r.sequence).max()));
        self.oldest
            .set(number(in_force().map(|r| r.issued.secs()).min()));
        self.next_update
            .set(number(in_force().map(|r| r.next_update.secs()).min()));
    }

    /// A look into the cache of verified identities; `hit`, `miss` or `refused`.
    pub fn identity_cache(&self, result: &'static str) {
        self.cache.get_or_create(&ResultLabel { result }).inc();
    }

    /// A newer list or head is in force.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A list or head was refused; a stable name of why.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}
