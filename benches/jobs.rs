//! A whole job between two nodes on loopback, from the submission to the verified receipt, beside
//! the same job given to the own node: what the way over the network costs. Then how many a
//! second, with many under way. Last, what the executor's operator and the submitter wait for
//! while endless loops hold every worker: a status of the node, and a cancelled job's receipt.
//!
//! `cargo bench --bench jobs`. Two real node processes in their default configuration, but for the
//! budgets that would slow one submitter down on purpose.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first surprise"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::{Node, connected_pair, guests};
use quantraband::{
    admin::protocol::{Request, Response},
    cli::client::AdminClient,
    sandbox::{ContentHash, IdempotencyKey, JobId, JobSpec, JobState, LimitsWanted, Outcome},
    types::{Clock, PeerId, SystemClock},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const ROUNDS: usize = 100;
const MANY: usize = 400;
/// Endless loops that are cancelled.
const CANCELLED: usize = 20;
/// Jobs under way at the same time: more than workers, fewer than the queue of one peer.
const UNDER_WAY: usize = 32;
const EXTRA: &str = "limits.job_requests_per_second = 100000\n\
                     limits.job_request_burst = 100000\n\
                     jobs.results = 10000\nsandbox.results = 10000\n\
                     sandbox.running_per_peer = 2\nsandbox.cpu_per_hour = \"10h\"\n\
                     admin.connections = 256\nlog.level = \"warn\"";

struct Submitter {
    data: PathBuf,
    module: ContentHash,
    size: u64,
}

async fn ask(data: &Path, request: &Request) -> Response {
    let client = AdminClient::connect(data).await.unwrap();
    client.ask(request).await.unwrap()
}

impl Submitter {
    async fn submit(&self, executor: Option<PeerId>) -> JobId {
        let spec = JobSpec {
            key: IdempotencyKey(rand::random()),
            module: self.module,
            module_size: self.size,
            arguments: vec!["bench".to_owned()],
            environment: Vec::new(),
            input: ContentHash::of(b""),
            input_size: 0,
            limits: LimitsWanted::default(),
            deterministic: None,
            sealed: false,
        };
        let request = Request::JobSubmit {
            executor,
            spec: Box::new(spec),
        };
        match ask(&self.data, &request).await {
            Response::JobSubmitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    /// To the verified receipt.
    async fn whole(&self, executor: Option<PeerId>) {
        let job = self.submit(executor).await;
        assert_eq!(self.outcome(job).await, Outcome::Exited { status: 0 });
    }

    /// How a job ended, when its receipt is here.
    async fn outcome(&self, job: JobId) -> Outcome {
        let mut client = AdminClient::connect(&self.data).await.unwrap();
        let follow = Request::JobFollow {
            job,
            stdout: 0,
            stderr: 0,
            wait: true,
        };
        client.send(&follow).await.unwrap();
        loop {
            match client.answer().await.unwrap() {
                Response::JobOutput { .. } => {}
                Response::Job(report) => {
                    assert!(report.receipt.is_some());
                    return report.outcome.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn median(&self, executor: Option<PeerId>) -> Duration {
        let clock = SystemClock::new();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let before = clock.elapsed();
            self.whole(executor).await;
            times.push(clock.elapsed() - before);
        }
        times.sort();
        times[times.len() / 2]
    }
}

async fn saturated(submitter: &Arc<Submitter>, executor: Option<PeerId>) -> f64 {
    let clock = SystemClock::new();
    let turns = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = Vec::new();
    for _ in 0..MANY {
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let submitter = Arc::clone(submitter);
        tasks.push(tokio::spawn(async move {
            submitter.whole(executor).await;
            drop(turn);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    MANY as f64 / clock.elapsed().as_secs_f64()
}

/// Submits an endless loop and waits until it runs.
async fn endless(submitter: &Submitter, executor: PeerId) -> JobId {
    let job = submitter.submit(Some(executor)).await;
    loop {
        match ask(&submitter.data, &Request::JobShow { job }).await {
            Response::Job(report) if report.state == JobState::Running => return job,
            Response::Job(report) => assert_eq!(report.fault, None),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn spread(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "  {what:<36} p50 {:>8.1?}  p99 {:>8.1?}  longest {:>8.1?}  ({} times)",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}

/// Answers of the executor, and cancellations, while loops hold both workers.
async fn beside_loops(submitter: &Submitter, executor: PeerId, executor_data: &Path) {
    let clock = SystemClock::new();
    let held = endless(submitter, executor).await;
    let mut cancelled = Vec::new();
    let mut status = Vec::new();
    for _ in 0..CANCELLED {
        let job = endless(submitter, executor).await;
        for _ in 0..10 {
            let before = clock.elapsed();
            let answer = ask(executor_data, &Request::Status {}).await;
            status.push(clock.elapsed() - before);
            assert!(matches!(answer, Response::Status(_)), "{answer:?}");
        }
        let before = clock.elapsed();
        ask(&submitter.data, &Request::JobCancel { job }).await;
        let outcome = submitter.outcome(job).await;
        cancelled.push(clock.elapsed() - before);
        assert!(matches!(outcome, Outcome::Cancelled { .. }), "{outcome}");
    }
    ask(&submitter.data, &Request::JobCancel { job: held }).await;
    submitter.outcome(held).await;
    println!("while endless loops hold both workers of the executor:");
    spread("its answer to a status", status);
    spread("cancel to the verified receipt", cancelled);
}

fn first_run(submitter: &Node, executor: &str) {
    for on in [&["--on", executor][..], &[]] {
        let ran = submitter.must(&[&["job", "run"], on, &["tiny.wasm"]].concat());
        assert_eq!(ran, "x");
    }
}

fn main() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), EXTRA);
    let module = guests::says("x", 0);
    std::fs::write(submitter.dir.join("tiny.wasm"), &module).unwrap();
    let peer = executor.peer_id();
    first_run(&submitter, &peer);
    std::fs::write(submitter.dir.join("spins.wasm"), guests::spins()).unwrap();
    // Brings its module to both nodes.
    let args = [
        "job",
        "run",
        "--on",
        &peer,
        "--wall-clock",
        "100ms",
        "spins.wasm",
    ];
    assert_eq!(submitter.cli(&args).status.code(), Some(99));
    let side = Arc::new(Submitter {
        data: submitter.dir.join("data"),
        module: ContentHash::of(&module),
        size: module.len() as u64,
    });
    let peer: PeerId = peer.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (own, remote) = (side.median(None).await, side.median(Some(peer)).await);
        println!("a whole warm job, submit to verified receipt (median of {ROUNDS}):");
        println!("  own node   {own:>10.1?}");
        println!(
            "  over loopback {remote:>7.1?}   ratio {:.2}",
            remote.as_secs_f64() / own.as_secs_f64()
        );
        let (own, remote) = (
            saturated(&side, None).await,
            saturated(&side, Some(peer)).await,
        );
        println!(
            "jobs a second, {UNDER_WAY} under way ({MANY} jobs, {} workers):",
            2
        );
        println!("  own node      {own:>7.0}");
        println!("  over loopback {remote:>7.0}   ratio {:.2}", remote / own);
        let spins = Submitter {
            data: side.data.clone(),
            module: ContentHash::of(&guests::spins()),
            size: guests::spins().len() as u64,
        };
        beside_loops(&spins, peer, &executor.dir.join("data")).await;
    });
}
