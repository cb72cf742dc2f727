//! What a worker gives up before it sees a guest's byte.
//!
//! Two layers beyond the process itself. *Resource limits* of the kernel: no core files, no
//! files written, few descriptors, no new processes, and a ceiling for memory and processor time
//! above the limits that wasmtime and the ticker enforce. *System calls*: an allow-list, [`CALLS`],
//! for what memory, time and two pipes need; everything else fails with `EPERM`. Calls that only
//! an intruder would make kill the process, so that the node sees it.
//!
//! A worker that cannot do all of this refuses to work, and a node whose first worker refuses
//! does not offer a sandbox: jobs without it would be another product. It is Linux only, on
//! x86-64 and aarch64.

use std::collections::BTreeMap;

use nix::{
    libc,
    sys::{
        prctl,
        resource::{Resource, rlim_t, setrlimit},
    },
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use thiserror::Error;

/// Why a worker cannot protect itself.
#[derive(Debug, Error)]
pub(crate) enum HardeningError {
    /// A limit or a flag was refused.
    #[error("the kernel refused {0}: {1}")]
    Kernel(&'static str, nix::Error),
    /// The filter of system calls.
    #[error("no filter of system calls: {0} (Linux with seccomp on x86-64 or aarch64 is needed)")]
    Filter(String),
}

/// Descriptors: three pipes, the copy of one, the process's own status, and some air.
const DESCRIPTORS: rlim_t = 16;
/// Address space: wasmtime reserves 4 GiB and guards for a memory, which costs nothing.
const ADDRESS_SPACE: rlim_t = 32 << 30;

/// What no worker needs, whatever it will do. Done at the start.
pub(crate) fn early() -> Result<(), HardeningError> {
    prctl::set_no_new_privs().map_err(|e| HardeningError::Kernel("no_new_privs", e))?;
    // When memory runs out, the kernel takes a worker before anything of the node's. Not having it
    // weakens no defence.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // Nobody but root attaches to this process or reads its memory.
    prctl::set_dumpable(false).map_err(|e| HardeningError::Kernel("dumpable", e))?;
    limit("core", Resource::RLIMIT_CORE, 0)?;
    limit("fsize", Resource::RLIMIT_FSIZE, 0)?;
    limit("nofile", Resource::RLIMIT_NOFILE, DESCRIPTORS)?;
    limit("as", Resource::RLIMIT_AS, ADDRESS_SPACE)
}

/// The kernel's own ceilings for the work to come, which no honest work reaches.
pub(crate) struct Ceilings {
    /// Memory that may be written, bytes.
    pub(crate) data: u64,
    /// Processor time of the process, whole seconds.
    pub(crate) cpu_seconds: u64,
}

/// The last step, when all threads run: no new process, and the filter for every thread.
pub(crate) fn late(ceilings: &Ceilings, filters: &Filters) -> Result<(), HardeningError> {
    limit("data", Resource::RLIMIT_DATA, ceilings.data)?;
    // Soft before hard: the soft limit's signal has a name (SIGXCPU), the hard one's is SIGKILL.
    let seconds = ceilings.cpu_seconds;
    limits(
        "cpu",
        Resource::RLIMIT_CPU,
        seconds,
        seconds.saturating_add(1),
    )?;
    // Does not bind root, whom the filter binds.
    limit("nproc", Resource::RLIMIT_NPROC, 0)?;
    for program in [&filters.deadly, &filters.allowed] {
        seccompiler::apply_filter_all_threads(program)
            .map_err(|error| HardeningError::Filter(error.to_string()))?;
    }
    Ok(())
}

fn limit(name: &'static str, resource: Resource, most: rlim_t) -> Result<(), HardeningError> {
    limits(name, resource, most, most)
}

fn limits(
    name: &'static str,
    resource: Resource,
    soft: rlim_t,
    hard: rlim_t,
) -> Result<(), HardeningError> {
    let (_, most) =
        nix::sys::resource::getrlimit(resource).map_err(|e| HardeningError::Kernel(name, e))?;
    setrlimit(resource, soft.min(most), hard.min(most)).map_err(|e| HardeningError::Kernel(name, e))
}

/// How a call is allowed.
#[derive(Clone, Copy)]
enum Rule {
    /// Whatever its arguments.
    Always,
    /// When the protection in its third argument is not writable *and* executable.
    NeverBoth,
    /// That, and the mapping is private and of no file: shared memory counts against no limit.
    PrivateNeverBoth,
    /// When its first argument is this process.
    OwnProcess,
}

/// What a worker may call once it works, each with its reason.
const CALLS: &[(libc::c_long, Rule, &str)] = &[
    (
        libc::SYS_read,
        Rule::Always,
        "orders and bytes from the node",
    ),
    (
        libc::SYS_write,
        Rule::Always,
        "frames to the node; a panic's text to nowhere",
    ),
    (
        libc::SYS_pread64,
        Rule::Always,
        "its own memory use, from a file opened before",
    ),
    (libc::SYS_close, Rule::Always, "that file"),
    (
        libc::SYS_mmap,
        Rule::PrivateNeverBoth,
        "the guest's memory, machine code, the allocator",
    ),
    (
        libc::SYS_mprotect,
        Rule::NeverBoth,
        "memory grows; code becomes executable, not writable",
    ),
    (libc::SYS_munmap, Rule::Always, "memory is given back"),
    (
        libc::SYS_mremap,
        Rule::Always,
        "the allocator grows a large block",
    ),
    (
        libc::SYS_madvise,
        Rule::Always,
        "the allocator and stacks give pages back",
    ),
    (libc::SYS_brk, Rule::Always, "the allocator"),
    (
        libc::SYS_futex,
        Rule::Always,
        "locks and waiting between threads",
    ),
    (
        libc::SYS_sched_yield,
        Rule::Always,
        "spinning a moment before waiting",
    ),
    (
        libc::SYS_clock_gettime,
        Rule::Always,
        "clocks, where the vDSO does not answer",
    ),
    (
        libc::SYS_clock_getres,
        Rule::Always,
        "the guest's clock_res_get",
    ),
    (libc::SYS_clock_nanosleep, Rule::Always, "the guest sleeps"),
    (
        libc::SYS_nanosleep,
        Rule::Always,
        "as above, in older C libraries",
    ),
    (
        libc::SYS_getrandom,
        Rule::Always,
        "the guest's random_get, hash seeds",
    ),
    (
        libc::SYS_getrusage,
        Rule::Always,
        "processor time used so far",
    ),
    (libc::SYS_rt_sigaction, Rule::Always, "traps are signals"),
    (libc::SYS_rt_sigprocmask, Rule::Always, "as above"),
    (libc::SYS_rt_sigreturn, Rule::Always, "as above"),
    (
        libc::SYS_sigaltstack,
        Rule::Always,
        "a guest's stack overflow is handled on another stack",
    ),
    (
        libc::SYS_membarrier,
        Rule::Always,
        "aarch64: other cores see new code",
    ),
    (
        libc::SYS_getpid,
        Rule::Always,
        "abort(), so that a bug is seen as one",
    ),
    (libc::SYS_gettid, Rule::Always, "as above"),
    (
        libc::SYS_tgkill,
        Rule::OwnProcess,
        "as above; the node runs as the same user, and must not be named",
    ),
    (
        libc::SYS_restart_syscall,
        Rule::Always,
        "a sleep goes on after a stop",
    ),
    (libc::SYS_exit, Rule::Always, "a thread ends"),
    (libc::SYS_exit_group, Rule::Always, "the process ends"),
];

/// What only an intruder would call: the process dies at once, with SIGSYS.
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
    (libc::SYS_init_module, "the kernel"),
    (libc::SYS_finit_module, "the kernel"),
    (libc::SYS_kexec_load, "the kernel"),
];

/// The filters, ready to be installed.
pub(crate) struct Filters {
    allowed: BpfProgram,
    deadly: BpfProgram,
}

impl Filters {
    /// Compiles them for this machine.
    pub(crate) fn compile() -> Result<Self, HardeningError> {
        let eperm = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
        let mut allowed = BTreeMap::new();
        for (call, rule, _) in CALLS {
            allowed.insert(*call, rules(*rule)?);
        }
        let deadly = DEADLY.iter().map(|(call, _)| (*call, Vec::new())).collect();
        Ok(Self {
            allowed: program(allowed, eperm, SeccompAction::Allow)?,
            deadly: program(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?,
        })
    }
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    hit: SeccompAction,
) -> Result<BpfProgram, HardeningError> {
    let refuse = |error: seccompiler::BackendError| HardeningError::Filter(error.to_string());
    let arch = std::env::consts::ARCH.try_into().map_err(refuse)?;
    SeccompFilter::new(rules, mismatch, hit, arch)
        .and_then(TryInto::try_into)
        .map_err(refuse)
}

fn rules(rule: Rule) -> Result<Vec<SeccompRule>, HardeningError> {
    let refuse = |error: seccompiler::BackendError| HardeningError::Filter(error.to_string());
    match rule {
        Rule::Always => return Ok(Vec::new()),
        Rule::OwnProcess => {
            let own = u64::from(std::process::id());
            return SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)
                .and_then(|condition| SeccompRule::new(vec![condition]))
                .map(|rule| vec![rule])
                .map_err(refuse);
        }
        Rule::NeverBoth | Rule::PrivateNeverBoth => {}
    }
    let flag = |flag: libc::c_int| u64::try_from(flag).unwrap_or(0);
    let private = flag(libc::MAP_PRIVATE) | flag(libc::MAP_ANONYMOUS);
    let kinds = SeccompCmpOp::MaskedEq(private | flag(libc::MAP_SHARED));
    let write = u64::try_from(libc::PROT_WRITE).unwrap_or(0);
    let execute = u64::try_from(libc::PROT_EXEC).unwrap_or(0);
    [0, write, execute]
        .into_iter()
        .map(|value| {
            let both = SeccompCmpOp::MaskedEq(write | execute);
            let mut conditions = vec![
                SeccompCondition::new(2, SeccompCmpArgLen::Dword, both, value).map_err(refuse)?,
            ];
            if let Rule::PrivateNeverBoth = rule {
                let kind =
                    SeccompCondition::new(3, SeccompCmpArgLen::Dword, kinds.clone(), private);
                conditions.push(kind.map_err(refuse)?);
            }
            SeccompRule::new(conditions).map_err(refuse)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::*;
    use crate::sandbox::raw::tests as raw;

    #[test]
    fn a_filtered_thread_computes_and_reaches_nothing() {
        let filters = Filters::compile().unwrap();
        std::thread::spawn(move || {
            seccompiler::apply_filter(&filters.allowed).unwrap();
            assert_eq!(
                File::open("/proc/self/status").unwrap_err().raw_os_error(),
                Some(libc::EPERM)
            );
            assert_eq!(
                TcpListener::bind("127.0.0.1:0").unwrap_err().raw_os_error(),
                Some(libc::EPERM)
            );
            assert!(std::thread::Builder::new().spawn(|| ()).is_err());
            let large = vec![1_u8; 8 << 20];
            assert_eq!(
                large.iter().map(|byte| usize::from(*byte)).sum::<usize>(),
                8 << 20
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_filtered_thread_signals_nobody_else_and_shares_no_memory() {
        let filters = Filters::compile().unwrap();
        let parent = nix::unistd::getppid().as_raw();
        std::thread::spawn(move || {
            // Signal 0 only asks whether it would be allowed.
            let own = nix::unistd::getpid().as_raw();
            assert_eq!(raw::tgkill(own, own, 0), Ok(()));
            assert!(raw::shared_memory(4096).is_ok());
            seccompiler::apply_filter(&filters.allowed).unwrap();
            assert_eq!(raw::tgkill(own, own, 0), Ok(()));
            assert_eq!(raw::tgkill(parent, parent, 0), Err(libc::EPERM));
            assert_eq!(raw::shared_memory(4096), Err(libc::EPERM));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn no_call_is_both_allowed_and_deadly() {
        for (call, _) in DEADLY {
            assert!(CALLS.iter().all(|(allowed, _, _)| allowed != call));
        }
    }
}
