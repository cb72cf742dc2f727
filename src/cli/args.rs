//! The command line's grammar. Nothing here acts.

mod identity;
pub mod job;
mod policy;
mod receipt;

use std::{net::IpAddr, path::PathBuf, sync::LazyLock};

use multiaddr::Multiaddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::output::Format;
use crate::{
    admin::protocol::{FaultKind, MAX_TEXT},
    audit::Which,
    identity::{Name, sealed::SealTo},
    types::{Party, PeerId, Span, Topic},
};

pub use identity::{
    DelegateArgs, IdentityCommand, IssueArgs, IssuerCommand, ProtectArgs, RevokeArgs, RevokeWhat,
    RotateArgs, TrustCommand,
};
pub use policy::{ExplainArgs, PolicyCommand};
pub use receipt::{ReceiptCommand, VerifyArgs as ReceiptVerifyArgs};

/// Most nodes of a devnet: each is a process of some 50 MB on this machine.
const MAX_NODES: i64 = 64;

/// A zero-trust peer-to-peer node.
#[derive(Debug, Parser)]
#[command(name = "quantraband", version = version(), propagate_version = true)]
#[command(after_help = "Exit codes are those of sysexits.h; see docs/reference/exit-codes.md.")]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Version and, when the build was told, git revision.
#[must_use]
pub fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| match crate::REVISION {
        Some(revision) => format!("{} ({revision})", crate::VERSION),
        None => crate::VERSION.to_owned(),
    });
    &TEXT
}

/// Flags that stand before or after any command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file [default: ./node.toml, then $XDG_CONFIG_HOME/quantraband/node.toml,
    /// then /etc/quantraband/node.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets a key for this run, over file and environment: limits.connections=500
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Have a connected peer carry the command out; it must be permitted there to administer it
    #[arg(long, global = true, value_name = "PEER")]
    pub node: Option<PeerId>,
    /// How answers are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration and make the node's key
    Init(InitArgs),
    /// Run the node in the foreground
    Run(RunArgs),
    /// Check, show or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// How the running node is; the status lists it knows
    Status {
        /// What to do with status lists; without it, how the node is
        #[command(subcommand)]
        command: Option<StatusCommand>,
    },
    /// The connected peers; bans
    Peers {
        /// What to do with peers; without it they are listed
        #[command(subcommand)]
        command: Option<PeersCommand>,
    },
    /// Every limit of the running node: where it comes from, and what of it is in use
    Limits,
    /// The node's actors and their restarts
    Actors {
        /// What to do with actors; without it they are listed
        #[command(subcommand)]
        command: Option<ActorsCommand>,
    },
    /// Publish a message; succeeds without subscribers
    Publish(PublishArgs),
    /// Print a topic's messages as they come, one a line
    Subscribe(SubscribeArgs),
    /// Jobs: have peers run programs, see what this node runs for others
    #[command(subcommand)]
    Job(job::JobCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Credentials: request, issue, delegate, import, show, verify
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Whom this node believes
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Let a new node be enrolled by one command; needs a running node that issues
    Invite(InviteArgs),
    /// Enrol this machine's node with an invitation: configuration, key, credential and trust
    Join(JoinArgs),
    /// What a peer signed about a job it ran: verify, show
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Who may do what: check and test policies, explain a decision
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Run a private network of node processes on this machine
    Devnet(DevnetArgs),
    /// Stop the running node in order
    Stop,
    /// Be a worker process: the node starts these itself
    #[command(name = "sandbox-worker", hide = true)]
    SandboxWorker,
}

/// `status …`
#[derive(Debug, Subcommand)]
pub enum StatusCommand {
    /// The status lists that are known: what issuers took back
    List,
    /// One issuer's status list
    Show {
        /// The issuer's name
        issuer: Name,
    },
    /// Take a status list, and tell all peers of it
    Import {
        /// The list, as `identity revoke` wrote it
        file: PathBuf,
    },
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Where node.toml and data/ go; made when missing
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `invite`.
#[derive(Debug, Clone, Args)]
pub struct InviteArgs {
    /// The name the new node gets, in the issuer's name space
    #[arg(long, value_name = "NAME")]
    pub subject: Name,
    /// A group it gets; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<Name>,
    /// How long the invitation can be used, at most 7 days
    #[arg(long, default_value = "1h", value_name = "SPAN")]
    pub expires: Span,
    /// Where the new node reaches this one, without /p2p; may be repeated [default: where it
    /// listens]
    #[arg(long = "address", value_name = "MULTIADDR")]
    pub addresses: Vec<Multiaddr>,
}

/// Arguments of `join`.
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// The invitation, or - to read it from standard input, where no list of processes shows it
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// Where node.toml and data/ go; made when missing
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with the configuration, and what would be right
    Check,
    /// Print the configuration in force
    Show {
        /// Say of each key where its value came from
        #[arg(long)]
        origin: bool,
    },
    /// Print the commented default configuration
    Default,
    /// Have the running node read its configuration and policies again
    Reload,
}

/// `peers …`
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Ban a peer, a member or an address
    Ban {
        /// A peer id, an IP address, or a member as issuer/subject (acme/node-3), which stays
        /// banned whatever key it comes with
        #[arg(value_parser = party)]
        party: Party,
        /// How long
        #[arg(long = "for", default_value = "1h", value_name = "SPAN")]
        span: Span,
        /// Why; goes into the audit log
        #[arg(long, default_value = "by hand", value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Lift a ban
    Unban {
        /// A peer id, an IP address, or a member as issuer/subject (acme/node-3)
        #[arg(value_parser = party)]
        party: Party,
    },
    /// The bans in force
    Bans,
    /// Put a peer or a member in quarantine: it stays connected, may talk on
    /// policy.restricted_topics, and runs nothing
    Quarantine {
        /// A member as issuer/subject (acme/node-3), or a peer id: that holds the key, and the member
        /// that it is when it is connected
        #[arg(value_parser = party)]
        party: Party,
        /// How long
        #[arg(long = "for", default_value = "1h", value_name = "SPAN")]
        span: Span,
        /// Why; goes into the audit log
        #[arg(long, default_value = "by hand", value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Release a peer or a member from quarantine
    Release {
        /// A peer id, or a member as issuer/subject (acme/node-3)
        #[arg(value_parser = party)]
        party: Party,
    },
    /// Who is in quarantine
    Quarantined,
}

/// `actors …`
#[derive(Debug, Subcommand)]
pub enum ActorsCommand {
    /// Restart an actor with fresh state
    Restart {
        /// The actor's name
        name: String,
    },
    /// Print an actor's observable state
    Show {
        /// The actor's name
        name: String,
    },
    /// Inject a fault (needs testing.fault_injection)
    #[command(hide = true)]
    Inject {
        /// The actor's name
        name: String,
        /// What kind
        #[arg(value_enum)]
        kind: Fault,
    },
}

/// Kinds of injected faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The handler panics
    Panic,
    /// The actor reports an error
    Error,
    /// The actor waits for ever
    Hang,
    /// The actor blocks its thread
    Block,
}

impl From<Fault> for FaultKind {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Panic => Self::Panic,
            Fault::Error => Self::Error,
            Fault::Hang => Self::Hang,
            Fault::Block => Self::Block,
        }
    }
}

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The topic
    pub topic: Topic,
    /// The payload as text
    #[arg(long, value_name = "TEXT", group = "payload")]
    pub data: Option<String>,
    /// The payload from a file
    #[arg(long, value_name = "FILE", group = "payload")]
    pub file: Option<PathBuf>,
    /// Seal it to a peer, or to everybody in a group (ISSUER/GROUP); may be repeated
    #[arg(long, value_name = "PEER|GROUP")]
    pub seal_to: Vec<SealTo>,
    /// Publish each line of standard input as a message of its own, as fast as the network takes them
    #[arg(long, group = "payload", conflicts_with = "traceparent")]
    pub lines: bool,
    /// What the publisher is doing, as W3C Trace Context has it; receivers link to it
    #[arg(long, value_name = "00-TRACE-SPAN-FLAGS")]
    pub traceparent: Option<String>,
    /// The tracers' state beside it
    #[arg(long, value_name = "KEY=VALUE,...", requires = "traceparent")]
    pub tracestate: Option<String>,
    /// `-`: the payload from standard input, as without any of these
    #[arg(value_name = "-", value_parser = ["-"], group = "payload")]
    pub stdin: Option<String>,
}

/// Arguments of `subscribe`.
#[derive(Debug, Args)]
pub struct SubscribeArgs {
    /// The topic
    pub topic: Topic,
    /// End with exit code 0 after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so long: with exit code 0, or 75 when --count was not reached
    #[arg(long, value_name = "SPAN")]
    pub timeout: Option<Span>,
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the newest records of the running node
    Tail {
        /// How many
        #[arg(short = 'n', long = "lines", default_value_t = 10, value_name = "N")]
        lines: usize,
        /// Go on with every record that is written from then on
        #[arg(long)]
        follow: bool,
    },
    /// Verify the log, without a running node: 0 intact, 65 damaged
    Verify(AuditVerifyArgs),
    /// Sign a checkpoint of the running node's log and print it: keep it elsewhere
    Checkpoint,
    /// Print the keys that sign the log's checkpoints, for `audit verify --key`
    Key,
    /// Prove that a record is in the log, without a running node
    Prove {
        /// The record's sequence, or its id
        record: Which,
        /// The log's directory [default: DATA/audit of the configuration]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Where the proof goes; must not exist [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Close the log's segment and begin the next
    Rotate,
}

/// Arguments of `audit verify`.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditVerifyArgs {
    /// The log's directory [default: DATA/audit of the configuration]
    #[arg(long, value_name = "DIR", conflicts_with = "proof")]
    pub dir: Option<PathBuf>,
    /// Who must have signed: a file as `audit key` prints it, one such key, or the node's peer id
    /// (its Ed25519 key alone); may be repeated, for a node that changed its keys
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// A checkpoint that was kept elsewhere: the log has to continue it
    #[arg(long, value_name = "FILE", conflicts_with = "proof")]
    pub checkpoint: Option<PathBuf>,
    /// Verify this proof of a record instead of a log
    #[arg(long, value_name = "FILE", requires = "keys")]
    pub proof: Option<PathBuf>,
}

/// Arguments of `devnet`.
#[derive(Debug, Clone, Args)]
pub struct DevnetArgs {
    /// How many nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_NODES))]
    pub nodes: u16,
    /// How many issuers; the nodes are shared out among them
    #[arg(long, default_value_t = 1, value_name = "M",
          value_parser = clap::value_parser!(u16).range(1..=MAX_NODES))]
    pub issuers: u16,
    /// Where node-1/, node-2/ … go [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Copy, Args)]
pub struct RunArgs {
    /// Stop in order when standard input is closed; `devnet` runs its nodes so
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// A network (`10.0.0.0/8`) has the form of a subject, and an operator who means one shall not
/// believe that it is banned.
fn party(text: &str) -> Result<Party, String> {
    let party: Party = text.parse()?;
    match &party {
        Party::Subject(subject) if subject.issuer().as_str().parse::<IpAddr>().is_ok() => {
            Err("networks are not banned: name an address, or issuer/subject".to_owned())
        }
        _ => Ok(party),
    }
}

fn reason(text: &str) -> Result<String, String> {
    if text.chars().count() > MAX_TEXT {
        return Err(format!("at most {MAX_TEXT} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
