//! Parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

use quantraband::cli::{self, bodies::Bodies};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &Bodies)
}
