use super::*;
use crate::identity::testing::{NOW, acme, anchors, name, trust_of};

#[test]
fn an_anchor_names_its_issuer_and_key() {
    let anchor = Anchor::open(&Anchor::seal(&acme(), NOW)).unwrap();
    assert_eq!(anchor.issuer, name("acme"));
    assert_eq!(anchor.key, *acme().public());
    assert_eq!(anchor.created, NOW);
}

#[test]
fn an_anchor_cannot_claim_a_key_its_maker_does_not_hold() {
    let mallory = IssuerKey::from_seed(name("mallory"), &[8; 32]);
    let payload = encode_payload(&name("mallory"), acme().public(), 0);
    let forged = mallory.signer().seal(Domain::Anchor, &payload);
    assert_eq!(Anchor::open(&forged), Err(AnchorError::Proof));
}

#[test]
fn a_known_name_with_another_key_is_refused_and_the_old_one_stays() {
    let mut anchors = anchors();
    let imposter = IssuerKey::from_seed(name("acme"), &[8; 32]);
    let error = anchors.add(trust_of(&imposter)).unwrap_err();
    assert!(matches!(error, AnchorError::OtherKey { .. }));
    assert!(error.to_string().contains("quantraband trust remove acme"));
    assert_eq!(anchors.get(&name("acme")).unwrap().key, *acme().public());
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
        good.replace("version = 2", "version = 1"),
        good.replace("issuer", "isuer"),
        good.replace("max_lifetime", "max_life"),
        good.replace("[grants]", "extra = 1\n[grants]"),
        good.replace(
            &hex::encode(acme().public().ed25519().to_bytes()),
            &"0".repeat(64),
        ),
        good.replace("ml_dsa_65 = \"", "ml_dsa_65 = \"00"),
        good.replace("max_depth = 2", "max_depth = 3"),
        good.replace("issuer = \"acme\"", "issuer = \"self.acme\""),
        good.replace("\"*\"", "\"**\""),
        good.replace("\"*\"", "\"acme/*\""),
        String::new(),
    ] {
        assert_ne!(bad, good);
        assert!(TrustAnchor::from_text(&bad).is_err(), "{bad}");
    }
}

#[test]
fn no_issuer_bears_a_name_in_which_nodes_sign_for_themselves() {
    for reserved in [
        "self",
        "self.0123",
        &Name::self_signed(&acme().public().thumbprint()).to_string(),
    ] {
        let imposter = IssuerKey::from_seed(name(reserved), &[8; 32]);
        assert_eq!(
            Anchor::open(&Anchor::seal(&imposter, NOW)),
            Err(AnchorError::Reserved(name(reserved)))
        );
        assert!(TrustAnchor::from_text(&trust_of(&imposter).to_text()).is_err());
    }
    for good in ["selfish", "self-made", "acme.self"] {
        assert!(!name(good).is_self_signed());
    }
}

#[test]
fn patterns_contain_what_they_say() {
    let pattern = |text: &str| text.parse::<GroupPattern>().unwrap();
    for (outer, inner, wanted) in [
        ("*", "*", true),
        ("*", "work*", true),
        ("*", "workers", true),
        ("work*", "work*", true),
        ("work*", "workers*", true),
        ("work*", "workers", true),
        ("work*", "work", true),
        ("work*", "wor*", false),
        ("work*", "*", false),
        ("work*", "ops", false),
        ("workers", "workers", true),
        ("workers", "workers*", false),
        ("workers", "work*", false),
    ] {
        assert_eq!(
            pattern(outer).contains(&pattern(inner)),
            wanted,
            "{outer} {inner}"
        );
        // Whatever the inner allows, the outer must, when it is said to contain it.
        for group in ["work", "workers", "workers-2", "wor", "ops", "x"].map(name) {
            assert!(!wanted || !pattern(inner).allows(&group) || pattern(outer).allows(&group));
        }
    }
}

#[test]
fn a_name_belongs_to_the_nearest_anchor() {
    let mut anchors = anchors();
    let eu = IssuerKey::from_seed(name("acme.eu"), &[8; 32]);
    anchors.add(trust_of(&eu)).unwrap();
    for (issuer, anchor) in [
        ("acme", Some("acme")),
        ("acme.us", Some("acme")),
        ("acme.eu", Some("acme.eu")),
        ("acme.eu.berlin", Some("acme.eu")),
        ("acme.euro", Some("acme")),
        ("acmevil", None),
        ("eu", None),
    ] {
        let found = anchors.nearest(&name(issuer)).map(|a| a.issuer.to_string());
        assert_eq!(found.as_deref(), anchor, "{issuer}");
    }
}
