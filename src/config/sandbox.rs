//! `[sandbox]`: what this node runs for others, and how much of it. `[jobs]`: what it has others
//! run.

use serde::{Deserialize, Serialize};

use super::sections::secs;
use crate::types::{ByteSize, Span};

const MIB: u64 = 1 << 20;

/// `[sandbox]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// Whether this node runs jobs at all; it can submit them in any case.
    pub enabled: bool,
    /// Jobs that run at the same time.
    pub workers: usize,
    /// Processes that stand ready before a job comes.
    pub spare_workers: usize,
    /// Jobs accepted and not finished, in all.
    pub jobs: usize,
    /// Jobs accepted and not finished, of one peer.
    pub jobs_per_peer: usize,
    /// Jobs of one peer that run at the same time.
    pub running_per_peer: usize,
    /// Processor time one peer may use in an hour.
    pub cpu_per_hour: Span,
    /// Time on the wall for a job that asks for none.
    pub default_wall_clock: Span,
    /// Most time on the wall a job may ask for.
    pub max_wall_clock: Span,
    /// Most processor time of a job.
    pub max_cpu_time: Span,
    /// Most instructions of a job that has them counted.
    pub max_fuel: u64,
    /// Most linear memory of a job.
    pub max_memory: ByteSize,
    /// Most table elements of a job.
    pub max_table: u64,
    /// Stack of a job.
    pub max_stack: ByteSize,
    /// Most output of a job, stdout and stderr together.
    pub max_output: ByteSize,
    /// Largest module.
    pub max_module: ByteSize,
    /// Largest standard input.
    pub max_input: ByteSize,
    /// Most functions of a module.
    pub max_functions: u32,
    /// Deepest nesting of blocks in a function.
    pub max_nesting: u32,
    /// Time compiling a module may take.
    pub compile_time: Span,
    /// Memory compiling a module may take.
    pub compile_memory: ByteSize,
    /// How long module and input of an accepted job may take to arrive.
    pub input_timeout: Span,
    /// How long results are kept.
    pub results_kept: Span,
    /// Finished jobs whose results are kept; the oldest go first.
    pub results: usize,
    /// Disk for outputs, of jobs that may still print and of results that are kept.
    pub output_storage: ByteSize,
    /// Free disk below which no job and no piece of a module or input is taken.
    pub disk_reserve: ByteSize,
    /// Disk for modules and inputs.
    pub blob_cache: ByteSize,
    /// Disk for compiled modules.
    pub compiled_cache: ByteSize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            workers: 2,
            spare_workers: 2,
            jobs: 1_024,
            jobs_per_peer: 64,
            running_per_peer: 1,
            cpu_per_hour: secs(600),
            default_wall_clock: secs(30),
            max_wall_clock: secs(300),
            max_cpu_time: secs(60),
            max_fuel: 100_000_000_000,
            max_memory: ByteSize(256 * MIB),
            max_table: 100_000,
            max_stack: ByteSize(MIB),
            max_output: ByteSize(16 * MIB),
            max_module: ByteSize(64 * MIB),
            max_input: ByteSize(64 * MIB),
            max_functions: 65_536,
            max_nesting: 2_048,
            compile_time: secs(60),
            compile_memory: ByteSize(1024 * MIB),
            input_timeout: secs(120),
            results_kept: secs(3_600),
            results: 1_024,
            output_storage: ByteSize(4096 * MIB),
            disk_reserve: ByteSize(512 * MIB),
            blob_cache: ByteSize(1024 * MIB),
            compiled_cache: ByteSize(1024 * MIB),
        }
    }
}

/// `[jobs]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Jobs given away and not finished.
    pub unfinished: usize,
    /// Finished jobs whose results are kept; the oldest go first.
    pub results: usize,
    /// How long results are kept.
    pub results_kept: Span,
    /// How long an executor may be out of reach before its job is given up.
    pub patience: Span,
    /// How long an executor may have a job in all.
    pub deadline: Span,
    /// Most output taken of one job, stdout and stderr together.
    pub max_output: ByteSize,
    /// Disk for outputs; of finished jobs the oldest go first.
    pub output_storage: ByteSize,
    /// Disk for modules and inputs of jobs to be given away.
    pub storage: ByteSize,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            unfinished: 256,
            results: 1_024,
            results_kept: secs(24 * 3_600),
            patience: secs(600),
            deadline: secs(24 * 3_600),
            max_output: ByteSize(64 * MIB),
            output_storage: ByteSize(4096 * MIB),
            storage: ByteSize(1024 * MIB),
        }
    }
}
