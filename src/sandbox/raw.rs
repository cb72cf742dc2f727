//! The few calls that need `unsafe`, each with the reason why it is sound.
//!
//! Nothing else in this crate is unsafe. Each function is a safe name for one call; what the
//! caller must have done before is in its documentation, because no type can say it.

#![expect(unsafe_code, reason = "the one place for it, see above")]

use std::io;

use nix::libc;
use wasmtime::{Engine, Module};

/// Whether a protection is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// From now on, and it cannot be taken back.
    Enforced,
    /// This kernel does not know it (Linux before 6.6, or another system).
    Unsupported,
}

/// Forbids this process memory that is writable and executable, and executable memory that was
/// ever writable. Processes it starts are free of it, so that workers can compile.
#[must_use]
pub fn forbid_writable_executable() -> Protection {
    let flags = libc::PR_MDWE_REFUSE_EXEC_GAIN | libc::PR_MDWE_NO_INHERIT;
    let none: libc::c_ulong = 0;
    // SAFETY: PR_SET_MDWE takes flags and three zeros, touches no memory of this process and
    // only restricts what later mmap and mprotect calls may ask for.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(flags),
            none,
            none,
            none,
        )
    };
    if answer == 0 {
        Protection::Enforced
    } else {
        Protection::Unsupported
    }
}

/// Maps a compiled module, machine code and all.
///
/// The bytes must be what [`wasmtime`] made in a worker of this node and the node has
/// authenticated since; the caller is a worker process that has given up every right it does not
/// need, so that code which is not what it should be can reach nothing but its own pipe.
pub(crate) fn deserialize(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: `deserialize` demands bytes that `Module::serialize` or `Engine::precompile_module`
    // made. The node got these from a worker that ran nothing but that function on the module,
    // stored them with an HMAC-SHA256 under a key that no worker knows, and verified it in full
    // before it sent them here over a pipe that nobody else holds. wasmtime itself checks that
    // they were made by the same version with the same settings.
    unsafe { Module::deserialize(engine, bytes) }
}

/// Ends this process now: no destructor runs, no other thread is waited for.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return. Nothing is lost: all that this
    // process owes anyone has been written to the pipe without buffering.
    unsafe { libc::_exit(status) }
}

/// Whether memory of this process may be both written and executed: for tests and logs.
///
/// # Errors
/// When the kernel does not know the question.
pub fn writable_executable_forbidden() -> io::Result<bool> {
    let none: libc::c_ulong = 0;
    // SAFETY: PR_GET_MDWE takes four zeros and only answers with its flags.
    let answer = unsafe { libc::prctl(libc::PR_GET_MDWE, none, none, none, none) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer != 0)
}

/// Calls that only an intruder makes, for the tests of what stops it.
#[cfg(test)]
pub(crate) mod tests {
    use super::libc;

    fn errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    /// Sends a signal to a thread of a process.
    pub(crate) fn tgkill(process: i32, thread: i32, signal: i32) -> Result<(), i32> {
        // SAFETY: tgkill takes three integers and touches no memory of this process.
        let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
        if answer == 0 { Ok(()) } else { Err(errno()) }
    }

    /// Maps shared anonymous memory, and gives it back.
    pub(crate) fn shared_memory(length: usize) -> Result<(), i32> {
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes; nothing is read or written through it, and
        // exactly it is unmapped.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), length, read, shared, -1, 0);
            if at == libc::MAP_FAILED {
                return Err(errno());
            }
            libc::munmap(at, length);
        }
        Ok(())
    }
}
