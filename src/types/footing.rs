//! How a peer is connected, as far as decisions ask.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::SecurityInfo;

/// How a peer is connected: over all its connections together, for any of them may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footing {
    /// The weakest encryption.
    pub security: SecurityInfo,
    /// Whether it proved its ML-DSA key over each of them.
    pub pq_auth: bool,
    /// Where the oldest one comes from; `None` when that is unknown, or a relay.
    pub ip: Option<IpAddr>,
}
