//! Who and which: the party something is charged to, the origin of an input, the id of an event.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::PeerId;
use crate::identity::Name;

/// A member, by the name its issuer gives it: the same whatever key it holds. As text
/// `issuer/subject`; no name contains a `/`.
///
/// Nodes that sign for themselves have none: nobody but their own key answers for such a name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectId {
    issuer: Name,
    subject: Name,
}

/// Why a text or a pair of names is no [`SubjectId`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubjectIdError {
    /// Not two names.
    #[error("`{0}` is not issuer/subject, as in acme/node-3")]
    Form(String),
    /// A name of those who sign for themselves.
    #[error("who signs for itself is known by its key alone: name the peer id")]
    SelfSigned,
}

impl SubjectId {
    /// A subject in an issuer's name space.
    ///
    /// # Errors
    /// [`SubjectIdError::SelfSigned`] when no issuer can bear the name.
    pub fn try_new(issuer: Name, subject: Name) -> Result<Self, SubjectIdError> {
        if issuer.is_self_signed() {
            return Err(SubjectIdError::SelfSigned);
        }
        Ok(Self { issuer, subject })
    }

    /// The issuer that names it.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Its name there.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer.as_str(), self.subject.as_str())
    }
}

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectId({self})")
    }
}

impl FromStr for SubjectId {
    type Err = SubjectIdError;

    fn from_str(text: &str) -> Result<Self, SubjectIdError> {
        let names = text.split_once('/').and_then(|(issuer, subject)| {
            let issuer = Name::try_new(issuer).ok()?;
            Some((issuer, Name::try_new(subject).ok()?))
        });
        let Some((issuer, subject)) = names else {
            // Two names and a little: enough to see what was typed.
            let shown: String = text.chars().take(160).collect();
            return Err(SubjectIdError::Form(shown.escape_debug().to_string()));
        };
        Self::try_new(issuer, subject)
    }
}

impl Serialize for SubjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Who is held to account: an authenticated key, a verified member, or an address before anything
/// was proved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A peer, by the key that its connection proved.
    Peer(PeerId),
    /// An IP address (IPv4-mapped IPv6 addresses unmapped).
    Address(IpAddr),
    /// A member, by issuer and name, whatever key it holds.
    Subject(SubjectId),
}

impl Party {
    /// The party behind an address; IPv4-mapped IPv6 addresses become IPv4.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(ip.to_canonical())
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Address(ip) => ip.fmt(f),
            Self::Subject(subject) => subject.fmt(f),
        }
    }
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::address(ip));
        }
        if text.contains('/') {
            let subject = text.parse().map(Self::Subject);
            return subject.map_err(|error: SubjectIdError| error.to_string());
        }
        text.parse().map(Self::Peer).map_err(|_| {
            format!(
                "`{}` is no peer id (12D3KooW…), no IP address and no issuer/subject (acme/node-3)",
                text.escape_debug()
            )
        })
    }
}

/// Whose input is being handled, so that a fault can be blamed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// The peer, when its key is proved.
    pub peer: Option<PeerId>,
    /// The address the input came from, when it has one.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// Input of a proved peer.
    #[must_use]
    pub fn peer(peer: PeerId) -> Self {
        Self {
            peer: Some(peer),
            address: None,
        }
    }

    /// The parties to blame: the peer when there is one, otherwise the address.
    #[must_use]
    pub fn party(&self) -> Option<Party> {
        self.peer
            .map(Party::Peer)
            .or_else(|| self.address.map(Party::address))
    }
}

/// A caller-chosen id that makes a repeated audit event recognisable: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// A fresh id from the operating system's generator (through `rand`'s thread generator).
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}
