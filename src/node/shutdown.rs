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
    messages::{audit::FlushLog, rate_limit::SaveBudgets, reputation::SaveScores, swarm::Drain},
    supervision::EXIT_ESCALATED,
};

/// Exit code when the log's disk hangs or fails for good: `EX_IOERR`.
const EXIT_IO: u8 = 74;
/// Exit code of an end forced by a second signal, as shells report one by SIGINT.
const EXIT_FORCED: u8 = 130;
/// How much longer than the deadline the process may take before the last resort ends it.
const GRACE: Duration = Duration::from_secs(5);
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

impl Ending {
    /// The exit code it becomes.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Escalated(_) | Self::Stuck(_) => EXIT_ESCALATED,
            Self::LogStalled => EXIT_IO,
            Self::Forced => EXIT_FORCED,
        }
    }
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
    running.root.end_within(deadline.saturating_add(GRACE), EXIT_ESCALATED);
    tokio::select! {
        stuck = in_order(running, &reason, deadline) => {
            if stuck.is_empty() {
                tracing::info!("stopped");
                return ending;
            }
            tracing::error!(stuck = stuck.join(", "), ?deadline, "did not stop in time");
            if ending == Ending::Clean { Ending::Stuck(stuck) } else { ending }
        }
        signal = signals.next() => {
            tracing::warn!(signal, "a second signal: stopping at once");
            Ending::Forced
        }
    }
}

/// The steps, each with a share of the deadline; the names of those that did not end in time.
async fn in_order(running: &Running, reason: &str, deadline: Duration) -> Vec<String> {
    let share = deadline / 5;
    let mut stuck = Vec::new();
    let mut step = |name: &str, done: bool| {
        if !done {
            tracing::error!(part = name, "a part of the node did not stop in time");
            stuck.push(name.to_owned());
        }
    };
    step("swarm", running.swarm.ask(Drain, share).await.is_ok());
    tokio::time::sleep(LINGER).await;
    let (budgets, scores) = tokio::join!(
        running.rate_limit.ask(SaveBudgets, share),
        running.reputation.ask(SaveScores, share),
    );
    step("rate_limit", matches!(budgets, Ok(Ok(()))));
    step("reputation", matches!(scores, Ok(Ok(()))));
    let last = AuditEvent::NodeStopping { reason: reason.to_owned() };
    let recorded = running.audit.record(last).await.is_ok();
    let flushed = running.audit_actor.ask(FlushLog, share).await;
    step("audit", recorded && matches!(flushed, Ok(Ok(()))));
    if let Err(error) = running.root.stop_all(share).await {
        for name in error.stuck {
            step(name, false);
        }
    }
    step("store", running.store.flush_durable().is_ok());
    // Not an error: the next node replaces it.
    let _ = std::fs::remove_file(&running.socket);
    stuck.dedup();
    stuck
}
