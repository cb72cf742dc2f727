//! Reputation: charges, credits, bans, and what is known of a peer.

use std::time::Duration;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::types::{Party, PeerId, SubjectId, Timestamp, TrustScore};

/// Misdeeds, by name. What each costs is in the configuration (`[reputation]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A forged, foreign or malformed credential, presented by the authenticated peer itself.
    BadCredential,
    /// Abuse of the handshake or of the connection: violations of the gate's protocol, floods of
    /// streams or control frames, frames larger than any window.
    HandshakeAbuse,
    /// A message that no honest author sends.
    InvalidMessage,
}

impl Severity {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadCredential => "bad_credential",
            Self::HandshakeAbuse => "handshake_abuse",
            Self::InvalidMessage => "invalid_message",
        }
    }
}

/// Where a party stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Score now, decayed.
    pub score: TrustScore,
    /// Banned until, when it is.
    pub banned_until: Option<Timestamp>,
    /// On probation after a ban.
    pub probation: bool,
}

impl Standing {
    /// Where somebody stands who is two parties: the worse of both, in each respect.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            score: if other.score < self.score {
                other.score
            } else {
                self.score
            },
            banned_until: self.banned_until.max(other.banned_until),
            probation: self.probation || other.probation,
        }
    }
}

/// One ban, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BanInfo {
    /// Who.
    pub party: Party,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By which rule, or the operator's reason.
    pub reason: String,
}

// Used by the gate and Swarm.

/// Charges a proved misdeed.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "Standing")]
pub struct Charge {
    /// The authenticated key that did it, or an address before authentication.
    pub party: Party,
    /// The member that acted by the key: charged as well, in the same step. Of an identity that
    /// was verified and stands (`trust::reputation::answers`), never what a document merely names.
    pub subject: Option<SubjectId>,
    /// The address it came from, so that an address behind which several peers were banned can
    /// be banned itself.
    pub address: Option<std::net::IpAddr>,
    /// What kind.
    pub severity: Severity,
    /// What happened, in words.
    pub evidence: String,
    /// It is counted in a sum of refusals and has no record of its own: who makes many charges must
    /// not choose how fast the log grows. The score falls all the same.
    pub summed: bool,
}

/// Credits a connection that stood; counts at most once an hour for each party.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct CreditConnection {
    /// The peer.
    pub peer: PeerId,
    /// The member whose connection it is.
    pub subject: Option<SubjectId>,
}

/// Where a peer stands: the worse of its key and of the member it is.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Standing")]
pub struct GetStanding {
    /// The peer.
    pub peer: PeerId,
    /// The member it was verified to be.
    pub subject: Option<SubjectId>,
}

// Used by Admin.

/// Bans by an operator's hand.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<BanInfo, String>")]
pub struct Ban {
    /// Who.
    pub party: Party,
    /// How long.
    pub span: Duration,
    /// Why.
    pub reason: String,
}

/// Lifts a ban. `false` when there was none.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<bool, String>")]
pub struct LiftBan {
    /// Who.
    pub party: Party,
}

/// All bans in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "Vec<BanInfo>")]
pub struct ListBans;

// Used by the node at shutdown.

/// Writes every score to the store now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), String>")]
pub struct SaveScores;
