//! One job: the guest, what it may touch, and how its end is named.

use tokio_util::bytes::Bytes;
use wasmtime::{
    AsContextMut, Caller, Engine, Extern, Linker, Module, ResourceLimiter, Store, Trap,
};
use wasmtime_wasi::{
    WasiCtxBuilder, WasiView, async_trait,
    cli::{IsTerminal, StdoutStream},
    p1::{self, WasiP1Ctx},
    p2::{OutputStream, Pollable, StreamError, StreamResult, pipe::MemoryInputPipe},
};

use super::{
    inspect::{ENTRY, WASI},
    protocol::{Mode, RunOrder},
    virtual_world::{self, SeededRng, VirtualClock},
    voice::{Refusal, Voice},
};
use crate::sandbox::{CancelledBy, JobFault, LimitName, Limits, MAX_CHUNK, Outcome, Stream, raw};

/// Most random bytes of one call; wasi-libc asks for 256 at most.
const MAX_RANDOM: u64 = 1 << 20;
/// Most bytes one host call may copy out of the guest: below the ceiling of its memory, so that
/// host and guest together stay below twice that.
const HOSTCALL_FUEL: usize = 128 << 20;
/// Handles of one guest at the same time: three streams, and one for each thing `poll_oneoff`
/// waits for.
const MAX_HANDLES: usize = 4_096;

/// A guest's end that is neither a return nor a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ending {
    /// `proc_exit`
    #[error("the guest exited with {0}")]
    Exit(u32),
    /// A limit.
    #[error("stopped by limit {0}")]
    Limit(LimitName),
    /// The machine has no memory for what the limits allow.
    #[error("this machine is out of memory")]
    Machine,
    /// The node is gone.
    #[error("nobody listens")]
    Gone,
}

/// What the store carries.
pub(crate) struct Host {
    wasi: WasiP1Ctx,
    clock: VirtualClock,
    ceiling: Ceiling,
}

/// Everything of an engine that does not depend on the job.
pub(crate) struct Bench {
    pub(crate) mode: Mode,
    pub(crate) engine: Engine,
    pub(crate) stack: u64,
    linker: Linker<Host>,
}

impl Bench {
    /// An engine of this mode with the host's functions.
    pub(crate) fn new(mode: Mode, stack: u64) -> wasmtime::Result<Self> {
        let size = usize::try_from(stack).unwrap_or(usize::MAX);
        let engine = super::engine::engine(mode, size)?;
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |host: &mut Host| &mut host.wasi)?;
        linker.allow_shadowing(true);
        // WASI's own refuses statuses above 125, which real programs use.
        linker.func_wrap(WASI, "proc_exit", |status: u32| -> wasmtime::Result<()> {
            Err(Ending::Exit(status).into())
        })?;
        if mode == Mode::Deterministic {
            linker.func_wrap(WASI, "poll_oneoff", virtual_poll)?;
        }
        Ok(Self {
            mode,
            engine,
            stack,
            linker,
        })
    }
}

fn virtual_poll(mut caller: Caller<'_, Host>, a: u32, b: u32, c: u32, d: u32) -> i32 {
    /// The guest's memory is not where WASI wants it.
    const NO_MEMORY: i32 = 21;
    let Some(memory) = caller.get_export("memory").and_then(Extern::into_memory) else {
        return NO_MEMORY;
    };
    let (bytes, host) = memory.data_and_store_mut(caller.as_context_mut());
    virtual_world::poll_oneoff(bytes, &host.clock, [a, b, c, d])
}

/// Runs the guest and says how it ended.
pub(crate) fn run(
    bench: &Bench,
    order: &RunOrder,
    artifact: Vec<u8>,
    input: Vec<u8>,
    voice: &Voice,
) -> ! {
    let executor = || Outcome::Failed {
        fault: JobFault::Executor,
    };
    let Ok(module) = raw::deserialize(&bench.engine, &artifact) else {
        voice.end_stale(executor());
    };
    // The module has its own copy.
    drop(artifact);
    let fuel = order.limits.fuel.unwrap_or(u64::MAX);
    let mut store = store(bench, order, input, voice);
    let prepared = match bench.mode {
        Mode::Plain => Ok(()),
        Mode::Fuel | Mode::Deterministic => store.set_fuel(fuel),
    };
    if prepared.is_err() || voice.start(order.limits.output).is_err() {
        voice.end(executor(), None);
    }
    let outcome = call(bench, &module, &mut store);
    let used = store.get_fuel().ok().map(|left| fuel.saturating_sub(left));
    voice.end(outcome, used)
}

fn store(bench: &Bench, order: &RunOrder, input: Vec<u8>, voice: &Voice) -> Store<Host> {
    let clock = VirtualClock::default();
    let mut builder = WasiCtxBuilder::new();
    builder
        .args(&order.arguments)
        .envs(&order.environment)
        .stdin(MemoryInputPipe::new(input))
        .stdout(Pipe::new(Stream::Stdout, voice))
        .stderr(Pipe::new(Stream::Stderr, voice))
        // Nothing else runs here: a guest that sleeps may have its thread.
        .allow_blocking_current_thread(true)
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(MAX_RANDOM);
    if bench.mode == Mode::Deterministic {
        builder
            .wall_clock(clock.clone())
            .monotonic_clock(clock.clone())
            .secure_random(SeededRng::new(order.seed))
            .insecure_random(SeededRng::new(order.seed))
            .insecure_random_seed(u128::from(order.seed));
    }
    let mut wasi = builder.build_p1();
    wasi.ctx().table.set_max_capacity(MAX_HANDLES);
    let host = Host {
        wasi,
        clock,
        ceiling: Ceiling::new(&order.limits, voice.clone()),
    };
    let mut store = Store::new(&bench.engine, host);
    store.limiter(|host| &mut host.ceiling);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store
}

fn call(bench: &Bench, module: &Module, store: &mut Store<Host>) -> Outcome {
    let failed = |fault| Outcome::Failed { fault };
    // A wrong type of an import, or of the entry.
    let Ok(prepared) = bench.linker.instantiate_pre(module) else {
        return failed(JobFault::Link);
    };
    let instance = match prepared.instantiate(&mut *store) {
        Ok(instance) => instance,
        Err(error) => return name(&error).unwrap_or_else(|| failed(JobFault::Executor)),
    };
    let Ok(entry) = instance.get_typed_func::<(), ()>(&mut *store, ENTRY) else {
        return failed(JobFault::Link);
    };
    match entry.call(store, ()) {
        Ok(()) => Outcome::Exited { status: 0 },
        // The host's functions trap when the guest breaks their rules.
        Err(error) => name(&error).unwrap_or_else(|| Outcome::Trapped {
            trap: "host_call".to_owned(),
        }),
    }
}

/// The name of an error that the guest caused.
fn name(error: &wasmtime::Error) -> Option<Outcome> {
    if let Some(ending) = error.downcast_ref::<Ending>() {
        return Some(match *ending {
            Ending::Exit(status) => Outcome::Exited { status },
            Ending::Limit(limit) => Outcome::Stopped { limit },
            Ending::Machine => Outcome::Failed {
                fault: JobFault::Executor,
            },
            Ending::Gone => Outcome::Cancelled {
                by: CancelledBy::Submitter,
            },
        });
    }
    let trap = error.downcast_ref::<Trap>()?;
    Some(match trap {
        Trap::StackOverflow => Outcome::Stopped {
            limit: LimitName::Stack,
        },
        Trap::OutOfFuel => Outcome::Stopped {
            limit: LimitName::Fuel,
        },
        Trap::UnreachableCodeReached => Outcome::Trapped {
            trap: "unreachable".to_owned(),
        },
        other => Outcome::Trapped {
            trap: snake_case(&format!("{other:?}")),
        },
    })
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Memory and tables.
struct Ceiling {
    memory: u64,
    table: u64,
    elements: u64,
    /// The growth in progress is one that the module itself rules out.
    beyond_own_maximum: bool,
    voice: Voice,
}

impl Ceiling {
    fn new(limits: &Limits, voice: Voice) -> Self {
        Self {
            memory: limits.memory,
            table: limits.table,
            elements: 0,
            beyond_own_maximum: false,
            voice,
        }
    }

    /// Whether the module's own maximum already rules this out: then the instruction fails, as
    /// the specification says.
    fn ruled_out(&mut self, desired: usize, maximum: Option<usize>) -> bool {
        self.beyond_own_maximum = maximum.is_some_and(|maximum| desired > maximum);
        self.beyond_own_maximum
    }

    /// The system has no memory although the limits allow it: nothing a guest should see,
    /// because it would run differently elsewhere.
    fn refused_by_machine(&self) -> wasmtime::Result<()> {
        if self.beyond_own_maximum {
            return Ok(());
        }
        Err(Ending::Machine.into())
    }
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if self.ruled_out(desired, maximum) {
            return Ok(false);
        }
        let desired = u64::try_from(desired)?;
        if desired > self.memory {
            return Err(Ending::Limit(LimitName::Memory).into());
        }
        self.voice.memory(desired);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_by_machine()
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if self.ruled_out(desired, maximum) {
            return Ok(false);
        }
        let more = u64::try_from(desired.saturating_sub(current))?;
        let elements = self.elements.saturating_add(more);
        if elements > self.table {
            return Err(Ending::Limit(LimitName::Table).into());
        }
        self.elements = elements;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_by_machine()
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }
}

/// A guest's stdout or stderr.
#[derive(Clone)]
struct Pipe {
    stream: Stream,
    voice: Voice,
}

impl Pipe {
    fn new(stream: Stream, voice: &Voice) -> Self {
        Self {
            stream,
            voice: voice.clone(),
        }
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 1 asks for `p2_stream` alone.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.voice.output(self.stream, &bytes).map_err(|refusal| {
            StreamError::Trap(match refusal {
                Refusal::Limit => Ending::Limit(LimitName::Output).into(),
                Refusal::Gone => Ending::Gone.into(),
            })
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_have_stable_names() {
        let named = |trap: Trap| name(&wasmtime::Error::from(trap));
        let trapped = |text: &str| {
            Some(Outcome::Trapped {
                trap: text.to_owned(),
            })
        };
        assert_eq!(named(Trap::UnreachableCodeReached), trapped("unreachable"));
        assert_eq!(
            named(Trap::IntegerDivisionByZero),
            trapped("integer_division_by_zero")
        );
        assert_eq!(
            named(Trap::StackOverflow),
            Some(Outcome::Stopped {
                limit: LimitName::Stack
            })
        );
    }
}
