//! What the operating system is asked to forbid: to the node, and far more to its workers.

use std::{collections::BTreeMap, io};

use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use thiserror::Error;

use super::raw;

/// Files a worker may hold open: its pipes and what its runtime needs.
const OPEN_FILES: u64 = 32;

/// Whether a protection is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardening {
    /// It is.
    Enforced,
    /// This kernel does not have it.
    Unsupported,
}

/// Forbids this process to ever run code from memory that was writable
/// (`PR_SET_MDWE`, Linux 6.3; that workers do not inherit it needs 6.6). Workers compile, so they
/// are exempt, which is one reason why they are processes of their own.
#[must_use]
pub fn forbid_writable_executable() -> Hardening {
    match raw::memory_deny_write_execute() {
        Ok(()) => Hardening::Enforced,
        Err(_) => Hardening::Unsupported,
    }
}

/// Why a worker could not be hardened; then it runs nothing.
#[derive(Debug, Error)]
pub(super) enum HardenError {
    #[error("resource limits: {0}")]
    Limits(#[from] nix::Error),
    #[error("system call filter: {0}")]
    Filter(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// System calls a worker may make, and what for. Everything else is answered as if this kernel did not have it: no file,
/// no socket, no program, no other process.
const ALLOWED: &[(libc::c_long, &str)] = &[
    (libc::SYS_read, "orders"),
    (libc::SYS_readv, "orders"),
    (libc::SYS_write, "output and report"),
    (libc::SYS_writev, "output and report"),
    (
        libc::SYS_close,
        "end of a thread's or runtime's descriptors",
    ),
    (libc::SYS_mmap, "memory, code, stacks"),
    (
        libc::SYS_mprotect,
        "compiled code becomes executable, memory grows",
    ),
    (libc::SYS_munmap, "memory"),
    (libc::SYS_mremap, "memory of the allocator"),
    (libc::SYS_madvise, "memory"),
    (libc::SYS_brk, "memory of the allocator"),
    (libc::SYS_membarrier, "code published to all threads"),
    (libc::SYS_futex, "locks"),
    (libc::SYS_sched_yield, "locks"),
    (libc::SYS_sched_getaffinity, "number of processors"),
    (libc::SYS_nanosleep, "the watch's ticks"),
    (libc::SYS_clock_nanosleep, "the watch's ticks"),
    (libc::SYS_clock_gettime, "clocks of the guest and the watch"),
    (libc::SYS_clock_getres, "clocks of the guest"),
    (libc::SYS_gettimeofday, "clocks"),
    (libc::SYS_getrandom, "randomness of the guest, hash tables"),
    (libc::SYS_getrusage, "what was used"),
    (libc::SYS_getpid, "aborts"),
    (libc::SYS_gettid, "aborts"),
    (libc::SYS_tgkill, "aborts"),
    (libc::SYS_rt_sigaction, "traps of the guest"),
    (libc::SYS_rt_sigprocmask, "traps of the guest, threads"),
    (libc::SYS_rt_sigreturn, "traps of the guest"),
    (libc::SYS_sigaltstack, "traps of the guest, threads"),
    (libc::SYS_epoll_wait, "timers of the guest"),
    (libc::SYS_epoll_ctl, "timers of the guest"),
    (libc::SYS_set_robust_list, "threads"),
    (libc::SYS_rseq, "threads"),
    (libc::SYS_exit, "end of a thread"),
    (libc::SYS_exit_group, "end"),
];

/// Gives up what a worker does not need. After this no file and no socket can be opened.
pub(super) fn harden() -> Result<(), HardenError> {
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
    ] {
        setrlimit(resource, most, most)?;
    }
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    let program = filter().map_err(|error| HardenError::Filter(error.to_string()))?;
    apply_filter_all_threads(&program).map_err(|error| HardenError::Filter(error.to_string()))
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .map(|(call, _)| (*call, Vec::new()))
        .collect();
    // Threads, not processes: every thread of the C library has this flag, no fork has it.
    let threads = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
    let thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(threads),
        threads,
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![thread])?]);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(
        rules,
        // EPERM would do for all but one: of clone3 the C library must believe that this kernel
        // lacks it, so that it falls back to clone, whose flags can be looked at.
        SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap_or(1)),
        SeccompAction::Allow,
        arch,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_names_no_call_twice() {
        assert!(filter().is_ok());
        let mut calls: Vec<_> = ALLOWED.iter().map(|(call, _)| *call).collect();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), ALLOWED.len());
        for forbidden in [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_io_uring_setup,
        ] {
            assert!(!calls.contains(&forbidden));
        }
    }
}
