//! What a worker is told, and what it reports.

use serde::{Deserialize, Serialize};

use crate::sandbox::{Limits, Outcome, Usage};

/// Stack that a thread needs beside the guest's own.
const HOST_STACK: usize = 2 << 20;
/// Stack of a thread that compiles: the compiler recurses over what it is given.
const COMPILER_STACK: usize = 64 << 20;

/// How a module is compiled: what runs is the same only within one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Interrupted by epochs.
    Epoch,
    /// Epochs, and instructions counted.
    Fuel,
    /// As `Fuel`, and the same result everywhere.
    Deterministic,
}

impl Mode {
    pub(crate) fn of(fuel: bool, deterministic: bool) -> Self {
        match (fuel, deterministic) {
            (_, true) => Self::Deterministic,
            (true, false) => Self::Fuel,
            (false, false) => Self::Epoch,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Fuel => "fuel",
            Self::Deterministic => "deterministic",
        }
    }
}

/// Compile a module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CompileOrder {
    pub(crate) mode: Mode,
    pub(crate) max_stack: u64,
    pub(crate) max_functions: u32,
    pub(crate) max_nesting: u32,
    pub(crate) max_memory: u64,
    pub(crate) max_time_ms: u64,
    #[serde(skip)]
    pub(crate) module: Vec<u8>,
}

/// Run a compiled module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunOrder {
    pub(crate) mode: Mode,
    pub(crate) limits: Limits,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) seed: u64,
    #[serde(skip)]
    pub(crate) compiled: Vec<u8>,
    #[serde(skip)]
    pub(crate) input: Vec<u8>,
}

/// Either.
#[derive(Debug)]
pub(crate) enum Order {
    Compile(CompileOrder),
    Run(Box<RunOrder>),
}

impl Order {
    /// Stack of the thread that carries it out.
    pub(crate) fn stack(&self) -> usize {
        match self {
            Self::Compile(_) => COMPILER_STACK,
            Self::Run(order) => usize::try_from(order.limits.stack)
                .unwrap_or(usize::MAX)
                .saturating_add(HOST_STACK),
        }
    }
}

/// The end of a worker's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    /// `None`: compiled.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) usage: Usage,
    /// The compiled bytes are another version's, or another machine's: compile again.
    pub(crate) stale: bool,
}
