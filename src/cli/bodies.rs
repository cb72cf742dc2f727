//! The bodies of the commands that need the whole node.

use std::path::Path;

use super::{
    Node,
    args::{AuditVerifyArgs, DevnetArgs, RunArgs},
    audit, devnet,
    exit::{CliError, Exit},
    live,
    output::Out,
};
use crate::{
    config::Loaded,
    node::{self, Ending},
    telemetry,
};

/// The program's own.
#[derive(Debug, Clone, Copy)]
pub struct Bodies;

impl Node for Bodies {
    fn run(&self, loaded: Loaded, args: RunArgs, _: &Out) -> Result<(), CliError> {
        let log = telemetry::init_logging(&loaded.config.log)?;
        let system = actix::System::new();
        let ended = system.block_on(node::run(loaded, log, args.until_stdin_closes));
        // Not dropped: that would wait for whatever is stuck, and everything worth keeping is on
        // disk. The process ends right after.
        std::mem::forget(system);
        match ended? {
            Ending::Clean => Ok(()),
            Ending::Escalated(actor) => Err(CliError::new(
                Exit::Software,
                format!("the actor {actor} could not be kept running; see the log"),
            )),
            Ending::LogStalled => Err(CliError::new(
                Exit::Io,
                "the audit log's disk does not answer",
            )),
            Ending::Stuck(parts) => Err(CliError::new(
                Exit::Software,
                format!("did not stop in time: {}", parts.join(", ")),
            )),
            Ending::Forced => Err(CliError::new(
                Exit::Software,
                "stopped at once by a second signal",
            )),
        }
    }

    fn devnet(&self, args: &DevnetArgs, out: &Out) -> Result<(), CliError> {
        live::block_on(async { Ok(devnet::run(args, out).await?) })
    }

    fn verify(&self, dir: &Path, args: &AuditVerifyArgs, out: &Out) -> Result<(), CliError> {
        audit::verify_log(dir, args, out)
    }
}
