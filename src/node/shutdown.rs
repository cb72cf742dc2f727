//! The end of a node: who asks for it, in what order it goes, and what if a part is stuck.

use std::{io, time::Duration};

use tokio::{
    io::AsyncReadExt,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::wiring::Running;
use crate::{
    audit::AuditEvent,
    messages::{
        audit::FlushLog, rate_limit::SaveBudgets, reputation::SaveScores, sandbox::DrainJobs,
        settings::ReloadSettings, swarm::Drain,
    },
    supervision::{AskError, EXIT_ESCALATED},
    types::Clock,
};

/// Exit code when the log's disk hangs: `EX_IOERR`.
const EXIT_IO: u8 = 74;
/// How much longer than the deadline the process may take before the last resort ends it.
const GRACE: Duration = Duration::from_secs(5);
/// How long a reload may take.
pub(super) const RELOAD_DEADLINE: Duration = Duration::from_secs(60);
/// How long closed connections get to be closed on the wire.
const LINGER: Duration = Duration::from_millis(200);

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// In order, everything flushed.
    Clean,
    /// In order, because an actor could not be kept running.
    Escalated(&'static str),
    /// In order as far as possible, because the log's disk fails.
    LogStalled,
    /// Not in order: these parts did not stop in time.
    Stuck(Vec<String>),
    /// At once, by a second signal.
    Forced,
}

/// What may ask for the end from outside.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    watch_stdin: bool,
}

impl Signals {
    pub(super) fn install(watch_stdin: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            watch_stdin,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = stdin_closed(), if self.watch_stdin => {
                self.watch_stdin = false;
                "standard input was closed"
            }
        }
    }
}

/// SIGHUP, by which service managers ask for a reload.
pub(super) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Reads configuration and policies again at each SIGHUP.
pub(super) async fn reload_on_hangup(running: Running, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration again");
        // What came of it Settings says in log and audit log.
        if let Err(error) = running.settings.ask(ReloadSettings, RELOAD_DEADLINE).await {
            tracing::error!(%error, "the configuration was not read again");
        }
    }
}

impl Signals {
    /// A signal that means: now. (Standard input may well be closed after a first one.)
    async fn again(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Ends when whoever holds the other end of standard input is gone.
async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 256];
    while stdin.read(&mut sink).await.is_ok_and(|read| read > 0) {}
}

/// Waits until the node has to end, and ends it.
pub(super) async fn wait(
    running: &Running,
    mut signals: Signals,
    mut stop: mpsc::Receiver<String>,
) -> Ending {
    let (reason, ending) = tokio::select! {
        signal = signals.next() => (signal.to_owned(), Ending::Clean),
        Some(why) = stop.recv() => (why, Ending::Clean),
        escalation = running.root.escalated() => {
            (format!("{} cannot be kept running", escalation.actor), Ending::Escalated(escalation.actor))
        }
        () = running.log_stalled() => {
            ("the audit log's disk does not answer".to_owned(), Ending::LogStalled)
        }
    };
    tracing::info!(%reason, "stopping");
    let deadline = running.config.node.shutdown_deadline.0;
    let last_resort = if ending == Ending::LogStalled {
        EXIT_IO
    } else {
        EXIT_ESCALATED
    };
    running
        .root
        .end_within(deadline.saturating_add(GRACE), last_resort);
    tokio::select! {
        stuck = in_order(running, &reason, deadline) => {
            if stuck.is_empty() {
                tracing::info!("stopped");
                return ending;
            }
            tracing::error!(stuck = stuck.join(", "), ?deadline, "did not stop in time");
            if ending == Ending::Clean { Ending::Stuck(stuck) } else { ending }
        }
        signal = signals.again() => {
            tracing::warn!(signal, "a second signal: stopping at once");
            Ending::Forced
        }
    }
}

/// What is left of the deadline, and which parts did not keep to their share of it.
struct Steps<'a> {
    clock: &'a dyn Clock,
    end: Duration,
    /// Steps still to come, this one included.
    left: u32,
    stuck: Vec<String>,
}

impl Steps<'_> {
    /// Does one step within its share of the time left; names the part when it does not end.
    async fn step(&mut self, part: &str, work: impl Future<Output = bool>) {
        let time = self.end.saturating_sub(self.clock.elapsed()) / self.left.max(1);
        self.left = self.left.saturating_sub(1);
        if !matches!(tokio::time::timeout(time, work).await, Ok(true)) {
            tracing::error!(part, "a part of the node did not stop in time");
            self.stuck.push(part.to_owned());
        }
    }
}

/// Whether an actor did as it was asked. One that is down has nothing left to do.
fn done<T>(answer: &Result<Result<T, impl Sized>, AskError>) -> bool {
    matches!(answer, Ok(Ok(_)) | Err(AskError::Down))
}

/// Everything in order; the names of the parts that did not stop in time.
async fn in_order(running: &Running, reason: &str, deadline: Duration) -> Vec<String> {
    let clock = &*running.clock;
    let end = clock.elapsed().saturating_add(deadline);
    let mut steps = Steps {
        clock,
        end,
        left: 8,
        stuck: Vec::new(),
    };
    // Jobs that run begin again with the next start; their submitters keep asking until then.
    steps
        .step("jobs", async {
            done(&running.jobs.ask(DrainJobs, deadline).await)
        })
        .await;
    steps
        .step("sandbox", async {
            done(&running.sandbox.ask(DrainJobs, deadline).await)
        })
        .await;
    steps
        .step("swarm", async {
            let drained = running.swarm.ask(Drain, deadline).await;
            // Closed connections get a moment to be closed on the wire.
            tokio::time::sleep(LINGER).await;
            matches!(drained, Ok(()) | Err(AskError::Down))
        })
        .await;
    steps
        .step("rate_limit", async {
            done(&running.rate_limit.ask(SaveBudgets, deadline).await)
        })
        .await;
    steps
        .step("reputation", async {
            done(&running.reputation.ask(SaveScores, deadline).await)
        })
        .await;
    steps
        .step("audit", async {
            // What was noted before, an escalation above all, comes before the last record.
            running.audit.settle().await;
            let last = AuditEvent::NodeStopping {
                reason: reason.to_owned(),
            };
            let recorded = running.audit.record(last).await.is_ok();
            recorded && done(&running.audit_actor.ask(FlushLog, deadline).await)
        })
        .await;
    let share = end.saturating_sub(clock.elapsed()) / 2;
    if let Err(error) = running.root.stop_all(share).await {
        steps
            .stuck
            .extend(error.stuck.into_iter().map(str::to_owned));
    }
    let store = running.store.clone();
    steps
        .step("store", async {
            let flushed = tokio::task::spawn_blocking(move || store.flush_durable()).await;
            matches!(flushed, Ok(Ok(())))
        })
        .await;
    // Not an error: the next node replaces it.
    let _ = std::fs::remove_file(&running.socket);
    steps.stuck.dedup();
    steps.stuck
}
