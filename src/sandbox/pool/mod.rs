//! The node's side of running jobs: worker processes, the compiled modules they need, and the
//! last word on every limit.
//!
//! Owner: the sandbox actor, which decides what runs and how much at once. The node itself never
//! parses a module and never maps its code: it moves bytes between files and worker processes and
//! kills what does not end in time. Whatever a worker says is treated as said by the guest: every
//! frame is bounded, and a worker that breaks the protocol is killed and its job has failed.
//!
//! A process serves one compilation or one job. [`Pool::run`] always ends, at the latest
//! [`GRACE`] after the last limit.

mod code;
mod process;
mod talk;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::{bytes::Bytes, sync::CancellationToken};
use tracing::warn;
use zeroize::Zeroizing;

use self::{
    code::{Code, Counted, ReadError},
    process::{Processes, StartError, Worker},
    talk::{Ask, Audience, talk},
};
use super::{
    CancelledBy, ContentHash, JobFault, LimitName, Limits, Outcome, Stream, Usage,
    cache::Cache,
    worker::protocol::{Mode, RunOrder, from_node},
};
use crate::config::SandboxConfig;

/// Compilations at the same time: with one, a compile bomb would keep every new module waiting
/// for the whole of `compile_time`; more would take both cores of a small machine from the jobs.
pub const COMPILERS: usize = 2;
/// How long after a limit the node waits for the worker to say so itself before it kills it.
pub const GRACE: Duration = Duration::from_millis(500);
/// Most bytes of one piece of output.
pub const MAX_CHUNK: usize = 64 * 1024;

/// What a pool is made of.
#[derive(Clone)]
pub struct PoolSetup {
    /// Sizes and ceilings.
    pub config: SandboxConfig,
    /// The program that has the `sandbox-worker` command; usually `/proc/self/exe`.
    pub program: PathBuf,
    /// Where compiled modules are kept.
    pub cache_dir: PathBuf,
    /// The key that authenticates them; who has it can make this node run machine code.
    pub cache_key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for PoolSetup {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolSetup")
            .field("config", &self.config)
            .field("program", &self.program)
            .field("cache_dir", &self.cache_dir)
            .finish_non_exhaustive()
    }
}

/// One job.
#[derive(Debug, Clone)]
pub struct Task {
    /// The module.
    pub module: ContentHash,
    /// A file with its bytes; their hash is verified.
    pub module_path: PathBuf,
    /// `argv`; the first is the program's name.
    pub arguments: Vec<String>,
    /// The guest's environment, all of it.
    pub environment: Vec<(String, String)>,
    /// A file with its standard input; without one it is empty.
    pub input_path: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// `Some(seed)`: deterministic mode.
    pub deterministic: Option<u64>,
    /// What opens the input, when it is sealed.
    pub opener: Option<Opener>,
}

/// From sealed bytes to what is in them.
type Open = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

/// Opens a sealed input; `None` when it does not open.
#[derive(Clone)]
pub struct Opener(Arc<Open>);

impl Opener {
    /// Opens by this function.
    #[must_use]
    pub fn new(open: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where the guest wrote it.
    pub stream: Stream,
    /// At most [`MAX_CHUNK`] bytes, at least one.
    pub bytes: Vec<u8>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of it. A cancelled one names the submitter, whoever cancelled it.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Processes that stand ready.
    pub spares: usize,
    /// Jobs whose process runs.
    pub running: usize,
    /// Modules being compiled.
    pub compiling: usize,
    /// Compiled modules found in the cache since the start.
    pub cache_hits: u64,
    /// Compiled modules not found in the cache since the start.
    pub cache_misses: u64,
    /// Files of the cache that were not what this node wrote, since the start.
    pub cache_tampered: u64,
    /// Bytes of the cache on disk.
    pub cache_bytes: u64,
}

/// Why there is no pool.
#[derive(Debug, Error)]
pub enum PoolError {
    /// The directory of compiled modules.
    #[error("cannot use {} for compiled modules: {source}: check its owner and mode", path.display())]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No worker process came up.
    #[error("cannot start a worker process from {}: {reason}", program.display())]
    Worker {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Worker processes and the compiled modules they need. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Owned>);

/// What ends with the last clone.
#[derive(Debug)]
struct Owned {
    code: Arc<Code>,
    processes: Arc<Processes>,
    closed: CancellationToken,
    running: AtomicUsize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.close();
    }
}

impl Owned {
    fn close(&self) {
        self.closed.cancel();
        self.processes.close();
    }
}

impl Pool {
    /// Starts the spare processes, if jobs are enabled at all. Needs a tokio runtime, a
    /// current-thread one will do.
    ///
    /// # Errors
    /// When the cache's directory or the first worker process cannot be had; also when worker
    /// processes cannot protect themselves on this system.
    pub async fn start(setup: PoolSetup) -> Result<Self, PoolError> {
        let PoolSetup {
            config,
            program,
            cache_dir,
            cache_key,
        } = setup;
        let most = config.compiled_cache.0;
        let dir = cache_dir.clone();
        let cache = tokio::task::spawn_blocking(move || Cache::open(&dir, cache_key, most))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| PoolError::Cache {
                path: cache_dir,
                source,
            })?;
        let closed = CancellationToken::new();
        let processes = config
            .workers
            .saturating_add(config.spare_workers)
            .saturating_add(COMPILERS);
        let processes = Arc::new(Processes::new(
            program.clone(),
            config.max_stack.0,
            processes,
            config.spare_workers,
            closed.clone(),
        ));
        let no_worker = |error: StartError| PoolError::Worker {
            program,
            reason: error.to_string(),
        };
        let fingerprints = if config.enabled {
            let fingerprints = processes.check().await;
            fingerprints.map_err(no_worker)?
        } else {
            // A node that runs nothing for others needs no worker; a job would be interrupted.
            closed.cancel();
            [ContentHash([0; 32]); 3]
        };
        let code = Code::new(
            config,
            cache,
            fingerprints,
            Arc::clone(&processes),
            closed.clone(),
        );
        Ok(Self(Arc::new(Owned {
            code: Arc::new(code),
            processes,
            closed,
            running: AtomicUsize::new(0),
        })))
    }

    /// Runs one job to its end. The guest waits while `output` is full; when its receiver is
    /// gone, the job is cancelled.
    pub async fn run(
        &self,
        task: Task,
        output: mpsc::Sender<Output>,
        cancel: CancellationToken,
    ) -> Report {
        let mut cpu_us: u64 = 0;
        // The second time is for a compiled module that turned out to be of no use.
        for _ in 0..2 {
            let prepared = tokio::select! {
                biased;
                () = self.0.closed.cancelled() => Err(failed(JobFault::Interrupted)),
                () = cancel.cancelled() => Err(CANCELLED),
                () = output.closed() => Err(CANCELLED),
                prepared = self.prepare(&task, &mut cpu_us) => prepared,
            };
            let (worker, ask) = match prepared {
                Ok(prepared) => prepared,
                Err(outcome) => return report(outcome, cpu_us),
            };
            let counted = Counted::new(&self.0.running);
            let audience = Audience {
                output: output.clone(),
                cancel: &cancel,
                closed: &self.0.closed,
            };
            let heard = Box::pin(talk(worker, ask, audience)).await;
            drop(counted);
            self.0.processes.refill();
            if heard.stale {
                warn!(module = %task.module, "a compiled module is of no use and is made again");
                self.0.code.forget(task.module, task.mode()).await;
                cpu_us = cpu_us.saturating_add(heard.usage.cpu_us);
                continue;
            }
            let usage = Usage {
                cpu_us: heard.usage.cpu_us.saturating_add(cpu_us),
                ..heard.usage
            };
            return Report {
                outcome: heard.outcome,
                usage,
            };
        }
        report(failed(JobFault::Executor), cpu_us)
    }

    /// Everything a job needs before it can run. Adds to `cpu_us` what compiling took.
    async fn prepare(&self, task: &Task, cpu_us: &mut u64) -> Result<(Worker, Ask), Outcome> {
        let config = &self.0.code.config;
        let input = match &task.input_path {
            Some(path) => code::read(path.clone(), config.max_input.0, None)
                .await
                .map_err(|error| match error {
                    ReadError::TooLong => stopped(LimitName::InputSize),
                    error => {
                        warn!(%error, "a job's input cannot be read");
                        failed(JobFault::Executor)
                    }
                })?,
            None => Bytes::new(),
        };
        // Only in memory: what lies on the disk stays sealed.
        let input = match &task.opener {
            None => input,
            Some(Opener(open)) => open(&input)
                .map(Bytes::from)
                .ok_or_else(|| failed(JobFault::SealedInput))?,
        };
        let (module, mode) = (task.module, task.mode());
        let compiled = self.0.code.get(module, mode, &task.module_path).await;
        *cpu_us = cpu_us.saturating_add(compiled.cpu_us);
        let code = compiled.code?;
        let ask = ask(task, code, input).map_err(|_| failed(JobFault::Executor))?;
        let worker = self.0.processes.take().await.map_err(|error| {
            warn!(%error, "no worker process for a job");
            failed(JobFault::Executor)
        })?;
        Ok((worker, ask))
    }

    /// Figures for metrics.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let counts = &self.0.code.counts;
        PoolCounts {
            spares: self.0.processes.ready(),
            running: self.0.running.load(Ordering::Relaxed),
            compiling: counts.compiling.load(Ordering::Relaxed),
            cache_hits: counts.hits.load(Ordering::Relaxed),
            cache_misses: counts.misses.load(Ordering::Relaxed),
            cache_tampered: counts.tampered.load(Ordering::Relaxed),
            cache_bytes: self.0.code.cache.bytes(),
        }
    }

    /// Kills every process; jobs in progress end as interrupted, and so do those that come
    /// later. Also happens when the last clone is dropped.
    pub fn shutdown(&self) {
        self.0.close();
    }
}

impl Task {
    fn mode(&self) -> Mode {
        match (self.deterministic, self.limits.fuel) {
            (Some(_), _) => Mode::Deterministic,
            (None, Some(_)) => Mode::Fuel,
            (None, None) => Mode::Plain,
        }
    }
}

fn ask(task: &Task, code: Bytes, input: Bytes) -> io::Result<Ask> {
    let length = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let order = RunOrder {
        mode: task.mode(),
        seed: task.deterministic.unwrap_or_default(),
        artifact_len: length(&code),
        input_len: length(&input),
        arguments: task.arguments.clone(),
        environment: task.environment.clone(),
        limits: task.limits,
    };
    Ok(Ask {
        order: from_node::run(order)?,
        bytes: vec![code, input],
        wall: task.limits.wall_clock(),
        wall_name: LimitName::WallClock,
        cpu_name: LimitName::CpuTime,
        abort_name: None,
        output: task.limits.output,
        memory: task.limits.memory,
        fuel: task.limits.fuel,
        artifact: false,
    })
}

const CANCELLED: Outcome = Outcome::Cancelled {
    by: CancelledBy::Submitter,
};

fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}

fn stopped(limit: LimitName) -> Outcome {
    Outcome::Stopped { limit }
}

fn report(outcome: Outcome, cpu_us: u64) -> Report {
    Report {
        outcome,
        usage: Usage {
            cpu_us,
            ..Usage::default()
        },
    }
}
