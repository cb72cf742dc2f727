//! Whatever falls while a job is under way, its submitter gets the result once, or one typed
//! error.
#![cfg(test)]

mod common;

use std::{fs, process::Command};

use common::{Node, connected_pair, eventually, guests, pair, proxy::Line};
use serde_json::Value;
use tempfile::TempDir;

const LETTERS: &[u8] = b"abcdefghijkl\n";

fn slow_guest(node: &Node) {
    fs::write(node.dir.join("letters.wasm"), guests::letters(12, 150)).unwrap();
    fs::write(node.dir.join("slower.wasm"), guests::letters(20, 400)).unwrap();
    fs::write(node.dir.join("dice.wasm"), guests::dice(20_000)).unwrap();
    fs::write(node.dir.join("sleeps.wasm"), guests::sleeps()).unwrap();
}

/// Submits without waiting; the job's id.
fn submit(node: &Node, executor: &Node, module: &str) -> String {
    let peer = executor.peer_id();
    let submitted = node.json(&["job", "run", "--detach", "--on", &peer, module]);
    submitted["job"].as_str().unwrap().to_owned()
}

fn show(node: &Node, job: &str) -> Option<Value> {
    node.try_json(&["job", "show", job])
}

/// Waits until some output, but not all of it, is with the submitter; how much.
fn under_way(node: &Node, job: &str) -> u64 {
    eventually("output comes", || {
        let shown = show(node, job)?;
        assert_ne!(
            shown["state"], "finished",
            "too fast for this test: {shown}"
        );
        shown["stdout"].as_u64().filter(|bytes| *bytes > 1)
    })
}

fn followed(node: &Node, job: &str) -> Vec<u8> {
    let output = node.cli(&["job", "logs", "--follow", job]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn any_actor_on_either_side_may_be_restarted() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    slow_guest(&submitter);
    let faults: [(&Node, &str, &str); 8] = [
        (&executor, "sandbox", "panic"),
        (&executor, "sandbox", "error"),
        (&executor, "swarm", "panic"),
        (&executor, "audit", "panic"),
        (&submitter, "jobs", "panic"),
        (&submitter, "jobs", "error"),
        (&submitter, "swarm", "panic"),
        (&submitter, "admin", "panic"),
    ];
    for (node, actor, fault) in faults {
        let job = submit(&submitter, &executor, "letters.wasm");
        under_way(&submitter, &job);
        node.must(&["actors", "inject", actor, fault]);
        assert_eq!(followed(&submitter, &job), LETTERS, "{actor} {fault}");
        let shown = show(&submitter, &job).unwrap();
        assert_eq!(shown["outcome"]["outcome"], "exited", "{actor}: {shown}");
    }
    for node in [&executor, &submitter] {
        node.verify_log();
    }
}

#[test]
fn either_node_may_be_killed() {
    let root = TempDir::new().unwrap();
    let (mut executor, mut submitter) = connected_pair(root.path(), "");
    slow_guest(&submitter);
    let job = submit(&submitter, &executor, "letters.wasm");
    under_way(&submitter, &job);
    executor.kill();
    executor.start();
    assert_eq!(followed(&submitter, &job), LETTERS);
    let shown = show(&submitter, &job).unwrap();
    assert_eq!(shown["attempt"], 2, "it was run again: {shown}");

    let job = submit(&submitter, &executor, "letters.wasm");
    under_way(&submitter, &job);
    submitter.kill();
    submitter.start();
    assert_eq!(followed(&submitter, &job), LETTERS);

    // In order, too: a stop does not wait for jobs, and does not lose them.
    let job = submit(&submitter, &executor, "letters.wasm");
    under_way(&submitter, &job);
    assert_eq!(executor.stop().code(), Some(0));
    executor.start();
    assert_eq!(followed(&submitter, &job), LETTERS);
    for node in [&executor, &submitter] {
        node.verify_log();
    }
}

#[test]
fn a_second_attempt_that_prints_something_else_is_an_error_and_no_second_result() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    slow_guest(&submitter);
    let job = submit(&submitter, &executor, "dice.wasm");
    under_way(&submitter, &job);
    executor.must(&["actors", "inject", "sandbox", "panic"]);
    let ended = eventually("the job ends", || {
        // It is finished over there before its end is known here.
        show(&submitter, &job).filter(|job| !job["outcome"].is_null())
    });
    assert_eq!(ended["outcome"]["fault"], "interrupted", "{ended}");
    let output = submitter.cli(&["job", "logs", "--follow", &job]);
    assert_eq!(output.stdout.len(), 16, "the first attempt's output alone");
    assert_eq!(output.status.code(), Some(75));
}

#[test]
fn the_connection_alone_may_be_cut() {
    let root = TempDir::new().unwrap();
    let (mut executor, mut submitter) = pair(root.path(), "");
    let line = Line::to(executor.port);
    let through = executor
        .address()
        .replace(&executor.port.to_string(), &line.port.to_string());
    submitter.configure(&[through], "");
    executor.start();
    submitter.start();
    submitter.wait_peer(&executor.peer_id());
    slow_guest(&submitter);
    let job = submit(&submitter, &executor, "slower.wasm");
    for _ in 0..3 {
        let before = under_way(&submitter, &job);
        assert!(line.cut() > 0, "the nodes were connected through the line");
        // It goes on where it was.
        submitter.wait_peer(&executor.peer_id());
        eventually("more output comes", || {
            let known = show(&submitter, &job)?["stdout"].as_u64()?;
            (known > before).then_some(())
        });
    }
    assert_eq!(followed(&submitter, &job), b"abcdefghijklmnopqrst\n");
    let shown = show(&submitter, &job).unwrap();
    assert_eq!(shown["attempt"], 1, "it ran on meanwhile: {shown}");
    for node in [&executor, &submitter] {
        assert_eq!(node.restarts("swarm"), Some(0));
        node.verify_log();
    }
}

#[test]
fn trust_withdrawn_while_both_are_down_ends_the_job_of_an_absent_submitter() {
    let root = TempDir::new().unwrap();
    let (mut executor, mut submitter) = connected_pair(root.path(), "");
    slow_guest(&submitter);
    let job = submit(&submitter, &executor, "sleeps.wasm");
    eventually("it runs", || {
        show(&executor, &job).filter(|job| job["state"] == "running")
    });
    submitter.stop();
    executor.stop();
    executor.must(&["trust", "remove", "acme"]);
    executor.start();
    let ended = eventually("the job is ended", || {
        show(&executor, &job).filter(|job| job["state"] == "finished")
    });
    assert_eq!(ended["outcome"]["by"], "policy", "{ended}");
}

/// The processes that run jobs of a node: children that were started as workers.
fn workers(node: &Node) -> Vec<u32> {
    let status = node.json(&["status"]);
    let pid = status["pid"].as_u64().unwrap();
    let listed = Command::new("ps")
        .args(["-o", "pid=,args=", "--ppid", &pid.to_string()])
        .output()
        .unwrap();
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.contains("sandbox-worker"))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn a_killed_worker_is_a_typed_error_and_leaves_nothing_behind() {
    let root = TempDir::new().unwrap();
    let (mut executor, submitter) = connected_pair(root.path(), "sandbox.spare_workers = 0");
    slow_guest(&submitter);
    let job = submit(&submitter, &executor, "sleeps.wasm");
    under_way(&submitter, &job);
    let running = workers(&executor);
    assert_eq!(running.len(), 1, "{running:?}");
    for pid in &running {
        let killed = Command::new("kill")
            .args(["-s", "KILL", &pid.to_string()])
            .status();
        assert!(killed.unwrap().success());
    }
    let output = submitter.cli(&["job", "logs", "--follow", &job]);
    assert_eq!(output.stdout, b"go\n");
    assert_eq!(output.status.code(), Some(75));
    let shown = show(&submitter, &job).unwrap();
    assert_eq!(shown["outcome"]["fault"], "worker_died", "{shown}");

    // A node that is killed takes its workers with it.
    let job = submit(&submitter, &executor, "sleeps.wasm");
    under_way(&submitter, &job);
    let running = workers(&executor);
    executor.kill();
    eventually("the workers are gone", || {
        let alive = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // A zombie is no process any more: its parent alone is late.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        running.iter().all(|pid| !alive(pid)).then_some(())
    });
}
