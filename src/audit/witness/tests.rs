//! The state machine of a witness against honest, stale, forged and equivocating logs; its wire.

use proptest::prelude::*;

use super::*;
use crate::audit::{
    checkpoint::log_keys,
    merkle::{Collector, Frontier, NotProved, consistency_ranges, verify_consistency},
    note::Note,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn log() -> NodeKey {
    NodeKey::from_seed(&[1; 32])
}

fn keys() -> Vec<VerifierKey> {
    log_keys(log().public())
}

/// The leaves of a history; those from `fork` on are of another one.
fn leaves(size: u64, fork: u64) -> Vec<Hash> {
    let leaf = |n: u64| Hash::leaf(format!("{n} {}", n >= fork).as_bytes());
    (0..size).map(leaf).collect()
}

const HONEST: u64 = u64::MAX;

fn head_by(key: &NodeKey, size: u64, fork: u64) -> SignedCheckpoint {
    let mut tree = Frontier::default();
    leaves(size, fork)
        .into_iter()
        .for_each(|leaf| tree.push(leaf));
    SignedCheckpoint::sign(size, tree.root(), key).unwrap()
}

fn head(size: u64, fork: u64) -> SignedCheckpoint {
    head_by(&log(), size, fork)
}

fn request(old: u64, new: u64, fork: u64) -> Request {
    let mut collector = Collector::of(consistency_ranges(old, new).unwrap_or_default());
    for (at, leaf) in leaves(new, fork).into_iter().enumerate() {
        collector.leaf(at as u64, leaf);
    }
    Request {
        old,
        proof: collector.finish().unwrap(),
        checkpoint: head(new, fork),
    }
}

fn known(witness: &Witness) -> u64 {
    let origin = head(1, HONEST).checkpoint().origin.clone();
    witness
        .head(&origin)
        .map_or(0, |head| head.checkpoint().size)
}

/// Asks, and makes durable what is to be.
fn ask(witness: &mut Witness, request: &Request) -> Verdict {
    let verdict = witness.consider(request, &keys());
    if let Verdict::Persist(ticket) = verdict.clone() {
        assert_eq!(witness.persisted(ticket), request.checkpoint);
    }
    verdict
}

#[test]
fn a_head_grows_and_is_cosigned_once_it_is_durable() {
    let mut witness = Witness::new(4);
    for (old, new) in [(0, 3), (3, 4), (4, 11)] {
        let request = request(old, new, HONEST);
        let Verdict::Persist(ticket) = witness.consider(&request, &keys()) else {
            panic!("{old} {new}");
        };
        // Nothing is known, and nothing cosigned, before the disk has it.
        assert_eq!(known(&witness), old);
        let durable = witness.persisted(ticket);
        assert_eq!(known(&witness), new);
        let own = NodeKey::from_seed(&[2; 32]);
        let lines = cosign(&durable, &own, NOW);
        let (name, others) = (witness_name(&own.peer()), witness_keys(own.public()));
        let signed = add_cosignatures(&durable, &lines, &others).unwrap();
        assert_eq!(cosigned(&signed, &name, &others), Some(NOW));
        signed.verify(&keys()).unwrap();
        let again = add_cosignatures(&signed, &lines, &others).unwrap();
        assert_eq!(again, signed, "no line stands twice");
        assert_eq!(cosigned(&durable, &name, &others), None);
        let mut half = durable.note().clone();
        half.add(lines[0].clone()).unwrap();
        let half = SignedCheckpoint::read(half.encode().as_bytes()).unwrap();
        assert_eq!(cosigned(&half, &name, &others), None, "one of two");
    }
    // Asked again with nothing new: cosigned again, and nothing to be written.
    let same = request(11, 11, HONEST);
    assert_eq!(
        witness.consider(&same, &keys()),
        Verdict::Known(same.checkpoint.clone())
    );
}

#[test]
fn foreign_lines_are_not_added() {
    let checkpoint = head(3, HONEST);
    let [own, other] = [2, 3].map(|seed| NodeKey::from_seed(&[seed; 32]));
    let mut lines = cosign(&checkpoint, &other, NOW);
    lines.extend(cosign(&head(4, HONEST), &own, NOW));
    let signed = add_cosignatures(&checkpoint, &lines, &witness_keys(own.public())).unwrap();
    assert_eq!(signed, checkpoint);
}

/// A rolled-back log cannot name the witness's size with a proof; it learns what it lost.
#[test]
fn a_log_that_went_back_is_told() {
    let mut witness = Witness::new(4);
    ask(&mut witness, &request(0, 9, HONEST));
    for (old, new) in [(0, 5), (5, 6), (5, 12), (0, 20)] {
        let verdict = ask(&mut witness, &request(old, new, HONEST));
        assert_eq!(
            verdict,
            Verdict::Answer(Response::Conflict(9)),
            "{old} {new}"
        );
    }
    let mut shorter = request(0, 5, HONEST);
    shorter.old = 9;
    let verdict = ask(&mut witness, &shorter);
    assert_eq!(verdict, Verdict::Answer(Response::Conflict(9)));
    assert_eq!(known(&witness), 9);
}

#[test]
fn another_history_is_not_cosigned_and_two_roots_of_one_size_are_proof() {
    let mut witness = Witness::new(4);
    ask(&mut witness, &request(0, 9, HONEST));
    for fork in 0..9 {
        // A consistent proof, of the other history.
        let verdict = ask(&mut witness, &request(9, 14, fork));
        assert_eq!(verdict, Verdict::Answer(Response::NotProved), "{fork}");
        let Verdict::Equivocation(two, answer) = ask(&mut witness, &request(9, 9, fork)) else {
            panic!("{fork}");
        };
        assert_eq!(answer, Response::Conflict(9));
        assert!(two.verify(&keys()));
        assert_eq!(
            (two.size(), two.origin()),
            (9, &*head(9, fork).checkpoint().origin)
        );
        let again = Equivocation::read(two.encode().as_bytes()).unwrap();
        assert_eq!(again, *two);
        // Of ML-DSA no two signatures are the same, so this is another proof of the same.
        let third = witness.compare(&head(9, fork), &keys()).unwrap();
        assert_eq!((third.size(), third.origin()), (two.size(), two.origin()));
    }
    assert_eq!(known(&witness), 9);
    // The same history is no proof, nor is one that only claims to be signed.
    assert_eq!(witness.compare(&head(9, HONEST), &keys()), None);
    let forged = Note::new(
        head(9, 2).note().text().to_owned(),
        head(9, HONEST).note().signatures().to_vec(),
    );
    let forged = SignedCheckpoint::read(forged.unwrap().encode().as_bytes()).unwrap();
    assert_eq!(witness.compare(&forged, &keys()), None);
    let unsigned = Equivocation::of(&head(9, HONEST), &forged).unwrap();
    assert!(
        !unsigned.verify(&keys()),
        "nobody is accused with forged signatures"
    );
    let same = Equivocation::of(&head(9, HONEST), &head(9, HONEST));
    assert_eq!(same, None);
}

/// Nobody bricks a log by claiming a longer head for it.
#[test]
fn only_heads_under_the_logs_own_keys_count() {
    let mut witness = Witness::new(4);
    let stranger = NodeKey::from_seed(&[9; 32]);
    let mut claimed = request(0, 50, HONEST);
    // Signed by a stranger, under its own name and under the log's.
    claimed.checkpoint = head_by(&stranger, 50, HONEST);
    let not_signed = Verdict::Answer(Response::NotSigned);
    assert_eq!(witness.consider(&claimed, &keys()), not_signed);
    let text = head(50, HONEST).note().text().to_owned();
    let lines = claimed.checkpoint.note().signatures().to_vec();
    let note = Note::new(text, lines).unwrap();
    claimed.checkpoint = SignedCheckpoint::read(note.encode().as_bytes()).unwrap();
    assert_eq!(witness.consider(&claimed, &keys()), not_signed);
    // And the log's own head out of a stranger's mouth.
    let good = request(0, 3, HONEST);
    let theirs = log_keys(stranger.public());
    assert_eq!(witness.consider(&good, &theirs), not_signed);
    assert_eq!(known(&witness), 0);
}

/// The race that C2SP's text warns of: an older head written over a newer.
#[test]
fn one_head_of_a_log_is_written_at_a_time() {
    let mut witness = Witness::new(4);
    ask(&mut witness, &request(0, 2, HONEST));
    let Verdict::Persist(first) = witness.consider(&request(2, 5, HONEST), &keys()) else {
        panic!("the first");
    };
    let busy = Verdict::Answer(Response::Busy);
    assert_eq!(witness.consider(&request(2, 8, HONEST), &keys()), busy);
    // The disk fails: nothing is cosigned, and the log may ask again.
    assert_eq!(witness.failed(&first), Response::Busy);
    assert_eq!(known(&witness), 2);
    let Verdict::Persist(_) = ask(&mut witness, &request(2, 8, HONEST)) else {
        panic!("again");
    };
    assert_eq!(known(&witness), 8);
}

#[test]
fn logs_are_bounded_and_none_is_forgotten() {
    let mut witness = Witness::new(2);
    let [one, two, three] = [11, 12, 13].map(|seed| NodeKey::from_seed(&[seed; 32]));
    assert!(witness.restore(head_by(&one, 5, HONEST)));
    assert!(witness.restore(head_by(&two, 5, HONEST)));
    assert!(!witness.restore(head_by(&three, 5, HONEST)));
    assert!(witness.restore(head_by(&one, 6, HONEST)));
    let verdict = ask(&mut witness, &request(0, 1, HONEST));
    assert_eq!(verdict, Verdict::Answer(Response::Full));
    let empty = Witness::new(2).consider(&request(0, 0, HONEST), &keys());
    assert_eq!(empty, Verdict::Answer(Response::Conflict(0)));
}

#[test]
fn messages_have_one_encoding_and_bounds() {
    for request in [
        request(0, 3, HONEST),
        request(3, 9, HONEST),
        request(9, 9, HONEST),
    ] {
        let text = request.encode();
        assert_eq!(Request::read(text.as_bytes()), Ok(request));
        for (from, to) in [
            ("old ", "old  "),
            ("old ", "new "),
            ("\n\n", "\n"),
            ("\n\n", "\n\n\n"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert!(Request::read(changed.as_bytes()).is_err(), "{from:?}");
        }
        let hash = format!("\n{}", "A".repeat(43) + "=");
        let many = text.replacen("\n\n", &format!("{}\n\n", hash.repeat(64)), 1);
        assert_eq!(Request::read(many.as_bytes()), Err(BadMessage::TooLong));
    }
    let own = NodeKey::from_seed(&[2; 32]);
    for response in [
        Response::Cosigned(cosign(&head(3, HONEST), &own, NOW)),
        Response::Conflict(0),
        Response::Conflict(u64::MAX),
        Response::NotSigned,
        Response::NotProved,
        Response::Full,
        Response::Busy,
    ] {
        let text = response.encode();
        assert_eq!(Response::read(text.as_bytes()), Ok(response));
        for wrong in [
            format!("{text}x"),
            format!(" {text}"),
            text.trim_end().to_owned(),
        ] {
            assert!(Response::read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
    for wrong in [
        "",
        "cosigned\n",
        "conflict 01\n",
        "conflict\n",
        "busy\n\n",
        "maybe\n",
    ] {
        assert!(Response::read(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    let long = vec![b'a'; MAX_EQUIVOCATION + MAX_REQUEST];
    assert_eq!(Request::read(&long), Err(BadMessage::TooLong));
    assert_eq!(Response::read(&long), Err(BadMessage::TooLong));
    assert_eq!(Equivocation::read(&long), Err(BadMessage::TooLong));
}

/// The request of `c2sp.org/tlog-witness` reads back.
#[test]
fn the_specifications_request_reads_back() {
    let text = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n\
        example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc\
        yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/\
        V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let read = Request::read(text.as_bytes()).unwrap();
    assert_eq!((read.old, read.proof.len()), (20_852_014, 4));
    assert_eq!(read.encode(), text);
}

proptest! {
    /// Whatever a log asks, in any order: a head only ever grows along one history, and nothing is
    /// cosigned that was not made durable.
    #[test]
    fn a_head_moves_along_one_history(
        asked in prop::collection::vec((0u64..12, 0u64..14, 0u64..14, any::<bool>()), 1..14),
    ) {
        let mut witness = Witness::new(4);
        let mut durable: Option<SignedCheckpoint> = None;
        for (old, new, fork, honest) in asked {
            let old = if honest { known(&witness) } else { old };
            let fork = if honest { HONEST } else { fork };
            let mut asking = request(old.min(new), new, fork);
            asking.old = old;
            let verdict = ask(&mut witness, &asking);
            let origin = asking.checkpoint.checkpoint().origin.clone();
            let head = witness.head(&origin).cloned();
            match &verdict {
                Verdict::Persist(_) => prop_assert_eq!(head.as_ref(), Some(&asking.checkpoint)),
                Verdict::Known(same) => {
                    let known = head.as_ref().map(|head| head.checkpoint().clone());
                    prop_assert_eq!(known.as_ref(), Some(same.checkpoint()));
                }
                Verdict::Answer(_) | Verdict::Equivocation(..) => prop_assert_eq!(&head, &durable),
            }
            if let (Some(before), Some(after)) = (&durable, &head) {
                prop_assert!(after.checkpoint().size >= before.checkpoint().size);
                let (a, b) = (before.checkpoint(), after.checkpoint());
                let all = [HONEST, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
                // Of some history that has both.
                let one = all.iter().any(|fork| {
                    let roots = [a, b].map(|tree| self::head(tree.size, *fork).checkpoint().root);
                    roots == [a.root, b.root]
                });
                prop_assert!(one);
            }
            durable = head;
        }
    }

    #[test]
    fn a_proof_of_another_pair_of_sizes_is_refused(old in 1u64..20, new in 1u64..20, claimed in 1u64..20) {
        prop_assume!(old < new && claimed < new && claimed != old);
        let asked = request(old, new, HONEST);
        let tree = asked.checkpoint.checkpoint();
        let other = head(claimed, HONEST);
        let from = (claimed, other.checkpoint().root);
        let judged = verify_consistency(from, (new, tree.root), &asked.proof);
        prop_assert!(matches!(judged, Err(NotProved::Root | NotProved::Length)));
    }
}
