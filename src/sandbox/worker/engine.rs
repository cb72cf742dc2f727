//! How guests are compiled and run: the one place that configures wasmtime.
//!
//! Every engine here is a pure function of mode and stack size, so that a compiled module fits
//! every worker of the same program. WebAssembly proposals are off unless compilers in wide use
//! emit them: each one more is more compiler that hostile bytes reach.

use std::hash::{Hash, Hasher};

use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, WasmBacktraceDetails};

use super::protocol::Mode;
use crate::sandbox::{ContentHash, hash};

/// Room above the guest's stack on the same thread, for the host functions it calls. 1 MiB in a
/// release build is ample (a few KiB are used); unoptimised code needs more.
pub(crate) const HOST_STACK: usize = 2 << 20;

/// The engine of a mode.
///
/// # Errors
/// When this machine has no compiler back end.
pub(crate) fn engine(mode: Mode, stack: usize) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    features(&mut config);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(stack)
        // Never used, but wasmtime demands that it is not the smaller one.
        .async_stack_size(stack.saturating_add(HOST_STACK))
        // Copy-on-write images need memfd_create, which no worker may call.
        .memory_init_cow(false)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .generate_address_map(false);
    match mode {
        Mode::Plain => &mut config,
        Mode::Fuel => config.consume_fuel(true),
        Mode::Deterministic => config
            .consume_fuel(true)
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true),
    };
    Engine::new(&config)
}

/// What a guest may be written in.
fn features(config: &mut Config) {
    // Emitted by default by today's clang, rustc and Go; no objects of the host's.
    let emitted = WasmFeatures::WASM2
        .union(WasmFeatures::EXTENDED_CONST)
        .union(WasmFeatures::BULK_MEMORY_OPT)
        .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
        .difference(WasmFeatures::GC_TYPES);
    // Asked for by those who want them, and without state.
    let asked_for = WasmFeatures::TAIL_CALL.union(WasmFeatures::RELAXED_SIMD);
    // All else is off: one memory of 32 bits, one thread, no exceptions, no components.
    let allowed = emitted.union(asked_for);
    config
        .wasm_features(WasmFeatures::all().difference(allowed), false)
        .wasm_features(allowed, true);
}

/// What a compiled module depends on besides the module: wasmtime's version, its settings, the
/// processor's features.
pub(crate) fn fingerprint(engine: &Engine, mode: Mode) -> ContentHash {
    let mut digest = Digest(hash::Hasher::default());
    digest.write(b"quantraband compiled module 1\0");
    digest.write(mode.name().as_bytes());
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.0.finish()
}

/// Feeds SHA-256 with what wasmtime wants compared.
struct Digest(hash::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0.finish().0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_modes_apart_and_ignore_the_stack() {
        let of = |mode, stack| fingerprint(&engine(mode, stack).unwrap(), mode);
        assert_eq!(of(Mode::Plain, 1 << 20), of(Mode::Plain, 1 << 16));
        assert_ne!(of(Mode::Plain, 1 << 20), of(Mode::Fuel, 1 << 20));
        assert_ne!(of(Mode::Fuel, 1 << 20), of(Mode::Deterministic, 1 << 20));
    }
}
