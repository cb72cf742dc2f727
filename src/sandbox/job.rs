//! What a job is, and what can become of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{ContentHash, LimitName, LimitsWanted};
use crate::types::PeerId;

/// Most arguments (and, apart from them, environment variables) of a job.
pub const MAX_ARGUMENTS: usize = 256;
/// Most bytes of all arguments (and, apart from them, of all environment variables): what fits
/// into one request of the job protocol beside everything else.
pub const MAX_ARGUMENT_BYTES: usize = 32 * 1024;

/// Chosen by the submitter: the same key never runs twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(#[serde(with = "hex::serde")] pub [u8; 16]);

impl IdempotencyKey {
    /// A key from a text of the submitter's: the first half of its SHA-256.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(first_half(
            Sha256::new()
                .chain_update(b"quantraband idempotency key 1\0")
                .chain_update(text),
        ))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", hex::encode(self.0))
    }
}

fn first_half(digest: Sha256) -> [u8; 16] {
    let whole: [u8; 32] = digest.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(whole.split_at(16).0);
    half
}

/// A job's name: the same on both sides, and known before it is submitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// The name of the job that `submitter` gives `executor` under `key`: the first half of
    /// SHA-256 over a label, both multihashes with their lengths, and the key.
    #[must_use]
    pub fn new(executor: &PeerId, submitter: &PeerId, key: &IdempotencyKey) -> Self {
        let mut digest = Sha256::new().chain_update(b"quantraband job id 1\0");
        for peer in [executor, submitter] {
            let text = peer.to_string();
            digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(text);
        }
        Self(first_half(digest.chain_update(key.0)))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| SpecError::JobId)?;
        Ok(Self(bytes))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The submitter's key for it.
    pub key: IdempotencyKey,
    /// The module.
    pub module: ContentHash,
    /// Its size, bytes.
    pub module_size: u64,
    /// Arguments; the first is the program's name.
    pub arguments: Vec<String>,
    /// Environment variables the submitter gives the guest; nothing of the executor's.
    pub environment: Vec<(String, String)>,
    /// Standard input; the hash of nothing when there is none.
    pub input: ContentHash,
    /// Its size, bytes.
    pub input_size: u64,
    /// What it asks for.
    pub limits: LimitsWanted,
    /// `Some(seed)`: clocks, randomness and floating point give the same result everywhere.
    pub deterministic: Option<u64>,
    /// Whether the input is sealed to the executor: only its process and the guest's read it.
    #[serde(default)]
    pub sealed: bool,
}

impl JobSpec {
    /// Checks the texts: bounded, no NUL (WASI passes them NUL-terminated), names without `=`.
    ///
    /// # Errors
    /// [`SpecError`] says which rule was broken.
    pub fn check(&self) -> Result<(), SpecError> {
        let sum = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::len).sum::<usize>();
        if self.arguments.is_empty() {
            return Err(SpecError::NoProgramName);
        }
        if self.arguments.len() > MAX_ARGUMENTS || self.environment.len() > MAX_ARGUMENTS {
            return Err(SpecError::TooMany);
        }
        let environment = || {
            self.environment
                .iter()
                .flat_map(|(name, value)| [name.as_str(), value.as_str()])
        };
        if sum(&mut self.arguments.iter().map(String::as_str)) > MAX_ARGUMENT_BYTES
            || sum(&mut environment()) > MAX_ARGUMENT_BYTES
        {
            return Err(SpecError::TooLong);
        }
        if self.arguments.iter().any(|text| text.contains('\0'))
            || environment().any(|text| text.contains('\0'))
        {
            return Err(SpecError::Nul);
        }
        if self
            .environment
            .iter()
            .any(|(name, _)| name.is_empty() || name.contains('='))
        {
            return Err(SpecError::VariableName);
        }
        Ok(())
    }

    /// The hash a receipt names the arguments and the environment by: each list's length, then
    /// each text's length and bytes, lengths as 8 bytes big-endian.
    #[must_use]
    pub fn arguments_hash(&self) -> ContentHash {
        let mut hasher = super::Hasher::default();
        let length = |n: usize| u64::try_from(n).unwrap_or(u64::MAX).to_be_bytes();
        hasher.update(&length(self.arguments.len()));
        for text in &self.arguments {
            hasher.update(&length(text.len()));
            hasher.update(text.as_bytes());
        }
        hasher.update(&length(self.environment.len()));
        for text in self.environment.iter().flat_map(|(n, v)| [n, v]) {
            hasher.update(&length(text.len()));
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }
}

/// What is wrong with a job's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SpecError {
    /// No `argv[0]`.
    #[error("a job needs a program name as its first argument")]
    NoProgramName,
    /// Too many.
    #[error("a job has at most {MAX_ARGUMENTS} arguments and as many environment variables")]
    TooMany,
    /// Too long.
    #[error("arguments, and environment, have at most {MAX_ARGUMENT_BYTES} bytes: use stdin")]
    TooLong,
    /// A zero byte.
    #[error("arguments and environment may not contain a NUL character")]
    Nul,
    /// An impossible name.
    #[error("an environment variable's name is empty or contains `=`")]
    VariableName,
    /// A text that is no job id.
    #[error("a job id is 32 hexadecimal digits")]
    JobId,
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Module or input are not here yet.
    Waiting,
    /// It waits for its turn.
    Queued,
    /// It is compiled or runs.
    Running,
    /// It came to an end: there is a receipt.
    Finished,
}

impl JobState {
    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }
}

/// What became of a job. Exactly one for each job, named in its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest ended by itself.
    Exited {
        /// Its exit status.
        status: u32,
    },
    /// The guest did what no program may: the trap's name, as `unreachable`.
    Trapped {
        /// At most 64 characters of `[a-z0-9_]`.
        trap: String,
    },
    /// A limit stopped it.
    Stopped {
        /// Which.
        limit: LimitName,
    },
    /// It was cancelled.
    Cancelled {
        /// By whom.
        by: CancelledBy,
    },
    /// It could not be run, or not to its end.
    Failed {
        /// Why.
        fault: JobFault,
    },
}

impl Outcome {
    /// A stable, bounded name for metrics and lists: the variant's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Trapped { .. } => "trapped",
            Self::Stopped { .. } => "stopped",
            Self::Cancelled { .. } => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status } => write!(f, "exited {status}"),
            Self::Trapped { trap } => write!(f, "trapped: {trap}"),
            Self::Stopped { limit } => write!(f, "stopped by limit {limit}"),
            Self::Cancelled { by } => write!(f, "cancelled by {}", by.name()),
            Self::Failed { fault } => write!(f, "failed: {}", fault.name()),
        }
    }
}

/// Who ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelledBy {
    /// Who submitted it.
    Submitter,
    /// The executor's operator.
    Operator,
    /// The executor's rules: the submitter was banned, or lost its credential.
    Policy,
}

impl CancelledBy {
    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Policy => "policy",
        }
    }
}

/// Why a job was not run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobFault {
    /// The bytes are no valid WebAssembly module, or use a feature that is switched off.
    InvalidModule,
    /// It imports what no sandbox offers, or exports no `_start`.
    Link,
    /// The process that ran it died without a word.
    WorkerDied,
    /// The executor was restarted and could not take the job up again as it was.
    Interrupted,
    /// Module or input never came.
    InputMissing,
    /// The executor's disk or memory failed it.
    Executor,
    /// Its sealed input does not open.
    SealedInput,
}

impl JobFault {
    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidModule => "invalid_module",
            Self::Link => "link",
            Self::WorkerDied => "worker_died",
            Self::Interrupted => "interrupted",
            Self::InputMissing => "input_missing",
            Self::Executor => "executor",
            Self::SealedInput => "sealed_input",
        }
    }
}

impl fmt::Display for JobFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidModule => {
                "the bytes are no WebAssembly module, or it uses a feature that is switched off here"
            }
            Self::Link => {
                "the module imports what is not WASI preview 1, or exports no `_start`: build it as \
                 a WASI command"
            }
            Self::WorkerDied => "the process that ran it died: submit it again",
            Self::Interrupted => {
                "the executor was restarted and could not take the job up again: submit it again"
            }
            Self::InputMissing => "module or input did not reach the executor in time",
            Self::Executor => "the executor's disk or memory failed: try again, or elsewhere",
            Self::SealedInput => {
                "the sealed input does not open there: it was sealed to other keys, or by another \
                 peer than the one that submitted it"
            }
        })
    }
}

/// What a job used, all its attempts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Time on the wall from the guest's start to its end, milliseconds.
    pub wall_ms: u64,
    /// Processor time of the worker for it, compiling included, microseconds.
    pub cpu_us: u64,
    /// Fuel consumed, where it is counted.
    pub fuel: Option<u64>,
    /// Most linear memory at any time, bytes.
    pub memory_peak: u64,
    /// Bytes written to stdout.
    pub stdout: u64,
    /// Bytes written to stderr.
    pub stderr: u64,
}
