//! The delegation: an issuer lets another issue in a part of its own name space, within bounds.
//!
//! A CBOR Web Token like a credential, but a document of its own in a domain of its own: so no
//! signature under one can pass for the other, and a node's credential can never be used to issue.
//! The subject *is* the name space: `acme` may let `acme.eu` issue, who then issues as `acme.eu`
//! and puts nodes in groups of that name. Names only ever grow along a chain, so that it has no
//! cycles.
//!
//! Owner: the identity room. Invariants as for a credential. It fails with [`Malformed`].

use std::{collections::BTreeSet, time::Duration};

use ciborium::Value;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Refusal,
    anchor::{GroupPattern, MAX_DEPTH, MAX_GROUP_PATTERNS},
    claims::{CNF, CNF_COSE_KEY, CNF_ML_DSA, Claims, Head},
    cose::{self, Domain, PublicKey, Thumbprint},
    credential::{self, MAX_CREDENTIAL_BYTES, TooLong},
    hybrid::{ENFORCED, HybridPublic, HybridSigner, Sealed},
    ml_dsa::MlDsaPublic,
};
use crate::{
    cbor::{self, Fields, Malformed, Read},
    types::Span,
};

/// Private-use claim (RFC 8392) of the scope.
const SCOPE: i64 = -65_541;
const S_GROUPS: i64 = 1;
const S_LIFETIME: i64 = 2;
const S_DEPTH: i64 = 3;

/// Longest lifetime a scope may name, in seconds: a hundred years, so that nothing overflows.
const MAX_SCOPE_LIFETIME: u64 = 100 * 366 * 86_400;

/// Within what an issuer may issue. Its name space is the delegation's subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Groups it may put nodes in, as patterns in its own name; none means none.
    pub groups: BTreeSet<GroupPattern>,
    /// Longest lifetime of a node's credential.
    pub max_lifetime: Span,
    /// How many further issuers may stand between it and a node; 0: it may not delegate.
    pub depth: u8,
}

impl Scope {
    /// Whether this scope may give `inner` to another.
    ///
    /// # Errors
    /// [`Refusal::Denied`] names what is too much.
    pub(crate) fn check_scope(&self, inner: &Self) -> Result<(), Refusal> {
        if inner.depth >= self.depth {
            return denied("scope.depth");
        }
        if inner.max_lifetime.0 > self.max_lifetime.0 {
            return denied("scope.max-lifetime");
        }
        let granted = |inner: &GroupPattern| self.groups.iter().any(|outer| outer.contains(inner));
        if inner.groups.iter().all(granted) {
            Ok(())
        } else {
            denied("scope.groups")
        }
    }

    /// Whether this scope lets its issuer say this of a node.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        if claims.validity.lifetime() > self.max_lifetime.0.as_secs() {
            return denied("scope.max-lifetime");
        }
        let granted = |group| self.groups.iter().any(|pattern| pattern.allows(group));
        if claims.groups.iter().all(granted) {
            Ok(())
        } else {
            denied("scope.groups")
        }
    }

    fn to_value(&self) -> Value {
        let groups = self.groups.iter().map(|g| g.to_string().into()).collect();
        cbor::int_map([
            (S_GROUPS, Value::Array(groups)),
            (S_LIFETIME, Value::from(self.max_lifetime.0.as_secs())),
            (S_DEPTH, Value::from(self.depth)),
        ])
    }

    fn from_value(value: Value) -> Read<Self> {
        let mut fields = Fields::of(value)?;
        let groups = cbor::array(fields.need(S_GROUPS)?, MAX_GROUP_PATTERNS)?
            .into_iter()
            .map(|text| {
                let text = cbor::text(text)?;
                text.parse()
                    .map_err(|_| Malformed("a group pattern breaks the rules"))
            })
            .collect::<Read<BTreeSet<GroupPattern>>>()?;
        let lifetime = cbor::uint(fields.need(S_LIFETIME)?)?;
        let depth = cbor::uint(fields.need(S_DEPTH)?)?;
        fields.finish()?;
        if lifetime > MAX_SCOPE_LIFETIME {
            return Err(Malformed("a scope's lifetime is out of range"));
        }
        let depth = u8::try_from(depth)
            .ok()
            .filter(|depth| *depth < MAX_DEPTH)
            .ok_or(Malformed("a scope's depth is out of range"))?;
        Ok(Self {
            groups,
            max_lifetime: Span(Duration::from_secs(lifetime)),
            depth,
        })
    }
}

fn denied(rule: &str) -> Result<(), Refusal> {
    Err(Refusal::Denied(rule.into()))
}

/// What a delegation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
    /// Who delegates, to whom, for how long.
    pub head: Head,
    /// The keys of the one who may issue.
    pub keys: HybridPublic,
    /// Within what.
    pub scope: Scope,
}

impl std::ops::Deref for Mandate {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl std::ops::DerefMut for Mandate {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl Mandate {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = self.head.to_fields();
        let cnf = cbor::int_map([
            (CNF_COSE_KEY, cose::cose_key(self.keys.ed25519().to_bytes())),
            (CNF_ML_DSA, self.keys.ml_dsa().to_value()),
        ]);
        fields.extend([(CNF, cnf), (SCOPE, self.scope.to_value())]);
        cbor::encode(&cbor::int_map(fields))
    }

    fn decode(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::of(cbor::decode(bytes, bytes.len())?)?;
        let head = Head::take(&mut fields)?;
        let mut cnf = Fields::of(fields.need(CNF)?)?;
        let ed25519 = PublicKey::from_bytes(&cose::read_cose_key(cnf.need(CNF_COSE_KEY)?)?)
            .ok_or(Malformed("the bound key is invalid or weak"))?;
        let ml_dsa = MlDsaPublic::from_value(cnf.need(CNF_ML_DSA)?)?;
        cnf.finish()?;
        let scope = Scope::from_value(fields.need(SCOPE)?)?;
        fields.finish()?;
        let mandate = Self {
            head,
            keys: HybridPublic::new(ed25519, ml_dsa),
            scope,
        };
        cbor::same(bytes, &mandate.encode())?;
        Ok(mandate)
    }
}

/// A delegation as read: well formed, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    mandate: Mandate,
    sealed: Sealed,
}

impl Delegation {
    /// Signs a mandate with the keys of the one who delegates.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn sign(mut mandate: Mandate, issuer: &HybridSigner) -> Result<Self, TooLong> {
        mandate.algorithms = ENFORCED.to_vec();
        let sealed = credential::seal(issuer, Domain::Delegation, mandate.encode())?;
        Ok(Self { mandate, sealed })
    }

    /// Reads a delegation in its one encoding.
    ///
    /// # Errors
    /// [`Malformed`] names the rule that was broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let sealed = Sealed::read(bytes, MAX_CREDENTIAL_BYTES)?;
        let mandate = Mandate::decode(sealed.payload())?;
        Ok(Self { mandate, sealed })
    }

    /// What it says. Trust it only after verification.
    #[must_use]
    pub fn mandate(&self) -> &Mandate {
        &self.mandate
    }

    /// The bytes as received or made.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.sealed.as_bytes()
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.as_bytes()).into()
    }

    /// The pair of keys that is said to have signed.
    #[must_use]
    pub fn signed_by(&self) -> Option<Thumbprint> {
        self.sealed.signed_by()
    }

    /// As for a credential.
    pub(crate) fn verify_signatures(&self, issuer: &HybridPublic) -> Result<(), Refusal> {
        credential::verify(&self.sealed, &self.mandate, issuer, Domain::Delegation)
    }
}
