//! `[sandbox]` and `[jobs]`: bounds of jobs, and how they must fit together.

use super::check::Check;
use crate::{config::Config, sandbox::MAX_PIECE, types::ByteSize};

/// Most jobs a node keeps, running or finished: each costs a few kilobytes of memory.
const MAX_JOBS: u64 = 65_536;
/// Most processes for jobs.
const MAX_WORKERS: u64 = 256;
/// WebAssembly's own bound on a 32-bit memory.
const MAX_MEMORY: u64 = 4 << 30;
/// Most fuel wasmtime can count.
const MAX_FUEL: u64 = 1 << 62;
/// A module or input travels in pieces: more than this takes an hour at the default rate.
const MAX_BLOB: u64 = 1 << 30;
/// The system's usual stack of a thread is 8 MiB; the guest's stack is a part of its thread's.
const MAX_STACK: u64 = 64 << 20;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

pub(super) fn sandbox(check: &mut Check, config: &Config) {
    let jobs = &config.sandbox;
    let count = |check: &mut Check, key: &str, value: usize, least, most| {
        check.number(&format!("sandbox.{key}"), value, least, most);
    };
    count(check, "workers", jobs.workers, 1, MAX_WORKERS);
    count(check, "spare_workers", jobs.spare_workers, 0, MAX_WORKERS);
    count(check, "jobs", jobs.jobs, 1, MAX_JOBS);
    count(check, "jobs_per_peer", jobs.jobs_per_peer, 1, MAX_JOBS);
    count(
        check,
        "running_per_peer",
        jobs.running_per_peer,
        1,
        MAX_WORKERS,
    );
    count(check, "results", jobs.results, 1, MAX_JOBS);
    check.ordered(
        ("sandbox.jobs_per_peer", jobs.jobs_per_peer),
        ("sandbox.jobs", jobs.jobs),
    );
    for (key, span) in [
        ("cpu_per_hour", jobs.cpu_per_hour),
        ("default_wall_clock", jobs.default_wall_clock),
        ("max_wall_clock", jobs.max_wall_clock),
        ("max_cpu_time", jobs.max_cpu_time),
        ("compile_time", jobs.compile_time),
        ("input_timeout", jobs.input_timeout),
        ("results_kept", jobs.results_kept),
    ] {
        check.span(&format!("sandbox.{key}"), span);
    }
    check.ordered(
        ("sandbox.default_wall_clock", jobs.default_wall_clock),
        ("sandbox.max_wall_clock", jobs.max_wall_clock),
    );
    let size = |check: &mut Check, key: &str, value: ByteSize, least, most| {
        check.number(&format!("sandbox.{key}"), value.0, least, most);
    };
    size(check, "max_memory", jobs.max_memory, 64 * KIB, MAX_MEMORY);
    size(check, "max_stack", jobs.max_stack, 64 * KIB, MAX_STACK);
    size(check, "max_output", jobs.max_output, 1, MAX_BLOB);
    size(check, "max_module", jobs.max_module, 8, MAX_BLOB);
    size(check, "max_input", jobs.max_input, 1, MAX_BLOB);
    size(
        check,
        "compile_memory",
        jobs.compile_memory,
        64 * MIB,
        1 << 40,
    );
    size(
        check,
        "blob_cache",
        jobs.blob_cache,
        MAX_PIECE as u64,
        1 << 50,
    );
    size(check, "output_storage", jobs.output_storage, 1, 1 << 50);
    size(check, "disk_reserve", jobs.disk_reserve, 0, 1 << 50);
    size(check, "compiled_cache", jobs.compiled_cache, MIB, 1 << 50);
    check.number("sandbox.max_fuel", jobs.max_fuel, 1, MAX_FUEL);
    check.number("sandbox.max_table", jobs.max_table, 1, 10_000_000);
    check.number("sandbox.max_functions", jobs.max_functions, 1, 1_000_000);
    check.number("sandbox.max_nesting", jobs.max_nesting, 1, 1_000_000);
    relations(check, config);
}

fn relations(check: &mut Check, config: &Config) {
    let jobs = &config.sandbox;
    check.relation(
        jobs.blob_cache.0 >= jobs.max_module.0.saturating_add(jobs.max_input.0),
        &[
            "sandbox.blob_cache",
            "sandbox.max_module",
            "sandbox.max_input",
        ],
        "is less than one module and one input: such a job could never begin",
        "write at least sandbox.max_module and sandbox.max_input together",
    );
    check.relation(
        jobs.output_storage.0 >= jobs.max_output.0,
        &["sandbox.output_storage", "sandbox.max_output"],
        "is less than the output of one job: such a job could never begin",
        "write at least sandbox.max_output",
    );
}

pub(super) fn jobs(check: &mut Check, config: &Config) {
    let jobs = &config.jobs;
    check.number("jobs.unfinished", jobs.unfinished, 1, MAX_JOBS);
    check.number("jobs.results", jobs.results, 1, MAX_JOBS);
    check.span("jobs.results_kept", jobs.results_kept);
    check.span("jobs.patience", jobs.patience);
    check.span("jobs.deadline", jobs.deadline);
    check.number("jobs.max_output", jobs.max_output.0, 1, MAX_BLOB);
    check.number("jobs.output_storage", jobs.output_storage.0, 1, 1 << 50);
    check.relation(
        jobs.output_storage.0 >= jobs.max_output.0,
        &["jobs.output_storage", "jobs.max_output"],
        "is less than the output of one job",
        "write at least jobs.max_output",
    );
    check.number("jobs.storage", jobs.storage.0, MAX_PIECE as u64, 1 << 50);
}
