//! The continuity statement: a node's word, by its old keys and by its new ones, that they are of
//! one node.
//!
//! A tagged COSE_Sign with four signatures, both of the old pair and then both of the new one, in a
//! domain of its own: whoever forges must break a pair, and nobody can be moved to keys that he does
//! not hold. It carries the old pair as a whole, so that it can be verified by who never met the
//! node; PeerId and thumbprint follow from that and are not said twice. It is also the signing
//! request for the new keys: they sign it, and it says for which subject.
//!
//! The sequence rises with each rotation of a subject. It is the time in seconds, or one more than
//! the last, and at most a day ahead: no counter has to outlive a restored backup, and nobody can
//! use up the numbers.
//!
//! Pure. Owner: the identity room. Invariant: a [`Continuity`] exists only with all four signatures
//! verified, and its two pairs share no key. It fails with [`ContinuityError`]. What a gate remembers
//! of statements: [`Seen`].

use ciborium::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

mod seen;

pub use seen::Seen;

use super::{
    Attributes, Credential, HybridPublic, Name, NodeKey, NodePublic, Refusal, SigningRequest,
    claims::{self, MAX_SECONDS},
    cose::Domain,
    hybrid::Sealed,
};
use crate::{
    cbor::{self, Fields, Malformed},
    types::{PeerId, Timestamp},
};

/// Longest statement, checked before parsing: two ML-DSA keys of 1,952 bytes, an X-Wing key of
/// 1,216, two ML-DSA signatures of 3,309, and 1 KiB for the rest.
pub const MAX_CONTINUITY_BYTES: usize = 13 * 1024;
/// How far the sequence may be ahead of the time the statement names, in seconds: a day, for clocks
/// that were set back or stand still. Were it not bounded, one statement could leave its subject no
/// higher number for ever.
pub const MAX_AHEAD: u64 = 86_400;
/// Highest sequence: that of a statement made in the last second a document can name.
pub const MAX_SEQUENCE: u64 = MAX_SECONDS + MAX_AHEAD;

const VERSION: u64 = 1;
const F_VERSION: i64 = 1;
const F_ISSUER: i64 = 2;
const F_SUBJECT: i64 = 3;
const F_OLD: i64 = 4;
const F_NEW: i64 = 5;
const F_CREATED: i64 = 6;
const F_SEQUENCE: i64 = 7;

/// Why bytes are no continuity statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContinuityError {
    /// Not the one encoding, or it says what cannot be.
    #[error("not a continuity statement: {0}")]
    Malformed(#[from] Malformed),
    /// A version of another program.
    #[error("a continuity statement of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// One of the four signatures does not hold.
    #[error("a continuity statement that is not signed by both its old and its new keys: {0}")]
    Signature(&'static str),
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    issuer: Name,
    subject: Name,
    old: HybridPublic,
    new: NodePublic,
    created: u64,
    sequence: u64,
}

impl Body {
    fn encode(&self) -> Vec<u8> {
        cbor::encode(&cbor::int_map([
            (F_VERSION, Value::from(VERSION)),
            (F_ISSUER, Value::from(self.issuer.as_str())),
            (F_SUBJECT, Value::from(self.subject.as_str())),
            (F_OLD, self.old.to_value()),
            (F_NEW, claims::keys_value(&self.new)),
            (F_CREATED, Value::from(self.created)),
            (F_SEQUENCE, Value::from(self.sequence)),
        ]))
    }

    fn decode(bytes: &[u8]) -> Result<Self, ContinuityError> {
        let mut fields = Fields::of(cbor::decode(bytes, bytes.len())?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != VERSION {
            return Err(ContinuityError::Version(version));
        }
        let body = Self {
            issuer: claims::name(fields.need(F_ISSUER)?)?,
            subject: claims::name(fields.need(F_SUBJECT)?)?,
            old: HybridPublic::from_value(fields.need(F_OLD)?)?,
            new: claims::read_keys(fields.need(F_NEW)?)?,
            created: cbor::uint(fields.need(F_CREATED)?)?,
            sequence: cbor::uint(fields.need(F_SEQUENCE)?)?,
        };
        fields.finish()?;
        body.check()?;
        cbor::same(bytes, &body.encode())?;
        Ok(body)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.issuer.is_self_signed() {
            return Err(Malformed(
                "a node that signs for itself is named by its keys: other keys are another node",
            ));
        }
        let most = self.created.saturating_add(MAX_AHEAD);
        if self.created > MAX_SECONDS || !(self.created.max(1)..=most).contains(&self.sequence) {
            return Err(Malformed(
                "a time is out of range, or the sequence is not of that time",
            ));
        }
        let (old, new) = (&self.old, &self.new);
        if old.ed25519().to_bytes() == new.peer.key_bytes() || *old.ml_dsa() == new.ml_dsa {
            return Err(Malformed("a key is both an old and a new one"));
        }
        Ok(())
    }
}

/// A statement whose four signatures were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuity {
    body: Body,
    former: PeerId,
    bytes: Vec<u8>,
}

impl Continuity {
    /// Makes and signs a statement that the node of `credential`, whose keys are `old`, goes on with
    /// the keys `new`; `last` is the sequence of its last statement.
    ///
    /// # Errors
    /// [`ContinuityError`] when the credential is not of `old`, is signed by the node itself, `new`
    /// shares a key with `old`, or `last` is more than a day ahead of `now`.
    pub fn seal(
        (old, new): (&NodeKey, &NodeKey),
        credential: &Credential,
        last: Option<u64>,
        now: Timestamp,
    ) -> Result<Self, ContinuityError> {
        let claims = credential.claims();
        if claims.keys != *old.public() {
            return Err(Malformed("the credential is of other keys").into());
        }
        let created = now.secs().min(MAX_SECONDS);
        let next = last.map_or(1, |last| last.saturating_add(1));
        let body = Body {
            issuer: claims.issuer.clone(),
            subject: claims.subject.clone(),
            old: old.signer().public().clone(),
            new: new.public().clone(),
            created,
            sequence: created.max(next),
        };
        body.check()?;
        let signers = [old.signer(), new.signer()];
        let sealed = Sealed::sign_all(&signers, Domain::Continuity, body.encode());
        Ok(Self {
            body,
            former: old.peer(),
            bytes: sealed.as_bytes().to_vec(),
        })
    }

    /// Reads a statement and verifies all of its signatures.
    ///
    /// # Errors
    /// [`ContinuityError`].
    pub fn open(bytes: &[u8]) -> Result<Self, ContinuityError> {
        let sealed = Sealed::read(bytes, MAX_CONTINUITY_BYTES)?;
        let body = Body::decode(sealed.payload())?;
        let weak = Malformed("a key is invalid or weak");
        let new = body.new.signing().ok_or(weak)?;
        let former = PeerId::from_key_bytes(body.old.ed25519().to_bytes()).map_err(|_| weak)?;
        sealed
            .verify_all(&[&body.old, &new], Domain::Continuity)
            .map_err(|bad| ContinuityError::Signature(bad.why()))?;
        Ok(Self {
            body,
            former,
            bytes: bytes.to_vec(),
        })
    }

    /// The one encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// Who issued the node's credential.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.body.issuer
    }

    /// The node, in the issuer's name space.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.body.subject
    }

    /// Who the node was.
    #[must_use]
    pub fn former(&self) -> PeerId {
        self.former
    }

    /// The pair of keys it had.
    #[must_use]
    pub fn old(&self) -> &HybridPublic {
        &self.body.old
    }

    /// The keys it has from now on.
    #[must_use]
    pub fn new_keys(&self) -> &NodePublic {
        &self.body.new
    }

    /// `issuer/subject`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.body.issuer, self.body.subject)
    }

    /// When it was made, in whole seconds.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        Timestamp::from_secs(self.body.created)
    }

    /// Its place among the statements of its subject.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.body.sequence
    }

    /// Whether it leads away from these keys.
    #[must_use]
    pub fn is_from(&self, keys: &NodePublic) -> bool {
        self.former == keys.peer && *self.body.old.ml_dsa() == keys.ml_dsa
    }

    /// The statement as a request for a credential: its new keys have signed it.
    #[must_use]
    pub fn request(&self) -> SigningRequest {
        SigningRequest {
            peer: self.body.new.peer,
            keys: self.body.new.clone(),
            subject: self.body.subject.clone(),
            attributes: Attributes::default(),
            created: self.created(),
        }
    }

    /// Whether it is of the node that presents a credential for these keys under these names.
    ///
    /// # Errors
    /// [`Refusal::Continuity`].
    pub fn leads_to(
        &self,
        keys: Option<&NodePublic>,
        (issuer, subject): (&Name, &Name),
    ) -> Result<(), Refusal> {
        let body = &self.body;
        if keys != Some(&body.new) {
            return Err(Refusal::Continuity("it leads to other keys"));
        }
        if (&body.issuer, &body.subject) != (issuer, subject) {
            return Err(Refusal::Continuity("it is of another subject"));
        }
        Ok(())
    }
}

impl From<ContinuityError> for Refusal {
    fn from(error: ContinuityError) -> Self {
        match error {
            ContinuityError::Malformed(malformed) => Self::Continuity(malformed.0),
            ContinuityError::Version(_) => Self::Continuity("of another version"),
            ContinuityError::Signature(why) => Self::Continuity(why),
        }
    }
}

#[cfg(test)]
mod tests;
