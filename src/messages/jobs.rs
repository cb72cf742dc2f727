//! Jobs: what the operator has others run.

use actix::Message;
use thiserror::Error;

use crate::{
    sandbox::{ContentHash, JobId, JobSpec, SpecError},
    types::PeerId,
};

// Used by Admin, beside `ListJobs`, `DescribeJob`, `FollowJob` and `CancelJob`, which it answers
// as Sandbox does.

/// The next piece of a module or an input.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<u64, JobsFault>")]
pub struct UploadPiece {
    /// Which.
    pub blob: ContentHash,
    /// Its size, bytes.
    pub size: u64,
    /// Where this piece begins: what is here already, or the answer says how much that is.
    pub offset: u64,
    /// The piece, at most [`crate::sandbox::MAX_PIECE`] bytes.
    pub bytes: Vec<u8>,
}

/// Gives a job to an executor. Answered as soon as it is written down.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<JobId, JobsFault>")]
pub struct SubmitJob {
    /// Who shall run it; `None`: this node.
    pub executor: Option<PeerId>,
    /// What. Module and input are uploaded before.
    pub spec: JobSpec,
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JobsFault {
    /// Its texts break a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The same key was used for another job.
    #[error("job {0} was submitted before, and was another: use another --idempotency-key")]
    KeyReused(JobId),
    /// Too many are unfinished.
    #[error("{0} jobs are unfinished: wait, cancel some, or raise jobs.unfinished")]
    TooMany(usize),
    /// Module or input are not here.
    #[error("{0} is not uploaded: submit again")]
    Missing(ContentHash),
    /// The blob is larger than all room for blobs, or what is there is in use.
    #[error("no room for it: wait for unfinished jobs, or raise jobs.storage")]
    NoRoom,
    /// The bytes are not those of the hash.
    #[error("the bytes are not those of {0}: was the file changed meanwhile?")]
    WrongHash(ContentHash),
    /// The piece is too large or begins elsewhere.
    #[error("a piece of a blob is out of place: submit again")]
    OutOfPlace,
    /// The disk or the store fails.
    #[error("the disk: {0}")]
    Io(String),
    /// The audit log cannot record it.
    #[error("not recorded, so not done: {0}")]
    Audit(String),
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}
