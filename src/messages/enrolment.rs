//! Issuer and Renewal: what peers and the operator ask of a node that issues, and of one that is
//! issued to.
//!
//! Both mailboxes are bounded: when the issuer's is full the sender gets `Overloaded` and tells the
//! peer to come again; the renewal actor is sent nothing.

use std::{sync::Arc, time::Duration};

use actix::Message;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    identity::{Name, Tier, VerifiedIdentity, enrolment::Response, invitation::InvitationId},
    types::{PeerId, Timestamp},
};

// Used by Swarm.

/// A peer asks for a credential; the access decision has allowed that it asks.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct AskCredential {
    /// Who asks, as the connection proved it.
    pub peer: PeerId,
    /// As what it is connected.
    pub tier: Tier,
    /// Its verified credential, ended lately for [`Tier::RenewalOnly`].
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// The invitation whose secret it proved, for [`Tier::Invited`].
    pub invitation: Option<InvitationId>,
    /// Its signing request, at most 8 KiB.
    pub request: Vec<u8>,
}

/// A peer asks for a credential for its new keys; the access decision has allowed that it asks.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct AskRotation {
    /// Who asks, as the connection proved it.
    pub peer: PeerId,
    /// As what it is connected.
    pub tier: Tier,
    /// Its verified credential.
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// Its continuity statement, at most 13 KiB.
    pub statement: Vec<u8>,
}

/// A peer whose keys are not its first ones has proved them at the gate.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct KeyProved {
    /// The peer, as the connection proved it.
    pub peer: PeerId,
    /// Its issuer, as the gate verified it.
    pub issuer: Name,
    /// Its name there.
    pub subject: Name,
}

// Used by Renewal.

/// This node asks its own issuer for a credential for its new keys.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct RotateOwn {
    /// The continuity statement.
    pub statement: Vec<u8>,
}

/// This node asks its own issuer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct RenewOwn {
    /// The signing request.
    pub request: Vec<u8>,
}

// Used by Admin.

/// Makes an invitation.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Invitation, InviteFault>")]
pub struct MakeInvitation {
    /// The subject its holder becomes.
    pub subject: Name,
    /// Its groups, without the issuer's prefix.
    pub groups: Vec<Name>,
    /// How long it can be used.
    pub open_for: Duration,
    /// Where this node can be reached, as multiaddresses without `/p2p`.
    pub addresses: Vec<String>,
}

/// Answer to [`MakeInvitation`]. Whoever reads the token can use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The text to hand over.
    pub token: String,
    /// The invitation's name, hex: this is what the audit log calls it.
    pub invitation: String,
    /// The issuer.
    pub issuer: Name,
    /// The subject.
    pub subject: Name,
    /// Until when it can be used.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Invitation({}, secret)", self.invitation)
    }
}

/// Why there is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InviteFault {
    /// The node issues nothing.
    #[error("this node issues nothing: set `issuer.dir` to an issuer's folder and start it anew")]
    NotIssuer,
    /// The wish cannot be granted.
    #[error("{0}")]
    Invalid(String),
    /// Trying again may help.
    #[error("{0}")]
    Again(String),
}
