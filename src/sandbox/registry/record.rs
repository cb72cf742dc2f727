//! What is written down of a job.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{Name, StatusEntry, Tier, VerifiedIdentity},
    sandbox::{CancelledBy, JobId, JobSpec, JobState, Limits, Outcome, Usage},
    types::{Footing, PeerId, Timestamp},
};

/// Who submitted a job, as it was proved then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    /// The peer.
    pub peer: PeerId,
    /// What its identity was worth: also without a credential.
    pub tier: Tier,
    /// Under which trust entry its credential was verified; of one who signs for itself that is
    /// its own name.
    pub anchor: Option<Name>,
    /// `issuer/subject` of its credential.
    pub identity: Option<String>,
    /// When that expires.
    pub expires: Option<Timestamp>,
    /// Where its revocation would be found.
    #[serde(default)]
    pub statuses: Vec<StatusEntry>,
    /// Its groups, in the issuer's name, for policies that ask for one.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What else its issuer says of it.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// How it was connected.
    #[serde(default)]
    pub footing: Option<Footing>,
}

impl Submitter {
    /// The identity as it was proved; `None` when there was none, or the record does not hold all
    /// of it. Its keys are not in it.
    #[must_use]
    pub fn recorded(&self) -> Option<VerifiedIdentity> {
        let (issuer, subject) = self.identity.as_deref()?.split_once('/')?;
        Some(VerifiedIdentity {
            peer: self.peer,
            tier: self.tier,
            issuer: issuer.parse().ok()?,
            anchor: self.anchor.clone()?,
            subject: subject.parse().ok()?,
            statuses: self.statuses.clone(),
            pq_auth: self.footing.is_some_and(|one| one.pq_auth),
            keys: None,
            groups: self.groups.clone(),
            attributes: self.attributes.clone(),
            expires: self.expires?,
            credential_hash: [0; 32],
        })
    }
}

/// One job, all that must survive a restart. The output lies in its spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Who wants it.
    pub submitter: Submitter,
    /// What it is.
    pub spec: JobSpec,
    /// What it may use.
    pub limits: Limits,
    /// Where it is.
    pub state: JobState,
    /// How often it was begun.
    pub attempt: u32,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When it was begun the last time.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Who wants it to end, when it was running then.
    #[serde(default)]
    pub cancelled: Option<CancelledBy>,
    /// What it used so far, as far as that is known.
    pub usage: Usage,
    /// The most that attempts can have used whose worker never reported, microseconds: charged
    /// to the submitter, but not in the receipt.
    #[serde(default)]
    pub lost_cpu_us: u64,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The signed receipt, once it is on record.
    pub receipt: Option<Vec<u8>>,
}

impl JobRecord {
    pub(super) fn new(
        id: JobId,
        submitter: Submitter,
        spec: JobSpec,
        limits: Limits,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            submitter,
            spec,
            limits,
            state: JobState::Waiting,
            attempt: 0,
            submitted: now,
            started: None,
            finished: None,
            cancelled: None,
            usage: Usage::default(),
            lost_cpu_us: 0,
            outcome: None,
            receipt: None,
        }
    }

    /// Disk that its output takes, or may still take, bytes.
    pub(super) fn disk(&self) -> u64 {
        if self.is_finished() {
            self.usage.stdout.saturating_add(self.usage.stderr)
        } else {
            self.limits.output
        }
    }

    /// Whether it came to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == JobState::Finished
    }

    pub(super) fn begin(&mut self, now: Timestamp) {
        self.state = JobState::Running;
        self.attempt = self.attempt.saturating_add(1);
        self.started = Some(now);
    }

    pub(super) fn end(&mut self, outcome: Outcome, now: Timestamp) {
        self.state = JobState::Finished;
        self.finished = Some(now);
        self.outcome = Some(outcome);
    }

    /// The attempt was lost with this node's last run: it is queued again, and charged for the
    /// time it can have had.
    pub(super) fn lose(&mut self, now: Timestamp, compile_time: Duration) {
        let most = self.limits.cpu_time().saturating_add(compile_time);
        let had = self.started.map_or(Duration::ZERO, |at| now.since(at));
        let lost = u64::try_from(had.min(most).as_micros()).unwrap_or(u64::MAX);
        self.lost_cpu_us = self.lost_cpu_us.saturating_add(lost);
        self.state = JobState::Queued;
    }

    /// Adds what an attempt used; peaks and outputs are those of the last one.
    pub(super) fn use_up(&mut self, usage: Usage) {
        let before = self.usage;
        self.usage = Usage {
            wall_ms: before.wall_ms.saturating_add(usage.wall_ms),
            cpu_us: before.cpu_us.saturating_add(usage.cpu_us),
            fuel: match (before.fuel, usage.fuel) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            },
            memory_peak: before.memory_peak.max(usage.memory_peak),
            stdout: usage.stdout,
            stderr: usage.stderr,
        };
    }
}
