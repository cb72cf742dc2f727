//! The specification's own example, one encoding, bounds, and signatures of both algorithms.

use proptest::prelude::*;

use super::*;
use crate::{identity::NodeKey, types::Timestamp};

/// The example of `c2sp.org/signed-note`.
const EXAMPLE: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
    ed è subito sera.\n\n\
    — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU\
    0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

fn key() -> NodeKey {
    NodeKey::from_seed(&[7; 32])
}

fn own(kind: Kind) -> VerifierKey {
    VerifierKey::of_node("log.example/1", kind, key().public()).unwrap()
}

fn signed(text: &str, kinds: &[Kind]) -> Note {
    let now = Timestamp::from_secs(1_679_315_147);
    let signatures = kinds.iter().map(|kind| own(*kind).sign(&key(), text, now));
    Note::new(text.to_owned(), signatures.collect()).unwrap()
}

#[test]
fn the_example_of_the_specification_reads_back() {
    let note = Note::read(EXAMPLE.as_bytes()).unwrap();
    assert!(note.text().ends_with("\n\ned è subito sera.\n"));
    let [signature] = note.signatures() else {
        panic!("{note:?}")
    };
    assert_eq!(signature.name, "quasimodo.example/salvatore");
    assert_eq!((signature.id, signature.bytes.len()), (0x367b_a04b, 64));
    assert_eq!(note.encode(), EXAMPLE);
}

/// The key of Go's `sumdb/note` documentation and its example, which every implementation repeats.
#[test]
fn a_note_of_another_implementation_verifies() {
    let peter = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let text = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf\
        qdngotpRZb6KE6RyyBwJnAM=\n";
    let note = Note::read(format!("{text}\n{line}").as_bytes()).unwrap();
    let key = VerifierKey::read(peter).unwrap();
    assert_eq!(key.kind(), Kind::Log);
    assert_eq!(key.to_string(), peter);
    assert_eq!(key.verify(&note), Some(Ok(None)));
}

#[test]
fn every_kind_signs_and_verifies() {
    let text = "log.example/1\n3\nroot\n";
    for kind in [Kind::Log, Kind::LogMlDsa, Kind::Witness, Kind::WitnessMlDsa] {
        let note = signed(text, &[kind]);
        let verified = own(kind).verify(&note).unwrap().unwrap();
        let dated = matches!(kind, Kind::Witness | Kind::WitnessMlDsa);
        let time = dated.then(|| Timestamp::from_secs(1_679_315_147));
        assert_eq!(verified, time);
        // Another text, another key of the same name, another kind of the same key.
        let other = Note::new(
            "log.example/1\n4\nroot\n".into(),
            note.signatures().to_vec(),
        );
        assert_eq!(own(kind).verify(&other.unwrap()), Some(Err(NotVerified)));
        let stranger = NodeKey::from_seed(&[8; 32]);
        let stranger = VerifierKey::of_node("log.example/1", kind, stranger.public()).unwrap();
        assert_eq!(stranger.verify(&note), None);
        for other in Kind::ALL_FOR_TESTS.into_iter().filter(|it| *it != kind) {
            assert_eq!(own(other).verify(&note), None, "{kind:?} {other:?}");
        }
        let again = Note::read(note.encode().as_bytes()).unwrap();
        assert_eq!(again, note);
        let shown = own(kind).to_string();
        assert_eq!(VerifierKey::read(&shown), Ok(own(kind)));
    }
}

/// A signature under a known name and id that does not verify is not passed over.
#[test]
fn any_flipped_bit_of_a_signature_is_seen() {
    for kind in [Kind::Log, Kind::Witness] {
        let note = signed("a\n1\nb\n", &[kind]);
        for at in 0..note.signatures()[0].bytes.len() * 8 {
            let mut line = note.signatures()[0].clone();
            line.bytes[at / 8] ^= 1 << (at % 8);
            let changed = Note::new(note.text().to_owned(), vec![line]).unwrap();
            assert_eq!(own(kind).verify(&changed), Some(Err(NotVerified)));
        }
    }
}

#[test]
fn what_is_no_note_is_refused() {
    let line = "— a AAAAAAE=\n";
    let read = |text: &str| Note::read(text.as_bytes());
    assert!(read(&format!("t\n\n{line}")).is_ok());
    for (text, why) in [
        (String::new(), BadNote::NoSignatures),
        ("t\n".into(), BadNote::NoSignatures),
        (format!("t\n{line}"), BadNote::NoSignatures),
        (format!("t\n\n{}", line.trim_end()), BadNote::NoSignatures),
        (format!("t\n\n{line}\n"), BadNote::NoSignatures),
        (format!("t\n\n{line}x\n"), BadNote::BadLine),
        (format!("t\r\n\n{line}"), BadNote::NoText),
        (format!("t\0\n\n{line}"), BadNote::NoText),
        ("t\n\n- a AAAAAAE=\n".into(), BadNote::BadLine),
        ("t\n\n— a+b AAAAAAE=\n".into(), BadNote::BadLine),
        ("t\n\n—  AAAAAAE=\n".into(), BadNote::BadLine),
        ("t\n\n— a\u{a0}b AAAAAAE=\n".into(), BadNote::BadLine),
        ("t\n\n— a AAAAAA==\n".into(), BadNote::BadLine),
        ("t\n\n— a AAAAAAF=\n".into(), BadNote::BadLine),
        (
            format!("{}\n\n{line}", "x".repeat(MAX_TEXT)),
            BadNote::TooLong,
        ),
        (
            format!("t\n\n{}", line.repeat(MAX_SIGNATURES + 1)),
            BadNote::TooMany,
        ),
        ("x".repeat(MAX_NOTE + 1), BadNote::TooLong),
    ] {
        assert_eq!(read(&text), Err(why), "{text:.60}");
    }
    assert!(Note::read(b"\xff\n\n").is_err());
    let most = format!("t\n\n{}", line.repeat(MAX_SIGNATURES));
    let mut most = read(&most).unwrap();
    let one = most.signatures()[0].clone();
    assert_eq!(most.add(one), Err(BadNote::TooMany));
}

#[test]
fn what_is_no_key_is_refused() {
    let good = own(Kind::Log).to_string();
    let (name, rest) = good.split_once('+').unwrap();
    let (_, key) = rest.split_once('+').unwrap();
    for (text, why) in [
        ("", BadKey::Form),
        ("a+b", BadKey::Form),
        (&format!("{name}+00000000+{key}"), BadKey::Id),
        (&good.replace(name, "log.example/2"), BadKey::Id),
        (&good.to_uppercase(), BadKey::Kind),
        (&format!("{good}AAAA"), BadKey::Kind),
        (&"a".repeat(9_000), BadKey::Form),
    ] {
        assert_eq!(VerifierKey::read(text), Err(why), "{text:.80}");
    }
    let text = format!("# the log of node 1\n\n{good}\n  {good}  \n");
    assert_eq!(keys_of_text(&text).unwrap().len(), 2);
    assert_eq!(keys_of_text("#\nx\n"), Err((2, BadKey::Form)));
    let many = format!("{good}\n").repeat(65);
    assert_eq!(keys_of_text(&many), Err((65, BadKey::TooMany)));
}

proptest! {
    #[test]
    fn what_is_read_has_one_encoding(
        text in "[a-c\\n—+ ]{0,12}",
        lines in prop::collection::vec("(— )?[a+]{0,2} ?[A-E]{4}[AQg=]{0,4}", 0..4),
        raw: Vec<u8>,
    ) {
        let whole = format!("{text}\n\n{}\n", lines.join("\n"));
        for bytes in [whole.as_bytes(), text.as_bytes(), &raw] {
            if let Ok(note) = Note::read(bytes) {
                prop_assert_eq!(note.encode().into_bytes(), bytes);
            }
        }
    }
}
