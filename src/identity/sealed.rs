//! Sealed payloads: only those they are meant for can read them, whoever carries or keeps them.
//!
//! HPKE (RFC 9180, base mode) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305 wraps a fresh content
//! key for each recipient; the payload itself is encrypted once, with AES-256-GCM under that key.
//! The key is used for nothing else, so its nonce is zero. What everybody can see (the list of
//! recipients) is authenticated with the payload.
//!
//! HPKE's base mode says nothing about the sender: that is for the signature around it. The
//! [`Purpose`] and the sender's id go into HPKE's `info`, so that nobody can take a sealed payload
//! out of one message and pass it off as their own in another.
//!
//! A recipient is named by eight bytes of its key's hash: carriers learn how many there are and,
//! if they know the keys, who. Format: `docs/reference/sealed.md`.
//!
//! Pure, but for the generator. Owner: the identity room. It fails with [`SealFault`] and
//! [`OpenFault`].

use std::{fmt, str::FromStr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ciborium::Value;
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::XWing,
};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

pub use super::kem::XWingPublic;
use super::{Name, kem::XWingKey};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    types::PeerId,
};

/// Most recipients of one payload: each costs its carriers 1.2 KB and its sender 0.1 ms.
pub const MAX_RECIPIENTS: usize = 64;
/// Bytes of an encapsulated X-Wing key.
const ENCAPPED: usize = 1120;
/// Bytes of a wrapped content key: the key and a tag.
const WRAPPED: usize = 32 + 16;
/// Bytes of the tag of the payload.
const TAG: usize = 16;
/// Bytes of a recipient's hint.
const HINT: usize = 8;
/// Most that a sealed payload is longer than what is in it: each recipient with its CBOR heads,
/// the tag, the map around them.
pub const MAX_OVERHEAD: usize = MAX_RECIPIENTS * (HINT + ENCAPPED + WRAPPED + 8) + TAG + 64;
const VERSION: u64 = 1;
const F_VERSION: i64 = 1;
const F_RECIPIENTS: i64 = 2;
const F_PAYLOAD: i64 = 3;
const CONTEXT: &[u8] = b"quantraband/sealed/1\0";

/// What a payload is sealed for: one that was sealed for something else does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A message on this topic.
    Message(&'a str),
    /// The input of a job for this executor.
    JobInput(PeerId),
}

impl Purpose<'_> {
    fn info(&self, sender: PeerId) -> Vec<u8> {
        let mut info = CONTEXT.to_vec();
        info.extend_from_slice(&sender.key_bytes());
        match self {
            Self::Message(topic) => {
                info.push(1);
                info.extend_from_slice(topic.as_bytes());
            }
            Self::JobInput(executor) => {
                info.push(2);
                info.extend_from_slice(&executor.key_bytes());
            }
        }
        info
    }
}

/// Whom to seal to: a peer by its id, or everybody in a group, as `issuer/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SealTo {
    /// One peer.
    Peer(PeerId),
    /// All whose credential says so.
    Group(String),
}

/// A text that is no [`SealTo`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a peer id, or a group as ISSUER/GROUP")]
pub struct SealToError;

impl FromStr for SealTo {
    type Err = SealToError;

    fn from_str(text: &str) -> Result<Self, SealToError> {
        match text.split_once('/') {
            Some((issuer, group)) => {
                let good = Name::try_new(issuer).is_ok() && Name::try_new(group).is_ok();
                good.then(|| Self::Group(text.to_owned()))
                    .ok_or(SealToError)
            }
            None => text.parse().map(Self::Peer).map_err(|_| SealToError),
        }
    }
}

impl TryFrom<String> for SealTo {
    type Error = SealToError;

    fn try_from(text: String) -> Result<Self, SealToError> {
        text.parse()
    }
}

impl From<SealTo> for String {
    fn from(to: SealTo) -> Self {
        to.to_string()
    }
}

impl fmt::Display for SealTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(f, "{peer}"),
            Self::Group(group) => f.write_str(group),
        }
    }
}

/// Why a payload cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealFault {
    /// Nobody could read it.
    #[error("there is nobody to seal it to")]
    Nobody,
    /// Too many.
    #[error("{0} recipients: at most {MAX_RECIPIENTS} can be sealed to at once")]
    TooMany(usize),
    /// The library failed.
    #[error("the cryptographic library failed: it has no memory")]
    Library,
}

/// Why a payload does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenFault {
    /// Not the one encoding.
    #[error("not a sealed payload: {0}")]
    Malformed(#[from] Malformed),
    /// Sealed to others.
    #[error("it is not sealed to this node")]
    NotForUs,
    /// Changed, or sealed by another sender or for another purpose.
    #[error("it was changed, or sealed by another sender or for another purpose")]
    Wrong,
}

/// One recipient's part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrapped {
    hint: [u8; HINT],
    encapped: [u8; ENCAPPED],
    key: [u8; WRAPPED],
}

fn hint(key: &XWingPublic) -> [u8; HINT] {
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let mut hint = [0; HINT];
    hint.iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    hint
}

/// Seals a payload to these recipients; each counts once.
///
/// # Errors
/// [`SealFault`].
pub fn seal(
    payload: &[u8],
    recipients: &[XWingPublic],
    sender: PeerId,
    purpose: Purpose<'_>,
) -> Result<Vec<u8>, SealFault> {
    let mut unique: Vec<&XWingPublic> = Vec::new();
    for key in recipients {
        if !unique.contains(&key) {
            unique.push(key);
        }
    }
    match unique.len() {
        0 => return Err(SealFault::Nobody),
        count if count > MAX_RECIPIENTS => return Err(SealFault::TooMany(count)),
        _ => {}
    }
    let mut rng = rand::rng();
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(key.as_mut_slice());
    let info = purpose.info(sender);
    let wrapped = unique
        .into_iter()
        .map(|recipient| wrap(&key, recipient, &info, &mut rng))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sealed = payload.to_vec();
    cipher(&key)
        .ok_or(SealFault::Library)?
        .seal_in_place_append_tag(zero(), Aad::from(associated(&wrapped)), &mut sealed)
        .map_err(|_| SealFault::Library)?;
    Ok(encode(&wrapped, sealed))
}

fn wrap(
    key: &[u8; 32],
    recipient: &XWingPublic,
    info: &[u8],
    rng: &mut rand::rngs::ThreadRng,
) -> Result<Wrapped, SealFault> {
    let public = <XWing as Kem>::PublicKey::from_bytes(recipient.as_bytes())
        .map_err(|_| SealFault::Library)?;
    let (encapped, wrapped) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &public,
            info,
            key,
            &[],
            rng,
        )
        .map_err(|_| SealFault::Library)?;
    let fixed = |bytes: &[u8]| <[u8; ENCAPPED]>::try_from(bytes).ok();
    Ok(Wrapped {
        hint: hint(recipient),
        encapped: fixed(encapped.to_bytes().as_slice()).ok_or(SealFault::Library)?,
        key: wrapped.try_into().map_err(|_| SealFault::Library)?,
    })
}

/// Opens a payload of at most `max` bytes that `sender` sealed to the holder of `key`.
///
/// # Errors
/// [`OpenFault`].
pub(crate) fn open(
    bytes: &[u8],
    max: usize,
    key: &XWingKey,
    own: &XWingPublic,
    sender: PeerId,
    purpose: Purpose<'_>,
) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
    let (wrapped, mut payload) = decode(bytes, max.saturating_add(MAX_OVERHEAD))?;
    let own = hint(own);
    // Eight bytes collide by intent alone: one entry is ours, another that bears our hint is not
    // worth a look.
    let ours = wrapped.iter().find(|entry| entry.hint == own);
    let ours = ours.ok_or(OpenFault::NotForUs)?;
    let info = purpose.info(sender);
    let content = unwrap(ours, key, &info).ok_or(OpenFault::Wrong)?;
    let opened = cipher(&content)
        .ok_or(OpenFault::Wrong)?
        .open_in_place(zero(), Aad::from(associated(&wrapped)), &mut payload)
        .map_err(|_| OpenFault::Wrong)?;
    Ok(Zeroizing::new(opened.to_vec()))
}

fn unwrap(entry: &Wrapped, key: &XWingKey, info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let secret = key.secret()?;
    let encapped = <XWing as Kem>::EncappedKey::from_bytes(&entry.encapped).ok()?;
    let content = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        &secret,
        &encapped,
        info,
        &entry.key,
        &[],
    );
    let content = Zeroizing::new(content.ok()?);
    Some(Zeroizing::new(content.as_slice().try_into().ok()?))
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
    Some(LessSafeKey::new(key))
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// What is authenticated beside the payload: everything else.
fn associated(wrapped: &[Wrapped]) -> [u8; 32] {
    Sha256::digest(cbor::encode(&recipients(wrapped))).into()
}

fn recipients(wrapped: &[Wrapped]) -> Value {
    let entry = |entry: &Wrapped| {
        Value::Array(vec![
            Value::Bytes(entry.hint.to_vec()),
            Value::Bytes(entry.encapped.to_vec()),
            Value::Bytes(entry.key.to_vec()),
        ])
    };
    Value::Array(wrapped.iter().map(entry).collect())
}

fn encode(wrapped: &[Wrapped], payload: Vec<u8>) -> Vec<u8> {
    cbor::encode(&cbor::int_map([
        (F_VERSION, Value::from(VERSION)),
        (F_RECIPIENTS, recipients(wrapped)),
        (F_PAYLOAD, Value::Bytes(payload)),
    ]))
}

fn decode(bytes: &[u8], max: usize) -> Read<(Vec<Wrapped>, Vec<u8>)> {
    let mut fields = Fields::of(cbor::decode(bytes, max)?)?;
    if cbor::uint(fields.need(F_VERSION)?)? != VERSION {
        return Err(Malformed("a sealed payload of another version"));
    }
    let wrapped = cbor::array(fields.need(F_RECIPIENTS)?, MAX_RECIPIENTS)?
        .into_iter()
        .map(|entry| {
            let [hint, encapped, key]: [Value; 3] = cbor::array(entry, 3)?
                .try_into()
                .map_err(|_| Malformed("a recipient has three parts"))?;
            Ok(Wrapped {
                hint: cbor::exact(hint)?,
                encapped: cbor::exact(encapped)?,
                key: cbor::exact(key)?,
            })
        })
        .collect::<Read<Vec<_>>>()?;
    let payload = cbor::bytes(fields.need(F_PAYLOAD)?)?;
    fields.finish()?;
    cbor::same(bytes, &encode(&wrapped, payload.clone()))?;
    Ok((wrapped, payload))
}

#[cfg(test)]
mod tests;
