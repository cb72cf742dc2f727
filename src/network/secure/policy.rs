//! What this node offers, accepts and keeps: `[transport]` of the configuration.
//!
//! Pure. A dialler knows whom it expects and offers what holds for that peer. A listener knows
//! nobody yet: it accepts what any rule could allow, and the gate judges once the peer is proved.

use std::collections::BTreeMap;

use crate::{
    config::TransportConfig,
    types::{ChannelFault, ChannelKind, PeerId, SecurityInfo, SecurityLevel},
};

/// The rules in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    level: SecurityLevel,
    peers: BTreeMap<PeerId, SecurityLevel>,
}

impl From<&TransportConfig> for Policy {
    fn from(config: &TransportConfig) -> Self {
        Self {
            level: config.security,
            peers: config.peers.clone(),
        }
    }
}

impl From<SecurityLevel> for Policy {
    fn from(level: SecurityLevel) -> Self {
        Self {
            level,
            peers: BTreeMap::new(),
        }
    }
}

impl Policy {
    /// What holds for this peer.
    #[must_use]
    pub fn level(&self, peer: &PeerId) -> SecurityLevel {
        self.peers.get(peer).copied().unwrap_or(self.level)
    }

    /// What is offered to the peer that is dialled, best first; by the general rule when the
    /// address does not name one.
    #[must_use]
    pub fn offers(&self, peer: Option<&PeerId>) -> Vec<ChannelKind> {
        let level = peer.map_or(self.level, |peer| self.level(peer));
        selectable(level).to_vec()
    }

    /// What a listener accepts: all that any peer may use.
    #[must_use]
    pub fn accepts(&self) -> Vec<ChannelKind> {
        let levels = || self.peers.values().chain([&self.level]);
        let any = |kind: &ChannelKind| levels().any(|level| selectable(*level).contains(kind));
        let all = selectable(SecurityLevel::PreferHybrid);
        all.iter().copied().filter(any).collect()
    }

    /// Whether the proved peer may stay on this channel.
    ///
    /// # Errors
    /// [`ChannelFault::HybridRequired`].
    pub fn admits(&self, peer: &PeerId, info: &SecurityInfo) -> Result<(), ChannelFault> {
        self.level(peer).admits(info)
    }

    /// Whether anybody may come by QUIC.
    #[must_use]
    pub fn allows_quic(&self, peer: Option<&PeerId>) -> bool {
        let level = peer.map_or(self.level, |peer| self.level(peer));
        level != SecurityLevel::RequireHybrid
    }
}

/// What is selected by name over TCP, best first.
fn selectable(level: SecurityLevel) -> &'static [ChannelKind] {
    match level {
        SecurityLevel::RequireHybrid => &[ChannelKind::Stacked],
        SecurityLevel::PreferHybrid => {
            &[ChannelKind::Stacked, ChannelKind::Noise, ChannelKind::Tls]
        }
        SecurityLevel::Classic => &[ChannelKind::Noise, ChannelKind::Tls],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChannelKind::{Noise, Stacked, Tls};
    use SecurityLevel::{Classic, PreferHybrid, RequireHybrid};

    fn peer(seed: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key())
    }

    fn policy(level: SecurityLevel, peers: &[(u8, SecurityLevel)]) -> Policy {
        let peers = peers.iter().map(|(seed, level)| (peer(*seed), *level));
        Policy {
            level,
            peers: peers.collect(),
        }
    }

    #[test]
    fn a_dialler_offers_what_holds_for_the_peer() {
        let policy = policy(Classic, &[(1, RequireHybrid), (2, PreferHybrid)]);
        assert_eq!(policy.offers(None), [Noise, Tls]);
        assert_eq!(policy.offers(Some(&peer(1))), [Stacked]);
        assert_eq!(policy.offers(Some(&peer(2))), [Stacked, Noise, Tls]);
        assert_eq!(policy.offers(Some(&peer(3))), [Noise, Tls]);
        assert!(!policy.allows_quic(Some(&peer(1))) && policy.allows_quic(None));
    }

    #[test]
    fn a_listener_accepts_what_anybody_may_use_and_no_more() {
        assert_eq!(policy(RequireHybrid, &[]).accepts(), [Stacked]);
        assert_eq!(policy(Classic, &[]).accepts(), [Noise, Tls]);
        assert_eq!(policy(PreferHybrid, &[]).accepts(), [Stacked, Noise, Tls]);
        let mixed = policy(Classic, &[(1, RequireHybrid)]);
        assert_eq!(mixed.accepts(), [Stacked, Noise, Tls]);
        let mixed = policy(RequireHybrid, &[(1, RequireHybrid)]);
        assert_eq!(mixed.accepts(), [Stacked]);
    }
}
