//! The documents: a head, and the list it is the head of.
//!
//! A head is a COSE_Sign of a statement in its own domain; a list is the head's bytes, the bits
//! whose hash the head names, and the delegations by which the keys of an issuer that is no anchor
//! are known. Owner: the identity room. Invariants: what was read is in its one encoding, and a
//! list's bits are those of its head; whether the signatures hold only `verify` says. Reading
//! fails with [`Malformed`].

use std::sync::Arc;

use ciborium::Value;
use sha2::{Digest, Sha256};

use crate::{
    cbor::{self, Fields, Malformed, Read},
    identity::{
        Delegation, HybridPublic, HybridSigner, Name, Refusal, Thumbprint, TrustAnchors,
        chain::MAX_CHAIN,
        claims::{self, MAX_SECONDS, status_list_uri},
        cose::Domain,
        credential::MAX_CREDENTIAL_BYTES,
        hybrid::Sealed,
        verify::issuer_keys,
    },
    types::Timestamp,
};

/// Most entries of a list: 16 KiB of bits, which an issuer of a thousand credentials a month
/// fills in ten years.
pub const MAX_ENTRIES: u32 = 131_072;
/// The same in bytes.
const MAX_BITS_BYTES: usize = 16 * 1024;
/// Longest head: two signatures of 3.4 KB together, and a statement of some 200 bytes.
pub const MAX_HEAD_BYTES: usize = 4 * 1024;
/// Longest list: head, bits, two delegations, and what holds them together.
pub const MAX_STATUS_BYTES: usize =
    MAX_HEAD_BYTES + MAX_BITS_BYTES + (MAX_CHAIN - 1) * MAX_CREDENTIAL_BYTES + 64;
/// Most heads in the frame of the gate: a chain has three issuers.
const MAX_FRAME_HEADS: usize = MAX_CHAIN;
/// Most heads in one announcement: 60 KB.
pub const MAX_HEADS: usize = 16;

const VERSION: u64 = 1;
const F_VERSION: i64 = 1;
const F_ISSUER: i64 = 2;
const F_URI: i64 = 3;
const F_SEQUENCE: i64 = 4;
const F_ISSUED: i64 = 5;
const F_NEXT_UPDATE: i64 = 6;
const F_ISSUED_BEFORE: i64 = 7;
const F_ENTRIES: i64 = 8;
const F_HASH: i64 = 9;

const L_VERSION: i64 = 1;
const L_HEAD: i64 = 2;
const L_BITS: i64 = 3;
const L_DELEGATIONS: i64 = 4;

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whose list.
    pub issuer: Name,
    /// Rises by at least one with every statement; no two statements of an issuer share one.
    pub sequence: u64,
    /// When it was signed, in whole seconds.
    pub issued: Timestamp,
    /// When a newer one should be known, in whole seconds: from then on this one is stale.
    pub next_update: Timestamp,
    /// What the issuer issued before this second is revoked, whatever the bits say; 1970: nothing.
    pub issued_before: Timestamp,
    /// Entries of the list.
    pub entries: u32,
    /// SHA-256 of the bits.
    pub hash: [u8; 32],
}

impl Statement {
    /// A statement about these bits.
    #[must_use]
    pub fn about(
        issuer: Name,
        sequence: u64,
        (issued, next_update, issued_before): (Timestamp, Timestamp, Timestamp),
        bits: &[u8],
    ) -> Self {
        let entries = u32::try_from(bits.len().saturating_mul(8)).unwrap_or(u32::MAX);
        Self {
            issuer,
            sequence,
            issued,
            next_update,
            issued_before,
            entries,
            hash: Sha256::digest(bits).into(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        cbor::encode(&cbor::int_map([
            (F_VERSION, Value::from(VERSION)),
            (F_ISSUER, Value::from(self.issuer.as_str())),
            (F_URI, Value::from(status_list_uri(&self.issuer))),
            (F_SEQUENCE, Value::from(self.sequence)),
            (F_ISSUED, Value::from(self.issued.secs())),
            (F_NEXT_UPDATE, Value::from(self.next_update.secs())),
            (F_ISSUED_BEFORE, Value::from(self.issued_before.secs())),
            (F_ENTRIES, Value::from(self.entries)),
            (F_HASH, Value::Bytes(self.hash.to_vec())),
        ]))
    }

    fn decode(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::of(cbor::decode(bytes, bytes.len())?)?;
        if cbor::uint(fields.need(F_VERSION)?)? != VERSION {
            return Err(Malformed("a status list of another version"));
        }
        let issuer = claims::name(fields.need(F_ISSUER)?)?;
        if issuer.is_self_signed() || cbor::text(fields.need(F_URI)?)? != status_list_uri(&issuer) {
            return Err(Malformed("a status list has its issuer's one name"));
        }
        let statement = Self {
            issuer,
            sequence: cbor::uint(fields.need(F_SEQUENCE)?)?,
            issued: seconds(fields.need(F_ISSUED)?)?,
            next_update: seconds(fields.need(F_NEXT_UPDATE)?)?,
            issued_before: seconds(fields.need(F_ISSUED_BEFORE)?)?,
            entries: u32::try_from(cbor::uint(fields.need(F_ENTRIES)?)?)
                .ok()
                .filter(|entries| *entries <= MAX_ENTRIES)
                .ok_or(Malformed("a status list has too many entries"))?,
            hash: cbor::exact(fields.need(F_HASH)?)?,
        };
        fields.finish()?;
        cbor::same(bytes, &statement.encode())?;
        if statement.sequence == 0 || statement.next_update <= statement.issued {
            return Err(Malformed(
                "a status list is numbered from 1 and holds for a while",
            ));
        }
        Ok(statement)
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.entries.div_ceil(8)).unwrap_or(usize::MAX)
    }
}

fn seconds(value: Value) -> Read<Timestamp> {
    let seconds = cbor::uint(value)?;
    if seconds > MAX_SECONDS {
        return Err(Malformed("a time is out of range"));
    }
    Ok(Timestamp::from_secs(seconds))
}

/// A statement as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusHead {
    statement: Statement,
    sealed: Sealed,
}

impl StatusHead {
    /// Signs a statement.
    #[must_use]
    pub fn sign(statement: Statement, signer: &HybridSigner) -> Self {
        let sealed = Sealed::sign(signer, Domain::StatusHead, statement.encode());
        Self { statement, sealed }
    }

    /// Reads a head of at most [`MAX_HEAD_BYTES`].
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let sealed = Sealed::read(bytes, MAX_HEAD_BYTES)?;
        let statement = Statement::decode(sealed.payload())?;
        Ok(Self { statement, sealed })
    }

    /// What it says. Trust it only after verification.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.sealed.as_bytes()
    }

    /// The pair of keys that is said to have signed.
    #[must_use]
    pub fn signed_by(&self) -> Option<Thumbprint> {
        self.sealed.signed_by()
    }

    /// Whether both signatures are by this pair of keys.
    ///
    /// # Errors
    /// [`Refusal::Signature`].
    pub fn verify(&self, key: &HybridPublic) -> Result<(), Refusal> {
        self.sealed
            .verify(key, Domain::StatusHead)
            .map_err(|bad| Refusal::Signature(bad.why()))
    }
}

/// Reads the heads of a frame: a CBOR sequence of at most three.
///
/// # Errors
/// [`Malformed`].
pub fn heads_of_bytes(bytes: &[u8]) -> Result<Vec<StatusHead>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    cbor::sequence(bytes, MAX_FRAME_HEADS, MAX_HEAD_BYTES)?
        .into_iter()
        .map(StatusHead::decode)
        .collect()
}

/// A head, the bits it is about, and the delegations to its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusList {
    head: StatusHead,
    bits: Vec<u8>,
    delegations: Vec<Delegation>,
    bytes: Arc<[u8]>,
}

impl StatusList {
    /// Puts a list together.
    ///
    /// # Errors
    /// [`Malformed`] when the bits are not those of the head, or there are too many links.
    pub fn try_new(
        head: StatusHead,
        bits: Vec<u8>,
        delegations: Vec<Delegation>,
    ) -> Result<Self, Malformed> {
        check(&head, &bits, &delegations)?;
        let bytes = encode(&head, &bits, &delegations).into();
        Ok(Self {
            head,
            bits,
            delegations,
            bytes,
        })
    }

    /// Reads a list of at most [`MAX_STATUS_BYTES`].
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(cbor::decode(bytes, MAX_STATUS_BYTES)?)?;
        if cbor::uint(fields.need(L_VERSION)?)? != VERSION {
            return Err(Malformed("a status list of another version"));
        }
        let head = StatusHead::decode(&cbor::bytes(fields.need(L_HEAD)?)?)?;
        let bits = cbor::bytes(fields.need(L_BITS)?)?;
        let delegations = cbor::array(fields.need(L_DELEGATIONS)?, MAX_CHAIN - 1)?
            .into_iter()
            .map(|link| Delegation::decode(&cbor::bytes(link)?))
            .collect::<Read<Vec<Delegation>>>()?;
        fields.finish()?;
        check(&head, &bits, &delegations)?;
        cbor::same(bytes, &encode(&head, &bits, &delegations))?;
        Ok(Self {
            head,
            bits,
            delegations,
            bytes: bytes.into(),
        })
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &StatusHead {
        &self.head
    }

    /// What the head says.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.head.statement
    }

    /// The bits, the entry 0 in the lowest bit of the first byte.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The delegations to its issuer, the nearest first.
    #[must_use]
    pub fn delegations(&self) -> &[Delegation] {
        &self.delegations
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn as_bytes(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// Whether the entry is revoked. What lies beyond the list's end was issued after it was made
    /// and is not.
    #[must_use]
    pub fn is_set(&self, index: u32) -> bool {
        let byte = usize::try_from(index / 8)
            .ok()
            .and_then(|at| self.bits.get(at));
        byte.is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// How many entries are revoked.
    #[must_use]
    pub fn revoked(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether the list is by an issuer whose keys these anchors know; the name of the keys.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, anchors: &TrustAnchors) -> Result<Thumbprint, Refusal> {
        let (key, _) = issuer_keys(&self.statement().issuer, &self.delegations, anchors)?;
        self.head.verify(key)?;
        Ok(key.thumbprint())
    }
}

fn check(head: &StatusHead, bits: &[u8], delegations: &[Delegation]) -> Read<()> {
    let statement = &head.statement;
    if bits.len() != statement.bytes() || statement.hash != <[u8; 32]>::from(Sha256::digest(bits)) {
        return Err(Malformed("the entries are not those of the list's head"));
    }
    let spare = statement.entries % 8;
    let last = bits.last().copied().unwrap_or_default();
    if spare > 0 && last >> spare != 0 {
        return Err(Malformed("a status list has bits beyond its entries"));
    }
    if delegations.len() >= MAX_CHAIN {
        return Err(Malformed("a chain has too many links"));
    }
    Ok(())
}

fn encode(head: &StatusHead, bits: &[u8], delegations: &[Delegation]) -> Vec<u8> {
    let links = delegations
        .iter()
        .map(|link| Value::Bytes(link.as_bytes().to_vec()))
        .collect();
    cbor::encode(&cbor::int_map([
        (L_VERSION, Value::from(VERSION)),
        (L_HEAD, Value::Bytes(head.as_bytes().to_vec())),
        (L_BITS, Value::Bytes(bits.to_vec())),
        (L_DELEGATIONS, Value::Array(links)),
    ]))
}
