//! The signing request: a node asks an issuer for a credential and proves that it holds its key.
//!
//! A tagged COSE_Sign1 by the node key in a domain of its own, so that no signature the node makes
//! elsewhere can pass for a request. What it wishes is only a wish: the issuer decides.
//!
//! Owner: the identity room. Invariant: a [`SigningRequest`] exists only with a valid proof. It
//! fails with [`RequestError`].

use ciborium::Value;
use serde::Serialize;
use thiserror::Error;

use super::{
    Name, NodeKey,
    claims::{self, Attributes, MAX_SECONDS},
    cose::{self, Domain, PublicKey, Sign1},
};
use crate::{
    cbor::{self, Fields, Malformed},
    types::{PeerId, Timestamp},
};

/// Longest request, checked before parsing: as long as the credential it may lead to.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;

const VERSION: u64 = 1;
const F_VERSION: i64 = 1;
const F_KEY: i64 = 2;
const F_SUBJECT: i64 = 3;
const F_ATTRIBUTES: i64 = 4;
const F_CREATED: i64 = 5;

/// Why bytes are no signing request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not the one encoding.
    #[error("not a signing request: {0}")]
    Malformed(#[from] Malformed),
    /// A version of another program.
    #[error("a signing request of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// The proof does not hold.
    #[error("the request's proof of its key is wrong: whoever made it does not hold that key")]
    Proof,
}

/// A request whose proof of possession was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SigningRequest {
    /// The node that asks, proved to hold its key.
    pub peer: PeerId,
    /// The subject it wishes to be called.
    pub subject: Name,
    /// The attributes it wishes for.
    pub attributes: Attributes,
    /// When it was made, in whole seconds.
    pub created: Timestamp,
}

impl SigningRequest {
    /// Makes and signs a request.
    #[must_use]
    pub fn seal(key: &NodeKey, subject: &Name, attributes: &Attributes, now: Timestamp) -> Vec<u8> {
        let created = now.secs().min(MAX_SECONDS);
        let payload = encode_payload(&key.peer().key_bytes(), subject, attributes, created);
        cose::sign1_seal(key.signing(), Domain::Request, payload)
    }

    /// Reads a request and verifies its proof.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn open(bytes: &[u8]) -> Result<Self, RequestError> {
        let message = Sign1::read(bytes, MAX_REQUEST_BYTES)?;
        let payload = message.payload();
        let mut fields = Fields::of(cbor::decode(payload, payload.len())?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        let raw = cose::read_cose_key(fields.need(F_KEY)?)?;
        let subject = claims::name(fields.need(F_SUBJECT)?)?;
        let attributes = Attributes::from_value(fields.need(F_ATTRIBUTES)?)?;
        let created = cbor::uint(fields.need(F_CREATED)?)?;
        fields.finish()?;
        if created > MAX_SECONDS {
            return Err(Malformed("a time is out of range").into());
        }
        let weak = || Malformed("the key is invalid or weak");
        let key = PublicKey::from_bytes(&raw).ok_or_else(weak)?;
        cbor::same(
            payload,
            &encode_payload(&raw, &subject, &attributes, created),
        )?;
        message
            .verify(key, Domain::Request)
            .map_err(|_| RequestError::Proof)?;
        Ok(Self {
            peer: PeerId::from_key_bytes(raw).map_err(|_| weak())?,
            subject,
            attributes,
            created: Timestamp::from_secs(created),
        })
    }
}

fn encode_payload(
    key: &[u8; 32],
    subject: &Name,
    attributes: &Attributes,
    created: u64,
) -> Vec<u8> {
    cbor::encode(&cbor::int_map([
        (F_VERSION, Value::from(VERSION)),
        (F_KEY, cose::cose_key(*key)),
        (F_SUBJECT, Value::from(subject.as_str())),
        (F_ATTRIBUTES, attributes.to_value()),
        (F_CREATED, Value::from(created)),
    ]))
}
