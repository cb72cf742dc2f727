//! The matrix of tampering: what is found from the log and its keys alone, and that all of it is
//! found with a checkpoint that was kept elsewhere.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    audit::{
        Checkpointing,
        checkpoint::{SignedCheckpoint, log_keys},
    },
    identity::NodeKey,
};

/// Random mutations: about ten seconds without optimisation. `QUANTRABAND_TAMPER` says another
/// number.
const MUTATIONS: usize = 2_000;

fn node() -> NodeKey {
    NodeKey::from_seed(&[3; 32])
}

/// A log signed by `key`, with segments of about five records and a checkpoint every three; the
/// record `odd` says something else than it would.
fn signed_log(key: NodeKey, odd: Option<u8>) -> Faulty {
    let storage = Faulty::new(1);
    let options = LogOptions {
        segment_size: 9_000,
        remembered_ids: 64,
        version: "test".to_owned(),
        clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        checkpoints: Some(Checkpointing {
            key,
            records: 3,
            interval: Duration::from_secs(60),
        }),
    };
    let mut log = Log::open(Arc::new(storage.clone()), options).unwrap();
    for n in 1..=14 {
        append(&mut log, if odd == Some(n) { n + 100 } else { n });
        log.checkpoint_if_due();
    }
    storage
}

fn all_lines(storage: &Faulty) -> Vec<Vec<u8>> {
    numbers(storage)
        .flat_map(|number| lines(storage, number))
        .collect()
}

/// What a witness holds: a checkpoint over every line there is.
fn held(storage: &Faulty) -> SignedCheckpoint {
    let mut tree = Frontier::default();
    for line in all_lines(storage) {
        tree.push(Hash::leaf(&line[..line.len() - 1]));
    }
    SignedCheckpoint::sign(tree.size(), tree.root(), &node()).unwrap()
}

/// What is found with the key alone, and with the checkpoint of a witness as well.
fn judge(storage: &Faulty, held: &SignedCheckpoint) -> [Report; 2] {
    let keys = log_keys(node().public());
    [None, Some(held)].map(|checkpoint| {
        let expected = Expected {
            keys: &keys,
            checkpoint,
        };
        verify_against(storage, &expected).unwrap()
    })
}

fn copy(storage: &Faulty) -> Faulty {
    let copy = Faulty::new(1);
    for name in storage.names() {
        copy.put(&name, &storage.bytes(&name));
    }
    copy
}

fn kinds(report: &Report) -> Vec<Damage> {
    report.findings.iter().map(|found| found.damage).collect()
}

#[test]
fn an_honest_log_passes() {
    let storage = signed_log(node(), None);
    assert!(numbers(&storage).count() >= 3);
    let [alone, witnessed] = judge(&storage, &held(&storage));
    assert!(alone.is_intact() && witnessed.is_intact(), "{alone:#?}");
    assert!(alone.checkpoints >= 4);
    assert_eq!(witnessed.vouched, Some(witnessed.records));
}

/// Lines cut off at every record of the log, whole segments with them. Without a witness those after
/// the newest checkpoint can be cut off; with one, none.
#[test]
fn cut_off_at_every_record() {
    let good = signed_log(node(), None);
    let (held, all) = (held(&good), all_lines(&good).len());
    let kept = kept_checkpoint(&good).unwrap().unwrap().unwrap();
    let covered = usize::try_from(kept.checkpoint().size).unwrap();
    for keep in 0..all {
        let storage = copy(&good);
        let mut left = keep;
        for number in numbers(&good) {
            let lines = lines(&good, number);
            let here = left.min(lines.len());
            left -= here;
            if here == 0 {
                storage.detach(&segment_name(number));
            } else {
                put(&storage, number, &lines[..here]);
            }
        }
        let [alone, witnessed] = judge(&storage, &held);
        if keep > 0 {
            assert_eq!(kinds(&witnessed)[0], Damage::Shortened, "{keep} kept");
            assert_eq!(witnessed.findings[0].sequence, keep as u64);
            assert_eq!(
                alone.is_intact(),
                keep >= covered,
                "{keep} of {covered} kept"
            );
        }
    }
}

/// An older copy of everything, the file with the checkpoint included: nothing but a witness shows it.
#[test]
fn the_directory_rolled_back() {
    let newer = signed_log(node(), None);
    let older = Faulty::new(1);
    // All segments but the last, which ended with a checkpoint, and that checkpoint beside them.
    let all: Vec<u64> = numbers(&newer).collect();
    let (_, before) = all.split_last().unwrap();
    for number in before {
        put(&older, *number, &lines(&newer, *number));
    }
    let last = lines(&older, *before.last().unwrap()).pop().unwrap();
    let note = record::read(&last[..last.len() - 1]).unwrap().checkpoint;
    older.put(CHECKPOINT_FILE, note.unwrap().as_bytes());
    let [alone, witnessed] = judge(&older, &held(&newer));
    assert!(alone.is_intact(), "{:#?}", alone.findings);
    assert_eq!(kinds(&witnessed), [Damage::Shortened]);
}

/// A record changed, and everything after it written anew: chain, trees and seals are good. What
/// cannot be written anew is a signature.
#[test]
fn the_log_written_anew_from_any_record_on() {
    let good = signed_log(node(), None);
    let held = held(&good);
    for odd in 1..=14 {
        // Whoever has the node's key can sign anything; only a witness stands in the way.
        let with_key = signed_log(node(), Some(odd));
        let [alone, witnessed] = judge(&with_key, &held);
        assert!(alone.is_intact());
        assert_eq!(kinds(&witnessed), [Damage::CheckpointDiffers], "{odd}");
        // Without it there are checkpoints of another key,
        let other_key = signed_log(NodeKey::from_seed(&[4; 32]), Some(odd));
        let [alone, witnessed] = judge(&other_key, &held);
        assert_eq!(kinds(&alone), [Damage::NotSigned]);
        assert!(kinds(&witnessed).contains(&Damage::CheckpointDiffers));
        // or the old one, which speaks of other records.
        other_key.put(CHECKPOINT_FILE, &good.bytes(CHECKPOINT_FILE));
        assert!(kinds(&judge(&other_key, &held)[0]).contains(&Damage::CheckpointDiffers));
    }
}

/// Without a key from outside a log signed with another key passes: verification says so.
#[test]
fn without_a_key_nobody_knows_whose_checkpoints_they_are() {
    let report = verify(&signed_log(NodeKey::from_seed(&[4; 32]), None)).unwrap();
    assert!(report.is_intact() && !report.keys_given);
}

#[test]
fn a_forged_signature_in_a_record_is_found() {
    let good = signed_log(node(), None);
    let forged = SignedCheckpoint::sign(1, Hash::empty(), &NodeKey::from_seed(&[4; 32])).unwrap();
    let mut done = 0;
    for number in numbers(&good) {
        for (at, line) in lines(&good, number).iter().enumerate() {
            let Some(note) = record::read(&line[..line.len() - 1]).unwrap().checkpoint else {
                continue;
            };
            let signed = SignedCheckpoint::read(note.as_bytes()).unwrap();
            // The right text under the right name, and somebody else's signature.
            let own = signed.note().signatures()[0].clone();
            let mut line = own.clone();
            line.bytes = forged.note().signatures()[0].bytes.clone();
            let changed = note.replace(own.line().trim_end(), line.line().trim_end());
            assert_ne!(changed, note);
            let storage = copy(&good);
            edit(&storage, number, |lines| {
                let mut value: Value = serde_json::from_slice(&lines[at]).unwrap();
                value["unmapped"]["checkpoint"] = changed.clone().into();
                lines[at] = seal_again(value.to_string().as_bytes());
            });
            let [alone, _] = judge(&storage, &held(&good));
            let place = (alone.findings[0].line, alone.findings[0].damage);
            assert_eq!(place, (at as u64 + 1, Damage::BadCheckpoint));
            done += 1;
        }
    }
    assert!(done >= 4);
}

/// One mutation; says what was done.
fn mutate(storage: &Faulty, random: &mut SmallRng) -> &'static str {
    let all: Vec<u64> = numbers(storage).collect();
    let number = all[random.random_range(0..all.len())];
    let other = all[random.random_range(0..all.len())];
    let count = lines(storage, number).len();
    let at = random.random_range(0..count);
    let to = random.random_range(0..count);
    match random.random_range(0..10) {
        0 => {
            let mut bytes = storage.bytes(&segment_name(number));
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            storage.put(&segment_name(number), &bytes);
            "flip a bit"
        }
        1 => {
            edit(storage, number, |lines| {
                let mut value: Value = serde_json::from_slice(&lines[at]).unwrap();
                value["time"] = 1_700_000_000_000_u64.into();
                lines[at] = seal_again(value.to_string().as_bytes());
            });
            "change a field and seal again"
        }
        2 => {
            edit(storage, number, |lines| drop(lines.remove(at)));
            "delete"
        }
        3 => {
            let foreign = lines(storage, other)[0].clone();
            edit(storage, number, |lines| lines.insert(at, foreign));
            "insert"
        }
        4 => {
            edit(storage, number, |lines| lines.swap(at, to));
            "swap"
        }
        5 => {
            edit(storage, number, |lines| lines.insert(to, lines[at].clone()));
            "duplicate"
        }
        6 => {
            edit(storage, number, |lines| lines.truncate(at));
            "truncate"
        }
        7 => {
            let (a, b) = (lines(storage, number), lines(storage, other));
            put(storage, number, &b);
            put(storage, other, &a);
            "swap segments"
        }
        8 => {
            storage.detach(&segment_name(number));
            "remove a segment"
        }
        _ => {
            let mut bytes = storage.bytes(CHECKPOINT_FILE);
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            storage.put(CHECKPOINT_FILE, &bytes);
            "flip a bit of the checkpoint"
        }
    }
}

/// Every mutation is found with a witness. Without one, all are that do not only take away from what
/// came after the newest checkpoint.
#[test]
fn random_mutations() {
    let good = signed_log(node(), None);
    let (held, whole) = (held(&good), all_lines(&good));
    let kept = kept_checkpoint(&good).unwrap().unwrap().unwrap();
    let covered = usize::try_from(kept.checkpoint().size).unwrap();
    let count = std::env::var("QUANTRABAND_TAMPER").map_or(MUTATIONS, |n| n.parse().unwrap());
    let mut random = SmallRng::seed_from_u64(0x7a6d_7065);
    let mut missed = 0;
    for n in 0..count {
        let storage = copy(&good);
        let what = mutate(&storage, &mut random);
        let same = storage.names() == good.names()
            && good
                .names()
                .iter()
                .all(|name| good.bytes(name) == storage.bytes(name));
        if same {
            continue;
        }
        let [alone, witnessed] = judge(&storage, &held);
        assert!(
            !witnessed.is_intact(),
            "{n}: {what} was not found with a witness"
        );
        if alone.is_intact() {
            missed += 1;
            let left = all_lines(&storage);
            let torn = usize::from(alone.torn_bytes > 0);
            let only_less =
                left.len() - torn >= covered && whole.starts_with(&left[..left.len() - torn]);
            // The newest line sealed anew: the chain has nothing after it.
            let newest = left.len() == whole.len()
                && left[..whole.len() - 1] == whole[..whole.len() - 1]
                && whole.len() > covered;
            assert!(
                only_less || newest,
                "{n}: {what} was not found without a witness"
            );
        }
    }
    assert!(missed < count / 10, "{missed} of {count}");
}
