//! Debts as they leave the limiter: by name, in wall-clock time.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{PeerId, SubjectId, Timestamp};

/// Whose debt it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DebtKey {
    /// Connections of an address; `None` for those that come without one.
    Address(Option<IpAddr>),
    /// Connections of a subnet.
    Subnet(IpNet),
    /// Connections of the subnets (by prefix length) that found the table full.
    SubnetOverflow(u8),
    /// Connections over a relay.
    Relay(PeerId),
    /// Connections over the relays that found the table full.
    RelayOverflow,
    /// All connections.
    Connections,
    /// Messages of an author.
    Author(PeerId),
    /// Messages of the authors that found the table full.
    AuthorOverflow,
    /// Bytes of a neighbour.
    Neighbour(PeerId),
    /// Bytes of the neighbours that found the table full.
    NeighbourOverflow,
    /// Job requests of a peer.
    Requester(PeerId),
    /// Job requests of the peers that found the table full.
    RequesterOverflow,
    /// Messages of a member, by whatever keys.
    Member(SubjectId),
    /// Messages of the members that found the table full.
    MemberOverflow,
    /// Job requests of a member, by whatever keys.
    MemberRequester(SubjectId),
    /// Job requests of the members that found the table full.
    MemberRequesterOverflow,
}

/// A text that names no debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the name of a debt")]
pub struct DebtKeyError;

impl fmt::Display for DebtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Some(ip)) => write!(f, "address={ip}"),
            Self::Address(None) => f.write_str("address=none"),
            Self::Subnet(network) => write!(f, "subnet={network}"),
            Self::SubnetOverflow(prefix) => write!(f, "subnet-overflow={prefix}"),
            Self::Relay(relay) => write!(f, "relay={relay}"),
            Self::RelayOverflow => f.write_str("relay-overflow="),
            Self::Connections => f.write_str("connections="),
            Self::Author(peer) => write!(f, "author={peer}"),
            Self::AuthorOverflow => f.write_str("author-overflow="),
            Self::Neighbour(peer) => write!(f, "neighbour={peer}"),
            Self::NeighbourOverflow => f.write_str("neighbour-overflow="),
            Self::Requester(peer) => write!(f, "requester={peer}"),
            Self::RequesterOverflow => f.write_str("requester-overflow="),
            Self::Member(subject) => write!(f, "member={subject}"),
            Self::MemberOverflow => f.write_str("member-overflow="),
            Self::MemberRequester(subject) => write!(f, "member-requester={subject}"),
            Self::MemberRequesterOverflow => f.write_str("member-requester-overflow="),
        }
    }
}

impl FromStr for DebtKey {
    type Err = DebtKeyError;

    fn from_str(text: &str) -> Result<Self, DebtKeyError> {
        let (kind, name) = text.split_once('=').ok_or(DebtKeyError)?;
        fn read<T: FromStr>(name: &str) -> Result<T, DebtKeyError> {
            name.parse().map_err(|_| DebtKeyError)
        }
        match (kind, name) {
            ("address", "none") => Ok(Self::Address(None)),
            ("address", ip) => Ok(Self::Address(Some(read(ip)?))),
            ("subnet", network) => Ok(Self::Subnet(read(network)?)),
            ("subnet-overflow", prefix) => Ok(Self::SubnetOverflow(read(prefix)?)),
            ("relay", relay) => Ok(Self::Relay(read(relay)?)),
            ("relay-overflow", "") => Ok(Self::RelayOverflow),
            ("connections", "") => Ok(Self::Connections),
            ("author", peer) => Ok(Self::Author(read(peer)?)),
            ("author-overflow", "") => Ok(Self::AuthorOverflow),
            ("neighbour", peer) => Ok(Self::Neighbour(read(peer)?)),
            ("neighbour-overflow", "") => Ok(Self::NeighbourOverflow),
            ("requester", peer) => Ok(Self::Requester(read(peer)?)),
            ("requester-overflow", "") => Ok(Self::RequesterOverflow),
            ("member", subject) => Ok(Self::Member(read(subject)?)),
            ("member-overflow", "") => Ok(Self::MemberOverflow),
            ("member-requester", subject) => Ok(Self::MemberRequester(read(subject)?)),
            ("member-requester-overflow", "") => Ok(Self::MemberRequesterOverflow),
            _ => Err(DebtKeyError),
        }
    }
}

/// A debt in wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debt {
    /// When it is paid.
    pub until: Timestamp,
    /// When this was written: what was left then is the most that can be left later.
    pub at: Timestamp,
}

impl Debt {
    /// A debt that is paid `left` after `now`, rounded up so that writing it down pays nothing.
    #[must_use]
    pub fn new(left: Duration, now: Timestamp) -> Self {
        let millis = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self {
            until: now.after(Duration::from_millis(millis)),
            at: now,
        }
    }

    /// What is left of it: never more than when it was written, though the clock went back.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        self.until.since(now).min(self.until.since(self.at))
    }
}
