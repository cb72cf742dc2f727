//! Where compiled modules come from: the cache, or a compilation that all who wait for it share.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{bytes::Bytes, sync::CancellationToken};
use tracing::warn;

use super::{
    COMPILERS,
    process::Processes,
    talk::{Ask, Audience, talk},
};
use crate::{
    config::SandboxConfig,
    sandbox::{
        ContentHash, JobFault, LimitName, Outcome, Usage,
        cache::{Cache, CodeKey, Found},
        worker::protocol::{CompileOrder, Mode, from_node},
    },
    types::{Clock, SystemClock},
};

/// Modules that are remembered as impossible to compile, so that a bomb does not cost its time
/// again with each job; about 200 bytes each, the oldest go first.
const REMEMBERED: usize = 1_024;
/// How long a module that ran out of time or memory is remembered: the machine may have been
/// busy, and an honest module must get another chance.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// A compiled module, or why there is none.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    /// Either.
    pub(super) code: Result<Bytes, Outcome>,
    /// Processor time it took, microseconds; zero for who did not ask for it first.
    pub(super) cpu_us: u64,
}

type Compilation = BoxFuture<'static, Compiled>;

/// The source of compiled modules.
pub(super) struct Code {
    pub(super) config: SandboxConfig,
    pub(super) cache: Cache,
    pub(super) fingerprints: [ContentHash; 3],
    pub(super) processes: Arc<Processes>,
    pub(super) closed: CancellationToken,
    pub(super) counts: Counts,
    clock: SystemClock,
    compilers: Semaphore,
    underway: Mutex<HashMap<CodeKey, WeakShared<Compilation>>>,
    refused: Mutex<Refused>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) compiling: AtomicUsize,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) tampered: AtomicU64,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Code {
    pub(super) fn new(
        config: SandboxConfig,
        cache: Cache,
        fingerprints: [ContentHash; 3],
        processes: Arc<Processes>,
        closed: CancellationToken,
    ) -> Self {
        Self {
            config,
            cache,
            fingerprints,
            processes,
            closed,
            counts: Counts::default(),
            clock: SystemClock::new(),
            compilers: Semaphore::new(COMPILERS),
            underway: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    fn key(&self, module: ContentHash, mode: Mode) -> CodeKey {
        let [plain, fuel, deterministic] = self.fingerprints;
        let fingerprint = match mode {
            Mode::Plain => plain,
            Mode::Fuel => fuel,
            Mode::Deterministic => deterministic,
        };
        CodeKey {
            module,
            mode,
            fingerprint,
        }
    }

    fn underway(&self) -> MutexGuard<'_, HashMap<CodeKey, WeakShared<Compilation>>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module's machine code. When nobody waits for it any more, the compilation is killed.
    pub(super) async fn get(
        self: &Arc<Self>,
        module: ContentHash,
        mode: Mode,
        path: &Path,
    ) -> Compiled {
        let key = self.key(module, mode);
        if let Some(outcome) = self.refused().get(&key, self.clock.elapsed()) {
            return Compiled::refused(outcome, 0);
        }
        match self.load(key).await {
            Some(code) => {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
                return Compiled {
                    code: Ok(code),
                    cpu_us: 0,
                };
            }
            None => self.counts.misses.fetch_add(1, Ordering::Relaxed),
        };
        let (compilation, first) = self.join(key, path.to_owned());
        let compiled = compilation.await;
        if first {
            compiled
        } else {
            Compiled {
                cpu_us: 0,
                ..compiled
            }
        }
    }

    /// The compilation of this module that is underway, or a new one.
    fn join(self: &Arc<Self>, key: CodeKey, path: PathBuf) -> (Shared<Compilation>, bool) {
        let mut underway = self.underway();
        if let Some(running) = underway.get(&key).and_then(WeakShared::upgrade) {
            return (running, false);
        }
        // Those that were given up are swept here; the map never outgrows the jobs that wait.
        underway.retain(|_, running| running.upgrade().is_some());
        let source = Arc::clone(self);
        let compilation = async move { source.compile(key, path).await }
            .boxed()
            .shared();
        if let Some(weak) = compilation.downgrade() {
            underway.insert(key, weak);
        }
        (compilation, true)
    }

    async fn load(self: &Arc<Self>, key: CodeKey) -> Option<Bytes> {
        let source = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || source.cache.load(&key)).await;
        match found {
            Ok(Found::Code(code)) => Some(code.into()),
            Ok(Found::Tampered) => {
                self.counts.tampered.fetch_add(1, Ordering::Relaxed);
                None
            }
            Ok(Found::Nothing) | Err(_) => None,
        }
    }

    /// A worker could not use this one, although it was authentic.
    pub(super) async fn forget(self: &Arc<Self>, module: ContentHash, mode: Mode) {
        let (source, key) = (Arc::clone(self), self.key(module, mode));
        // A panic of the cache is a miss.
        let _ = tokio::task::spawn_blocking(move || source.cache.forget(&key)).await;
    }

    async fn compile(self: Arc<Self>, key: CodeKey, path: PathBuf) -> Compiled {
        let Ok(_turn) = self.compilers.acquire().await else {
            return Compiled::refused(failed(JobFault::Interrupted), 0);
        };
        let _counted = Counted::new(&self.counts.compiling);
        let most = self.config.max_module.0;
        let bytes = match read(path, most, Some(key.module)).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLong) => {
                return Compiled::refused(stopped(LimitName::ModuleSize), 0);
            }
            Err(error) => {
                warn!(module = %key.module, %error, "a module cannot be read");
                return Compiled::refused(failed(JobFault::Executor), 0);
            }
        };
        let compiled = self.compile_in_worker(&key, bytes).await;
        match &compiled.code {
            Ok(code) => {
                let (source, code) = (Arc::clone(&self), code.clone());
                // A cache that panics is a cache without this module.
                let _ = tokio::task::spawn_blocking(move || source.cache.store(&key, &code)).await;
            }
            Err(outcome) => self.refused().put(key, outcome, self.clock.elapsed()),
        }
        compiled
    }

    async fn compile_in_worker(&self, key: &CodeKey, module: Bytes) -> Compiled {
        let config = &self.config;
        let order = CompileOrder {
            mode: key.mode,
            module_len: u64::try_from(module.len()).unwrap_or(u64::MAX),
            max_functions: config.max_functions,
            max_nesting: config.max_nesting,
            time_ms: u64::try_from(config.compile_time.0.as_millis()).unwrap_or(u64::MAX),
            memory: config.compile_memory.0,
        };
        let Ok(order) = from_node::compile(order) else {
            return Compiled::refused(failed(JobFault::Executor), 0);
        };
        let worker = match self.processes.take().await {
            Ok(worker) => worker,
            Err(error) => {
                warn!(%error, "no worker process for a compilation");
                return Compiled::refused(failed(JobFault::Executor), 0);
            }
        };
        let ask = Ask {
            order,
            bytes: vec![module],
            wall: config.compile_time.0,
            wall_name: LimitName::CompileTime,
            cpu_name: LimitName::CompileTime,
            abort_name: Some(LimitName::CompileMemory),
            output: 0,
            memory: 0,
            fuel: None,
            artifact: true,
        };
        // No output is allowed, so nothing is ever sent.
        let (output, _receiver) = mpsc::channel(1);
        let audience = Audience {
            output,
            cancel: &CancellationToken::new(),
            closed: &self.closed,
        };
        let heard = talk(worker, ask, audience).await;
        self.processes.refill();
        let Usage { cpu_us, .. } = heard.usage;
        match (heard.outcome, heard.artifact) {
            (Outcome::Exited { .. }, Some(code)) => Compiled {
                code: Ok(code.into()),
                cpu_us,
            },
            (Outcome::Exited { .. } | Outcome::Trapped { .. }, _) => {
                Compiled::refused(failed(JobFault::WorkerDied), cpu_us)
            }
            (outcome, _) => Compiled::refused(outcome, cpu_us),
        }
    }
}

impl Compiled {
    fn refused(outcome: Outcome, cpu_us: u64) -> Self {
        Self {
            code: Err(outcome),
            cpu_us,
        }
    }
}

fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}

fn stopped(limit: LimitName) -> Outcome {
    Outcome::Stopped { limit }
}

/// Counts while it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Modules that need not be tried again.
#[derive(Debug, Default)]
struct Refused {
    outcomes: HashMap<CodeKey, (Outcome, Option<Duration>)>,
    order: VecDeque<CodeKey>,
}

impl Refused {
    fn get(&self, key: &CodeKey, now: Duration) -> Option<Outcome> {
        let (outcome, until) = self.outcomes.get(key)?;
        until
            .is_none_or(|until| now < until)
            .then(|| outcome.clone())
    }

    fn put(&mut self, key: CodeKey, outcome: &Outcome, now: Duration) {
        let until = match outcome {
            Outcome::Stopped {
                limit: LimitName::CompileTime | LimitName::CompileMemory,
            } => Some(now.saturating_add(REMEMBERED_FOR)),
            Outcome::Stopped { .. }
            | Outcome::Failed {
                fault: JobFault::InvalidModule | JobFault::Link,
            } => None,
            // Not the module's doing.
            _ => return,
        };
        if self
            .outcomes
            .insert(key, (outcome.clone(), until))
            .is_none()
        {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }
}

/// Why a file of the blob cache was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Longer than it may be.
    #[error("too long")]
    TooLong,
    /// Not what its name says.
    #[error("its content does not match its hash")]
    Hash,
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a file of at most `most` bytes, and verifies its hash.
pub(super) async fn read(
    path: PathBuf,
    most: u64,
    hash: Option<ContentHash>,
) -> Result<Bytes, ReadError> {
    let read = move || {
        let file = fs::File::open(path)?;
        if file.metadata()?.len() > most {
            return Err(ReadError::TooLong);
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes)?;
        if hash.is_some_and(|hash| hash != ContentHash::of(&bytes)) {
            return Err(ReadError::Hash);
        }
        Ok(Bytes::from(bytes))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> CodeKey {
        CodeKey {
            module: ContentHash::of(&number.to_be_bytes()),
            mode: Mode::Plain,
            fingerprint: ContentHash([0; 32]),
        }
    }

    #[test]
    fn bombs_are_remembered_within_bounds() {
        let mut refused = Refused::default();
        let now = Duration::ZERO;
        refused.put(key(0), &failed(JobFault::InvalidModule), now);
        refused.put(key(1), &stopped(LimitName::CompileTime), now);
        refused.put(key(2), &failed(JobFault::WorkerDied), now);
        assert_eq!(
            refused.get(&key(0), Duration::MAX),
            Some(failed(JobFault::InvalidModule))
        );
        assert_eq!(
            refused.get(&key(1), now),
            Some(stopped(LimitName::CompileTime))
        );
        assert_eq!(refused.get(&key(1), REMEMBERED_FOR), None);
        assert_eq!(refused.get(&key(2), now), None);
        for number in 10..10_000 {
            refused.put(key(number), &stopped(LimitName::Functions), now);
        }
        assert_eq!(refused.outcomes.len(), REMEMBERED);
        assert_eq!(refused.order.len(), REMEMBERED);
        assert_eq!(refused.get(&key(0), now), None);
    }
}
