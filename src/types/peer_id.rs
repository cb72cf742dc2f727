//! A peer's name: its Ed25519 public key, written as libp2p writes it.
//!
//! libp2p's `PeerId` may be any multihash. This node speaks Ed25519 only, for which the PeerId
//! *is* the key (an identity multihash over its protobuf form, see the libp2p "Peer Ids and Keys"
//! specification), so holding the 32 bytes loses nothing and can hold nothing else.

use std::{fmt, str::FromStr};

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Identity multihash (code 0, length 36) over the protobuf `PublicKey { Type: Ed25519, Data }`.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Bytes of an Ed25519 PeerId: the prefix and the key.
const LEN: usize = PREFIX.len() + 32;
/// Longest base58 text accepted, before any decoding: 38 bytes need at most 52 characters.
const MAX_TEXT: usize = 64;

/// The name of a peer: a valid, not weak, Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

/// Why bytes or text are not the name of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerIdError {
    /// Not base58, or far too long.
    #[error("not a peer id: expected base58 text that begins with 12D3KooW")]
    NotBase58,
    /// Base58, but not the PeerId of an Ed25519 key.
    #[error("not the peer id of an Ed25519 key (those begin with 12D3KooW)")]
    NotEd25519,
    /// The 32 bytes are no point of the curve, or one of small order.
    #[error("the Ed25519 key in this peer id is invalid or weak")]
    InvalidKey,
}

impl PeerId {
    /// The peer that holds this Ed25519 public key.
    ///
    /// # Errors
    /// [`PeerIdError::InvalidKey`] when the bytes are no curve point, or one of small order.
    pub fn from_key_bytes(bytes: [u8; 32]) -> Result<Self, PeerIdError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| PeerIdError::InvalidKey)?;
        if key.is_weak() {
            Err(PeerIdError::InvalidKey)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The peer's raw Ed25519 public key.
    #[must_use]
    pub fn key_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Reads the 38-byte binary form libp2p uses.
    ///
    /// # Errors
    /// As [`PeerIdError`] says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PeerIdError> {
        let key = bytes.strip_prefix(&PREFIX).ok_or(PeerIdError::NotEd25519)?;
        Self::from_key_bytes(key.try_into().map_err(|_| PeerIdError::NotEd25519)?)
    }

    /// The 38-byte binary form libp2p uses.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let (head, tail) = out.split_at_mut(PREFIX.len());
        head.copy_from_slice(&PREFIX);
        tail.copy_from_slice(&self.0);
        out
    }
}

impl From<&VerifyingKey> for PeerId {
    fn from(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if text.len() > MAX_TEXT {
            return Err(PeerIdError::NotBase58);
        }
        let bytes = bs58::decode(text)
            .into_vec()
            .map_err(|_| PeerIdError::NotBase58)?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn text_and_bytes_round_trip() {
        let peer = PeerId::from(&SigningKey::from_bytes(&[7; 32]).verifying_key());
        assert!(peer.to_string().starts_with("12D3KooW"));
        assert_eq!(peer.to_string().parse::<PeerId>().unwrap(), peer);
        assert_eq!(PeerId::from_bytes(&peer.to_bytes()).unwrap(), peer);
    }

    #[test]
    fn weak_keys_and_foreign_hashes_are_refused() {
        assert_eq!(
            PeerId::from_key_bytes([0; 32]),
            Err(PeerIdError::InvalidKey)
        );
        assert_eq!(
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<PeerId>(),
            Err(PeerIdError::NotEd25519)
        );
        assert_eq!("0OIl".parse::<PeerId>(), Err(PeerIdError::NotBase58));
        assert_eq!(
            "1".repeat(10_000).parse::<PeerId>(),
            Err(PeerIdError::NotBase58)
        );
    }
}
