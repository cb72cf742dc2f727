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

use std::{path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{ContentHash, Limits, Outcome, Stream, Usage};
use crate::config::SandboxConfig;

/// Compilations at the same time: with one, a compile bomb would keep every new module waiting
/// for the whole of `compile_time`; more would take both cores of a small machine from the jobs.
pub const COMPILERS: usize = 2;
/// How long after a limit the node waits for the worker to say so itself before it kills it.
pub const GRACE: Duration = Duration::from_millis(500);
/// Most bytes of one piece of output.
pub const MAX_CHUNK: usize = 64 * 1024;

/// What a pool is made of.
#[derive(Debug, Clone)]
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
        source: std::io::Error,
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
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {}

impl Pool {
    /// Starts the spare processes. Needs a tokio runtime, a current-thread one will do.
    ///
    /// # Errors
    /// When the cache's directory or the first worker process cannot be had.
    pub async fn start(setup: PoolSetup) -> Result<Self, PoolError> {
        let _ = setup;
        Ok(Self(Arc::new(Shared {})))
    }

    /// Runs one job to its end. The guest waits while `output` is full; when its receiver is
    /// gone, the job is cancelled.
    pub async fn run(
        &self,
        task: Task,
        output: mpsc::Sender<Output>,
        cancel: CancellationToken,
    ) -> Report {
        let _ = (task, output, cancel);
        Report {
            outcome: Outcome::Failed {
                fault: super::JobFault::Executor,
            },
            usage: Usage::default(),
        }
    }

    /// Figures for metrics.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        PoolCounts::default()
    }

    /// Kills every process; jobs in progress end as failed. Also happens when the last clone is
    /// dropped.
    pub fn shutdown(&self) {}
}
