//! Networks: the subnets an address pays for, and the exempt ones.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

/// Most exempt networks: each connection walks the list.
const MAX_NETWORKS: usize = 256;

/// Networks that pay no connection budget.
#[derive(Debug, Clone, Default)]
pub struct ExemptNetworks(Vec<IpNet>);

/// Why a text is no exempt network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("`{0}` is no network: write for example \"10.0.0.0/8\", \"fd00::/8\" or an address")]
    Syntax(String),
    /// Bits are set behind the prefix, so it is unclear which network is meant.
    #[error("`{given}` has bits behind its prefix: did you mean \"{meant}\"?")]
    HostBits {
        /// As written.
        given: String,
        /// The network that holds it.
        meant: String,
    },
    /// An IPv4-mapped network, which no address is ever looked up as.
    #[error("`{0}` is IPv4 in IPv6 clothes: write the IPv4 network")]
    Mapped(String),
    /// Too many.
    #[error("{0} exempt networks, at most {max} are allowed", max = MAX_NETWORKS)]
    TooMany(usize),
}

impl ExemptNetworks {
    /// Reads networks in CIDR form; a bare address is a network of one.
    ///
    /// # Errors
    /// [`NetworkError`] with what would be right.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, NetworkError> {
        if texts.len() > MAX_NETWORKS {
            return Err(NetworkError::TooMany(texts.len()));
        }
        let networks = texts.iter().map(|text| parse(text.as_ref()));
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// Whether `ip` lies in one of them; IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let shown = || {
        text.chars()
            .take(60)
            .collect::<String>()
            .escape_debug()
            .to_string()
    };
    let network = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| NetworkError::Syntax(shown()))?,
    };
    if network.addr() != network.network() {
        return Err(NetworkError::HostBits {
            given: shown(),
            meant: network.trunc().to_string(),
        });
    }
    let mapped = match network {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.prefix_len() >= 96 && v6.network().to_ipv4_mapped().is_some(),
    };
    if mapped {
        return Err(NetworkError::Mapped(shown()));
    }
    Ok(network)
}

/// The network of `prefix` bits around `ip`; `None` when an address of its kind has fewer bits.
pub(super) fn around(ip: IpAddr, prefix: u8) -> Option<IpNet> {
    IpNet::new(ip, prefix).ok().map(|network| network.trunc())
}
