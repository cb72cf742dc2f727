//! Frozen forms, signatures of both algorithms, what is refused, and bundles.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::audit::{
    merkle::{Collector, Frontier, NotProved, inclusion_ranges},
    note::{MAX_NOTE, keys_of_text},
};

fn key() -> NodeKey {
    NodeKey::from_seed(&[0x4e; 32])
}

fn lines() -> Vec<String> {
    (0..7).map(|n| format!("{{\"line\":{n}}}")).collect()
}

fn proof(index: u64) -> InclusionProof {
    let (lines, mut tree) = (lines(), Frontier::default());
    let mut collector = Collector::of(inclusion_ranges(index, 7).unwrap());
    for (at, line) in lines.iter().enumerate() {
        let leaf = Hash::leaf(line.as_bytes());
        tree.push(leaf);
        collector.leaf(at as u64, leaf);
    }
    InclusionProof {
        line: lines[usize::try_from(index).unwrap()].clone().into_bytes(),
        index,
        hashes: collector.finish().unwrap(),
        checkpoint: SignedCheckpoint::sign(7, tree.root(), &key()).unwrap(),
    }
}

fn keys() -> Vec<VerifierKey> {
    log_keys(key().public())
}

/// Written once, read for ever: a change that breaks this breaks what auditors keep. Made anew with
/// `QUANTRABAND_BLESS=1`, for signatures of ML-DSA are never twice the same.
#[test]
fn the_forms_are_frozen() {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audit");
    let bundle = place.join("record.tlog-proof");
    let shown: String = keys().iter().map(|key| format!("{key}\n")).collect();
    if std::env::var_os("QUANTRABAND_BLESS").is_some_and(|value| value == "1") {
        let made = proof(4);
        fs::write(&bundle, made.encode()).unwrap();
        fs::write(place.join("checkpoint"), made.checkpoint.encode()).unwrap();
        fs::write(place.join("log.keys"), &shown).unwrap();
    }
    let kept = fs::read_to_string(place.join("log.keys")).unwrap();
    assert_eq!(kept, shown);
    let keys = keys_of_text(&kept).unwrap();
    let kept = fs::read(bundle).unwrap();
    let read = InclusionProof::read(&kept).unwrap();
    assert_eq!(read.encode().as_bytes(), kept);
    read.verify(&keys).unwrap();
    let made = proof(4);
    assert_eq!((&read.line, &read.hashes), (&made.line, &made.hashes));
    let kept = fs::read(place.join("checkpoint")).unwrap();
    let checkpoint = SignedCheckpoint::read(&kept).unwrap();
    assert_eq!(checkpoint.encode().as_bytes(), kept);
    checkpoint.verify(&keys).unwrap();
    assert_eq!(checkpoint.checkpoint(), made.checkpoint.checkpoint());
    assert!(kept.starts_with(b"quantraband/audit/12D3KooW"));
}

/// The example of `c2sp.org/tlog-checkpoint`, cosigned as in `c2sp.org/tlog-cosignature`.
#[test]
fn a_checkpoint_of_another_log_reads_back() {
    let example = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc\
        yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX\
        3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let read = SignedCheckpoint::read(example.as_bytes()).unwrap();
    assert_eq!(read.checkpoint().size, 20_852_163);
    assert_eq!(read.note().signatures().len(), 2);
    assert_eq!(read.encode(), example);
    let other = NotBelieved::OtherLog("example.com/behind-the-sofa".to_owned());
    assert_eq!(read.verify(&keys()), Err(other));
}

/// Whoever forges must break both algorithms; a key that was asked for must have signed.
#[test]
fn both_signatures_are_required() {
    let signed = proof(0).checkpoint;
    signed.verify(&keys()).unwrap();
    signed.verify(&keys()[..1]).unwrap();
    assert!(matches!(signed.verify(&[]), Err(NotBelieved::OtherLog(_))));
    for missing in 0..2 {
        let mut lines = signed.note().signatures().to_vec();
        lines.remove(missing);
        let note = Note::new(signed.note().text().to_owned(), lines).unwrap();
        let cut = SignedCheckpoint::read(note.encode().as_bytes()).unwrap();
        assert_eq!(cut.verify(&keys()), Err(NotBelieved::NotSigned));
        let mut lines = signed.note().signatures().to_vec();
        lines[missing].bytes[9] ^= 1;
        let note = Note::new(signed.note().text().to_owned(), lines).unwrap();
        let forged = SignedCheckpoint::read(note.encode().as_bytes()).unwrap();
        assert_eq!(forged.verify(&keys()), Err(NotBelieved::Forged));
    }
    // A witness of the log's own name and keys is still no log.
    let origin = origin_of(&key().peer());
    let witness = VerifierKey::of_node(&origin, Kind::Witness, key().public()).unwrap();
    let line = witness.sign(&key(), signed.note().text(), Timestamp::from_secs(1));
    let note = Note::new(signed.note().text().to_owned(), vec![line]).unwrap();
    let cosigned = SignedCheckpoint::read(note.encode().as_bytes()).unwrap();
    assert!(matches!(
        cosigned.verify(&[witness]),
        Err(NotBelieved::OtherLog(_))
    ));
}

#[test]
fn any_changed_byte_of_what_is_signed_is_refused() {
    let signed = proof(0).checkpoint;
    let whole = signed.encode().into_bytes();
    for at in 0..signed.note().text().len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let believed =
                SignedCheckpoint::read(&changed).is_ok_and(|it| it.verify(&keys()).is_ok());
            assert!(!believed, "byte {at}");
        }
    }
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let read = |text: String| {
        let whole = format!("{text}\n— a AAAAAAE=\n");
        SignedCheckpoint::read(whole.as_bytes()).map(drop)
    };
    assert_eq!(read(format!("o\n0\n{root}\n")), Ok(()));
    assert_eq!(read(format!("o\n{MAX_SIZE}\n{root}\n")), Ok(()));
    for text in [
        format!("\n0\n{root}\n"),
        format!("o\n00\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n-1\n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n{}\n{root}\n", MAX_SIZE + 1),
        format!("o\n99999999999999999999999\n{root}\n"),
        format!("o\n0\n{root}\nmore\n"),
        format!("o\n0\n{root}\n\n"),
        format!("o\n0\n{}\n", root.replace('=', "A")),
        "o\n0\nCsUYapGGPo4=\n".to_owned(),
        "o\n0\n".to_owned(),
        "o\n".to_owned(),
        format!("{}\n0\n{root}\n", "o".repeat(MAX_NAME + 1)),
    ] {
        assert_eq!(read(text.clone()), Err(BadCheckpoint::Text), "{text:?}");
    }
    let long = vec![b'x'; MAX_NOTE + 1];
    assert!(SignedCheckpoint::read(&long).is_err());
}

#[test]
fn a_bundle_proves_its_line_and_nothing_else() {
    for index in 0..7 {
        let good = proof(index);
        good.verify(&keys()).unwrap();
        let whole = good.encode();
        assert_eq!(InclusionProof::read(whole.as_bytes()), Ok(good.clone()));
        let mut other = good.clone();
        other.line.push(b' ');
        assert_eq!(other.verify(&keys()), Err(NotProved::Root.into()));
        let mut other = good.clone();
        other.index = (index + 1) % 7;
        assert!(matches!(other.verify(&keys()), Err(BadProof::NotProved(_))));
        let mut other = good.clone();
        other.index = 7;
        assert_eq!(other.verify(&keys()), Err(NotProved::Size.into()));
        let mut other = good.clone();
        other.hashes.pop();
        assert!(matches!(other.verify(&keys()), Err(BadProof::NotProved(_))));
        let stranger = NodeKey::from_seed(&[1; 32]);
        assert!(good.verify(&log_keys(stranger.public())).is_err());
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let good = proof(3).encode();
    for (from, to) in [
        ("@v1", "@v2"),
        ("extra ", "extra  "),
        ("extra ", "more "),
        ("index 3", "index 03"),
        ("index 3", "index -3"),
        ("index 3\n", ""),
        ("\n\n", "\n"),
    ] {
        let changed = good.replacen(from, to, 1);
        let refused = InclusionProof::read(changed.as_bytes());
        assert!(refused.is_err(), "{from:?} {to:?}");
    }
    let many = good.replacen("\n\n", &format!("\n{}\n\n", "A".repeat(43) + "="), 1);
    assert!(InclusionProof::read(many.as_bytes()).is_ok());
    let line = format!("\n{}", "A".repeat(43) + "=").repeat(MAX_PROOF_LINES);
    let many = good.replacen("\n\n", &format!("{line}\n\n"), 1);
    assert_eq!(
        InclusionProof::read(many.as_bytes()),
        Err(BadProof::TooLong)
    );
    let long = vec![b'a'; MAX_BUNDLE + 1];
    assert_eq!(InclusionProof::read(&long), Err(BadProof::TooLong));
}

/// One more than there may be.
const MAX_PROOF_LINES: usize = crate::audit::merkle::MAX_PROOF + 1;

proptest! {
    #[test]
    fn a_changed_bundle_reads_back_or_not_at_all(
        at: prop::sample::Index, to: prop::sample::Index, new in "[ -~\\n]{0,3}",
    ) {
        let good = proof(5).encode().into_bytes();
        let (a, b) = (at.index(400), to.index(6));
        let mut changed = good;
        changed.splice(a..a + b, new.bytes());
        if let Ok(read) = InclusionProof::read(&changed) {
            prop_assert_eq!(read.encode().into_bytes(), changed);
        }
    }
}
