//! What a job may use. The submitter asks, the executor's ceilings decide; nothing is unlimited.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::SandboxConfig;

/// A limit's stable name: in outcomes, metrics, and on stderr of `job run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Time on the wall since the guest began.
    WallClock,
    /// Processor time of the guest.
    CpuTime,
    /// Instructions, in wasmtime's fuel (deterministic mode, or when asked for).
    Fuel,
    /// Linear memory.
    Memory,
    /// Elements of all tables.
    Table,
    /// The guest's stack.
    Stack,
    /// Bytes written to stdout and stderr together.
    Output,
    /// Bytes of the module.
    ModuleSize,
    /// Bytes of standard input.
    InputSize,
    /// Functions of the module, imported ones included.
    Functions,
    /// Depth of nested blocks in a function.
    Nesting,
    /// Time to compile the module.
    CompileTime,
    /// Memory to compile the module.
    CompileMemory,
}

impl LimitName {
    /// Every limit, in the order of this type.
    pub const ALL: [Self; 13] = [
        Self::WallClock,
        Self::CpuTime,
        Self::Fuel,
        Self::Memory,
        Self::Table,
        Self::Stack,
        Self::Output,
        Self::ModuleSize,
        Self::InputSize,
        Self::Functions,
        Self::Nesting,
        Self::CompileTime,
        Self::CompileMemory,
    ];

    /// The name in `snake_case`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WallClock => "wall_clock",
            Self::CpuTime => "cpu_time",
            Self::Fuel => "fuel",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Stack => "stack",
            Self::Output => "output",
            Self::ModuleSize => "module_size",
            Self::InputSize => "input_size",
            Self::Functions => "functions",
            Self::Nesting => "nesting",
            Self::CompileTime => "compile_time",
            Self::CompileMemory => "compile_memory",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the submitter asks for; what it leaves open is the executor's default, or its ceiling
/// where there is no default of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitsWanted {
    /// Time on the wall, milliseconds.
    pub wall_clock_ms: Option<u64>,
    /// Processor time, milliseconds.
    pub cpu_time_ms: Option<u64>,
    /// Instructions. Asking for it has the guest compiled to count them.
    pub fuel: Option<u64>,
    /// Linear memory, bytes.
    pub memory: Option<u64>,
    /// Output, bytes.
    pub output: Option<u64>,
}

/// What a job gets: the limits in force, all of them, as the receipt names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time on the wall since the guest began, milliseconds.
    pub wall_clock_ms: u64,
    /// Processor time of the guest, milliseconds.
    pub cpu_time_ms: u64,
    /// Instructions; `None`: not counted (and not deterministic).
    pub fuel: Option<u64>,
    /// Linear memory, bytes.
    pub memory: u64,
    /// Elements of all tables.
    pub table: u64,
    /// The guest's stack, bytes.
    pub stack: u64,
    /// Stdout and stderr together, bytes.
    pub output: u64,
}

impl Limits {
    /// Time on the wall.
    #[must_use]
    pub fn wall_clock(&self) -> Duration {
        Duration::from_millis(self.wall_clock_ms)
    }

    /// Processor time.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        Duration::from_millis(self.cpu_time_ms)
    }

    /// Whether these are what a submitter who wanted `wanted` can have been granted: equal where it
    /// said how much, and with fuel where that has to be counted.
    #[must_use]
    pub fn grants(&self, wanted: &LimitsWanted, counted: bool) -> bool {
        let equal = |wish: Option<u64>, granted: u64| wish.is_none_or(|wish| wish == granted);
        equal(wanted.wall_clock_ms, self.wall_clock_ms)
            && equal(wanted.cpu_time_ms, self.cpu_time_ms)
            && equal(wanted.memory, self.memory)
            && equal(wanted.output, self.output)
            && match (wanted.fuel, self.fuel) {
                (Some(wish), granted) => granted == Some(wish),
                (None, granted) => granted.is_some() == counted,
            }
    }

    /// What a submitter gets who wants this. `counted`: fuel is needed (deterministic mode).
    ///
    /// # Errors
    /// [`Refusal`] names the first wish above the executor's ceiling, or of zero.
    pub fn grant(
        wanted: &LimitsWanted,
        counted: bool,
        config: &SandboxConfig,
    ) -> Result<Self, Refusal> {
        let pick = |limit, wish: Option<u64>, default: u64, ceiling: u64| match wish {
            Some(0) => Err(Refusal::Zero(limit)),
            Some(wish) if wish > ceiling => Err(Refusal::Above {
                limit,
                wanted: wish,
                ceiling,
            }),
            Some(wish) => Ok(wish),
            None => Ok(default.min(ceiling)),
        };
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (max_cpu, max_wall) = (ms(config.max_cpu_time.0), ms(config.max_wall_clock.0));
        let wall_clock_ms = pick(
            LimitName::WallClock,
            wanted.wall_clock_ms,
            ms(config.default_wall_clock.0),
            max_wall,
        )?;
        let fuel = if wanted.fuel.is_some() || counted {
            Some(pick(
                LimitName::Fuel,
                wanted.fuel,
                config.max_fuel,
                config.max_fuel,
            )?)
        } else {
            None
        };
        Ok(Self {
            wall_clock_ms,
            cpu_time_ms: pick(LimitName::CpuTime, wanted.cpu_time_ms, max_cpu, max_cpu)?,
            fuel,
            memory: pick(
                LimitName::Memory,
                wanted.memory,
                config.max_memory.0,
                config.max_memory.0,
            )?,
            table: config.max_table,
            stack: config.max_stack.0,
            output: pick(
                LimitName::Output,
                wanted.output,
                config.max_output.0,
                config.max_output.0,
            )?,
        })
    }
}

/// A wish that is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Above the ceiling.
    #[error("limit {limit}: {wanted} is above this node's ceiling of {ceiling}: ask for less")]
    Above {
        /// Which.
        limit: LimitName,
        /// What was asked for, in the limit's base unit (milliseconds, bytes, instructions).
        wanted: u64,
        /// The most this node grants.
        ceiling: u64,
    },
    /// Nothing at all.
    #[error("limit {0}: zero lets nothing run: leave it out or ask for more")]
    Zero(LimitName),
}
