//! What is left when a worker, a pool or the whole node dies.
#![cfg(test)]

mod sandbox;

use quantraband::sandbox::JobFault;
use sandbox::{House, eventually, failed, is_alive, limits, says, workers, workers_of};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// These tests count the processes of this one.
static ALONE: Mutex<()> = Mutex::const_new(());

const LOOP: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

#[tokio::test]
async fn a_worker_that_is_killed_is_one_failed_job() {
    let _alone = ALONE.lock().await;
    let house = House::new().await;
    let running = async {
        eventually("it runs", || house.pool.counts().running == 1).await;
        for pid in workers() {
            let pid = nix::unistd::Pid::from_raw(pid);
            // One that ends by itself just now is none to care for.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    };
    // Compiled before, so that the job's process is not the compiler's.
    let mut known = house.task(LOOP);
    known.limits.cpu_time_ms = 50;
    house.run(known.clone()).await;
    known.limits = limits();
    let (done, ()) = tokio::join!(house.run(known), running);
    assert_eq!(done.report.outcome, failed(JobFault::WorkerDied));
    assert_eq!(house.run(house.task(says("next"))).await.text(), "next");
}

#[tokio::test]
async fn nothing_is_left_when_the_pool_goes() {
    let _alone = ALONE.lock().await;
    let house = House::new().await;
    let task = house.task(LOOP);
    let pool = house.pool.clone();
    let running =
        tokio::spawn(async move { sandbox::run(&pool, task, CancellationToken::new()).await });
    eventually("it runs", || house.pool.counts().running == 1).await;
    house.pool.shutdown();
    let done = running.await.unwrap();
    assert_eq!(done.report.outcome, failed(JobFault::Interrupted));
    eventually("all are gone", || workers().is_empty()).await;
}

#[test]
fn dropping_everything_kills_everything() {
    let _alone = ALONE.blocking_lock();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let house = runtime.block_on(House::new());
    assert_eq!(workers().len(), house.config.spare_workers);
    drop(house);
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(eventually("all are gone", || workers().is_empty()));
}

/// The other process of the next test: a pool with a job that never ends, until it is killed.
#[tokio::test]
#[ignore = "started by the test below"]
async fn a_node_to_be_killed() {
    let house = House::new().await;
    let task = house.task(LOOP);
    house.run(task).await;
}

#[tokio::test]
async fn no_worker_survives_its_node_even_kill_9() {
    let _alone = ALONE.lock().await;
    let mut node = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_node_to_be_killed"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(node.id()).unwrap();
    // The one that runs and the spare.
    eventually("its workers run", || workers_of(pid).len() >= 2).await;
    let orphans = workers_of(pid);
    node.kill().unwrap();
    node.wait().unwrap();
    eventually("they are gone", || {
        !orphans.iter().any(|pid| is_alive(*pid))
    })
    .await;
}
