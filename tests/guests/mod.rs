//! A workshop for guests: a pool of real worker processes in a temporary directory, that runs a
//! module with given arguments and input to its end and collects its output.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of the workshop"
)]

use std::{fs, io::Write as _, path::Path, time::Duration};

use quantraband::{
    config::SandboxConfig,
    sandbox::{
        ContentHash, Limits, LimitsWanted, Outcome, Output, Pool, PoolSetup, Stream, Task, Usage,
    },
    types::Span,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// What a guest is given.
#[derive(Debug, Default, Clone)]
pub(crate) struct Given<'a> {
    /// After the program's name.
    pub(crate) arguments: &'a [&'a str],
    /// Variables.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Standard input.
    pub(crate) input: &'a [u8],
    /// Limits that differ from the defaults.
    pub(crate) limits: LimitsWanted,
    /// Deterministic mode.
    pub(crate) seed: Option<u64>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// What it used.
    pub(crate) usage: Usage,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// Demands this exit status and returns standard output.
    pub(crate) fn exited(&self, status: u32) -> &str {
        assert_eq!(self.outcome, Outcome::Exited { status }, "{self}");
        assert_eq!(self.usage.stdout, self.stdout.len() as u64, "{self}");
        assert_eq!(self.usage.stderr, self.stderr.len() as u64, "{self}");
        std::str::from_utf8(&self.stdout).expect("output is UTF-8")
    }

    /// Standard error.
    pub(crate) fn messages(&self) -> &str {
        std::str::from_utf8(&self.stderr).expect("messages are UTF-8")
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} with {:?}\n{}\n{}",
            self.outcome,
            self.usage,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr)
        )
    }
}

/// A pool and its directory.
#[derive(Debug)]
pub(crate) struct Workshop {
    pool: Pool,
    config: SandboxConfig,
    dir: TempDir,
}

impl Workshop {
    /// The default limits, but for the time to compile: tests run an unoptimised compiler.
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = SandboxConfig {
            compile_time: Span(Duration::from_secs(600)),
            ..SandboxConfig::default()
        };
        let pool = Pool::start(PoolSetup {
            config: config.clone(),
            program: env!("CARGO_BIN_EXE_quantraband").into(),
            cache_dir: dir.path().join("compiled"),
            cache_key: Zeroizing::new([7; 32]),
        })
        .await
        .expect("a pool");
        Self { pool, config, dir }
    }

    /// Runs the module at `path` to its end; its file name is the program's name.
    pub(crate) async fn run(&self, path: &Path, given: &Given<'_>) -> Finished {
        let input = self.dir.path().join("input");
        fs::write(&input, given.input).expect("input is written");
        let name = path.file_name().expect("a file").to_string_lossy();
        let arguments = [name.as_ref()].into_iter();
        let limits = Limits::grant(&given.limits, given.seed.is_some(), &self.config);
        let task = Task {
            module: ContentHash::of(&fs::read(path).expect("the module is readable")),
            module_path: path.into(),
            arguments: arguments
                .chain(given.arguments.iter().copied())
                .map(String::from)
                .collect(),
            environment: given
                .environment
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            input_path: Some(input),
            limits: limits.expect("the limits are granted"),
            deterministic: given.seed,
            opener: None,
        };
        let (sender, mut receiver) = mpsc::channel::<Output>(4);
        let collect = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(output) = receiver.recv().await {
                match output.stream {
                    Stream::Stdout => stdout.extend(output.bytes),
                    Stream::Stderr => stderr.extend(output.bytes),
                }
            }
            (stdout, stderr)
        };
        let run = self.pool.run(task, sender, CancellationToken::new());
        let (report, (stdout, stderr)) = tokio::join!(run, collect);
        Finished {
            outcome: report.outcome,
            usage: report.usage,
            stdout,
            stderr,
        }
    }
}

/// Says on standard error that a test was skipped, past the test runner, which hides what a
/// passing test prints; fails instead when the environment variable `require` is `1`.
pub(crate) fn skip(what: &str, why: &str, require: &str) {
    assert!(
        std::env::var(require).as_deref() != Ok("1"),
        "{what}: {why}, and {require}=1 demands it"
    );
    let text = format!("\n*** SKIPPED {what}: {why}. {require}=1 turns this into a failure. ***\n");
    // In one piece, between those of other tests.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
