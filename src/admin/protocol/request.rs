//! What clients ask for.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::response::Response;

use crate::{
    identity::{Name, sealed::SealTo},
    network::Trace,
    sandbox::{ContentHash, JobId, JobSpec},
    types::{Party, PeerId, Span, Topic},
};

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
        /// What the publisher is doing, for whoever follows traces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Trace>,
    },
    /// Publishes many messages in order: [`Response::StreamReady`], then a
    /// [`StreamedMessage`](super::StreamedMessage) a line until the client closes its end, answered by
    /// [`Response::StreamProgress`] lines and at the end by [`Response::StreamDone`]. The node reads no
    /// faster than the network takes them.
    PublishStream {
        /// The topic.
        topic: Topic,
        /// To whom they are sealed; nobody: they are not.
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
        /// How many; more than `messages::audit::Tail::MAX` are cut to it. From afar at most
        /// `admin::remote::MAX_TAIL`.
        count: usize,
        /// Only those after the record of this sequence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Closes the log's segment and begins the next. Answered by [`Response::Rotated`].
    AuditRotate {},
    /// Signs a checkpoint over the log. Answered by [`Response::Checkpoint`].
    AuditCheckpoint {},
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
        /// Why; at most [`super::MAX_TEXT`] characters.
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
        /// Why; at most [`super::MAX_TEXT`] characters.
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
        /// Whether it goes on with a stream that began before: then it is not on record once more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
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
            Self::PublishStream { .. } => "publish_stream",
            Self::Subscribe { .. } => "subscribe",
            Self::AuditTail { .. } => "audit_tail",
            Self::AuditRotate {} => "audit_rotate",
            Self::AuditCheckpoint {} => "audit_checkpoint",
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
                | Self::AuditCheckpoint {}
                | Self::IdentityReload {}
                | Self::StatusImport { .. }
                | Self::Ban { .. }
                | Self::Unban { .. }
                | Self::Quarantine { .. }
                | Self::Release { .. }
                | Self::ConfigReload {}
                | Self::Invite { .. }
                | Self::JobCancel { .. }
                | Self::Remote { again: false, .. }
                | Self::Shutdown {}
        ) || matches!(self, Self::Remote { request, .. } if !request.is_stream())
    }

    /// Whether the command reads something that goes on: from afar it is asked again and again, from
    /// where the last answer ended.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::AuditTail { .. } | Self::JobFollow { .. })
    }
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
