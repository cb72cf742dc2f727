//! Chains: who may let whom issue, what, and for how long.

use std::time::Duration;

use super::*;
use crate::identity::{
    Grant, Grants, Groups, IssueError, IssuerKey, Mandate, Scope, delegate, issue, issue_chain,
    self_sign,
    testing::{
        HOUR, NOW, acme, anchor_of, anchors, attributes, berlin, chain_under, claims, credential,
        europe, globex, grant, mallory, name, node, request_of, scope, serial, to_berlin,
        to_europe, trust_of,
    },
};

fn verify(chain: &Chain) -> Result<VerifiedIdentity, Refusal> {
    verify_chain(chain, node().peer(), &anchors(), NOW)
}

fn denied<T>(rule: &str) -> Result<T, Refusal> {
    Err(Refusal::Denied(rule.into()))
}

/// A delegation that no honest issuer would sign.
fn forged(by: &IssuerKey, to: &IssuerKey, change: impl FnOnce(&mut Mandate)) -> Delegation {
    let mut mandate = Mandate {
        head: to_europe()[0].mandate().head.clone(),
        keys: to.public().clone(),
        scope: scope(&["*"], 1, 0),
    };
    mandate.issuer = by.name().clone();
    mandate.subject = to.name().clone();
    change(&mut mandate);
    Delegation::sign(mandate, by.signer()).unwrap()
}

/// A credential by this issuer that asks nobody whether it may.
fn anyhow_issued(by: &IssuerKey, grant: &Grant) -> Credential {
    issue(by, &request_of(&node()), grant, serial(9), NOW).unwrap()
}

fn chained(credential: Credential, above: &[Delegation]) -> Chain {
    Chain::try_new(credential, above.to_vec()).unwrap()
}

#[test]
fn a_delegate_speaks_in_its_own_name_and_no_other() {
    for (issuer, above, anchor, statuses) in [
        (acme(), vec![], "acme", 1),
        (europe(), to_europe(), "acme", 2),
        (berlin(), to_berlin(), "acme", 3),
    ] {
        let chain = chain_under(&issuer, &above);
        let identity = verify(&chain).unwrap();
        assert_eq!(identity.issuer, *issuer.name());
        assert_eq!(identity.anchor, name(anchor));
        let group = format!("{}/workers", issuer.name());
        assert!(identity.groups.contains(&group));
        assert_eq!(identity.statuses.len(), statuses);
        assert_eq!(identity.statuses[0].issuer, *issuer.name());
        // In a file and back.
        assert_eq!(Chain::decode(&chain.encode()), Ok(chain));
    }
}

#[test]
fn links_in_the_wrong_order_or_of_another_chain_are_refused_and_charged() {
    let good = chain_under(&berlin(), &to_berlin());
    let [first, second] = <[Delegation; 2]>::try_from(good.delegations().to_vec()).unwrap();
    let leaf = good.credential().clone();
    for above in [
        vec![second.clone(), first.clone()],
        vec![second.clone()],
        vec![first.clone(), first.clone()],
        vec![second.clone(), second.clone()],
        vec![first.clone(), forged(&globex(), &europe(), |_| ())],
    ] {
        let refusal = verify(&chained(leaf.clone(), &above)).unwrap_err();
        assert!(matches!(refusal, Refusal::Chain(_)), "{refusal}");
        assert!(refusal.charged());
    }
    // Links missing at the end: its issuer is not known here.
    for above in [vec![], vec![first]] {
        let refusal = verify(&chained(leaf.clone(), &above)).unwrap_err();
        assert!(matches!(refusal, Refusal::UnknownIssuer(_)), "{refusal}");
    }
    assert!(Chain::try_new(leaf, vec![second; 3]).is_err());
}

#[test]
fn over_long_chains_and_documents_out_of_place_are_malformed() {
    let good = chain_under(&berlin(), &to_berlin());
    let links: Vec<Vec<u8>> = good.links().map(<[u8]>::to_vec).collect();
    let mut long = links.clone();
    long.push(links[2].clone());
    assert!(Chain::from_links(&long).is_err());
    assert!(Chain::decode(&long.concat()).is_err());
    assert!(Chain::from_links::<Vec<u8>>(&[]).is_err());
    assert_eq!(
        Chain::from_links(&links[1..]).unwrap_err().0,
        "a delegation stands where the node's credential belongs"
    );
    // The node's own credential put where its issuer's leave belongs: a leaf used as an issuer.
    let leaf_above = [links[0].clone(), credential().as_bytes().to_vec()];
    assert_eq!(
        Chain::from_links(&leaf_above).unwrap_err().0,
        "a node's credential stands where a delegation belongs"
    );
}

#[test]
fn a_node_cannot_issue_with_its_credential() {
    // The node signs for mallory as if its credential were a delegation to `acme.node-1`.
    let imposter = IssuerKey::from_seed(name("acme.node-1"), &[3; 32]);
    assert_eq!(imposter.public(), node().signer().public());
    let leaf = issue(&imposter, &request_of(&mallory()), &grant(), serial(1), NOW).unwrap();
    let verify = |chain: &Chain| verify_chain(chain, mallory().peer(), &anchors(), NOW);
    assert!(matches!(
        verify(&Chain::of(leaf.clone())),
        Err(Refusal::UnknownIssuer(_))
    ));
    // A mandate it wrote itself, under its own signature or acme's old one, does not help.
    let own = forged(&imposter, &imposter, |m| m.issuer = name("acme"));
    assert_eq!(
        verify(&chained(leaf, &[own])),
        Err(Refusal::Signature("made by another key than the issuer's"))
    );
}

#[test]
fn names_only_grow_downwards_so_that_there_are_no_cycles() {
    let cycle = forged(&europe(), &acme(), |_| ());
    let sideways = forged(&acme(), &globex(), |_| ());
    let own = forged(&acme(), &acme(), |_| ());
    for (issuer, delegation) in [(acme(), cycle), (globex(), sideways), (acme(), own)] {
        let leaf = anyhow_issued(&issuer, &grant());
        assert_eq!(
            verify(&chained(leaf, &[delegation])),
            Err(Refusal::Chain(
                "an issuer delegates a name that is not under its own"
            ))
        );
    }
    // acme -> acme.eu -> acme: refused although both signatures are good.
    let up = forged(&europe(), &acme(), |_| ());
    let leaf = anyhow_issued(&acme(), &grant());
    let above = [up, to_europe()[0].clone()];
    assert!(matches!(
        verify(&chained(leaf, &above)),
        Err(Refusal::Chain(_))
    ));
    let prefix = IssuerKey::from_seed(name("acmevil"), &[4; 32]);
    let error = delegate(
        (&acme(), &[]),
        &anchor_of(&prefix),
        scope(&[], 1, 0),
        HOUR,
        serial(1),
        NOW,
    );
    assert!(matches!(error, Err(IssueError::NotUnder { .. })));
}

#[test]
fn another_issuers_groups_cannot_be_granted() {
    // globex lets `globex.acme` issue; that is globex's name space, whatever it is called.
    let twin = IssuerKey::from_seed(name("globex.acme"), &[4; 32]);
    let above = delegate(
        (&globex(), &[]),
        &anchor_of(&twin),
        scope(&["*"], 9, 0),
        HOUR * 9,
        serial(1),
        NOW,
    )
    .unwrap();
    let identity = verify(&chain_under(&twin, &above)).unwrap();
    assert_eq!(identity.groups, ["globex.acme/ops", "globex.acme/workers"]);
    // acme's delegate cannot speak as acme itself, nor as a sister.
    let mut as_acme = claims();
    as_acme.head.issuer = name("acme");
    let leaf = Credential::sign(as_acme, europe().signer()).unwrap();
    assert!(matches!(
        verify(&Chain::of(leaf.clone())),
        Err(Refusal::Signature(_))
    ));
    assert!(matches!(
        verify(&chained(leaf, &to_europe())),
        Err(Refusal::Chain(_))
    ));
}

#[test]
fn what_is_out_of_scope_is_refused_and_named() {
    let with = |groups: &[&str], hours: u32| Grant {
        groups: Groups::try_new(groups.iter().map(|g| name(g))).unwrap(),
        lifetime: HOUR * hours,
        ..grant()
    };
    // Europe may grant `work*` and `ops`, four hours each, and holds for ten.
    for (grant, rule) in [
        (with(&["admins"], 1), "scope.groups"),
        (with(&["workers", "wo"], 1), "scope.groups"),
        (with(&["workers"], 5), "scope.max-lifetime"),
    ] {
        let leaf = anyhow_issued(&europe(), &grant);
        let refusal = verify(&chained(leaf, &to_europe())).unwrap_err();
        assert_eq!(refusal, Refusal::Denied(rule.into()));
        assert!(!refusal.charged(), "the node did nothing wrong");
        let request = request_of(&node());
        let tried = issue_chain(&europe(), &to_europe(), &request, &grant, serial(1), NOW);
        assert_eq!(tried, Err(IssueError::Scope(refusal)));
    }
    // A leaf ends no later than its delegate: issued in the last hour of the delegation.
    let late = NOW.after(HOUR * 9);
    let long = with(&["workers"], 3);
    let bytes = crate::identity::SigningRequest::seal(&node(), &name("n"), &attributes(&[]), late);
    let request = crate::identity::SigningRequest::open(&bytes).unwrap();
    let leaf = issue(&europe(), &request, &long, serial(1), late).unwrap();
    let chain = chained(leaf, &to_europe());
    assert_eq!(
        verify_chain(&chain, node().peer(), &anchors(), late),
        denied("scope.outlives")
    );
}

#[test]
fn a_scope_lies_within_the_one_above() {
    // Europe gives Berlin more than it has.
    let wide = |scope: Scope| forged(&europe(), &berlin(), |m| m.scope = scope);
    for (inner, rule) in [
        (scope(&["*"], 1, 0), "scope.groups"),
        (scope(&["admins"], 1, 0), "scope.groups"),
        (scope(&["workers"], 5, 0), "scope.max-lifetime"),
        (scope(&["workers"], 1, 1), "scope.depth"),
    ] {
        let leaf = anyhow_issued(
            &berlin(),
            &Grant {
                groups: Groups::default(),
                ..grant()
            },
        );
        let above = [wide(inner.clone()), to_europe()[0].clone()];
        let refused = verify(&chained(leaf, &above));
        // What the anchor itself may not give is named first.
        let anchor_first = inner.depth == 1;
        assert_eq!(
            refused,
            denied(if anchor_first { "scope.depth" } else { rule })
        );
        let (europe, held) = (europe(), to_europe());
        let berlin = anchor_of(&berlin());
        let tried = delegate((&europe, &held), &berlin, inner, HOUR, serial(1), NOW);
        assert_eq!(tried, Err(IssueError::Scope(Refusal::Denied(rule.into()))));
    }
    // It gives it for longer than it has it itself.
    let longer = forged(&europe(), &berlin(), |m| {
        m.validity = Validity::try_new(NOW.secs(), NOW.secs(), NOW.secs() + 11 * 3600).unwrap();
        m.scope = scope(&["workers"], 1, 0);
    });
    let leaf = anyhow_issued(
        &berlin(),
        &Grant {
            groups: Groups::default(),
            ..grant()
        },
    );
    assert_eq!(
        verify(&chained(leaf, &[longer, to_europe()[0].clone()])),
        denied("scope.outlives")
    );
    // Depth 0 is the end: acme lets Europe issue, but not delegate.
    let shallow = forged(&acme(), &europe(), |m| m.scope = scope(&["*"], 9, 0));
    let below = forged(&europe(), &berlin(), |_| ());
    let leaf = anyhow_issued(&berlin(), &grant());
    assert_eq!(
        verify(&chained(leaf, &[below, shallow])),
        denied("scope.depth")
    );
}

#[test]
fn everything_lies_within_what_the_anchor_may_grant_here() {
    let chain = chain_under(&berlin(), &to_berlin());
    let with = |grants: Grants| {
        let mut anchors = TrustAnchors::default();
        let entry = TrustAnchor {
            grants,
            ..trust_of(&acme())
        };
        anchors.add(entry).unwrap();
        verify_chain(&chain, node().peer(), &anchors, NOW)
    };
    assert!(with(Grants::default()).is_ok());
    let change = |change: fn(&mut Grants)| {
        let mut grants = Grants::default();
        change(&mut grants);
        with(grants)
    };
    assert_eq!(change(|g| g.max_depth = 1), denied("anchor.max-depth"));
    assert_eq!(change(|g| g.max_depth = 0), denied("anchor.max-depth"));
    assert_eq!(
        change(|g| g.groups = vec!["workers".parse().unwrap()]),
        denied("anchor.groups")
    );
    assert_eq!(
        change(|g| g.max_lifetime = crate::types::Span(HOUR * 3)),
        denied("anchor.max-lifetime")
    );
    // The scopes would fit, but the delegations themselves hold for longer.
    assert_eq!(
        change(|g| g.max_lifetime = crate::types::Span(HOUR * 4)),
        denied("anchor.max-lifetime")
    );
    assert!(change(|g| g.max_lifetime = crate::types::Span(HOUR * 10)).is_ok());
}

#[test]
fn the_nearest_anchor_has_the_name_space_to_itself() {
    let chain = chain_under(&europe(), &to_europe());
    let with = |entries: &[&IssuerKey]| {
        let mut anchors = TrustAnchors::default();
        for issuer in entries {
            anchors.add(trust_of(issuer)).unwrap();
        }
        verify_chain(&chain, node().peer(), &anchors, NOW)
    };
    // Trusted directly as well: acme is not needed.
    assert_eq!(with(&[&europe()]).unwrap().anchor, name("acme.eu"));
    assert_eq!(with(&[&europe(), &acme()]).unwrap().anchor, name("acme.eu"));
    assert_eq!(with(&[&acme()]).unwrap().anchor, name("acme"));
    // Another holds that name here: acme cannot give it to somebody else.
    let namesake = IssuerKey::from_seed(name("acme.eu"), &[77; 32]);
    assert!(matches!(
        with(&[&namesake, &acme()]),
        Err(Refusal::Signature(_))
    ));
    // Nor what lies under it.
    let direct = delegate(
        (&acme(), &[]),
        &anchor_of(&berlin()),
        scope(&["*"], 9, 0),
        HOUR * 9,
        serial(1),
        NOW,
    )
    .unwrap();
    let below = chain_under(&berlin(), &direct);
    let mut anchors = anchors();
    assert!(verify_chain(&below, node().peer(), &anchors, NOW).is_ok());
    anchors.add(trust_of(&namesake)).unwrap();
    assert_eq!(
        verify_chain(&below, node().peer(), &anchors, NOW),
        denied("anchor.nearer")
    );
}

#[test]
fn every_link_is_signed_by_the_one_above_and_in_time() {
    let good = chain_under(&berlin(), &to_berlin());
    let leaf = good.credential().clone();
    let above = good.delegations();
    // Mallory signs each link in turn.
    let mallory = IssuerKey::from_seed(name("acme.eu"), &[66; 32]);
    let fake_lower = forged(&mallory, &berlin(), |_| ());
    assert!(matches!(
        verify(&chained(leaf.clone(), &[fake_lower, above[1].clone()])),
        Err(Refusal::Signature(_))
    ));
    let root = IssuerKey::from_seed(name("acme"), &[66; 32]);
    let fake_upper = forged(&root, &europe(), |m| m.scope = scope(&["*"], 9, 1));
    assert!(matches!(
        verify(&chained(leaf, &[above[0].clone(), fake_upper])),
        Err(Refusal::Signature(_))
    ));
    // Each link's own time, and nothing before the signatures.
    let at = |later: Duration| verify_chain(&good, node().peer(), &anchors(), NOW.after(later));
    assert_eq!(at(HOUR), Err(Refusal::Expired(NOW.after(HOUR))));
    assert_eq!(at(HOUR * 6), Err(Refusal::Expired(NOW.after(HOUR * 5))));
    assert_eq!(at(HOUR * 11), Err(Refusal::Expired(NOW.after(HOUR * 10))));
}

#[test]
fn who_signs_for_itself_is_let_in_by_configuration_alone_and_as_less() {
    let own = |key: &crate::identity::NodeKey| {
        Chain::of(self_sign(key, &name("lone"), HOUR, [1; 16], NOW).unwrap())
    };
    let allow = anchors().with_self_signed(SelfSigned::Allow);
    let judge = |chain: &Chain| verify_chain(chain, node().peer(), &allow, NOW);
    assert_eq!(verify(&own(&node())), denied("identity.self_signed"));
    let identity = judge(&own(&node())).unwrap();
    assert_eq!(identity.tier, Tier::SelfSigned);
    assert!(identity.tier < Tier::Member && identity.tier > Tier::Unverified);
    assert!(identity.issuer.is_self_signed() && identity.statuses.is_empty());
    assert!(identity.groups.is_empty() && identity.attributes.is_empty());
    // Another's, or in another's name, or with groups and attributes, or with an issuer above.
    assert_eq!(judge(&own(&mallory())), Err(Refusal::WrongKey));
    let own = own(&node());
    let changed = |change: fn(&mut Claims)| {
        let mut claims = own.credential().claims().clone();
        change(&mut claims);
        judge(&Chain::of(
            Credential::sign(claims, node().signer()).unwrap(),
        ))
    };
    assert!(matches!(
        changed(|c| c.issuer = Name::self_signed(&mallory().signer().public().thumbprint())),
        Err(Refusal::Chain(_))
    ));
    assert!(matches!(
        changed(|c| c.issuer = name("self")),
        Err(Refusal::Chain(_))
    ));
    assert_eq!(
        changed(|c| c.groups = Groups::try_new([name("workers")]).unwrap()),
        denied("self_signed.claims")
    );
    assert_eq!(
        changed(|c| c.attributes = attributes(&[("role", "boss")])),
        denied("self_signed.claims")
    );
    let above = chained(own.credential().clone(), &to_europe());
    assert!(matches!(judge(&above), Err(Refusal::Chain(_))));
    // Its name and its keys, but mallory's signatures.
    let by_mallory = Credential::sign(own.credential().claims().clone(), mallory().signer());
    assert!(matches!(
        judge(&Chain::of(by_mallory.unwrap())),
        Err(Refusal::Signature(_))
    ));
    // In a real issuer's name: the issuer's keys are wanted.
    let mut claims = own.credential().claims().clone();
    claims.head.issuer = name("acme");
    claims.head.status = Some(1);
    let forged = Credential::sign(claims, node().signer()).unwrap();
    assert!(matches!(
        judge(&Chain::of(forged)),
        Err(Refusal::Signature(_))
    ));
}
