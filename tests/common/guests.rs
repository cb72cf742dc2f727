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

/// Declares more memory than it may have.
pub(crate) fn is_born_big() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 30000) (func (export "_start")))"#;
    wat::parse_str(text).expect("the guest is valid")
}

/// Asks for table elements without end.
pub(crate) fn eats_table() -> Vec<u8> {
    module(
        r#"(table $t 1 funcref)
           (func (export "_start")
             (loop $more
               (drop (table.grow $t (ref.null func) (i32.const 4096)))
               (br $more)))"#,
    )
}

/// Calls itself for ever.
pub(crate) fn recurses() -> Vec<u8> {
    module(
        r#"(func $deep (param i64) (result i64)
             (i64.add (local.get 0) (call $deep (i64.add (local.get 0) (i64.const 1)))))
           (func (export "_start") (drop (call $deep (i64.const 0))))"#,
    )
}

/// Prints for ever.
pub(crate) fn floods() -> Vec<u8> {
    module(
        r#"(func (export "_start")
             (loop $more
               (call $write (i32.const 1) (i32.const 1024) (i32.const 32768))
               (br $more)))"#,
    )
}

/// A valid module of this many bytes: most of it a section that says nothing.
pub(crate) fn of_size(bytes: usize) -> Vec<u8> {
    let mut module = says("x", 0);
    module.push(0);
    leb(&mut module, length(bytes));
    module.extend([1, b'x']);
    module.resize(module.len() + bytes - 2, 0);
    module
}

/// Blocks in blocks in blocks.
pub(crate) fn nests(depth: usize) -> Vec<u8> {
    // Assembled by hand: the text format's own parser recurses.
    let mut body = vec![0];
    body.extend(std::iter::repeat_n([0x02, 0x40], depth).flatten());
    body.extend(std::iter::repeat_n(0x0b, depth + 1));
    assemble(&[body])
}

/// This many functions that do nothing.
pub(crate) fn of_functions(count: usize) -> Vec<u8> {
    assemble(&vec![vec![0, 0x0b]; count])
}

/// A function that takes a compiler long: many loops, each of which carries thousands of
/// variables.
pub(crate) fn compiles_for_ever() -> Vec<u8> {
    let (locals, loops) = (4_000_u32, 8_000);
    // One run of i64 locals.
    let mut body = vec![1];
    leb(&mut body, locals);
    body.push(0x7e);
    let mut seed = 1_u32;
    for _ in 0..loops {
        body.extend([0x03, 0x40]);
        for _ in 0..24 {
            for operation in [0x20, 0x20, 0x7c, 0x21] {
                body.push(operation);
                if operation != 0x7c {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    leb(&mut body, (seed >> 8) % locals);
                }
            }
        }
        // Again while the last one is not zero.
        body.extend([0x20, 0, 0xa7, 0x0d, 0, 0x0b]);
    }
    body.push(0x0b);
    assemble(&[body])
}

fn length(of: usize) -> u32 {
    u32::try_from(of).expect("guests are small")
}

/// LEB128, as WebAssembly writes numbers.
fn leb(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out.push(byte | if value == 0 { 0 } else { 0x80 });
        if value == 0 {
            return;
        }
    }
}

/// A command whose functions, all without parameters and results, have these bodies; the first
/// one is `_start`.
fn assemble(bodies: &[Vec<u8>]) -> Vec<u8> {
    let count = length(bodies.len());
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, content: &[u8]| {
        module.push(id);
        leb(&mut module, length(content.len()));
        module.extend(content);
    };
    section(1, &[1, 0x60, 0, 0]);
    let mut functions = Vec::new();
    leb(&mut functions, count);
    functions.resize(functions.len() + bodies.len(), 0);
    section(3, &functions);
    section(7, b"\x01\x06_start\x00\x00");
    let mut code = Vec::new();
    leb(&mut code, count);
    for body in bodies {
        leb(&mut code, length(body.len()));
        code.extend(body);
    }
    section(10, &code);
    module
}
