//! What the operator asks of Sandbox.

use actix::{
    Context, Handler, MessageResult, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};

use super::{Running, SandboxActor};
use crate::{
    messages::sandbox::{
        CancelJob, DescribeJob, DrainJobs, FollowJob, JobNews, JobReport, JobRole, ListJobs,
    },
    sandbox::{CancelledBy, MAX_PIECE, Stream, registry::JobRecord},
};

fn report(running: &Running, record: &JobRecord) -> JobReport {
    let started = record.attempt > 0;
    JobReport {
        job: record.id,
        role: JobRole::Executor,
        peer: record.submitter.peer,
        identity: record.submitter.identity.clone(),
        module: record.spec.module,
        arguments: record.spec.arguments.clone(),
        state: record.state,
        outcome: record.outcome.clone(),
        fault: None,
        limits: Some(record.limits),
        usage: started.then_some(record.usage),
        attempt: record.attempt,
        submitted: record.submitted,
        finished: record.finished,
        stdout: running.length(&record.id, Stream::Stdout),
        stderr: running.length(&record.id, Stream::Stderr),
        receipt: record.receipt.clone(),
    }
}

impl SandboxActor {
    fn news(&self, ask: &FollowJob) -> Option<JobNews> {
        let running = self.running.as_ref()?;
        let record = running.registry.job(&ask.job)?;
        let read = |stream, from| {
            let read = running.read(&ask.job, stream, from, MAX_PIECE);
            read.unwrap_or_else(|error| {
                tracing::error!(job = %ask.job, %error, "an output cannot be read");
                Vec::new()
            })
        };
        let stdout = read(Stream::Stdout, ask.stdout);
        let stderr = read(Stream::Stderr, ask.stderr);
        let at_end = |stream, from: u64, piece: &[u8]| {
            let read = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            from.saturating_add(read) >= running.length(&ask.job, stream)
        };
        let over = record.receipt.is_some()
            && at_end(Stream::Stdout, ask.stdout, &stdout)
            && at_end(Stream::Stderr, ask.stderr, &stderr);
        Some(JobNews {
            finished: over.then(|| Box::new(report(running, record))),
            stdout,
            stderr,
        })
    }
}

impl Handler<ListJobs> for SandboxActor {
    type Result = Vec<JobReport>;

    fn handle(&mut self, _: ListJobs, _: &mut Context<Self>) -> Self::Result {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let mut reports: Vec<_> = running
            .registry
            .iter()
            .map(|record| JobReport {
                receipt: None,
                ..report(running, record)
            })
            .collect();
        reports.sort_by_key(|job| std::cmp::Reverse(job.submitted));
        reports
    }
}

impl Handler<DescribeJob> for SandboxActor {
    type Result = Option<JobReport>;

    fn handle(&mut self, ask: DescribeJob, _: &mut Context<Self>) -> Self::Result {
        let running = self.running.as_ref()?;
        let record = running.registry.job(&ask.job)?;
        Some(report(running, record))
    }
}

impl Handler<FollowJob> for SandboxActor {
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

impl Handler<CancelJob> for SandboxActor {
    type Result = MessageResult<CancelJob>;

    fn handle(&mut self, ask: CancelJob, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.cancel(ask.job, CancelledBy::Operator, ctx))
    }
}

impl Handler<DrainJobs> for SandboxActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: DrainJobs, _: &mut Context<Self>) -> Self::Result {
        self.draining = true;
        self.persist(true);
        if let Some(pool) = self
            .running
            .as_ref()
            .and_then(|running| running.pool.as_ref())
        {
            pool.shutdown();
        }
        self.setup.store.flush().map_err(|error| error.to_string())
    }
}
