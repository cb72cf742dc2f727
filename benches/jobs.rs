//! A whole job between two nodes on loopback, from the submission to the verified receipt, beside
//! the same job given to the own node: what the way over the network costs. Then how many a
//! second, with many under way.
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

use std::{path::PathBuf, sync::Arc, time::Duration};

use common::{Node, connected_pair, guests};
use quantraband::{
    admin::protocol::{Request, Response},
    cli::client::AdminClient,
    sandbox::{ContentHash, IdempotencyKey, JobId, JobSpec, LimitsWanted, Outcome},
    types::{Clock, PeerId, SystemClock},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const ROUNDS: usize = 100;
const MANY: usize = 400;
/// Jobs under way at the same time: more than workers, fewer than the queue of one peer.
const UNDER_WAY: usize = 32;
const EXTRA: &str = "limits.job_requests_per_second = 100000\n\
                     limits.job_request_burst = 100000\n\
                     jobs.results = 10000\nsandbox.results = 10000\nlog.level = \"warn\"";

struct Submitter {
    data: PathBuf,
    module: ContentHash,
    size: u64,
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
        };
        let request = Request::JobSubmit {
            executor,
            spec: Box::new(spec),
        };
        let client = AdminClient::connect(&self.data).await.unwrap();
        match client.ask(&request).await.unwrap() {
            Response::JobSubmitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    /// To the verified receipt.
    async fn whole(&self, executor: Option<PeerId>) {
        let job = self.submit(executor).await;
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
                    assert_eq!(report.outcome, Some(Outcome::Exited { status: 0 }));
                    assert!(report.receipt.is_some());
                    return;
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
    });
}
