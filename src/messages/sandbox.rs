//! Sandbox: what peers ask it to run, and what the operator asks of the jobs it runs.
//!
//! The mailbox is bounded: when it is full the sender gets `Overloaded`, and refuses the peer.

use std::{sync::Arc, time::Duration};

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::{
    identity::VerifiedIdentity,
    sandbox::{
        ContentHash, JobId, JobState, Limits, Outcome, Usage,
        sent::SentFault,
        wire::{Request, Response},
    },
    types::{Footing, PeerId, Timestamp},
};

// Used by Swarm, and by Jobs for what this node runs itself.

/// A request of the job protocol. Answered when it is carried out; a `Fetch` may wait.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct JobRequest {
    /// Who sent it, as the connection proved it.
    pub peer: PeerId,
    /// Its verified credential; `None` for peers without one.
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// The epoch of the trust entries under which it was verified.
    pub epoch: u64,
    /// How it is connected; `None` for this node's own requests.
    pub footing: Option<Footing>,
    /// What it asks.
    pub request: Request,
}

// Used by Admin.

/// The jobs it knows, newest first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<JobReport>")]
pub struct ListJobs;

/// One job.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<JobReport>")]
pub struct DescribeJob {
    /// Which.
    pub job: JobId,
}

/// What a job wrote, from these cursors on; waits for news.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<JobNews>")]
pub struct FollowJob {
    /// Which.
    pub job: JobId,
    /// Bytes of stdout that are known.
    pub stdout: u64,
    /// Bytes of stderr that are known.
    pub stderr: u64,
    /// How long to wait when there is nothing new.
    pub wait: Duration,
}

/// Cancels a job, in the operator's name.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<JobState>")]
pub struct CancelJob {
    /// Which.
    pub job: JobId,
}

// Used by the node at shutdown.

/// Starts nothing more, ends the workers and writes everything down. What ran goes on with the
/// next start.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), String>")]
pub struct DrainJobs;

/// What is new of a job's output. Shared by both sides' actors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobNews {
    /// Stdout from the cursor on.
    pub stdout: Vec<u8>,
    /// Stderr from the cursor on.
    pub stderr: Vec<u8>,
    /// The job, once it is finished and nothing is left to read.
    pub finished: Option<Box<JobReport>>,
}

/// On which side of a job this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobRole {
    /// It runs the job.
    Executor,
    /// It gave the job away.
    Submitter,
}

impl JobRole {
    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Executor => "executor",
            Self::Submitter => "submitter",
        }
    }
}

/// One job, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its id.
    pub job: JobId,
    /// What this node is to it.
    pub role: JobRole,
    /// The other side.
    pub peer: PeerId,
    /// The submitter's `issuer/subject`, where this node is the executor and knows it.
    pub identity: Option<String>,
    /// The module.
    pub module: ContentHash,
    /// The arguments.
    pub arguments: Vec<String>,
    /// Where it is.
    pub state: JobState,
    /// What became of it, by the receipt.
    pub outcome: Option<Outcome>,
    /// Why there is no result, where this node is the submitter and got none.
    pub fault: Option<SentFault>,
    /// What it may use; unknown until the executor accepted it.
    pub limits: Option<Limits>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How often it was begun.
    pub attempt: u32,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Bytes of stdout so far.
    pub stdout: u64,
    /// Bytes of stderr so far.
    pub stderr: u64,
    /// The receipt, hex: SHA-256 of it is what both audit logs name.
    #[serde(with = "hex_option")]
    pub receipt: Option<Vec<u8>>,
}

mod hex_option {
    //! Bytes that may be absent, as hex.
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(hex::decode)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}
