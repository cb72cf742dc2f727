//! A small world for this room's tests: two issuers, two nodes, fixed keys and a fixed time.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use super::{
    Anchor, Attributes, Binding, Chain, Channel, Claims, Credential, Delegation, Frame, Grant,
    Grants, Groups, IssuerKey, Name, NodeKey, Role, Scope, Serial, SigningRequest, TrustAnchor,
    TrustAnchors, delegate, issue, issue_chain,
};
use crate::types::{Span, Timestamp};

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

pub(crate) fn serial(n: u8) -> Serial {
    Serial {
        id: [n; 16],
        index: u32::from(n),
    }
}

/// The same each time: ML-DSA signatures are hedged, so that a second one would be another.
pub(crate) fn credential() -> Credential {
    static MADE: LazyLock<Credential> =
        LazyLock::new(|| issue(&acme(), &request_of(&node()), &grant(), serial(7), NOW).unwrap());
    MADE.clone()
}

pub(crate) fn chain() -> Chain {
    Chain::of(credential())
}

/// The channel of this world: the node opened it, mallory is the listener.
pub(crate) fn channel() -> Channel {
    Channel {
        opener: node().peer(),
        listener: mallory().peer(),
        binding: Binding::Exporter([9; 32]),
    }
}

/// The node's frame over [`channel`], with the chain given.
pub(crate) fn frame_of(chain: &Chain) -> Frame {
    Frame::of(chain, &node(), &channel(), Role::Opener)
}

/// Below acme: `acme.eu`.
pub(crate) fn europe() -> IssuerKey {
    IssuerKey::from_seed(name("acme.eu"), &[11; 32])
}

/// Below that: `acme.eu.berlin`.
pub(crate) fn berlin() -> IssuerKey {
    IssuerKey::from_seed(name("acme.eu.berlin"), &[12; 32])
}

pub(crate) fn scope(groups: &[&str], hours: u32, depth: u8) -> Scope {
    Scope {
        groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
        max_lifetime: Span(HOUR * hours),
        depth,
    }
}

pub(crate) fn anchor_of(issuer: &IssuerKey) -> Anchor {
    Anchor::open(&Anchor::seal(issuer, NOW)).unwrap()
}

/// acme -> acme.eu, for ten hours.
pub(crate) fn to_europe() -> Vec<Delegation> {
    static MADE: LazyLock<Vec<Delegation>> = LazyLock::new(|| {
        let scope = scope(&["work*", "ops"], 4, 1);
        let (acme, europe) = (acme(), anchor_of(&europe()));
        delegate((&acme, &[]), &europe, scope, HOUR * 10, serial(20), NOW).unwrap()
    });
    MADE.clone()
}

/// acme -> acme.eu -> acme.eu.berlin, for five hours.
pub(crate) fn to_berlin() -> Vec<Delegation> {
    static MADE: LazyLock<Vec<Delegation>> = LazyLock::new(|| {
        let scope = scope(&["workers", "ops"], 2, 0);
        let (europe, above) = (europe(), to_europe());
        let berlin = anchor_of(&berlin());
        delegate((&europe, &above), &berlin, scope, HOUR * 5, serial(21), NOW).unwrap()
    });
    MADE.clone()
}

/// The node's chain of two or of three links.
pub(crate) fn chain_under(issuer: &IssuerKey, above: &[Delegation]) -> Chain {
    let request = request_of(&node());
    issue_chain(issuer, above, &request, &grant(), serial(22), NOW).unwrap()
}

pub(crate) fn claims() -> Claims {
    credential().claims().clone()
}

pub(crate) fn trust_of(issuer: &IssuerKey) -> TrustAnchor {
    TrustAnchor {
        issuer: issuer.name().clone(),
        key: issuer.public().clone(),
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
