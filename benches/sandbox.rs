//! Jobs in worker processes beside bare wasmtime in this process.
//!
//! Both sides run in turns in the same run, so that a busy machine slows both alike; medians and
//! ratios are the result. `cargo bench --bench sandbox`, about a minute.
//!
//! The guest's part is measured by the guest itself, with its monotonic clock around its loop, so
//! that starting and talking to a process do not hide in it, nor it in them.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures with the machine's clock, and may stop at the first \
              surprise"
)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use quantraband::{
    config::SandboxConfig,
    sandbox::{ContentHash, Limits, Outcome, Pool, PoolSetup, Task},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::MemoryOutputPipe,
};
use zeroize::Zeroizing;

/// Turns of the comparison.
const ROUNDS: usize = 60;
/// Modules compiled for the first time.
const MODULES: usize = 20;
/// Jobs for the saturated pool.
const JOBS: usize = 400;

/// Writes the eight bytes at 1024 to stdout.
const WRITE: &str = r#"
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 8))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"#;

/// A guest with this body; `salt` makes it a module of its own.
fn guest(body: &str, salt: usize) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $time (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 2048) "{salt}")
        (func $now (result i64)
            (drop (call $time (i32.const 1) (i64.const 1) (i32.const 16)))
            (i64.load (i32.const 16)))
        (func (export "_start") (local $i i32) (local $x i64) (local $start i64)
            {body} {WRITE}))"#
    ))
    .unwrap()
}

/// A million iterations of dependent arithmetic; tells how many nanoseconds they took.
fn counting() -> Vec<u8> {
    guest(
        r"(local.set $x (call $now))
        (local.set $start (call $now))
        (loop
            (local.set $x (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005))
                (i64.const 1442695040888963407)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000000))))
        (i64.store (i32.const 1032) (local.get $x))
        (i64.store (i32.const 1024) (i64.sub (call $now) (local.get $start)))",
        0,
    )
}

/// wasmtime as it comes.
struct Bare {
    engine: Engine,
    linker: Linker<WasiP1Ctx>,
}

impl Bare {
    fn new() -> Self {
        let engine = Engine::default();
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi).unwrap();
        Self { engine, linker }
    }

    fn compile(&self, module: &[u8]) -> Module {
        Module::new(&self.engine, module).unwrap()
    }

    fn run(&self, module: &Module) -> Vec<u8> {
        let stdout = MemoryOutputPipe::new(1024);
        let wasi = WasiCtxBuilder::new().stdout(stdout.clone()).build_p1();
        let mut store = Store::new(&self.engine, wasi);
        let instance = self.linker.instantiate(&mut store, module).unwrap();
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start");
        start.unwrap().call(&mut store, ()).unwrap();
        stdout.contents().to_vec()
    }
}

/// The sandbox.
struct House {
    dir: TempDir,
    pool: Pool,
}

impl House {
    fn new(runtime: &Runtime, spare_workers: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let setup = PoolSetup {
            config: SandboxConfig {
                workers: 2,
                spare_workers,
                ..SandboxConfig::default()
            },
            program: env!("CARGO_BIN_EXE_quantraband").into(),
            cache_dir: dir.path().join("compiled"),
            cache_key: Zeroizing::new([1; 32]),
        };
        let pool = runtime.block_on(Pool::start(setup)).unwrap();
        Self { dir, pool }
    }

    fn task(&self, module: &[u8]) -> Task {
        task(self.dir.path(), module)
    }

    /// Runs a job on a spare that stands ready.
    async fn run(&self, task: &Task) -> Vec<u8> {
        let (sender, mut receiver) = mpsc::channel(4);
        let run = self
            .pool
            .run(task.clone(), sender, CancellationToken::new());
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(piece) = receiver.recv().await {
                bytes.extend(piece.bytes);
            }
            bytes
        };
        let (report, bytes) = tokio::join!(run, collect);
        assert_eq!(report.outcome, Outcome::Exited { status: 0 });
        bytes
    }

    async fn rest(&self, spares: usize) {
        while self.pool.counts().spares < spares {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn task(dir: &Path, module: &[u8]) -> Task {
    let hash = ContentHash::of(module);
    let module_path = dir.join(hash.to_string());
    fs::write(&module_path, module).unwrap();
    Task {
        module: hash,
        module_path,
        arguments: vec!["guest.wasm".into()],
        environment: Vec::new(),
        input_path: None,
        limits: Limits {
            wall_clock_ms: 30_000,
            cpu_time_ms: 30_000,
            fuel: None,
            memory: 256 << 20,
            table: 100_000,
            stack: 1 << 20,
            output: 1 << 20,
        },
        deterministic: None,
        opener: None,
    }
}

fn nanos(bytes: &[u8]) -> Duration {
    Duration::from_nanos(u64::from_le_bytes(bytes.try_into().unwrap()))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).unwrap().as_secs_f64() * 1e6
}

fn line(what: &str, sandbox: &[Duration], bare: &[Duration]) -> f64 {
    let (sandbox, bare) = (median(sandbox.to_vec()), median(bare.to_vec()));
    let ratio = sandbox / bare;
    println!("{what:<44} {sandbox:>10.1} µs {bare:>10.1} µs  ratio {ratio:.3}");
    ratio
}

/// A job that is known, and the same guest in bare wasmtime; and the guest's own part of it.
fn warm(runtime: &Runtime, bare: &Bare) {
    let house = House::new(runtime, 2);
    let module = counting();
    let task = house.task(&module);
    let compiled = bare.compile(&module);
    runtime.block_on(house.run(&task));
    let (mut whole, mut whole_bare) = (Vec::new(), Vec::new());
    let (mut part, mut part_bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        runtime.block_on(house.rest(2));
        let start = Instant::now();
        let bytes = runtime.block_on(house.run(&task));
        whole.push(start.elapsed());
        part.push(nanos(&bytes));
        // The replacement of the spare is started meanwhile: not the bare side's business.
        runtime.block_on(house.rest(2));
        let start = Instant::now();
        let bytes = bare.run(&compiled);
        whole_bare.push(start.elapsed());
        part_bare.push(nanos(&bytes));
    }
    line("warm job, 1,000,000 iterations", &whole, &whole_bare);
    let ratio = line(
        "  the guest's part (target: at most 1.1)",
        &part,
        &part_bare,
    );
    println!("  target {}", if ratio <= 1.1 { "met" } else { "MISSED" });
}

/// A module's first job, with and without the cache of compiled modules, with and without a
/// process that stands ready; beside compiling and running it here.
fn cold(runtime: &Runtime, bare: &Bare) {
    let spare = House::new(runtime, 1);
    let none = House::new(runtime, 0);
    let (mut compiled, mut cached, mut started, mut here) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for salt in 0..MODULES {
        let module = guest("", salt);
        let task = spare.task(&module);
        for times in [&mut compiled, &mut cached] {
            runtime.block_on(spare.rest(1));
            let start = Instant::now();
            runtime.block_on(spare.run(&task));
            times.push(start.elapsed());
        }
        let task = none.task(&module);
        runtime.block_on(none.run(&task));
        let start = Instant::now();
        runtime.block_on(none.run(&task));
        started.push(start.elapsed());
        let start = Instant::now();
        bare.run(&bare.compile(&module));
        here.push(start.elapsed());
    }
    line("first job, module not in the cache", &compiled, &here);
    line("job, module in the cache", &cached, &here);
    line("  and no process stands ready", &started, &here);
}

/// As many jobs as two workers finish.
fn saturated(runtime: &Runtime) {
    let house = House::new(runtime, 2);
    let task = house.task(&guest("", 0));
    let lane = async || {
        for _ in 0..JOBS / 2 {
            house.run(&task).await;
        }
    };
    runtime.block_on(house.run(&task));
    let start = Instant::now();
    runtime.block_on(async { tokio::join!(lane(), lane()) });
    let seconds = start.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(JOBS).unwrap()) / seconds;
    println!("saturated, workers = 2: {rate:.0} jobs a second ({JOBS} in {seconds:.2} s)");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bare = Bare::new();
    println!(
        "{:<44} {:>13} {:>13}",
        "medians", "sandbox", "bare wasmtime"
    );
    warm(&runtime, &bare);
    cold(&runtime, &bare);
    saturated(&runtime);
}
