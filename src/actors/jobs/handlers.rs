//! What the operator asks of Jobs.

use actix::{
    Context, Handler, MessageResult, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};

use super::{Entry, JobsActor, report};
use crate::{
    audit::AuditEvent,
    messages::{
        jobs::{JobsFault, SubmitJob, UploadPiece},
        sandbox::{CancelJob, DescribeJob, DrainJobs, FollowJob, JobNews, JobReport, ListJobs},
    },
    sandbox::{JobId, MAX_PIECE, Stream, blobs::BlobError, sent::SentRecord, spool::SpoolError},
};

fn blob_fault(error: &BlobError) -> JobsFault {
    match error {
        BlobError::WrongHash { blob } => JobsFault::WrongHash(*blob),
        BlobError::Full { .. } => JobsFault::NoRoom,
        BlobError::Io { .. } => JobsFault::Io(error.to_string()),
        _ => JobsFault::OutOfPlace,
    }
}

impl Handler<UploadPiece> for JobsActor {
    type Result = Result<u64, JobsFault>;

    fn handle(&mut self, piece: UploadPiece, _: &mut Context<Self>) -> Self::Result {
        let UploadPiece {
            blob,
            size,
            offset,
            bytes,
        } = piece;
        let running = self.running.as_mut().ok_or(JobsFault::Stopping)?;
        if bytes.len() > MAX_PIECE {
            return Err(JobsFault::OutOfPlace);
        }
        if running.blobs.have(&blob) {
            return Ok(size);
        }
        let here = running.blobs.partial(&self.setup.me, &blob);
        if offset != here || bytes.is_empty() {
            return Ok(here);
        }
        let progress = running
            .blobs
            .append(&self.setup.me, &blob, size, offset, &bytes)
            .map_err(|error| blob_fault(&error))?;
        Ok(progress.have)
    }
}

impl JobsActor {
    /// Takes a job: checks, output, record. It is not begun yet.
    fn take(&mut self, message: SubmitJob) -> Result<(JobId, bool), JobsFault> {
        let SubmitJob { executor, spec } = message;
        spec.check()?;
        let executor = executor.unwrap_or(self.setup.me);
        let id = JobId::new(&executor, &self.setup.me, &spec.key);
        let unfinished = self.unfinished();
        if self.draining {
            return Err(JobsFault::Stopping);
        }
        let running = self.running.as_mut().ok_or(JobsFault::Stopping)?;
        if let Some(known) = running.jobs.get(&id) {
            return if known.job.record().spec == spec {
                Ok((id, false))
            } else {
                Err(JobsFault::KeyReused(id))
            };
        }
        if unfinished >= self.setup.config.unfinished {
            return Err(JobsFault::TooMany(unfinished));
        }
        for blob in [&spec.module, &spec.input] {
            if !running.blobs.have(blob) {
                return Err(JobsFault::Missing(*blob));
            }
        }
        running.blobs.pin(&spec.module);
        running.blobs.pin(&spec.input);
        let record = SentRecord {
            job: id,
            executor,
            spec,
            submitted: self.setup.clock.now(),
            limits: None,
            cancel: false,
            end: None,
        };
        // What a job of this id left behind before the store was lost is not this one's.
        let io = |error: SpoolError| JobsFault::Io(error.to_string());
        self.forget_output(&id).map_err(io)?;
        let entry = self.entry(record).map_err(io)?;
        if let Some(running) = self.running.as_mut() {
            // Not driven before it is on record.
            running.jobs.insert(
                id,
                Entry {
                    busy: true,
                    ..entry
                },
            );
        }
        Ok((id, true))
    }

    /// A job that is on record: it is written down, so that it survives, and begins.
    fn begin(&mut self, id: JobId, ctx: &mut Context<Self>) {
        self.save(id);
        if let Some(entry) = self.entry_mut(id) {
            entry.busy = false;
        }
        self.drive(id, ctx);
    }

    /// Undoes a job that could not be recorded.
    fn undo(&mut self, id: JobId) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        if let Some(entry) = running.jobs.remove(&id) {
            let spec = &entry.job.record().spec;
            running.blobs.unpin(&spec.module);
            running.blobs.unpin(&spec.input);
        }
    }

    fn news(&self, ask: &FollowJob) -> Option<JobNews> {
        let entry = self.running.as_ref()?.jobs.get(&ask.job)?;
        let read = |stream, from| {
            let read = entry.spool.read(stream, from, MAX_PIECE);
            read.unwrap_or_else(|error| {
                tracing::error!(job = %ask.job, %error, "an output cannot be read");
                Vec::new()
            })
        };
        let stdout = read(Stream::Stdout, ask.stdout);
        let stderr = read(Stream::Stderr, ask.stderr);
        let at_end = |stream, from: u64, piece: &[u8]| {
            let read = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            from.saturating_add(read) >= entry.spool.len(stream)
        };
        let over = entry.job.is_over()
            && at_end(Stream::Stdout, ask.stdout, &stdout)
            && at_end(Stream::Stderr, ask.stderr, &stderr);
        Some(JobNews {
            finished: over.then(|| Box::new(report(entry))),
            stdout,
            stderr,
        })
    }
}

impl Handler<SubmitJob> for JobsActor {
    type Result = ResponseActFuture<Self, Result<JobId, JobsFault>>;

    fn handle(&mut self, message: SubmitJob, _: &mut Context<Self>) -> Self::Result {
        let module = message.spec.module.0;
        let executor = message.executor.unwrap_or(self.setup.me);
        let (id, new) = match self.take(message) {
            Ok(taken) => taken,
            Err(fault) => return Box::pin(fut::ready(Err(fault))),
        };
        if !new {
            return Box::pin(fut::ready(Ok(id)));
        }
        let audit = self.setup.audit.clone();
        let recorded = async move {
            let event = AuditEvent::JobSent {
                job: id.to_string(),
                executor,
                module,
            };
            audit.record(event).await
        };
        Box::pin(
            recorded
                .into_actor(self)
                .map(move |recorded, act, ctx| match recorded {
                    Ok(_) => {
                        act.begin(id, ctx);
                        Ok(id)
                    }
                    Err(error) => {
                        act.undo(id);
                        Err(JobsFault::Audit(error.to_string()))
                    }
                }),
        )
    }
}

impl Handler<ListJobs> for JobsActor {
    type Result = Vec<JobReport>;

    fn handle(&mut self, _: ListJobs, _: &mut Context<Self>) -> Self::Result {
        let jobs = self
            .running
            .iter()
            .flat_map(|running| running.jobs.values());
        let mut reports: Vec<_> = jobs
            .map(|entry| JobReport {
                // A list names the receipt nowhere; `job show` carries it.
                receipt: None,
                ..report(entry)
            })
            .collect();
        reports.sort_by_key(|job| std::cmp::Reverse(job.submitted));
        reports
    }
}

impl Handler<DescribeJob> for JobsActor {
    type Result = Option<JobReport>;

    fn handle(&mut self, ask: DescribeJob, _: &mut Context<Self>) -> Self::Result {
        let running = self.running.as_ref()?;
        running.jobs.get(&ask.job).map(report)
    }
}

impl Handler<FollowJob> for JobsActor {
    type Result = ResponseActFuture<Self, Option<JobNews>>;

    fn handle(&mut self, ask: FollowJob, _: &mut Context<Self>) -> Self::Result {
        let news = self.news(&ask);
        let nothing = JobNews::default();
        if news.as_ref() != Some(&nothing) || ask.wait.is_zero() {
            return Box::pin(fut::ready(news));
        }
        let woken = tokio::time::timeout(ask.wait, self.waiters.wait(ask.job));
        Box::pin(woken.into_actor(self).map(move |_, act, _| act.news(&ask)))
    }
}

impl Handler<CancelJob> for JobsActor {
    type Result = MessageResult<CancelJob>;

    fn handle(&mut self, ask: CancelJob, ctx: &mut Context<Self>) -> Self::Result {
        let id = ask.job;
        let Some(entry) = self.entry_mut(id) else {
            return MessageResult(None);
        };
        let (state, _) = entry.job.progress();
        if entry.job.cancel() {
            self.save(id);
            self.send_cancel(id, ctx);
        }
        MessageResult(Some(state))
    }
}

impl Handler<DrainJobs> for JobsActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: DrainJobs, _: &mut Context<Self>) -> Self::Result {
        self.draining = true;
        self.setup.store.flush().map_err(|error| error.to_string())
    }
}
