//! After a restart: what was written down is taken up again.

use super::{JobRecord, MAX_ATTEMPTS, Registry, Slot};
use crate::{
    config::SandboxConfig,
    sandbox::{JobFault, JobId, JobState, Outcome},
    types::{PeerId, Timestamp},
};

/// Processor time to be charged: when, whom, how much.
type Cost = (Timestamp, PeerId, u64);

impl Registry {
    /// What was written down, after a restart: what ran is queued again, or has ended when it was
    /// to be cancelled or was begun too often; what waited goes on waiting. Where jobs are
    /// disabled now, what is unfinished has ended.
    ///
    /// Bounds that shrank are no reason to break a promise: they hold for what comes.
    #[must_use]
    pub fn restore(
        config: SandboxConfig,
        me: PeerId,
        records: impl IntoIterator<Item = JobRecord>,
        now: Timestamp,
    ) -> Self {
        let mut registry = Self::new(config, me);
        registry.observe(now);
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_by_key(|record| (record.submitted, record.id));
        let mut costs = Vec::new();
        for record in records {
            costs.extend(registry.adopt(record, now));
        }
        costs.sort_unstable();
        for (at, peer, cpu_us) in costs {
            registry.quota.charge(peer, cpu_us, at);
        }
        registry
    }

    fn adopt(&mut self, mut record: JobRecord, now: Timestamp) -> Option<Cost> {
        let (id, peer) = (record.id, record.submitter.peer);
        if JobId::new(&self.me, &peer, &record.spec.key) != id {
            // Another executor's: the node has a new key, and cannot sign for what it was.
            self.dirty.insert(id);
            return None;
        }
        let before = record.state;
        if before == JobState::Running {
            record.lose(now, self.config.compile_time.0);
        }
        let since = record.finished.unwrap_or(record.submitted).min(now);
        let mut slot = Slot { record, since };
        if let Some(outcome) = self.must_end(&slot.record, before) {
            slot.end(outcome, now);
        }
        let record = &slot.record;
        if record.state != before {
            self.dirty.insert(id);
        }
        if record.state == JobState::Queued {
            self.turns.push(peer, id);
        }
        let cpu = record.usage.cpu_us.saturating_add(record.lost_cpu_us);
        let at = record.finished.filter(|_| before == JobState::Finished);
        let at = at.or(record.started).unwrap_or(now).min(now);
        self.jobs.insert(id, slot);
        (cpu > 0).then_some((at, peer, cpu))
    }

    /// With what a job ends that is not taken up again.
    fn must_end(&self, record: &JobRecord, before: JobState) -> Option<Outcome> {
        if before == JobState::Finished {
            return None;
        }
        if let Some(by) = record.cancelled {
            return Some(Outcome::Cancelled { by });
        }
        let spent = before == JobState::Running && record.attempt >= MAX_ATTEMPTS;
        (spent || !self.config.enabled).then_some(Outcome::Failed {
            fault: JobFault::Interrupted,
        })
    }
}
