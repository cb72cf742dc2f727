//! The only `unsafe` code of this program: two calls that have no safe form.
#![expect(
    unsafe_code,
    reason = "mapping authenticated machine code, and one prctl without a safe wrapper"
)]

use std::io;

use wasmtime::{Engine, Module};

/// Takes compiled code for what it is.
///
/// Only bytes that this node compiled may come here. They were authenticated by it (HMAC-SHA256
/// over the whole file, `sandbox::cache`) before they were sent to this process.
pub(super) fn deserialize(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: `compiled` is the unchanged output of `Engine::precompile_module` of a worker of
    // this node: the node verified the code's message authentication code, under a key that only
    // it has, before it sent them over a pipe that only it writes to. Wasmtime itself refuses
    // bytes of another version, configuration or machine.
    unsafe { Module::deserialize(engine, compiled) }
}

/// `PR_SET_MDWE` of prctl(2).
pub(super) fn memory_deny_write_execute() -> io::Result<()> {
    let flags = libc::PR_MDWE_REFUSE_EXEC_GAIN | libc::PR_MDWE_NO_INHERIT;
    let (flags, none): (libc::c_ulong, libc::c_ulong) = (flags.into(), 0);
    // SAFETY: prctl with integer arguments alone: it reads and writes no memory of this process,
    // and what it changes (no page may become executable that was writable) breaks no promise
    // that safe code relies on.
    let done = unsafe { libc::prctl(libc::PR_SET_MDWE, flags, none, none, none) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
