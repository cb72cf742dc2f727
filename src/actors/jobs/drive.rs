//! The exchange with an executor: the next request, its answer, what follows.

use std::time::Duration;

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::{JobsActor, report};
use crate::{
    audit::AuditEvent,
    messages::{
        sandbox::JobRequest,
        swarm::{SendFault, SendJobRequest},
    },
    sandbox::{
        JobId, Stream,
        receipt::{Expectation, Receipt},
        sent::{Effect, Next, SentFault, SentRecord},
        spool::{Spool, SpoolError},
        wire::{MAX_WAIT, RefusalCode, Refused, Request, Response},
    },
    types::PeerId,
};

/// How long an exchange may take beyond what the request waits for.
const GRACE: Duration = Duration::from_secs(20);

impl JobsActor {
    /// Does what comes next for a job, unless something is under way.
    pub(super) fn drive(&mut self, id: JobId, ctx: &mut Context<Self>) {
        let Some((executor, request)) = self.next_request(id) else {
            return;
        };
        let ask = self.ask(executor, request).into_actor(self);
        ctx.spawn(ask.map(move |answer, act, ctx| act.on_answer(id, answer, ctx)));
    }

    /// The next request of a job; marks it busy.
    fn next_request(&mut self, id: JobId) -> Option<(PeerId, Request)> {
        let running = self.running.as_mut()?;
        let entry = running.jobs.get_mut(&id)?;
        if entry.busy || self.draining {
            return None;
        }
        let request = match entry.job.next() {
            Next::Over => return None,
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
                    self.finish(id, Err(SentFault::Disk { detail }));
                    return None;
                }
            },
        };
        entry.busy = true;
        Some((entry.job.record().executor, request))
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
                    security: None,
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
        answer: Result<Response, SendFault>,
        ctx: &mut Context<Self>,
    ) {
        let elapsed = self.setup.clock.elapsed();
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        entry.busy = false;
        if entry.job.is_over() {
            // Cancelled or given up while this request was under way: it must not run for nobody.
            if matches!(answer, Ok(Response::Submitted { .. })) {
                let executor = entry.job.record().executor;
                let cancel = self.ask(executor, Request::Cancel { job: id });
                ctx.spawn(cancel.into_actor(self).map(|_, _, _| ()));
            }
            return;
        }
        let effects = match answer {
            Ok(response) => entry.job.answered(response, elapsed),
            Err(SendFault::Unsupported) => entry.job.answered(
                Response::Refused(Refused::new(
                    RefusalCode::Disabled,
                    "the peer does not speak the job protocol",
                )),
                elapsed,
            ),
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
        match pause {
            None => self.drive(id, ctx),
            Some(span) => {
                if let Some(entry) = self.entry_mut(id) {
                    entry.busy = true;
                }
                ctx.run_later(span, move |act, ctx| {
                    if let Some(entry) = act.entry_mut(id) {
                        entry.busy = false;
                    }
                    act.drive(id, ctx);
                });
            }
        }
    }

    fn carry_out(&mut self, id: JobId, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Save => self.save(id),
            Effect::Append(stream, bytes) => {
                let Some(entry) = self.entry_mut(id) else {
                    return;
                };
                if let Err(error) = entry.spool.append(stream, &bytes) {
                    let fault = match error {
                        SpoolError::TooMuch { .. } => SentFault::TooMuchOutput,
                        other => SentFault::Disk {
                            detail: other.to_string(),
                        },
                    };
                    self.finish(id, Err(fault));
                }
            }
            Effect::Verify(receipt) => {
                let result = self.verify(id, receipt);
                self.finish(id, result);
            }
            Effect::End(fault) => {
                if let Some(entry) = self.entry_mut(id)
                    && !matches!(fault, SentFault::Refused { .. })
                {
                    // Whatever it still does there is in vain.
                    let executor = entry.job.record().executor;
                    let cancel = self.ask(executor, Request::Cancel { job: id });
                    ctx.spawn(cancel.into_actor(self).map(|_, _, _| ()));
                }
                self.finish(id, Err(fault));
            }
            // Its caller's.
            Effect::Pause(_) => {}
        }
    }

    /// What follows from the answer to a cancellation that overtook the exchange.
    pub(super) fn after_cancel(
        &mut self,
        id: JobId,
        effects: Vec<Effect>,
        ctx: &mut Context<Self>,
    ) {
        for effect in effects {
            self.carry_out(id, effect, ctx);
        }
        self.waiters.wake(&id);
        self.drive(id, ctx);
    }

    /// Whether a receipt is the executor's word on exactly what this node knows.
    fn verify(&self, id: JobId, bytes: Vec<u8>) -> Result<Vec<u8>, SentFault> {
        let bad = |what: String| SentFault::BadResult { what };
        let entry = self.running.as_ref().and_then(|all| all.jobs.get(&id));
        let Some(entry) = entry else {
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
            ..Expectation::of(*executor, self.setup.me, spec)
        };
        body.matches(&expected)
            .map_err(|mismatch| bad(mismatch.to_string()))?;
        Ok(bytes)
    }

    /// Ends a job: on record, written down, told. Once.
    pub(super) fn finish(&mut self, id: JobId, result: Result<Vec<u8>, SentFault>) {
        let now = self.setup.clock.now();
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        let receipt = result.as_ref().ok().map(|bytes| {
            let hash = crate::sandbox::ContentHash::of(bytes);
            hash.0
        });
        if !entry.job.end(result, now) {
            return;
        }
        let told = report(entry);
        let outcome = match (&told.outcome, &told.fault) {
            (Some(outcome), _) => outcome.to_string(),
            (None, Some(fault)) => fault.to_string(),
            (None, None) => String::new(),
        };
        let name = told
            .outcome
            .as_ref()
            .map_or("failed", |outcome| outcome.name());
        self.setup.metrics.jobs().sent(name);
        self.setup.audit.note(AuditEvent::JobResult {
            job: id.to_string(),
            executor: told.peer,
            outcome,
            receipt,
        });
        self.save(id);
        if let Some(running) = self.running.as_mut()
            && let Some(entry) = running.jobs.get(&id)
        {
            let spec = &entry.job.record().spec;
            let (module, input) = (spec.module, spec.input);
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
