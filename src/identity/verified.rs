//! What is known of a peer once its credential was verified, and why one was refused.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Credential, Delegation, Head, NodePublic, Thumbprint};
use crate::types::{ChannelFault, PeerId, SubjectId, Timestamp};

/// The name of an issuer or of a subject: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter
/// or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no name: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")]
pub struct NameError(String);

impl Name {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] when a character or the length is not allowed.
    pub fn try_new(text: &str) -> Result<Self, NameError> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = text.len() <= Self::MAX_LEN
            && text.starts_with(word)
            && text.chars().all(|c| word(c) || "._-".contains(c));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError(
                text.chars()
                    .take(80)
                    .collect::<String>()
                    .escape_debug()
                    .to_string(),
            ))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name lies in the name space of `other`: `acme.eu` in that of `acme`.
    #[must_use]
    pub fn is_under(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(&*other.0)
            .is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
    }

    /// Whether the name is of the name space in which nodes sign for themselves, `self`: no issuer
    /// can bear it.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        &*self.0 == SELF || self.0.starts_with("self.")
    }

    /// The issuer's name of a node that signs for itself with this pair of keys: `self.` and the
    /// first 56 hex digits (224 bits) of the pair's thumbprint, for a name has 64 characters.
    #[must_use]
    pub fn self_signed(thumbprint: &Thumbprint) -> Self {
        let digits = hex::encode(thumbprint.0);
        let digits = digits.get(..SELF_DIGITS).unwrap_or_default();
        Self(format!("{SELF}.{digits}").into())
    }
}

/// The name space of nodes that sign for themselves.
const SELF: &str = "self";
/// Hex digits of a thumbprint in such a name.
const SELF_DIGITS: usize = 56;

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::try_new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much a peer's identity is worth, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// No credential, and a proof that this issuer's node invited it: it may ask for one.
    Invited,
    /// A credential that lapsed lately, shown to a node of its issuer: it may have it renewed.
    RenewalOnly,
    /// A key and nothing more: a plain libp2p client on an open listener.
    Unverified,
    /// A credential that the node signed itself: the same keys as last time, and nothing more.
    SelfSigned,
    /// A credential of a trusted issuer.
    Member,
}

impl Tier {
    /// Whether the peer may do nothing but ask for a credential.
    #[must_use]
    pub fn is_limited(self) -> bool {
        matches!(self, Self::Invited | Self::RenewalOnly)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invited => "invited",
            Self::RenewalOnly => "renewal_only",
            Self::Unverified => "unverified",
            Self::SelfSigned => "self_signed",
            Self::Member => "member",
        })
    }
}

/// Where the revocation of one document of a chain is to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEntry {
    /// Whose list.
    pub issuer: Name,
    /// The place in it.
    pub index: u32,
    /// When the document was issued (`iat`), for lists that end all that is older.
    pub issued: Timestamp,
    /// Thumbprint of the issuer's keys that signed it: a name may have had others.
    #[serde(with = "hex::serde", default)]
    pub signer: [u8; 32],
}

impl StatusEntry {
    /// Those of a credential and the delegations above it; what nobody revokes has none.
    pub(crate) fn of_chain(credential: &Credential, delegations: &[Delegation]) -> Vec<Self> {
        let own = Self::of(&credential.claims().head, credential.signed_by());
        let above = Self::of_delegations(delegations);
        own.into_iter().chain(above).collect()
    }

    /// Those of delegations.
    pub(crate) fn of_delegations(delegations: &[Delegation]) -> Vec<Self> {
        let of = |link: &Delegation| Self::of(&link.mandate().head, link.signed_by());
        delegations.iter().filter_map(of).collect()
    }

    fn of(head: &Head, signer: Option<Thumbprint>) -> Option<Self> {
        Some(Self {
            issuer: head.issuer.clone(),
            index: head.status?,
            issued: Timestamp::from_secs(head.validity.issued()),
            signer: signer?.0,
        })
    }
}

/// A peer whose credential was verified: signatures, issuers, times, and the keys it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedIdentity {
    /// The peer, as the connection proved it and the credential's `cnf` claim names it.
    pub peer: PeerId,
    /// What the identity is worth.
    pub tier: Tier,
    /// The issuer (`iss`): a trust anchor of this node, one that it delegated to, or the name of
    /// a node that signs for itself.
    pub issuer: Name,
    /// The trust anchor of this node at which the chain ends; the issuer itself without delegation.
    pub anchor: Name,
    /// The subject (`sub`) in the issuer's name space.
    pub subject: Name,
    /// Groups in the issuer's name: `acme/workers`.
    pub groups: Vec<String>,
    /// Signed attributes.
    pub attributes: BTreeMap<String, String>,
    /// Valid until (`exp`), exclusive.
    pub expires: Timestamp,
    /// SHA-256 of the credential's bytes as received.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub credential_hash: [u8; 32],
    /// The credential's place in its issuer's status list, then that of each delegation.
    pub statuses: Vec<StatusEntry>,
    /// Whether the peer proved its ML-DSA key over a channel that a quantum computer could not
    /// have relayed. `false` as well when a credential was verified without a channel.
    pub pq_auth: bool,
    /// The public keys that the credential is bound to; `None` where a record of the identity is
    /// all that is left of it.
    #[serde(skip)]
    pub keys: Option<NodePublic>,
}

impl VerifiedIdentity {
    /// When its credential was issued; `None`: by an issuer that takes nothing back, itself.
    #[must_use]
    pub fn issued(&self) -> Option<Timestamp> {
        let own = self
            .statuses
            .iter()
            .find(|status| status.issuer == self.issuer);
        own.map(|status| status.issued)
    }
}

/// Why a presented credential, or the frame around it, was refused.
///
/// [`Refusal::charged`] says whether the peer that presented it is to blame: only what the
/// authenticated key *did* is charged, never what this node could not check.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The frame or credential is not in the one encoding allowed.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A version of the frame that this node does not speak.
    #[error("unsupported gate version {0}")]
    Version(u64),
    /// No credential where one is required.
    #[error("no credential was presented")]
    Missing,
    /// The issuer is not among this node's trust anchors.
    #[error("the issuer `{0}` is not trusted here")]
    UnknownIssuer(String),
    /// A signature does not verify, is of the wrong length, or a required one is missing.
    #[error("signature: {0}")]
    Signature(&'static str),
    /// The links of the chain do not fit together.
    #[error("chain: {0}")]
    Chain(&'static str),
    /// The credential is bound to another key than the connection's.
    #[error("the credential belongs to another key")]
    WrongKey,
    /// The proof of possession of the ML-DSA key does not hold for this connection.
    #[error("proof of possession: {0}")]
    Possession(&'static str),
    /// The continuity statement beside the credential does not hold, or is not of it.
    #[error("continuity statement: {0}")]
    Continuity(&'static str),
    /// Expired at the time given.
    #[error("the credential expired at {0}")]
    Expired(Timestamp),
    /// Not valid before the time given.
    #[error("the credential is not valid before {0}")]
    NotYetValid(Timestamp),
    /// The credential, or a delegation above it, was taken back by its issuer.
    #[error("the credential was revoked by its issuer")]
    Revoked,
    /// The peer is banned until the time given.
    #[error("banned until {0}")]
    Banned(Timestamp),
    /// The member is banned until the time given, whatever key it holds.
    #[error("{0} is banned until {1}")]
    BannedSubject(SubjectId, Timestamp),
    /// The peer is cooled down because its input was being handled at a fault.
    #[error("cooling down after a fault")]
    CoolingDown,
    /// The access decision denied; the rule's name.
    #[error("denied by rule {0}")]
    Denied(String),
    /// This node could not decide in time (an actor restarted, is overloaded, a disk hangs).
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The peer refused us; its code.
    #[error("the peer refused: {0}")]
    ByPeer(String),
    /// The exchange did not finish within `network.identity_timeout`.
    #[error("the exchange took too long")]
    Late,
    /// The connection was lost during the exchange.
    #[error("the exchange did not finish: {0}")]
    Interrupted(&'static str),
    /// The peer did something the protocol forbids before it was accepted.
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    /// The secure channel below is not good enough, or did not come about.
    #[error("{0}")]
    Channel(#[source] ChannelFault),
}

impl Refusal {
    /// A stable, bounded name for metrics, audit and the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Version(_) => "version",
            Self::Missing => "missing",
            Self::UnknownIssuer(_) => "unknown_issuer",
            Self::Signature(_) => "signature",
            Self::Chain(_) => "chain",
            Self::WrongKey => "wrong_key",
            Self::Possession(_) => "possession",
            Self::Continuity(_) => "continuity",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Banned(_) | Self::BannedSubject(..) => "banned",
            Self::CoolingDown => "cooling_down",
            Self::Denied(_) => "denied",
            Self::Unavailable(_) => "unavailable",
            Self::ByPeer(_) => "by_peer",
            Self::Late => "identity_timeout",
            Self::Interrupted(_) => "interrupted",
            Self::Violation(_) => "violation",
            Self::Channel(fault) => fault.code(),
        }
    }

    /// Whether the authenticated peer is charged for it.
    ///
    /// A credential that lapsed, or whose issuer is simply unknown here, is no misdeed; a broken
    /// or foreign one is.
    #[must_use]
    pub fn charged(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Signature(_)
                | Self::Chain(_)
                | Self::WrongKey
                | Self::Possession(_)
                | Self::Continuity(_)
                | Self::Violation(_)
        )
    }
}
