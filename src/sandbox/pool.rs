//! The processes that run jobs, seen from the node: started ahead, used once, ended in time.
//!
//! Owner: the Sandbox actor. [`Pool::run`] compiles what is not compiled yet (one process), runs
//! it (another), and always comes back: a worker that does not report within its limits and
//! [`GRACE`] is killed. Dropping the pool, or [`Pool::shutdown`], kills all of them; and a worker
//! whose node dies sees the end of its input and ends itself.
//!
//! # Invariants
//! - The node neither parses nor maps what comes from guests: bytes go from disk to a worker, and
//!   compiled code from a worker to disk under a message authentication code.
//! - Whatever a worker says is bounded: output by the job's limit, compiled code by
//!   a bound, and one report.
//! - No more processes than jobs that run, one compiler, and the spares.

mod child;
mod compile;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    CancelledBy, ContentHash, JobFault, LimitName, Limits, Outcome, Stream, Usage,
    cache::{Cache, Key},
    worker::{
        Mode, RunOrder, WorkerReport,
        frame::{self, Frame, Kind},
    },
};
use crate::config::SandboxConfig;
use child::Child;
use compile::Failures;

/// How much longer than its limits a worker may take before it is killed.
pub const GRACE: Duration = Duration::from_millis(500);
/// How long a cancelled worker may take to report before it is killed.
const CANCEL_GRACE: Duration = Duration::from_millis(300);
/// How long a worker may take to load a compiled module, before the guest's own time begins.
const LOAD: Duration = Duration::from_secs(10);
/// Modules compiled at the same time: the rest of the machine stays for the jobs that run.
const COMPILERS: usize = 1;
/// Most bytes of compiled code; some ten times the largest module.
const MAX_COMPILED: u64 = 1 << 30;
/// Largest piece of output handed on.
const MAX_OUTPUT_PIECE: usize = 64 << 10;

/// What a pool is made of.
#[derive(Clone)]
pub struct PoolSetup {
    /// The bounds.
    pub config: SandboxConfig,
    /// The program that workers are.
    pub program: PathBuf,
    /// Where compiled modules are kept.
    pub cache_dir: PathBuf,
    /// The key that authenticates them.
    pub cache_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for PoolSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolSetup")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Why there is no pool.
#[derive(Debug, Error)]
pub enum PoolError {
    /// The cache's directory cannot be used.
    #[error("{path}: {source}: check space and permissions", path = .path.display())]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A worker does not come up.
    #[error("a worker process does not start: {0}; no job can run on this machine")]
    Worker(String),
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Task {
    /// The module's hash.
    pub module: ContentHash,
    /// Where it lies; its bytes are hashed when they are read.
    pub module_path: PathBuf,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Where standard input lies; `None`: empty.
    pub input_path: Option<PathBuf>,
    /// Limits.
    pub limits: Limits,
    /// The deterministic mode's seed.
    pub deterministic: Option<u64>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Which.
    pub stream: Stream,
    /// At most 64 KiB.
    pub bytes: Vec<u8>,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

impl Report {
    fn new(outcome: Outcome, usage: Usage) -> Self {
        Self { outcome, usage }
    }

    fn failed(fault: JobFault) -> Self {
        Self::new(Outcome::Failed { fault }, Usage::default())
    }
}

/// How the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Processes that stand ready.
    pub spares: usize,
    /// Jobs that run.
    pub running: usize,
    /// Modules that are compiled.
    pub compiling: usize,
    /// Compiled modules found in the cache.
    pub cache_hits: u64,
    /// Not found.
    pub cache_misses: u64,
    /// Found, and not what this node wrote.
    pub cache_tampered: u64,
    /// Bytes of compiled modules on disk.
    pub cache_bytes: u64,
}

struct Inner {
    setup: PoolSetup,
    cache: Mutex<Cache>,
    /// One lock a module that is being compiled, so that it is compiled once.
    compiling: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    failures: Mutex<Failures>,
    compilers: Semaphore,
    spares: Mutex<VecDeque<Child>>,
    stopped: CancellationToken,
    running: AtomicUsize,
    at_compiler: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
    tampered: AtomicU64,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?})", self.counts())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts up while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pool {
    /// Opens the cache and starts the spares; the first must come up, or no job ever would.
    ///
    /// # Errors
    /// As [`PoolError`] says.
    pub async fn start(setup: PoolSetup) -> Result<Self, PoolError> {
        let key = setup.cache_key.clone();
        let capacity = setup.config.compiled_cache.0;
        let cache =
            Cache::open(&setup.cache_dir, key, capacity).map_err(|source| PoolError::Cache {
                path: setup.cache_dir.clone(),
                source,
            })?;
        let pool = Self(Arc::new(Inner {
            setup,
            cache: Mutex::new(cache),
            compiling: Mutex::default(),
            failures: Mutex::default(),
            compilers: Semaphore::new(COMPILERS),
            spares: Mutex::default(),
            stopped: CancellationToken::new(),
            running: AtomicUsize::new(0),
            at_compiler: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            tampered: AtomicU64::new(0),
        }));
        if pool.0.setup.config.enabled {
            pool.check().await?;
            pool.refill();
        }
        Ok(pool)
    }

    /// One worker comes up, hardened.
    async fn check(&self) -> Result<(), PoolError> {
        let mut child = Child::spawn(&self.0.setup.program).map_err(PoolError::worker)?;
        child.ready().await.map_err(PoolError::worker)?;
        lock(&self.0.spares).push_back(child);
        Ok(())
    }

    /// Starts spares until there are enough.
    fn refill(&self) {
        let wanted = self.0.setup.config.spare_workers;
        let mut spares = lock(&self.0.spares);
        if wanted == 0 {
            spares.clear();
        }
        while spares.len() < wanted && !self.0.stopped.is_cancelled() {
            match Child::spawn(&self.0.setup.program) {
                Ok(child) => spares.push_back(child),
                Err(error) => {
                    tracing::warn!(%error, "a spare worker does not start");
                    return;
                }
            }
        }
    }

    /// A worker that is ready: a spare one, or a new one.
    async fn worker(&self) -> io::Result<Child> {
        loop {
            if self.0.stopped.is_cancelled() {
                return Err(io::Error::other("the pool is stopped"));
            }
            let spare = lock(&self.0.spares).pop_front();
            let pool = self.clone();
            // Not before the job that this one is for: starting a process takes a while.
            tokio::spawn(async move { pool.refill() });
            let Some(mut child) = spare else {
                let mut child = Child::spawn(&self.0.setup.program)?;
                child.ready().await?;
                return Ok(child);
            };
            // One that died while it waited is no loss.
            if child.ready().await.is_ok() {
                return Ok(child);
            }
        }
    }

    /// How it is.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let inner = &self.0;
        PoolCounts {
            spares: lock(&inner.spares).len(),
            running: inner.running.load(Ordering::SeqCst),
            compiling: inner.at_compiler.load(Ordering::SeqCst),
            cache_hits: inner.hits.load(Ordering::SeqCst),
            cache_misses: inner.misses.load(Ordering::SeqCst),
            cache_tampered: inner.tampered.load(Ordering::SeqCst),
            cache_bytes: lock(&inner.cache).used(),
        }
    }

    /// Kills every worker. Jobs that run end as cancelled.
    pub fn shutdown(&self) {
        self.0.stopped.cancel();
        lock(&self.0.spares).clear();
    }

    /// Compiles what is not compiled yet, runs, and hands output on as it comes. When `output`
    /// is full the guest waits; when nobody receives it any more the job is cancelled.
    pub async fn run(
        &self,
        task: Task,
        output: mpsc::Sender<Output>,
        cancel: CancellationToken,
    ) -> Report {
        if let Some(limit) = self.too_large(&task).await {
            let outcome = Outcome::Stopped { limit };
            return Report::new(outcome, Usage::default());
        }
        let mode = Mode::of(task.limits.fuel.is_some(), task.deterministic.is_some());
        let key = (task.module, mode);
        let mut before = 0_u64;
        // A second time only when the compiled code turned out to be another machine's.
        for last in [false, true] {
            let compiled = tokio::select! {
                compiled = self.compiled(key, &task) => compiled,
                outcome = self.ended(&cancel) => return Report::new(outcome, used_before(before)),
            };
            let compiled = match compiled {
                Ok(compiled) => compiled,
                Err(mut report) => {
                    report.usage.cpu_us = report.usage.cpu_us.saturating_add(before);
                    return report;
                }
            };
            before = before.saturating_add(compiled.cpu_us);
            let ran = self
                .run_compiled(&task, mode, compiled.bytes, &output, &cancel)
                .await;
            match ran {
                Ok(mut report) => {
                    report.usage.cpu_us = report.usage.cpu_us.saturating_add(before);
                    return report;
                }
                Err(Stale) if last => break,
                Err(Stale) => lock(&self.0.cache).discard(key),
            }
        }
        Report::failed(JobFault::Executor)
    }

    /// Resolves when the job shall not go on: by whom it was ended.
    async fn ended(&self, cancel: &CancellationToken) -> Outcome {
        tokio::select! {
            () = cancel.cancelled() => Outcome::Cancelled {
                by: CancelledBy::Submitter,
            },
            () = self.0.stopped.cancelled() => Outcome::Failed {
                fault: JobFault::Interrupted,
            },
        }
    }

    /// The limit that a file of the task is above; what cannot be looked at is found out later.
    async fn too_large(&self, task: &Task) -> Option<LimitName> {
        let config = &self.0.setup.config;
        let module = Some((
            LimitName::ModuleSize,
            &task.module_path,
            config.max_module.0,
        ));
        let input = task.input_path.as_ref();
        let input = input.map(|path| (LimitName::InputSize, path, config.max_input.0));
        for (limit, path, most) in module.into_iter().chain(input) {
            let size = tokio::fs::metadata(path).await.map(|meta| meta.len());
            if size.is_ok_and(|size| size > most) {
                return Some(limit);
            }
        }
        None
    }

    async fn run_compiled(
        &self,
        task: &Task,
        mode: Mode,
        compiled: Vec<u8>,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> Result<Report, Stale> {
        let _running = Counted::new(&self.0.running);
        let input = match &task.input_path {
            None => Vec::new(),
            Some(path) => match tokio::fs::read(path).await {
                Ok(input) => input,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an input cannot be read");
                    return Ok(Report::failed(JobFault::Executor));
                }
            },
        };
        let order = RunOrder {
            mode,
            limits: task.limits,
            arguments: task.arguments.clone(),
            environment: task.environment.clone(),
            seed: task.deterministic.unwrap_or_default(),
            compiled,
            input,
        };
        let mut child = match self.worker().await {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "no worker");
                return Ok(Report::failed(JobFault::Executor));
            }
        };
        let deadline = task
            .limits
            .wall_clock()
            .saturating_add(LOAD)
            .saturating_add(GRACE);
        let mut listener = Listener::new(task.limits, output);
        let talked = async {
            child.order(&order).await?;
            listener.listen(&mut child).await
        };
        let heard = tokio::select! {
            heard = tokio::time::timeout(deadline, talked) => heard,
            outcome = self.ended(cancel) => Ok(Ok(Heard::Ended(outcome))),
            // Nobody wants what it prints: nobody wants it to go on.
            () = output.closed() => Ok(Ok(Heard::Ended(cancelled()))),
        };
        let heard = match heard {
            Ok(Ok(Heard::Ended(outcome))) => listener.after_end(&mut child, outcome).await,
            other => other.unwrap_or(Ok(Heard::Late)),
        };
        child.kill().await;
        listener.report(heard)
    }
}

impl PoolError {
    fn worker(error: impl std::fmt::Display) -> Self {
        Self::Worker(error.to_string())
    }
}

fn cancelled() -> Outcome {
    Outcome::Cancelled {
        by: CancelledBy::Submitter,
    }
}

fn used_before(cpu_us: u64) -> Usage {
    Usage {
        cpu_us,
        ..Usage::default()
    }
}

/// The compiled code cannot be used here.
struct Stale;

/// What came of listening to a worker.
enum Heard {
    /// Its report.
    Report(WorkerReport),
    /// It said what no honest worker says, or nothing more.
    Gone,
    /// The job is to end, like this.
    Ended(Outcome),
    /// It did not end in time.
    Late,
}

/// Hands a worker's output on, and counts it: a worker's own count is not believed.
struct Listener<'a> {
    limits: Limits,
    output: &'a mpsc::Sender<Output>,
    stdout: u64,
    stderr: u64,
}

impl<'a> Listener<'a> {
    fn new(limits: Limits, output: &'a mpsc::Sender<Output>) -> Self {
        Self {
            limits,
            output,
            stdout: 0,
            stderr: 0,
        }
    }

    async fn listen(&mut self, child: &mut Child) -> io::Result<Heard> {
        loop {
            let Some(Frame { kind, bytes }) = child.hear().await? else {
                return Ok(Heard::Gone);
            };
            let (stream, count) = match kind {
                Kind::Stdout => (Stream::Stdout, &mut self.stdout),
                Kind::Stderr => (Stream::Stderr, &mut self.stderr),
                Kind::Report => {
                    let report = serde_json::from_slice(&bytes);
                    return Ok(report.map_or(Heard::Gone, Heard::Report));
                }
                _ => return Ok(Heard::Gone),
            };
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            *count = count.saturating_add(length);
            let all = self.stdout.saturating_add(self.stderr);
            if all > self.limits.output || bytes.len() > MAX_OUTPUT_PIECE {
                return Ok(Heard::Gone);
            }
            if self.output.send(Output { stream, bytes }).await.is_err() {
                return Ok(Heard::Ended(cancelled()));
            }
        }
    }

    /// Tells the worker, and gives it a moment to say what it used.
    async fn after_end(&mut self, child: &mut Child, outcome: Outcome) -> io::Result<Heard> {
        child.cancel().await?;
        match tokio::time::timeout(CANCEL_GRACE, self.listen(child)).await {
            Ok(Ok(Heard::Report(report))) if !report.stale => Ok(Heard::Report(WorkerReport {
                outcome: Some(outcome),
                ..report
            })),
            _ => Ok(Heard::Ended(outcome)),
        }
    }

    fn report(&self, heard: io::Result<Heard>) -> Result<Report, Stale> {
        let usage = Usage {
            stdout: self.stdout,
            stderr: self.stderr,
            ..Usage::default()
        };
        let outcome = match heard {
            Ok(Heard::Report(report)) if report.stale => return Err(Stale),
            Ok(Heard::Report(report)) => {
                let usage = Usage {
                    stdout: self.stdout,
                    stderr: self.stderr,
                    ..report.usage
                };
                // A report without an outcome is a compiler's.
                let outcome = report.outcome.unwrap_or(Outcome::Failed {
                    fault: JobFault::WorkerDied,
                });
                return Ok(Report::new(outcome, usage));
            }
            Ok(Heard::Ended(outcome)) => outcome,
            Ok(Heard::Late) => Outcome::Stopped {
                limit: LimitName::WallClock,
            },
            Ok(Heard::Gone) | Err(_) => Outcome::Failed {
                fault: JobFault::WorkerDied,
            },
        };
        Ok(Report::new(outcome, usage))
    }
}

/// Everything the node sends with an order.
pub(super) async fn pieces<W: tokio::io::AsyncWrite + Unpin>(
    out: &mut W,
    kind: Kind,
    bytes: &[u8],
) -> io::Result<()> {
    for piece in bytes.chunks(frame::MAX_PAYLOAD) {
        frame::send(out, kind, piece).await?;
    }
    Ok(())
}
