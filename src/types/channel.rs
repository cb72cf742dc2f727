//! What is known of a connection's encryption, and what a node wants of it.
//!
//! Pure words, shared by configuration, network, decisions, log and operator. Invariant: a
//! [`SecurityInfo`] is made by the transport that ran the handshake, from what the handshake
//! says, never from what a peer claims.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Noise alone.
    Noise,
    /// QUIC, whose TLS 1.3 does not say which group it agreed on.
    Quic,
    /// libp2p's TLS 1.3 alone.
    Tls,
    /// TLS 1.3 with ML-KEM inside Noise.
    Stacked,
}

/// One layer of encryption, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Noise XX with X25519, ChaCha20-Poly1305 and SHA-256.
    Noise,
    /// TLS 1.3 with libp2p's certificates.
    Tls13,
    /// QUIC version 1, which has TLS 1.3 inside.
    QuicV1,
}

impl ChannelKind {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::Noise, Self::Quic, Self::Tls, Self::Stacked];

    /// A stable, bounded name for metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Stacked => "stacked",
        }
    }

    /// The protocol as it is negotiated; for QUIC the part of the address that says so.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Noise => "/noise",
            Self::Quic => "/quic-v1",
            Self::Tls => "/tls/1.0.0",
            Self::Stacked => "/quantraband/noise+tls13pq/1",
        }
    }

    /// The kind that is negotiated under this name.
    #[must_use]
    pub fn of_protocol(protocol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.protocol() == protocol)
    }

    /// Its layers, outermost first.
    #[must_use]
    pub fn layers(self) -> &'static [Layer] {
        match self {
            Self::Noise => &[Layer::Noise],
            Self::Quic => &[Layer::QuicV1, Layer::Tls13],
            Self::Tls => &[Layer::Tls13],
            Self::Stacked => &[Layer::Noise, Layer::Tls13],
        }
    }
}

/// The group of a key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Group {
    /// X25519 and ML-KEM-768 together.
    #[serde(rename = "X25519MLKEM768")]
    X25519MlKem768,
    /// X25519 alone.
    #[serde(rename = "X25519")]
    X25519,
    /// NIST P-256 alone.
    #[serde(rename = "secp256r1")]
    Secp256r1,
    /// NIST P-384 alone.
    #[serde(rename = "secp384r1")]
    Secp384r1,
    /// One that this node does not know.
    #[serde(rename = "other")]
    Other,
    /// X25519MLKEM768 was preferred; what was agreed on is not told.
    #[serde(rename = "X25519MLKEM768 preferred, unproven")]
    Unproven,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X25519MlKem768 => "X25519MLKEM768",
            Self::X25519 => "X25519",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
            Self::Other => "other",
            Self::Unproven => "X25519MLKEM768 preferred, unproven",
        })
    }
}

/// What encrypts the bytes; of several layers the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// ChaCha20 with Poly1305.
    #[serde(rename = "CHACHA20_POLY1305_SHA256")]
    ChaCha20Poly1305,
    /// AES with a 128-bit key in GCM.
    #[serde(rename = "AES_128_GCM_SHA256")]
    Aes128Gcm,
    /// AES with a 256-bit key in GCM.
    #[serde(rename = "AES_256_GCM_SHA384")]
    Aes256Gcm,
    /// One of the three of TLS 1.3; the transport does not say which.
    #[serde(rename = "TLS 1.3, not told")]
    Untold,
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "CHACHA20_POLY1305_SHA256",
            Self::Aes128Gcm => "AES_128_GCM_SHA256",
            Self::Aes256Gcm => "AES_256_GCM_SHA384",
            Self::Untold => "TLS 1.3, not told",
        })
    }
}

/// The proof of one connection's encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Shown", try_from = "Shown")]
pub struct SecurityInfo {
    /// How it is secured.
    pub kind: ChannelKind,
    /// The group of the innermost key exchange.
    pub group: Group,
    /// The innermost cipher.
    pub cipher: Cipher,
}

/// How a [`SecurityInfo`] is written: with what follows from it, for readers who do not know.
#[derive(Serialize, Deserialize)]
struct Shown {
    // In the order RFC 8785 sorts them, as the log demands.
    cipher: Cipher,
    group: Group,
    hybrid: bool,
    kind: ChannelKind,
    layers: Vec<Layer>,
    protocol: String,
}

impl From<SecurityInfo> for Shown {
    fn from(info: SecurityInfo) -> Self {
        Self {
            cipher: info.cipher,
            group: info.group,
            hybrid: info.is_hybrid(),
            kind: info.kind,
            layers: info.kind.layers().to_vec(),
            protocol: info.kind.protocol().to_owned(),
        }
    }
}

impl TryFrom<Shown> for SecurityInfo {
    type Error = &'static str;

    fn try_from(shown: Shown) -> Result<Self, Self::Error> {
        let info = Self {
            kind: shown.kind,
            group: shown.group,
            cipher: shown.cipher,
        };
        let agrees = shown.protocol == info.kind.protocol()
            && shown.layers == info.kind.layers()
            && shown.hybrid == info.is_hybrid();
        agrees
            .then_some(info)
            .ok_or("a proof of encryption that contradicts itself")
    }
}

impl SecurityInfo {
    /// Whether the handshake proved that ML-KEM took part in the key exchange.
    #[must_use]
    pub fn is_hybrid(&self) -> bool {
        self.group == Group::X25519MlKem768
    }

    /// The weaker of two: without ML-KEM before with it, then by kind.
    #[must_use]
    pub fn weaker(self, other: Self) -> Self {
        let rank = |info: &Self| (info.is_hybrid(), info.kind);
        if rank(&other) < rank(&self) {
            other
        } else {
            self
        }
    }
}

impl fmt::Display for SecurityInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.kind.name(), self.group, self.cipher)
    }
}

/// What is wanted of a connection (`transport.security`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityLevel {
    /// Noise, TLS, QUIC; the stacked channel is not offered.
    Classic,
    /// The stacked channel before all others.
    #[default]
    PreferHybrid,
    /// The stacked channel and no other.
    RequireHybrid,
}

impl SecurityLevel {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::PreferHybrid => "prefer-hybrid",
            Self::RequireHybrid => "require-hybrid",
        }
    }

    /// Whether a connection with this proof is good enough.
    ///
    /// # Errors
    /// [`ChannelFault::HybridRequired`].
    pub fn admits(self, info: &SecurityInfo) -> Result<(), ChannelFault> {
        let hybrid = info.kind == ChannelKind::Stacked && info.is_hybrid();
        if self == Self::RequireHybrid && !hybrid {
            Err(ChannelFault::HybridRequired(info.kind))
        } else {
            Ok(())
        }
    }
}

/// Why no secure channel came about, or why one was not good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum ChannelFault {
    /// A channel of this kind, where the stacked one is required.
    #[error(
        "transport.security = \"require-hybrid\": {} is required, not {}",
        ChannelKind::Stacked.protocol(), .0.protocol()
    )]
    HybridRequired(ChannelKind),
    /// The other side was offered the stacked channel alone and does not take it.
    #[error(
        "transport.security = \"require-hybrid\": the other side, or somebody on the way to it, \
         does not accept {}",
        ChannelKind::Stacked.protocol()
    )]
    HybridNotAccepted,
    /// The other side did not propose the stacked channel, which alone is accepted here.
    #[error(
        "transport.security = \"require-hybrid\": the other side did not propose {}",
        ChannelKind::Stacked.protocol()
    )]
    HybridNotProposed,
    /// The two sides have no channel in common.
    #[error("no secure channel in common (transport.security differs)")]
    NoneInCommon,
    /// The stacked channel's key exchange was, or would have been, another one.
    #[error("the key exchange must be X25519MLKEM768{}", Found(*.0))]
    Group(Option<Group>),
    /// Noise and TLS proved two different peers.
    #[error("the two layers of the channel belong to different peers")]
    PeersDiffer,
    /// TLS did not settle on the protocol that belongs inside.
    #[error("the TLS layer did not agree on the protocol inside (ALPN)")]
    Alpn,
    /// A layer's handshake failed: bad signature, bad certificate, bad message.
    #[error("the handshake of the {0} layer failed")]
    Handshake(&'static str),
}

struct Found(Option<Group>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(group) => write!(f, ", not {group}"),
            None => f.write_str(", which one side does not offer"),
        }
    }
}

impl ChannelFault {
    /// A stable, bounded name for metrics, audit and the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::HybridRequired(_) | Self::HybridNotAccepted | Self::HybridNotProposed => {
                "hybrid_required"
            }
            Self::NoneInCommon => "channel_none_in_common",
            Self::Group(_) => "channel_group",
            Self::PeersDiffer => "channel_peers_differ",
            Self::Alpn => "channel_alpn",
            Self::Handshake(_) => "channel_handshake",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACKED: SecurityInfo = SecurityInfo {
        kind: ChannelKind::Stacked,
        group: Group::X25519MlKem768,
        cipher: Cipher::Aes256Gcm,
    };

    #[test]
    fn only_a_stacked_channel_with_ml_kem_meets_the_strict_level() {
        for kind in ChannelKind::ALL {
            for group in [Group::X25519MlKem768, Group::X25519, Group::Unproven] {
                let info = SecurityInfo {
                    kind,
                    group,
                    ..STACKED
                };
                assert_eq!(SecurityLevel::Classic.admits(&info), Ok(()));
                assert_eq!(SecurityLevel::PreferHybrid.admits(&info), Ok(()));
                let strict = SecurityLevel::RequireHybrid.admits(&info);
                assert_eq!(strict.is_ok(), info == STACKED, "{info}");
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_and_contradictions_do_not() {
        let mut text = serde_json::to_value(STACKED).unwrap();
        assert_eq!(text["protocol"], "/quantraband/noise+tls13pq/1");
        assert_eq!(text["layers"], serde_json::json!(["noise", "tls13"]));
        assert_eq!(text["hybrid"], true);
        let back: SecurityInfo = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(back, STACKED);
        text["group"] = "X25519".into();
        assert!(serde_json::from_value::<SecurityInfo>(text).is_err());
    }

    #[test]
    fn the_weaker_of_two_has_no_ml_kem() {
        let noise = SecurityInfo {
            kind: ChannelKind::Noise,
            group: Group::X25519,
            cipher: Cipher::ChaCha20Poly1305,
        };
        let tls = SecurityInfo {
            kind: ChannelKind::Tls,
            ..STACKED
        };
        assert_eq!(STACKED.weaker(noise), noise);
        assert_eq!(noise.weaker(STACKED), noise);
        assert_eq!(STACKED.weaker(tls), tls);
    }
}
