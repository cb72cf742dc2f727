//! Every job this node accepted: whether it may come in, whose turn it is, what became of it.
//!
//! Pure: the time is an argument, and the caller does the running, the disk and the log. Owner:
//! the Sandbox actor.
//!
//! # Invariants
//! - No more unfinished jobs than `sandbox.jobs`, of one peer than `sandbox.jobs_per_peer`; no
//!   more running than `sandbox.workers`, of one peer than `sandbox.running_per_peer`.
//! - The same key of the same peer names one job, which runs to one end, for as long as the job
//!   is remembered.
//! - Peers take turns: a queued job of a peer within its quotas starts at the latest when every
//!   other peer had a turn.
//! - A job that is not on record ([`Registry::on_record`]) is neither started nor written down.
//! - What is accepted has room for its module and input, and one peer's jobs never hold more than
//!   its share of that; the same holds for the outputs, whose room is reserved as long as a job
//!   can still print.
//!
//! # When it fails
//! What was written down ([`Registry::take_dirty`]) survives: write it down before telling
//! anybody, and [`Registry::restore`] keeps every promise that was given. A step of the wall clock
//! back delays nothing by more than the step was late; a step forward makes things due early.

mod admit;
mod life;
mod quota;
mod record;
mod restore;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use admit::{Accepted, Rejection};
pub use life::{CancelEffect, Due};
pub use quota::Quota;
pub use record::{JobRecord, Submitter};

use self::turns::Turns;
use super::{JobId, JobSpec, JobState, Outcome};
use crate::{
    config::SandboxConfig,
    types::{PeerId, Timestamp},
};

/// How often a job is begun at most: the first time, and again after two restarts of its
/// executor. One that was running at three of them may well be their cause.
pub const MAX_ATTEMPTS: u32 = 3;

/// How many jobs are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Module or input on their way.
    pub waiting: usize,
    /// Waiting for their turn.
    pub queued: usize,
    /// Running.
    pub running: usize,
    /// Finished and remembered.
    pub finished: usize,
}

/// A job, and since when it is where it is: what time-outs are counted from. Unlike the record,
/// which says what the clock said, it follows the clock when that goes back.
#[derive(Debug)]
struct Slot {
    record: JobRecord,
    since: Timestamp,
}

impl Slot {
    fn end(&mut self, outcome: Outcome, now: Timestamp) {
        self.record.end(outcome, now);
        self.since = now;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    config: SandboxConfig,
    me: PeerId,
    jobs: BTreeMap<JobId, Slot>,
    /// Accepted, but not yet on record.
    unrecorded: BTreeSet<JobId>,
    /// Changed since the caller last wrote down.
    dirty: BTreeSet<JobId>,
    turns: Turns,
    quota: Quota,
    /// The last time that was given: a step back is noticed by it.
    latest: Timestamp,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(config: SandboxConfig, me: PeerId) -> Self {
        let quota = Quota::new(config.cpu_per_hour.0);
        Self {
            config,
            me,
            jobs: BTreeMap::new(),
            unrecorded: BTreeSet::new(),
            dirty: BTreeSet::new(),
            turns: Turns::default(),
            quota,
            latest: Timestamp::default(),
        }
    }

    /// Takes note of the time. When the clock went back, everything that is timed goes with it.
    fn observe(&mut self, now: Timestamp) {
        let step = self.latest.since(now);
        self.latest = now;
        if step > Duration::ZERO {
            let step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            for slot in self.jobs.values_mut() {
                let since = slot.since.millis().saturating_sub(step);
                slot.since = Timestamp::from_millis(since);
            }
        }
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&JobRecord> {
        self.jobs.get(id).map(|slot| &slot.record)
    }

    /// Whether this peer's submission was accepted before.
    #[must_use]
    pub fn knows(&self, peer: &PeerId, spec: &JobSpec) -> bool {
        self.jobs
            .contains_key(&JobId::new(&self.me, peer, &spec.key))
    }

    /// Every job that is on record or about to be.
    pub fn iter(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values().map(|slot| &slot.record)
    }

    /// Whether the job is on record.
    #[must_use]
    pub fn is_on_record(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id) && !self.unrecorded.contains(id)
    }

    /// What changed since the last call; `None`: it is gone. What is not on record is left out.
    pub fn take_dirty(&mut self) -> Vec<(JobId, Option<JobRecord>)> {
        let (later, dirty) = std::mem::take(&mut self.dirty)
            .into_iter()
            .partition(|id| self.unrecorded.contains(id));
        self.dirty = later;
        let dirty: BTreeSet<JobId> = dirty;
        dirty
            .into_iter()
            .map(|id| (id, self.job(&id).cloned()))
            .collect()
    }

    /// What each peer owes, for the caller to write down.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes over what peers owed before a restart; the longer debt counts.
    pub fn restore_quota(&mut self, owed: impl IntoIterator<Item = (PeerId, Timestamp)>) {
        for (peer, until) in owed {
            self.quota.restore(peer, until, self.latest);
        }
    }

    /// How many jobs are where.
    #[must_use]
    pub fn counts(&self) -> JobCounts {
        let mut counts = JobCounts::default();
        for record in self.iter() {
            let count = match record.state {
                JobState::Waiting => &mut counts.waiting,
                JobState::Queued => &mut counts.queued,
                JobState::Running => &mut counts.running,
                JobState::Finished => &mut counts.finished,
            };
            *count = count.saturating_add(1);
        }
        counts
    }
}

#[cfg(test)]
mod tests;
