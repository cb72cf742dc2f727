//! The worker process: runs one compilation or one job for the node that started it, and ends.
//!
//! Owner: nobody but its own stdin. When that closes (the node is gone, however it went) the
//! process exits at once. Threads: *main* reads the order and then waits for a cancellation or
//! the end of stdin; the *work* thread meets the guest's bytes; the *ticker* sends
//! collected output, and ends the process when time or memory is used up, also when the guest
//! sits in a host call. All three run, and every protection of `hardening` is in force,
//! before the first byte of a guest is read. Nothing here is reused: the end of the work is the
//! end of the process.

mod compile;
mod engine;
mod guest;
mod hardening;
mod inspect;
pub(crate) mod protocol;
mod ticker;
mod virtual_world;
mod voice;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use thiserror::Error;
use tokio::runtime::Handle;
use wasmtime::Engine;

use self::{
    engine::HOST_STACK,
    guest::Bench,
    hardening::{Ceilings, Filters, HardeningError},
    protocol::{CompileOrder, FromWorker, Mode, Order, Ready, RunOrder, Setup},
    ticker::Watch,
    voice::Voice,
};
use crate::sandbox::{CancelledBy, JobFault, Outcome, raw};

/// Stack of the thread that compiles: the compiler recurses a little, over trees it builds.
const COMPILE_STACK: usize = 16 << 20;
/// Memory of a worker beside the guest's and the compiled module: the program itself, stacks,
/// the allocator's reserve. The kernel's ceiling is above our own limits by this much.
const PROCESS_MEMORY: u64 = 512 << 20;
/// Seconds of processor time the kernel grants beyond our own limits, for starting and rounding.
const PROCESS_SECONDS: u64 = 3;

/// Why a worker does not work.
#[derive(Debug, Error)]
enum WorkerError {
    #[error("the pipe: {0}")]
    Pipe(#[from] io::Error),
    #[error(transparent)]
    Hardening(#[from] HardeningError),
    #[error("no engine: {0}")]
    Engine(wasmtime::Error),
}

impl From<wasmtime::Error> for WorkerError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

/// The whole process: serves one order from stdin, answers on stdout.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(pipe) = io::stdout().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let voice = Voice::new(File::from(pipe));
    let Err(error) = serve(&voice);
    if !matches!(error, WorkerError::Pipe(_)) {
        // When the node does not listen there is nobody to tell.
        let _ = voice.say(&FromWorker::Refused(error.to_string()));
    }
    ExitCode::FAILURE
}

fn serve(voice: &Voice) -> Result<std::convert::Infallible, WorkerError> {
    let mut stdin = io::stdin().lock();
    let setup = protocol::hear_setup(&mut stdin)?;
    hardening::early()?;
    let filters = Filters::compile()?;
    if setup.probe {
        probe(&setup, &filters, voice)?;
    }
    let bench = Bench::new(Mode::Plain, setup.stack)?;
    let ready = Ready { fingerprints: None };
    voice.say(&FromWorker::Ready(ready))?;
    let order = protocol::hear_order(&mut stdin)?;
    voice.count_from_here();
    match order {
        Order::Run(order) => serve_run(&mut stdin, order, bench, &filters, voice),
        Order::Compile(order) => serve_compile(&mut stdin, order, &bench, &filters, voice),
    }
}

/// Shows that this process can protect itself, and says what compiled modules depend on.
fn probe(setup: &Setup, filters: &Filters, voice: &Voice) -> Result<(), WorkerError> {
    let stack = usize::try_from(setup.stack).unwrap_or(usize::MAX);
    let of = |mode| engine::engine(mode, stack).map(|engine| engine::fingerprint(&engine, mode));
    let [plain, fuel, deterministic] = Mode::ALL;
    let fingerprints = Some([of(plain)?, of(fuel)?, of(deterministic)?]);
    let ceilings = Ceilings {
        data: PROCESS_MEMORY,
        cpu_seconds: PROCESS_SECONDS,
    };
    hardening::late(&ceilings, filters)?;
    voice.say(&FromWorker::Ready(Ready { fingerprints }))?;
    raw::exit_now(0)
}

fn serve_run(
    stdin: &mut impl Read,
    order: RunOrder,
    bench: Bench,
    filters: &Filters,
    voice: &Voice,
) -> Result<std::convert::Infallible, WorkerError> {
    let bench = if (bench.mode, bench.stack) == (order.mode, order.limits.stack) {
        bench
    } else {
        Bench::new(order.mode, order.limits.stack)?
    };
    let limits = order.limits;
    let ceilings = Ceilings {
        data: limits
            .memory
            .saturating_add(order.artifact_len.saturating_mul(2))
            .saturating_add(order.input_len.saturating_mul(2))
            .saturating_add(PROCESS_MEMORY),
        cpu_seconds: limits.cpu_time().as_secs().saturating_add(PROCESS_SECONDS),
    };
    let (lengths, watch) = ((order.artifact_len, order.input_len), Watch::guest(&limits));
    let stack = usize::try_from(limits.stack).unwrap_or(usize::MAX);
    let timers = ticker::spawn(voice.clone(), watch)?;
    let work = spawn(
        stack.saturating_add(HOST_STACK),
        voice,
        timers,
        move |(artifact, input): (Vec<u8>, Vec<u8>), voice| {
            guest::run(&bench, &order, artifact, input, voice)
        },
    )?;
    hardening::late(&ceilings, filters)?;
    let artifact = protocol::hear_bytes(stdin, lengths.0)?;
    let input = protocol::hear_bytes(stdin, lengths.1)?;
    work.send((artifact, input)).map_err(io::Error::other)?;
    wait_for_cancellation(stdin, voice)
}

fn serve_compile(
    stdin: &mut impl Read,
    order: CompileOrder,
    bench: &Bench,
    filters: &Filters,
    voice: &Voice,
) -> Result<std::convert::Infallible, WorkerError> {
    let engine: Engine = if bench.mode == order.mode {
        bench.engine.clone()
    } else {
        let stack = usize::try_from(bench.stack).unwrap_or(usize::MAX);
        engine::engine(order.mode, stack)?
    };
    let ceilings = Ceilings {
        data: order.memory.saturating_add(PROCESS_MEMORY),
        cpu_seconds: (order.time_ms / 1_000).saturating_add(PROCESS_SECONDS),
    };
    let timers = ticker::spawn(voice.clone(), Watch::compiler(&order))?;
    let work = spawn(
        COMPILE_STACK,
        voice,
        timers,
        move |module: Vec<u8>, voice| compile::run(&engine, &order, &module, voice),
    )?;
    hardening::late(&ceilings, filters)?;
    let module = protocol::hear_bytes(stdin, order.module_len)?;
    work.send(module).map_err(io::Error::other)?;
    wait_for_cancellation(stdin, voice)
}

/// Waits for a new thread to run. What the C library does at its start (rseq, robust futexes, the
/// signal stack) is not among the calls that are allowed later.
fn wait_for(is_up: &Receiver<()>) -> io::Result<()> {
    is_up.recv().map_err(io::Error::other)
}

/// The thread that meets the guest. It waits for its bytes, and never returns.
fn spawn<T: Send + 'static>(
    stack: usize,
    voice: &Voice,
    timers: Handle,
    work: impl FnOnce(T, &Voice) -> std::convert::Infallible + Send + 'static,
) -> io::Result<SyncSender<T>> {
    // One message, ever.
    let (sender, receiver): (_, Receiver<T>) = sync_channel(1);
    let (up, is_up) = sync_channel(1);
    let voice = voice.clone();
    thread::Builder::new()
        .name("work".into())
        .stack_size(stack)
        .spawn(move || {
            let _ = up.send(());
            let Ok(bytes) = receiver.recv() else {
                raw::exit_now(1);
            };
            let _timers = timers.enter();
            let done = panic::catch_unwind(AssertUnwindSafe(|| work(bytes, &voice)));
            let Err(_) = done;
            voice.end(
                Outcome::Failed {
                    fault: JobFault::Executor,
                },
                None,
            );
        })?;
    wait_for(&is_up)?;
    Ok(sender)
}

/// Main's last duty.
fn wait_for_cancellation(
    stdin: &mut impl Read,
    voice: &Voice,
) -> Result<std::convert::Infallible, WorkerError> {
    match protocol::hear_cancel(stdin) {
        Ok(()) => voice.end(
            Outcome::Cancelled {
                by: CancelledBy::Submitter,
            },
            None,
        ),
        // The node is gone: nobody is owed a word.
        Err(_) => raw::exit_now(1),
    }
}
