//! The process that compiles one module or runs one job, and then ends.
//!
//! It is this same program under a hidden command. It reads an order and its bytes from standard
//! input, answers on standard output, and knows nothing else: before it reads a byte it gives up
//! whatever it does not need (`harden`). One process serves one job, so nothing that a guest
//! broke, and no memory that a time-out left half-used, is ever met by the next.
//!
//! Threads: the main thread reads its input for ever, since the end of input means that the node
//! is gone; the *guest* thread compiles or runs; the *watch* thread advances the epoch and stops
//! what takes too long, also when the guest sits in a call of the host. Whoever has the last word
//! (`Teller::finish`) writes it and ends the process.
//!
//! # Invariants
//! - Exactly one report; nothing follows it.
//! - No guest byte is looked at before the process is hardened.

mod compile;
pub(crate) mod frame;
mod guest;
mod harden;
mod inspect;
mod orders;

use std::{
    io::{self, BufReader, Read},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) use orders::{CompileOrder, Mode, Order, RunOrder, WorkerReport};

use frame::{Frame, Kind};

use crate::sandbox::raw;

/// Exit code when the node is gone, or speaks another language.
const EXIT_ORPHAN: i32 = 70;

/// Where the process says things: frames, and at last one report.
#[derive(Debug, Clone)]
pub(crate) struct Teller(Arc<Mutex<io::Stdout>>);

impl Teller {
    /// Writes a frame. When the node is gone the process ends.
    pub(crate) fn tell(&self, kind: Kind, bytes: &[u8]) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frame::write(&mut *out, kind, bytes).is_err() {
            raw::exit_now(EXIT_ORPHAN);
        }
    }

    /// Writes the report and ends the process: nobody says anything afterwards.
    pub(crate) fn finish(&self, report: &WorkerReport) -> ! {
        let bytes = serde_json::to_vec(report).unwrap_or_default();
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = frame::write(&mut *out, Kind::Report, &bytes);
        raw::exit_now(if told.is_ok() { 0 } else { EXIT_ORPHAN });
    }
}

/// What the threads of the process share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) teller: Teller,
    /// The node asked to stop.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// The body of `sandbox-worker`.
#[must_use]
pub fn main() -> ExitCode {
    let shared = Shared {
        teller: Teller(Arc::new(Mutex::new(io::stdout()))),
        cancelled: Arc::default(),
    };
    // Made before the process may make no more threads of other kinds; see `guest`.
    let Ok(runtime) = guest::runtime() else {
        return ExitCode::from(70);
    };
    if let Err(error) = harden::harden() {
        shared
            .teller
            .tell(Kind::Failed, error.to_string().as_bytes());
        return ExitCode::from(70);
    }
    shared.teller.tell(Kind::Ready, &[]);
    let mut input = BufReader::with_capacity(frame::MAX_PAYLOAD, io::stdin().lock());
    let Ok(order) = read_order(&mut input) else {
        return ExitCode::from(70);
    };
    let for_guest = shared.clone();
    let work = std::thread::Builder::new()
        .name("guest".to_owned())
        .stack_size(order.stack())
        .spawn(move || match order {
            Order::Compile(order) => compile::compile(&order, &for_guest),
            Order::Run(order) => guest::run(*order, &for_guest, &runtime),
        });
    if work.is_err() {
        return ExitCode::from(70);
    }
    attend(&mut input, &shared)
}

/// Listens until the node is gone, which ends the process.
fn attend(input: &mut impl Read, shared: &Shared) -> ExitCode {
    loop {
        match frame::read(input) {
            Ok(Some(Frame {
                kind: Kind::Cancel, ..
            })) => shared.cancelled.store(true, Ordering::SeqCst),
            // Not a return: that would wait for nothing, but run destructors beside the guest.
            _ => raw::exit_now(EXIT_ORPHAN),
        }
    }
}

fn read_order(input: &mut impl Read) -> io::Result<Order> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = frame::read(input)?.ok_or_else(|| invalid("no order"))?;
    let mut order = match first.kind {
        Kind::Compile => Order::Compile(serde_json::from_slice(&first.bytes)?),
        Kind::Run => Order::Run(Box::new(serde_json::from_slice(&first.bytes)?)),
        _ => return Err(invalid("not an order")),
    };
    loop {
        let next = frame::read(input)?.ok_or_else(|| invalid("cut short"))?;
        match (next.kind, &mut order) {
            (Kind::Module, Order::Compile(order)) => order.module.extend(next.bytes),
            (Kind::Module, Order::Run(order)) => order.compiled.extend(next.bytes),
            (Kind::Input, Order::Run(order)) => order.input.extend(next.bytes),
            (Kind::Go, _) => return Ok(order),
            _ => return Err(invalid("out of order")),
        }
    }
}
