//! Compiled code: from the cache, or from a worker, once for everybody who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Counted, GRACE, LOAD, MAX_COMPILED, Pool, Report, Task, child::Child, lock};
use crate::sandbox::{
    ContentHash, JobFault, LimitName, Outcome, Usage,
    cache::{Key, Look},
    worker::{
        CompileOrder, WorkerReport,
        frame::{Frame, Kind},
    },
};

/// Modules remembered that cannot be compiled.
const MAX_FAILURES: usize = 1_024;

/// Compiled code, and what it took to make it now.
pub(super) struct Compiled {
    pub(super) bytes: Vec<u8>,
    pub(super) cpu_us: u64,
}

/// Modules that cannot be compiled and why: a bomb does not cost twice. First in, first out.
#[derive(Debug, Default)]
pub(super) struct Failures {
    known: HashMap<Key, Outcome>,
    order: VecDeque<Key>,
}

impl Failures {
    fn get(&self, key: &Key) -> Option<Outcome> {
        self.known.get(key).cloned()
    }

    fn note(&mut self, key: Key, outcome: Outcome) {
        if self.known.insert(key, outcome).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_FAILURES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Pool {
    /// A module's compiled code.
    pub(super) async fn compiled(&self, key: Key, task: &Task) -> Result<Compiled, Report> {
        if let Some(found) = self.look(key).await? {
            return Ok(found);
        }
        let turn = {
            let mut compiling = lock(&self.0.compiling);
            // Those that nobody waits for any more.
            compiling.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(compiling.entry(key).or_default())
        };
        let _turn = turn.lock().await;
        // Somebody may have compiled it while this one waited for its turn.
        if let Some(found) = self.look(key).await? {
            return Ok(found);
        }
        self.0.misses.fetch_add(1, Ordering::SeqCst);
        let _permit = self.0.compilers.acquire().await;
        let compiled = self.compile(key, task).await?;
        let pool = self.clone();
        let kept = tokio::task::spawn_blocking(move || {
            lock(&pool.0.cache).put(key, &compiled.bytes);
            compiled
        });
        kept.await.map_err(|_| Report::failed(JobFault::Executor))
    }

    async fn look(&self, key: Key) -> Result<Option<Compiled>, Report> {
        if let Some(outcome) = lock(&self.0.failures).get(&key) {
            return Err(Report::new(outcome, Usage::default()));
        }
        let pool = self.clone();
        // Reading and authenticating a large file takes a while: not on the actor's thread.
        let look = tokio::task::spawn_blocking(move || lock(&pool.0.cache).get(key)).await;
        match look.map_err(|_| Report::failed(JobFault::Executor))? {
            Look::Hit(bytes) => {
                self.0.hits.fetch_add(1, Ordering::SeqCst);
                Ok(Some(Compiled { bytes, cpu_us: 0 }))
            }
            Look::Miss => Ok(None),
            Look::Tampered => {
                self.0.tampered.fetch_add(1, Ordering::SeqCst);
                Ok(None)
            }
        }
    }

    async fn compile(&self, key: Key, task: &Task) -> Result<Compiled, Report> {
        let _counted = Counted::new(&self.0.at_compiler);
        let config = &self.0.setup.config;
        let module = match tokio::fs::read(&task.module_path).await {
            Ok(module) if ContentHash::of(&module) == task.module => module,
            Ok(_) => {
                tracing::error!(module = %task.module, "a module on disk is not what arrived");
                return Err(Report::failed(JobFault::Executor));
            }
            Err(error) => {
                tracing::error!(module = %task.module, %error, "a module cannot be read");
                return Err(Report::failed(JobFault::Executor));
            }
        };
        let time = config.compile_time.0;
        let order = CompileOrder {
            mode: key.1,
            max_stack: config.max_stack.0,
            max_functions: config.max_functions,
            max_nesting: config.max_nesting,
            max_memory: config.compile_memory.0,
            max_time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            module,
        };
        let mut child = self.worker().await.map_err(|error| {
            tracing::error!(%error, "no worker");
            Report::failed(JobFault::Executor)
        })?;
        let deadline = time.saturating_add(LOAD).saturating_add(GRACE);
        let talked = talk(&mut child, &order);
        let talked = tokio::time::timeout(deadline, talked).await;
        child.kill().await;
        self.judge(key, talked, time)
    }

    fn judge(
        &self,
        key: Key,
        talked: Result<io::Result<Talked>, tokio::time::error::Elapsed>,
        time: Duration,
    ) -> Result<Compiled, Report> {
        let (outcome, cpu_us) = match talked {
            Ok(Ok(Some((bytes, report)))) => match report.outcome {
                None if !bytes.is_empty() => {
                    let cpu_us = report.usage.cpu_us;
                    return Ok(Compiled { bytes, cpu_us });
                }
                None => (JobFault::WorkerDied.into(), report.usage.cpu_us),
                Some(outcome) => (outcome, report.usage.cpu_us),
            },
            // It died, or said what no honest compiler says: most likely the memory that the
            // system has for it was used up.
            Ok(_) => (
                Outcome::Stopped {
                    limit: LimitName::CompileMemory,
                },
                0,
            ),
            Err(_) => (
                Outcome::Stopped {
                    limit: LimitName::CompileTime,
                },
                u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            ),
        };
        lock(&self.0.failures).note(key, outcome.clone());
        let usage = Usage {
            cpu_us,
            ..Usage::default()
        };
        Err(Report::new(outcome, usage))
    }
}

impl From<JobFault> for Outcome {
    fn from(fault: JobFault) -> Self {
        Self::Failed { fault }
    }
}

/// Code and report; `None` when the worker broke off.
type Talked = Option<(Vec<u8>, WorkerReport)>;

/// Has a worker compile.
async fn talk(child: &mut Child, order: &CompileOrder) -> io::Result<Talked> {
    child.order_compile(order).await?;
    let mut code = Vec::new();
    while let Some(Frame { kind, bytes }) = child.hear().await? {
        match kind {
            Kind::Compiled => {
                let length = code.len().saturating_add(bytes.len());
                if u64::try_from(length).unwrap_or(u64::MAX) > MAX_COMPILED {
                    return Ok(None);
                }
                code.extend(bytes);
            }
            Kind::Report => {
                let report = serde_json::from_slice(&bytes);
                return Ok(report.ok().map(|report| (code, report)));
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}
