//! Who and which: the party something is charged to, the origin of an input, the id of an event.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PeerId;

/// Who is held to account: an authenticated key, or an address before anything was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A peer, by the key that its connection proved.
    Peer(PeerId),
    /// An IP address (IPv4-mapped IPv6 addresses unmapped).
    Address(IpAddr),
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
        }
    }
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::address(ip));
        }
        text.parse().map(Self::Peer).map_err(|_| {
            format!(
                "`{}` is neither a peer id (12D3KooW…) nor an IP address",
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
