//! Small guest programs in the text format, for tests of jobs.

/// What every guest here imports.
const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 2)
"#;

/// Writes `len` bytes at `at` to a file descriptor.
const WRITE: &str = r#"
  (func $write (param $fd i32) (param $at i32) (param $len i32)
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $len))
    (drop (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
"#;

/// Sleeps so many milliseconds: one relative subscription of the monotonic clock.
const SLEEP: &str = r#"
  (func $sleep (param $ms i64)
    (i64.store (i32.const 512) (i64.const 1))
    (i32.store (i32.const 520) (i32.const 0))
    (i32.store (i32.const 528) (i32.const 1))
    (i64.store (i32.const 536) (i64.mul (local.get $ms) (i64.const 1000000)))
    (i64.store (i32.const 544) (i64.const 0))
    (i32.store16 (i32.const 552) (i32.const 0))
    (drop (call $poll_oneoff (i32.const 512) (i32.const 600) (i32.const 1) (i32.const 640))))
"#;

fn module(body: &str) -> Vec<u8> {
    let text = format!("(module {IMPORTS} {WRITE} {SLEEP} {body})");
    wat::parse_str(&text).expect("the guest is valid")
}

/// Writes `text` to stdout and exits with `status`.
pub(crate) fn says(text: &str, status: u32) -> Vec<u8> {
    let len = text.replace("\\n", "\n").len();
    module(&format!(
        r#"(data (i32.const 1024) "{text}")
           (func (export "_start")
             (call $write (i32.const 1) (i32.const 1024) (i32.const {len}))
             (call $proc_exit (i32.const {status})))"#
    ))
}

/// Copies standard input to stdout.
pub(crate) fn cat() -> Vec<u8> {
    module(
        r#"(func (export "_start") (local $n i32)
             (i32.store (i32.const 0) (i32.const 4096))
             (i32.store (i32.const 4) (i32.const 65536))
             (loop $more
               (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
               (local.set $n (i32.load (i32.const 8)))
               (if (local.get $n)
                 (then
                   (call $write (i32.const 1) (i32.const 4096) (local.get $n))
                   (br $more)))))"#,
    )
}

/// Writes its arguments to stdout, each ended by a NUL, as WASI hands them over.
pub(crate) fn arguments() -> Vec<u8> {
    module(
        r#"(func (export "_start")
             (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
             (drop (call $args_get (i32.const 1024) (i32.const 8192)))
             (call $write (i32.const 1) (i32.const 8192) (i32.load (i32.const 4))))"#,
    )
}

/// Writes the letters `a`, `b`, … one each `ms` milliseconds, then a line end.
pub(crate) fn letters(count: u32, ms: u32) -> Vec<u8> {
    module(&format!(
        r#"(func (export "_start") (local $n i32)
             (loop $more
               (i32.store8 (i32.const 1024) (i32.add (i32.const 97) (local.get $n)))
               (call $write (i32.const 1) (i32.const 1024) (i32.const 1))
               (call $sleep (i64.const {ms}))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $n) (i32.const {count}))))
             (i32.store8 (i32.const 1024) (i32.const 10))
             (call $write (i32.const 1) (i32.const 1024) (i32.const 1)))"#
    ))
}

/// Writes 16 random bytes, sleeps, and ends: no two runs print the same.
pub(crate) fn dice(ms: u32) -> Vec<u8> {
    module(&format!(
        r#"(func (export "_start")
             (drop (call $random_get (i32.const 1024) (i32.const 16)))
             (call $write (i32.const 1) (i32.const 1024) (i32.const 16))
             (call $sleep (i64.const {ms})))"#
    ))
}

/// Says `go` and computes for ever.
pub(crate) fn spins() -> Vec<u8> {
    module(
        r#"(data (i32.const 1024) "go\n")
           (func (export "_start")
             (call $write (i32.const 1) (i32.const 1024) (i32.const 3))
             (loop $for_ever (br $for_ever)))"#,
    )
}

/// Says `go` and sleeps for ever in one host call.
pub(crate) fn sleeps() -> Vec<u8> {
    module(
        r#"(data (i32.const 1024) "go\n")
           (func (export "_start")
             (call $write (i32.const 1) (i32.const 1024) (i32.const 3))
             (call $sleep (i64.const 1000000000)))"#,
    )
}

/// Asks for memory without end.
pub(crate) fn eats_memory() -> Vec<u8> {
    module(
        r#"(func (export "_start")
             (loop $more
               (drop (memory.grow (i32.const 16)))
               (br $more)))"#,
    )
}

/// Does what no program may.
pub(crate) fn traps() -> Vec<u8> {
    module(r#"(func (export "_start") unreachable)"#)
}
