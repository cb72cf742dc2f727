//! Worker processes: started, kept ready, and never more than the pool may have.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};
use tracing::warn;

use crate::sandbox::{
    ContentHash,
    worker::protocol::{Decoder, FromWorker, ProtocolError, Ready, Setup, from_node},
};

/// How long a process may take to stand ready. It takes some 10 ms; a machine that needs this
/// long cannot run jobs.
const START_TIME: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone before the pool stops waiting for it (tokio
/// goes on reaping it).
const REAP_TIME: Duration = Duration::from_secs(5);
/// How long after a spare was taken it is replaced, if its job still runs: several times what a
/// small job takes.
const REFILL_AFTER: Duration = Duration::from_millis(50);
/// The command of this program that is the worker.
const COMMAND: &str = "sandbox-worker";

/// Why there is no process.
#[derive(Debug, Error)]
pub(super) enum StartError {
    /// The system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It cannot protect itself.
    #[error("it refuses to work: {0}")]
    Refused(String),
    /// It said something else than that it is ready.
    #[error("it broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// It ended.
    #[error("it ended before it was ready")]
    Ended,
    /// It took too long.
    #[error("it was not ready within {} s", START_TIME.as_secs())]
    TooSlow,
    /// The pool is being closed.
    #[error("the pool is closed")]
    Closed,
}

/// A process that stands ready. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) stdin: ChildStdin,
    pub(super) frames: FramedRead<ChildStdout, Decoder>,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Kills a process and waits until it is gone; then its slot is free.
pub(super) async fn bury(mut child: Child, slot: OwnedSemaphorePermit) {
    // It may have ended by itself.
    let _ = child.start_kill();
    if timeout(REAP_TIME, child.wait()).await.is_err() {
        warn!("a killed worker process does not go away");
    }
    drop(slot);
}

/// How processes are started.
#[derive(Debug, Clone)]
struct Recipe {
    program: PathBuf,
    stack: u64,
}

impl Recipe {
    async fn start(
        &self,
        probe: bool,
        slot: OwnedSemaphorePermit,
    ) -> Result<(Worker, Ready), StartError> {
        let mut child = command(&self.program).spawn()?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(StartError::Ended);
        };
        let setup = Setup {
            stack: self.stack,
            probe,
        };
        let mut frames = FramedRead::new(stdout, Decoder::default());
        let ready = async {
            // A worker that ended says so on the other pipe.
            let _ = stdin.write_all(&from_node::setup(&setup)?).await;
            match frames.next().await {
                Some(Ok(FromWorker::Ready(ready))) => Ok(ready),
                Some(Ok(FromWorker::Refused(reason))) => Err(StartError::Refused(reason)),
                Some(Ok(_)) => Err(ProtocolError::Unexpected("that frame").into()),
                Some(Err(error)) => Err(error.into()),
                None => Err(StartError::Ended),
            }
        };
        match timeout(START_TIME, ready).await {
            Ok(Ok(ready)) => Ok((
                Worker {
                    child,
                    stdin,
                    frames,
                    slot,
                },
                ready,
            )),
            Ok(Err(error)) => {
                bury(child, slot).await;
                Err(error)
            }
            Err(_) => {
                bury(child, slot).await;
                Err(StartError::TooSlow)
            }
        }
    }
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(COMMAND)
        // Nothing of the node's is inherited: no variable, no directory, no terminal.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A panic's text could hold the guest's bytes; what the node must know comes as a frame.
        .stderr(Stdio::null())
        // A signal to the node's group (Ctrl-C) leaves jobs to the node to end.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// The processes of a pool.
#[derive(Debug)]
pub(super) struct Processes {
    recipe: Recipe,
    slots: Arc<Semaphore>,
    spares: Mutex<VecDeque<Worker>>,
    wanted: usize,
    starting: AtomicUsize,
    closed: CancellationToken,
}

impl Processes {
    pub(super) fn new(
        program: PathBuf,
        stack: u64,
        most: usize,
        spares: usize,
        closed: CancellationToken,
    ) -> Self {
        Self {
            recipe: Recipe { program, stack },
            slots: Arc::new(Semaphore::new(most)),
            spares: Mutex::new(VecDeque::with_capacity(spares)),
            wanted: spares,
            starting: AtomicUsize::new(0),
            closed,
        }
    }

    fn spares(&self) -> MutexGuard<'_, VecDeque<Worker>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes that stand ready.
    pub(super) fn ready(&self) -> usize {
        self.spares().len()
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, StartError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map_err(|_| StartError::Closed)
    }

    /// Starts one process to see whether it can protect itself and what it says of its engines,
    /// then the spares.
    pub(super) async fn check(&self) -> Result<[ContentHash; 3], StartError> {
        let slot = self.slot().await?;
        let (worker, ready) = self.recipe.start(true, slot).await?;
        bury(worker.child, worker.slot).await;
        let fingerprints = ready.fingerprints;
        while self.ready() < self.wanted {
            let slot = self.slot().await?;
            let (worker, _) = self.recipe.start(false, slot).await?;
            self.spares().push_back(worker);
        }
        fingerprints.ok_or(ProtocolError::Unexpected("a probe without fingerprints").into())
    }

    /// A process for one order: a spare, or a new one. Its place among the spares is filled in
    /// the background.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Worker, StartError> {
        loop {
            let Some(mut spare) = self.spares().pop_front() else {
                break;
            };
            if matches!(spare.child.try_wait(), Ok(None)) {
                self.refill_later();
                return Ok(spare);
            }
            warn!("a spare worker process has died");
        }
        self.refill_later();
        let slot = self.slot().await?;
        // Something may have become ready while this one waited for its slot.
        let spare = self.spares().pop_front();
        if let Some(spare) = spare {
            return Ok(spare);
        }
        Ok(self.recipe.start(false, slot).await?.0)
    }

    /// Fills up the spares unless that is done when the job that took one has ended: a process that
    /// starts would take the processor from that job.
    fn refill_later(self: &Arc<Self>) {
        let (pool, closed) = (Arc::downgrade(self), self.closed.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = sleep(REFILL_AFTER) => {
                    if let Some(pool) = pool.upgrade() {
                        pool.refill();
                    }
                }
            }
        });
    }

    /// Starts what is missing, in the background, as far as there are slots.
    pub(super) fn refill(self: &Arc<Self>) {
        if self.closed.is_cancelled() {
            return;
        }
        loop {
            let underway = self.starting.load(Ordering::SeqCst);
            if self.ready().saturating_add(underway) >= self.wanted {
                return;
            }
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                // Whoever holds the last one refills when it is done.
                return;
            };
            let starting = Starting::new(self);
            let (recipe, closed) = (self.recipe.clone(), self.closed.clone());
            tokio::spawn(async move {
                let started = tokio::select! {
                    () = closed.cancelled() => return,
                    started = recipe.start(false, slot) => started,
                };
                match (started, starting.pool.upgrade()) {
                    (Ok((worker, _)), Some(pool)) => pool.spares().push_back(worker),
                    (Ok(_), None) => {}
                    (Err(error), _) => warn!(%error, "no spare worker process"),
                }
            });
        }
    }

    /// Kills the spares and starts no more.
    pub(super) fn close(&self) {
        self.slots.close();
        self.spares().clear();
    }
}

/// A spare on its way; does not keep the pool alive.
struct Starting {
    pool: Weak<Processes>,
}

impl Starting {
    fn new(pool: &Arc<Processes>) -> Self {
        pool.starting.fetch_add(1, Ordering::SeqCst);
        Self {
            pool: Arc::downgrade(pool),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.starting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
