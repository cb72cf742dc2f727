//! A look at a module before it is compiled: linear in its size, without recursion.
//!
//! It refuses by name what the compiler would choke on: too many functions, blocks nested too
//! deep. That the bytes are valid WebAssembly is the compiler's to say.

use wasmparser::{Operator, Parser, Payload};

use crate::sandbox::{JobFault, LimitName, Outcome};

/// What the node allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) functions: u32,
    pub(super) nesting: u32,
}

/// Whether the module may be compiled.
pub(super) fn inspect(module: &[u8], bounds: Bounds) -> Result<(), Outcome> {
    let invalid = || Outcome::Failed {
        fault: JobFault::InvalidModule,
    };
    let link = || Outcome::Failed {
        fault: JobFault::Link,
    };
    let mut functions = 0_u32;
    let mut starts = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|_| invalid())? {
            Payload::Version { encoding, .. } if encoding != wasmparser::Encoding::Module => {
                return Err(link());
            }
            Payload::ImportSection(section) => {
                functions = functions.saturating_add(section.count());
            }
            Payload::FunctionSection(section) => {
                functions = functions.saturating_add(section.count());
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(|_| invalid())?;
                    starts |= export.name == "_start";
                }
            }
            Payload::CodeSectionStart { count, .. } => functions = functions.max(count),
            Payload::CodeSectionEntry(body) => {
                let operators = body.get_operators_reader().map_err(|_| invalid())?;
                nesting(operators, bounds.nesting)?;
            }
            _ => {}
        }
        if functions > bounds.functions {
            return Err(Outcome::Stopped {
                limit: LimitName::Functions,
            });
        }
    }
    if starts { Ok(()) } else { Err(link()) }
}

fn nesting(operators: wasmparser::OperatorsReader<'_>, most: u32) -> Result<(), Outcome> {
    let mut depth = 0_u32;
    for operator in operators {
        let operator = operator.map_err(|_| Outcome::Failed {
            fault: JobFault::InvalidModule,
        })?;
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => depth = depth.saturating_add(1),
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Err(Outcome::Stopped {
                limit: LimitName::Nesting,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        functions: 3,
        nesting: 2,
    };

    fn look(text: &str) -> Result<(), Outcome> {
        inspect(&wat::parse_str(text).unwrap(), BOUNDS)
    }

    #[test]
    fn functions_and_nesting_are_counted() {
        let start = "(func (export \"_start\"))";
        assert_eq!(look(&format!("(module {start} (func) (func))")), Ok(()));
        let functions = Outcome::Stopped {
            limit: LimitName::Functions,
        };
        assert_eq!(
            look(&format!("(module {start} (func) (func) (func))")),
            Err(functions)
        );
        let nested = "(func (block (loop nop)) (block (block nop)))";
        assert_eq!(look(&format!("(module {start} {nested})")), Ok(()));
        let nesting = Outcome::Stopped {
            limit: LimitName::Nesting,
        };
        let deep = "(func (block (block (block nop))))";
        assert_eq!(look(&format!("(module {start} {deep})")), Err(nesting));
    }

    #[test]
    fn what_is_no_command_is_said_to_be_none() {
        let link = Outcome::Failed {
            fault: JobFault::Link,
        };
        assert_eq!(look("(module)"), Err(link));
        let invalid = Outcome::Failed {
            fault: JobFault::InvalidModule,
        };
        for junk in [&b""[..], b"junk", b"\0asm\x01\0\0\0\x01\xff"] {
            assert_eq!(inspect(junk, BOUNDS), Err(invalid.clone()), "{junk:?}");
        }
    }
}
