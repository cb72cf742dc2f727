//! The language of `DATA/admin.sock`: one JSON object a line, both ways.
//!
//! A client sends one [`Request`] and reads [`Response`] lines. Every request is answered by
//! exactly one line, except three that stream: `subscribe` ([`Response::Subscribed`], then a line
//! a message until the client hangs up) and `audit_tail` (a line a record, then
//! [`Response::Done`]), and `job_follow` (output as it comes, then [`Response::Job`]). [`Response::Error`] may stand in place of any line and is the last one.
//!
//! Payload bytes travel as lower-case hex: half as dense as the bytes, but readable with any
//! tool and without a dependency. [`MAX_LINE`] is chosen so that the largest payload fits.
//!
//! Who may talk is decided by the file system: the socket has mode 0600.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{Name, sealed::SealTo, status::ListReport},
    messages::{
        enrolment::Invitation,
        identity::IdentityReport,
        policy::PolicyReport,
        reputation::BanInfo,
        sandbox::JobReport,
        settings::SettingsReport,
        swarm::{Delivery, PeerReport, Published},
    },
    sandbox::{ContentHash, JobId, JobSpec, JobState, Stream},
    trust::quarantine::QuarantineInfo,
    types::{Party, PeerId, Span, Timestamp, Topic},
};

/// The socket's file name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Most bytes of a payload: the upper bound of `limits.max_message_size`, above its default of
/// 10 MB so that an operator can raise it a little without a new version of the protocol.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Most bytes of a line, its end not counted: the largest payload in hex (2 characters a byte)
/// and 64 KiB for everything around it. A longer line ends the connection.
pub const MAX_LINE: usize = 2 * MAX_PAYLOAD + (64 << 10);

/// Most characters of a free text in a request (reasons): it ends up in the audit log.
pub const MAX_TEXT: usize = 256;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the node is. Answered by [`Response::Status`].
    Status {},
    /// The connected peers. Answered by [`Response::Peers`].
    Peers {},
    /// Every limit with its origin and its use. Answered by [`Response::Limits`].
    Limits {},
    /// Every actor with its supervision. Answered by [`Response::Actors`].
    Actors {},
    /// An actor's observable state. Answered by [`Response::Observed`].
    Observe {
        /// The actor's name.
        actor: String,
    },
    /// Restarts an actor. Answered by [`Response::Restarted`], the admin actor's own too.
    Restart {
        /// The actor's name.
        actor: String,
    },
    /// Injects a fault; refused unless `testing.fault_injection` is set. Answered by
    /// [`Response::Injected`].
    Inject {
        /// The actor's name.
        actor: String,
        /// What kind.
        kind: FaultKind,
    },
    /// Publishes a message. Answered by [`Response::Published`], without listeners too.
    Publish {
        /// The topic.
        topic: Topic,
        /// The payload, in hex on the wire.
        #[serde(with = "hex::serde")]
        payload: Vec<u8>,
        /// To whom it is sealed; nobody: it is not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seal_to: Vec<SealTo>,
    },
    /// Streams the topic's messages: [`Response::Subscribed`] once the subscription stands,
    /// then [`Response::Message`] and [`Response::Lagged`] until the client hangs up.
    Subscribe {
        /// The topic.
        topic: Topic,
    },
    /// The newest records of the log, oldest first: [`Response::AuditRecord`] lines, then
    /// [`Response::Done`].
    AuditTail {
        /// How many; more than `messages::audit::Tail::MAX` are cut to it.
        count: usize,
    },
    /// Closes the log's segment and begins the next. Answered by [`Response::Rotated`].
    AuditRotate {},
    /// Reads credential and trust anchors from disk again. Answered by
    /// [`Response::IdentityReloaded`].
    IdentityReload {},
    /// The status lists that are known. Answered by [`Response::StatusLists`].
    StatusLists {},
    /// Takes a status list. Answered by [`Response::StatusImported`] once it is in force and on
    /// the disk.
    StatusImport {
        /// The list, in hex on the wire; at most `MAX_STATUS_BYTES` of the identity room.
        #[serde(with = "hex::serde")]
        bytes: Vec<u8>,
    },
    /// Bans a party. Answered by [`Response::Banned`].
    Ban {
        /// Who.
        party: Party,
        /// How long.
        span: Span,
        /// Why; at most [`MAX_TEXT`] characters.
        reason: String,
    },
    /// Lifts a ban. Answered by [`Response::Unbanned`].
    Unban {
        /// Who.
        party: Party,
    },
    /// The bans in force. Answered by [`Response::Bans`].
    Bans {},
    /// Puts a party in quarantine. Answered by [`Response::Quarantined`].
    Quarantine {
        /// Who.
        party: Party,
        /// How long.
        span: Span,
        /// Why; at most [`MAX_TEXT`] characters.
        reason: String,
    },
    /// Releases a party. Answered by [`Response::Released`].
    Release {
        /// Who.
        party: Party,
    },
    /// Who is in quarantine. Answered by [`Response::Quarantines`].
    Quarantines {},
    /// The policies in force. Answered by [`Response::Policies`].
    Policies {},
    /// Reads configuration and policies again. Answered by [`Response::ConfigReloaded`].
    ConfigReload {},
    /// Makes an invitation. Answered by [`Response::Invited`].
    Invite {
        /// The subject its holder becomes.
        subject: Name,
        /// Its groups, without the issuer's prefix.
        groups: Vec<Name>,
        /// How long it can be used.
        open_for: Span,
        /// Where this node can be reached; none: where it listens.
        addresses: Vec<String>,
    },
    /// The next piece of a module or an input of a job to be submitted. Answered by
    /// [`Response::Uploaded`], also when the piece does not begin where the next one should.
    JobUpload {
        /// SHA-256 of the whole.
        blob: ContentHash,
        /// Size of the whole, bytes.
        size: u64,
        /// Where this piece begins.
        offset: u64,
        /// The piece, in hex on the wire; at most 256 KiB.
        #[serde(with = "hex::serde")]
        bytes: Vec<u8>,
    },
    /// The key to seal a peer's job input to; without a peer, this node's. Answered by
    /// [`Response::SealingKey`].
    SealingKey {
        /// Who is to read it.
        peer: Option<PeerId>,
    },
    /// Gives a job to an executor. Answered by [`Response::JobSubmitted`].
    JobSubmit {
        /// Who shall run it; this node when absent.
        executor: Option<PeerId>,
        /// What; module and input were uploaded before.
        spec: Box<JobSpec>,
    },
    /// The jobs this node runs or gave away. Answered by [`Response::Jobs`].
    Jobs {},
    /// One job. Answered by [`Response::Job`].
    JobShow {
        /// Which.
        job: JobId,
    },
    /// Streams a job's output from these cursors on: [`Response::JobOutput`] lines, then
    /// [`Response::Job`] when it is finished, or [`Response::Done`] when `wait` is false and
    /// nothing is left.
    JobFollow {
        /// Which.
        job: JobId,
        /// Bytes of stdout that are known.
        stdout: u64,
        /// Bytes of stderr that are known.
        stderr: u64,
        /// Whether to wait for the job's end.
        wait: bool,
    },
    /// Cancels a job. Answered by [`Response::JobCancelled`].
    JobCancel {
        /// Which.
        job: JobId,
    },
    /// Has a connected peer carry out a command; answered as the command is. Whether it does is
    /// the peer's policies' business.
    Remote {
        /// The peer.
        node: PeerId,
        /// The command.
        request: Box<Request>,
    },
    /// Stops the node in order. Answered by [`Response::ShuttingDown`] before it begins.
    Shutdown {},
}

impl Request {
    /// The command's name, as the audit log and the wire write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status {} => "status",
            Self::Peers {} => "peers",
            Self::Limits {} => "limits",
            Self::Actors {} => "actors",
            Self::Observe { .. } => "observe",
            Self::Restart { .. } => "restart",
            Self::Inject { .. } => "inject",
            Self::Publish { .. } => "publish",
            Self::Subscribe { .. } => "subscribe",
            Self::AuditTail { .. } => "audit_tail",
            Self::AuditRotate {} => "audit_rotate",
            Self::IdentityReload {} => "identity_reload",
            Self::StatusLists {} => "status_lists",
            Self::StatusImport { .. } => "status_import",
            Self::Ban { .. } => "ban",
            Self::Unban { .. } => "unban",
            Self::Bans {} => "bans",
            Self::Quarantine { .. } => "quarantine",
            Self::Release { .. } => "release",
            Self::Quarantines {} => "quarantines",
            Self::Policies {} => "policies",
            Self::ConfigReload {} => "config_reload",
            Self::Invite { .. } => "invite",
            Self::JobUpload { .. } => "job_upload",
            Self::SealingKey { .. } => "sealing_key",
            Self::JobSubmit { .. } => "job_submit",
            Self::Jobs {} => "jobs",
            Self::JobShow { .. } => "job_show",
            Self::JobFollow { .. } => "job_follow",
            Self::JobCancel { .. } => "job_cancel",
            Self::Remote { .. } => "remote",
            Self::Shutdown {} => "shutdown",
        }
    }

    /// Whether the command changes something and so is audited as an administration event.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        matches!(
            self,
            Self::Restart { .. }
                | Self::Inject { .. }
                | Self::AuditRotate {}
                | Self::IdentityReload {}
                | Self::StatusImport { .. }
                | Self::Ban { .. }
                | Self::Unban { .. }
                | Self::Quarantine { .. }
                | Self::Release { .. }
                | Self::ConfigReload {}
                | Self::Invite { .. }
                | Self::JobCancel { .. }
                | Self::Remote { .. }
                | Self::Shutdown {}
        )
    }
}

/// One limit of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReport {
    /// `limits.KEY`, or what a limit without a key is of.
    pub name: String,
    /// What is in force, as the configuration writes it.
    pub value: String,
    /// How much of it is in use now, in its unit (bytes for sizes), where that is known.
    pub used: Option<u64>,
    /// Where the value comes from: who set it, or what it was lowered for.
    pub origin: String,
}

/// A fault that tests inject into an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The handler panics.
    Panic,
    /// The actor reports an error.
    Error,
    /// The actor waits for ever without blocking its thread.
    Hang,
    /// The actor blocks its thread.
    Block,
}

/// What the node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// To `status`.
    Status(Box<StatusReport>),
    /// To `peers`.
    Peers {
        /// One entry a connection.
        peers: Vec<PeerReport>,
    },
    /// To `limits`.
    Limits {
        /// Those of the configuration by name, then those without a key.
        limits: Vec<LimitReport>,
    },
    /// To `actors`.
    Actors {
        /// In order of start.
        actors: Vec<ActorReport>,
    },
    /// To `observe`.
    Observed {
        /// The actor's name.
        actor: String,
        /// Its observable state.
        state: serde_json::Value,
    },
    /// To `restart`: the actor is being restarted.
    Restarted {
        /// The actor's name.
        actor: String,
    },
    /// To `inject`: the fault was delivered.
    Injected {
        /// The actor's name.
        actor: String,
    },
    /// To `publish`.
    Published(Published),
    /// A key to seal to.
    SealingKey {
        /// Who seals: this node.
        sender: PeerId,
        /// Who is to read it.
        peer: PeerId,
        /// Its X-Wing key, in hex on the wire.
        #[serde(with = "hex::serde")]
        key: Vec<u8>,
    },
    /// To `subscribe`: the subscription stands, messages follow.
    Subscribed {
        /// The topic.
        topic: Topic,
    },
    /// A message of a subscription.
    Message(MessageReport),
    /// So many messages of a subscription were dropped: the client reads too slowly.
    Lagged {
        /// How many since the last line.
        dropped: u64,
    },
    /// A record of the log, exactly as its line in the segment.
    AuditRecord {
        /// The line, without its end.
        line: String,
    },
    /// A stream ended well.
    Done {},
    /// To `audit_rotate`.
    Rotated {
        /// File name of the new segment.
        segment: String,
    },
    /// To `identity_reload`.
    IdentityReloaded(IdentityReport),
    /// To `status_lists`.
    StatusLists {
        /// By issuer.
        lists: Vec<ListReport>,
    },
    /// To `status_import`.
    StatusImported(ListReport),
    /// To `ban`.
    Banned(BanInfo),
    /// To `unban`.
    Unbanned {
        /// Who.
        party: Party,
        /// Whether there was a ban to lift.
        lifted: bool,
    },
    /// To `bans`.
    Bans {
        /// In order of their end.
        bans: Vec<BanInfo>,
    },
    /// To `quarantine`.
    Quarantined(QuarantineInfo),
    /// To `release`.
    Released {
        /// Who.
        party: Party,
        /// Whether it was in quarantine.
        released: bool,
    },
    /// To `quarantines`.
    Quarantines {
        /// By party.
        quarantines: Vec<QuarantineInfo>,
    },
    /// To `policies`.
    Policies(PolicyReport),
    /// To `config_reload`.
    ConfigReloaded(SettingsReport),
    /// To `invite`.
    Invited(Invitation),
    /// To `job_upload`.
    Uploaded {
        /// Bytes of the blob that are here now: where the next piece begins.
        have: u64,
    },
    /// To `job_submit`: it is written down, and goes on whatever becomes of the client.
    JobSubmitted {
        /// Its id.
        job: JobId,
        /// Who runs it.
        executor: PeerId,
    },
    /// To `jobs`.
    Jobs {
        /// Newest first.
        jobs: Vec<JobReport>,
    },
    /// To `job_show`, and the end of a `job_follow`.
    Job(Box<JobReport>),
    /// Output of a job.
    JobOutput {
        /// Which.
        stream: Stream,
        /// In hex on the wire.
        #[serde(with = "hex::serde")]
        bytes: Vec<u8>,
    },
    /// To `job_cancel`: it is being cancelled, or had ended before.
    JobCancelled {
        /// Which.
        job: JobId,
        /// Where it was.
        state: JobState,
    },
    /// To `shutdown`.
    ShuttingDown {},
    /// Instead of any of them.
    Error(Failure),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind, for programs.
    pub code: FailureCode,
    /// What happened and what would help, for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Kinds of failure; `cli::exit` says which exit code each becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request is not understood, or an argument is out of bounds.
    Invalid,
    /// There is no actor of that name.
    UnknownActor,
    /// There is no job of that id.
    UnknownJob,
    /// The access decision, or the configuration, forbids it.
    Denied,
    /// The payload is larger than `limits.max_message_size`.
    TooLarge,
    /// An actor restarted, is overloaded or did not answer in time: trying again may help.
    Again,
    /// A part of the node is down.
    Unavailable,
    /// Reading or writing failed.
    Io,
    /// Anything else.
    Failed,
}

/// How the node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the program, with its git revision when known.
    pub version: String,
    /// The operating system's process id.
    pub pid: u32,
    /// The node's peer id.
    pub peer_id: PeerId,
    /// Since when it runs.
    pub started: Timestamp,
    /// How long it runs, milliseconds.
    pub uptime_ms: u64,
    /// Whether it does its job, as `/ready` says.
    pub ready: bool,
    /// Why not, or what needs an eye on.
    pub reasons: Vec<String>,
    /// Addresses it listens on, as multiaddresses that end in `/p2p/PEER`.
    pub listen: Vec<String>,
    /// Connected peers.
    pub connected: usize,
    /// Bootstrap peers that are not connected now.
    pub missing_bootstrap: Vec<PeerId>,
    /// Local subscriptions.
    pub topics: Vec<Topic>,
    /// `issuer/subject` of the own credential, when there is one.
    pub credential: Option<String>,
    /// When it expires.
    pub credential_expires: Option<Timestamp>,
    /// Names of the trusted issuers.
    pub trusted_issuers: Vec<String>,
    /// Where `/live`, `/ready` and `/metrics` are.
    pub http: Option<std::net::SocketAddr>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration file, when there is one.
    pub config: Option<PathBuf>,
    /// Whether faults can be injected.
    pub fault_injection: bool,
}

/// One actor, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// Its name.
    pub name: String,
    /// `running`, `backoff`, `building`, `down` or `stopped`.
    pub state: String,
    /// Counts its incarnations.
    pub generation: u64,
    /// Restarts since the node started.
    pub restarts: u64,
    /// The same, by cause.
    pub restarts_by_cause: BTreeMap<String, u64>,
    /// The last fault.
    pub last_fault: Option<ActorFault>,
    /// Messages that wait.
    pub mailbox: usize,
    /// Messages that may wait.
    pub mailbox_capacity: usize,
    /// How long this incarnation runs, milliseconds.
    pub uptime_ms: u64,
}

/// A fault of an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorFault {
    /// `panic`, `error`, `exit`, `stall`, `admin` or `build`.
    pub cause: String,
    /// The panic's or error's text.
    pub detail: String,
    /// When.
    pub at: Timestamp,
    /// Whose input was being handled.
    pub blamed: Option<Party>,
}

/// A message of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReport {
    /// The topic.
    pub topic: Topic,
    /// Who signed it.
    pub author: PeerId,
    /// When the author says it was sent.
    pub sent: Timestamp,
    /// The payload, in hex on the wire.
    #[serde(with = "hex::serde")]
    pub payload: Vec<u8>,
    /// Whether it came sealed.
    #[serde(default)]
    pub sealed: bool,
}

impl From<Delivery> for MessageReport {
    fn from(delivery: Delivery) -> Self {
        let Delivery {
            topic,
            author,
            sent,
            payload,
            sealed,
        } = delivery;
        Self {
            topic,
            author,
            sent,
            payload,
            sealed,
        }
    }
}

/// Milliseconds of a span, for the wire.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
