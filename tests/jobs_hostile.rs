//! Guests that want the executor for themselves: each is stopped by the limit meant for it, the
//! honest job beside it finishes, the node answers meanwhile, nothing is left over.
#![cfg(test)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    thread,
};

use common::{BINARY, Node, connected_pair, eventually, guests};
use quantraband::{
    admin::protocol::{Request, Response},
    cli::client::AdminClient,
    sandbox::{ContentHash, IdempotencyKey, JobSpec, LimitsWanted},
};
use tempfile::TempDir;

/// `job run` by the submitter on the executor.
fn run(submitter: &Path, executor: &str, flags: &[&str], module: &str) -> Output {
    Command::new(BINARY)
        .arg("--config")
        .arg(submitter.join("node.toml"))
        .args(["job", "run", "--on", executor])
        .args(flags)
        .arg(module)
        .current_dir(submitter)
        .output()
        .expect("job run starts")
}

/// Processes that the node started and that are still there.
fn children(node: &Node) -> usize {
    let status = node.json(&["status"]);
    let pid = status["pid"].as_u64().unwrap().to_string();
    let listed = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &pid])
        .output()
        .unwrap();
    String::from_utf8_lossy(&listed.stdout).lines().count()
}

#[test]
fn every_bomb_is_stopped_by_its_own_limit() {
    let root = TempDir::new().unwrap();
    // Two workers for the bombs to fill and one for the honest job; small limits, so that the
    // test is short.
    let extra = "sandbox.workers = 3\nsandbox.running_per_peer = 3\nsandbox.spare_workers = 1\n\
                 sandbox.max_module = \"4 MiB\"\nsandbox.max_input = \"4 MiB\"\n\
                 sandbox.compile_time = \"2s\"\nsandbox.max_output = \"1 MiB\"\n\
                 sandbox.cpu_per_hour = \"10h\"\nsandbox.max_memory = \"64 MiB\"";
    let (executor, submitter) = connected_pair(root.path(), extra);
    fs::write(submitter.dir.join("honest"), guests::letters(3, 30)).unwrap();
    let bombs: [(&str, Vec<u8>, &[&str], &str); 11] = [
        (
            "loop",
            guests::spins(),
            &["--cpu-time", "500ms"],
            "cpu_time",
        ),
        (
            "sleep",
            guests::sleeps(),
            &["--wall-clock", "500ms"],
            "wall_clock",
        ),
        ("memory", guests::eats_memory(), &[], "memory"),
        ("big_memory", guests::is_born_big(), &[], "memory"),
        ("table", guests::eats_table(), &[], "table"),
        ("stack", guests::recurses(), &[], "stack"),
        ("flood", guests::floods(), &[], "output"),
        ("sections", guests::of_size(5 << 20), &[], "module_size"),
        ("nesting", guests::nests(50_000), &[], "nesting"),
        ("functions", guests::of_functions(100_000), &[], "functions"),
        ("compile", guests::compiles_for_ever(), &[], "compile_"),
    ];
    let before = resident(&executor);
    for (name, module, flags, limit) in bombs {
        fs::write(submitter.dir.join(name), module).unwrap();
        let (dir, peer) = (submitter.dir.clone(), executor.peer_id());
        let bomb = thread::spawn({
            let (dir, peer) = (dir.clone(), peer.clone());
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            move || {
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                run(&dir, &peer, &flags, name)
            }
        });
        let honest = run(&dir, &peer, &[], "honest");
        assert_eq!(honest.stdout, b"abc\n", "beside {name}");
        // The node answers whatever its guests do.
        executor.must(&["status"]);
        let output = bomb.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(limit), "{name}: {stderr}");
        // What is too large is refused before it travels; everything else was stopped.
        let code = if limit == "module_size" { 65 } else { 99 };
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
    }
    eventually("only the spares are left", || {
        (children(&executor) <= 1).then_some(())
    });
    // Ninety megabytes of bombs went through it; what its allocator keeps is less than one.
    let grown = resident(&executor).saturating_sub(before);
    assert!(grown < 48 << 20, "the node kept {grown} bytes");
}

/// Memory of a node's process, bytes.
fn resident(node: &Node) -> u64 {
    let pid = node.json(&["status"])["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    kib << 10
}

/// Uploads and submits by the protocol of the admin socket: a thousand commands would be a
/// thousand processes.
async fn submit(data: &Path, executor: &str, module: &[u8], number: u32) {
    let spec = JobSpec {
        key: IdempotencyKey::of_text(&number.to_string()),
        module: ContentHash::of(module),
        module_size: module.len() as u64,
        arguments: vec!["tiny".to_owned()],
        environment: Vec::new(),
        input: ContentHash::of(b""),
        input_size: 0,
        limits: LimitsWanted::default(),
        deterministic: None,
        sealed: false,
    };
    let client = AdminClient::connect(data).await.unwrap();
    let request = Request::JobSubmit {
        executor: Some(executor.parse().unwrap()),
        spec: Box::new(spec),
    };
    let answer = client.ask(&request).await.unwrap();
    assert!(
        matches!(answer, Response::JobSubmitted { .. }),
        "{answer:?}"
    );
}

#[test]
fn a_thousand_tiny_jobs_are_queued_within_bounds_and_all_end() {
    let root = TempDir::new().unwrap();
    let extra = "jobs.unfinished = 1000\njobs.results = 2000\nlimits.job_requests_per_second = 2000\n\
                 limits.job_request_burst = 4000\nsandbox.results = 2000\nsandbox.jobs_per_peer = 64\n\
                 sandbox.workers = 3\nsandbox.running_per_peer = 2";
    let (executor, submitter) = connected_pair(root.path(), extra);
    let tiny = guests::says("x", 0);
    fs::write(submitter.dir.join("tiny.wasm"), &tiny).unwrap();
    let peer = executor.peer_id();
    // The first one brings the module.
    let first = run(&submitter.dir, &peer, &[], "tiny.wasm");
    assert_eq!(first.stdout, b"x");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for number in 0..1_000 {
            submit(&submitter.dir.join("data"), &peer, &tiny, number).await;
        }
    });
    // Another's job does not wait for all of them: the executor's own, as a second peer.
    fs::write(executor.dir.join("own.wasm"), guests::says("own", 0)).unwrap();
    assert_eq!(executor.must(&["job", "run", "own.wasm"]), "own");
    let mut most = 0;
    eventually("all of them end", || {
        let here = executor.try_json(&["job", "list"])?;
        let here = here["jobs"].as_array()?.iter();
        let peer = submitter.peer_id();
        most = most.max(
            here.filter(|job| job["state"] != "finished" && job["peer"] == peer)
                .count(),
        );
        let list = submitter.try_json(&["job", "list"])?;
        let jobs = list["jobs"].as_array()?;
        let unfinished = jobs.iter().filter(|job| job["state"] != "finished").count();
        executor.must(&["status"]);
        (unfinished == 0).then_some(())
    });
    assert!(
        (1..=64).contains(&most),
        "{most} unfinished jobs of one peer"
    );
    let list = submitter.json(&["job", "list"]);
    let jobs = list["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1_001);
    let good = |job: &&serde_json::Value| job["outcome"]["status"] == 0 && job["stdout"] == 1;
    assert_eq!(jobs.iter().filter(good).count(), 1_001);
    eventually("only the spares are left", || {
        (children(&executor) <= 2).then_some(())
    });
    executor.verify_log();
}
