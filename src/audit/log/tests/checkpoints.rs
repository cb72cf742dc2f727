//! When checkpoints are made, what a start makes of them, and that no fault and no power failure
//! looks like tampering.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    audit::{
        checkpoint::{SignedCheckpoint, log_keys},
        merkle::Hash,
        note::VerifierKey,
        verify::{CHECKPOINT_FILE, Damage, Expected, kept_checkpoint, verify_against},
    },
    identity::NodeKey,
};

const MINUTE: Duration = Duration::from_secs(60);

fn key() -> NodeKey {
    NodeKey::from_seed(&[6; 32])
}

fn signed_options(segment_size: u64, clock: Arc<ManualClock>) -> LogOptions {
    LogOptions {
        clock,
        checkpoints: Some(Checkpointing {
            key: key(),
            records: 5,
            interval: MINUTE,
        }),
        ..options(segment_size)
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000)))
}

fn open_signed(storage: &Faulty, segment_size: u64) -> Result<Log, OpenError> {
    let options = signed_options(segment_size, clock());
    Log::open(Arc::new(storage.clone()), options)
}

fn kept(storage: &Faulty) -> Option<SignedCheckpoint> {
    let kept = kept_checkpoint(storage).unwrap()?.unwrap();
    kept.verify(&log_keys(key().public())).unwrap();
    Some(kept)
}

fn kept_size(storage: &Faulty) -> Option<u64> {
    kept(storage).map(|kept| kept.checkpoint().size)
}

/// Records of the log that counts, the checkpoints among them; the whole of it verified with keys.
fn judged(storage: &Faulty) -> verify::Report {
    let keys = log_keys(key().public());
    let expected = Expected {
        keys: &keys,
        checkpoint: None,
    };
    let report = verify_against(storage, &expected).unwrap();
    assert!(report.is_intact(), "{:#?}", report.findings);
    report
}

fn refused(storage: &Faulty) -> Finding {
    match open_signed(storage, 1 << 20) {
        Err(OpenError::Damaged(finding)) => finding,
        other => panic!("opened: {:?}", other.map(|_| ())),
    }
}

#[test]
fn one_is_due_after_so_many_records_and_after_so_long() {
    let (storage, clock) = (Faulty::new(1), clock());
    let options = signed_options(1 << 20, clock.clone());
    let mut log = Log::open(Arc::new(storage.clone()), options).unwrap();
    // The segment's first line waits for one.
    assert_eq!(log.checkpoint_due_in(), Some(MINUTE));
    clock.advance(MINUTE / 2);
    log.append(&[event(1), event(2)]);
    assert_eq!(log.checkpoint_due_in(), Some(MINUTE / 2));
    log.checkpoint_if_due();
    assert_eq!(kept(&storage), None);
    log.append(&[event(3), event(4)]);
    assert_eq!(
        log.checkpoint_due_in(),
        Some(Duration::ZERO),
        "five records"
    );
    log.checkpoint_if_due();
    assert_eq!(kept_size(&storage), Some(5));
    assert_eq!(log.head().size, 6, "it is a record itself");
    assert_eq!(log.checkpoint_due_in(), None, "nothing to be covered");
    clock.advance(MINUTE * 9);
    log.append(&[event(5)]);
    assert_eq!(log.checkpoint_due_in(), Some(MINUTE));
    clock.advance(MINUTE);
    log.checkpoint_if_due();
    assert_eq!(kept_size(&storage), Some(7));
    // Asked for, with nothing new: the same again, and no record.
    assert_eq!(log.checkpoint().ok(), kept(&storage));
    assert_eq!(log.head().size, 8);
    let report = judged(&storage);
    assert_eq!((report.checkpoints, report.vouched), (2, Some(7)));
}

/// Its last line vouches for a closed segment.
#[test]
fn a_segment_ends_with_a_checkpoint() {
    let storage = Faulty::new(1);
    let mut log = open_signed(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    log.rotate(SegmentCause::Command).unwrap();
    let bytes = storage.bytes("00000001.jsonl");
    let text = String::from_utf8(bytes).unwrap();
    let last = record::read(text.lines().last().unwrap().as_bytes()).unwrap();
    assert_eq!(last.event, "log_checkpoint");
    let root = log.tree().root();
    drop(log);
    let log = open_signed(&storage, 1 << 20).unwrap();
    assert_eq!(log.tree().root(), root, "the tree goes on after a restart");
    judged(&storage);
}

#[test]
fn the_file_is_written_before_the_record() {
    let storage = Faulty::new(1);
    let mut log = open_signed(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    let before = storage.calls().len();
    log.checkpoint().unwrap();
    let calls = &storage.calls()[before..];
    assert!(
        matches!(calls, [Call::Replace, Call::Append(_), Call::Sync]),
        "{calls:?}"
    );
}

#[test]
fn a_checkpoint_that_cannot_be_made_costs_no_record_and_is_tried_again_later() {
    let (storage, clock) = (Faulty::new(1), clock());
    let options = signed_options(1 << 20, clock.clone());
    let mut log = Log::open(Arc::new(storage.clone()), options).unwrap();
    log.append(&[event(1), event(2), event(3), event(4)]);
    storage.set(Faults {
        space: Some(0),
        ..Faults::default()
    });
    assert_eq!(log.checkpoint(), Err(AuditFault::DiskFull));
    assert_eq!(log.checkpoint_due_in(), Some(Duration::from_secs(1)));
    log.checkpoint_if_due();
    storage.set(Faults::default());
    assert!(log.append(&[event(5)])[0].is_ok());
    clock.advance(Duration::from_secs(1));
    log.checkpoint_if_due();
    assert_eq!(kept_size(&storage), Some(6));
    judged(&storage);
}

#[test]
fn without_a_key_there_is_none() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    assert_eq!(log.checkpoint(), Err(AuditFault::NoKey));
    assert_eq!(log.checkpoint_due_in(), None);
}

/// Cut at every line: what a checkpoint speaks of must be there.
#[test]
fn a_log_shorter_than_its_checkpoint_is_not_opened() {
    let storage = Faulty::new(1);
    let mut log = open_signed(&storage, 1 << 20).unwrap();
    log.append(&[event(1), event(2), event(3)]);
    log.checkpoint().unwrap();
    log.append(&[event(4)]);
    drop(log);
    let name = "00000001.jsonl";
    let whole = storage.bytes(name);
    let mut end = 0;
    for (at, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
        end += line.len();
        storage.put(name, &whole[..end]);
        if at < 3 {
            let finding = refused(&storage);
            assert_eq!(finding.damage, Damage::Shortened, "{at}");
            assert_eq!(
                (finding.line, finding.sequence),
                (at as u64 + 2, at as u64 + 1)
            );
            assert_eq!(finding.file, name);
        } else {
            drop(open_signed(&storage, 1 << 20).unwrap());
        }
        storage.put(name, &whole);
    }
    storage.detach(name);
    assert_eq!(refused(&storage).damage, Damage::Shortened, "all of it");
}

#[test]
fn a_checkpoint_taken_away_or_put_back_is_seen() {
    let storage = Faulty::new(1);
    let mut log = open_signed(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    log.checkpoint().unwrap();
    let older = storage.bytes(CHECKPOINT_FILE);
    log.append(&[event(2)]);
    log.checkpoint().unwrap();
    let newest = storage.bytes(CHECKPOINT_FILE);
    drop(log);
    let mut broken = newest.clone();
    let last = broken.len() - 8;
    broken[last] ^= 1;
    let stranger = NodeKey::from_seed(&[9; 32]);
    let other = SignedCheckpoint::sign(2, Hash::empty(), &stranger).unwrap();
    let own = |size| SignedCheckpoint::sign(size, Hash::empty(), &key()).unwrap();
    // What the newest says, under another name.
    let root = SignedCheckpoint::read(&newest).unwrap().checkpoint().root;
    let foreign = SignedCheckpoint::sign(4, root, &stranger).unwrap();
    for (bytes, damage) in [
        (older.clone(), Damage::CheckpointMissing),
        (b"nonsense".to_vec(), Damage::BadCheckpoint),
        (broken, Damage::BadCheckpoint),
        (other.encode().into_bytes(), Damage::CheckpointMissing),
        (own(4).encode().into_bytes(), Damage::BadCheckpoint),
        (own(5).encode().into_bytes(), Damage::CheckpointDiffers),
        (foreign.encode().into_bytes(), Damage::BadCheckpoint),
    ] {
        storage.put(CHECKPOINT_FILE, &bytes);
        assert_eq!(refused(&storage).damage, damage);
    }
    storage.detach(CHECKPOINT_FILE);
    assert_eq!(refused(&storage).damage, Damage::CheckpointMissing);
    storage.put(CHECKPOINT_FILE, &newest);
    drop(open_signed(&storage, 1 << 20).unwrap());
}

/// A chain written anew is a good chain; it is not the tree that was signed.
#[test]
fn a_log_written_anew_is_not_opened() {
    for rotated in [false, true] {
        let [good, forged] = [1, 2].map(|first| {
            let storage = Faulty::new(1);
            let mut log = open_signed(&storage, 1 << 20).unwrap();
            log.append(&[event(first), event(3), event(4)]);
            if first == 1 {
                log.checkpoint().unwrap();
            }
            drop(log);
            if rotated {
                // The checkpoint lies before the newest segment.
                let mut log = open(&storage, 1 << 20).unwrap();
                log.append(&[event(5)]);
                log.rotate(SegmentCause::Command).unwrap();
                log.append(&[event(6)]);
            }
            storage
        });
        forged.put(CHECKPOINT_FILE, &good.bytes(CHECKPOINT_FILE));
        assert_eq!(refused(&forged).damage, Damage::CheckpointDiffers);
        drop(open_signed(&good, 1 << 20).unwrap());
    }
}

/// A node that changed its keys goes on with its log.
#[test]
fn a_checkpoint_of_former_keys_is_continued() {
    let storage = Faulty::new(1);
    let mut log = open_signed(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    log.checkpoint().unwrap();
    drop(log);
    let next = NodeKey::from_seed(&[7; 32]);
    let mut options = signed_options(1 << 20, clock());
    if let Some(with) = &mut options.checkpoints {
        with.key = next.clone();
    }
    let mut log = Log::open(Arc::new(storage.clone()), options).unwrap();
    log.append(&[event(2)]);
    log.checkpoint().unwrap();
    let mut keys = log_keys(next.public());
    let judged = |keys: &[VerifierKey]| {
        let expected = Expected {
            keys,
            checkpoint: None,
        };
        verify_against(&storage, &expected).unwrap()
    };
    let report = judged(&keys);
    assert!(report.is_intact());
    assert_eq!((report.checkpoints, report.other_keys), (1, 1));
    keys.extend(log_keys(key().public()));
    let report = judged(&keys);
    assert_eq!((report.checkpoints, report.other_keys), (2, 0));
}

/// Each call fails in turn, those of checkpoints among them: nothing acknowledged is missing, and
/// the next start sees no tampering.
#[test]
fn no_failed_call_looks_like_tampering() {
    let (mut at, mut calls) = (0, 1);
    while at < calls {
        let storage = Faulty::new(at as u64);
        let mut log = open_signed(&storage, 9_000).unwrap();
        storage.set(Faults {
            at: Some(at),
            ..Faults::default()
        });
        let mut acknowledged = Vec::new();
        for n in 1..=16 {
            if log.append(&[event(n)])[0].is_ok() {
                acknowledged.push(event(n).0);
            }
            log.checkpoint_if_due();
        }
        calls = storage.faulty_calls();
        storage.set(Faults::default());
        drop(log);
        if at % 2 == 0 {
            storage.crash();
        }
        drop(open_signed(&storage, 9_000).unwrap());
        check(&storage, &acknowledged);
        at += 1;
    }
    assert!(calls > 30, "only {calls} calls were made to fail");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Any mixture of faults, restarts and power failures: an honest log always opens, all that was
    /// acknowledged is in it, and the newest checkpoint holds.
    #[test]
    fn an_honest_log_is_never_taken_for_a_forged_one(
        seed: u64,
        faults in (0u32..20, 0u32..40, 0u32..30, 0u32..30, 0u32..30, 0u32..30),
        rounds in proptest::collection::vec(
            (proptest::collection::vec(1u8..60, 1..6), 0u8..6), 1..14),
    ) {
        let storage = Faulty::new(seed);
        let mut log = open_signed(&storage, 9_000).unwrap();
        let mut acknowledged = Vec::new();
        for (numbers, then) in &rounds {
            let (append_fails, append_short, sync_fails, create_fails, remove_fails, directory_fails) = faults;
            storage.set(Faults {
                append_fails, append_short, sync_fails, create_fails, remove_fails, directory_fails,
                ..Faults::default()
            });
            let batch: Vec<Pending> = numbers.iter().map(|n| event(*n)).collect();
            for (answer, (id, _)) in log.append(&batch).iter().zip(&batch) {
                if answer.is_ok() {
                    acknowledged.push(*id);
                }
            }
            match then {
                2 => drop(log.rotate(SegmentCause::Command)),
                3 => drop(log.checkpoint()),
                _ => log.checkpoint_if_due(),
            }
            storage.set(Faults::default());
            match then {
                0 => drop(log),
                1 => {
                    drop(log);
                    storage.crash();
                }
                _ => continue,
            }
            log = open_signed(&storage, 9_000).unwrap();
        }
        drop(log);
        storage.crash();
        let mut log = open_signed(&storage, 9_000).unwrap();
        check(&storage, &acknowledged);
        log.checkpoint().unwrap();
        prop_assert!(judged(&storage).vouched.is_some());
    }
}
