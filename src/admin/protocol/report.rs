//! What answers are made of that no other room describes.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    messages::swarm::{Delivery, Reachability},
    network::Trace,
    types::{Party, PeerId, Timestamp, Topic},
};

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
    /// Whether others can reach it, as far as it had that tried.
    #[serde(default)]
    pub reachability: Reachability,
    /// Where, as it tells others.
    #[serde(default)]
    pub external: Vec<String>,
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
    /// What its author was doing, when it said so: for a link, not for a parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Box<Trace>>,
}

impl From<Delivery> for MessageReport {
    fn from(delivery: Delivery) -> Self {
        let Delivery {
            topic,
            author,
            sent,
            payload,
            sealed,
            trace,
        } = delivery;
        Self {
            topic,
            author,
            sent,
            payload,
            sealed,
            trace,
        }
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
