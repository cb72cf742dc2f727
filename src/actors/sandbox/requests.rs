//! The job protocol: what a peer's request does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};

use super::SandboxActor;
use crate::{
    audit::AuditEvent,
    identity::{Tier, VerifiedIdentity},
    messages::sandbox::JobRequest,
    sandbox::{
        CancelledBy, ContentHash, JobId, JobSpec, JobState, MAX_PIECE, Stream,
        blobs::BlobError,
        registry::{Accepted, CancelEffect, Rejection, Submitter},
        spool::Spool,
        wire::{MAX_WAIT, Piece, RefusalCode, Refused, Request, Response, Wanted},
    },
    types::{Footing, PeerId},
};

/// When a peer that was told to come again should do so.
const COME_AGAIN: Duration = Duration::from_millis(500);
/// Kinds of refusals whose last record is remembered.
const MAX_REFUSALS: usize = 4_096;

type Answer = ResponseActFuture<SandboxActor, Response>;

fn now_ready(response: Response) -> Answer {
    Box::pin(fut::ready(response))
}

fn refused(code: RefusalCode, detail: impl Into<String>, again: Option<Duration>) -> Response {
    let refused = Refused::new(code, &detail.into());
    Response::Refused(match again {
        Some(span) => refused.after(span),
        None => refused,
    })
}

/// A job that is not there, or is somebody else's: the same answer, so that nobody learns which.
fn unknown() -> Response {
    refused(RefusalCode::UnknownJob, "no such job of yours", None)
}

fn starting() -> Response {
    refused(RefusalCode::Unavailable, "starting", Some(COME_AGAIN))
}

/// The disk is nearly full: what is here goes on, nothing new is taken.
fn no_disk() -> Response {
    let detail = "the disk of this node is nearly full (sandbox.disk_reserve)";
    refused(RefusalCode::QueueFull, detail, Some(COME_AGAIN))
}

fn rejected(rejection: &Rejection) -> Response {
    let (code, again) = match rejection {
        Rejection::Disabled => (RefusalCode::Disabled, None),
        Rejection::Invalid(_) => (RefusalCode::Invalid, None),
        Rejection::Limit(_) => (RefusalCode::LimitAboveCeiling, None),
        Rejection::TooLarge { .. } => (RefusalCode::TooLarge, None),
        Rejection::QueueFull => (RefusalCode::QueueFull, Some(COME_AGAIN)),
        Rejection::PeerQueueFull => (RefusalCode::PeerQueueFull, Some(COME_AGAIN)),
        Rejection::CpuQuota { retry_after } => (RefusalCode::CpuQuota, Some(*retry_after)),
        Rejection::KeyReused => (RefusalCode::KeyReused, None),
        Rejection::UnderWay => (RefusalCode::Unavailable, Some(COME_AGAIN)),
    };
    refused(code, rejection.to_string(), again)
}

impl Handler<JobRequest> for SandboxActor {
    type Result = Answer;

    fn handle(&mut self, message: JobRequest, ctx: &mut Context<Self>) -> Self::Result {
        let JobRequest {
            peer,
            identity,
            epoch,
            footing,
            request,
        } = message;
        self.remember(identity.as_ref(), epoch);
        match request {
            Request::Submit(spec) => self.on_submit(peer, identity.as_ref(), footing, *spec),
            Request::Put {
                job,
                blob,
                offset,
                bytes,
            } => now_ready(self.on_put(peer, job, &blob, offset, &bytes, ctx)),
            Request::Fetch {
                job,
                stdout,
                stderr,
                wait_ms,
            } => {
                let wait = Duration::from_millis(u64::from(wait_ms)).min(MAX_WAIT);
                self.on_fetch(peer, job, (stdout, stderr), wait)
            }
            Request::Cancel { job } => now_ready(self.on_cancel(peer, job, ctx)),
        }
    }
}

/// What is written down of who submits.
fn submitter(
    peer: PeerId,
    identity: Option<&VerifiedIdentity>,
    footing: Option<Footing>,
) -> Submitter {
    Submitter {
        peer,
        tier: identity.map_or(Tier::Unverified, |one| one.tier),
        anchor: identity.map(|one| one.anchor.clone()),
        identity: identity.map(|one| format!("{}/{}", one.issuer, one.subject)),
        expires: identity.map(|one| one.expires),
        statuses: identity.map_or_else(Vec::new, |one| one.statuses.clone()),
        groups: identity.map_or_else(Vec::new, |one| one.groups.clone()),
        attributes: identity.map_or_else(BTreeMap::new, |one| one.attributes.clone()),
        footing,
    }
}

impl SandboxActor {
    fn on_submit(
        &mut self,
        peer: PeerId,
        identity: Option<&Arc<VerifiedIdentity>>,
        footing: Option<Footing>,
        spec: JobSpec,
    ) -> Answer {
        if self.draining {
            let detail = "the node is stopping";
            return now_ready(refused(RefusalCode::Stopping, detail, Some(COME_AGAIN)));
        }
        let rule = match self.decide(peer, identity, footing) {
            Ok(rule) => rule,
            Err(why) => {
                let refusal = refused(RefusalCode::Denied, why, None);
                return now_ready(self.refuse(peer, refusal));
            }
        };
        let submitter = submitter(peer, identity.map(|one| &**one), footing);
        let label = submitter.identity.clone();
        let (now, short) = (self.now(), self.disk_is_short);
        let Some(running) = self.running.as_mut() else {
            return now_ready(starting());
        };
        let module = spec.module;
        if short && !running.registry.knows(&peer, &spec) {
            return now_ready(self.refuse(peer, no_disk()));
        }
        let accepted = match running.registry.submit(submitter, spec, now) {
            Ok(accepted) => accepted,
            Err(rejection) => {
                let refusal = rejected(&rejection);
                return now_ready(self.refuse(peer, refusal));
            }
        };
        if accepted.repeated {
            // Its blobs may have come with another job.
            running.get_ready(&[accepted.id]);
            return now_ready(self.accepted(&accepted));
        }
        let id = accepted.id;
        if let Err(refusal) = self.make_place(id, accepted.limits.output) {
            return now_ready(refusal);
        }
        let event = AuditEvent::JobAccepted {
            job: id.to_string(),
            submitter: peer,
            identity: label,
            module: module.0,
            rule,
        };
        let audit = self.setup.audit.clone();
        let recorded = async move { audit.record(event).await };
        Box::pin(
            recorded
                .into_actor(self)
                .map(move |recorded, act, ctx| match recorded {
                    Ok(_) => {
                        act.begin(id, ctx);
                        act.accepted(&accepted)
                    }
                    Err(error) => {
                        act.undo(id);
                        refused(
                            RefusalCode::Unavailable,
                            error.to_string(),
                            Some(COME_AGAIN),
                        )
                    }
                }),
        )
    }

    /// A new job's output and its hold on its blobs.
    fn make_place(&mut self, id: JobId, most: u64) -> Result<(), Response> {
        let outputs = self.outputs();
        let Some(running) = self.running.as_mut() else {
            return Err(unknown());
        };
        let spool = Spool::remove(&outputs, &id).and_then(|()| Spool::open(&outputs, id, most));
        match spool {
            Ok(spool) => drop(running.spools.insert(id, spool)),
            Err(error) => {
                running.registry.forget(&id);
                tracing::error!(job = %id, %error, "no place for a job's output");
                return Err(refused(RefusalCode::Unavailable, "disk", Some(COME_AGAIN)));
            }
        }
        if let Some(record) = running.registry.job(&id).cloned() {
            running.hold(&record);
        }
        Ok(())
    }

    /// A job that is on record: it counts from now on, and may be able to start.
    fn begin(&mut self, id: JobId, ctx: &mut Context<Self>) {
        let now = self.now();
        if let Some(running) = self.running.as_mut() {
            running.registry.on_record(&id, now);
            running.get_ready(&[id]);
        }
        self.persist(true);
        self.schedule(ctx);
    }

    /// Takes back a job that could not be recorded.
    fn undo(&mut self, id: JobId) {
        if let Some(running) = self.running.as_mut() {
            if let Some(record) = running.registry.job(&id).cloned() {
                running.release(&record);
            }
            running.registry.forget(&id);
            running.spools.remove(&id);
        }
    }

    fn accepted(&self, accepted: &Accepted) -> Response {
        let Some(running) = &self.running else {
            return starting();
        };
        let Some(record) = running.registry.job(&accepted.id) else {
            return unknown();
        };
        let mut wanted = Vec::new();
        if record.state == JobState::Waiting {
            let spec = &record.spec;
            for (blob, size) in [
                (spec.module, spec.module_size),
                (spec.input, spec.input_size),
            ] {
                let new = wanted.iter().all(|known: &Wanted| known.blob != blob);
                let peer = &record.submitter.peer;
                let here = running.blobs.have(&blob) && running.blobs.is_shown(peer, &blob);
                if new && !here {
                    let have = running.blobs.partial(&record.submitter.peer, &blob);
                    wanted.push(Wanted { blob, have, size });
                }
            }
        }
        Response::Submitted {
            job: accepted.id,
            state: record.state,
            limits: record.limits,
            wanted,
        }
    }

    /// Counts a refusal, and records the first of its kind in a while.
    fn refuse(&mut self, peer: PeerId, response: Response) -> Response {
        let Response::Refused(refusal) = &response else {
            return response;
        };
        let code = refusal.code.name();
        self.setup.metrics.jobs().refused(code);
        let now = self.now();
        let every = self.setup.config.audit.aggregate.0;
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.retain(|_, at| now.since(*at) < every);
        }
        let key = (peer, code);
        let last = self.refusals.get(&key);
        let due = last.is_none_or(|at| now.since(*at) >= every);
        if due && self.refusals.len() < MAX_REFUSALS {
            self.refusals.insert(key, now);
            self.setup.audit.note(AuditEvent::JobRefused {
                submitter: peer,
                code: code.to_owned(),
                detail: refusal.detail.clone(),
            });
        }
        response
    }

    fn on_put(
        &mut self,
        peer: PeerId,
        job: JobId,
        blob: &ContentHash,
        offset: u64,
        bytes: &[u8],
        ctx: &mut Context<Self>,
    ) -> Response {
        let Some(running) = self.running.as_mut() else {
            return starting();
        };
        if self.disk_is_short {
            return no_disk();
        }
        let owned = running
            .registry
            .job(&job)
            .filter(|record| record.submitter.peer == peer);
        let Some(record) = owned else {
            return unknown();
        };
        let spec = &record.spec;
        let size = match *blob {
            blob if blob == spec.module => spec.module_size,
            blob if blob == spec.input => spec.input_size,
            _ => return refused(RefusalCode::Invalid, "not a part of the job", None),
        };
        let here = running.blobs.have(blob) && running.blobs.is_shown(&peer, blob);
        if record.state != JobState::Waiting || here {
            running.get_ready(&[job]);
            self.schedule(ctx);
            return Response::Stored {
                blob: *blob,
                have: size,
            };
        }
        match running.blobs.append(&peer, blob, size, offset, bytes) {
            Ok(progress) => {
                if progress.complete {
                    let waiting = running.registry.waiting_for(blob);
                    running.get_ready(&waiting);
                    self.schedule(ctx);
                }
                Response::Stored {
                    blob: *blob,
                    have: progress.have,
                }
            }
            Err(BlobError::Offset { have, .. }) => Response::Stored { blob: *blob, have },
            Err(error @ (BlobError::WrongHash { .. } | BlobError::Size { .. })) => {
                refused(RefusalCode::Invalid, error.to_string(), None)
            }
            Err(error) => {
                tracing::warn!(%error, "a piece was not taken");
                refused(RefusalCode::Unavailable, "no room", Some(COME_AGAIN))
            }
        }
    }

    /// What is new of a job, as soon as there is something, or nothing when the wait is over.
    fn on_fetch(&mut self, peer: PeerId, job: JobId, cursor: (u64, u64), wait: Duration) -> Answer {
        let response = self.progress(peer, job, cursor);
        let nothing_new = matches!(
            &response,
            Response::Progress { state, stdout, stderr, receipt: None, .. }
                if stdout.bytes.is_empty() && stderr.bytes.is_empty() && *state != JobState::Waiting
        );
        if !nothing_new || wait.is_zero() || self.draining {
            return now_ready(response);
        }
        let since = self.setup.clock.elapsed();
        let woken = tokio::time::timeout(wait, self.waiters.wait(job));
        Box::pin(woken.into_actor(self).then(move |woken, act, _| {
            // Woken for something that cannot be told yet (its receipt is being recorded): the
            // peer would only come back after a pause.
            let gone = act.setup.clock.elapsed().saturating_sub(since);
            let left = woken.map_or(Duration::ZERO, |_| wait.saturating_sub(gone));
            act.on_fetch(peer, job, cursor, left)
        }))
    }

    fn progress(&self, peer: PeerId, job: JobId, (out, err): (u64, u64)) -> Response {
        let Some(running) = &self.running else {
            return starting();
        };
        let owned = running
            .registry
            .job(&job)
            .filter(|record| record.submitter.peer == peer);
        let Some(record) = owned else {
            return unknown();
        };
        let lengths = (
            running.length(&job, Stream::Stdout),
            running.length(&job, Stream::Stderr),
        );
        if out > lengths.0 || err > lengths.1 {
            return refused(RefusalCode::Invalid, "a cursor is past the end", None);
        }
        let read = |stream, offset| {
            let bytes = running.read(&job, stream, offset, MAX_PIECE)?;
            Ok::<_, crate::sandbox::spool::SpoolError>(Piece { offset, bytes })
        };
        let (stdout, stderr) = match (read(Stream::Stdout, out), read(Stream::Stderr, err)) {
            (Ok(stdout), Ok(stderr)) => (stdout, stderr),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%job, %error, "an output cannot be read");
                return refused(RefusalCode::Unavailable, "disk", Some(COME_AGAIN));
            }
        };
        let end = |piece: &Piece| {
            let length = u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX);
            piece.offset.saturating_add(length)
        };
        let all = (end(&stdout), end(&stderr)) == lengths;
        // Without its receipt a job is not finished for anybody.
        let receipt = record.receipt.clone().filter(|_| all);
        let state = if record.receipt.is_none() && record.is_finished() {
            JobState::Running
        } else {
            record.state
        };
        Response::Progress {
            state,
            attempt: record.attempt,
            stdout,
            stderr,
            receipt,
        }
    }

    fn on_cancel(&mut self, peer: PeerId, job: JobId, ctx: &mut Context<Self>) -> Response {
        let record = self.running.as_ref().and_then(|all| all.registry.job(&job));
        if record.is_none_or(|record| record.submitter.peer != peer) {
            return unknown();
        }
        match self.cancel(job, CancelledBy::Submitter, ctx) {
            Some(state) => Response::Cancelled { state },
            None => unknown(),
        }
    }

    /// Cancels a job; where it was.
    pub(super) fn cancel(
        &mut self,
        job: JobId,
        by: CancelledBy,
        ctx: &mut Context<Self>,
    ) -> Option<JobState> {
        let now = self.now();
        let running = self.running.as_mut()?;
        let state = running.registry.job(&job)?.state;
        match running.registry.cancel(job, by, now)? {
            CancelEffect::NothingToDo => {}
            CancelEffect::EndedNow => {
                self.ended(job, ctx);
                self.schedule(ctx);
            }
            CancelEffect::StopRunning => {
                if let Some(live) = self.live.get_mut(&job) {
                    live.verdict
                        .get_or_insert(crate::sandbox::Outcome::Cancelled { by });
                    live.cancel.cancel();
                }
            }
        }
        Some(state)
    }
}
