use super::*;
use crate::identity::testing::{NOW, acme, anchors, name, trust_of};

#[test]
fn an_anchor_names_its_issuer_and_key() {
    let anchor = Anchor::open(&Anchor::seal(&acme(), NOW)).unwrap();
    assert_eq!(anchor.issuer, name("acme"));
    assert_eq!(anchor.key, acme().public());
    assert_eq!(anchor.created, NOW);
}

#[test]
fn an_anchor_cannot_claim_a_key_its_maker_does_not_hold() {
    let mallory = IssuerKey::from_seed(name("mallory"), &[8; 32]);
    let payload = encode_payload(&name("mallory"), acme().public(), 0);
    let forged = cose::sign1_seal(mallory.signing(), Domain::Anchor, payload);
    assert_eq!(Anchor::open(&forged), Err(AnchorError::Proof));
}

#[test]
fn a_known_name_with_another_key_is_refused_and_the_old_one_stays() {
    let mut anchors = anchors();
    let imposter = IssuerKey::from_seed(name("acme"), &[8; 32]);
    let error = anchors.add(trust_of(&imposter)).unwrap_err();
    assert!(matches!(error, AnchorError::OtherKey { .. }));
    assert!(error.to_string().contains("quantraband trust remove acme"));
    assert_eq!(anchors.get(&name("acme")).unwrap().key, acme().public());
    // The same key again changes what it may grant.
    let mut less = trust_of(&acme());
    less.grants.groups.clear();
    anchors.add(less.clone()).unwrap();
    assert_eq!(anchors.get(&name("acme")), Some(&less));
    assert_eq!(anchors.len(), 2);
}

#[test]
fn the_number_of_issuers_is_bounded() {
    let mut anchors = TrustAnchors::default();
    let mut entry = trust_of(&acme());
    for index in 0..MAX_ANCHORS {
        entry.issuer = name(&format!("issuer-{index}"));
        anchors.add(entry.clone()).unwrap();
    }
    anchors.add(entry.clone()).unwrap();
    entry.issuer = name("one-more");
    assert_eq!(anchors.add(entry), Err(AnchorError::TooMany));
}

#[test]
fn entries_that_were_tampered_with_are_refused() {
    let good = trust_of(&acme()).to_text();
    assert!(good.contains(&acme().public().thumbprint().to_string()));
    for bad in [
        good.replace("version = 1", "version = 2"),
        good.replace("issuer", "isuer"),
        good.replace("max_lifetime", "max_life"),
        good.replace("[grants]", "extra = 1\n[grants]"),
        good.replace(&hex::encode(acme().public().to_bytes()), &"0".repeat(64)),
        good.replace("\"*\"", "\"**\""),
        good.replace("\"*\"", "\"acme/*\""),
        String::new(),
    ] {
        assert_ne!(bad, good);
        assert!(TrustAnchor::from_text(&bad).is_err(), "{bad}");
    }
}
