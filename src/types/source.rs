//! Where a connection comes from, as far as it is known before anybody is proved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::PeerId;

/// Whom a new connection counts for before its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address, IPv4-mapped ones unmapped.
    Address(IpAddr),
    /// An address as QUIC's first packet gives it: anybody can write any there, so it pays for
    /// nothing but what others write in the same way.
    Unvalidated(IpAddr),
    /// It comes over this relay and has no address of its own.
    Relay(PeerId),
    /// Neither is known: all such connections are one source.
    Unknown,
}

impl Source {
    /// The address, when it has one that is certain.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Address(ip) => Some(ip),
            Self::Unvalidated(_) | Self::Relay(_) | Self::Unknown => None,
        }
    }

    /// What counts as one host: an IPv4 address, or the /64 that one IPv6 host can draw any
    /// number of addresses from.
    #[must_use]
    pub fn host(self) -> Self {
        self.masked(32, 64)
    }

    /// What counts as one customer: an IPv4 /24, an IPv6 /48.
    #[must_use]
    pub fn subnet(self) -> Self {
        self.masked(24, 48)
    }

    /// Whether anybody may have written this address.
    #[must_use]
    pub fn is_unvalidated(self) -> bool {
        matches!(self, Self::Unvalidated(_))
    }

    fn masked(self, v4: u32, v6: u32) -> Self {
        match self {
            Self::Address(IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - v4).unwrap_or_default();
                Self::Address(Ipv4Addr::from_bits(ip.to_bits() & mask).into())
            }
            Self::Address(IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - v6).unwrap_or_default();
                Self::Address(Ipv6Addr::from_bits(ip.to_bits() & mask).into())
            }
            Self::Unvalidated(ip) => match Self::Address(ip).masked(v4, v6) {
                Self::Address(ip) => Self::Unvalidated(ip),
                other => other,
            },
            other => other,
        }
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self::Address(ip.to_canonical())
    }
}

impl From<Option<IpAddr>> for Source {
    fn from(ip: Option<IpAddr>) -> Self {
        ip.map_or(Self::Unknown, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_subnets_are_cut_where_addresses_are_cheap() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_eq!(source("192.0.2.7").host(), source("192.0.2.7"));
        assert_eq!(source("192.0.2.7").subnet(), source("192.0.2.0"));
        let v6 = source("2001:db8:1:2:3:4:5:6");
        assert_eq!(v6.host(), source("2001:db8:1:2::"));
        assert_eq!(v6.subnet(), source("2001:db8:1::"));
        assert_eq!(Source::Unknown.subnet(), Source::Unknown);
    }
}
