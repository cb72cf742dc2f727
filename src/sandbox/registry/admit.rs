//! The way in: what is accepted, when it is on record, when it has all it needs.

use std::{collections::BTreeMap, time::Duration};

use thiserror::Error;

use super::{JobRecord, Registry, Slot, Submitter};
use crate::{
    sandbox::{ContentHash, JobId, JobSpec, JobState, LimitName, LimitRefusal, Limits, SpecError},
    types::{ByteSize, PeerId, Timestamp},
};

/// One peer's unfinished jobs may hold a quarter of the disk for modules and inputs, and of that
/// for outputs, so that nobody alone keeps everybody else out.
const PEER_SHARE: u64 = 4;
/// Processor time that taking a job is charged with, microseconds: two records made durable, a
/// receipt signed. Without it a peer could submit and cancel for ever.
const ACCEPTING_US: u64 = 10_000;

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
    /// Too many jobs are unfinished, or their modules, inputs and outputs fill the disk.
    #[error("too many jobs are unfinished here: try again")]
    QueueFull,
    /// Too many of this peer's jobs are unfinished, or their modules, inputs and outputs fill its
    /// share.
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

impl Registry {
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
        self.observe(now);
        let peer = submitter.peer;
        let id = JobId::new(&self.me, &peer, &spec.key);
        // First, and even where nothing new is accepted: a promise was given.
        if let Some(known) = self.jobs.get(&id) {
            return self.repeated(&known.record, &spec);
        }
        if !self.config.enabled {
            return Err(Rejection::Disabled);
        }
        spec.check()?;
        let limits = self.admit(peer, &spec, now)?;
        let record = JobRecord::new(id, submitter, spec, limits, now);
        self.jobs.insert(id, Slot { record, since: now });
        self.unrecorded.insert(id);
        Ok(Accepted {
            id,
            limits,
            repeated: false,
        })
    }

    fn repeated(&self, known: &JobRecord, spec: &JobSpec) -> Result<Accepted, Rejection> {
        if known.spec != *spec {
            return Err(Rejection::KeyReused);
        }
        if self.unrecorded.contains(&known.id) {
            return Err(Rejection::UnderWay);
        }
        Ok(Accepted {
            id: known.id,
            limits: known.limits,
            repeated: true,
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
        self.room(peer, spec, &limits)?;
        match self.quota.wait(&peer, now) {
            None => Ok(limits),
            Some(retry_after) => Err(Rejection::CpuQuota { retry_after }),
        }
    }

    /// Whether there is room for one more job of this peer, and for its module and input.
    ///
    /// A blob counts once for each peer that needs it, here or not: so the blobs of what is
    /// accepted always fit, though two peers send the same one at the same time.
    fn room(&self, peer: PeerId, spec: &JobSpec, limits: &Limits) -> Result<(), Rejection> {
        let config = &self.config;
        let (mut all, mut own) = (0_usize, 0_usize);
        // What it may print is reserved for every job that can still print.
        let (mut printed, mut printed_own) = (limits.output, limits.output);
        let mut held = BTreeMap::new();
        let mut hold = |peer: PeerId, spec: &JobSpec| {
            for (blob, size) in [
                (spec.module, spec.module_size),
                (spec.input, spec.input_size),
            ] {
                let most = held.entry((peer, blob)).or_insert(0_u64);
                *most = size.max(*most);
            }
        };
        // Without a receipt a job still keeps this node busy: when no receipt can be recorded,
        // finished jobs do not pile up beyond this bound.
        let busy =
            |record: &&JobRecord| record.receipt.is_none() || self.unrecorded.contains(&record.id);
        for record in self.iter().filter(busy) {
            all = all.saturating_add(1);
            own = own.saturating_add(usize::from(record.submitter.peer == peer));
            if !record.is_finished() {
                hold(record.submitter.peer, &record.spec);
            }
            let output = record.disk();
            printed = printed.saturating_add(output);
            if record.submitter.peer == peer {
                printed_own = printed_own.saturating_add(output);
            }
        }
        hold(peer, spec);
        let sum = |sizes: &mut dyn Iterator<Item = &u64>| {
            sizes.fold(0_u64, |sum, size| sum.saturating_add(*size))
        };
        let share = config.blob_cache.0 / PEER_SHARE;
        let share = share.max(config.max_module.0.saturating_add(config.max_input.0));
        let mine = held.iter().filter(|((who, _), _)| *who == peer);
        let outputs = config.output_storage.0;
        let output_share = (outputs / PEER_SHARE).max(config.max_output.0);
        if own >= config.jobs_per_peer
            || sum(&mut mine.map(|(_, size)| size)) > share
            || printed_own > output_share
        {
            return Err(Rejection::PeerQueueFull);
        }
        if all >= config.jobs || sum(&mut held.values()) > config.blob_cache.0 || printed > outputs
        {
            return Err(Rejection::QueueFull);
        }
        Ok(())
    }

    /// The job is on record: from now on it counts, and is written down.
    pub fn on_record(&mut self, id: &JobId, now: Timestamp) {
        self.observe(now);
        if self.unrecorded.remove(id)
            && let Some(slot) = self.jobs.get(id)
        {
            self.dirty.insert(*id);
            self.quota
                .charge(slot.record.submitter.peer, ACCEPTING_US, now);
        }
    }

    /// Takes back a job that could not be recorded.
    pub fn forget(&mut self, id: &JobId) {
        if self.unrecorded.remove(id) {
            self.jobs.remove(id);
            self.dirty.remove(id);
        }
    }

    /// The job has its module and its input: it may have its turn.
    pub fn ready(&mut self, id: &JobId) {
        if self.unrecorded.contains(id) {
            return;
        }
        let Some(Slot { record, .. }) = self.jobs.get_mut(id) else {
            return;
        };
        if record.state == JobState::Waiting {
            record.state = JobState::Queued;
            self.turns.push(record.submitter.peer, *id);
            self.dirty.insert(*id);
        }
    }

    /// The job's module or input are gone (the disk lost them): it waits for them anew, as long
    /// as at the beginning. A job that had its turn for this did not begin.
    pub fn unready(&mut self, id: &JobId, now: Timestamp) {
        self.observe(now);
        let Some(Slot { record, since }) = self.jobs.get_mut(id) else {
            return;
        };
        let peer = record.submitter.peer;
        match record.state {
            JobState::Queued => self.turns.remove(&peer, id),
            JobState::Running if record.cancelled.is_none() => {
                self.turns.done(&peer);
                record.attempt = record.attempt.saturating_sub(1);
            }
            JobState::Running | JobState::Waiting | JobState::Finished => return,
        }
        record.state = JobState::Waiting;
        *since = now;
        self.dirty.insert(*id);
    }

    /// Jobs that wait for this blob.
    #[must_use]
    pub fn waiting_for(&self, blob: &ContentHash) -> Vec<JobId> {
        self.iter()
            .filter(|record| record.state == JobState::Waiting)
            .filter(|record| [record.spec.module, record.spec.input].contains(blob))
            .map(|record| record.id)
            .collect()
    }
}
