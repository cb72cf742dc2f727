//! The metrics of jobs, on both sides.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::sandbox::{LimitName, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Jobs and sandboxes, counted. Clones count together.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    finished: Family<OutcomeLabel, Counter>,
    stopped: Family<LimitLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    unfinished: Family<StateLabel, Gauge>,
    duration: Histogram,
    cpu: Counter<f64, std::sync::atomic::AtomicU64>,
    sandboxes: Family<KindLabel, Gauge>,
    compiled: Family<ResultLabel, Counter>,
    storage: Family<KindLabel, Gauge>,
    sent: Family<OutcomeLabel, Counter>,
    sent_unfinished: Gauge,
}

const OUTCOMES: [&str; 5] = ["exited", "trapped", "stopped", "cancelled", "failed"];

impl Default for JobMetrics {
    fn default() -> Self {
        let new = Self {
            finished: Family::default(),
            stopped: Family::default(),
            refused: Family::default(),
            unfinished: Family::default(),
            // 1 ms (a warm, tiny job) to 9 minutes (past the longest allowed), doubling.
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 20)),
            cpu: Counter::default(),
            sandboxes: Family::default(),
            compiled: Family::default(),
            storage: Family::default(),
            sent: Family::default(),
            sent_unfinished: Gauge::default(),
        };
        new.begin_at_zero();
        new
    }
}

impl JobMetrics {
    fn begin_at_zero(&self) {
        for outcome in OUTCOMES {
            drop(self.finished.get_or_create(&OutcomeLabel { outcome }));
            drop(self.sent.get_or_create(&OutcomeLabel { outcome }));
        }
        for limit in LimitName::ALL.map(LimitName::name) {
            drop(self.stopped.get_or_create(&LimitLabel { limit }));
        }
        self.set_unfinished(0, 0, 0);
        self.set_sandboxes(0, 0, 0);
        self.set_storage(0, 0);
        for result in ["hit", "miss", "tampered"] {
            drop(self.compiled.get_or_create(&ResultLabel { result }));
        }
    }

    /// A job of another came to its end here.
    pub fn finished(&self, outcome: &Outcome, took: Duration, cpu: Duration) {
        let label = OutcomeLabel {
            outcome: outcome.name(),
        };
        self.finished.get_or_create(&label).inc();
        if let Outcome::Stopped { limit } = outcome {
            let label = LimitLabel {
                limit: limit.name(),
            };
            self.stopped.get_or_create(&label).inc();
        }
        self.duration.observe(took.as_secs_f64());
        self.cpu.inc_by(cpu.as_secs_f64());
    }

    /// A job request was refused; the refusal's stable name.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Jobs of others that are not finished.
    pub fn set_unfinished(&self, waiting: usize, queued: usize, running: usize) {
        for (state, count) in [
            ("waiting", waiting),
            ("queued", queued),
            ("running", running),
        ] {
            let gauge = self.unfinished.get_or_create(&StateLabel { state });
            gauge.set(as_gauge(count));
        }
    }

    /// Worker processes.
    pub fn set_sandboxes(&self, running: usize, compiling: usize, spare: usize) {
        for (kind, count) in [
            ("running", running),
            ("compiling", compiling),
            ("spare", spare),
        ] {
            let gauge = self.sandboxes.get_or_create(&KindLabel { kind });
            gauge.set(as_gauge(count));
        }
    }

    /// So many looks into the cache of compiled modules ended like this: `hit`, `miss` or
    /// `tampered`.
    pub fn compiled(&self, result: &'static str, count: u64) {
        let label = ResultLabel { result };
        self.compiled.get_or_create(&label).inc_by(count);
    }

    /// Bytes on disk.
    pub fn set_storage(&self, blobs: u64, compiled: u64) {
        for (kind, bytes) in [("blobs", blobs), ("compiled", compiled)] {
            let gauge = self.storage.get_or_create(&KindLabel { kind });
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// A job this node gave away came to its end.
    pub fn sent(&self, outcome: &'static str) {
        self.sent.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Jobs this node gave away that are not finished.
    pub fn set_sent_unfinished(&self, count: usize) {
        self.sent_unfinished.set(as_gauge(count));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let Self {
            finished,
            stopped,
            refused,
            unfinished,
            duration,
            cpu,
            sandboxes,
            compiled,
            storage,
            sent,
            sent_unfinished,
        } = self.clone();
        registry.register(
            "jobs",
            "Jobs of others that came to their end here",
            finished,
        );
        registry.register(
            "jobs_stopped",
            "Jobs of others that a limit stopped",
            stopped,
        );
        registry.register("jobs_refused", "Job requests of others refused", refused);
        registry.register(
            "jobs_unfinished",
            "Jobs of others that are not finished",
            unfinished,
        );
        registry.register_with_unit(
            "job_duration",
            "Time from a job's acceptance to its end",
            Unit::Seconds,
            duration,
        );
        registry.register_with_unit(
            "job_cpu",
            "Processor time of jobs of others",
            Unit::Seconds,
            cpu,
        );
        registry.register("sandboxes_active", "Worker processes", sandboxes);
        registry.register(
            "compiled_cache",
            "Looks into the cache of compiled modules",
            compiled,
        );
        registry.register_with_unit(
            "job_storage",
            "Disk used by the caches of jobs",
            Unit::Bytes,
            storage,
        );
        registry.register(
            "jobs_sent",
            "Jobs this node gave away that came to their end",
            sent,
        );
        registry.register(
            "jobs_sent_unfinished",
            "Jobs this node gave away that are not finished",
            sent_unfinished,
        );
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
