//! A first look at a module: one pass, constant memory, before the compiler sees a byte.
//!
//! Bombs that work by number or depth are named here, cheaply and without recursion. What passes
//! is not yet valid; the compiler validates it while it translates.

use wasmparser::{BinaryReaderError, Encoding, ExternalKind, FunctionBody, Parser, Payload};

use super::protocol::CompileOrder;
use crate::sandbox::{JobFault, LimitName, Outcome};

/// The only module a guest may import from.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";
/// What a command exports.
pub(crate) const ENTRY: &str = "_start";

/// Every function of WASI preview 1, in order.
const FUNCTIONS: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Looks at a module. `Err` says what becomes of the job.
pub(crate) fn inspect(module: &[u8], order: &CompileOrder) -> Result<(), Outcome> {
    let mut seen = Seen::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding, .. } if encoding != Encoding::Module => {
                return Err(failed(JobFault::InvalidModule));
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    seen.add_functions(1, order)?;
                    let is_function = matches!(import.ty, wasmparser::TypeRef::Func(_));
                    if !is_function
                        || import.module != WASI
                        || FUNCTIONS.binary_search(&import.name).is_err()
                    {
                        seen.strange_import = true;
                    }
                }
            }
            Payload::FunctionSection(section) => seen.add_functions(section.count(), order)?,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    seen.entry |= export.name == ENTRY && export.kind == ExternalKind::Func;
                }
            }
            Payload::CodeSectionEntry(body) => depth(&body, order)?,
            _ => {}
        }
    }
    if seen.strange_import || !seen.entry {
        return Err(failed(JobFault::Link));
    }
    Ok(())
}

#[derive(Default)]
struct Seen {
    functions: u64,
    entry: bool,
    /// Said at the end, so that a bomb is named a bomb whatever it imports.
    strange_import: bool,
}

impl Seen {
    fn add_functions(&mut self, count: u32, order: &CompileOrder) -> Result<(), Outcome> {
        self.functions = self.functions.saturating_add(u64::from(count));
        if self.functions > u64::from(order.max_functions) {
            return Err(stopped(LimitName::Functions));
        }
        Ok(())
    }
}

/// How deep the blocks of a function are nested.
fn depth(body: &FunctionBody<'_>, order: &CompileOrder) -> Result<(), Outcome> {
    use wasmparser::Operator::{Block, End, If, Loop, TryTable};
    let mut depth: u32 = 0;
    let mut operators = body.get_operators_reader().map_err(invalid)?;
    while !operators.eof() {
        match operators.read().map_err(invalid)? {
            Block { .. } | Loop { .. } | If { .. } | TryTable { .. } => {
                depth = depth.saturating_add(1);
                if depth > order.max_nesting {
                    return Err(stopped(LimitName::Nesting));
                }
            }
            // The last one ends the function itself.
            End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn stopped(limit: LimitName) -> Outcome {
    Outcome::Stopped { limit }
}

fn failed(fault: JobFault) -> Outcome {
    Outcome::Failed { fault }
}

fn invalid(_: BinaryReaderError) -> Outcome {
    failed(JobFault::InvalidModule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::protocol::Mode, *};

    fn order() -> CompileOrder {
        CompileOrder {
            mode: Mode::Plain,
            module_len: 0,
            max_functions: 4,
            max_nesting: 3,
            time_ms: 1_000,
            memory: 1 << 20,
        }
    }

    fn look(text: &str) -> Result<(), Outcome> {
        inspect(&wat::parse_str(text).unwrap(), &order())
    }

    #[test]
    fn the_list_is_in_order() {
        assert!(FUNCTIONS.is_sorted());
    }

    #[test]
    fn a_command_passes() {
        assert_eq!(look(r#"(module (func (export "_start")))"#), Ok(()));
        assert_eq!(
            look(
                r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                   (func (export "_start") block block block end end end))"#
            ),
            Ok(())
        );
    }

    #[test]
    fn number_and_depth_are_bounded() {
        let functions = r#"(module (func) (func) (func) (func) (func (export "_start")))"#;
        assert_eq!(look(functions), Err(stopped(LimitName::Functions)));
        let imported = r#"(module (import "a" "b" (func)) (func) (func) (func) (func))"#;
        assert_eq!(look(imported), Err(stopped(LimitName::Functions)));
        let deep = r#"(module (func (export "_start") block loop block block end end end end))"#;
        assert_eq!(look(deep), Err(stopped(LimitName::Nesting)));
    }

    #[test]
    fn what_no_sandbox_offers_is_no_link() {
        let link = Err(failed(JobFault::Link));
        for text in [
            "(module)",
            r#"(module (memory (export "_start") 1))"#,
            r#"(module (import "env" "f" (func)) (func (export "_start")))"#,
            r#"(module (import "wasi_snapshot_preview1" "f" (func)) (func (export "_start")))"#,
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (memory 1))
               (func (export "_start")))"#,
        ] {
            assert_eq!(look(text), link, "{text}");
        }
    }

    #[test]
    fn what_is_no_module_is_invalid() {
        let invalid = Err(failed(JobFault::InvalidModule));
        assert_eq!(inspect(b"", &order()), invalid);
        assert_eq!(inspect(b"\0asm\x01\0\0\0\xff", &order()), invalid);
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(inspect(component, &order()), invalid);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = inspect(&bytes, &order());
            bytes.splice(0..0, *b"\0asm\x01\0\0\0");
            let _ = inspect(&bytes, &order());
        }
    }
}
