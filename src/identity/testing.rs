//! A small world for this room's tests: two issuers, two nodes, fixed keys and a fixed time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Attributes, Claims, Credential, Grant, Grants, Groups, IssuerKey, Name, NodeKey,
    SigningRequest, TrustAnchor, TrustAnchors, issue,
};
use crate::types::Timestamp;

/// 2026-11-24T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

pub(crate) fn acme() -> IssuerKey {
    IssuerKey::from_seed(name("acme"), &[1; 32])
}

pub(crate) fn globex() -> IssuerKey {
    IssuerKey::from_seed(name("globex"), &[2; 32])
}

pub(crate) fn node() -> NodeKey {
    NodeKey::from_seed(&[3; 32])
}

pub(crate) fn mallory() -> NodeKey {
    NodeKey::from_seed(&[4; 32])
}

pub(crate) fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let map: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Attributes::try_new(map).unwrap()
}

pub(crate) fn grant() -> Grant {
    Grant {
        groups: Groups::try_new([name("workers"), name("ops")]).unwrap(),
        attributes: attributes(&[("region", "eu"), ("role", "worker"), ("clearance", "low")]),
        lifetime: HOUR,
        ..Grant::default()
    }
}

pub(crate) fn request_of(key: &NodeKey) -> SigningRequest {
    let bytes = SigningRequest::seal(key, &name("node-1"), &attributes(&[("role", "boss")]), NOW);
    SigningRequest::open(&bytes).unwrap()
}

pub(crate) fn credential() -> Credential {
    issue(&acme(), &request_of(&node()), &grant(), [7; 16], NOW).unwrap()
}

pub(crate) fn claims() -> Claims {
    credential().claims().clone()
}

pub(crate) fn trust_of(issuer: &IssuerKey) -> TrustAnchor {
    TrustAnchor {
        issuer: issuer.name().clone(),
        key: issuer.public(),
        grants: Grants::default(),
    }
}

/// Both issuers are trusted.
pub(crate) fn anchors() -> TrustAnchors {
    let mut anchors = TrustAnchors::default();
    anchors.add(trust_of(&acme())).unwrap();
    anchors.add(trust_of(&globex())).unwrap();
    anchors
}
