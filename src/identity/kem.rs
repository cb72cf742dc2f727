//! X-Wing (X25519 with ML-KEM-768): the key to which messages for this node are sealed (HPKE).
//!
//! Only its public half is used here, in the credential: who seals to a peer takes the key that
//! the peer's issuer has signed. The draft behind HPKE's number 0x647a is
//! draft-connolly-cfrg-xwing-kem. Owner: the identity room. Invariant: a [`XWingPublic`] parsed.

use std::{fmt, sync::Arc};

use ciborium::Value;
use hpke::{Deserializable, Kem, Serializable, kem::XWing};
use zeroize::Zeroizing;

use crate::cbor::{self, Malformed, Read};

/// Bytes of a public key.
pub const XWING_PUBLIC_BYTES: usize = 1216;

type Public = <XWing as Kem>::PublicKey;
type Secret = <XWing as Kem>::PrivateKey;

/// A public key that parsed. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct XWingPublic(Arc<[u8]>);

impl XWingPublic {
    /// Takes a raw public key; `None` when it is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Public::from_bytes(bytes).ok()?;
        Some(Self(bytes.into()))
    }

    /// The raw key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Bytes(self.0.to_vec())
    }

    pub(crate) fn from_value(value: Value) -> Read<Self> {
        Self::from_bytes(&cbor::bytes(value)?).ok_or(Malformed("an X-Wing key is invalid"))
    }
}

impl fmt::Debug for XWingPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.0.get(..8).unwrap_or_default();
        write!(f, "XWingPublic({}…)", hex::encode(head))
    }
}

/// The secret key: 32 bytes, from which both halves are derived. Never shown by `Debug`.
#[derive(Clone)]
pub(crate) struct XWingKey(Zeroizing<[u8; 32]>);

impl XWingKey {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    /// The key as HPKE takes it; `None` never happens for 32 bytes.
    pub(crate) fn secret(&self) -> Option<Secret> {
        Secret::from_bytes(self.0.as_slice()).ok()
    }

    /// The public half; `None` never happens for 32 bytes.
    pub(crate) fn public(&self) -> Option<XWingPublic> {
        let secret = Secret::from_bytes(self.0.as_slice()).ok()?;
        let public = XWing::sk_to_pk(&secret).to_bytes();
        XWingPublic::from_bytes(public.as_slice())
    }
}

impl fmt::Debug for XWingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XWingKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1216_bytes_and_reads_back() {
        let key = XWingKey::from_seed(&[7; 32]);
        let public = key.public().unwrap();
        assert_eq!(public.as_bytes().len(), XWING_PUBLIC_BYTES);
        assert_eq!(
            XWingPublic::from_value(public.to_value()),
            Ok(public.clone())
        );
        assert!(XWingPublic::from_bytes(&public.as_bytes()[1..]).is_none());
        assert!(!format!("{key:?}").contains("7, 7"));
        assert_ne!(XWingKey::from_seed(&[8; 32]).public(), Some(public));
    }

    /// draft-connolly-cfrg-xwing-kem, appendix C, first vector: the beginning of its public key.
    #[test]
    fn the_public_key_is_that_of_the_drafts_vector() {
        let seed = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";
        let seed: [u8; 32] = hex::decode(seed).unwrap().try_into().unwrap();
        let public = XWingKey::from_seed(&seed).public().unwrap();
        let begins = "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5";
        assert_eq!(hex::encode(&public.as_bytes()[..32]), begins);
    }
}
