//! Jobs between two real nodes: what the submitter sees, what both logs say, who may.
#![cfg(test)]

mod common;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use common::{BINARY, Issuer, Node, connected_pair, eventually, guests};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Writes a guest where the submitter can read it.
fn guest(node: &Node, name: &str, module: &[u8]) -> PathBuf {
    let path = node.dir.join(name);
    fs::write(&path, module).unwrap();
    path
}

/// `job run --on executor FLAGS MODULE`.
fn run(node: &Node, executor: &Node, flags: &[&str], module: &str) -> Output {
    let peer = executor.peer_id();
    node.cli(&[&["job", "run", "--on", &peer], flags, &[module]].concat())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The records of one event in a node's log.
fn records(node: &Node, event: &str) -> Vec<Value> {
    let mut all = node.audit();
    all.retain(|record| record["unmapped"]["event"] == event);
    all
}

/// The newest job a node knows in this role.
fn newest(node: &Node, role: &str) -> Option<Value> {
    let list = node.try_json(&["job", "list"])?;
    let jobs = list["jobs"].as_array()?;
    jobs.iter().find(|job| job["role"] == role).cloned()
}

#[test]
fn a_job_runs_on_a_peer_and_both_logs_name_its_receipt() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    guest(&submitter, "hello.wasm", &guests::says("hello\\n", 7));
    let flags = ["--receipt", "receipt.cose"];
    let output = run(&submitter, &executor, &flags, "hello.wasm");
    assert_eq!(output.stdout, b"hello\n", "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));

    let receipt = fs::read(submitter.dir.join("receipt.cose")).unwrap();
    let peer = executor.peer_id();
    let checks = [
        "receipt",
        "verify",
        "receipt.cose",
        "--executor",
        &peer,
        "--module",
        "hello.wasm",
    ];
    submitter.must(&checks);
    let hash = hex::encode(Sha256::digest(&receipt));
    for (node, event) in [(&executor, "job_finished"), (&submitter, "job_result")] {
        let found = eventually("the log names the receipt", || records(node, event).pop());
        assert_eq!(found["unmapped"]["receipt"], hash.as_str(), "{found}");
        node.verify_log();
    }
    assert_eq!(records(&executor, "job_accepted").len(), 1);
    assert_eq!(records(&submitter, "job_sent").len(), 1);

    let mut forged = receipt;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(submitter.dir.join("forged.cose"), forged).unwrap();
    let refused = submitter.cli(&["receipt", "verify", "forged.cose"]);
    assert_eq!(refused.status.code(), Some(65));
}

#[test]
fn arguments_input_and_environment_reach_the_guest() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    guest(&submitter, "args.wasm", &guests::arguments());
    let peer = executor.peer_id();
    let output = submitter.cli(&[
        "job",
        "run",
        "--on",
        &peer,
        "args.wasm",
        "--",
        "one",
        "two words",
    ]);
    assert_eq!(
        output.stdout,
        b"args.wasm\0one\0two words\0",
        "{}",
        stderr(&output)
    );

    // More than one piece, so that module and input travel in several.
    let input: Vec<u8> = (0..1_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    fs::write(submitter.dir.join("input"), &input).unwrap();
    guest(&submitter, "cat.wasm", &guests::cat());
    let output = run(&submitter, &executor, &["--stdin", "input"], "cat.wasm");
    assert!(
        output.stdout == input,
        "{} bytes, {}",
        output.stdout.len(),
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(0));

    // Without --on: this node itself, and what it has by hash is not sent again.
    let output = submitter.cli(&["job", "run", "--stdin", "input", "cat.wasm"]);
    assert!(output.stdout == input, "{}", stderr(&output));
    // By identity instead of by peer id.
    let output = submitter.cli(&["job", "run", "--on", "acme/node-1", "args.wasm"]);
    assert_eq!(output.stdout, b"args.wasm\0", "{}", stderr(&output));
}

#[test]
fn every_end_has_its_exit_code_and_its_words() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    type Case<'a> = (&'a str, Vec<u8>, &'a [&'a str], i32, &'a str);
    let cases: [Case<'_>; 7] = [
        (
            "spin",
            guests::spins(),
            &["--cpu-time", "200ms"],
            99,
            "cpu_time",
        ),
        (
            "sleep",
            guests::sleeps(),
            &["--wall-clock", "300ms"],
            99,
            "wall_clock",
        ),
        ("fuel", guests::spins(), &["--fuel", "1000000"], 99, "fuel"),
        (
            "memory",
            guests::eats_memory(),
            &["--memory", "1 MiB"],
            99,
            "memory",
        ),
        ("trap", guests::traps(), &[], 134, "unreachable"),
        (
            "junk",
            b"not wasm".to_vec(),
            &[],
            65,
            "no WebAssembly module",
        ),
        (
            "greedy",
            guests::traps(),
            &["--memory", "3 GiB"],
            65,
            "memory",
        ),
    ];
    for (name, module, flags, code, word) in cases {
        guest(&submitter, name, &module);
        let output = run(&submitter, &executor, flags, name);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(word),
            "{name}: {}",
            stderr(&output)
        );
    }
    // The honest one beside them.
    guest(&submitter, "hello.wasm", &guests::says("still here", 0));
    let output = run(&submitter, &executor, &[], "hello.wasm");
    assert_eq!(output.stdout, b"still here");
}

#[test]
fn a_repeated_submission_runs_once() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    guest(&submitter, "dice.wasm", &guests::dice(0));
    guest(&submitter, "other.wasm", &guests::says("x", 0));
    let flags = ["--idempotency-key", "order-17"];
    let first = run(&submitter, &executor, &flags, "dice.wasm");
    let again = run(&submitter, &executor, &flags, "dice.wasm");
    assert_eq!(first.stdout.len(), 16, "{}", stderr(&first));
    assert_eq!(first.stdout, again.stdout);
    assert_eq!(records(&executor, "job_accepted").len(), 1);
    let reused = run(&submitter, &executor, &flags, "other.wasm");
    assert_eq!(reused.status.code(), Some(65), "{}", stderr(&reused));
}

#[test]
fn a_cancelled_job_ends_and_says_so() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    for (name, module) in [("spin", guests::spins()), ("sleep", guests::sleeps())] {
        guest(&submitter, name, &module);
        let mut running = Running::start(&submitter, &executor, name, &[]);
        running.wait_for("go\n");
        let job = newest(&submitter, "submitter").expect("submitted")["job"].clone();
        submitter.must(&["job", "cancel", job.as_str().unwrap()]);
        let output = running.finish();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let there = newest(&executor, "executor").expect("known there");
        assert_eq!(there["outcome"]["outcome"], "cancelled", "{there}");
        assert_eq!(there["outcome"]["by"], "submitter", "{there}");
    }
    // Ctrl-C does the same.
    let mut running = Running::start(&submitter, &executor, "spin", &[]);
    running.wait_for("go\n");
    running.interrupt();
    let output = running.finish();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    // And so may the executor's operator.
    let mut running = Running::start(&submitter, &executor, "spin", &[]);
    running.wait_for("go\n");
    let job = newest(&executor, "executor").expect("known there")["job"].clone();
    executor.must(&["job", "cancel", job.as_str().unwrap()]);
    let output = running.finish();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("operator"), "{}", stderr(&output));
}

#[test]
fn who_may_not_is_told_and_recorded() {
    let root = TempDir::new().unwrap();
    let (mut executor, submitter) = connected_pair(root.path(), "");
    guest(&submitter, "hello.wasm", &guests::says("x", 0));
    executor.stop();
    executor.configure(&[], "policy.members_run_jobs = false");
    executor.start();
    submitter.wait_peer(&executor.peer_id());
    let output = run(&submitter, &executor, &[], "hello.wasm");
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    let refused = eventually("it is recorded", || records(&executor, "job_refused").pop());
    assert_eq!(refused["status_code"], "denied", "{refused}");

    executor.stop();
    executor.configure(&[], "sandbox.enabled = false");
    executor.start();
    submitter.wait_peer(&executor.peer_id());
    let output = run(&submitter, &executor, &[], "hello.wasm");
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    assert!(stderr(&output).contains("disabled"), "{}", stderr(&output));
}

#[test]
fn a_ban_and_withdrawn_trust_end_live_jobs() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "globex");
    let (executor, submitter) = connected_pair(root.path(), "jobs.patience = \"2s\"");
    executor.trust(&issuer);
    guest(&submitter, "spin.wasm", &guests::spins());
    let me = submitter.peer_id();
    let name = "acme/node-2";
    let acts: [(&[&str], &[&str]); 3] = [
        (&["peers", "ban", &me], &["peers", "unban", &me]),
        (&["peers", "ban", name], &["peers", "unban", name]),
        (&["trust", "remove", "acme"], &[]),
    ];
    for (end, undo) in acts {
        submitter.wait_peer(&executor.peer_id());
        let mut running = Running::start(&submitter, &executor, "spin.wasm", &[]);
        running.wait_for("go\n");
        executor.must(end);
        let ended = eventually("the job is ended", || {
            newest(&executor, "executor").filter(|job| job["state"] == "finished")
        });
        assert_eq!(ended["outcome"]["by"], "policy", "{ended}");
        // The submitter is cut off as well: it gives up by itself.
        let output = running.finish();
        assert!(
            matches!(output.status.code(), Some(69 | 130)),
            "{:?} {}",
            output.status,
            stderr(&output)
        );
        if !undo.is_empty() {
            executor.must(undo);
        }
    }
}

#[test]
fn quotas_hold_for_each_peer() {
    let root = TempDir::new().unwrap();
    let extra = "sandbox.cpu_per_hour = \"300ms\"\nsandbox.jobs_per_peer = 2\n\
                 sandbox.running_per_peer = 1\njobs.patience = \"500ms\"";
    let (executor, submitter) = connected_pair(root.path(), extra);
    guest(&submitter, "sleep.wasm", &guests::sleeps());
    let mut first = Running::start(&submitter, &executor, "sleep.wasm", &[]);
    first.wait_for("go\n");
    let second = Running::start(&submitter, &executor, "sleep.wasm", &[]);
    eventually("the second waits for its turn", || {
        newest(&executor, "executor").filter(|job| job["state"] == "queued")
    });
    let third = run(&submitter, &executor, &[], "sleep.wasm");
    assert_eq!(third.status.code(), Some(75), "{}", stderr(&third));
    assert!(
        stderr(&third).contains("peer_queue_full"),
        "{}",
        stderr(&third)
    );
    for running in [first, second] {
        running.interrupt();
        assert_eq!(running.finish().status.code(), Some(130));
    }
    guest(&submitter, "spin.wasm", &guests::spins());
    let spent = run(&submitter, &executor, &["--cpu-time", "400ms"], "spin.wasm");
    assert_eq!(spent.status.code(), Some(99), "{}", stderr(&spent));
    let over = run(&submitter, &executor, &[], "spin.wasm");
    assert_eq!(over.status.code(), Some(75), "{}", stderr(&over));
    assert!(stderr(&over).contains("cpu_quota"), "{}", stderr(&over));
}

/// A `job run` in the background.
struct Running {
    child: Child,
    stdout: PathBuf,
}

impl Running {
    fn start(node: &Node, executor: &Node, module: &str, flags: &[&str]) -> Self {
        let stdout = tempfile::NamedTempFile::new_in(&node.dir)
            .unwrap()
            .into_temp_path();
        let stdout = stdout.keep().unwrap();
        let child = Command::new(BINARY)
            .arg("--config")
            .arg(node.dir.join("node.toml"))
            .args(["job", "run", "--on", &executor.peer_id()])
            .args(flags)
            .arg(module)
            .current_dir(&node.dir)
            .stdout(fs::File::create(&stdout).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .expect("job run starts");
        Self { child, stdout }
    }

    /// Waits until the output begins with this.
    fn wait_for(&mut self, text: &str) {
        eventually("the guest says it", || {
            let so_far = fs::read_to_string(&self.stdout).unwrap_or_default();
            if so_far.starts_with(text) {
                return Some(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("job run ended with {status} after {so_far:?}");
            }
            None
        });
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn finish(self) -> Output {
        let mut output = self.child.wait_with_output().unwrap();
        output.stdout = fs::read(&self.stdout).unwrap();
        output
    }
}
