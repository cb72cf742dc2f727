//! Ed25519 in COSE (RFC 9052, RFC 9864), and the domains that keep the kinds of documents apart.
//!
//! Two things keep a signature made for one purpose from serving another: COSE's own context
//! (`Signature` for what [`super::hybrid`] signs, `Signature1` for receipts), and an
//! `external_aad` per kind of document ([`Domain`]). What a node key signs elsewhere (Noise,
//! gossip, a proof of possession) begins with other bytes than a COSE `Sig_structure` does.
//!
//! Verification is always `verify_strict`: plain `verify` accepts weak keys and small-order
//! points, with which one signature fits many messages.
//!
//! `coset` builds what is signed and sent; it does not parse what peers send: its header parser
//! follows counter-signatures without a bound on depth. Owner: the identity room.

use ciborium::Value;
use coset::{CoseSign1, CoseSign1Builder, Header, ProtectedHeader, TaggedCborSerializable};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::cbor::{self, Fields, Malformed, Read};

/// Ed25519 as RFC 9864 names it: fully specified, unlike the older `EdDSA` (-8).
pub const ED25519: i64 = -19;

/// COSE key type OKP, RFC 9053.
const OKP: i64 = 1;
/// COSE curve Ed25519, RFC 9053.
const CURVE_ED25519: i64 = 6;
/// COSE header and key labels.
const ALG: i64 = 1;
const KTY: i64 = 1;
const CRV: i64 = -1;
const X: i64 = -2;
/// CBOR tag of `COSE_Sign1`.
const TAG_SIGN1: u64 = 18;

/// What a signature is for; the text is its `external_aad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A node's credential.
    Credential,
    /// An issuer's leave to another to issue.
    Delegation,
    /// A node's request for a credential.
    Request,
    /// A node's word, by its old keys and by its new ones, that they are of one node.
    Continuity,
    /// What an issuer hands out to be trusted.
    Anchor,
    /// What an issuer says of its status list.
    StatusHead,
    /// What an executor says of a job; Ed25519 alone.
    Receipt,
}

impl Domain {
    /// The `external_aad` of its signatures.
    #[must_use]
    pub const fn aad(self) -> &'static [u8] {
        match self {
            Self::Credential => b"quantraband/credential/2",
            Self::Delegation => b"quantraband/delegation/1",
            Self::Request => b"quantraband/identity-request/2",
            Self::Continuity => b"quantraband/continuity/1",
            Self::Anchor => b"quantraband/trust-anchor/2",
            Self::StatusHead => b"quantraband/status-head/1",
            Self::Receipt => b"quantraband/receipt/1",
        }
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSignature {
    Length,
    Mismatch,
    Required,
    OtherKey,
}

impl BadSignature {
    /// In words.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Length => "of the wrong length",
            Self::Mismatch => "does not verify",
            Self::Required => "a required signature is missing, out of order, or another is added",
            Self::OtherKey => "made by another key than the issuer's",
        }
    }
}

/// A public key that may verify: on the curve, not of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes a raw Ed25519 public key; `None` when it is no curve point or a weak one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The public half of a signing key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key())
    }

    /// The raw key.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The COSE Key Thumbprint (RFC 9679): SHA-256 of the canonical COSE_Key.
    #[must_use]
    pub fn thumbprint(self) -> Thumbprint {
        let key = cbor::encode(&cose_key(self.to_bytes()));
        Thumbprint(Sha256::digest(key).into())
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let signature = Signature::from_slice(signature).map_err(|_| BadSignature::Length)?;
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| BadSignature::Mismatch)
    }
}

/// The name of a key for machines and people: RFC 9679, shown in groups so that two people can
/// compare it over the telephone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint(pub [u8; 32]);

impl std::fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, pair) in self.0.chunks(2).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            for byte in pair {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl serde::Serialize for Thumbprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&hex::encode(self.0))
    }
}

/// A COSE_Key (RFC 9052, 7) of an Ed25519 public key.
pub(crate) fn cose_key(key: [u8; 32]) -> Value {
    cbor::int_map([
        (KTY, Value::from(OKP)),
        (CRV, Value::from(CURVE_ED25519)),
        (X, Value::Bytes(key.to_vec())),
    ])
}

/// Reads what [`cose_key`] writes.
pub(crate) fn read_cose_key(value: Value) -> Read<[u8; 32]> {
    let mut fields = Fields::of(value)?;
    let kind = cbor::int(fields.need(KTY)?)?;
    let curve = cbor::int(fields.need(CRV)?)?;
    let key = cbor::exact(fields.need(X)?)?;
    fields.finish()?;
    if (kind, curve) == (OKP, CURVE_ED25519) {
        Ok(key)
    } else {
        Err(Malformed("a key is not an Ed25519 key"))
    }
}

/// A protected header given as its encoded bytes.
pub(crate) fn protected(bytes: Vec<u8>) -> ProtectedHeader {
    ProtectedHeader {
        original_data: Some(bytes),
        header: Header::default(),
    }
}

fn sign1_header() -> Vec<u8> {
    cbor::encode(&cbor::int_map([(ALG, Value::from(ED25519))]))
}

fn sign1(payload: Vec<u8>) -> CoseSign1 {
    let mut message = CoseSign1Builder::new().payload(payload).build();
    message.protected = protected(sign1_header());
    message
}

/// Signs a payload as a tagged COSE_Sign1 in `domain`.
pub(crate) fn sign1_seal(key: &SigningKey, domain: Domain, payload: Vec<u8>) -> Vec<u8> {
    let mut message = sign1(payload);
    message.signature = key
        .sign(&message.tbs_data(domain.aad()))
        .to_bytes()
        .to_vec();
    message.to_tagged_vec().unwrap_or_default()
}

/// A COSE_Sign1 as read, its signature not yet verified.
pub(crate) struct Sign1 {
    message: CoseSign1,
    payload: Vec<u8>,
}

impl Sign1 {
    /// Reads a tagged COSE_Sign1 of at most `max` bytes in its one encoding.
    pub(crate) fn read(bytes: &[u8], max: usize) -> Read<Self> {
        let [_, _, payload, signature] = untag(cbor::decode(bytes, max)?, TAG_SIGN1)?;
        let payload = cbor::bytes(payload)?;
        let mut message = sign1(payload.clone());
        message.signature = cbor::bytes(signature)?;
        let encoded = message.clone().to_tagged_vec().unwrap_or_default();
        cbor::same(bytes, &encoded)?;
        Ok(Self { message, payload })
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn verify(&self, key: PublicKey, domain: Domain) -> Result<(), BadSignature> {
        key.verify(
            &self.message.tbs_data(domain.aad()),
            &self.message.signature,
        )
    }
}

/// The four parts of a tagged COSE message: protected, unprotected, payload, signature(s).
pub(crate) fn untag(value: Value, tag: u64) -> Read<[Value; 4]> {
    match value {
        Value::Tag(found, inner) if found == tag => cbor::array(*inner, 4)?
            .try_into()
            .map_err(|_| Malformed("a COSE message has four parts")),
        _ => Err(Malformed("not tagged as the COSE message expected here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprint_is_that_of_rfc_9679() {
        // {1: 1, -1: 6, -2: h'..'} begins a3 01 01 20 06 21 58 20.
        let key = PublicKey::of(&SigningKey::from_bytes(&[9; 32]));
        let mut encoded = vec![0xa3, 0x01, 0x01, 0x20, 0x06, 0x21, 0x58, 0x20];
        encoded.extend(key.to_bytes());
        assert_eq!(
            key.thumbprint().0,
            <[u8; 32]>::from(Sha256::digest(encoded))
        );
    }

    #[test]
    fn a_signature_of_one_domain_is_none_of_another() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let sealed = sign1_seal(&key, Domain::Receipt, b"payload".to_vec());
        let read = Sign1::read(&sealed, 1024).unwrap();
        let public = PublicKey::of(&key);
        assert_eq!(read.verify(public, Domain::Receipt), Ok(()));
        for other in [Domain::Anchor, Domain::Credential, Domain::Request] {
            assert_eq!(read.verify(public, other), Err(BadSignature::Mismatch));
        }
    }

    #[test]
    fn weak_keys_and_points_off_the_curve_are_refused() {
        // The identity, a point of order 8, and its non-canonical sibling.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
        let order_8: [u8; 32] = hex::decode(order_8).unwrap().try_into().unwrap();
        for bad in [[0; 32], identity, off_curve, order_8] {
            assert!(
                PublicKey::from_bytes(&bad).is_none(),
                "{}",
                hex::encode(bad)
            );
        }
    }

    #[test]
    fn strict_verification_refuses_small_order_signatures() {
        // With A the identity and R = S·B any message verifies unless weak keys are refused.
        let mut identity = [0_u8; 32];
        identity[0] = 1;
        let weak = PublicKey(VerifyingKey::from_bytes(&identity).unwrap());
        let mut forged = [0_u8; 64];
        forged[0] = 1; // R = identity, S = 0
        assert!(
            ed25519_dalek::Verifier::verify(&weak.0, b"any", &Signature::from_bytes(&forged))
                .is_ok(),
            "plain verify accepts it: that is why it is not used"
        );
        assert_eq!(weak.verify(b"any", &forged), Err(BadSignature::Mismatch));
    }

    #[test]
    fn rfc_8032_vectors_verify_and_are_reproduced() {
        // RFC 8032, 7.1: TEST 1, 2, 3 as (secret, public, message, signature).
        for (secret, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac\
                 c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e\
                 458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290\
                 ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let secret: [u8; 32] = hex::decode(secret).unwrap().try_into().unwrap();
            let key = SigningKey::from_bytes(&secret);
            let message = hex::decode(message).unwrap();
            let signature = hex::decode(signature).unwrap();
            assert_eq!(hex::encode(PublicKey::of(&key).to_bytes()), public);
            assert_eq!(key.sign(&message).to_bytes().to_vec(), signature);
            assert_eq!(PublicKey::of(&key).verify(&message, &signature), Ok(()));
        }
    }
}
