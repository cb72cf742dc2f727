//! Why a head or a list is not taken, and who is to blame.

use super::book::{MAX_ISSUERS, MAX_UNDER_ANCHOR};
use crate::{
    cbor::Malformed,
    identity::{Name, Refusal},
    types::Timestamp,
};

/// Why a head or a list is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not in its one encoding.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A signature by the right keys that does not hold, or links that do not fit together.
    #[error("{0}")]
    Forged(Refusal),
    /// Its issuer is not trusted here.
    #[error("the issuer `{0}` is not trusted here")]
    Unknown(Name),
    /// It is by other keys than those known under the name. Whoever sent it may trust those.
    #[error("`{0}` is known here with other keys")]
    OtherKey(Name),
    /// The delegation to its issuer was revoked.
    #[error("the delegation to `{0}` was revoked")]
    Revoked(Name),
    /// It is dated in the future.
    #[error("it was signed at {0}, which is in the future: compare the clocks")]
    Future(Timestamp),
    /// An older one than is known.
    #[error("it has the sequence {offered}, and {known} is known already")]
    Older {
        /// Its sequence.
        offered: u64,
        /// The one known.
        known: u64,
    },
    /// The book is full.
    #[error("there are lists of {MAX_ISSUERS} issuers, or of {MAX_UNDER_ANCHOR} under one anchor")]
    Full,
}

impl Rejected {
    /// Whether the sender is to blame. An honest node sends on only what it verified itself, but
    /// may trust others than this one, and may know less.
    #[must_use]
    pub fn charged(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Forged(_))
    }

    /// A stable, bounded name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Forged(_) => "forged",
            Self::Unknown(_) => "unknown_issuer",
            Self::OtherKey(_) => "other_key",
            Self::Revoked(_) => "revoked",
            Self::Future(_) => "future",
            Self::Older { .. } => "older",
            Self::Full => "full",
        }
    }
}
