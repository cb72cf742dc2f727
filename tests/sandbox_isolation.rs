//! What a guest gets, what it cannot reach, and where its machine code comes from.
#![cfg(test)]

mod sandbox;

use std::{fs, path::PathBuf};

use quantraband::sandbox::{JobFault, LimitName, Outcome, writable_executable_forbidden};
use sandbox::{DONE, House, failed, says, stopped};

/// A guest that copies one of `args`, `environ` or its stdin to stdout.
fn prints(what: &str) -> String {
    let body = match what {
        "stdin" => {
            r#"(loop $more
                (i32.store (i32.const 0) (i32.const 1024))
                (i32.store (i32.const 4) (i32.const 60000))
                (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (if (i32.load (i32.const 8)) (then
                    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
                    (br $more))))"#
        }
        _ => {
            r#"(drop (call $sizes (i32.const 0) (i32.const 4)))
                (drop (call $get (i32.const 512) (i32.const 1024)))
                (i32.store (i32.const 0) (i32.const 1024))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"#
        }
    };
    let list = if what == "stdin" { "args" } else { what };
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "{list}_sizes_get"
            (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "{list}_get" (func $get (param i32 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "_start") {body}))"#
    )
}

#[tokio::test]
async fn a_guest_gets_its_arguments_environment_and_input_and_nothing_else() {
    let house = House::new().await;
    let mut task = house.task(prints("args"));
    task.arguments = vec!["name.wasm".into(), "two words".into(), "ümlaut".into()];
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, DONE);
    assert_eq!(done.text(), "name.wasm\0two words\0ümlaut\0");

    let mut task = house.task(prints("environ"));
    assert_eq!(house.run(task.clone()).await.text(), "");
    task.environment = vec![("A".into(), "1".into()), ("B".into(), String::new())];
    assert_eq!(house.run(task).await.text(), "A=1\0B=\0");

    let mut task = house.task(prints("stdin"));
    task.limits.output = 4 << 20;
    assert_eq!(house.run(task.clone()).await.text(), "");
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let path = house.dir.path().join("input");
    fs::write(&path, &input).unwrap();
    task.input_path = Some(path);
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, DONE);
    assert!(done.stdout == input);
    assert_eq!(done.report.usage.stdout, 3_000_000);
}

/// A guest that exits with what a call answers.
fn exits_with(import: &str, call: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" {import})
        (memory (export "memory") 1)
        (data (i32.const 64) "/etc/passwd")
        (func (export "_start") (call $exit {call})))"#
    )
}

#[tokio::test]
async fn there_is_no_file_and_no_socket() {
    /// WASI's EBADF, ENOTDIR (a standard stream is none) and ENOTSOCK.
    const REFUSALS: [u32; 3] = [8, 54, 57];
    let house = House::new().await;
    let open = |fd: u32| {
        exits_with(
            r#""path_open" (func $f (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))"#,
            &format!(
                "(call $f (i32.const {fd}) (i32.const 0) (i32.const 64) (i32.const 11)
                 (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0))"
            ),
        )
    };
    let accept = exits_with(
        r#""sock_accept" (func $f (param i32 i32 i32) (result i32))"#,
        "(call $f (i32.const 0) (i32.const 0) (i32.const 0))",
    );
    let preopened = exits_with(
        r#""fd_prestat_get" (func $f (param i32 i32) (result i32))"#,
        "(call $f (i32.const 3) (i32.const 0))",
    );
    let guests = (0..10).map(open).chain([accept, preopened]);
    for guest in guests {
        let outcome = house.outcome(&guest).await;
        let Outcome::Exited { status } = outcome else {
            panic!("{outcome}: {guest}");
        };
        assert!(REFUSALS.contains(&status), "{status}: {guest}");
    }
}

#[tokio::test]
async fn exit_statuses_are_the_guests_own() {
    let house = House::new().await;
    for status in [0_u32, 7, 126, 255, u32::MAX] {
        let guest = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start") (call $exit (i32.const {status})) unreachable))"#
        );
        assert_eq!(house.outcome(guest).await, Outcome::Exited { status });
    }
}

#[tokio::test]
async fn the_nodes_own_process_cannot_make_code() {
    let house = House::new().await;
    assert!(writable_executable_forbidden().unwrap());
    let engine = wasmtime::Engine::default();
    let module = wat::parse_str(says("x")).unwrap();
    assert!(wasmtime::Module::new(&engine, module).is_err());
    assert_eq!(house.run(house.task(says("x"))).await.text(), "x");
}

fn code_files(house: &House) -> Vec<PathBuf> {
    fs::read_dir(house.code_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[tokio::test]
async fn a_tampered_compiled_module_is_compiled_again() {
    let house = House::new().await;
    let task = house.task(says("genuine"));
    let run = async || house.run(task.clone()).await.text();
    assert_eq!(run().await, "genuine");
    assert_eq!(run().await, "genuine");
    let counts = house.pool.counts();
    assert_eq!((counts.cache_hits, counts.cache_misses), (1, 1));
    let [file] = &code_files(&house)[..] else {
        panic!("one compiled module");
    };
    let genuine = fs::read(file).unwrap();
    // The text is in the machine code's data, beside the code itself.
    let mut changed = genuine.clone();
    let at = changed.windows(7).position(|w| w == b"genuine").unwrap();
    changed[at..at + 7].copy_from_slice(b"forgery");
    for forgery in [changed, genuine[..genuine.len() - 40].to_vec(), Vec::new()] {
        fs::write(file, forgery).unwrap();
        assert_eq!(run().await, "genuine");
        assert_eq!(fs::read(file).unwrap().len(), genuine.len());
    }
    // Another module's file under this one's name.
    let other = house.task(says("another"));
    assert_eq!(house.run(other).await.text(), "another");
    let files = code_files(&house);
    let another = files.iter().find(|path| *path != file).unwrap();
    fs::copy(another, file).unwrap();
    assert_eq!(run().await, "genuine");
    assert_eq!(house.pool.counts().cache_tampered, 4);
    assert_eq!(run().await, "genuine");
    assert_eq!(house.pool.counts().cache_hits, 2);
}

#[tokio::test]
async fn concurrent_first_runs_share_one_compilation() {
    let house = House::new().await;
    let task = house.task(says("shared"));
    let run = async || house.run(task.clone()).await;
    let (a, b) = tokio::join!(run(), run());
    assert_eq!((a.text(), b.text()), ("shared".into(), "shared".into()));
    assert_eq!(code_files(&house).len(), 1);
}

#[tokio::test]
async fn a_module_that_is_not_what_its_name_says_does_not_run() {
    let house = House::new().await;
    let task = house.task(says("one"));
    fs::write(&task.module_path, wat::parse_str(says("two")).unwrap()).unwrap();
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, failed(JobFault::Executor));
    assert!(done.stdout.is_empty());
}

/// Prints both clocks, some randomness, a NaN's bits, waits a day, and prints the clock again.
const CURIOUS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get"
        (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $time (i32.const 0) (i64.const 1) (i32.const 1024)))
        (drop (call $time (i32.const 1) (i64.const 1) (i32.const 1032)))
        (drop (call $random (i32.const 1040) (i32.const 64)))
        (f64.store (i32.const 1104) (f64.div (f64.const 0) (f64.const 0)))
        (i32.store (i32.const 272) (i32.const 1))
        (i64.store (i32.const 280) (i64.const 86400000000000))
        (if (call $poll (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 768))
            (then unreachable))
        (drop (call $time (i32.const 1) (i64.const 1) (i32.const 1112)))
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 96))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[tokio::test]
async fn deterministic_jobs_give_the_same_bytes_and_do_not_wait() {
    let house = House::new().await;
    let run = async |seed| {
        let mut task = house.task(CURIOUS);
        task.deterministic = Some(seed);
        task.limits.fuel = Some(1_000_000);
        house.run(task).await
    };
    let (first, second, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(first.report.outcome, DONE);
    assert_eq!(first.stdout.len(), 96);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(first.report.usage.fuel, second.report.usage.fuel);
    assert!(first.report.usage.fuel.is_some_and(|fuel| fuel > 0));
    assert_ne!(first.stdout, other.stdout);
    let later = u64::from_le_bytes(first.stdout[88..96].try_into().unwrap());
    assert!(later > 86_400_000_000_000);

    let mut task = house.task(CURIOUS);
    task.limits.wall_clock_ms = 200;
    let ordinary = house.run(task).await;
    assert_eq!(ordinary.report.outcome, stopped(LimitName::WallClock));
}
