//! Swarm: publishing, subscribing, and the peers it is connected to.

use std::time::Duration;

use actix::{Message, dev::MessageResponse};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    identity::{
        enrolment,
        sealed::{SealTo, XWingPublic},
        wire,
    },
    network::{
        Trace,
        outward::{HeldBy, State},
    },
    sandbox::wire::{Request, Response},
    types::{PeerId, SecurityInfo, Span, Timestamp, Topic},
};

/// A message as it reaches a local subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The topic.
    pub topic: Topic,
    /// Who signed it.
    pub author: PeerId,
    /// When the author says it was sent.
    pub sent: Timestamp,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether it came sealed: those who carried it could not read it.
    pub sealed: bool,
    /// What its author was doing: to be linked to, never to be obeyed.
    pub trace: Option<Box<Trace>>,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishFault {
    /// The access decision denied it; the rule's name.
    #[error("denied by rule {0}")]
    Denied(String),
    /// Larger than `network.max_message_size` allows.
    #[error("the message has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Most bytes of a payload.
        limit: usize,
    },
    /// Over this node's own budget, to which its neighbours hold it as well.
    #[error(
        "over this node's own budget of messages (limits.messages_per_second, limits.message_burst): try again in {0:?}"
    )]
    OverRate(Duration),
    /// Too much waits to be sent, here or for every neighbour: try again in so long.
    #[error("too much waits to be sent to the neighbours: try again in {0:?}")]
    Backpressure(Duration),
    /// It was tried, and every neighbour's queue was full: none of them had it then, but they may have
    /// asked for it since. Published again it could arrive twice.
    #[error("the neighbours took it too slowly: it may have been sent, or not")]
    Unsure,
    /// The network layer refused it.
    #[error("not published: {0}")]
    Failed(String),
}

/// What publishing came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The gossip message id, hex; absent when no neighbour listens to the topic.
    pub message_id: Option<String>,
    /// Neighbours known to listen to the topic at this moment.
    pub listeners: usize,
}

// Used by Admin.

/// Publishes a message. Answered when the batch in which it travels was handed to the network.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<Published, PublishFault>")]
pub struct Publish {
    /// The topic.
    pub topic: Topic,
    /// The payload.
    pub payload: Vec<u8>,
    /// To whom it is sealed; nobody in particular: it is not.
    pub seal_to: Vec<SealTo>,
    /// What the publisher is doing, for whoever follows traces.
    pub trace: Option<Trace>,
}

/// Publishes several messages in order. Answered when the last that was accepted was handed to the
/// network.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "PublishedMany")]
pub struct PublishMany {
    /// The topic.
    pub topic: Topic,
    /// The payloads, at most [`MAX_MANY`]; more are not accepted.
    pub payloads: Vec<Vec<u8>>,
    /// To whom all of them are sealed; nobody in particular: they are not.
    pub seal_to: Vec<SealTo>,
}

/// Most messages of one [`PublishMany`].
pub const MAX_MANY: usize = 4_096;

/// What [`PublishMany`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedMany {
    /// So many from the first on were published.
    pub accepted: usize,
    /// Neighbours known to listen to the topic when the last of them was.
    pub listeners: usize,
    /// Why the next was not.
    pub fault: Option<PublishFault>,
}

/// The key to seal a peer's job input to; without a peer, this node's own. It is of a credential
/// that was verified here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "Result<SealingKey, PublishFault>")]
pub struct GetSealingKey {
    /// Who is to read it.
    pub peer: Option<PeerId>,
}

/// Answer to [`GetSealingKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    /// This node, which seals.
    pub sender: PeerId,
    /// Who is to read it.
    pub peer: PeerId,
    /// Its key.
    pub key: XWingPublic,
}

/// Delivers the topic's messages into `sink` until the receiver is dropped. When the sink is
/// full the message is counted and dropped for this subscriber alone, and it is told how many.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), PublishFault>")]
pub struct Subscribe {
    /// The topic.
    pub topic: Topic,
    /// Where to deliver. Bounded by its maker.
    pub sink: mpsc::Sender<Delivered>,
}

/// What a subscriber's sink receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// A message.
    Message(Delivery),
    /// So many messages were dropped since the last one, because the subscriber was too slow.
    Lagged(u64),
}

/// The connected peers.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<PeerReport>")]
pub struct ListPeers;

/// One connected peer, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its name.
    pub peer_id: PeerId,
    /// The remote address as a multiaddress.
    pub address: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// The weakest encryption among its connections, as the transport proved it.
    pub security: SecurityInfo,
    /// Its connections, oldest first; address and direction above are the first one's.
    pub connections: Vec<ConnectionReport>,
    /// Its tier's name.
    pub tier: String,
    /// `issuer/subject`, when verified.
    pub identity: Option<String>,
    /// Who it was, when it showed that it goes on with other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formerly: Option<PeerId>,
    /// When its credential expires.
    pub expires: Option<Timestamp>,
    /// Since when it is connected.
    pub since: Timestamp,
    /// Topics it listens to.
    pub topics: Vec<Topic>,
    /// Round trip measured by ping, microseconds.
    pub rtt_us: Option<u64>,
    /// How calls of this node to it stand.
    #[serde(default)]
    pub calls: CallsReport,
}

/// How calls to one peer stand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallsReport {
    /// Of its breaker.
    pub breaker: State,
    /// Failed calls in a row.
    pub failures: u32,
    /// While it is open: when it is tried again, milliseconds from now.
    pub open_for_ms: Option<u64>,
    /// Calls under way.
    pub under_way: usize,
    /// Calls a second at most; 0 when it was not called yet.
    pub per_second: f64,
}

/// One connection of a peer, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// The remote address as a multiaddress.
    pub address: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// How it is encrypted, as the transport proved it.
    pub security: SecurityInfo,
    /// Whether the peer proved its post-quantum key over it in a way that could not be relayed.
    #[serde(default)]
    pub pq_auth: bool,
    /// The relay it goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
}

/// Where the node listens and how it is connected.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "SwarmReport")]
pub struct DescribeSwarm;

/// Whether others can reach this node, as far as it had that tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// It was not tried.
    #[default]
    Unknown,
    /// At one address at least.
    Reachable,
    /// At none of those that were tried.
    Unreachable,
}

impl Reachability {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Answer to [`DescribeSwarm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmReport {
    /// Addresses it listens on, as multiaddresses that end in `/p2p/PEER`.
    pub listen: Vec<String>,
    /// Whether others can reach it.
    pub reachability: Reachability,
    /// Where, as it tells others.
    pub external: Vec<String>,
    /// Connected peers.
    pub connected: usize,
    /// Bootstrap peers that are not connected now.
    pub missing_bootstrap: Vec<PeerId>,
    /// Local subscriptions.
    pub topics: Vec<Topic>,
}

/// How much of the limits is in use.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "LimitUse")]
pub struct DescribeLimits;

/// Answer to [`DescribeLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, MessageResponse)]
pub struct LimitUse {
    /// Established connections that others dialled.
    pub inbound: u64,
    /// Those that this node dialled.
    pub outbound: u64,
    /// Most connections that one peer has.
    pub most_of_a_peer: u64,
    /// Most connections that one address dialled.
    pub most_of_an_address: u64,
    /// Most connections that one subnet dialled.
    pub most_of_a_subnet: u64,
    /// Inbound handshakes under way.
    pub pending: u64,
    /// Bytes of memory the process took when that was last looked at.
    pub memory: u64,
    /// Keys in the fullest table of budgets.
    pub tracked_keys: u64,
}

// Used by Jobs.

/// Sends a request of the job protocol to a connected peer; answered when its answer came.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Response, SendFault>")]
pub struct SendJobRequest {
    /// To whom.
    pub peer: PeerId,
    /// What.
    pub request: Request,
}

/// Has a peer carry out a command.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<crate::admin::protocol::Response, SendFault>")]
pub struct SendCommand {
    /// The peer.
    pub peer: PeerId,
    /// The command.
    pub command: crate::admin::protocol::Request,
}

/// Why there is no answer of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendFault {
    /// It is not connected.
    #[error("the peer is not connected")]
    NotConnected,
    /// It does not speak the protocol: an older version, or another program.
    #[error("the peer does not speak this protocol")]
    Unsupported,
    /// No answer in time, or the connection broke.
    #[error("the connection broke, or the peer did not answer in time")]
    Broken,
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    Busy,
    /// This node holds itself back.
    #[error("not sent: {by}; try again in {}", Span(*retry_after))]
    Held {
        /// By what.
        by: HeldBy,
        /// When a call may go out again, from now.
        retry_after: Duration,
    },
}

// Used by Revocation.

/// Tells every connected peer of these heads of status lists.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Announce {
    /// The heads, at most [`crate::identity::status::MAX_HEADS`].
    pub heads: Vec<Vec<u8>>,
    /// Who told of them, and knows.
    pub except: Option<PeerId>,
}

/// The connected peers by name.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<PeerId>")]
pub struct Neighbours;

/// Sends a request of the identity protocol to a connected peer; answered when its answer came.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<wire::Response, SendFault>")]
pub struct SendIdentityRequest {
    /// To whom.
    pub peer: PeerId,
    /// What.
    pub request: wire::Request,
}

/// Charges a peer, as what it is connected as, for a message that no honest peer sends.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChargePeer {
    /// Whom.
    pub peer: PeerId,
    /// What it sent, in words.
    pub evidence: String,
}

// Used by the node at shutdown.

/// Stops listening and closes every connection in order.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

// Used by Renewal.

/// Sends a request of the enrolment protocol to a connected peer; answered when its answer came.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<enrolment::Response, SendFault>")]
pub struct SendEnrolment {
    /// To whom.
    pub peer: PeerId,
    /// What.
    pub request: enrolment::Request,
}

/// Shows this node's renewed chain to every connected peer, so that nobody has to connect anew.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PresentRenewed {
    /// The chain as a file holds it.
    pub chain: Vec<u8>,
}

/// Closes the connections of a peer. One that is to be kept connected is dialled again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct HangUp {
    /// Of whom.
    pub peer: PeerId,
    /// Why, for the log.
    pub why: &'static str,
}
