//! From its turn to its end, and how long it is remembered then.

use std::collections::{BTreeMap, VecDeque};

use super::{Registry, Slot};
use crate::{
    sandbox::{CancelledBy, JobFault, JobId, JobState, Outcome, Usage},
    types::{PeerId, Timestamp},
};

/// Of the time on the wall at least this part (a tenth) is charged as processor time.
const SLEEPING_SHARE: u64 = 10;

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

impl Registry {
    /// Whose turn it is: marks that job as running.
    pub fn next(&mut self, now: Timestamp) -> Option<JobId> {
        self.observe(now);
        let (config, quota) = (&self.config, &self.quota);
        if !config.enabled || self.turns.running() >= config.workers {
            return None;
        }
        let id = self.turns.take(|turns, peer| {
            turns.running_of(peer) < config.running_per_peer && quota.wait(peer, now).is_none()
        })?;
        self.jobs.get_mut(&id)?.record.begin(now);
        self.dirty.insert(id);
        Some(id)
    }

    /// A running job ended. `false` when it was not running: then nothing changes.
    pub fn finish(&mut self, id: JobId, outcome: Outcome, usage: Usage, now: Timestamp) -> bool {
        self.observe(now);
        let Some(slot) = self.jobs.get_mut(&id) else {
            return false;
        };
        let record = &mut slot.record;
        if record.state != JobState::Running {
            return false;
        }
        let peer = record.submitter.peer;
        record.use_up(usage);
        // A guest that sleeps keeps a worker from everybody else: that is not free.
        let held_us = usage.wall_ms.saturating_mul(1_000) / SLEEPING_SHARE;
        let outcome = match (record.cancelled, outcome) {
            // Its worker was stopped for the cancellation: that is no accident.
            (
                Some(by),
                Outcome::Failed {
                    fault: JobFault::WorkerDied | JobFault::Interrupted,
                },
            ) => Outcome::Cancelled { by },
            (_, outcome) => outcome,
        };
        slot.end(outcome, now);
        self.dirty.insert(id);
        self.quota.charge(peer, usage.cpu_us.max(held_us), now);
        self.turns.done(&peer);
        true
    }

    /// The receipt of a finished job.
    pub fn set_receipt(&mut self, id: &JobId, receipt: Vec<u8>) {
        if let Some(Slot { record, .. }) = self.jobs.get_mut(id)
            && record.is_finished()
        {
            record.receipt = Some(receipt);
            self.dirty.insert(*id);
        }
    }

    /// Cancels a job; `None` when there is none. That a running job is to be cancelled is
    /// remembered: when this node restarts before its worker was stopped, it does not run again.
    pub fn cancel(&mut self, id: JobId, by: CancelledBy, now: Timestamp) -> Option<CancelEffect> {
        self.observe(now);
        let slot = self.jobs.get_mut(&id)?;
        let record = &mut slot.record;
        match record.state {
            JobState::Finished => Some(CancelEffect::NothingToDo),
            JobState::Running => {
                if record.cancelled.is_none() {
                    record.cancelled = Some(by);
                    self.dirty.insert(id);
                }
                Some(CancelEffect::StopRunning)
            }
            JobState::Waiting | JobState::Queued => {
                let peer = record.submitter.peer;
                record.cancelled = Some(by);
                slot.end(Outcome::Cancelled { by }, now);
                self.dirty.insert(id);
                self.turns.remove(&peer, &id);
                Some(CancelEffect::EndedNow)
            }
        }
    }

    /// What became due: inputs that never came, results that were kept long enough.
    pub fn due(&mut self, now: Timestamp) -> Due {
        self.observe(now);
        self.quota.sweep(now);
        let mut due = Due::default();
        let late = self.config.input_timeout.0;
        for (id, slot) in &mut self.jobs {
            if slot.record.state == JobState::Waiting
                && now.since(slot.since) >= late
                && !self.unrecorded.contains(id)
            {
                let fault = JobFault::InputMissing;
                slot.end(Outcome::Failed { fault }, now);
                due.ended.push(*id);
            }
        }
        self.dirty.extend(&due.ended);
        due.dropped = self.outdated(now);
        for id in &due.dropped {
            self.jobs.remove(id);
            self.dirty.insert(*id);
        }
        due
    }

    /// Results that were kept long enough, and those beyond what is kept, by number or by disk: of
    /// the peer that has most the oldest, so that whoever floods this node with jobs pushes out
    /// only its own.
    fn outdated(&self, now: Timestamp) -> Vec<JobId> {
        let kept = self.config.results_kept.0;
        let mut dropped = Vec::new();
        let mut results = Kept::default();
        for (id, Slot { record, since }) in &self.jobs {
            let disk = record.disk();
            if !record.is_finished() || self.unrecorded.contains(id) {
                // Its output has its place, whatever becomes of the results.
                results.disk = results.disk.saturating_add(disk);
                continue;
            }
            let age = now.since(*since);
            if record.receipt.is_none() {
                // It is not finished for anybody, and waits for its receipt, but not for ever.
                if age >= kept.saturating_mul(2) {
                    dropped.push(*id);
                } else {
                    results.disk = results.disk.saturating_add(disk);
                }
            } else if age >= kept {
                dropped.push(*id);
            } else {
                results.add(record.submitter.peer, *since, *id, disk);
            }
        }
        results.sort();
        let config = &self.config;
        while results.count > config.results {
            let most = |of: &Held| u64::try_from(of.results.len()).unwrap_or(u64::MAX);
            let Some(id) = results.drop_oldest_of_whoever_has(most) else {
                break;
            };
            dropped.push(id);
        }
        while results.disk > config.output_storage.0 {
            let Some(id) = results.drop_oldest_of_whoever_has(|of| of.disk) else {
                break;
            };
            dropped.push(id);
        }
        dropped
    }
}

/// Results of one peer, the oldest first: since when, which, bytes on disk.
#[derive(Default)]
struct Held {
    results: VecDeque<(Timestamp, JobId, u64)>,
    disk: u64,
}

/// Results that may be kept.
#[derive(Default)]
struct Kept {
    peers: BTreeMap<PeerId, Held>,
    count: usize,
    /// Bytes on disk, those of unfinished jobs included.
    disk: u64,
}

impl Kept {
    fn add(&mut self, peer: PeerId, since: Timestamp, id: JobId, disk: u64) {
        let held = self.peers.entry(peer).or_default();
        held.results.push_back((since, id, disk));
        held.disk = held.disk.saturating_add(disk);
        self.count = self.count.saturating_add(1);
        self.disk = self.disk.saturating_add(disk);
    }

    fn sort(&mut self) {
        for held in self.peers.values_mut() {
            held.results.make_contiguous().sort_unstable();
        }
    }

    /// Takes the oldest result out of the peer's that has most by `measure`; of equals the one
    /// whose oldest is oldest.
    fn drop_oldest_of_whoever_has(&mut self, measure: impl Fn(&Held) -> u64) -> Option<JobId> {
        let held = self.peers.values_mut().max_by_key(|held| {
            let oldest = held.results.front().map(|(since, ..)| *since);
            (measure(held), std::cmp::Reverse(oldest))
        })?;
        let (_, id, disk) = held.results.pop_front()?;
        held.disk = held.disk.saturating_sub(disk);
        self.disk = self.disk.saturating_sub(disk);
        self.count = self.count.saturating_sub(1);
        Some(id)
    }
}
