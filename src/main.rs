//! Parse, dispatch, exit code; nothing else.

use std::{path::Path, process::ExitCode};

use quantraband::{
    cli::{
        self,
        args::DevnetArgs,
        exit::{CliError, Exit},
        output::Out,
    },
    config::Loaded,
};

/// The bodies of the commands that need the whole node.
struct Bodies;

impl cli::Node for Bodies {
    fn run(&self, _: Loaded, _: &Out) -> Result<(), CliError> {
        Err(absent("run"))
    }

    fn devnet(&self, _: &DevnetArgs, _: &Out) -> Result<(), CliError> {
        Err(absent("devnet"))
    }

    fn verify(&self, _: &Path, _: &Out) -> Result<(), CliError> {
        Err(absent("audit verify"))
    }
}

fn absent(command: &str) -> CliError {
    CliError::new(
        Exit::Unavailable,
        format!("{command} is not part of this build"),
    )
}

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &Bodies)
}
