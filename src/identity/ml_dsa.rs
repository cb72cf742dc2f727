//! ML-DSA-65 (FIPS 204), the signature that a quantum computer does not forge, as `aws-lc-rs` has
//! it: pure ML-DSA with an empty context, signatures hedged with fresh randomness.
//!
//! Never used alone for a document: [`super::hybrid`] puts it beside Ed25519. Alone it proves
//! possession of its key over a channel whose Ed25519 key was proved already. Owner: the identity
//! room. Invariant: a [`MlDsaPublic`] holds a key that parsed.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{
    KeyPair, ML_DSA_65 as ALGORITHM, ML_DSA_65_SIGNING, ParsedPublicKey, PqdsaKeyPair,
};
use ciborium::Value;

use super::cose::BadSignature;
use crate::cbor::{self, Fields, Malformed, Read};

/// ML-DSA-65 in COSE (RFC 9964).
pub const ML_DSA_65: i64 = -49;
/// Bytes of a public key (FIPS 204, table 2).
pub const ML_DSA_PUBLIC_BYTES: usize = 1952;
/// Bytes of a signature (FIPS 204, table 2).
pub const ML_DSA_SIGNATURE_BYTES: usize = 3309;

/// COSE key type AKP and its labels (RFC 9964).
const AKP: i64 = 7;
const KTY: i64 = 1;
const ALG: i64 = 3;
const PUB: i64 = -1;

/// A public key that parsed. Cheap to clone.
#[derive(Clone)]
pub struct MlDsaPublic(Arc<(Box<[u8]>, ParsedPublicKey)>);

impl MlDsaPublic {
    /// Takes a raw public key; `None` when it is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // The library also takes other encodings, of other lengths.
        if bytes.len() != ML_DSA_PUBLIC_BYTES {
            return None;
        }
        let parsed = ParsedPublicKey::new(&ALGORITHM, bytes).ok()?;
        Some(Self(Arc::new((bytes.into(), parsed))))
    }

    /// The raw key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if signature.len() != ML_DSA_SIGNATURE_BYTES {
            return Err(BadSignature::Length);
        }
        self.0
            .1
            .verify_sig(message, signature)
            .map_err(|_| BadSignature::Mismatch)
    }

    /// The COSE_Key (RFC 9964): `{1: 7, 3: -49, -1: key}`.
    pub(crate) fn to_value(&self) -> Value {
        cbor::int_map([
            (KTY, Value::from(AKP)),
            (ALG, Value::from(ML_DSA_65)),
            (PUB, Value::Bytes(self.as_bytes().to_vec())),
        ])
    }

    /// Reads what [`MlDsaPublic::to_value`] writes.
    pub(crate) fn from_value(value: Value) -> Read<Self> {
        let mut fields = Fields::of(value)?;
        let kind = cbor::int(fields.need(KTY)?)?;
        let algorithm = cbor::int(fields.need(ALG)?)?;
        let key = cbor::bytes(fields.need(PUB)?)?;
        fields.finish()?;
        if (kind, algorithm) != (AKP, ML_DSA_65) {
            return Err(Malformed("a key is not an ML-DSA-65 key"));
        }
        Self::from_bytes(&key).ok_or(Malformed("an ML-DSA-65 key is invalid"))
    }
}

impl PartialEq for MlDsaPublic {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for MlDsaPublic {}

impl fmt::Debug for MlDsaPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.as_bytes().get(..8).unwrap_or_default();
        write!(f, "MlDsaPublic({}…)", hex::encode(head))
    }
}

/// The library made no key of a seed: it had no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library could not make an ML-DSA-65 key")]
pub(crate) struct NoKey;

/// A secret key. The library overwrites it when it is dropped; never shown by `Debug`.
#[derive(Clone)]
pub(crate) struct MlDsaSigner {
    pair: PqdsaKeyPair,
    public: MlDsaPublic,
}

impl MlDsaSigner {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Result<Self, NoKey> {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).map_err(|_| NoKey)?;
        let public = MlDsaPublic::from_bytes(pair.public_key().as_ref()).ok_or(NoKey)?;
        Ok(Self { pair, public })
    }

    pub(crate) fn public(&self) -> &MlDsaPublic {
        &self.public
    }

    /// Signs. Should the library fail, which it does only without memory or randomness, the
    /// signature is empty, and everybody refuses it.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; ML_DSA_SIGNATURE_BYTES];
        match self.pair.sign(message, &mut signature) {
            Ok(length) if length == ML_DSA_SIGNATURE_BYTES => signature,
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for MlDsaSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlDsaSigner({:?}, secret)", self.public)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
