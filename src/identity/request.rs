//! The signing request: a node asks an issuer for a credential and proves that it holds its keys.
//!
//! A tagged COSE_Sign by both of the node's signing keys in a domain of its own, so that no
//! signature the node makes elsewhere can pass for a request. The X-Wing key is only named: who
//! names another's harms nobody but itself. What it wishes is only a wish: the issuer decides.
//!
//! Owner: the identity room. Invariant: a [`SigningRequest`] exists only with a valid proof. It
//! fails with [`RequestError`].

use ciborium::Value;
use serde::Serialize;
use thiserror::Error;

use super::{
    Name, NodeKey, NodePublic,
    claims::{self, Attributes, MAX_SECONDS},
    cose::Domain,
    hybrid::Sealed,
};
use crate::{
    cbor::{self, Fields, Malformed},
    types::{PeerId, Timestamp},
};

/// Longest request, checked before parsing: as long as the credential it may lead to.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;

const VERSION: u64 = 2;
const F_VERSION: i64 = 1;
const F_KEYS: i64 = 2;
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
    /// The node that asks, proved to hold its keys.
    pub peer: PeerId,
    /// Its keys.
    #[serde(skip)]
    pub keys: NodePublic,
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
        let payload = encode_payload(key.public(), subject, attributes, created);
        key.signer().seal(Domain::Request, &payload)
    }

    /// Reads a request and verifies its proof.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn open(bytes: &[u8]) -> Result<Self, RequestError> {
        let message = Sealed::read(bytes, MAX_REQUEST_BYTES)?;
        let payload = message.payload();
        let mut fields = Fields::of(cbor::decode(payload, payload.len())?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        let keys = claims::read_keys(fields.need(F_KEYS)?)?;
        let subject = claims::name(fields.need(F_SUBJECT)?)?;
        let attributes = Attributes::from_value(fields.need(F_ATTRIBUTES)?)?;
        let created = cbor::uint(fields.need(F_CREATED)?)?;
        fields.finish()?;
        if created > MAX_SECONDS {
            return Err(Malformed("a time is out of range").into());
        }
        cbor::same(
            payload,
            &encode_payload(&keys, &subject, &attributes, created),
        )?;
        let signing = keys.signing().ok_or(RequestError::Proof)?;
        message
            .verify(&signing, Domain::Request)
            .map_err(|_| RequestError::Proof)?;
        Ok(Self {
            peer: keys.peer,
            keys,
            subject,
            attributes,
            created: Timestamp::from_secs(created),
        })
    }
}

fn encode_payload(
    keys: &NodePublic,
    subject: &Name,
    attributes: &Attributes,
    created: u64,
) -> Vec<u8> {
    cbor::encode(&cbor::int_map([
        (F_VERSION, Value::from(VERSION)),
        (F_KEYS, claims::keys_value(keys)),
        (F_SUBJECT, Value::from(subject.as_str())),
        (F_ATTRIBUTES, attributes.to_value()),
        (F_CREATED, Value::from(created)),
    ]))
}
