//! What ties a proof of possession to one channel: which ends it has, and what only they share.
//!
//! With TLS 1.3 inside the channel that is an exporter value (RFC 9266, `tls-exporter`): a man in
//! the middle who holds two channels has two values. Noise and QUIC show no such value here, so
//! each side signs both sides' nonces, roles and peer ids instead; whoever can break the channel's
//! key exchange could relay that, and the result is marked as not quantum-safe.
//!
//! Pure. Owner: the identity room; the network room fills it in.

use crate::types::PeerId;

/// Bytes of a nonce, and of an exporter value.
pub const BINDING_BYTES: usize = 32;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that opened the connection.
    Opener,
    /// The other.
    Listener,
}

impl Role {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Opener => Self::Listener,
            Self::Listener => Self::Opener,
        }
    }
}

/// What both ends know and nobody else was part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The TLS exporter of the stacked channel.
    Exporter([u8; BINDING_BYTES]),
    /// A fresh nonce of each side.
    Nonces {
        /// The opener's.
        opener: [u8; BINDING_BYTES],
        /// The listener's.
        listener: [u8; BINDING_BYTES],
    },
}

/// One channel, as a proof of possession speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// The peer that opened it.
    pub opener: PeerId,
    /// The peer that accepted it.
    pub listener: PeerId,
    /// What ties a proof to it.
    pub binding: Binding,
}

impl Channel {
    /// What the end of `role` signs: a purpose, the kind of binding, the signer's role, both
    /// peers and the binding, each of fixed length.
    #[must_use]
    pub fn statement(&self, role: Role) -> Vec<u8> {
        let mut out = b"quantraband/possession/1".to_vec();
        let (kind, parts): (u8, Vec<&[u8]>) = match &self.binding {
            Binding::Exporter(value) => (1, vec![value]),
            Binding::Nonces { opener, listener } => (2, vec![opener, listener]),
        };
        out.push(kind);
        out.push(match role {
            Role::Opener => 1,
            Role::Listener => 2,
        });
        out.extend_from_slice(&self.opener.key_bytes());
        out.extend_from_slice(&self.listener.key_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
        out
    }

    /// Whether a proof over this channel holds against somebody who can break the key exchange
    /// of classical channels.
    #[must_use]
    pub fn is_exported(&self) -> bool {
        matches!(self.binding, Binding::Exporter(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(seed: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key())
    }

    #[test]
    fn every_part_is_signed() {
        let channel = Channel {
            opener: peer(1),
            listener: peer(2),
            binding: Binding::Nonces {
                opener: [3; 32],
                listener: [4; 32],
            },
        };
        let mut others = vec![channel.statement(Role::Listener)];
        let swapped = Channel {
            opener: channel.listener,
            listener: channel.opener,
            ..channel
        };
        others.push(swapped.statement(Role::Opener));
        for binding in [
            Binding::Exporter([3; 32]),
            Binding::Nonces {
                opener: [4; 32],
                listener: [3; 32],
            },
            Binding::Nonces {
                opener: [3; 32],
                listener: [5; 32],
            },
        ] {
            let other = Channel { binding, ..channel };
            others.push(other.statement(Role::Opener));
        }
        let own = channel.statement(Role::Opener);
        assert!(others.iter().all(|other| *other != own));
    }
}
