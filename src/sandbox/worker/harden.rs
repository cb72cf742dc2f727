//! What a worker asks the operating system to forbid it, before it sees a guest's byte.
//!
//! Limits of the kernel (no core files, no files written, few descriptors, an end to its address
//! space), and two filters of system calls: a list of what memory, time and two pipes need, and a
//! list of what only an intruder would call, which ends the process at once, so that the node
//! sees it. A worker that cannot do all of this runs nothing.

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

/// Files a worker may hold open: its pipes and what its runtime needs.
const OPEN_FILES: u64 = 32;
/// Address space: a memory reserves 4 GiB and its guards, which cost nothing.
const ADDRESS_SPACE: u64 = 32 << 30;

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

/// As [`ALLOWED`], unless the third argument asks for memory that is writable and executable.
const NEVER_BOTH: &[(libc::c_long, &str)] = &[
    (libc::SYS_mmap, "memory, code, stacks"),
    (
        libc::SYS_mprotect,
        "memory grows; code becomes executable and stays as it is",
    ),
];

/// What only an intruder would call: the process ends at once.
const DEADLY: &[(libc::c_long, &str)] = &[
    (libc::SYS_execve, "another program"),
    (libc::SYS_execveat, "another program"),
    (libc::SYS_ptrace, "another process's memory"),
    (libc::SYS_process_vm_readv, "another process's memory"),
    (libc::SYS_process_vm_writev, "another process's memory"),
    (libc::SYS_socket, "the network"),
    (libc::SYS_connect, "the network"),
    (libc::SYS_bpf, "the kernel"),
    (libc::SYS_io_uring_setup, "calls that no filter sees"),
    (libc::SYS_userfaultfd, "a tool of kernel exploits"),
    (libc::SYS_unshare, "namespaces"),
    (libc::SYS_setns, "namespaces"),
    (libc::SYS_mount, "file systems"),
];

/// Gives up what a worker does not need. After this no file and no socket can be opened.
pub(super) fn harden() -> Result<(), HardenError> {
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_AS, ADDRESS_SPACE),
    ] {
        setrlimit(resource, most, most)?;
    }
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    let failed = |error: String| HardenError::Filter(error);
    for program in [deadly(), allowed()] {
        let program = program.map_err(|error| failed(error.to_string()))?;
        apply_filter_all_threads(&program).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

fn deadly() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = DEADLY.iter().map(|(call, _)| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    filter.try_into()
}

/// Rules for a third argument that is not both writable and executable.
fn never_both() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let write = u64::try_from(libc::PROT_WRITE).unwrap_or_default();
    let execute = u64::try_from(libc::PROT_EXEC).unwrap_or_default();
    [0, write, execute]
        .into_iter()
        .map(|value| {
            let either = SeccompCmpOp::MaskedEq(write | execute);
            SeccompRule::new(vec![SeccompCondition::new(
                2,
                SeccompCmpArgLen::Dword,
                either,
                value,
            )?])
        })
        .collect()
}

fn allowed() -> Result<BpfProgram, seccompiler::BackendError> {
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
    for (call, _) in NEVER_BOTH {
        rules.insert(*call, never_both()?);
    }
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
        assert!(allowed().is_ok() && deadly().is_ok());
        let mut calls: Vec<_> = ALLOWED.iter().map(|(call, _)| *call).collect();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), ALLOWED.len());
        assert!(!calls.contains(&libc::SYS_openat));
        for (forbidden, _) in DEADLY {
            assert!(!calls.contains(forbidden));
        }
    }
}
