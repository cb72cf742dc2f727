//! Identity: what the gate and the operator ask of it.

use std::sync::Arc;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::{
    identity::{Channel, Refusal, Role, VerifiedIdentity},
    types::{PeerId, Timestamp},
};

// Used by the identity gate.

/// Verifies the credential frame that `peer` presented over a connection which proved its key.
/// Cheap and idempotent: racing dials may ask twice.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<VerifiedIdentity, Refusal>")]
pub struct VerifyPeer {
    /// The key the connection proved.
    pub peer: PeerId,
    /// The frame as received, at most 64 KiB.
    pub frame: Vec<u8>,
    /// The channel it came over, which its proof of possession must be about.
    pub channel: Channel,
    /// Which end of the channel the peer is.
    pub role: Role,
}

// Used by Swarm.

/// Verifies the chains of authors, as a neighbour showed them. `Err`: one of them is no chain, which
/// no honest node sends. Those that do not verify by this node's anchors are left out.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Arc<VerifiedIdentity>>, &'static str>")]
pub struct VerifyAuthors {
    /// The neighbour.
    pub peer: PeerId,
    /// The chains, at most [`crate::identity::wire::MAX_CHAINS`].
    pub chains: Vec<Vec<u8>>,
}

/// The chains of these credentials, of those that were verified here and still stand.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<Vec<u8>>")]
pub struct ChainsOf {
    /// SHA-256 of each credential.
    pub credentials: Vec<[u8; 32]>,
}

/// Verifies the chain that `peer` shows in place of the one it connected with. That it holds the
/// keys, and that they are the same, is for the asker to know.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<VerifiedIdentity, Refusal>")]
pub struct VerifyRenewed {
    /// Who shows it.
    pub peer: PeerId,
    /// The chain as a file holds it, at most 24 KiB.
    pub chain: Vec<u8>,
}

// Used by Admin.

/// Reads credential and trust anchors from disk again, as after `identity import`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<IdentityReport, String>")]
pub struct ReloadIdentity;

/// What this node is and whom it trusts.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "IdentityReport")]
pub struct DescribeIdentity;

/// Answer to [`DescribeIdentity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// The node's peer id.
    pub peer_id: PeerId,
    /// `issuer/subject` of the own credential, when there is one.
    pub credential: Option<String>,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// Names of the trusted issuers.
    pub trusted_issuers: Vec<String>,
}
