//! The credential: claims signed by an issuer, as a CBOR Web Token in a tagged COSE_Sign.
//!
//! COSE_Sign rather than COSE_Sign1, so that a second algorithm can sign the same claims; which
//! algorithms must have signed is itself a signed claim, or a verifier that takes what it finds
//! would accept the message with the stronger signature cut away.
//!
//! Owner: the identity room. Invariants: a [`Credential`] was read from its one encoding and has
//! exactly one signature per required algorithm, in that order; it says *nothing* about whether
//! the signatures hold: only [`super::verify`] does. Reading fails with [`CredentialError`].

use ciborium::Value;
use coset::{CoseSign, CoseSignBuilder, CoseSignature, TaggedCborSerializable};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

use super::{
    Refusal,
    claims::{Claims, MAX_ALGORITHMS},
    cose::{self, BadSignature, Domain, ED25519, PublicKey, Thumbprint},
};
use crate::cbor::{self, Fields, Malformed, Read};

/// Longest credential, checked before parsing: a hybrid one with ML-DSA-65 is about 6.7 KB.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// The algorithms this node enforces: each must be required by the credential, and no other may
/// be, for one that cannot be checked is no proof.
pub const ENFORCED: [i64; 1] = [ED25519];

/// CBOR tag of `COSE_Sign`.
const TAG_SIGN: u64 = 98;
const ALG: i64 = 1;
const KID: i64 = 4;

/// One signature of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signed {
    algorithm: i64,
    key: Thumbprint,
    signature: Vec<u8>,
}

/// A credential as read: well formed, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    claims: Claims,
    signatures: Vec<Signed>,
    bytes: Vec<u8>,
}

/// A credential that would be longer than [`MAX_CREDENTIAL_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the credential would be {0} bytes long, {MAX_CREDENTIAL_BYTES} are allowed: \
     use fewer or shorter attributes"
)]
pub struct TooLong(pub usize);

impl Credential {
    /// Signs claims with the issuer's key.
    ///
    /// # Errors
    /// [`TooLong`] when the result exceeds [`MAX_CREDENTIAL_BYTES`].
    pub fn sign(mut claims: Claims, issuer: &SigningKey) -> Result<Self, TooLong> {
        claims.algorithms = ENFORCED.to_vec();
        let key = PublicKey::of(issuer).thumbprint();
        let mut signed = Signed {
            algorithm: ED25519,
            key,
            signature: Vec::new(),
        };
        let message = message(&claims, std::slice::from_ref(&signed));
        let to_sign = to_be_signed(&message, &signed);
        signed.signature = issuer.sign(&to_sign).to_bytes().to_vec();
        let signatures = vec![signed];
        let bytes = encode(&claims, &signatures);
        if bytes.len() > MAX_CREDENTIAL_BYTES {
            return Err(TooLong(bytes.len()));
        }
        Ok(Self {
            claims,
            signatures,
            bytes,
        })
    }

    /// Reads a credential in its one encoding.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let value = cbor::decode(bytes, MAX_CREDENTIAL_BYTES)?;
        let [_, _, payload, signatures] = cose::untag(value, TAG_SIGN)?;
        let claims = Claims::decode(&cbor::bytes(payload)?)?;
        let signatures = cbor::array(signatures, MAX_ALGORITHMS)?
            .into_iter()
            .map(read_signed)
            .collect::<Read<Vec<Signed>>>()?;
        // Headers that were not looked at above are looked at here: in the one encoding they are
        // empty.
        cbor::same(bytes, &encode(&claims, &signatures))?;
        Ok(Self {
            claims,
            signatures,
            bytes: bytes.to_vec(),
        })
    }

    /// What it says. Trust it only after verification.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: the credential's name in logs and in message envelopes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// The key that is said to have signed.
    #[must_use]
    pub fn signed_by(&self) -> Option<Thumbprint> {
        self.signatures.first().map(|signed| signed.key)
    }

    /// Checks that every algorithm this node enforces is required, has signed with `issuer`, and
    /// that none is required which it cannot check.
    pub(crate) fn verify_signatures(&self, issuer: PublicKey) -> Result<(), Refusal> {
        let required = &self.claims.algorithms;
        if ENFORCED.iter().any(|alg| !required.contains(alg)) {
            return Err(Refusal::Signature(
                "an algorithm that must sign is not required",
            ));
        }
        if !self
            .signatures
            .iter()
            .map(|s| s.algorithm)
            .eq(required.iter().copied())
        {
            return Err(Refusal::Signature(
                "a required signature is missing or another is added",
            ));
        }
        if required.iter().any(|alg| !ENFORCED.contains(alg)) {
            // The peer may be honest and newer than this node, so it is not charged.
            return Err(Refusal::Denied("credential.algorithm-unknown".into()));
        }
        let message = message(&self.claims, &self.signatures);
        let thumbprint = issuer.thumbprint();
        for signed in &self.signatures {
            if signed.key != thumbprint {
                return Err(Refusal::Signature("made by another key than the issuer's"));
            }
            issuer
                .verify(&to_be_signed(&message, signed), &signed.signature)
                .map_err(|bad| match bad {
                    BadSignature::Length => Refusal::Signature("of the wrong length"),
                    BadSignature::Mismatch => Refusal::Signature("does not verify"),
                })?;
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

fn message(claims: &Claims, signatures: &[Signed]) -> CoseSign {
    signatures
        .iter()
        .map(cose_signature)
        .fold(
            CoseSignBuilder::new().payload(claims.encode()),
            CoseSignBuilder::add_signature,
        )
        .build()
}

fn to_be_signed(message: &CoseSign, signed: &Signed) -> Vec<u8> {
    message.tbs_data(Domain::Credential.aad(), &cose_signature(signed))
}

fn encode(claims: &Claims, signatures: &[Signed]) -> Vec<u8> {
    message(claims, signatures)
        .to_tagged_vec()
        .unwrap_or_default()
}

/// What a forger can do and this program never does: any claims, any signatures.
#[cfg(test)]
pub(crate) mod forge {
    use super::*;

    /// A signature as `(algorithm, thumbprint, bytes)`.
    pub(crate) type Raw = (i64, Thumbprint, Vec<u8>);

    /// The signatures of a credential.
    pub(crate) fn signatures(credential: &Credential) -> Vec<Raw> {
        credential
            .signatures
            .iter()
            .map(|s| (s.algorithm, s.key, s.signature.clone()))
            .collect()
    }

    /// Puts claims and signatures together, unchecked.
    pub(crate) fn assemble(claims: &Claims, signatures: &[Raw]) -> Vec<u8> {
        encode(claims, &signed(signatures))
    }

    /// Signs claims as they are, with any key under any algorithm and any key id.
    pub(crate) fn sign(claims: &Claims, makers: &[(i64, Thumbprint, &SigningKey)]) -> Vec<u8> {
        let raw: Vec<Raw> = makers.iter().map(|m| (m.0, m.1, Vec::new())).collect();
        let mut all = signed(&raw);
        let message = message(claims, &all);
        for (signed, maker) in all.iter_mut().zip(makers) {
            let to_sign = to_be_signed(&message, signed);
            signed.signature = maker.2.sign(&to_sign).to_bytes().to_vec();
        }
        encode(claims, &all)
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
