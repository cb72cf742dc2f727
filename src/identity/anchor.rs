//! Trust anchors: whom this node believes, and how far.
//!
//! Two things bear the name. An [`Anchor`] is what an issuer hands out: its name and key, signed
//! by that key. A [`TrustAnchor`] is this node's own entry made of it: the same name and key, and
//! what the issuer may *grant here*. A name belongs to the key it was first entered with; another
//! key under a name that is known is refused until the operator removes the old entry.
//!
//! Owner: the operator, through `trust add|list|remove`; the Identity actor reads. Entries are
//! text (`DATA/trust/NAME.anchor`), so that an auditor can read whom a node trusts. It fails with
//! [`AnchorError`].

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use ciborium::Value;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Name, NameError,
    claims::{self, Claims, MAX_SECONDS},
    cose::{Domain, PublicKey, Thumbprint},
    delegation::Scope,
    hybrid::{HybridPublic, Sealed},
    issuer::IssuerKey,
    ml_dsa::MlDsaPublic,
    verified::Refusal,
};
use crate::{
    cbor::{self, Fields, Malformed},
    types::{Span, Timestamp},
};

/// Longest anchor that an issuer hands out: two keys and two signatures have about 5.5 KB.
pub const MAX_ANCHOR_BYTES: usize = 8 * 1024;
/// Longest local entry: its group patterns dominate.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;
/// Most issuers a node trusts: each is a party that can let others in.
pub const MAX_ANCHORS: usize = 256;
/// Most group patterns of an entry.
pub const MAX_GROUP_PATTERNS: usize = 64;
/// Most issuers that may stand between an anchor and a node: a chain has three links at most, and
/// the last is the node's own.
pub const MAX_DEPTH: u8 = 2;
/// Longest lifetime accepted of an issuer's credentials unless its entry says otherwise: a year
/// of 365.25 days, which is how `1year` is read.
pub const DEFAULT_MAX_LIFETIME: Duration = Duration::from_hours(8_766);

const VERSION: u64 = 2;
const F_VERSION: i64 = 1;
const F_ISSUER: i64 = 2;
const F_KEYS: i64 = 3;
const F_CREATED: i64 = 4;

/// Why an anchor or an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// Not the one encoding.
    #[error("not a trust anchor: {0}")]
    Malformed(#[from] Malformed),
    /// A version of another program.
    #[error("a trust anchor of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// Its own signature is wrong.
    #[error("the anchor's signature is wrong: it was changed, or made without the issuer's key")]
    Proof,
    /// The name is known with another key.
    #[error(
        "the issuer `{issuer}` is already trusted with another key ({known}); this one is \
         {offered}. If the issuer confirms the new key, first run \
         `quantraband trust remove {issuer}`"
    )]
    OtherKey {
        /// The name.
        issuer: Name,
        /// Thumbprint of the key under that name.
        known: Thumbprint,
        /// Thumbprint of the key offered.
        offered: Thumbprint,
    },
    /// A name in which nodes sign for themselves.
    #[error("the name `{0}` is reserved for nodes that sign for themselves: no issuer may bear it")]
    Reserved(Name),
    /// Too many anchors.
    #[error("{MAX_ANCHORS} issuers are trusted already: remove one first")]
    TooMany,
    /// The local entry's text is wrong.
    #[error("not a trust entry as `quantraband trust add` writes it: {0}")]
    Entry(String),
    /// A group pattern is wrong.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// What an issuer hands out so that others may trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The issuer's name.
    pub issuer: Name,
    /// Its keys.
    pub key: HybridPublic,
    /// When the anchor was made.
    pub created: Timestamp,
}

impl Anchor {
    /// Makes and signs an anchor.
    #[must_use]
    pub fn seal(issuer: &IssuerKey, now: Timestamp) -> Vec<u8> {
        let created = now.secs().min(MAX_SECONDS);
        let payload = encode_payload(issuer.name(), issuer.public(), created);
        issuer.signer().seal(Domain::Anchor, &payload)
    }

    /// Reads an anchor and verifies that it was signed with the keys it names. That they are
    /// really the issuer's, only people can tell: by comparing its thumbprint.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn open(bytes: &[u8]) -> Result<Self, AnchorError> {
        let message = Sealed::read(bytes, MAX_ANCHOR_BYTES)?;
        let payload = message.payload();
        let mut fields = Fields::of(cbor::decode(payload, payload.len())?)?;
        let version = cbor::uint(fields.need(F_VERSION)?)?;
        if version != VERSION {
            return Err(AnchorError::Version(version));
        }
        let issuer = claims::name(fields.need(F_ISSUER)?)?;
        let key = HybridPublic::from_value(fields.need(F_KEYS)?)?;
        let created = cbor::uint(fields.need(F_CREATED)?)?;
        fields.finish()?;
        if created > MAX_SECONDS {
            return Err(Malformed("a time is out of range").into());
        }
        cbor::same(payload, &encode_payload(&issuer, &key, created))?;
        message
            .verify(&key, Domain::Anchor)
            .map_err(|_| AnchorError::Proof)?;
        if issuer.is_self_signed() {
            return Err(AnchorError::Reserved(issuer));
        }
        Ok(Self {
            issuer,
            key,
            created: Timestamp::from_secs(created),
        })
    }
}

fn encode_payload(issuer: &Name, key: &HybridPublic, created: u64) -> Vec<u8> {
    cbor::encode(&cbor::int_map([
        (F_VERSION, Value::from(VERSION)),
        (F_ISSUER, Value::from(issuer.as_str())),
        (F_KEYS, key.to_value()),
        (F_CREATED, Value::from(created)),
    ]))
}

/// Which groups an issuer may put its subjects in: `workers`, all that begin with `work` as
/// `work*`, or any as `*`. Always in the issuer's own name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupPattern(String);

/// A text that is no [`GroupPattern`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("group pattern: `*`, a name, or a name's beginning and `*` was expected; {0}")]
pub struct PatternError(NameError);

impl GroupPattern {
    /// The pattern that allows every group.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether everything that `other` allows is allowed by this one, too.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => other
                .0
                .strip_suffix('*')
                .unwrap_or(&other.0)
                .starts_with(prefix),
            None => self == other,
        }
    }

    pub(crate) fn allows(&self, group: &Name) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => group.as_str().starts_with(prefix),
            None => group.as_str() == self.0,
        }
    }
}

impl FromStr for GroupPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        if stem.is_empty() && text == "*" {
            return Ok(Self(text.into()));
        }
        Name::try_new(stem).map_err(PatternError)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for GroupPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<GroupPattern> for String {
    fn from(pattern: GroupPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for GroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an issuer may grant at this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Longest lifetime of a credential.
    pub max_lifetime: Span,
    /// How many issuers may stand between this one and a node; 0: it may not delegate.
    pub max_depth: u8,
    /// Groups, as patterns; none means none.
    pub groups: Vec<GroupPattern>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            max_lifetime: Span(DEFAULT_MAX_LIFETIME),
            max_depth: MAX_DEPTH,
            groups: vec![GroupPattern::any()],
        }
    }
}

impl Grants {
    /// Whether the issuer may say this here.
    ///
    /// A credential that says more is refused as a whole: to drop the group that is too much would
    /// let its holder out of a rule that forbids something to that group.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        if claims.validity.lifetime() > self.max_lifetime.0.as_secs() {
            return Err(Refusal::Denied("anchor.max-lifetime".into()));
        }
        let granted = |group: &Name| self.groups.iter().any(|pattern| pattern.allows(group));
        if claims.groups.iter().all(granted) {
            Ok(())
        } else {
            Err(Refusal::Denied("anchor.groups".into()))
        }
    }

    /// Whether the issuer may let another issue within `scope` here. As with a credential, one
    /// that says more is refused as a whole.
    pub(crate) fn check_scope(&self, scope: &Scope) -> Result<(), Refusal> {
        let denied = |rule: &str| Err(Refusal::Denied(rule.into()));
        if scope.depth >= self.max_depth {
            return denied("anchor.max-depth");
        }
        if scope.max_lifetime.0 > self.max_lifetime.0 {
            return denied("anchor.max-lifetime");
        }
        let granted = |inner: &GroupPattern| self.groups.iter().any(|outer| outer.contains(inner));
        if scope.groups.iter().all(granted) {
            Ok(())
        } else {
            denied("anchor.groups")
        }
    }
}

/// This node's entry for an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    /// The issuer's name.
    pub issuer: Name,
    /// Its keys.
    pub key: HybridPublic,
    /// What it may grant here.
    pub grants: Grants,
}

/// A local entry as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    version: u64,
    issuer: Name,
    #[serde(with = "hex::serde")]
    ed25519: [u8; 32],
    #[serde(with = "hex::serde")]
    ml_dsa_65: Vec<u8>,
    grants: Grants,
}

impl TrustAnchor {
    /// The entry as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let entry = Entry {
            version: VERSION,
            issuer: self.issuer.clone(),
            ed25519: self.key.ed25519().to_bytes(),
            ml_dsa_65: self.key.ml_dsa().as_bytes().to_vec(),
            grants: self.grants.clone(),
        };
        // Cannot fail for these types; an empty text would be refused at reading.
        let body = toml::to_string(&entry).unwrap_or_default();
        format!(
            "# A trusted issuer, written by `quantraband trust add`.\n# Thumbprint: {}\n{body}",
            self.key.thumbprint()
        )
    }

    /// Reads what [`TrustAnchor::to_text`] writes.
    ///
    /// # Errors
    /// [`AnchorError`].
    pub fn from_text(text: &str) -> Result<Self, AnchorError> {
        let entry: Entry =
            toml::from_str(text).map_err(|error| AnchorError::Entry(error.to_string()))?;
        if entry.version != VERSION {
            return Err(AnchorError::Version(entry.version));
        }
        if entry.grants.groups.len() > MAX_GROUP_PATTERNS {
            return Err(AnchorError::Entry(format!(
                "at most {MAX_GROUP_PATTERNS} group patterns are allowed"
            )));
        }
        if entry.grants.max_depth > MAX_DEPTH {
            return Err(AnchorError::Entry(format!(
                "max_depth is at most {MAX_DEPTH}"
            )));
        }
        if entry.issuer.is_self_signed() {
            return Err(AnchorError::Reserved(entry.issuer));
        }
        let ed25519 =
            PublicKey::from_bytes(&entry.ed25519).ok_or(Malformed("the key is invalid or weak"))?;
        let ml_dsa = MlDsaPublic::from_bytes(&entry.ml_dsa_65)
            .ok_or(Malformed("an ML-DSA-65 key is invalid"))?;
        Ok(Self {
            issuer: entry.issuer,
            key: HybridPublic::new(ed25519, ml_dsa),
            grants: entry.grants,
        })
    }
}

/// What becomes of nodes that sign for themselves (`identity.self_signed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelfSigned {
    /// They are refused.
    #[default]
    Deny,
    /// They are let in, in a tier of their own.
    Allow,
}

/// Whom this node believes: the issuers it trusts, by name, and whether nodes may sign for
/// themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustAnchors {
    entries: BTreeMap<Name, TrustAnchor>,
    self_signed: SelfSigned,
}

impl TrustAnchors {
    /// The same issuers, with another rule for nodes that sign for themselves.
    #[must_use]
    pub fn with_self_signed(mut self, rule: SelfSigned) -> Self {
        self.self_signed = rule;
        self
    }

    /// What becomes of nodes that sign for themselves.
    #[must_use]
    pub fn self_signed(&self) -> SelfSigned {
        self.self_signed
    }

    /// The anchor to whose name space `issuer` belongs: its own, or else the one with the longest
    /// name that it lies under.
    #[must_use]
    pub fn nearest(&self, issuer: &Name) -> Option<&TrustAnchor> {
        self.get(issuer).or_else(|| {
            let above = self.iter().filter(|anchor| issuer.is_under(&anchor.issuer));
            above.max_by_key(|anchor| anchor.issuer.as_str().len())
        })
    }

    /// Adds an issuer, or changes what a known one may grant.
    ///
    /// # Errors
    /// [`AnchorError::OtherKey`] when the name is known with another key;
    /// [`AnchorError::TooMany`].
    pub fn add(&mut self, anchor: TrustAnchor) -> Result<(), AnchorError> {
        match self.entries.get(&anchor.issuer) {
            Some(known) if known.key != anchor.key => Err(AnchorError::OtherKey {
                issuer: anchor.issuer,
                known: known.key.thumbprint(),
                offered: anchor.key.thumbprint(),
            }),
            None if self.entries.len() >= MAX_ANCHORS => Err(AnchorError::TooMany),
            _ => {
                self.entries.insert(anchor.issuer.clone(), anchor);
                Ok(())
            }
        }
    }

    /// The entry of an issuer.
    #[must_use]
    pub fn get(&self, issuer: &Name) -> Option<&TrustAnchor> {
        self.entries.get(issuer)
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TrustAnchor> {
        self.entries.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
