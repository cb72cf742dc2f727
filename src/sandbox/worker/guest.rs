//! Running: WASI preview 1 without files, sockets or anything of the host's environment.

mod clocks;
mod output;
mod store;

use std::{sync::atomic::Ordering, time::Duration};

use nix::sys::resource::{UsageWho, getrusage};
use tokio::runtime::Runtime;
use wasmtime::{Engine, Linker, Module, Store, Trap, UpdateDeadline};
use wasmtime_wasi::{WasiCtxBuilder, p2::pipe::MemoryInputPipe};

use super::{
    RunOrder, Shared, WorkerReport,
    compile::{TICK, engine, used},
    orders::Mode,
};
use crate::{
    sandbox::{CancelledBy, JobFault, LimitName, Limits, Outcome, Stream, Usage, raw},
    types::{Clock, SystemClock},
};
use output::{Counter, GuestOutput};
use store::{Ceiling, Guest, Peak};

/// Most random bytes of one call.
const MAX_RANDOM: u64 = 64 << 10;

/// A limit that was reached, or the node's wish, on its way out of the guest.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Stop {
    #[error("limit {0}")]
    Limit(LimitName),
    #[error("cancelled")]
    Cancelled,
}

/// The runtime that the guest's timers need, with its one thread made before the process is
/// hardened.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_time()
        .build()
}

/// What the report is made from, wherever the end comes from.
#[derive(Debug, Clone)]
struct Meter {
    clock: SystemClock,
    counter: Counter,
    peak: Peak,
}

impl Meter {
    fn report(&self, outcome: Outcome, fuel: Option<u64>) -> WorkerReport {
        let (stdout, stderr) = self.counter.written();
        WorkerReport {
            outcome: Some(outcome),
            usage: Usage {
                wall_ms: u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX),
                cpu_us: used().0,
                fuel,
                memory_peak: self.peak.get(),
                stdout,
                stderr,
            },
            stale: false,
        }
    }
}

/// Runs, tells the result, and ends the process.
pub(super) fn run(order: RunOrder, shared: &Shared, runtime: &Runtime) {
    // What the guest's calls wait for is driven by the runtime's own thread.
    let _entered = runtime.enter();
    let loaded = engine(order.mode, order.limits.stack)
        .and_then(|engine| Ok((raw::deserialize(&engine, &order.compiled)?, engine)));
    let Ok((module, engine)) = loaded else {
        shared.teller.finish(&WorkerReport {
            outcome: None,
            usage: Usage::default(),
            stale: true,
        });
    };
    let meter = Meter {
        clock: SystemClock::new(),
        counter: Counter::new(order.limits.output),
        peak: Peak::default(),
    };
    watch(&engine, order.limits, &meter, shared);
    let limits = order.limits;
    let mut store = match prepare(&engine, order, &meter, shared) {
        Ok(store) => store,
        Err(error) => {
            let outcome = outcome_of(Err(error));
            shared.teller.finish(&meter.report(outcome, None));
        }
    };
    let result = start(&engine, &module, &mut store);
    let fuel = limits.fuel.and_then(|granted| {
        let left = store.get_fuel().ok()?;
        Some(granted.saturating_sub(left))
    });
    shared
        .teller
        .finish(&meter.report(outcome_of(result), fuel));
}

fn prepare(
    engine: &Engine,
    order: RunOrder,
    meter: &Meter,
    shared: &Shared,
) -> wasmtime::Result<Store<Guest>> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&order.arguments)
        .envs(&order.environment)
        .stdin(MemoryInputPipe::new(order.input))
        .stdout(GuestOutput::new(
            Stream::Stdout,
            &meter.counter,
            &shared.teller,
        ))
        .stderr(GuestOutput::new(
            Stream::Stderr,
            &meter.counter,
            &shared.teller,
        ))
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    let steps = (order.mode == Mode::Deterministic).then(clocks::Steps::default);
    if let Some(steps) = &steps {
        clocks::make_deterministic(&mut wasi, steps, order.seed);
    }
    let guest = Guest {
        wasi: wasi.build_p1(),
        ceiling: Ceiling::new(order.limits, meter.peak.clone()),
        steps,
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.ceiling);
    if let Some(fuel) = order.limits.fuel {
        store.set_fuel(fuel)?;
    }
    let most = Duration::from_millis(order.limits.cpu_time_ms);
    let cancelled = shared.cancelled.clone();
    // At each tick, on the guest's own thread: its processor time is this thread's.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if cancelled.load(Ordering::SeqCst) {
            return Err(Stop::Cancelled.into());
        }
        if thread_time() >= most {
            return Err(Stop::Limit(LimitName::CpuTime).into());
        }
        Ok(UpdateDeadline::Continue(1))
    });
    Ok(store)
}

fn start(
    engine: &Engine,
    module: &Module,
    store: &mut Store<Guest>,
) -> Result<(), wasmtime::Error> {
    let mut linker: Linker<Guest> = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |guest| &mut guest.wasi)?;
    own_exit(&mut linker)?;
    if store.data().steps.is_some() {
        clocks::sleep_without_waiting(&mut linker)?;
    }
    linker
        .instantiate_pre(module)
        .map_err(|error| error.context(Unlinkable))?
        .instantiate(&mut *store)?
        .get_typed_func::<(), ()>(&mut *store, "_start")
        .map_err(|error| error.context(Unlinkable))?
        .call(store, ())
}

/// WASI's exit statuses are any 32 bits; wasmtime's own `proc_exit` traps above 125.
fn own_exit(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |status: u32| -> wasmtime::Result<()> { Err(GuestExit(status).into()) },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The guest's last word.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("exit status {0}")]
struct GuestExit(u32);

/// Imports or exports do not fit.
#[derive(Debug, thiserror::Error)]
#[error("the module does not fit WASI preview 1")]
struct Unlinkable;

fn outcome_of(result: Result<(), wasmtime::Error>) -> Outcome {
    let Err(error) = result else {
        return Outcome::Exited { status: 0 };
    };
    if let Some(GuestExit(status)) = error.downcast_ref() {
        return Outcome::Exited { status: *status };
    }
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Limit(limit) => Outcome::Stopped { limit: *limit },
            Stop::Cancelled => Outcome::Cancelled {
                by: CancelledBy::Submitter,
            },
        };
    }
    if error.downcast_ref::<Unlinkable>().is_some() {
        return Outcome::Failed {
            fault: JobFault::Link,
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Outcome::Stopped {
            limit: LimitName::Stack,
        },
        Some(Trap::OutOfFuel) => Outcome::Stopped {
            limit: LimitName::Fuel,
        },
        Some(trap) => Outcome::Trapped {
            trap: trap_name(*trap).to_owned(),
        },
        // A call of the host that failed in a way no guest may go on from.
        None => Outcome::Trapped {
            trap: "host_call".to_owned(),
        },
    }
}

fn trap_name(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "unreachable",
        Trap::MemoryOutOfBounds => "memory_out_of_bounds",
        Trap::TableOutOfBounds => "table_out_of_bounds",
        Trap::IndirectCallToNull => "indirect_call_to_null",
        Trap::BadSignature => "indirect_call_type_mismatch",
        Trap::IntegerOverflow => "integer_overflow",
        Trap::IntegerDivisionByZero => "integer_division_by_zero",
        Trap::BadConversionToInteger => "invalid_conversion_to_integer",
        _ => "other",
    }
}

fn thread_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else {
        return Duration::MAX;
    };
    let span = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
        Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros))
    };
    span(usage.user_time()).saturating_add(span(usage.system_time()))
}

/// Advances the epoch, and ends the process when the time on the wall is over or the node said
/// so: also while the guest sits in a call of the host, which no epoch interrupts.
fn watch(engine: &Engine, limits: Limits, meter: &Meter, shared: &Shared) {
    /// Ticks that a cancelled guest has to end by itself, so that its fuel can be told.
    const GRACE: u32 = 5;
    let (engine, meter, shared) = (engine.clone(), meter.clone(), shared.clone());
    let wall = limits.wall_clock();
    std::thread::spawn(move || {
        let mut cancelled = 0_u32;
        loop {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            if shared.cancelled.load(Ordering::SeqCst) {
                cancelled = cancelled.saturating_add(1);
            }
            let outcome = if meter.clock.elapsed() >= wall {
                Outcome::Stopped {
                    limit: LimitName::WallClock,
                }
            } else if cancelled > GRACE {
                Outcome::Cancelled {
                    by: CancelledBy::Submitter,
                }
            } else {
                continue;
            };
            shared.teller.finish(&meter.report(outcome, None));
        }
    });
}
