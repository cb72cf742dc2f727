//! The credential: claims signed by an issuer, as a CBOR Web Token in a tagged COSE_Sign.
//!
//! Two algorithms sign the same claims ([`super::hybrid`]); which ones must have signed is itself
//! a signed claim, or a verifier that takes what it finds would accept the message with the
//! stronger signature cut away.
//!
//! Owner: the identity room. Invariants: a [`Credential`] was read from its one encoding; it says
//! *nothing* about whether the signatures hold: only [`super::verify`] does. Reading fails with
//! [`Malformed`].

use sha2::{Digest, Sha256};

use super::{
    Refusal,
    claims::{Claims, Head},
    cose::{Domain, Thumbprint},
    hybrid::{ENFORCED, HybridPublic, HybridSigner, Sealed},
};
use crate::cbor::Malformed;

/// Longest credential or delegation, checked before parsing: a credential with two signatures and
/// three keys has about 6.7 KB, the rest is for attributes and groups.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// A credential as read: well formed, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    claims: Claims,
    sealed: Sealed,
}

/// A credential that would be longer than [`MAX_CREDENTIAL_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the credential would be {0} bytes long, {MAX_CREDENTIAL_BYTES} are allowed: \
     use fewer or shorter attributes and groups"
)]
pub struct TooLong(pub usize);

impl Credential {
    /// Signs claims with the issuer's keys.
    ///
    /// # Errors
    /// [`TooLong`] when the result exceeds [`MAX_CREDENTIAL_BYTES`].
    pub fn sign(mut claims: Claims, issuer: &HybridSigner) -> Result<Self, TooLong> {
        claims.algorithms = ENFORCED.to_vec();
        let sealed = seal(issuer, Domain::Credential, claims.encode())?;
        Ok(Self { claims, sealed })
    }

    /// Reads a credential in its one encoding.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let sealed = Sealed::read(bytes, MAX_CREDENTIAL_BYTES)?;
        let claims = Claims::decode(sealed.payload())?;
        Ok(Self { claims, sealed })
    }

    /// What it says. Trust it only after verification.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.sealed.as_bytes()
    }

    /// SHA-256 of the bytes: the credential's name in logs and in message envelopes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.as_bytes()).into()
    }

    /// The pair of keys that is said to have signed.
    #[must_use]
    pub fn signed_by(&self) -> Option<Thumbprint> {
        self.sealed.signed_by()
    }

    /// Checks that every algorithm this node enforces is required and has signed with `issuer`,
    /// and that none is required which it cannot check.
    pub(crate) fn verify_signatures(&self, issuer: &HybridPublic) -> Result<(), Refusal> {
        verify(&self.sealed, &self.claims, issuer, Domain::Credential)
    }
}

/// Signs a credential or a delegation, if it is not too long.
pub(super) fn seal(
    issuer: &HybridSigner,
    domain: Domain,
    payload: Vec<u8>,
) -> Result<Sealed, TooLong> {
    let sealed = Sealed::sign(issuer, domain, payload);
    let length = sealed.as_bytes().len();
    if length > MAX_CREDENTIAL_BYTES {
        return Err(TooLong(length));
    }
    Ok(sealed)
}

/// The algorithms required by the signed claim against those enforced and those found; then the
/// signatures.
pub(super) fn verify(
    sealed: &Sealed,
    head: &Head,
    issuer: &HybridPublic,
    domain: Domain,
) -> Result<(), Refusal> {
    let required = &head.algorithms;
    if ENFORCED.iter().any(|alg| !required.contains(alg)) {
        return Err(Refusal::Signature(
            "an algorithm that must sign is not required",
        ));
    }
    if !sealed.algorithms().eq(required.iter().copied()) {
        return Err(Refusal::Signature(
            "a required signature is missing or another is added",
        ));
    }
    if required.iter().any(|alg| !ENFORCED.contains(alg)) {
        // The peer may be honest and newer than this node, so it is not charged.
        return Err(Refusal::Denied("credential.algorithm-unknown".into()));
    }
    sealed
        .verify(issuer, domain)
        .map_err(|bad| Refusal::Signature(bad.why()))
}

/// What a forger can do and this program never does: any claims, any signatures.
#[cfg(test)]
pub(crate) mod forge {
    use super::*;
    use crate::identity::hybrid::forge as sealed;
    pub(crate) use crate::identity::hybrid::forge::Raw;

    /// The signatures of a credential.
    pub(crate) fn signatures(credential: &Credential) -> Vec<Raw> {
        sealed::signatures(&credential.sealed)
    }

    /// Puts claims and signatures together, unchecked.
    pub(crate) fn assemble(claims: &Claims, signatures: &[Raw]) -> Vec<u8> {
        sealed::assemble(&claims.encode(), signatures)
    }

    /// Signs claims as they are, with any keys under any algorithms and any key ids.
    pub(crate) fn sign(claims: &Claims, makers: &[(i64, Thumbprint, &HybridSigner)]) -> Vec<u8> {
        sealed::sign(Domain::Credential, &claims.encode(), makers)
    }
}
