//! Hybrid signatures: Ed25519 and ML-DSA-65 over the same payload, both required, as a tagged
//! COSE_Sign (RFC 9052). One way to sign and one way to verify, for every kind of document that
//! has to hold for years: credentials, delegations, signing requests, anchors.
//!
//! Whoever forges must break both. Neither signature can be cut away, swapped or accompanied by a
//! third: [`Sealed::verify`] wants exactly [`ENFORCED`], in that order. Each names the *pair* of
//! keys in its protected header, so that a signature of one pair is none of another that shares a
//! half. Each kind of document has its own [`Domain`].
//!
//! `coset` builds what is signed and sent; it does not parse what peers send: its header parser
//! follows counter-signatures without a bound on depth. Owner: the identity room.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use ciborium::Value;
use coset::{CoseSign, CoseSignBuilder, CoseSignature, TaggedCborSerializable};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

use super::{
    cose::{self, BadSignature, Domain, ED25519, PublicKey, Thumbprint},
    ml_dsa::{ML_DSA_65, MlDsaPublic, MlDsaSigner, NoKey},
};
use crate::cbor::{self, Fields, Malformed, Read};

/// The algorithms that must sign, in the order of the signatures.
pub const ENFORCED: [i64; 2] = [ED25519, ML_DSA_65];

/// Most signatures read: two pairs' at most are made ([`Sealed::sign_all`]), and one of a newer kind
/// is to be recognised as such.
pub(crate) const MAX_SIGNATURES: usize = 4;

/// CBOR tag of `COSE_Sign`.
const TAG_SIGN: u64 = 98;
const ALG: i64 = 1;
const KID: i64 = 4;

/// A pair of public keys, Ed25519 and ML-DSA-65. Cheap to clone.
#[derive(Clone)]
pub struct HybridPublic(Arc<Pair>);

struct Pair {
    ed25519: PublicKey,
    ml_dsa: MlDsaPublic,
    thumbprint: OnceLock<Thumbprint>,
}

impl HybridPublic {
    /// Puts two keys together.
    #[must_use]
    pub fn new(ed25519: PublicKey, ml_dsa: MlDsaPublic) -> Self {
        Self(Arc::new(Pair {
            ed25519,
            ml_dsa,
            thumbprint: OnceLock::new(),
        }))
    }

    /// The Ed25519 key.
    #[must_use]
    pub fn ed25519(&self) -> PublicKey {
        self.0.ed25519
    }

    /// The ML-DSA-65 key.
    #[must_use]
    pub fn ml_dsa(&self) -> &MlDsaPublic {
        &self.0.ml_dsa
    }

    /// The name of the pair: SHA-256 of the canonical COSE_KeySet of both keys, as RFC 9679 does
    /// for one.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        *self.0.thumbprint.get_or_init(|| {
            let keys = cbor::encode(&self.to_value());
            Thumbprint(Sha256::digest(keys).into())
        })
    }

    /// The COSE_KeySet: an array of both COSE_Keys.
    pub(crate) fn to_value(&self) -> Value {
        Value::Array(vec![
            cose::cose_key(self.0.ed25519.to_bytes()),
            self.0.ml_dsa.to_value(),
        ])
    }

    /// Reads what [`HybridPublic::to_value`] writes.
    pub(crate) fn from_value(value: Value) -> Read<Self> {
        let [ed25519, ml_dsa]: [Value; 2] = cbor::array(value, 2)?
            .try_into()
            .map_err(|_| Malformed("a pair of keys was expected"))?;
        let ed25519 = PublicKey::from_bytes(&cose::read_cose_key(ed25519)?)
            .ok_or(Malformed("the key is invalid or weak"))?;
        Ok(Self::new(ed25519, MlDsaPublic::from_value(ml_dsa)?))
    }
}

impl PartialEq for HybridPublic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.ed25519 == other.0.ed25519 && self.0.ml_dsa == other.0.ml_dsa)
    }
}

impl Eq for HybridPublic {}

impl fmt::Debug for HybridPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HybridPublic({})", self.thumbprint())
    }
}

/// A pair of secret keys. Never shown by `Debug`; overwritten when dropped. Cheap to clone.
#[derive(Clone)]
pub struct HybridSigner(Arc<(SigningKey, MlDsaSigner, HybridPublic)>);

impl HybridSigner {
    pub(crate) fn from_seeds(ed25519: &[u8; 32], ml_dsa: &[u8; 32]) -> Result<Self, NoKey> {
        let ed25519 = SigningKey::from_bytes(ed25519);
        let ml_dsa = MlDsaSigner::from_seed(ml_dsa)?;
        let public = HybridPublic::new(PublicKey::of(&ed25519), ml_dsa.public().clone());
        Ok(Self(Arc::new((ed25519, ml_dsa, public))))
    }

    /// The public keys.
    #[must_use]
    pub fn public(&self) -> &HybridPublic {
        &self.0.2
    }

    /// Signs a payload with both keys as a document of this kind.
    #[must_use]
    pub fn seal(&self, domain: Domain, payload: &[u8]) -> Vec<u8> {
        Sealed::sign(self, domain, payload.to_vec()).bytes
    }

    pub(crate) fn ed25519(&self) -> &SigningKey {
        &self.0.0
    }

    pub(crate) fn ml_dsa(&self) -> &MlDsaSigner {
        &self.0.1
    }

    fn sign(&self, algorithm: i64, message: &[u8]) -> Vec<u8> {
        match algorithm {
            ED25519 => self.ed25519().sign(message).to_bytes().to_vec(),
            ML_DSA_65 => self.ml_dsa().sign(message),
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for HybridSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HybridSigner({}, secret)", self.public().thumbprint())
    }
}

/// One signature of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signed {
    algorithm: i64,
    key: Thumbprint,
    signature: Vec<u8>,
}

/// A document as read from its one encoding, or as made; its signatures not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    payload: Vec<u8>,
    signatures: Vec<Signed>,
    bytes: Vec<u8>,
}

impl Sealed {
    pub(crate) fn sign(signer: &HybridSigner, domain: Domain, payload: Vec<u8>) -> Self {
        Self::sign_all(&[signer], domain, payload)
    }

    /// Signs with each of these pairs, at most two of them, in this order.
    pub(crate) fn sign_all(signers: &[&HybridSigner], domain: Domain, payload: Vec<u8>) -> Self {
        let pairs = signers.iter().flat_map(|signer| {
            let key = signer.public().thumbprint();
            ENFORCED.map(|algorithm| (*signer, algorithm, key))
        });
        let (makers, mut signatures): (Vec<&HybridSigner>, Vec<Signed>) = pairs
            .map(|(signer, algorithm, key)| {
                let signed = Signed {
                    algorithm,
                    key,
                    signature: Vec::new(),
                };
                (signer, signed)
            })
            .unzip();
        let message = message(&payload, &signatures);
        for (signed, signer) in signatures.iter_mut().zip(makers) {
            let to_sign = to_be_signed(&message, domain, signed);
            signed.signature = signer.sign(signed.algorithm, &to_sign);
        }
        let bytes = encode(&payload, &signatures);
        Self {
            payload,
            signatures,
            bytes,
        }
    }

    /// Reads a document of at most `max` bytes in its one encoding.
    pub(crate) fn read(bytes: &[u8], max: usize) -> Read<Self> {
        let [_, _, payload, signatures] = cose::untag(cbor::decode(bytes, max)?, TAG_SIGN)?;
        let payload = cbor::bytes(payload)?;
        let signatures = cbor::array(signatures, MAX_SIGNATURES)?
            .into_iter()
            .map(read_signed)
            .collect::<Read<Vec<Signed>>>()?;
        // Headers that were not looked at above are looked at here: in the one encoding they are
        // empty.
        cbor::same(bytes, &encode(&payload, &signatures))?;
        Ok(Self {
            payload,
            signatures,
            bytes: bytes.to_vec(),
        })
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The algorithms of the signatures, in order.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = i64> {
        self.signatures.iter().map(|signed| signed.algorithm)
    }

    /// The pair of keys that is said to have signed.
    pub(crate) fn signed_by(&self) -> Option<Thumbprint> {
        self.signatures.first().map(|signed| signed.key)
    }

    /// Both signatures, exactly and in order, by this pair of keys, in this domain.
    pub(crate) fn verify(&self, key: &HybridPublic, domain: Domain) -> Result<(), BadSignature> {
        self.verify_all(&[key], domain)
    }

    /// Both signatures of each of these pairs, exactly and in order, in this domain.
    pub(crate) fn verify_all(
        &self,
        keys: &[&HybridPublic],
        domain: Domain,
    ) -> Result<(), BadSignature> {
        let wanted = keys.iter().flat_map(|key| ENFORCED.map(|alg| (*key, alg)));
        let wanted: Vec<(&HybridPublic, i64)> = wanted.collect();
        let algorithms = wanted.iter().map(|(_, algorithm)| *algorithm);
        if !self.algorithms().eq(algorithms) {
            return Err(BadSignature::Required);
        }
        let mut said = self.signatures.iter().zip(&wanted);
        if said.any(|(signed, (key, _))| signed.key != key.thumbprint()) {
            return Err(BadSignature::OtherKey);
        }
        let message = message(&self.payload, &self.signatures);
        for (signed, (key, _)) in self.signatures.iter().zip(&wanted) {
            let signature = &signed.signature;
            let signed_bytes = to_be_signed(&message, domain, signed);
            match signed.algorithm {
                ED25519 => key.ed25519().verify(&signed_bytes, signature)?,
                ML_DSA_65 => key.ml_dsa().verify(&signed_bytes, signature)?,
                _ => return Err(BadSignature::Required),
            }
        }
        Ok(())
    }
}

fn read_signed(value: Value) -> Read<Signed> {
    let [protected, _, signature]: [Value; 3] = cbor::array(value, 3)?
        .try_into()
        .map_err(|_| Malformed("a signature has three parts"))?;
    let header = cbor::bytes(protected)?;
    let mut header = Fields::of(cbor::decode(&header, header.len())?)?;
    let signed = Signed {
        algorithm: cbor::int(header.need(ALG)?)?,
        key: Thumbprint(cbor::exact(header.need(KID)?)?),
        signature: cbor::bytes(signature)?,
    };
    header.finish()?;
    Ok(signed)
}

fn cose_signature(signed: &Signed) -> CoseSignature {
    CoseSignature {
        protected: cose::protected(cbor::encode(&cbor::int_map([
            (ALG, Value::from(signed.algorithm)),
            (KID, Value::Bytes(signed.key.0.to_vec())),
        ]))),
        signature: signed.signature.clone(),
        ..CoseSignature::default()
    }
}

fn message(payload: &[u8], signatures: &[Signed]) -> CoseSign {
    signatures
        .iter()
        .map(cose_signature)
        .fold(
            CoseSignBuilder::new().payload(payload.to_vec()),
            CoseSignBuilder::add_signature,
        )
        .build()
}

fn to_be_signed(message: &CoseSign, domain: Domain, signed: &Signed) -> Vec<u8> {
    message.tbs_data(domain.aad(), &cose_signature(signed))
}

fn encode(payload: &[u8], signatures: &[Signed]) -> Vec<u8> {
    message(payload, signatures)
        .to_tagged_vec()
        .unwrap_or_default()
}

/// What a forger can do and this program never does: any payload, any signatures.
#[cfg(test)]
pub(crate) mod forge {
    use super::*;

    /// A signature as `(algorithm, thumbprint, bytes)`.
    pub(crate) type Raw = (i64, Thumbprint, Vec<u8>);

    /// The signatures of a document.
    pub(crate) fn signatures(document: &Sealed) -> Vec<Raw> {
        document
            .signatures
            .iter()
            .map(|s| (s.algorithm, s.key, s.signature.clone()))
            .collect()
    }

    /// Puts a payload and signatures together, unchecked.
    pub(crate) fn assemble(payload: &[u8], signatures: &[Raw]) -> Vec<u8> {
        encode(payload, &signed(signatures))
    }

    /// Signs a payload as it is, with any keys, under any algorithms and any key ids.
    pub(crate) fn sign(
        domain: Domain,
        payload: &[u8],
        makers: &[(i64, Thumbprint, &HybridSigner)],
    ) -> Vec<u8> {
        let raw: Vec<Raw> = makers.iter().map(|m| (m.0, m.1, Vec::new())).collect();
        let mut all = signed(&raw);
        let message = message(payload, &all);
        for (signed, maker) in all.iter_mut().zip(makers) {
            let to_sign = to_be_signed(&message, domain, signed);
            signed.signature = maker.2.sign(signed.algorithm, &to_sign);
        }
        encode(payload, &all)
    }

    fn signed(raw: &[Raw]) -> Vec<Signed> {
        raw.iter()
            .map(|(algorithm, key, signature)| Signed {
                algorithm: *algorithm,
                key: *key,
                signature: signature.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
