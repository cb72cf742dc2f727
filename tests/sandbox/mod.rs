//! What the sandbox's tests share: a pool of real worker processes, guests as text.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use quantraband::{
    config::SandboxConfig,
    sandbox::{
        ContentHash, JobFault, LimitName, Limits, Outcome, Output, Pool, PoolSetup, Protection,
        Report, Stream, Task, forbid_writable_executable,
    },
    types::{ByteSize, Span},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Nothing here takes this long; only a hang does.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// A pool and its directory.
pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) pool: Pool,
    pub(crate) config: SandboxConfig,
}

/// What a job left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Small and quick limits.
pub(crate) fn config() -> SandboxConfig {
    SandboxConfig {
        workers: 2,
        spare_workers: 1,
        max_module: ByteSize(8 << 20),
        max_functions: 50_000,
        compile_time: Span(Duration::from_secs(30)),
        ..SandboxConfig::default()
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: SandboxConfig) -> Self {
        // The node's own process may not have writable-executable memory; its workers must.
        // Once a process: the kernel refuses a thread that asks while another is being answered.
        static ASKED: std::sync::LazyLock<Protection> =
            std::sync::LazyLock::new(forbid_writable_executable);
        assert_eq!(*ASKED, Protection::Enforced);
        let dir = TempDir::new().unwrap();
        let pool = start(dir.path(), &config).await;
        Self { dir, pool, config }
    }

    /// A task for a guest written as text, or as bytes.
    pub(crate) fn task(&self, guest: impl AsRef<[u8]>) -> Task {
        let module = wat::parse_bytes(guest.as_ref()).unwrap().into_owned();
        let hash = ContentHash::of(&module);
        let module_path = self.dir.path().join(hash.to_string());
        fs::write(&module_path, module).unwrap();
        Task {
            module: hash,
            module_path,
            arguments: vec!["guest.wasm".into()],
            environment: Vec::new(),
            input_path: None,
            limits: limits(),
            deterministic: None,
            opener: None,
        }
    }

    pub(crate) async fn run(&self, task: Task) -> Done {
        self.run_until(task, CancellationToken::new()).await
    }

    pub(crate) async fn run_until(&self, task: Task, cancel: CancellationToken) -> Done {
        run(&self.pool, task, cancel).await
    }

    /// The outcome of a guest written as text.
    pub(crate) async fn outcome(&self, guest: impl AsRef<[u8]>) -> Outcome {
        self.run(self.task(guest)).await.report.outcome
    }

    pub(crate) fn code_dir(&self) -> PathBuf {
        self.dir.path().join("compiled")
    }
}

pub(crate) async fn start(dir: &Path, config: &SandboxConfig) -> Pool {
    Pool::start(PoolSetup {
        config: config.clone(),
        program: env!("CARGO_BIN_EXE_quantraband").into(),
        cache_dir: dir.join("compiled"),
        cache_key: Zeroizing::new([3; 32]),
    })
    .await
    .unwrap()
}

/// Runs a task and collects its output.
pub(crate) async fn run(pool: &Pool, task: Task, cancel: CancellationToken) -> Done {
    let (sender, mut receiver) = mpsc::channel::<Output>(4);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let collect = async {
        while let Some(piece) = receiver.recv().await {
            match piece.stream {
                Stream::Stdout => stdout.extend(piece.bytes),
                Stream::Stderr => stderr.extend(piece.bytes),
            }
        }
    };
    let run = pool.run(task, sender, cancel);
    let (report, ()) = tokio::time::timeout(HANG, async { tokio::join!(run, collect) })
        .await
        .expect("the job ends");
    Done {
        report,
        stdout,
        stderr,
    }
}

/// Limits that no honest guest here reaches.
pub(crate) fn limits() -> Limits {
    Limits {
        wall_clock_ms: 20_000,
        cpu_time_ms: 20_000,
        fuel: None,
        memory: 64 << 20,
        table: 10_000,
        stack: 1 << 20,
        output: 1 << 20,
    }
}

pub(crate) fn stopped(limit: LimitName) -> Outcome {
    Outcome::Stopped { limit }
}

pub(crate) fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}

pub(crate) const DONE: Outcome = Outcome::Exited { status: 0 };

/// A guest that prints a text once.
pub(crate) fn says(text: &str) -> String {
    let length = text.len();
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "{text}")
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

/// Whether a process of this id exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// The worker processes that this process has.
pub(crate) fn workers() -> Vec<i32> {
    workers_of(i32::try_from(std::process::id()).unwrap())
}

/// The worker processes of another process.
pub(crate) fn workers_of(parent: i32) -> Vec<i32> {
    let is_worker = |pid: i32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of: Option<i32> = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        command.contains("sandbox-worker") && of == Some(parent) && is_alive(pid)
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_worker(*pid))
        .collect()
}

/// Waits for a condition that must become true.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.expect(what);
}
