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

mod quota;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use thiserror::Error;

pub use quota::Quota;
pub use record::{JobRecord, Submitter};

use super::{
    CancelledBy, ContentHash, JobFault, JobId, JobSpec, JobState, LimitName, LimitRefusal, Limits,
    Outcome, SpecError, Usage,
};
use crate::{
    config::SandboxConfig,
    types::{ByteSize, PeerId, Timestamp},
};

/// How often a job is begun at most: the first time, and again after two restarts of its
/// executor. One that was running at three of them may well be their cause.
pub const MAX_ATTEMPTS: u32 = 3;

/// Why a job is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// This node runs nothing.
    #[error("jobs are disabled on this node (sandbox.enabled)")]
    Disabled,
    /// Its texts break a rule.
    #[error(transparent)]
    Invalid(#[from] SpecError),
    /// It asks for more than there is.
    #[error(transparent)]
    Limit(#[from] LimitRefusal),
    /// Module or input are too large.
    #[error("limit {limit}: {size} bytes are above this node's {ceiling}")]
    TooLarge {
        /// Which.
        limit: LimitName,
        /// Bytes.
        size: u64,
        /// Most bytes.
        ceiling: ByteSize,
    },
    /// Too many jobs are unfinished.
    #[error("too many jobs are unfinished here: try again")]
    QueueFull,
    /// Too many of this peer's jobs are unfinished.
    #[error("too many of your jobs are unfinished here: wait for some, or cancel them")]
    PeerQueueFull,
    /// The peer's processor time is spent.
    #[error("your processor time here is spent: try again in {0:?}", retry_after)]
    CpuQuota {
        /// When there is some again.
        retry_after: Duration,
    },
    /// The key names another job.
    #[error("the key was used for another job: use another")]
    KeyReused,
    /// The same submission is being recorded.
    #[error("the same submission is under way: try again")]
    UnderWay,
}

/// A job that was accepted, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: JobId,
    /// What it gets.
    pub limits: Limits,
    /// Whether it was there before.
    pub repeated: bool,
}

/// What a cancellation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelEffect {
    /// It had ended.
    NothingToDo,
    /// It did not run: it has ended now.
    EndedNow,
    /// It runs: stop its worker, which then reports.
    StopRunning,
}

/// What became due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Jobs that ended because module or input did not come.
    pub ended: Vec<JobId>,
    /// Jobs that are forgotten: their outputs can go.
    pub dropped: Vec<JobId>,
}

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

/// See the module.
#[derive(Debug)]
pub struct Registry {
    config: SandboxConfig,
    me: PeerId,
    jobs: BTreeMap<JobId, JobRecord>,
    /// Accepted, but not yet on record.
    unrecorded: BTreeSet<JobId>,
    /// Changed since the caller last wrote down.
    dirty: BTreeSet<JobId>,
    /// Queued jobs of each peer, first come first served.
    queues: BTreeMap<PeerId, VecDeque<JobId>>,
    /// Peers with queued jobs; the first has the next turn.
    turns: VecDeque<PeerId>,
    running: BTreeMap<PeerId, usize>,
    quota: Quota,
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
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            running: BTreeMap::new(),
            quota,
        }
    }

    /// What was written down, after a restart: what ran is queued again (or has ended, when it
    /// was begun too often), what waited goes on waiting.
    #[must_use]
    pub fn restore(
        config: SandboxConfig,
        me: PeerId,
        records: impl IntoIterator<Item = JobRecord>,
        now: Timestamp,
    ) -> Self {
        let mut registry = Self::new(config, me);
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_by_key(|record| (record.submitted, record.id));
        for mut record in records {
            let id = record.id;
            match record.state {
                JobState::Running if record.attempt >= MAX_ATTEMPTS => {
                    record.end(
                        Outcome::Failed {
                            fault: JobFault::Interrupted,
                        },
                        now,
                    );
                    registry.dirty.insert(id);
                }
                JobState::Running => {
                    record.state = JobState::Queued;
                    registry.dirty.insert(id);
                }
                JobState::Waiting | JobState::Queued | JobState::Finished => {}
            }
            if record.state == JobState::Queued {
                registry.enqueue(record.submitter.peer, id);
            }
            if let Some(finished) = record.finished {
                registry
                    .quota
                    .charge(record.submitter.peer, record.usage.cpu_us, finished);
            }
            registry.jobs.insert(id, record);
        }
        registry
    }

    /// Takes a job, or says that it was taken before. It waits until it is on record.
    ///
    /// # Errors
    /// As [`Rejection`] says.
    pub fn submit(
        &mut self,
        submitter: Submitter,
        spec: JobSpec,
        now: Timestamp,
    ) -> Result<Accepted, Rejection> {
        if !self.config.enabled {
            return Err(Rejection::Disabled);
        }
        spec.check()?;
        let peer = submitter.peer;
        let id = JobId::new(&self.me, &peer, &spec.key);
        if let Some(known) = self.jobs.get(&id) {
            if known.spec != spec {
                return Err(Rejection::KeyReused);
            }
            if self.unrecorded.contains(&id) {
                return Err(Rejection::UnderWay);
            }
            return Ok(Accepted {
                id,
                limits: known.limits,
                repeated: true,
            });
        }
        let limits = self.admit(peer, &spec, now)?;
        self.jobs
            .insert(id, JobRecord::new(id, submitter, spec, limits, now));
        self.unrecorded.insert(id);
        Ok(Accepted {
            id,
            limits,
            repeated: false,
        })
    }

    fn admit(&self, peer: PeerId, spec: &JobSpec, now: Timestamp) -> Result<Limits, Rejection> {
        let config = &self.config;
        for (limit, size, ceiling) in [
            (LimitName::ModuleSize, spec.module_size, config.max_module),
            (LimitName::InputSize, spec.input_size, config.max_input),
        ] {
            if size > ceiling.0 {
                return Err(Rejection::TooLarge {
                    limit,
                    size,
                    ceiling,
                });
            }
        }
        let limits = Limits::grant(&spec.limits, spec.deterministic.is_some(), config)?;
        let unfinished = self.jobs.values().filter(|record| !record.is_finished());
        let (mut all, mut own) = (0_usize, 0_usize);
        for record in unfinished {
            all = all.saturating_add(1);
            own = own.saturating_add(usize::from(record.submitter.peer == peer));
        }
        if own >= config.jobs_per_peer {
            return Err(Rejection::PeerQueueFull);
        }
        if all >= config.jobs {
            return Err(Rejection::QueueFull);
        }
        match self.quota.wait(&peer, now) {
            None => Ok(limits),
            Some(retry_after) => Err(Rejection::CpuQuota { retry_after }),
        }
    }

    /// The job is on record: from now on it counts, and is written down.
    pub fn on_record(&mut self, id: &JobId) {
        if self.unrecorded.remove(id) {
            self.dirty.insert(*id);
        }
    }

    /// Takes back a job that could not be recorded.
    pub fn forget(&mut self, id: &JobId) {
        if self.unrecorded.remove(id) {
            self.jobs.remove(id);
        }
    }

    /// The job has its module and its input: it may have its turn.
    pub fn ready(&mut self, id: &JobId) {
        if self.unrecorded.contains(id) {
            return;
        }
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        if record.state == JobState::Waiting {
            record.state = JobState::Queued;
            let peer = record.submitter.peer;
            self.dirty.insert(*id);
            self.enqueue(peer, *id);
        }
    }

    /// Jobs that wait for this blob.
    #[must_use]
    pub fn waiting_for(&self, blob: &ContentHash) -> Vec<JobId> {
        self.jobs
            .values()
            .filter(|record| record.state == JobState::Waiting)
            .filter(|record| [record.spec.module, record.spec.input].contains(blob))
            .map(|record| record.id)
            .collect()
    }

    fn enqueue(&mut self, peer: PeerId, id: JobId) {
        let queue = self.queues.entry(peer).or_default();
        queue.push_back(id);
        if queue.len() == 1 {
            self.turns.push_back(peer);
        }
    }

    /// Whose turn it is: marks that job as running.
    pub fn next(&mut self, now: Timestamp) -> Option<JobId> {
        let all: usize = self.running.values().sum();
        if all >= self.config.workers {
            return None;
        }
        for _ in 0..self.turns.len() {
            let peer = self.turns.pop_front()?;
            let running = self.running.get(&peer).copied().unwrap_or(0);
            let may =
                running < self.config.running_per_peer && self.quota.wait(&peer, now).is_none();
            if !may {
                self.turns.push_back(peer);
                continue;
            }
            let (id, more) = {
                let queue = self.queues.get_mut(&peer)?;
                (queue.pop_front(), !queue.is_empty())
            };
            if more {
                self.turns.push_back(peer);
            } else {
                self.queues.remove(&peer);
            }
            let Some(record) = id.and_then(|id| self.jobs.get_mut(&id)) else {
                continue;
            };
            record.begin(now);
            let id = record.id;
            self.dirty.insert(id);
            let count = self.running.entry(peer).or_default();
            *count = count.saturating_add(1);
            return Some(id);
        }
        None
    }

    /// A running job ended. `false` when it was not running: then nothing changes.
    pub fn finish(&mut self, id: JobId, outcome: Outcome, usage: Usage, now: Timestamp) -> bool {
        let Some(record) = self.jobs.get_mut(&id) else {
            return false;
        };
        if record.state != JobState::Running {
            return false;
        }
        record.use_up(usage);
        record.end(outcome, now);
        let peer = record.submitter.peer;
        self.dirty.insert(id);
        self.quota.charge(peer, usage.cpu_us, now);
        self.no_longer_running(peer);
        true
    }

    fn no_longer_running(&mut self, peer: PeerId) {
        if let Some(count) = self.running.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.running.remove(&peer);
            }
        }
    }

    /// The receipt of a finished job.
    pub fn set_receipt(&mut self, id: &JobId, receipt: Vec<u8>) {
        if let Some(record) = self.jobs.get_mut(id)
            && record.is_finished()
        {
            record.receipt = Some(receipt);
            self.dirty.insert(*id);
        }
    }

    /// Cancels a job; `None` when there is none.
    pub fn cancel(&mut self, id: JobId, by: CancelledBy, now: Timestamp) -> Option<CancelEffect> {
        let record = self.jobs.get_mut(&id)?;
        match record.state {
            JobState::Finished => Some(CancelEffect::NothingToDo),
            JobState::Running => Some(CancelEffect::StopRunning),
            JobState::Waiting | JobState::Queued => {
                record.end(Outcome::Cancelled { by }, now);
                let peer = record.submitter.peer;
                self.dirty.insert(id);
                self.dequeue(peer, id);
                Some(CancelEffect::EndedNow)
            }
        }
    }

    fn dequeue(&mut self, peer: PeerId, id: JobId) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.retain(|queued| *queued != id);
            if queue.is_empty() {
                self.queues.remove(&peer);
                self.turns.retain(|turn| *turn != peer);
            }
        }
    }

    /// What became due: inputs that never came, results that were kept long enough.
    pub fn due(&mut self, now: Timestamp) -> Due {
        self.quota.sweep(now);
        let late = self.config.input_timeout.0;
        let kept = self.config.results_kept.0;
        let mut due = Due::default();
        let mut ended = Vec::new();
        for record in self.jobs.values_mut() {
            match (record.state, record.finished) {
                (JobState::Waiting, _)
                    if now.since(record.submitted) >= late
                        && !self.unrecorded.contains(&record.id) =>
                {
                    record.end(
                        Outcome::Failed {
                            fault: JobFault::InputMissing,
                        },
                        now,
                    );
                    self.dirty.insert(record.id);
                    due.ended.push(record.id);
                }
                (_, Some(finished)) => ended.push((finished, record.id)),
                _ => {}
            }
        }
        ended.sort_unstable();
        let beyond = ended.len().saturating_sub(self.config.results);
        for (index, (finished, id)) in ended.into_iter().enumerate() {
            if index < beyond || now.since(finished) >= kept {
                self.jobs.remove(&id);
                self.dirty.insert(id);
                due.dropped.push(id);
            }
        }
        due
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&JobRecord> {
        self.jobs.get(id)
    }

    /// Every job that is on record or about to be.
    pub fn iter(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values()
    }

    /// Whether the job is on record.
    #[must_use]
    pub fn is_on_record(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id) && !self.unrecorded.contains(id)
    }

    /// What changed since the last call; `None`: it is gone.
    pub fn take_dirty(&mut self) -> Vec<(JobId, Option<JobRecord>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|id| (id, self.jobs.get(&id).cloned()))
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
            self.quota.restore(peer, until);
        }
    }

    /// How many jobs are where.
    #[must_use]
    pub fn counts(&self) -> JobCounts {
        let mut counts = JobCounts::default();
        for record in self.jobs.values() {
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
