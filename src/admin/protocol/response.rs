//! What the node answers.

use serde::{Deserialize, Serialize};

use super::{ActorReport, Failure, LimitReport, MessageReport, StatusReport};
use crate::{
    audit::merkle::Hash,
    identity::status::ListReport,
    messages::{
        enrolment::Invitation,
        identity::IdentityReport,
        policy::PolicyReport,
        reputation::BanInfo,
        sandbox::JobReport,
        settings::SettingsReport,
        swarm::{PeerReport, Published},
    },
    sandbox::{JobId, JobState, Stream},
    trust::quarantine::QuarantineInfo,
    types::{Party, PeerId, Topic},
};

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
    /// To `publish_stream`: lines may come.
    StreamReady {},
    /// Some of the lines were published.
    StreamProgress {
        /// So many since the stream began.
        published: u64,
        /// How often the network was too slow, and it waited.
        pushed_back: u64,
    },
    /// All of them were.
    StreamDone {
        /// So many.
        published: u64,
        /// How often the network was too slow, and it waited.
        pushed_back: u64,
    },
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
    /// A stream ended well; within [`Response::Batch`]: there is no more now.
    Done {},
    /// From afar, what a stream says next: as many of its lines as fit into one answer.
    Batch {
        /// The lines.
        lines: Vec<Response>,
    },
    /// To `audit_rotate`.
    Rotated {
        /// File name of the new segment.
        segment: String,
    },
    /// To `audit_checkpoint`.
    Checkpoint {
        /// Which log.
        origin: String,
        /// How many records it speaks of.
        size: u64,
        /// The root over them, hex.
        root: Hash,
        /// The checkpoint as a signed note.
        note: String,
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
    Quarantined {
        /// Who is held: the party that was named, and for a connected member's key its name too.
        quarantines: Vec<QuarantineInfo>,
    },
    /// To `release`.
    Released {
        /// Those that were in quarantine: of the party that was named, and the member it is.
        parties: Vec<Party>,
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
