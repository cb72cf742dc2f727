//! What a credential says: the claims of a CBOR Web Token (RFC 8392), bounded and in one encoding.
//!
//! Owner: the identity room. Invariant: a value of [`Claims`] always satisfies the bounds below,
//! because nothing else can be constructed; reading fails with [`Malformed`]. The table of keys is
//! in `docs/reference/credential.md`.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use serde::Serialize;
use thiserror::Error;

use super::{Name, cose};
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
/// Most algorithms a credential may require: two are foreseen (Ed25519 and ML-DSA).
pub const MAX_ALGORITHMS: usize = 4;
/// Last second a time may name: the end of the year 9999, so that milliseconds never overflow.
pub const MAX_SECONDS: u64 = 253_402_300_799;

const ISS: i64 = 1;
const SUB: i64 = 2;
const EXP: i64 = 4;
const NBF: i64 = 5;
const IAT: i64 = 6;
const CTI: i64 = 7;
const CNF: i64 = 8;
/// `COSE_Key` inside `cnf`, RFC 8747.
const CNF_COSE_KEY: i64 = 1;
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

/// Everything a credential says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// `iss`: who says it.
    pub issuer: Name,
    /// `sub`: of whom, in the issuer's name space.
    pub subject: Name,
    /// `iat`, `nbf`, `exp`.
    pub validity: Validity,
    /// `cti`: 128 random bits that name this credential.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub id: [u8; 16],
    /// `cnf`: the key of the connection it may be presented over.
    pub key: PeerId,
    /// COSE algorithms that must have signed, in the order of the signatures.
    pub algorithms: Vec<i64>,
    /// Attributes.
    pub attributes: Attributes,
    /// Groups.
    pub groups: Groups,
}

impl Claims {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let cnf = cbor::int_map([(CNF_COSE_KEY, cose::cose_key(self.key.key_bytes()))]);
        let algorithms = self
            .algorithms
            .iter()
            .map(|&alg| Value::from(alg))
            .collect();
        cbor::encode(&cbor::int_map([
            (ISS, Value::from(self.issuer.as_str())),
            (SUB, Value::from(self.subject.as_str())),
            (EXP, Value::from(self.validity.expires)),
            (NBF, Value::from(self.validity.not_before)),
            (IAT, Value::from(self.validity.issued)),
            (CTI, Value::Bytes(self.id.to_vec())),
            (CNF, cnf),
            (ALGORITHMS, Value::Array(algorithms)),
            (ATTRIBUTES, self.attributes.to_value()),
            (GROUPS, self.groups.to_value()),
        ]))
    }

    /// Reads claims; that they were the canonical encoding is the caller's comparison to make.
    pub(crate) fn decode(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::of(cbor::decode(bytes, bytes.len())?)?;
        let issuer = name(fields.need(ISS)?)?;
        let subject = name(fields.need(SUB)?)?;
        let expires = cbor::uint(fields.need(EXP)?)?;
        let not_before = cbor::uint(fields.need(NBF)?)?;
        let issued = cbor::uint(fields.need(IAT)?)?;
        let id = cbor::exact(fields.need(CTI)?)?;
        let mut cnf = Fields::of(fields.need(CNF)?)?;
        let key = cose::read_cose_key(cnf.need(CNF_COSE_KEY)?)?;
        cnf.finish()?;
        let algorithms = cbor::array(fields.need(ALGORITHMS)?, MAX_ALGORITHMS)?
            .into_iter()
            .map(cbor::int)
            .collect::<Read<Vec<i64>>>()?;
        let attributes = Attributes::from_value(fields.need(ATTRIBUTES)?)?;
        let groups = Groups::from_value(fields.need(GROUPS)?)?;
        fields.finish()?;
        Ok(Self {
            issuer,
            subject,
            validity: Validity::try_new(issued, not_before, expires)
                .map_err(|_| Malformed("the times are not in order"))?,
            id,
            key: PeerId::from_key_bytes(key)
                .map_err(|_| Malformed("the bound key is invalid or weak"))?,
            algorithms,
            attributes,
            groups,
        })
    }
}

pub(crate) fn name(value: Value) -> Read<Name> {
    Name::try_new(&cbor::text(value)?).map_err(|_| Malformed("a name breaks the rules"))
}
