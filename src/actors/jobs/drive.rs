//! The exchange with an executor: the next request, its answer, what follows.

use std::time::Duration;

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::JobsActor;
use crate::{
    audit::AuditEvent,
    messages::{
        sandbox::JobRequest,
        swarm::{SendFault, SendJobRequest},
    },
    sandbox::{
        ContentHash, JobId, Stream,
        receipt::{Expectation, Receipt},
        sent::{Asked, Effect, Next, SentFault, SentRecord},
        spool::{Spool, SpoolError},
        wire::{MAX_WAIT, RefusalCode, Refused, Request, Response},
    },
    types::PeerId,
};

/// How long an exchange may take beyond what the request waits for.
const GRACE: Duration = Duration::from_secs(20);
/// How long an executor is asked to wait for news while other jobs wait for their turn with it.
const CROWDED_WAIT_MS: u32 = 250;
/// How soon an end that could not be put on record is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// Times a cancellation in vain is sent at most: it is told when a peer does not answer, which is
/// when this node leaves that peer alone for a while.
const CANCELLATIONS: u32 = 3;
/// The longest wait between two of them: as long as a breaker is open unless configured otherwise.
const LONGEST_HELD: Duration = Duration::from_secs(300);

impl JobsActor {
    /// Does what comes next for a job, unless something is under way, as soon as it is its turn.
    pub(super) fn drive(&mut self, id: JobId, ctx: &mut Context<Self>) {
        let draining = self.draining;
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        if entry.busy || entry.ending || draining || entry.job.is_over() {
            return;
        }
        let executor = entry.job.record().executor;
        if !self.lanes.enter(executor, id) {
            return;
        }
        let Some(request) = self.next_request(id, ctx) else {
            return self.lanes.leave(&executor);
        };
        let asked = Asked::of(&request);
        let ask = self.ask(executor, request).into_actor(self);
        ctx.spawn(ask.map(move |answer, act, ctx| {
            act.on_answer(id, asked, answer, ctx);
            act.lanes.leave(&executor);
            // A job that has nothing to ask any more leaves its turn to the next.
            while let Some(next) = act.lanes.next(&executor) {
                act.drive(next, ctx);
            }
        }));
    }

    /// The next request of a job; marks it busy.
    fn next_request(&mut self, id: JobId, ctx: &mut Context<Self>) -> Option<Request> {
        let running = self.running.as_mut()?;
        let entry = running.jobs.get_mut(&id)?;
        let request = match entry.job.next() {
            Next::Over => return None,
            Next::Ask(Request::Fetch {
                job,
                stdout,
                stderr,
                wait_ms,
            }) => Request::Fetch {
                job,
                stdout,
                stderr,
                wait_ms: if self.lanes.is_crowded(&entry.job.record().executor) {
                    CROWDED_WAIT_MS
                } else {
                    wait_ms
                },
            },
            Next::Ask(request) => request,
            Next::Piece { blob, offset, most } => match running.blobs.read(&blob, offset, most) {
                Ok(bytes) => Request::Put {
                    job: id,
                    blob,
                    offset,
                    bytes,
                },
                Err(error) => {
                    let detail = error.to_string();
                    self.finish(id, Err(SentFault::Disk { detail }), ctx);
                    return None;
                }
            },
        };
        entry.busy = true;
        Some(request)
    }

    /// Asks the executor: over the network, or this node itself.
    pub(super) fn ask(
        &self,
        executor: PeerId,
        request: Request,
    ) -> impl Future<Output = Result<Response, SendFault>> + use<> {
        let deadline = MAX_WAIT.saturating_add(GRACE);
        let (swarm, sandbox) = (self.setup.swarm.clone(), self.setup.sandbox.clone());
        let (me, own) = (self.setup.me, self.setup.own.load());
        async move {
            if executor == me {
                let request = JobRequest {
                    peer: me,
                    identity: own.identity.clone(),
                    epoch: 0,
                    footing: None,
                    request,
                };
                let answer = sandbox.ask(request, deadline).await;
                return answer.map_err(|_| SendFault::Broken);
            }
            let request = SendJobRequest {
                peer: executor,
                request,
            };
            match swarm.ask(request, deadline).await {
                Ok(answer) => answer,
                Err(_) => Err(SendFault::Broken),
            }
        }
    }

    fn on_answer(
        &mut self,
        id: JobId,
        asked: Asked,
        answer: Result<Response, SendFault>,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        entry.busy = false;
        if entry.job.is_over() || entry.ending {
            // Cancelled or given up while this request was under way: it must not run for nobody.
            if matches!(answer, Ok(Response::Submitted { .. })) {
                self.tell_in_vain(id, ctx);
            }
            return;
        }
        if let Some(span) = self.follow(id, asked, answer, ctx) {
            if let Some(entry) = self.entry_mut(id) {
                entry.busy = true;
            }
            ctx.run_later(span, move |act, ctx| {
                if let Some(entry) = act.entry_mut(id) {
                    entry.busy = false;
                }
                act.drive(id, ctx);
            });
        } else {
            self.drive(id, ctx);
        }
    }

    /// Does what follows from an answer, or from none; how long to pause then.
    fn follow(
        &mut self,
        id: JobId,
        asked: Asked,
        answer: Result<Response, SendFault>,
        ctx: &mut Context<Self>,
    ) -> Option<Duration> {
        let elapsed = self.setup.clock.elapsed();
        let entry = self.entry_mut(id)?;
        let effects = match answer {
            Ok(response) => entry.job.answered(asked, response, elapsed),
            Err(SendFault::Unsupported) => {
                let detail = "the peer does not speak the job protocol";
                let refused = Refused::new(RefusalCode::Disabled, detail);
                let response = Response::Refused(refused);
                entry.job.answered(asked, response, elapsed)
            }
            Err(SendFault::Held { retry_after, .. }) => vec![entry.job.held(retry_after, elapsed)],
            Err(_) => vec![entry.job.unanswered(elapsed)],
        };
        let mut pause = None;
        for effect in effects {
            match effect {
                Effect::Pause(span) => pause = Some(span),
                other => self.carry_out(id, other, ctx),
            }
        }
        self.waiters.wake(&id);
        pause
    }

    /// Tells the executor that a job is cancelled, beside the exchange that is under way (which
    /// may wait for news), and again until it knows or the job is over.
    pub(super) fn send_cancel(&mut self, id: JobId, ctx: &mut Context<Self>) {
        let draining = self.draining;
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        if draining || entry.ending || !entry.job.wants_cancel() {
            return;
        }
        let executor = entry.job.record().executor;
        let cancel = self.ask(executor, Request::Cancel { job: id });
        let cancel = cancel.into_actor(self).map(move |answer, act, ctx| {
            if act.entry_mut(id).is_none_or(|entry| entry.ending) {
                return;
            }
            match act.follow(id, Asked::Cancel, answer, ctx) {
                Some(pause) => {
                    ctx.run_later(pause, move |act, ctx| act.send_cancel(id, ctx));
                }
                None => act.drive(id, ctx),
            }
        });
        ctx.spawn(cancel);
    }

    /// Whatever the executor still does for a job that is over here is in vain.
    fn tell_in_vain(&mut self, id: JobId, ctx: &mut Context<Self>) {
        if let Some(entry) = self.entry_mut(id) {
            let executor = entry.job.record().executor;
            self.cancel_in_vain(id, executor, 1, ctx);
        }
    }

    /// The job may be forgotten here by then: it is not looked up again.
    fn cancel_in_vain(
        &mut self,
        id: JobId,
        executor: PeerId,
        attempt: u32,
        ctx: &mut Context<Self>,
    ) {
        let cancel = self.ask(executor, Request::Cancel { job: id });
        let cancel = cancel.into_actor(self).map(move |answer, act, ctx| {
            let wait = again_in_vain(&answer, attempt).filter(|_| !act.draining);
            if let Some(wait) = wait {
                ctx.run_later(wait, move |act, ctx| {
                    act.cancel_in_vain(id, executor, attempt.saturating_add(1), ctx);
                });
            }
        });
        ctx.spawn(cancel);
    }

    /// Gives up what is overdue.
    pub(super) fn give_up_overdue(&mut self, ctx: &mut Context<Self>) {
        let (now, elapsed) = (self.setup.clock.now(), self.setup.clock.elapsed());
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let overdue: Vec<_> = running
            .jobs
            .iter_mut()
            .filter(|(_, entry)| !entry.ending)
            .filter_map(|(id, entry)| Some((*id, entry.job.overdue(now, elapsed)?)))
            .collect();
        for (id, fault) in overdue {
            self.tell_in_vain(id, ctx);
            self.finish(id, Err(fault), ctx);
        }
    }

    fn carry_out(&mut self, id: JobId, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Save => self.save(id),
            Effect::Append(stream, bytes) => {
                if let Err(fault) = self.append(id, stream, &bytes) {
                    self.finish(id, Err(fault), ctx);
                }
            }
            Effect::Verify(receipt) => {
                let result = self.verify(id, receipt);
                self.finish(id, result, ctx);
            }
            Effect::End(fault) => {
                if !matches!(fault, SentFault::Refused { .. }) {
                    self.tell_in_vain(id, ctx);
                }
                self.finish(id, Err(fault), ctx);
            }
            // Its caller's.
            Effect::Pause(_) => {}
        }
    }

    /// Keeps a piece of output. When results fill the disk they go first.
    fn append(&mut self, id: JobId, stream: Stream, bytes: &[u8]) -> Result<(), SentFault> {
        let most = self.setup.config.output_storage.0;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let is_full = |all: &super::Running| all.outputs().saturating_add(length) > most;
        if self.running.as_ref().is_some_and(is_full) {
            self.sweep(length);
        }
        if self.running.as_ref().is_some_and(is_full) {
            let detail = "jobs.output_storage is full of unfinished jobs' output".to_owned();
            return Err(SentFault::Disk { detail });
        }
        let Some(entry) = self.entry_mut(id) else {
            return Ok(());
        };
        match entry.spool.append(stream, bytes) {
            Ok(()) => Ok(()),
            Err(SpoolError::TooMuch { .. }) => Err(SentFault::TooMuchOutput),
            Err(other) => Err(SentFault::Disk {
                detail: other.to_string(),
            }),
        }
    }

    /// Whether a receipt is the executor's word on exactly what this node knows.
    fn verify(&mut self, id: JobId, bytes: Vec<u8>) -> Result<Vec<u8>, SentFault> {
        let bad = |what: String| SentFault::BadResult { what };
        let me = self.setup.me;
        let Some(entry) = self.entry_mut(id) else {
            return Err(bad("unknown".to_owned()));
        };
        let SentRecord {
            executor,
            spec,
            limits,
            ..
        } = entry.job.record();
        let receipt = Receipt::decode(&bytes).map_err(|error| bad(error.to_string()))?;
        let body = receipt.verify().map_err(|error| bad(error.to_string()))?;
        let disk = |error: SpoolError| SentFault::Disk {
            detail: error.to_string(),
        };
        let expected = Expectation {
            stdout: Some(entry.spool.content(Stream::Stdout).map_err(disk)?),
            stderr: Some(entry.spool.content(Stream::Stderr).map_err(disk)?),
            limits: *limits,
            ..Expectation::of(*executor, me, spec)
        };
        body.matches(&expected)
            .map_err(|mismatch| bad(mismatch.to_string()))?;
        Ok(bytes)
    }

    /// Ends a job: on record, written down, told. Once: what comes meanwhile changes nothing.
    pub(super) fn finish(
        &mut self,
        id: JobId,
        result: Result<Vec<u8>, SentFault>,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        if entry.job.is_over() || entry.ending {
            return;
        }
        entry.ending = true;
        self.record_end(id, result, ctx);
    }

    fn record_end(
        &mut self,
        id: JobId,
        result: Result<Vec<u8>, SentFault>,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        let executor = entry.job.record().executor;
        let (name, outcome) = told(&result);
        let receipt = result.as_ref().ok();
        let event = AuditEvent::JobResult {
            job: id.to_string(),
            executor,
            outcome,
            receipt: receipt.map(|bytes| ContentHash::of(bytes).0),
        };
        let audit = self.setup.audit.clone();
        let recorded = async move { audit.record(event).await };
        ctx.spawn(
            recorded
                .into_actor(self)
                .map(move |recorded, act, ctx| match recorded {
                    Ok(_) => act.ended(id, result, name),
                    Err(error) => {
                        tracing::warn!(job = %id, %error, "a result is not on record yet");
                        ctx.run_later(RECORD_AGAIN, move |act, ctx| {
                            act.record_end(id, result, ctx);
                        });
                    }
                }),
        );
    }

    fn ended(&mut self, id: JobId, result: Result<Vec<u8>, SentFault>, name: &'static str) {
        let now = self.setup.clock.now();
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        entry.ending = false;
        if !entry.job.end(result, now) {
            return;
        }
        let spec = &entry.job.record().spec;
        let (module, input) = (spec.module, spec.input);
        self.setup.metrics.jobs().sent(name);
        self.save(id);
        if let Some(running) = self.running.as_mut() {
            running.blobs.unpin(&module);
            running.blobs.unpin(&input);
        }
        self.waiters.wake(&id);
    }

    /// Writes a job's record down.
    pub(super) fn save(&mut self, id: JobId) {
        let Some(running) = self.running.as_ref() else {
            return;
        };
        let Some(entry) = running.jobs.get(&id) else {
            return;
        };
        let saved = running.tree.put(&id.0, entry.job.record());
        if let Err(error) = saved.and_then(|()| self.setup.store.flush()) {
            self.incarnation.fail(error);
        }
    }

    pub(super) fn entry_mut(&mut self, id: JobId) -> Option<&mut super::Entry> {
        self.running.as_mut()?.jobs.get_mut(&id)
    }

    /// A new job's place for its output.
    pub(super) fn forget_output(&self, id: &JobId) -> Result<(), SpoolError> {
        Spool::remove(&self.setup.dir.join("output"), id)
    }
}

/// An end for metrics, and in words.
fn told(result: &Result<Vec<u8>, SentFault>) -> (&'static str, String) {
    match result {
        Err(fault) => ("failed", fault.to_string()),
        Ok(receipt) => match Receipt::decode(receipt) {
            // Verified before it came here.
            Ok(receipt) => {
                let outcome = &receipt.unverified().outcome;
                (outcome.name(), outcome.to_string())
            }
            Err(error) => ("failed", error.to_string()),
        },
    }
}

/// How long until a cancellation in vain is sent once more; `None`: it was sent, or is given up.
fn again_in_vain(answer: &Result<Response, SendFault>, attempt: u32) -> Option<Duration> {
    match answer {
        Err(SendFault::Held { retry_after, .. }) if attempt < CANCELLATIONS => {
            Some((*retry_after).min(LONGEST_HELD))
        }
        // Whoever is gone or broken takes the job up again by asking for it, and is told then.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::outward::HeldBy;

    #[test]
    fn a_cancellation_that_was_held_is_sent_later_a_few_times() {
        let held = |secs| {
            Err(SendFault::Held {
                by: HeldBy::BreakerOpen,
                retry_after: Duration::from_secs(secs),
            })
        };
        assert_eq!(again_in_vain(&held(7), 1), Some(Duration::from_secs(7)));
        assert_eq!(again_in_vain(&held(7), 2), Some(Duration::from_secs(7)));
        assert_eq!(again_in_vain(&held(7), CANCELLATIONS), None);
        assert_eq!(again_in_vain(&held(100_000), 1), Some(LONGEST_HELD));
        assert_eq!(again_in_vain(&Err(SendFault::NotConnected), 1), None);
    }
}
