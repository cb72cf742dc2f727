//! What a credential says: the claims of a CBOR Web Token (RFC 8392), bounded and in one encoding.
//!
//! Owner: the identity room. Invariant: a value of [`Claims`] always satisfies the bounds below,
//! because nothing else can be constructed; reading fails with [`Malformed`]. The table of keys is
//! in `docs/reference/credential.md`.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use serde::Serialize;
use thiserror::Error;

use super::{
    Name, NodePublic, cose, hybrid::MAX_SIGNATURES, kem::XWingPublic, ml_dsa::MlDsaPublic,
    status::MAX_ENTRIES,
};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    types::PeerId,
};

/// Most attributes of one credential: as many fit its 8 KiB at typical lengths.
pub const MAX_ATTRIBUTES: usize = 32;
/// Longest value of an attribute, in bytes: a label, not a document.
pub const MAX_ATTRIBUTE_BYTES: usize = 256;
/// Most groups of one credential; each costs the policy a comparison per decision.
pub const MAX_GROUPS: usize = 32;
/// Most algorithms a credential may require: two do, and a newer kind is to be recognised.
pub const MAX_ALGORITHMS: usize = MAX_SIGNATURES;
/// Last second a time may name: the end of the year 9999, so that milliseconds never overflow.
pub const MAX_SECONDS: u64 = 253_402_300_799;

const ISS: i64 = 1;
const SUB: i64 = 2;
const EXP: i64 = 4;
const NBF: i64 = 5;
const IAT: i64 = 6;
const CTI: i64 = 7;
pub(super) const CNF: i64 = 8;
/// `COSE_Key` inside `cnf`, RFC 8747: the Ed25519 key.
pub(super) const CNF_COSE_KEY: i64 = 1;
/// Private-use members of `cnf`: the ML-DSA-65 COSE_Key, and the raw X-Wing key.
pub(super) const CNF_ML_DSA: i64 = -65_537;
const CNF_X_WING: i64 = -65_538;
/// Token Status List (IETF): where the credential's revocation is to be looked up.
const STATUS: i64 = 65_535;
const STATUS_LIST: &str = "status_list";
const IDX: &str = "idx";
const URI: &str = "uri";
/// Private-use claims (RFC 8392 leaves those below -65536 to private use).
const ALGORITHMS: i64 = -65_537;
const ATTRIBUTES: i64 = -65_538;
const GROUPS: i64 = -65_539;

/// Why attributes, groups or times cannot be put in a credential.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// Too many attributes.
    #[error("{0} attributes: at most {MAX_ATTRIBUTES} are allowed")]
    TooManyAttributes(usize),
    /// A name of an attribute that is no [`Name`].
    #[error("attribute {0}")]
    AttributeName(#[from] super::NameError),
    /// An attribute's value is too long or holds control characters.
    #[error(
        "the value of attribute `{0}` is longer than {MAX_ATTRIBUTE_BYTES} bytes \
         or holds control characters"
    )]
    AttributeValue(String),
    /// Too many groups.
    #[error("{0} groups: at most {MAX_GROUPS} are allowed")]
    TooManyGroups(usize),
    /// Times that are not in the order issued <= not before < expires <= year 9999.
    #[error("the times are not in order: issued <= not before < expires, none after the year 9999")]
    Times,
}

/// Signed statements about the subject, as `name -> value`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Checks names, values and number.
    ///
    /// # Errors
    /// [`ClaimError`] says which and why.
    pub fn try_new(map: BTreeMap<String, String>) -> Result<Self, ClaimError> {
        if map.len() > MAX_ATTRIBUTES {
            return Err(ClaimError::TooManyAttributes(map.len()));
        }
        for (name, value) in &map {
            Name::try_new(name)?;
            if value.len() > MAX_ATTRIBUTE_BYTES || value.chars().any(char::is_control) {
                return Err(ClaimError::AttributeValue(name.clone()));
            }
        }
        Ok(Self(map))
    }

    /// The attributes.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub(crate) fn to_value(&self) -> Value {
        cbor::map(
            self.0
                .iter()
                .map(|(name, value)| (Value::from(name.as_str()), Value::from(value.as_str()))),
        )
    }

    pub(crate) fn from_value(value: Value) -> Read<Self> {
        let entries = value
            .into_map()
            .map_err(|_| Malformed("attributes are a map"))?;
        if entries.len() > MAX_ATTRIBUTES {
            return Err(Malformed("too many attributes"));
        }
        let mut map = BTreeMap::new();
        for (name, value) in entries {
            map.insert(cbor::text(name)?, cbor::text(value)?);
        }
        Self::try_new(map).map_err(|_| Malformed("an attribute breaks the rules"))
    }
}

/// Groups in the issuer's name space, without its prefix: `workers`, read as `acme/workers`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Groups(BTreeSet<Name>);

impl Groups {
    /// Checks the number.
    ///
    /// # Errors
    /// [`ClaimError::TooManyGroups`].
    pub fn try_new(groups: impl IntoIterator<Item = Name>) -> Result<Self, ClaimError> {
        let groups: BTreeSet<Name> = groups.into_iter().collect();
        if groups.len() > MAX_GROUPS {
            Err(ClaimError::TooManyGroups(groups.len()))
        } else {
            Ok(Self(groups))
        }
    }

    /// The groups, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Array(self.0.iter().map(|name| name.as_str().into()).collect())
    }

    pub(crate) fn from_value(value: Value) -> Read<Self> {
        let groups = cbor::array(value, MAX_GROUPS)?
            .into_iter()
            .map(name)
            .collect::<Read<Vec<Name>>>()?;
        Self::try_new(groups).map_err(|_| Malformed("too many groups"))
    }
}

/// When a credential was issued and when it holds, in whole seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Validity {
    issued: u64,
    not_before: u64,
    expires: u64,
}

impl Validity {
    /// Checks the order: issued <= not before < expires <= [`MAX_SECONDS`].
    ///
    /// # Errors
    /// [`ClaimError::Times`].
    pub fn try_new(issued: u64, not_before: u64, expires: u64) -> Result<Self, ClaimError> {
        if issued <= not_before && not_before < expires && expires <= MAX_SECONDS {
            Ok(Self {
                issued,
                not_before,
                expires,
            })
        } else {
            Err(ClaimError::Times)
        }
    }

    /// `iat`.
    #[must_use]
    pub fn issued(self) -> u64 {
        self.issued
    }

    /// `nbf`, inclusive.
    #[must_use]
    pub fn not_before(self) -> u64 {
        self.not_before
    }

    /// `exp`, exclusive.
    #[must_use]
    pub fn expires(self) -> u64 {
        self.expires
    }

    /// Seconds from issue to expiry: what an anchor's longest lifetime is compared with.
    #[must_use]
    pub fn lifetime(self) -> u64 {
        self.expires.saturating_sub(self.issued)
    }
}

/// What names an issued document: both are given by the issuer, and never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// `cti`: 128 random bits.
    pub id: [u8; 16],
    /// Its place in the issuer's status list.
    pub index: u32,
}

/// The name of an issuer's status list: its only one, so that no issuer can point to another's.
#[must_use]
pub fn status_list_uri(issuer: &Name) -> String {
    format!("quantraband:status/{issuer}")
}

/// What a credential and a delegation have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `iss`: who says it.
    pub issuer: Name,
    /// `sub`: of whom.
    pub subject: Name,
    /// `iat`, `nbf`, `exp`.
    pub validity: Validity,
    /// `cti`: 128 random bits that name this document.
    pub id: [u8; 16],
    /// Place in the issuer's status list; `None` for the self-signed, whom nobody revokes.
    pub status: Option<u32>,
    /// COSE algorithms that must have signed, in the order of the signatures.
    pub algorithms: Vec<i64>,
}

impl Head {
    pub(super) fn to_fields(&self) -> Vec<(i64, Value)> {
        let algorithms = self.algorithms.iter().copied().map(Value::from).collect();
        let mut fields = vec![
            (ISS, Value::from(self.issuer.as_str())),
            (SUB, Value::from(self.subject.as_str())),
            (EXP, Value::from(self.validity.expires)),
            (NBF, Value::from(self.validity.not_before)),
            (IAT, Value::from(self.validity.issued)),
            (CTI, Value::Bytes(self.id.to_vec())),
            (ALGORITHMS, Value::Array(algorithms)),
        ];
        if let Some(index) = self.status {
            let entry = cbor::map([
                (Value::from(IDX), Value::from(index)),
                (Value::from(URI), status_list_uri(&self.issuer).into()),
            ]);
            fields.push((STATUS, cbor::map([(STATUS_LIST.into(), entry)])));
        }
        fields
    }

    pub(super) fn take(fields: &mut Fields) -> Read<Self> {
        let issuer = name(fields.need(ISS)?)?;
        let subject = name(fields.need(SUB)?)?;
        let expires = cbor::uint(fields.need(EXP)?)?;
        let not_before = cbor::uint(fields.need(NBF)?)?;
        let issued = cbor::uint(fields.need(IAT)?)?;
        let id = cbor::exact(fields.need(CTI)?)?;
        let algorithms = cbor::array(fields.need(ALGORITHMS)?, MAX_ALGORITHMS)?
            .into_iter()
            .map(cbor::int)
            .collect::<Read<Vec<i64>>>()?;
        let status = fields
            .take(STATUS)
            .map(|value| read_status(value, &issuer))
            .transpose()?;
        if status.is_some() == issuer.is_self_signed() {
            return Err(Malformed(
                "a status index belongs to what an issuer signed, and to nothing else",
            ));
        }
        Ok(Self {
            issuer,
            subject,
            validity: Validity::try_new(issued, not_before, expires)
                .map_err(|_| Malformed("the times are not in order"))?,
            id,
            status,
            algorithms,
        })
    }
}

fn read_status(value: Value, issuer: &Name) -> Read<u32> {
    const BAD: Malformed = Malformed("a status is an index in the issuer's own list");
    let only = |value: Value, most: usize| match value {
        Value::Map(entries) if entries.len() == most => Ok(entries),
        _ => Err(BAD),
    };
    let outer: [(Value, Value); 1] = only(value, 1)?.try_into().map_err(|_| BAD)?;
    let [(kind, entry)] = outer;
    let inner: [(Value, Value); 2] = only(entry, 2)?.try_into().map_err(|_| BAD)?;
    let [(idx, index), (uri, list)] = inner;
    let labelled = [(kind, STATUS_LIST), (idx, IDX), (uri, URI)];
    if labelled
        .iter()
        .any(|(found, label)| found.as_text() != Some(*label))
        || list.as_text() != Some(status_list_uri(issuer).as_str())
    {
        return Err(BAD);
    }
    // What has no place on a list could never be taken back.
    u32::try_from(cbor::uint(index)?)
        .ok()
        .filter(|index| *index < MAX_ENTRIES)
        .ok_or(BAD)
}

/// Everything a credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Issuer, subject, times, names.
    pub head: Head,
    /// `cnf`: the keys of the node; the Ed25519 key is that of the connection it may be
    /// presented over.
    pub keys: NodePublic,
    /// Attributes.
    pub attributes: Attributes,
    /// Groups.
    pub groups: Groups,
}

impl std::ops::Deref for Claims {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl std::ops::DerefMut for Claims {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl Claims {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = self.head.to_fields();
        fields.extend([
            (CNF, keys_value(&self.keys)),
            (ATTRIBUTES, self.attributes.to_value()),
            (GROUPS, self.groups.to_value()),
        ]);
        cbor::encode(&cbor::int_map(fields))
    }

    /// Reads claims; that they were the canonical encoding is checked by encoding them again.
    pub(crate) fn decode(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::of(cbor::decode(bytes, bytes.len())?)?;
        let head = Head::take(&mut fields)?;
        let keys = read_keys(fields.need(CNF)?)?;
        let attributes = Attributes::from_value(fields.need(ATTRIBUTES)?)?;
        let groups = Groups::from_value(fields.need(GROUPS)?)?;
        fields.finish()?;
        let claims = Self {
            head,
            keys,
            attributes,
            groups,
        };
        cbor::same(bytes, &claims.encode())?;
        Ok(claims)
    }
}

/// A node's keys as in `cnf`, and in a request.
pub(super) fn keys_value(keys: &NodePublic) -> Value {
    cbor::int_map([
        (CNF_COSE_KEY, cose::cose_key(keys.peer.key_bytes())),
        (CNF_ML_DSA, keys.ml_dsa.to_value()),
        (CNF_X_WING, keys.x_wing.to_value()),
    ])
}

/// Reads what [`keys_value`] writes.
pub(super) fn read_keys(value: Value) -> Read<NodePublic> {
    let mut fields = Fields::of(value)?;
    let peer = cose::read_cose_key(fields.need(CNF_COSE_KEY)?)?;
    let ml_dsa = MlDsaPublic::from_value(fields.need(CNF_ML_DSA)?)?;
    let x_wing = XWingPublic::from_value(fields.need(CNF_X_WING)?)?;
    fields.finish()?;
    Ok(NodePublic {
        peer: PeerId::from_key_bytes(peer)
            .map_err(|_| Malformed("the bound key is invalid or weak"))?,
        ml_dsa,
        x_wing,
    })
}

pub(crate) fn name(value: Value) -> Read<Name> {
    Name::try_new(&cbor::text(value)?).map_err(|_| Malformed("a name breaks the rules"))
}
