//! Sandbox: owns the jobs that others have this node run.
//!
//! A thin shell: [`Registry`] says what may run and whose turn it is, [`Blobs`] holds modules and
//! inputs, the [`Pool`] runs them in processes of their own, a [`Spool`] a job keeps what they
//! print, and at the end the node signs a receipt. Who may have something run is the access
//! decision's to say (`run_job`), at the submission and again every second while a job lives.
//!
//! # Invariants
//! - A job is accepted, and its receipt handed out, only when the audit log has it durably.
//! - What was accepted is on disk: a new incarnation (or node) goes on with what waited, and runs
//!   again what ran. The second attempt must reproduce what the first one printed, or the job
//!   ends as interrupted: nobody gets two results.
//! - A job ends once.
//!
//! # When it fails
//! Its guard restarts it; the workers of the old incarnation die with it. A full mailbox refuses
//! the peer, who asks again. It runs on an arbiter of its own, since it blocks on the disk.

mod handlers;
mod judge;
mod requests;
mod run;
mod seal;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    actors::{
        audit::AuditHandle,
        judge::{Bench, Judge},
        waiters::Waiters,
    },
    config::Config,
    identity::{NodeKey, OwnIdentity, StatusView, TrustView, VerifiedIdentity},
    sandbox::{
        JobId, JobState, Outcome, Stream,
        blobs::Blobs,
        pool::{Pool, PoolCounts, PoolSetup},
        registry::{JobRecord, Registry},
        spool::{Spool, SpoolError},
    },
    store::{Batch, Store, StoreError, Tree},
    supervised,
    supervision::{Fault, Incarnation, Supervise},
    telemetry::Metrics,
    trust::reputation::Standings,
    types::{Clock, PeerId, Timestamp, View},
};

/// The store's tree of jobs.
const TREE: &str = "jobs";
/// The store's tree of what peers owe of their processor time.
const QUOTA: &str = "jobs_quota";
const TREE_VERSION: u8 = 1;
/// Most records read at a start: the bounds of `sandbox.jobs` and `sandbox.results` together.
const MAX_RECORDS: usize = 2 * 65_536;
/// How often live jobs are judged again and results that were kept long enough are dropped;
/// bounds how long a ban may go unnoticed (five seconds are promised).
const REVIEW: Duration = Duration::from_millis(500);
/// Credentials of submitters that are remembered, about 1 KiB each. Beyond, any is forgotten: its
/// jobs are then judged by what their records say.
const MAX_KNOWN: usize = 4_096;

/// What an incarnation is made of.
#[derive(Clone)]
pub struct SandboxSetup {
    /// This node's key: it signs receipts.
    pub key: NodeKey,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where blobs, outputs and compiled modules lie: `DATA/jobs/run`.
    pub dir: PathBuf,
    /// The program that workers are: this one.
    pub program: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where records are kept.
    pub store: Store,
    /// Makes judges.
    pub bench: Bench,
    /// Scores and bans.
    pub standings: View<Standings>,
    /// Whom this node trusts.
    pub trust: View<TrustView>,
    /// What issuers took back.
    pub statuses: View<StatusView>,
    /// What this node is.
    pub own: View<OwnIdentity>,
    /// Told of every job.
    pub audit: AuditHandle,
    /// Counts.
    pub metrics: Metrics,
}

impl fmt::Debug for SandboxSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxSetup").finish_non_exhaustive()
    }
}

/// A job that runs.
struct Live {
    cancel: CancellationToken,
    /// What it ends with, whatever the worker says.
    verdict: Option<Outcome>,
}

/// What is open while an incarnation runs.
struct Running {
    registry: Registry,
    blobs: Blobs,
    tree: Tree<JobRecord>,
    quota: Tree<Timestamp>,
    /// What was last written of it.
    owed: BTreeMap<PeerId, Timestamp>,
    spools: HashMap<JobId, Spool>,
    pool: Option<Pool>,
}

/// See the module.
pub struct SandboxActor {
    incarnation: Incarnation,
    judge: Judge,
    setup: SandboxSetup,
    running: Option<Running>,
    live: HashMap<JobId, Live>,
    /// Their receipts are being recorded.
    sealing: BTreeSet<JobId>,
    /// Credentials of submitters and the trust's epoch they were verified under.
    known: HashMap<PeerId, (Arc<VerifiedIdentity>, u64)>,
    /// When a refusal of this kind was last recorded.
    refusals: HashMap<(PeerId, &'static str), Timestamp>,
    waiters: Waiters,
    counted: PoolCounts,
    /// Less than `sandbox.disk_reserve` is free.
    disk_is_short: bool,
    draining: bool,
}

impl fmt::Debug for SandboxActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxActor").finish_non_exhaustive()
    }
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct SandboxState {
    /// Whether jobs are run at all.
    pub enabled: bool,
    /// Jobs whose module or input is on its way.
    pub waiting: usize,
    /// Jobs that wait for their turn.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// Finished jobs that are remembered.
    pub finished: usize,
    /// Worker processes that stand ready.
    pub spare_workers: usize,
    /// Bytes of modules and inputs.
    pub stored: u64,
    /// Who waits for news.
    pub followers: usize,
}

impl SandboxActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: SandboxSetup) -> Self {
        Self {
            incarnation,
            judge: setup.bench.judge(),
            setup,
            running: None,
            live: HashMap::new(),
            sealing: BTreeSet::new(),
            known: HashMap::new(),
            refusals: HashMap::new(),
            waiters: Waiters::default(),
            counted: PoolCounts::default(),
            disk_is_short: false,
            draining: false,
        }
    }

    fn now(&self) -> Timestamp {
        self.setup.clock.now()
    }

    fn outputs(&self) -> PathBuf {
        self.setup.dir.join("output")
    }

    fn restore(&self) -> Result<Running, Fault> {
        let config = &self.setup.config.sandbox;
        let now = self.now();
        let blobs = Blobs::open(&self.setup.dir.join("blobs"), config.blob_cache.0)
            .map_err(Fault::build)?;
        let store = &self.setup.store;
        let tree: Tree<JobRecord> = store.tree(TREE, TREE_VERSION).map_err(Fault::build)?;
        let records = tree.scan(MAX_RECORDS).map_err(Fault::build)?;
        let records = records.into_iter().map(|(_, record)| record);
        let me = self.setup.key.peer();
        let mut registry = Registry::restore(config.clone(), me, records, now);
        let quota: Tree<Timestamp> = store.tree(QUOTA, TREE_VERSION).map_err(Fault::build)?;
        let owed = quota.scan(MAX_RECORDS).map_err(Fault::build)?.into_iter();
        registry.restore_quota(owed.filter_map(|(peer, until)| {
            let peer = std::str::from_utf8(&peer).ok()?.parse().ok()?;
            Some((peer, until))
        }));
        let mut running = Running {
            registry,
            blobs,
            tree,
            quota,
            owed: BTreeMap::new(),
            spools: HashMap::new(),
            pool: None,
        };
        let jobs: Vec<_> = running.registry.iter().cloned().collect();
        for record in jobs {
            let spool = Spool::open(&self.outputs(), record.id, record.limits.output);
            running
                .spools
                .insert(record.id, spool.map_err(Fault::build)?);
            if !record.is_finished() {
                running.hold(&record);
            }
            if record.state == JobState::Queued {
                // It had come so far because its submitter sent both.
                for blob in [record.spec.module, record.spec.input] {
                    running.blobs.show(record.submitter.peer, blob);
                }
            }
            self.incarnation.progress();
            if record.state == JobState::Waiting {
                running.get_ready(&[record.id]);
            }
        }
        // What a crash left between forgetting a job and removing its output.
        let known = |id: &JobId| running.registry.job(id).is_some();
        Spool::sweep(&self.outputs(), known).map_err(Fault::build)?;
        Ok(running)
    }

    fn pool_setup(&self) -> PoolSetup {
        // A key of its own, so that nothing but the cache is ever authenticated with it; it goes
        // with the node's key, and with it every compiled module that was signed under it.
        let seed = self.setup.key.seed();
        let key = Sha256::new()
            .chain_update(b"quantraband compiled modules 1\0")
            .chain_update(*seed)
            .finalize();
        PoolSetup {
            config: self.setup.config.sandbox.clone(),
            program: self.setup.program.clone(),
            cache_dir: self.setup.dir.join("compiled"),
            cache_key: Zeroizing::new(key.into()),
        }
    }

    /// Everything that becomes due by itself.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        self.look_at_disk();
        self.review(ctx);
        self.expire(ctx);
        self.schedule(ctx);
        self.seal_all(ctx);
        self.count();
    }

    /// Whether there is still room beside what is reserved for the node itself (audit log, store,
    /// outputs of jobs that run). Where the system does not say, there is.
    fn look_at_disk(&mut self) {
        let reserve = self.setup.config.sandbox.disk_reserve.0;
        let short = free_space(&self.setup.dir).is_some_and(|free| free < reserve);
        if short && !self.disk_is_short {
            let dir = self.setup.dir.display();
            tracing::warn!(%dir, "the disk is nearly full: no jobs are taken until there is room");
        }
        self.disk_is_short = short;
    }

    fn expire(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let outputs = self.outputs();
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let due = running.registry.due(now);
        for id in &due.dropped {
            running.spools.remove(id);
            if let Err(error) = Spool::remove(&outputs, id) {
                tracing::warn!(job = %id, %error, "a kept output could not be removed");
            }
        }
        for id in due.ended {
            self.ended(id, ctx);
        }
        self.persist(false);
        self.save_quota();
    }

    /// Writes down what peers owe, where that changed: `kill -9` can lose one tick of it, which
    /// the records of the jobs still tell.
    fn save_quota(&mut self) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let debts = running.registry.quota().debts();
        let owed: BTreeMap<_, _> = debts.map(|(peer, until)| (*peer, *until)).collect();
        let mut batch = Batch::default();
        let paid = running.owed.keys().filter(|peer| !owed.contains_key(*peer));
        for peer in paid {
            batch.remove(peer.to_string().as_bytes());
        }
        let mut changed = owed.len() != running.owed.len();
        for (peer, until) in &owed {
            if running.owed.get(peer) != Some(until) {
                batch.put(peer.to_string().as_bytes(), *until);
                changed = true;
            }
        }
        if !changed {
            return;
        }
        match running.quota.apply(&batch) {
            Ok(()) => running.owed = owed,
            Err(error) => self.broken(&error),
        }
    }

    /// A job came to its end without running (any more): its blobs are free, its receipt is due.
    fn ended(&mut self, id: JobId, ctx: &mut Context<Self>) {
        if let Some(running) = self.running.as_mut()
            && let Some(record) = running.registry.job(&id).cloned()
        {
            running.release(&record);
            let now = self.setup.clock.now();
            let cpu = Duration::from_micros(record.usage.cpu_us);
            if let Some(outcome) = &record.outcome {
                let took = now.since(record.submitted);
                self.setup.metrics.jobs().finished(outcome, took, cpu);
            }
        }
        self.persist(true);
        self.seal(id, ctx);
    }

    /// Writes down what changed.
    fn persist(&mut self, flush: bool) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let mut batch = Batch::default();
        let changes = running.registry.take_dirty();
        if changes.is_empty() {
            return;
        }
        for (id, record) in changes {
            match record {
                Some(record) => batch.put(&id.0, record),
                None => batch.remove(&id.0),
            }
        }
        let written = running.tree.apply(&batch).and_then(|()| {
            if flush {
                self.setup.store.flush()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            self.broken(&error);
        }
    }

    /// The store does not take what must be written down: begin anew.
    fn broken(&self, error: &StoreError) {
        self.incarnation.fail(error);
    }

    fn count(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        let metrics = self.setup.metrics.jobs();
        let jobs = running.registry.counts();
        metrics.set_unfinished(jobs.waiting, jobs.queued, jobs.running);
        let Some(pool) = &running.pool else {
            return;
        };
        let counts = pool.counts();
        metrics.set_sandboxes(counts.running, counts.compiling, counts.spares);
        metrics.set_storage(running.blobs.used(), counts.cache_bytes);
        let last = std::mem::replace(&mut self.counted, counts);
        for (result, now, before) in [
            ("hit", counts.cache_hits, last.cache_hits),
            ("miss", counts.cache_misses, last.cache_misses),
            ("tampered", counts.cache_tampered, last.cache_tampered),
        ] {
            metrics.compiled(result, now.saturating_sub(before));
        }
    }
}

/// Bytes that this program may still write under `dir`.
fn free_space(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    // The widths of these differ between systems.
    let (blocks, size) = (stat.blocks_available(), stat.fragment_size());
    #[expect(clippy::useless_conversion, reason = "not useless on every system")]
    Some(u64::from(blocks).saturating_mul(u64::from(size)))
}

impl Running {
    /// Keeps a job's module and input from being evicted.
    fn hold(&mut self, record: &JobRecord) {
        self.blobs.pin(&record.spec.module);
        self.blobs.pin(&record.spec.input);
    }

    fn release(&mut self, record: &JobRecord) {
        self.blobs.unpin(&record.spec.module);
        self.blobs.unpin(&record.spec.input);
    }

    /// Whether module and input are here and what they should be. A disk may have lost what a
    /// former process stored: then the job waits for it anew.
    fn intact(&mut self, record: &JobRecord, now: Timestamp) -> bool {
        for blob in [&record.spec.module, &record.spec.input] {
            if let Err(error) = self.blobs.ensure(blob) {
                tracing::warn!(job = %record.id, %error, "a module or an input must come again");
                self.registry.unready(&record.id, now);
                return false;
            }
        }
        true
    }

    /// Queues those jobs that have what they need.
    fn get_ready(&mut self, jobs: &[JobId]) {
        for id in jobs {
            let ready = self.registry.job(id).is_some_and(|record| {
                let (spec, peer) = (&record.spec, &record.submitter.peer);
                [
                    (&spec.module, spec.module_size),
                    (&spec.input, spec.input_size),
                ]
                .into_iter()
                .all(|(blob, size)| self.blobs.holds(blob, size) && self.blobs.is_shown(peer, blob))
            });
            if ready {
                self.registry.ready(id);
            }
        }
    }

    fn length(&self, id: &JobId, stream: Stream) -> u64 {
        self.spools.get(id).map_or(0, |spool| spool.len(stream))
    }

    fn read(
        &self,
        id: &JobId,
        stream: Stream,
        from: u64,
        most: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        match self.spools.get(id) {
            Some(spool) => spool.read(stream, from, most),
            None => Ok(Vec::new()),
        }
    }
}

impl Actor for SandboxActor {
    type Context = Context<Self>;
}

supervised!(SandboxActor);

impl Supervise for SandboxActor {
    const NAME: &'static str = "sandbox";
    /// It blocks on the disk.
    const EXCLUSIVE: bool = true;
    type Observable = SandboxState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.running = Some(self.restore()?);
        ctx.run_interval(REVIEW, Self::tick);
        let started = Pool::start(self.pool_setup()).into_actor(self);
        ctx.wait(started.map(|pool, act, ctx| match pool {
            Ok(pool) => {
                if let Some(running) = act.running.as_mut() {
                    running.pool = Some(pool);
                }
                act.persist(true);
                act.tick(ctx);
            }
            Err(error) => act.incarnation.fail(error),
        }));
        Ok(())
    }

    fn observe(&self) -> SandboxState {
        let running = self.running.as_ref();
        let counts = running.map(|running| running.registry.counts());
        let counts = counts.unwrap_or_default();
        let pool = running.and_then(|running| running.pool.as_ref());
        SandboxState {
            enabled: self.setup.config.sandbox.enabled,
            waiting: counts.waiting,
            queued: counts.queued,
            running: counts.running,
            finished: counts.finished,
            spare_workers: pool.map_or(0, |pool| pool.counts().spares),
            stored: running.map_or(0, |running| running.blobs.used()),
            followers: self.waiters.len(),
        }
    }
}
