//! The commands: one file each. Parsing and printing are apart from what a command does, so that
//! each is a function from typed arguments to a report.
//!
//! [`main`] is the whole program: parse ([`args`]), dispatch, print ([`output`], [`render`]),
//! exit code ([`exit`]). Commands that ask the running node go through [`client`].

pub mod args;
pub mod audit;
pub mod bodies;
pub mod client;
pub mod config;
pub mod delegation;
pub mod devnet;
pub mod enrol;
mod enrolment;
pub mod exit;
pub mod far;
pub mod identity;
pub mod init;
mod invite;
pub mod job;
mod join;
pub mod live;
pub mod output;
mod policy;
mod protect;
mod receipt;
pub mod render;
pub mod revoke;
mod rotate;
mod stream;
pub mod trust;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{admin::protocol::Request, config::Loaded};
use args::{
    AuditCommand, AuditVerifyArgs, Cli, Command, ConfigCommand, DevnetArgs, Global, PolicyCommand,
    RunArgs, job::JobCommand,
};
use exit::{CliError, Exit};
use far::Target;
use output::Out;

/// The bodies of the commands that need the whole node, which this room does not know.
pub trait Node {
    /// `run`: until the node has stopped.
    ///
    /// # Errors
    /// With the exit code the process shall have.
    fn run(&self, loaded: Loaded, args: RunArgs, out: &Out) -> Result<(), CliError>;

    /// `devnet`: until it is stopped.
    ///
    /// # Errors
    /// With the exit code the process shall have.
    fn devnet(&self, args: &DevnetArgs, out: &Out) -> Result<(), CliError>;

    /// `audit verify` of the log in this directory, with the keys and the checkpoint of `args`.
    ///
    /// # Errors
    /// Exit code 65 when the log is damaged.
    fn verify(
        &self,
        dir: &std::path::Path,
        args: &AuditVerifyArgs,
        out: &Out,
    ) -> Result<(), CliError>;
}

/// Parses, dispatches, prints; answers with the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>, node: &dyn Node) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    if let Command::SandboxWorker = cli.command {
        return crate::sandbox::worker::main();
    }
    let out = Out::new(cli.global.output);
    match dispatch(&cli, node, &out) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            out.failure(&error);
            error.exit.into()
        }
    }
}

/// Help and version are answers; all else is a usage error, which clap would give the code 2.
fn refuse(error: &clap::Error) -> Exit {
    // Without stdout or stderr there is nobody to tell.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Ok
    }
}

fn dispatch(cli: &Cli, node: &dyn Node, out: &Out) -> Result<(), CliError> {
    let global = &cli.global;
    let far = global.node;
    let ask = |request: Request| {
        let data_dir = &data_dir(global)?;
        Target {
            data_dir,
            node: far,
        }
        .ask(request, out)
    };
    if far.is_some() && !is_sent(&cli.command) {
        let why = instead_of(&cli.command);
        let why = format!("this command cannot be sent to another node: {why}");
        return Err(CliError::new(Exit::Usage, why));
    }
    match &cli.command {
        Command::Init(args) => init::command(args, global, out),
        Command::Run(args) => node.run(config::load(global)?, *args, out),
        Command::Config(ConfigCommand::Reload) => ask(Request::ConfigReload {}),
        Command::Config(command) => config::command(command, global, out),
        Command::Status { command: None } => ask(Request::Status {}),
        Command::Status {
            command: Some(command),
        } => live::status_lists(&data_dir(global)?, command, out),
        Command::Peers { command } => ask(live::peers_request(command.as_ref())),
        Command::Limits => ask(Request::Limits {}),
        Command::Actors { command } => ask(live::actors_request(command.as_ref())),
        Command::Publish(args) => live::publish(&data_dir(global)?, args, out),
        Command::Subscribe(args) => live::subscribe(&data_dir(global)?, args, out),
        Command::Job(command) => {
            let data_dir = &data_dir(global)?;
            job::command(
                command,
                &Target {
                    data_dir,
                    node: far,
                },
                out,
            )
        }
        Command::Audit(AuditCommand::Tail { lines, follow }) => {
            let data_dir = &data_dir(global)?;
            far::audit_tail(
                &Target {
                    data_dir,
                    node: far,
                },
                *lines,
                *follow,
                out,
            )
        }
        Command::Audit(AuditCommand::Rotate) => ask(Request::AuditRotate {}),
        Command::Audit(AuditCommand::Checkpoint) => ask(Request::AuditCheckpoint {}),
        Command::Audit(command) => on_files(command, global, node, out),
        Command::Identity(command) => enrolment::identity(command, global, out),
        Command::Trust(command) => enrolment::trust(command, global, out),
        Command::Invite(args) => ask(invite::request(args)),
        Command::Join(args) => join::command(args, global, out),
        Command::Receipt(command) => receipt::command(command, out),
        Command::Policy(PolicyCommand::Status) => ask(Request::Policies {}),
        Command::Policy(command) => policy::command(command, global, out),
        Command::Devnet(args) => node.devnet(args, out),
        // Carried out before anything was set up.
        Command::SandboxWorker => Ok(()),
        Command::Stop => ask(Request::Shutdown {}),
    }
}

/// Whether `--node` makes sense of a command: those that are questions to a running node.
fn is_sent(command: &Command) -> bool {
    matches!(
        command,
        Command::Config(ConfigCommand::Reload)
            | Command::Policy(PolicyCommand::Status)
            | Command::Status { command: None }
            | Command::Peers { .. }
            | Command::Limits
            | Command::Actors { .. }
            | Command::Audit(
                AuditCommand::Rotate | AuditCommand::Checkpoint | AuditCommand::Tail { .. }
            )
            | Command::Job(
                JobCommand::List
                    | JobCommand::Show { .. }
                    | JobCommand::Logs { .. }
                    | JobCommand::Cancel { .. }
            )
            | Command::Invite(_)
            | Command::Stop
    )
}

/// What to do instead of sending a command to another node.
fn instead_of(command: &Command) -> &'static str {
    match command {
        Command::Subscribe(_) => {
            "subscribe on this node, if it may hear the topic, and leave --node away"
        }
        Command::Publish(_) => "publish from this node, and leave --node away",
        Command::Job(_) => "name who shall run the job with --on, and leave --node away",
        Command::Status { .. } => {
            "import a status list on this node, which passes it on, and leave --node away"
        }
        _ => "leave --node away",
    }
}

/// `audit …` of what needs no running node.
fn on_files(
    command: &AuditCommand,
    global: &Global,
    node: &dyn Node,
    out: &Out,
) -> Result<(), CliError> {
    let log = |named: &Option<std::path::PathBuf>| match named {
        Some(dir) => Ok(dir.clone()),
        None => Ok::<_, CliError>(data_dir(global)?.join("audit")),
    };
    match command {
        AuditCommand::Key => audit::key(&data_dir(global)?, out),
        AuditCommand::Prove {
            record,
            dir,
            out: to,
        } => audit::prove_record(*record, &log(dir)?, to.as_deref(), out),
        AuditCommand::Verify(args) => match &args.proof {
            Some(proof) => audit::verify_proof(proof, &args.keys, out),
            None => node.verify(&log(&args.dir)?, args, out),
        },
        // Sent to the node before.
        AuditCommand::Tail { .. } | AuditCommand::Rotate | AuditCommand::Checkpoint => Ok(()),
    }
}

fn data_dir(global: &Global) -> Result<std::path::PathBuf, CliError> {
    Ok(config::load(global)?.data_dir)
}

#[cfg(test)]
mod tests;
