//! `[outward]`, `[discovery]`, `[relay]`: how this node calls others, and how it finds and reaches
//! them.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::sections::{millis, secs};
use crate::types::{ByteSize, Span};

/// `[outward]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutwardConfig {
    /// Failed calls in a row after which a destination is not called for a while.
    pub failures: u32,
    /// The row begins anew when the failure before is longer ago than this.
    pub failures_window: Span,
    /// For how long it is not called the first time.
    pub open: Span,
    /// For how long at most.
    pub open_max: Span,
    /// Calls under way at once while it is being tried again.
    pub probes: u32,
    /// Answers after which it counts as well.
    pub successes: u32,
    /// Requests a second to one destination.
    pub requests_per_second: u32,
    /// Requests to one destination at once after a pause.
    pub request_burst: u32,
    /// Requests under way to one destination.
    pub requests_per_peer: usize,
    /// Requests under way in all.
    pub requests: usize,
    /// How long a change of pace is given to show.
    pub settle: Span,
    /// A call of which nothing was heard for this long has failed.
    pub lost_after: Span,
    /// How often a request that may be repeated is made in all.
    pub attempts: u32,
    /// Longest wait before it is made the second time; doubles.
    pub retry_initial: Span,
    /// Longest wait before it is made again.
    pub retry_max: Span,
    /// No request is made again when its first is longer ago than this.
    pub retry_deadline: Span,
    /// Requests that may be repeated at once; then one for ten first ones.
    pub retry_reserve: u32,
}

impl Default for OutwardConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            failures_window: secs(120),
            open: secs(5),
            open_max: secs(300),
            probes: 1,
            successes: 2,
            requests_per_second: 80,
            request_burst: 320,
            requests_per_peer: 64,
            requests: 2_048,
            settle: secs(1),
            lost_after: secs(90),
            attempts: 4,
            retry_initial: millis(500),
            retry_max: secs(10),
            retry_deadline: secs(60),
            retry_reserve: 64,
        }
    }
}

/// How a node takes part in finding peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryMode {
    /// Answers others once it is known that it can be reached, and asks.
    #[default]
    Auto,
    /// Answers others, and asks.
    Server,
    /// Only asks.
    Client,
}

/// `[discovery]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// Whether members tell each other of members (Kademlia).
    pub kademlia: bool,
    /// Whether this node answers, too.
    pub mode: DiscoveryMode,
    /// Whether it looks for nodes on its own network (multicast DNS).
    pub mdns: bool,
    /// Connected members up to which found peers are dialled.
    pub peers: usize,
    /// Time between two walks through the network.
    pub walk: Span,
    /// Whether private addresses are believed whoever tells them.
    pub private_addresses: bool,
    /// Addresses at which others reach this node, as told to them.
    pub announce: Vec<Multiaddr>,
    /// Whether it has others try whether it can be reached (AutoNAT).
    pub autonat_client: bool,
    /// Whether it tries that for members.
    pub autonat_server: bool,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            kademlia: false,
            mode: DiscoveryMode::default(),
            mdns: false,
            peers: 32,
            walk: secs(300),
            private_addresses: false,
            announce: Vec::new(),
            autonat_client: false,
            autonat_server: false,
        }
    }
}

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// Whether this node reaches others, and is reached, through relays.
    pub client: bool,
    /// Relays at which it keeps a place, as `/ip4/…/tcp/…/p2p/PEER`.
    pub reserve: Vec<Multiaddr>,
    /// Whether relayed connections are replaced by direct ones where that is possible.
    pub hole_punching: bool,
    /// Whether this node relays for members.
    pub server: bool,
    /// Places it keeps in all.
    pub reservations: usize,
    /// Places it keeps for one peer.
    pub reservations_per_peer: usize,
    /// How long a place is kept unless it is asked for again.
    pub reservation_time: Span,
    /// Circuits in all.
    pub circuits: usize,
    /// Circuits of one peer.
    pub circuits_per_peer: usize,
    /// How long a circuit may stand.
    pub circuit_time: Span,
    /// Bytes one circuit may carry, both ways together.
    pub circuit_bytes: ByteSize,
    /// Requests for a place, and for a circuit, of one peer in a minute.
    pub requests_per_minute: u32,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            client: false,
            reserve: Vec::new(),
            hole_punching: false,
            server: false,
            reservations: 128,
            reservations_per_peer: 1,
            reservation_time: secs(3_600),
            circuits: 64,
            circuits_per_peer: 8,
            circuit_time: secs(3_600),
            circuit_bytes: ByteSize(64 << 20),
            requests_per_minute: 30,
        }
    }
}
