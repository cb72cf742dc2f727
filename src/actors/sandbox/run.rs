//! Whose turn it is, what a worker prints, what it reports.

use std::time::Duration;

use actix::{AsyncContext, Context, StreamHandler};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Live, SandboxActor};
use crate::{
    identity::sealed::Purpose,
    sandbox::{
        JobFault, JobId, Outcome,
        pool::{Opener, Output, Report, Task},
        registry::JobRecord,
        spool::SpoolError,
    },
};

/// Pieces of output on their way from a worker; then the guest waits.
const OUTPUT_QUEUE: usize = 8;

/// What a running job does.
pub(super) enum JobEvent {
    /// It printed something.
    Printed(JobId, Output),
    /// It ended.
    Ended(JobId, Box<Report>),
}

impl SandboxActor {
    /// Starts whatever may start.
    pub(super) fn schedule(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        let now = self.now();
        let mut started = false;
        loop {
            let Some(running) = self.running.as_mut() else {
                return;
            };
            if running.pool.is_none() {
                return;
            }
            let Some(id) = running.registry.next(now) else {
                break;
            };
            started = true;
            let Some(record) = running.registry.job(&id).cloned() else {
                break;
            };
            if !running.intact(&record, now) {
                self.waiters.wake(&id);
                continue;
            }
            if let Err(fault) = self.start(&record, ctx) {
                let report = Report {
                    outcome: Outcome::Failed { fault },
                    usage: crate::sandbox::Usage::default(),
                };
                self.on_report(id, report, ctx);
            }
        }
        if started {
            self.persist(true);
        }
    }

    /// Opens the input of a job that its submitter sealed to this node.
    fn opener(&self, record: &JobRecord) -> Opener {
        let (key, submitter) = (self.setup.key.clone(), record.submitter.peer);
        let most = self.setup.config.sandbox.max_input.as_usize();
        Opener::new(move |sealed| {
            let purpose = Purpose::JobInput(key.peer());
            let opened = key.open(sealed, most, submitter, purpose).ok()?;
            Some(opened.to_vec())
        })
    }

    fn start(&mut self, record: &JobRecord, ctx: &mut Context<Self>) -> Result<(), JobFault> {
        let id = record.id;
        let running = self.running.as_mut().ok_or(JobFault::Executor)?;
        let pool = running.pool.clone().ok_or(JobFault::Executor)?;
        let spool = running.spools.get_mut(&id).ok_or(JobFault::Executor)?;
        spool.begin_attempt();
        let spec = &record.spec;
        let task = Task {
            module: spec.module,
            module_path: running.blobs.path(&spec.module),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone(),
            input_path: (spec.input_size > 0).then(|| running.blobs.path(&spec.input)),
            limits: record.limits,
            deterministic: spec.deterministic,
            opener: spec.sealed.then(|| self.opener(record)),
        };
        let cancel = CancellationToken::new();
        let live = Live {
            cancel: cancel.clone(),
            verdict: None,
        };
        self.live.insert(id, live);
        let (printed, mut output) = mpsc::channel(OUTPUT_QUEUE);
        let run = actix::spawn(async move { pool.run(task, printed, cancel).await });
        let printed = futures::stream::poll_fn(move |waking| output.poll_recv(waking));
        let ended = futures::stream::once(async move {
            run.await.unwrap_or_else(|error| {
                tracing::error!(%error, "the task that ran a job failed");
                Report {
                    outcome: Outcome::Failed {
                        fault: JobFault::Executor,
                    },
                    usage: crate::sandbox::Usage::default(),
                }
            })
        });
        ctx.add_stream(
            printed
                .map(move |output| JobEvent::Printed(id, output))
                .chain(ended.map(move |report| JobEvent::Ended(id, Box::new(report)))),
        );
        tracing::debug!(job = %id, attempt = record.attempt, "a job begins");
        Ok(())
    }

    fn on_output(&mut self, id: JobId, output: &Output) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let Some(spool) = running.spools.get_mut(&id) else {
            return;
        };
        match spool.append(output.stream, &output.bytes) {
            Ok(()) => self.waiters.wake(&id),
            Err(error) => {
                let fault = spool_fault(id, &error);
                if let Some(live) = self.live.get_mut(&id) {
                    live.verdict.get_or_insert(Outcome::Failed { fault });
                    live.cancel.cancel();
                }
            }
        }
    }

    fn on_report(&mut self, id: JobId, report: Report, ctx: &mut Context<Self>) {
        if self.draining {
            // It was ended by the stop of the node, and begins again with the next start.
            return;
        }
        let verdict = self.live.remove(&id).and_then(|live| live.verdict);
        let now = self.now();
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let mut outcome = verdict.unwrap_or(report.outcome);
        if let Some(spool) = running.spools.get_mut(&id)
            && let Err(error) = spool.end_attempt()
            && matches!(
                outcome,
                Outcome::Exited { .. } | Outcome::Trapped { .. } | Outcome::Stopped { .. }
            )
        {
            outcome = Outcome::Failed {
                fault: spool_fault(id, &error),
            };
        }
        tracing::debug!(job = %id, %outcome, "a job ended");
        let mut usage = report.usage;
        if usage.cpu_us == 0 {
            // It ended before a worker could say what it took, as when it was cancelled while its
            // module was compiled. Then its time on the wall counts: nobody computes for free.
            let started = running.registry.job(&id).and_then(|record| record.started);
            let took = started.map_or(Duration::ZERO, |started| now.since(started));
            usage.cpu_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        }
        if running.registry.finish(id, outcome, usage, now) {
            self.ended(id, ctx);
        }
        self.waiters.wake(&id);
        self.schedule(ctx);
    }
}

/// What a job ends with whose output cannot be kept.
fn spool_fault(id: JobId, error: &SpoolError) -> JobFault {
    if let SpoolError::Diverged { .. } = error {
        tracing::info!(job = %id, %error, "a second attempt printed something else");
        return JobFault::Interrupted;
    }
    tracing::error!(job = %id, %error, "a job's output cannot be kept");
    JobFault::Executor
}

impl StreamHandler<JobEvent> for SandboxActor {
    fn handle(&mut self, event: JobEvent, ctx: &mut Context<Self>) {
        match event {
            JobEvent::Printed(id, output) => self.on_output(id, &output),
            JobEvent::Ended(id, report) => self.on_report(id, *report, ctx),
        }
    }

    /// The end of one job's events is not the end of the actor.
    fn finished(&mut self, _: &mut Context<Self>) {}
}
