//! Form: what no typed credential can hold, written as raw CBOR, and the frame around it.

use ciborium::Value;

use super::{tests::verify, *};
use crate::{
    cbor,
    identity::{
        cose::{self, ED25519},
        testing::{
            NOW, acme, anchors, attributes, chain, channel, credential, frame_of, name, node,
        },
    },
};

#[test]
fn weak_bound_keys_and_foreign_key_types_are_malformed() {
    // The claims are rewritten as raw CBOR, for no typed value can hold such keys.
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    for (key, why) in [
        (cose::cose_key([0; 32]), "the bound key is invalid or weak"),
        (
            cose::cose_key(identity_point),
            "the bound key is invalid or weak",
        ),
        (
            cbor::int_map([
                (1, 1.into()),
                (-1, 4.into()),
                (-2, Value::Bytes(vec![9; 32])),
            ]),
            "a key is not an Ed25519 key",
        ),
        (
            cbor::int_map([
                (1, 1.into()),
                (-1, 6.into()),
                (-2, Value::Bytes(vec![9; 31])),
            ]),
            "a byte string has the wrong length",
        ),
    ] {
        let forged = with_cnf(1, key);
        assert_eq!(verify(&forged), Err(Refusal::Malformed(why)));
    }
}

#[test]
fn keys_of_another_kind_or_length_are_malformed() {
    let akp = |kind: i64, alg: i64, len: usize| {
        cbor::int_map([
            (1, kind.into()),
            (3, alg.into()),
            (-1, Value::Bytes(vec![9; len])),
        ])
    };
    for (label, value, why) in [
        (-65_537, akp(7, -48, 1952), "a key is not an ML-DSA-65 key"),
        (-65_537, akp(1, -49, 1952), "a key is not an ML-DSA-65 key"),
        (-65_537, akp(7, -49, 1951), "an ML-DSA-65 key is invalid"),
        (-65_537, akp(7, -49, 2592), "an ML-DSA-65 key is invalid"),
        (-65_537, Value::Null, "a map was expected"),
        (
            -65_538,
            Value::Bytes(vec![9; 1215]),
            "an X-Wing key is invalid",
        ),
        (
            -65_538,
            Value::Bytes(vec![0xff; 1216]),
            "an X-Wing key is invalid",
        ),
        (-65_538, Value::Null, "a byte string was expected"),
        (-65_539, Value::Null, "a field is unknown or repeated"),
    ] {
        let forged = with_cnf(label, value);
        assert_eq!(verify(&forged), Err(Refusal::Malformed(why)), "{label}");
    }
    for label in [1, -65_537, -65_538] {
        let forged = with_payload(|claims| {
            let mut cnf = cnf_of(&claims);
            cnf.retain(|(key, _)| *key != Value::from(label));
            replaced(claims, 8, Value::Map(cnf))
        });
        assert!(
            matches!(verify(&forged), Err(Refusal::Malformed(_))),
            "{label}"
        );
    }
}

#[test]
fn a_status_is_an_index_in_the_issuers_own_list() {
    let entry = |idx: Value, uri: &str| {
        let inner = cbor::map([("idx".into(), idx), ("uri".into(), uri.into())]);
        cbor::map([("status_list".into(), inner)])
    };
    let own = "quantraband:status/acme";
    for bad in [
        entry(0.into(), "quantraband:status/globex"),
        entry(0.into(), "https://acme.example/list"),
        entry((1_u64 << 32).into(), own),
        entry((-1).into(), own),
        entry(Value::Float(7.0), own),
        cbor::map([("status_list".into(), Value::Null)]),
        cbor::map([("other".into(), Value::Null)]),
        cbor::map([]),
        Value::Null,
    ] {
        let refusal = verify(&with_claim(65_535, bad.clone())).unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed(_)), "{bad:?}");
    }
    // The right one is well formed, and only the signature is missing.
    let other = verify(&with_claim(65_535, entry(8.into(), own))).unwrap_err();
    assert_eq!(other, Refusal::Signature("does not verify"));
}

fn cnf_of(claims: &[(Value, Value)]) -> Vec<(Value, Value)> {
    let cnf = claims
        .iter()
        .find(|(key, _)| *key == Value::from(8))
        .unwrap();
    cnf.1.as_map().unwrap().clone()
}

fn with_cnf(label: i64, value: Value) -> Vec<u8> {
    with_payload(|claims| {
        let mut cnf = cnf_of(&claims);
        cnf.retain(|(key, _)| *key != Value::from(label));
        cnf.push((label.into(), value));
        replaced(claims, 8, cbor::map(cnf))
    })
}

fn replaced(mut claims: Vec<(Value, Value)>, label: i64, value: Value) -> Vec<u8> {
    claims.retain(|(key, _)| *key != Value::from(label));
    claims.push((label.into(), value));
    cbor::encode(&cbor::map(claims))
}

/// The honest credential with one claim replaced, signature kept.
fn with_claim(label: i64, value: Value) -> Vec<u8> {
    with_payload(|claims| replaced(claims, label, value))
}

fn with_payload(change: impl FnOnce(Vec<(Value, Value)>) -> Vec<u8>) -> Vec<u8> {
    let mut value = cbor::decode(credential().as_bytes(), 8192).unwrap();
    let Value::Tag(98, inner) = &mut value else {
        panic!("a COSE_Sign")
    };
    let parts = inner.as_array_mut().unwrap();
    let claims = cbor::decode(parts[2].as_bytes().unwrap(), 8192).unwrap();
    parts[2] = Value::Bytes(change(claims.into_map().unwrap()));
    cbor::encode(&value)
}

#[test]
fn times_that_are_no_whole_seconds_are_malformed() {
    for bad in [
        Value::Float(f64::NAN),
        Value::Float(f64::INFINITY),
        Value::Float(1_795_482_000.0),
        Value::Text("1795482000".into()),
        Value::from(-1),
        Value::from(u64::MAX),
        Value::Null,
    ] {
        for claim in [4, 5, 6] {
            let refusal = verify(&with_claim(claim, bad.clone())).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed(_)),
                "{claim} {bad:?} {refusal}"
            );
        }
    }
}

#[test]
fn claims_unknown_absent_or_twice_are_malformed() {
    assert_eq!(
        verify(&with_claim(3, "anyone".into())),
        Err(Refusal::Malformed("a field is unknown or repeated"))
    );
    for claim in [1, 2, 4, 5, 6, 7, 8, 65_535, -65_537, -65_538, -65_539] {
        let absent = with_payload(|mut claims| {
            claims.retain(|(key, _)| *key != Value::from(claim));
            cbor::encode(&Value::Map(claims))
        });
        assert!(
            matches!(verify(&absent), Err(Refusal::Malformed(_))),
            "{claim}"
        );
        let twice = with_payload(|mut claims| {
            let again = claims
                .iter()
                .find(|(key, _)| *key == Value::from(claim))
                .unwrap()
                .clone();
            claims.push(again);
            cbor::encode(&cbor::map(claims))
        });
        assert!(
            matches!(verify(&twice), Err(Refusal::Malformed(_))),
            "{claim}"
        );
    }
}

#[test]
fn bounds_hold_for_numbers_and_lengths() {
    let pairs =
        |n: usize| cbor::map((0..n).map(|i| (Value::from(format!("a{i}")), Value::from("v"))));
    let many = Value::Array((0..33).map(|i| Value::from(format!("g{i:02}"))).collect());
    for (claim, value) in [
        (-65_538, pairs(33)),
        (
            -65_538,
            cbor::map([("role".into(), "v".repeat(257).into())]),
        ),
        (-65_538, cbor::map([("role".into(), "\u{1b}[31m".into())])),
        (-65_538, cbor::map([("Röle".into(), "v".into())])),
        (-65_539, many),
        (-65_539, Value::Array(vec!["b".into(), "a".into()])),
        (-65_539, Value::Array(vec!["a".into(), "a".into()])),
        (-65_539, Value::Array(vec!["other/admins".into()])),
        (2, Value::from("a".repeat(65))),
        (1, Value::from("acme/x")),
        (7, Value::Bytes(vec![0; 15])),
        (-65_537, Value::Array(vec![ED25519.into(); 5])),
    ] {
        let refusal = verify(&with_claim(claim, value.clone())).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Malformed(_)),
            "{claim} {value:?}: {refusal}"
        );
    }
    assert_eq!(
        verify(&vec![0xff; 8 * 1024 + 1]),
        Err(Refusal::Malformed("longer than allowed"))
    );
}

#[test]
fn what_is_signed_as_another_kind_is_no_credential() {
    let request = crate::identity::SigningRequest::seal(&node(), &name("x"), &attributes(&[]), NOW);
    let anchor = crate::identity::Anchor::seal(&acme(), NOW);
    for other in [request, anchor, Vec::new(), vec![0xf6]] {
        assert!(matches!(verify(&other), Err(Refusal::Malformed(_))));
    }
}

#[test]
fn frames_are_refused_for_what_they_are() {
    let judge = |frame: &[u8]| {
        let (peer, over) = (node().peer(), channel());
        verify_frame(frame, peer, &over, Role::Opener, &anchors(), NOW)
    };
    let bytes = credential().as_bytes().to_vec();
    let proof = node().prove(&channel(), Role::Opener);
    assert_eq!(judge(&Frame::bare().encode()), Err(Refusal::Missing));
    assert!(!Refusal::Missing.charged());
    for chain in [vec![bytes.clone(); 4], vec![vec![0; 8 * 1024 + 1]]] {
        assert!(matches!(
            judge(&Frame::with_parts(chain, proof.clone()).encode()),
            Err(Refusal::Malformed(_))
        ));
    }
    let links = Value::Array(vec![Value::Bytes(bytes)]);
    let fields = |version: u64, more: &[(i64, Value)]| {
        let mut all = vec![(1, version.into()), (2, links.clone())];
        all.extend_from_slice(more);
        cbor::encode(&cbor::int_map(all))
    };
    let proved = (3, Value::Bytes(proof.clone()));
    assert!(judge(&fields(2, std::slice::from_ref(&proved))).is_ok());
    for version in [0, 1, 3] {
        let other = fields(version, std::slice::from_ref(&proved));
        assert_eq!(judge(&other), Err(Refusal::Version(version)));
    }
    let heads = |bytes: usize| (4, Value::Bytes(vec![7; bytes]));
    assert!(judge(&fields(2, &[proved.clone(), heads(16 * 1024)])).is_ok());
    for bad in [
        vec![proved.clone(), heads(16 * 1024 + 1)],
        vec![proved.clone(), heads(0)],
        vec![proved.clone(), (4, Value::Null)],
        vec![proved.clone(), (5, Value::Null)],
        vec![(3, Value::Null)],
        vec![(3, Value::Bytes(vec![0; 3310]))],
    ] {
        assert!(matches!(
            judge(&fields(2, &bad)),
            Err(Refusal::Malformed(_))
        ));
    }
    assert_eq!(judge(&fields(2, &[])), Err(Refusal::Possession("absent")));
    let of_nothing = Frame::with_parts(Vec::new(), proof).encode();
    assert!(matches!(judge(&of_nothing), Err(Refusal::Malformed(_))));
    assert!(matches!(
        judge(&vec![0; 64 * 1024 + 1]),
        Err(Refusal::Malformed(_))
    ));
    assert!(matches!(judge(&[]), Err(Refusal::Malformed(_))));
    assert!(judge(&frame_of(&chain()).encode()).is_ok());
}

#[test]
fn counter_signatures_nested_thousands_deep_do_not_overflow_the_stack() {
    // COSE's counter-signature header may hold a header that may hold a counter-signature …; a
    // parser that follows them exhausts the stack within 8 KiB, which aborts the process.
    let mut header: Vec<u8> = vec![0xa0];
    while header.len() < 7_900 {
        let sig = Value::Array(vec![
            Value::Bytes(header),
            Value::Map(vec![]),
            Value::Bytes(vec![]),
        ]);
        header = cbor::encode(&cbor::int_map([(7, sig)]));
    }
    let message = Value::Tag(
        98,
        Box::new(Value::Array(vec![
            Value::Bytes(header),
            Value::Map(vec![]),
            Value::Bytes(vec![]),
            Value::Array(vec![]),
        ])),
    );
    let bytes = cbor::encode(&message);
    assert!(bytes.len() <= 8 * 1024);
    assert!(matches!(verify(&bytes), Err(Refusal::Malformed(_))));
}
