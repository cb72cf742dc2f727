//! Compiling: a look first, then the compiler, watched from outside its thread.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use wasmtime::{Config, Engine, OptLevel, Precompiled};

use super::{CompileOrder, Mode, Shared, WorkerReport, frame, frame::Kind, inspect};
use crate::{
    sandbox::{JobFault, LimitName, Outcome, Usage},
    types::{Clock, SystemClock},
};

/// How often the watch looks.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The engine of a mode. What compiles and what runs must agree in all of it.
pub(super) fn engine(mode: Mode, max_stack: u64) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(usize::try_from(max_stack).unwrap_or(usize::MAX))
        .async_stack_size(
            usize::try_from(max_stack)
                .unwrap_or(usize::MAX)
                .saturating_mul(2),
        )
        .epoch_interruption(true)
        .consume_fuel(mode != Mode::Epoch)
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false)
        .memory_init_cow(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .wasm_component_model(false);
    if mode == Mode::Deterministic {
        config
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true);
    }
    Engine::new(&config)
}

/// Processor time of the whole process, and its largest memory in bytes.
pub(super) fn used() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return (0, 0);
    };
    let micros = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        let rest = u64::try_from(time.tv_usec()).unwrap_or_default();
        seconds.saturating_mul(1_000_000).saturating_add(rest)
    };
    let cpu = micros(usage.user_time()).saturating_add(micros(usage.system_time()));
    let memory = u64::try_from(usage.max_rss()).unwrap_or_default();
    (cpu, memory.saturating_mul(1024))
}

fn report(outcome: Option<Outcome>) -> WorkerReport {
    WorkerReport {
        outcome,
        usage: Usage {
            cpu_us: used().0,
            ..Usage::default()
        },
        stale: false,
    }
}

/// Compiles, tells the result, and ends the process.
pub(super) fn compile(order: &CompileOrder, shared: &Shared) {
    watch(order, shared);
    let bounds = inspect::Bounds {
        functions: order.max_functions,
        nesting: order.max_nesting,
    };
    if let Err(outcome) = inspect::inspect(&order.module, bounds) {
        shared.teller.finish(&report(Some(outcome)));
    }
    let compiled = engine(order.mode, order.max_stack)
        .and_then(|engine| engine.precompile_module(&order.module));
    match compiled {
        Ok(bytes) if Engine::detect_precompiled(&bytes) == Some(Precompiled::Module) => {
            for piece in bytes.chunks(frame::MAX_PAYLOAD) {
                shared.teller.tell(Kind::Compiled, piece);
            }
            shared.teller.finish(&report(None));
        }
        _ => shared.teller.finish(&report(Some(Outcome::Failed {
            fault: JobFault::InvalidModule,
        }))),
    }
}

/// Ends the process when compiling takes too much.
fn watch(order: &CompileOrder, shared: &Shared) {
    // What the program itself and the module take is not the compiler's.
    let most = used().1.saturating_add(order.max_memory);
    let time = Duration::from_millis(order.max_time_ms);
    let shared = shared.clone();
    std::thread::spawn(move || {
        let clock = SystemClock::new();
        loop {
            let limit = if used().1 > most {
                LimitName::CompileMemory
            } else if clock.elapsed() >= time {
                LimitName::CompileTime
            } else {
                std::thread::sleep(TICK);
                continue;
            };
            shared
                .teller
                .finish(&report(Some(Outcome::Stopped { limit })));
        }
    });
}
