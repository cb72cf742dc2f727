//! Hostile guests in real worker processes: each is stopped by the limit meant for it, by name,
//! and the honest guest beside it does not notice.
#![cfg(test)]

mod sandbox;

use std::{fmt::Write as _, time::Duration};

use quantraband::{
    config::SandboxConfig,
    sandbox::{CancelledBy, JobFault, LimitName, Limits, Outcome, Task, pool::GRACE},
    types::{ByteSize, Span},
};
use sandbox::{DONE, HANG, House, config, failed, limits, says, stopped};
use tokio_util::sync::CancellationToken;

/// Runs a bomb and, at the same time, an honest job; answers with the bomb's outcome.
async fn beside_an_honest_job(house: &House, bomb: Task) -> Outcome {
    let honest = house.task(says("honest work"));
    let (bomb, honest) = tokio::join!(house.run(bomb), house.run(honest));
    assert_eq!(honest.report.outcome, DONE);
    assert_eq!(honest.text(), "honest work");
    bomb.report.outcome
}

const LOOP: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

#[tokio::test]
async fn an_infinite_loop_uses_up_its_processor_time() {
    let house = House::new().await;
    let mut task = house.task(LOOP);
    task.limits.cpu_time_ms = 300;
    let honest = house.task(says("honest work"));
    let (bomb, honest) = tokio::join!(house.run(task), house.run(honest));
    assert_eq!(bomb.report.outcome, stopped(LimitName::CpuTime));
    assert!(bomb.report.usage.cpu_us >= 300_000);
    assert!(bomb.report.usage.wall_ms >= 290);
    assert_eq!(honest.text(), "honest work");
}

#[tokio::test]
async fn an_infinite_loop_is_stopped_by_the_wall_clock_that_is_shorter() {
    let house = House::new().await;
    let mut task = house.task(LOOP);
    task.limits.wall_clock_ms = 200;
    assert_eq!(
        beside_an_honest_job(&house, task).await,
        stopped(LimitName::WallClock)
    );
}

#[tokio::test]
async fn counted_instructions_run_out() {
    let house = House::new().await;
    let mut task = house.task(LOOP);
    task.limits.fuel = Some(1_000_000);
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, stopped(LimitName::Fuel));
    assert_eq!(done.report.usage.fuel, Some(1_000_000));
    let mut task = house.task(LOOP);
    task.limits.fuel = Some(u64::MAX);
    task.limits.cpu_time_ms = 200;
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, stopped(LimitName::CpuTime));
}

/// Sleeps by a relative clock subscription; `more` of them.
fn sleeper(subscriptions: u32) -> String {
    let mut stores = String::new();
    for index in 0..subscriptions {
        let base = index * 48;
        let (clock, timeout) = (base + 16, base + 24);
        writeln!(
            stores,
            "(i32.store (i32.const {clock}) (i32.const 1))
             (i64.store (i32.const {timeout}) (i64.const 0x7fffffffffffffff))"
        )
        .unwrap();
    }
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") {stores}
            (drop (call $poll (i32.const 0) (i32.const 4096)
                (i32.const {subscriptions}) (i32.const 8192)))))"#
    )
}

#[tokio::test]
async fn a_guest_that_sleeps_for_ever_in_a_host_call_is_stopped() {
    let house = House::new().await;
    for subscriptions in [1, 2] {
        let mut task = house.task(sleeper(subscriptions));
        task.limits.wall_clock_ms = 300;
        let honest = house.task(says("honest work"));
        let (bomb, honest) = tokio::join!(house.run(task), house.run(honest));
        assert_eq!(bomb.report.outcome, stopped(LimitName::WallClock));
        assert!(bomb.report.usage.cpu_us < 300_000);
        assert_eq!(honest.text(), "honest work");
    }
}

#[tokio::test]
async fn memory_bombs_are_stopped_and_the_specification_is_kept() {
    let house = House::new().await;
    let grow = r#"(module (memory 1)
        (func (export "_start") (loop (drop (memory.grow (i32.const 1))) (br 0))))"#;
    let task = house.task(grow);
    let memory = task.limits.memory;
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, stopped(LimitName::Memory));
    assert_eq!(done.report.usage.memory_peak, memory);
    let at_once = r#"(module (memory 65536) (func (export "_start")))"#;
    assert_eq!(
        beside_an_honest_job(&house, house.task(at_once)).await,
        stopped(LimitName::Memory)
    );
    // Beyond its own maximum, `memory.grow` answers -1 and the guest goes on.
    let own_maximum = r#"(module (memory 1 2)
        (func (export "_start")
            (if (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))
            (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))))"#;
    assert_eq!(house.outcome(own_maximum).await, DONE);
}

#[tokio::test]
async fn table_bombs_are_stopped() {
    let house = House::new().await;
    let grow = r#"(module (table 1 funcref) (func (export "_start")
        (loop (drop (table.grow (ref.null func) (i32.const 1000))) (br 0))))"#;
    assert_eq!(
        beside_an_honest_job(&house, house.task(grow)).await,
        stopped(LimitName::Table)
    );
    let many = format!(
        r#"(module {} (func (export "_start")))"#,
        "(table 1000 funcref)".repeat(11)
    );
    assert_eq!(house.outcome(many).await, stopped(LimitName::Table));
}

#[tokio::test]
async fn stack_bombs_are_stopped() {
    let house = House::new().await;
    let recursion = r#"(module (func $f (param i64) (result i64)
            (i64.add (call $f (local.get 0)) (local.get 0)))
        (func (export "_start") (drop (call $f (i64.const 1)))))"#;
    assert_eq!(
        beside_an_honest_job(&house, house.task(recursion)).await,
        stopped(LimitName::Stack)
    );
}

/// Writes `length` bytes again and again, to both streams.
fn flood(length: u32) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const {length}))
            (loop
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
                (br 0))))"#
    )
}

#[tokio::test]
async fn an_output_flood_is_delivered_up_to_its_limit() {
    let house = House::new().await;
    for length in [1, 100_000] {
        let mut task = house.task(flood(length));
        task.limits.output = 333_333;
        let done = house.run(task).await;
        assert_eq!(done.report.outcome, stopped(LimitName::Output));
        let usage = done.report.usage;
        assert_eq!(usage.stdout + usage.stderr, 333_333);
        assert_eq!(usage.stdout, u64::try_from(done.stdout.len()).unwrap());
        assert_eq!(usage.stderr, u64::try_from(done.stderr.len()).unwrap());
    }
    assert_eq!(
        beside_an_honest_job(&house, house.task(flood(1000))).await,
        stopped(LimitName::Output)
    );
}

#[tokio::test]
async fn a_flood_nobody_reads_is_stopped_by_the_wall_clock() {
    let house = House::new().await;
    let mut task = house.task(flood(60_000));
    task.limits.wall_clock_ms = 300;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let run = house.pool.run(task, sender, CancellationToken::new());
    let report = tokio::time::timeout(HANG, run).await.unwrap();
    assert_eq!(report.outcome, stopped(LimitName::WallClock));
    drop(receiver);
}

#[tokio::test]
async fn a_job_whose_output_nobody_wants_is_cancelled() {
    let house = House::new().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    drop(receiver);
    let run = house
        .pool
        .run(house.task(LOOP), sender, CancellationToken::new());
    let report = tokio::time::timeout(HANG, run).await.unwrap();
    let by = CancelledBy::Submitter;
    assert_eq!(report.outcome, Outcome::Cancelled { by });
}

#[tokio::test]
async fn a_module_or_an_input_too_large_is_not_read() {
    let house = House::with(SandboxConfig {
        max_module: ByteSize(100_000),
        max_input: ByteSize(100_000),
        ..config()
    })
    .await;
    let huge = format!(
        r#"(module (memory 100) (data (i32.const 0) "{}") (func (export "_start")))"#,
        "x".repeat(100_000)
    );
    assert_eq!(
        beside_an_honest_job(&house, house.task(huge)).await,
        stopped(LimitName::ModuleSize)
    );
    let mut task = house.task(says("x"));
    let input = house.dir.path().join("input");
    std::fs::write(&input, vec![0; 100_001]).unwrap();
    task.input_path = Some(input);
    let done = house.run(task).await;
    assert_eq!(done.report.outcome, stopped(LimitName::InputSize));
}

#[tokio::test]
async fn deep_nesting_and_many_functions_are_named_before_they_are_compiled() {
    let house = House::new().await;
    let mut deep = [0x02, 0x40].repeat(1_000_000);
    deep.extend(vec![0x0b; 1_000_001]);
    assert_eq!(
        beside_an_honest_job(&house, house.task(raw_module(1, &deep))).await,
        stopped(LimitName::Nesting)
    );
    assert_eq!(
        beside_an_honest_job(&house, house.task(raw_module(100_000, &[0x0b]))).await,
        stopped(LimitName::Functions)
    );
}

/// A module of `count` functions of type `() -> ()` with this code; the last is `_start`.
fn raw_module(count: u32, code: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, 1, &[1, 0x60, 0, 0]);
    let mut functions = leb(count);
    functions.extend(vec![0; usize::try_from(count).unwrap()]);
    section(&mut module, 3, &functions);
    let mut exports = vec![1, 6];
    exports.extend_from_slice(b"_start");
    exports.push(0);
    exports.extend(leb(count - 1));
    section(&mut module, 7, &exports);
    let mut bodies = leb(count);
    for _ in 0..count {
        bodies.extend(leb(u32::try_from(code.len()).unwrap() + 1));
        bodies.push(0);
        bodies.extend_from_slice(code);
    }
    section(&mut module, 10, &bodies);
    module
}

fn section(module: &mut Vec<u8>, id: u8, content: &[u8]) {
    module.push(id);
    module.extend(leb(u32::try_from(content.len()).unwrap()));
    module.extend_from_slice(content);
}

fn leb(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

#[tokio::test]
async fn sections_that_lie_or_are_huge_cost_nobody_anything() {
    let house = House::with(SandboxConfig {
        max_module: ByteSize(64 << 20),
        ..config()
    })
    .await;
    let invalid = failed(JobFault::InvalidModule);
    let good = raw_module(1, &[0x0b]);
    let (magic, rest) = good.split_at(8);
    let before = |sections: &[u8]| [magic, sections, rest].concat();
    // A length that reaches beyond the module, by a byte and by gigabytes.
    for length in [leb(4), leb(0x7fff_ffff)] {
        let lie = [magic, &[1], &length, &[1, 0x60, 0]].concat();
        assert_eq!(house.outcome(lie).await, invalid);
    }
    // Numbers of entries that no section has: types, functions, bodies, data.
    for id in [1, 3, 10, 11] {
        let mut lie = magic.to_vec();
        section(&mut lie, id, &leb(u32::MAX));
        let outcome = house.outcome(lie).await;
        // Functions are counted first; of another section it may be found first that no module
        // without an export `_start` is a program.
        let expected = match id {
            3 => [stopped(LimitName::Functions), invalid.clone()],
            _ => [invalid.clone(), failed(JobFault::Link)],
        };
        assert!(expected.contains(&outcome), "section {id}: {outcome}");
    }
    // More types than any tool allows (a million), two megabytes of them.
    let mut types = leb(1_000_001);
    types.extend([0x60, 0, 0].repeat(1_000_001));
    let mut many = Vec::new();
    section(&mut many, 1, &types);
    let many = [magic, &many, rest].concat();
    assert_eq!(
        beside_an_honest_job(&house, house.task(many)).await,
        invalid
    );
    // A custom section of 8 MiB says nothing, and does no harm.
    let mut talk = vec![4];
    talk.extend_from_slice(b"talk");
    talk.resize(8 << 20, 0);
    let mut custom = Vec::new();
    section(&mut custom, 0, &talk);
    assert_eq!(house.outcome(before(&custom)).await, DONE);
    // Data of 8 MiB into a memory of 64 KiB.
    let mut data = vec![1, 0, 0x41, 0, 0x0b];
    data.extend(leb(8 << 20));
    data.resize(data.len() + (8 << 20), 7);
    let mut memory = Vec::new();
    section(&mut memory, 5, &[1, 0, 1]);
    let mut module = good.clone();
    // The memory comes between functions (3) and exports (7), the data at the end.
    let at = 8 + 6 + 4;
    module.splice(at..at, memory);
    section(&mut module, 11, &data);
    let trap = Outcome::Trapped {
        trap: "memory_out_of_bounds".to_owned(),
    };
    assert_eq!(house.outcome(module).await, trap);
}

/// Much work for the compiler in few bytes: many functions, each a long chain of values that all
/// live to the end.
fn compile_bomb() -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..6_000 {
        // memory-free arithmetic that cannot be folded: (i32.popcnt (i32.const n)) and branches.
        code.extend([0x02, 0x40, 0x41, 0x01, 0x69, 0x0d, 0x00, 0x0b]);
    }
    code.push(0x0b);
    raw_module(150, &code)
}

#[tokio::test]
async fn a_compile_bomb_is_stopped_and_does_not_cost_twice() {
    let house = House::with(SandboxConfig {
        compile_time: Span(Duration::from_millis(400)),
        ..config()
    })
    .await;
    let task = house.task(compile_bomb());
    let first = house.run(task.clone()).await;
    assert_eq!(first.report.outcome, stopped(LimitName::CompileTime));
    assert!(first.report.usage.cpu_us > 0);
    let second = house.run(task.clone()).await;
    assert_eq!(second.report.outcome, stopped(LimitName::CompileTime));
    assert_eq!(second.report.usage.cpu_us, 0);
    assert_eq!(
        beside_an_honest_job(&house, task).await,
        stopped(LimitName::CompileTime)
    );
}

#[tokio::test]
async fn compiling_is_bounded_in_memory() {
    let house = House::with(SandboxConfig {
        compile_memory: ByteSize(8 << 20),
        ..config()
    })
    .await;
    assert_eq!(
        beside_an_honest_job_that_is_known(&house, house.task(compile_bomb())).await,
        stopped(LimitName::CompileMemory)
    );
}

/// As above, where compiling the honest module is no question.
async fn beside_an_honest_job_that_is_known(house: &House, bomb: Task) -> Outcome {
    let honest = house.run(house.task(says("honest work"))).await;
    assert_eq!(honest.report.outcome, DONE);
    beside_an_honest_job(house, bomb).await
}

#[tokio::test]
async fn cancelling_ends_a_guest_wherever_it_is() {
    // Whatever the worker does, it is killed after this.
    const { assert!(GRACE.as_millis() < 1_000) };
    let house = House::with(SandboxConfig {
        compile_time: Span(Duration::from_secs(60)),
        ..config()
    })
    .await;
    // In a loop, in a host call, counted, and in the compiler.
    let mut counted = house.task(LOOP);
    counted.limits.fuel = Some(u64::MAX);
    let tasks = [
        house.task(LOOP),
        house.task(sleeper(1)),
        house.task(sleeper(2)),
        counted,
        house.task(compile_bomb()),
    ];
    for task in tasks {
        let cancel = CancellationToken::new();
        let busy = || {
            let counts = house.pool.counts();
            counts.running + counts.compiling > 0
        };
        let cancelling = async {
            sandbox::eventually("it is under way", busy).await;
            cancel.cancel();
        };
        let (done, ()) = tokio::join!(house.run_until(task, cancel.clone()), cancelling);
        let by = CancelledBy::Submitter;
        assert_eq!(done.report.outcome, Outcome::Cancelled { by });
    }
    let mut task = house.task(says("still works"));
    task.limits = Limits { ..limits() };
    assert_eq!(house.run(task).await.text(), "still works");
}

#[tokio::test]
async fn a_thousand_tiny_jobs_leave_nothing_behind() {
    let house = House::new().await;
    // As many at once as the caller would let run.
    let tiny = house.task(says("x"));
    let one = async || {
        for _ in 0..100 {
            assert_eq!(house.run(tiny.clone()).await.text(), "x");
        }
    };
    tokio::join!(one(), one());
    let spares = house.config.spare_workers;
    sandbox::eventually("only spares are left", || {
        house.pool.counts().spares == spares
    })
    .await;
    assert_eq!(house.pool.counts().running, 0);
}

#[tokio::test]
async fn what_is_no_program_for_a_sandbox_fails_by_name() {
    let house = House::new().await;
    let outcome = async |guest: &str| house.outcome(guest).await;
    let link = failed(JobFault::Link);
    assert_eq!(outcome("(module)").await, link);
    let foreign = r#"(module (import "env" "f" (func)) (func (export "_start")))"#;
    assert_eq!(outcome(foreign).await, link);
    let wrong_type = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func))
        (func (export "_start")))"#;
    assert_eq!(outcome(wrong_type).await, link);
    let wrong_entry = r#"(module (func (export "_start") (param i32)))"#;
    assert_eq!(outcome(wrong_entry).await, link);
    let invalid = failed(JobFault::InvalidModule);
    let ill_typed = r#"(module (func (export "_start") (drop (i32.add (i64.const 1)))))"#;
    assert_eq!(outcome(ill_typed).await, invalid);
    let threads = r#"(module (memory 1 1 shared) (func (export "_start")))"#;
    assert_eq!(outcome(threads).await, invalid);
    let memory64 = r#"(module (memory i64 1) (func (export "_start")))"#;
    assert_eq!(outcome(memory64).await, invalid);
    let trap = |name: &str| Outcome::Trapped { trap: name.into() };
    let unreachable = r#"(module (func (export "_start") unreachable))"#;
    assert_eq!(outcome(unreachable).await, trap("unreachable"));
    let divides = r#"(module (func (export "_start")
        (drop (i32.div_u (i32.const 1) (i32.const 0)))))"#;
    assert_eq!(outcome(divides).await, trap("integer_division_by_zero"));
}
