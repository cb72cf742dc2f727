//! Names to addresses: `/dns4/…` and its kin become `/ip4/…` before they are dialled.

use std::{net::IpAddr, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol};
use thiserror::Error;
use tokio::{net::lookup_host, time::timeout};

use super::convert::loggable;

/// Addresses of one name that are dialled; a resolver may answer with any number.
const MAX_ADDRESSES: usize = 8;
/// Longest host name in DNS.
const MAX_HOST: usize = 253;

/// Why a name has no address now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The resolver knows no address of the wanted family.
    #[error("`{0}` has no address of the wanted family")]
    NoAddress(String),
    /// The resolver failed.
    #[error("`{host}` could not be looked up: {cause}")]
    Failed {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: String,
    },
    /// No answer in time.
    #[error("`{0}` was not looked up in time")]
    Timeout(String),
}

/// The addresses behind `address`: itself when it begins with an IP, otherwise one for each
/// address its name resolves to, at most 8.
///
/// # Errors
/// As [`ResolveError`] says; to be treated as a failed dial.
pub async fn resolve(
    address: &Multiaddr,
    deadline: Duration,
) -> Result<Vec<Multiaddr>, ResolveError> {
    let mut parts = address.iter();
    let (host, wanted): (String, fn(&IpAddr) -> bool) = match parts.next() {
        Some(Protocol::Dns(host)) => (host.into_owned(), |_| true),
        Some(Protocol::Dns4(host)) => (host.into_owned(), IpAddr::is_ipv4),
        Some(Protocol::Dns6(host)) => (host.into_owned(), IpAddr::is_ipv6),
        _ => return Ok(vec![address.clone()]),
    };
    let rest: Multiaddr = parts.collect();
    let named = loggable(&host, MAX_HOST);
    if host.len() > MAX_HOST {
        return Err(ResolveError::NoAddress(named));
    }
    let found = match timeout(deadline, lookup_host((host.as_str(), 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            return Err(ResolveError::Failed {
                host: named,
                cause: error.to_string(),
            });
        }
        Err(_) => return Err(ResolveError::Timeout(named)),
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in found.map(|socket| socket.ip()).filter(wanted) {
        if !ips.contains(&ip) && ips.len() < MAX_ADDRESSES {
            ips.push(ip);
        }
    }
    if ips.is_empty() {
        return Err(ResolveError::NoAddress(named));
    }
    let full = |ip: IpAddr| {
        let first = Multiaddr::from(ip);
        rest.iter().fold(first, Multiaddr::with)
    };
    Ok(ips.into_iter().map(full).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn addresses_stay_and_names_become_addresses() {
        let direct: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        assert_eq!(resolve(&direct, SOON).await, Ok(vec![direct]));

        let peer = libp2p::PeerId::random();
        let named = format!("/dns4/localhost/tcp/4001/p2p/{peer}")
            .parse()
            .unwrap();
        let full = format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer}")
            .parse()
            .unwrap();
        assert_eq!(resolve(&named, SOON).await, Ok(vec![full]));
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_refused_without_a_lookup() {
        let long = format!("/dns4/{}/tcp/1", "a".repeat(300)).parse().unwrap();
        assert!(matches!(
            resolve(&long, SOON).await,
            Err(ResolveError::NoAddress(_))
        ));
    }
}
