//! Jobs: owns what this node has others run, from the submission to the verified receipt.
//!
//! A thin shell over [`SentJob`]: it sends the request that comes next, feeds the answer back and
//! carries out what follows. Everything that matters is on disk before it is acted on (record in
//! the store, output in the spool, module and input as blobs), so an incarnation begins where the
//! last one ended: the executor is asked again under the same key, and output goes on at the
//! cursor.
//!
//! # Invariants
//! - A job ends once, by a receipt that matches everything this node knows of it or by a typed
//!   fault; both are on record in the audit log before anybody is told.
//! - One exchange a job is under way at a time (a cancellation may overtake it), and few enough
//!   with each executor that its connection bears them.
//!
//! # When it fails
//! Its guard restarts it. A full mailbox refuses the command. It runs on an arbiter of its own,
//! since it blocks on the disk.

mod drive;
mod handlers;
mod lanes;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context};
use serde::Serialize;

use self::lanes::Lanes;
use crate::{
    actors::{audit::AuditHandle, sandbox::SandboxActor, swarm::SwarmActor, waiters::Waiters},
    config::JobsConfig,
    identity::OwnIdentity,
    messages::sandbox::{JobReport, JobRole},
    sandbox::{
        JobId, Stream,
        blobs::Blobs,
        receipt::Receipt,
        sent::{Bounds, SentJob, SentRecord},
        spool::Spool,
    },
    store::{Store, Tree},
    supervised,
    supervision::{ActorRef, Fault, Incarnation, Supervise},
    telemetry::Metrics,
    types::{Clock, PeerId, View},
};

/// The store's tree of jobs that were given away.
const TREE: &str = "jobs_sent";
const TREE_VERSION: u8 = 1;
/// Most records read at a start: the bounds of `jobs.unfinished` and `jobs.results` together.
const MAX_RECORDS: usize = 2 * 65_536;
/// How often results that were kept long enough are dropped, and jobs that are overdue given up.
const SWEEP: Duration = Duration::from_secs(1);

/// What an incarnation is made of.
#[derive(Clone)]
pub struct JobsSetup {
    /// This node.
    pub me: PeerId,
    /// The bounds.
    pub config: JobsConfig,
    /// Where blobs and outputs lie: `DATA/jobs/sent`.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where records are kept.
    pub store: Store,
    /// Reaches executors.
    pub swarm: ActorRef<SwarmActor>,
    /// Runs what this node gives to itself.
    pub sandbox: ActorRef<SandboxActor>,
    /// What this node is.
    pub own: View<OwnIdentity>,
    /// Told of every job.
    pub audit: AuditHandle,
    /// Counts.
    pub metrics: Metrics,
}

impl fmt::Debug for JobsSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobsSetup").finish_non_exhaustive()
    }
}

/// One job that was given away.
#[derive(Debug)]
struct Entry {
    job: SentJob,
    spool: Spool,
    /// An exchange or a pause is under way.
    busy: bool,
    /// Its end is being put on record.
    ending: bool,
}

/// What is open while an incarnation runs.
struct Running {
    blobs: Blobs,
    tree: Tree<SentRecord>,
    jobs: BTreeMap<JobId, Entry>,
}

/// See the module.
pub struct JobsActor {
    incarnation: Incarnation,
    setup: JobsSetup,
    running: Option<Running>,
    waiters: Waiters,
    lanes: Lanes,
    /// The node stops: nothing more is taken or sent.
    draining: bool,
}

impl fmt::Debug for JobsActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobsActor").finish_non_exhaustive()
    }
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct JobsState {
    /// Jobs that are not finished.
    pub unfinished: usize,
    /// Finished jobs that are remembered.
    pub finished: usize,
    /// Clients that wait for news.
    pub followers: usize,
    /// Bytes of modules and inputs.
    pub stored: u64,
}

impl Entry {
    /// Bytes of its output that are here.
    fn output(&self) -> u64 {
        let [out, err] = [Stream::Stdout, Stream::Stderr].map(|stream| self.spool.len(stream));
        out.saturating_add(err)
    }
}

impl Running {
    /// Bytes of all outputs that are here.
    fn outputs(&self) -> u64 {
        let outputs = self.jobs.values().map(Entry::output);
        outputs.fold(0, u64::saturating_add)
    }
}

impl JobsActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: JobsSetup) -> Self {
        Self {
            incarnation,
            setup,
            running: None,
            waiters: Waiters::default(),
            lanes: Lanes::default(),
            draining: false,
        }
    }

    fn restore(&self) -> Result<Running, Fault> {
        let JobsSetup {
            dir, config, store, ..
        } = &self.setup;
        let blobs = Blobs::open(&dir.join("blobs"), config.storage.0).map_err(Fault::build)?;
        let tree: Tree<SentRecord> = store.tree(TREE, TREE_VERSION).map_err(Fault::build)?;
        let mut running = Running {
            blobs,
            tree,
            jobs: BTreeMap::new(),
        };
        for (_, record) in running.tree.scan(MAX_RECORDS).map_err(Fault::build)? {
            let entry = self.entry(record).map_err(Fault::build)?;
            if !entry.job.is_over() {
                let spec = &entry.job.record().spec;
                running.blobs.pin(&spec.module);
                running.blobs.pin(&spec.input);
            }
            running.jobs.insert(entry.job.record().job, entry);
            self.incarnation.progress();
        }
        // What a crash left between forgetting a job and removing its output.
        let known = |id: &JobId| running.jobs.contains_key(id);
        Spool::sweep(&dir.join("output"), known).map_err(Fault::build)?;
        Ok(running)
    }

    fn entry(&self, record: SentRecord) -> Result<Entry, crate::sandbox::spool::SpoolError> {
        let config = &self.setup.config;
        let bounds = Bounds {
            output: config.max_output.0,
            patience: config.patience.0,
            deadline: config.deadline.0,
        };
        let spool = Spool::open(&self.setup.dir.join("output"), record.job, bounds.output)?;
        let cursor = (spool.len(Stream::Stdout), spool.len(Stream::Stderr));
        Ok(Entry {
            job: SentJob::new(record, cursor, bounds),
            spool,
            busy: false,
            ending: false,
        })
    }

    fn unfinished(&self) -> usize {
        let jobs = self.running.iter().flat_map(|running| &running.jobs);
        jobs.filter(|(_, entry)| !entry.job.is_over()).count()
    }

    /// Drops what was kept long enough, and what must make room for `wanted` more bytes of output.
    fn sweep(&mut self, wanted: u64) {
        let now = self.setup.clock.now();
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let mut ended: Vec<_> = running
            .jobs
            .iter()
            .filter_map(|(id, entry)| Some((entry.job.record().end.as_ref()?.at, *id)))
            .collect();
        ended.sort_unstable();
        let beyond = ended.len().saturating_sub(self.setup.config.results);
        let kept = self.setup.config.results_kept.0;
        let mut disk: u64 = running.outputs();
        let doomed = ended.iter().enumerate().filter(|(index, (at, id))| {
            let full = disk.saturating_add(wanted) > self.setup.config.output_storage.0;
            let doomed = full || *index < beyond || now.since(*at) >= kept;
            if doomed && let Some(entry) = running.jobs.get(id) {
                disk = disk.saturating_sub(entry.output());
            }
            doomed
        });
        for id in doomed.map(|(_, (_, id))| id).collect::<Vec<_>>() {
            running.jobs.remove(id);
            let removed = running.tree.remove(&id.0);
            if let Err(error) = removed {
                return self.incarnation.fail(error);
            }
            if let Err(error) = Spool::remove(&self.setup.dir.join("output"), id) {
                tracing::warn!(job = %id, %error, "a kept output could not be removed");
            }
        }
        let unfinished = self.unfinished();
        self.setup.metrics.jobs().set_sent_unfinished(unfinished);
    }
}

/// One job, as an operator sees it.
fn report(entry: &Entry) -> JobReport {
    let record = entry.job.record();
    let (state, attempt) = entry.job.progress();
    let result = record.end.as_ref().map(|end| &end.result);
    let receipt = result.and_then(|result| result.as_ref().ok()).cloned();
    let body = receipt.as_deref().and_then(|bytes| {
        let receipt = Receipt::decode(bytes).ok()?;
        // Verified before it was kept.
        Some(receipt.unverified().clone())
    });
    JobReport {
        job: record.job,
        role: JobRole::Submitter,
        peer: record.executor,
        identity: None,
        module: record.spec.module,
        arguments: record.spec.arguments.clone(),
        state,
        outcome: body.as_ref().map(|body| body.outcome.clone()),
        fault: result.and_then(|result| result.as_ref().err()).cloned(),
        limits: record.limits,
        usage: body.as_ref().map(|body| body.usage),
        attempt: body.as_ref().map_or(attempt, |body| body.attempts),
        submitted: record.submitted,
        finished: record.end.as_ref().map(|end| end.at),
        stdout: entry.spool.len(Stream::Stdout),
        stderr: entry.spool.len(Stream::Stderr),
        receipt,
    }
}

impl Actor for JobsActor {
    type Context = Context<Self>;
}

supervised!(JobsActor);

impl Supervise for JobsActor {
    const NAME: &'static str = "jobs";
    /// It blocks on the disk.
    const EXCLUSIVE: bool = true;
    type Observable = JobsState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.running = Some(self.restore()?);
        let jobs = self.running.iter().flat_map(|running| running.jobs.keys());
        for id in jobs.copied().collect::<Vec<_>>() {
            self.drive(id, ctx);
        }
        ctx.run_interval(SWEEP, |act, ctx| {
            act.give_up_overdue(ctx);
            act.sweep(0);
        });
        Ok(())
    }

    fn observe(&self) -> JobsState {
        let unfinished = self.unfinished();
        let running = self.running.as_ref();
        let all = running.map_or(0, |running| running.jobs.len());
        JobsState {
            unfinished,
            finished: all.saturating_sub(unfinished),
            followers: self.waiters.len(),
            stored: running.map_or(0, |running| running.blobs.used()),
        }
    }
}
