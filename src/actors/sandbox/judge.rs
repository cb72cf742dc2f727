//! Who may have something run: at the submission, and again while the job lives.

use std::sync::Arc;

use actix::Context;

use super::{MAX_KNOWN, SandboxActor};
use crate::{
    actors::judge::Question,
    audit::AuditEvent,
    identity::{Tier, VerifiedIdentity},
    policy::Action,
    sandbox::{CancelledBy, JobId, registry::JobRecord},
    types::{Footing, Party, PeerId, Timestamp},
};

/// The rule for what this node's own operator submits: whoever may command the node may run what
/// they like on it by other means as well.
const LOCAL: &str = "run_job.local";

impl SandboxActor {
    /// Whether a peer may have a job run now: the rule's name, or what the peer is told.
    pub(super) fn decide(
        &self,
        peer: PeerId,
        identity: Option<&Arc<VerifiedIdentity>>,
        footing: Option<Footing>,
    ) -> Result<String, String> {
        if peer == self.setup.key.peer() {
            return Ok(LOCAL.to_owned());
        }
        let now = self.now();
        let known = identity.map(|one| &**one);
        let decision = self.judge.decide(&Question {
            action: Action::RunJob,
            peer,
            tier: known.map_or(Tier::Unverified, |identity| identity.tier),
            identity,
            standing: self.setup.standings.load().standing_of(&peer, known, now),
            status: self.setup.statuses.load().of_peer(known, now),
            topic: None,
            command: None,
            footing,
            now,
        });
        let rule = &decision.rule;
        if decision.permits() {
            return Ok(rule.to_string());
        }
        self.setup.audit.note(AuditEvent::Decided {
            action: Action::RunJob.name().to_owned(),
            peer,
            topic: None,
            verdict: decision.verdict.name().to_owned(),
            rule: rule.to_string(),
        });
        Err(match decision.hint() {
            Some(hint) => format!("denied by rule {rule}: {hint}"),
            None => format!("denied by rule {rule}"),
        })
    }

    /// Remembers under which credential a peer came last.
    pub(super) fn remember(&mut self, identity: Option<&Arc<VerifiedIdentity>>, epoch: u64) {
        let Some(identity) = identity else {
            return;
        };
        if self.known.len() >= MAX_KNOWN
            && !self.known.contains_key(&identity.peer)
            && let Some(any) = self.known.keys().next().copied()
        {
            self.known.remove(&any);
        }
        let seen = (Arc::clone(identity), epoch);
        self.known.insert(identity.peer, seen);
    }

    /// Ends the jobs of everybody who may not have anything run any more.
    pub(super) fn review(&mut self, ctx: &mut Context<Self>) {
        let Some(running) = &self.running else {
            return;
        };
        let now = self.now();
        let doomed: Vec<(JobId, &'static str)> = running
            .registry
            .iter()
            .filter(|record| !record.is_finished())
            .filter_map(|record| Some((record.id, self.why_not(record, now)?)))
            .collect();
        for (id, why) in doomed {
            tracing::warn!(job = %id, why, "ending a job: its submitter may no longer run jobs");
            self.cancel(id, CancelledBy::Policy, ctx);
        }
    }

    fn why_not(&self, record: &JobRecord, now: Timestamp) -> Option<&'static str> {
        let peer = record.submitter.peer;
        if peer == self.setup.key.peer() {
            return None;
        }
        let standings = self.setup.standings.load();
        if standings.barred(&Party::Peer(peer), now).is_some() {
            return Some("banned");
        }
        let trust = self.setup.trust.load();
        let statuses = self.setup.statuses.load();
        // Not heard of since this process began: what was proved then has to do, and was proved
        // under the trust entries that are there now, if they are.
        let (identity, epoch) = match self.known.get(&peer) {
            Some((identity, epoch)) => (Some(Arc::clone(identity)), *epoch),
            None => (record.submitter.recorded().map(Arc::new), trust.epoch),
        };
        let identity = identity.as_ref();
        if identity.is_none() && record.submitter.identity.is_some() {
            return Some("nothing is known of its credential");
        }
        if identity.is_some_and(|identity| !trust.covers(&identity.anchor, epoch)) {
            return Some("its issuer is no longer trusted");
        }
        let known = identity.map(|one| &**one);
        // The ban may be on the member, whatever its key was when the job began.
        let standing = standings.standing_of(&peer, known, now);
        if standing.is_some_and(|standing| standing.banned_until.is_some()) {
            return Some("banned");
        }
        let decision = self.judge.review(&Question {
            action: Action::RunJob,
            peer,
            tier: known.map_or(record.submitter.tier, |identity| identity.tier),
            identity,
            standing,
            // It began while the lists were fresh: only revocation ends it.
            status: statuses.of_peer(known, now).for_running(),
            topic: None,
            command: None,
            // The connection it came by may be gone while the job lives.
            footing: record.submitter.footing,
            now,
        });
        (!decision.permits()).then_some("denied by policy")
    }
}
