//! The grammar of `job …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::key_value;
use crate::{
    sandbox::JobId,
    types::{ByteSize, PeerId, Span},
};

/// `job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Have a WebAssembly program (WASI preview 1) run, print what it prints, end as it ends
    Run(Box<JobRunArgs>),
    /// The jobs this node gave away or runs for others
    List,
    /// One job: state, limits, usage, outcome
    Show {
        /// The job's id
        job: JobId,
        /// Write its receipt to this file
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
    /// Print what a job printed
    Logs {
        /// The job's id
        job: JobId,
        /// Go on until the job ends, and end as it ends
        #[arg(long)]
        follow: bool,
    },
    /// Cancel a job
    Cancel {
        /// The job's id
        job: JobId,
    },
}

/// Arguments of `job run`.
#[derive(Debug, Args)]
pub struct JobRunArgs {
    /// The program, a WebAssembly module
    pub module: PathBuf,
    /// Its arguments; the first one it sees is the module's file name
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
    /// The peer that shall run it, by its id or by `issuer/subject` [default: this node]
    #[arg(long, value_name = "PEER")]
    pub on: Option<Executor>,
    /// Its standard input; `-`: that of this command [default: empty]
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// An environment variable for it; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = key_value)]
    pub environment: Vec<(String, String)>,
    /// Seal the input to the executor: neither disks nor anybody between can read it
    #[arg(long, conflicts_with = "idempotency_key")]
    pub seal: bool,
    /// Write the executor's signed receipt to this file
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// Most time on the wall [default: the executor's, usually 30s]
    #[arg(long, value_name = "SPAN")]
    pub wall_clock: Option<Span>,
    /// Most processor time
    #[arg(long, value_name = "SPAN")]
    pub cpu_time: Option<Span>,
    /// Most instructions, counted as wasmtime's fuel
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,
    /// Most linear memory
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Most output, stdout and stderr together
    #[arg(long, value_name = "SIZE")]
    pub max_output: Option<ByteSize>,
    /// The same result everywhere: fixed clocks, seeded randomness, canonical NaN
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = "0")]
    pub deterministic: Option<u64>,
    /// Submitting again with the same text runs nothing twice [default: a random one]
    #[arg(long, value_name = "TEXT")]
    pub idempotency_key: Option<String>,
    /// Print the job's id and do not wait for it
    #[arg(long)]
    pub detach: bool,
}

/// Who shall run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executor {
    /// By its id.
    Peer(PeerId),
    /// By its credential, `issuer/subject`: looked up among the connected peers.
    Identity(String),
}

impl std::str::FromStr for Executor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(peer) => Ok(Self::Peer(peer)),
            Err(_)
                if text
                    .split_once('/')
                    .is_some_and(|(i, s)| !i.is_empty() && !s.is_empty()) =>
            {
                Ok(Self::Identity(text.to_owned()))
            }
            Err(error) => Err(format!("{error}; or name a peer as issuer/subject")),
        }
    }
}
