//! The forging matrix: what an attacker may try with a credential, each refused for its reason.

use std::time::Duration;

use super::*;
use crate::identity::{
    Grants, Groups, HybridSigner, ML_DSA_65, Name, Thumbprint,
    cose::ED25519,
    credential::forge,
    testing::{
        HOUR, NOW, acme, anchors, attributes, channel, claims, credential, frame_of, globex, grant,
        mallory, name, node, request_of, serial, trust_of,
    },
};
use crate::types::Span;

const ML_DSA_87: i64 = -50;

pub(super) fn verify(bytes: &[u8]) -> Result<VerifiedIdentity, Refusal> {
    verify_credential(bytes, node().peer(), &anchors(), NOW)
}

/// Mallory presents it over a connection of his own key.
fn verify_mallory(bytes: &[u8]) -> Result<VerifiedIdentity, Refusal> {
    verify_credential(bytes, mallory().peer(), &anchors(), NOW)
}

/// Both signatures, by one pair of keys under one name.
fn both(name: Thumbprint, signer: &HybridSigner) -> [(i64, Thumbprint, &HybridSigner); 2] {
    [(ED25519, name, signer), (ML_DSA_65, name, signer)]
}

fn signed_by_acme(claims: &Claims) -> Vec<u8> {
    let acme = acme();
    forge::sign(claims, &both(acme.public().thumbprint(), acme.signer()))
}

const MISMATCH: Refusal = Refusal::Signature("does not verify");

#[test]
fn an_honest_credential_is_verified_in_the_issuers_name() {
    let credential = credential();
    let identity = verify(credential.as_bytes()).unwrap();
    assert_eq!(identity.peer, node().peer());
    assert_eq!(identity.issuer, name("acme"));
    assert_eq!(identity.subject, name("node-1"));
    assert_eq!(identity.groups, ["acme/ops", "acme/workers"]);
    assert_eq!(identity.attributes.get("role").unwrap(), "worker");
    assert_eq!(identity.expires, NOW.after(HOUR));
    assert_eq!(identity.credential_hash, credential.hash());
    assert_eq!(
        (identity.tier, identity.anchor.as_str()),
        (Tier::Member, "acme")
    );
    let [status] = <[StatusEntry; 1]>::try_from(identity.statuses.clone()).unwrap();
    assert_eq!(
        (status.issuer.as_str(), status.index, status.issued),
        ("acme", 7, NOW)
    );
    assert_eq!(identity.keys.as_ref(), Some(node().public()));
    let frame = frame_of(&Chain::of(credential)).encode();
    let over = |channel: &Channel| {
        verify_frame(
            &frame,
            node().peer(),
            channel,
            Role::Opener,
            &anchors(),
            NOW,
        )
    };
    let proved = VerifiedIdentity {
        pq_auth: true,
        ..identity
    };
    assert_eq!(over(&channel()), Ok(proved));
}

type Change = (&'static str, Box<dyn Fn(&mut Claims)>);

/// Every claim in turn, attributes first.
fn changes() -> Vec<Change> {
    let validity = |issued, from, until| Validity::try_new(issued, from, until).unwrap();
    let s = NOW.secs();
    vec![
        (
            "attribute value",
            Box::new(|c| {
                c.attributes =
                    attributes(&[("region", "eu"), ("role", "admin"), ("clearance", "low")]);
            }),
        ),
        (
            "attribute added",
            Box::new(|c| {
                c.attributes = attributes(&[
                    ("region", "eu"),
                    ("role", "worker"),
                    ("clearance", "low"),
                    ("admin", "yes"),
                ]);
            }),
        ),
        (
            "attribute removed",
            Box::new(|c| c.attributes = attributes(&[("role", "worker")])),
        ),
        (
            "attributes emptied",
            Box::new(|c| c.attributes = attributes(&[])),
        ),
        (
            "attribute renamed",
            Box::new(|c| {
                c.attributes =
                    attributes(&[("region", "eu"), ("rule", "worker"), ("clearance", "low")]);
            }),
        ),
        (
            "group added",
            Box::new(|c| {
                c.groups = Groups::try_new(["workers", "ops", "admins"].map(name)).unwrap();
            }),
        ),
        ("groups emptied", Box::new(|c| c.groups = Groups::default())),
        ("subject", Box::new(|c| c.subject = name("node-2"))),
        (
            "expiry",
            Box::new(move |c| c.validity = validity(s, s, s + 360_000)),
        ),
        (
            "not before",
            Box::new(move |c| c.validity = validity(s, s + 1, s + 3600)),
        ),
        (
            "issued",
            Box::new(move |c| c.validity = validity(s - 1, s, s + 3600)),
        ),
        ("id", Box::new(|c| c.id = [8; 16])),
        ("status index", Box::new(|c| c.status = Some(8))),
        (
            "ML-DSA key",
            Box::new(|c| c.keys.ml_dsa = mallory().public().ml_dsa.clone()),
        ),
        (
            "X-Wing key",
            Box::new(|c| c.keys.x_wing = mallory().public().x_wing.clone()),
        ),
    ]
}

#[test]
fn no_claim_can_be_changed_attributes_first() {
    let original = credential();
    let signatures = forge::signatures(&original);
    for (what, change) in changes() {
        let mut claims = original.claims().clone();
        change(&mut claims);
        assert_ne!(&claims, original.claims(), "{what}");
        let forged = forge::assemble(&claims, &signatures);
        let refusal = verify(&forged).unwrap_err();
        assert_eq!(refusal, MISMATCH, "{what}");
        assert!(refusal.charged(), "{what}");
    }
}

#[test]
fn a_credential_cannot_be_bound_to_another_key() {
    let mut claims = claims();
    claims.keys = mallory().public().clone();
    let forged = forge::assemble(&claims, &forge::signatures(&credential()));
    assert_eq!(verify_mallory(&forged), Err(MISMATCH));
    assert_eq!(verify(&forged), Err(Refusal::WrongKey));
}

#[test]
fn another_peers_credential_is_refused_and_charged_to_who_presented_it() {
    let refusal = verify_mallory(credential().as_bytes()).unwrap_err();
    assert_eq!(refusal, Refusal::WrongKey);
    assert!(refusal.charged());
}

#[test]
fn issuers_cannot_speak_for_one_another() {
    // Signed by globex, said to be of acme: with globex's key id, then with acme's.
    let (acme, globex) = (acme(), globex());
    let by_globex = forge::sign(
        &claims(),
        &both(globex.public().thumbprint(), globex.signer()),
    );
    assert_eq!(
        verify(&by_globex),
        Err(Refusal::Signature("made by another key than the issuer's"))
    );
    let disguised = forge::sign(
        &claims(),
        &both(acme.public().thumbprint(), globex.signer()),
    );
    assert_eq!(verify(&disguised), Err(MISMATCH));
    // An honest globex credential puts its holder into globex's groups, never into acme's.
    let honest = issue_by(&globex);
    assert_eq!(
        verify(&honest).unwrap().groups,
        ["globex/ops", "globex/workers"]
    );
}

fn issue_by(issuer: &crate::identity::IssuerKey) -> Vec<u8> {
    crate::identity::issue(issuer, &request_of(&node()), &grant(), serial(9), NOW)
        .unwrap()
        .as_bytes()
        .to_vec()
}

#[test]
fn unknown_issuers_are_refused_and_not_charged() {
    let initech = crate::identity::IssuerKey::from_seed(name("initech"), &[5; 32]);
    let refusal = verify(&issue_by(&initech)).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownIssuer("initech".into()));
    assert!(!refusal.charged());
}

#[test]
fn an_issuers_name_with_another_key_is_refused() {
    let imposter = crate::identity::IssuerKey::from_seed(name("acme"), &[6; 32]);
    assert_eq!(
        verify(&issue_by(&imposter)),
        Err(Refusal::Signature("made by another key than the issuer's"))
    );
}

#[test]
fn the_node_cannot_sign_for_itself() {
    let node = node();
    let own = node.signer();
    for key_id in [own.public().thumbprint(), acme().public().thumbprint()] {
        let forged = forge::sign(&claims(), &both(key_id, own));
        assert!(matches!(verify(&forged), Err(Refusal::Signature(_))));
    }
}

#[test]
fn signatures_of_the_wrong_length_are_refused() {
    let original = forge::signatures(&credential());
    for (which, own) in [(0, 64), (1, 3309)] {
        for length in [0, 1, 32, 63, 64, 65, 128, 1000] {
            if length == own {
                continue;
            }
            let mut forged = original.clone();
            forged[which].2.resize(length, 0);
            assert_eq!(
                verify(&forge::assemble(&claims(), &forged)),
                Err(Refusal::Signature("of the wrong length")),
                "{which} {length}"
            );
        }
    }
}

#[test]
fn signatures_of_the_right_length_are_refused_too() {
    let good = forge::signatures(&credential());
    let mut small_order = vec![0; 64];
    small_order[0] = 1;
    for forged in [vec![0; 64], vec![0xff; 64], small_order] {
        let mut signatures = good.clone();
        signatures[0].2 = forged;
        assert_eq!(
            verify(&forge::assemble(&claims(), &signatures)),
            Err(MISMATCH)
        );
    }
    for byte in [0, 1, 0xff] {
        let mut signatures = good.clone();
        signatures[1].2 = vec![byte; 3309];
        assert_eq!(
            verify(&forge::assemble(&claims(), &signatures)),
            Err(MISMATCH)
        );
    }
}

#[test]
fn a_malleated_signature_is_refused() {
    // S + L verifies where S is not checked to be reduced.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut signatures = forge::signatures(&credential());
    let mut carry = 0_u16;
    for (byte, add) in signatures[0].2[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = u8::try_from(carry & 0xff).unwrap();
        carry >>= 8;
    }
    assert_eq!(
        verify(&forge::assemble(&claims(), &signatures)),
        Err(MISMATCH)
    );
}

#[test]
fn required_algorithms_cannot_be_stripped() {
    let acme = acme();
    let thumb = acme.public().thumbprint();
    let [ed25519, ml_dsa] = both(thumb, acme.signer());
    let claiming = |algorithms: &[i64]| {
        let mut claims = claims();
        claims.algorithms = algorithms.to_vec();
        claims
    };
    // Even signed by the issuer: a credential that does not require both is none.
    for required in [&[][..], &[ED25519], &[ML_DSA_65], &[ML_DSA_87]] {
        for signatures in [&[][..], &[ed25519], &[ml_dsa], &[ed25519, ml_dsa]] {
            assert_eq!(
                verify(&forge::sign(&claiming(required), signatures)),
                Err(Refusal::Signature(
                    "an algorithm that must sign is not required"
                ))
            );
        }
    }
    // Either cut away, both swapped, one twice, or one under another name.
    let required = claiming(&[ED25519, ML_DSA_65]);
    let renamed = (-8, thumb, acme.signer());
    for signatures in [
        &[][..],
        &[ed25519],
        &[ml_dsa],
        &[ml_dsa, ed25519],
        &[ed25519, ed25519],
        &[ed25519, ml_dsa, ed25519],
        &[renamed, ml_dsa],
    ] {
        let refusal = verify(&forge::sign(&required, signatures)).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Signature("a required signature is missing or another is added")
        );
        assert!(refusal.charged());
    }
    // The swap signed as such: there is one order.
    let swapped = claiming(&[ML_DSA_65, ED25519]);
    assert_eq!(
        verify(&forge::sign(&swapped, &[ml_dsa, ed25519])),
        Err(Refusal::Signature(
            "a required signature is missing, out of order, or another is added"
        ))
    );
}

#[test]
fn an_algorithm_this_node_cannot_check_is_refused_without_a_charge() {
    let acme = acme();
    let thumb = acme.public().thumbprint();
    let mut newer = claims();
    newer.algorithms = vec![ED25519, ML_DSA_65, ML_DSA_87];
    let [ed25519, ml_dsa] = both(thumb, acme.signer());
    let all = [ed25519, ml_dsa, (ML_DSA_87, thumb, acme.signer())];
    let refusal = verify(&forge::sign(&newer, &all)).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Denied("credential.algorithm-unknown".into())
    );
    assert!(!refusal.charged());
}

#[test]
fn times_are_enforced_with_grace_for_the_start_alone() {
    let bytes = credential().as_bytes().to_vec();
    let at = |now| verify_credential(&bytes, node().peer(), &anchors(), now);
    let expires = NOW.after(HOUR);
    let last = Timestamp::from_millis(expires.millis() - 1);
    assert!(at(last).is_ok());
    assert_eq!(at(expires), Err(Refusal::Expired(expires)));
    assert_eq!(
        at(Timestamp::from_millis(u64::MAX)),
        Err(Refusal::Expired(expires))
    );
    let early = |span: Duration| {
        Timestamp::from_millis(NOW.millis() - u64::try_from(span.as_millis()).unwrap())
    };
    assert!(at(early(CLOCK_SKEW)).is_ok());
    let too_early = early(CLOCK_SKEW + Duration::from_millis(1));
    assert_eq!(at(too_early), Err(Refusal::NotYetValid(NOW)));
    assert!(!Refusal::Expired(expires).charged());
    assert!(!Refusal::NotYetValid(NOW).charged());
}

#[test]
fn an_expiry_that_no_signature_covers_is_not_believed() {
    let s = NOW.secs();
    let mut claims = claims();
    claims.validity = Validity::try_new(s - 7200, s - 7200, s - 3600).unwrap();
    let forged = forge::assemble(&claims, &forge::signatures(&credential()));
    assert_eq!(
        verify(&forged),
        Err(MISMATCH),
        "charged, not excused as expired"
    );
    assert_eq!(
        verify(&signed_by_acme(&claims)),
        Err(Refusal::Expired(Timestamp::from_secs(s - 3600)))
    );
}

#[test]
fn an_issuer_grants_no_more_than_its_anchor_says() {
    let verify_with = |grants: Grants| {
        let mut anchors = TrustAnchors::default();
        anchors
            .add(TrustAnchor {
                grants,
                ..trust_of(&acme())
            })
            .unwrap();
        verify_credential(credential().as_bytes(), node().peer(), &anchors, NOW)
    };
    let patterns = |list: &[&str]| list.iter().map(|p| p.parse().unwrap()).collect();
    let with = |hours: u32, list: &[&str]| Grants {
        max_lifetime: Span(HOUR * hours),
        max_depth: 0,
        groups: patterns(list),
    };
    assert!(verify_with(with(1, &["workers", "o*"])).is_ok());
    assert_eq!(
        verify_with(with(1, &["workers", "op"])),
        Err(Refusal::Denied("anchor.groups".into()))
    );
    assert_eq!(
        verify_with(with(1, &[])),
        Err(Refusal::Denied("anchor.groups".into()))
    );
    assert_eq!(
        verify_with(with(0, &["*"])),
        Err(Refusal::Denied("anchor.max-lifetime".into()))
    );
}

#[test]
fn names_are_what_the_anchors_say() {
    // A name that only looks alike is another issuer.
    assert!(Name::try_new("асme").is_err());
    assert!(Name::try_new("ACME").is_err());
}
