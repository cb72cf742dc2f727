//! The log over a storage that fails from below: nothing acknowledged is ever missing or twice.

mod checkpoints;
mod power;

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::{
    audit::{
        storage::faulty::{Call, Faults, Faulty},
        verify,
    },
    types::{ManualClock, Timestamp},
};

fn options(segment_size: u64) -> LogOptions {
    LogOptions {
        segment_size,
        remembered_ids: 64,
        version: "test".to_owned(),
        clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        checkpoints: None,
    }
}

fn open(storage: &Faulty, segment_size: u64) -> Result<Log, OpenError> {
    Log::open(Arc::new(storage.clone()), options(segment_size))
}

fn event(n: u8) -> Pending {
    let mut id = [0; 16];
    id[0] = n;
    (
        EventId(id),
        AuditEvent::NodeStopping {
            reason: format!("number {n}"),
        },
    )
}

/// Ids of the records that count.
fn recorded(storage: &Faulty) -> Vec<EventId> {
    let mut ids = Vec::new();
    let report = verify::for_each_record(storage, |entry, _| ids.push(entry.id)).expect("readable");
    assert!(report.is_intact(), "{:#?}", report.findings);
    ids
}

#[test]
fn records_are_chained_and_repeats_recognised() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    let first = log.append(&[event(1), event(2), event(1)]);
    assert_eq!(
        first[0],
        Ok(Recorded {
            sequence: 1,
            repeated: false
        })
    );
    assert_eq!(
        first[1],
        Ok(Recorded {
            sequence: 2,
            repeated: false
        })
    );
    assert_eq!(
        first[2],
        Ok(Recorded {
            sequence: 1,
            repeated: true
        })
    );
    drop(log);
    let mut log = open(&storage, 1 << 20).unwrap();
    assert_eq!(
        log.append(&[event(2)])[0],
        Ok(Recorded {
            sequence: 2,
            repeated: true
        })
    );
    assert_eq!(
        log.append(&[event(3)])[0],
        Ok(Recorded {
            sequence: 3,
            repeated: false
        })
    );
    assert_eq!(recorded(&storage).len(), 4);
}

#[test]
fn an_answer_comes_only_after_the_sync() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    let before = storage.calls().len();
    log.append(&[event(1), event(2)]);
    storage.note(Call::Answer);
    let calls = storage.calls();
    assert!(
        matches!(calls[before..], [Call::Append(_), Call::Sync, Call::Answer]),
        "{calls:?}"
    );
    storage.crash();
    drop(log);
    open(&storage, 1 << 20).unwrap();
    assert_eq!(recorded(&storage)[1..3], [event(1).0, event(2).0]);
}

#[test]
fn two_writers_are_refused() {
    let storage = Faulty::new(1);
    let _log = open(&storage, 1 << 20).unwrap();
    assert!(matches!(open(&storage, 1 << 20), Err(OpenError::Locked(_))));
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    assert!(log.append(&[event(1)])[0].is_ok());
    storage.set(Faults {
        space: Some(100),
        ..Faults::default()
    });
    assert_eq!(log.append(&[event(2)])[0], Err(AuditFault::DiskFull));
    assert_eq!(
        log.append(&[event(1)])[0],
        Ok(Recorded {
            sequence: 1,
            repeated: true
        })
    );
    storage.set(Faults::default());
    assert_eq!(
        log.append(&[event(2)])[0],
        Ok(Recorded {
            sequence: 2,
            repeated: false
        })
    );
    assert_eq!(recorded(&storage).len(), 3);
}

#[test]
fn segments_rotate_by_size_and_the_chain_goes_on() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 2_000).unwrap();
    for n in 1..=20 {
        assert!(log.append(&[event(n)])[0].is_ok());
    }
    assert!(
        storage
            .names()
            .iter()
            .filter(|n| segment_number_of(n))
            .count()
            > 3
    );
    assert_eq!(
        log.append(&[event(3)])[0].clone().unwrap().sequence,
        3 + extra(&storage, 3)
    );
    recorded(&storage);
}

fn segment_number_of(name: &str) -> bool {
    super::super::segment_number(name).is_some()
}

/// Segment heads before the record of `event(n)`.
fn extra(storage: &Faulty, n: u8) -> u64 {
    let ids = recorded(storage);
    let place = ids.iter().position(|id| *id == event(n).0).unwrap();
    place as u64 - u64::from(n)
}

#[test]
fn a_segment_removed_under_the_writer_is_noticed() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    storage.detach("00000001.jsonl");
    assert!(log.append(&[event(2)])[0].is_ok());
    assert_eq!(log.segment(), "00000002.jsonl");
}

#[test]
fn a_line_torn_at_any_byte_is_set_aside_and_nothing_else_is_lost() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    log.append(&[event(1)]);
    drop(log);
    let whole = storage.bytes("00000001.jsonl");
    let mut log = open(&storage, 1 << 20).unwrap();
    log.append(&[event(2)]);
    drop(log);
    let longer = storage.bytes("00000001.jsonl");
    for cut in whole.len() + 1..longer.len() {
        let storage = Faulty::new(2);
        storage.put("00000001.jsonl", &longer[..cut]);
        drop(open(&storage, 1 << 20).unwrap());
        let torn = storage.bytes("00000001.jsonl.torn");
        assert_eq!(torn, &longer[whole.len()..cut]);
        let ids = recorded(&storage);
        assert_eq!(ids[1], event(1).0);
        assert!(!ids.contains(&event(2).0));
        assert_eq!(ids.len(), 3, "the repair is on record");
    }
}

#[test]
fn a_whole_line_that_was_altered_stops_the_start() {
    let storage = Faulty::new(1);
    let mut log = open(&storage, 1 << 20).unwrap();
    log.append(&[event(1), event(2), event(3)]);
    drop(log);
    let text = String::from_utf8(storage.bytes("00000001.jsonl")).unwrap();
    storage.put(
        "00000001.jsonl",
        text.replace("number 2", "number 9").as_bytes(),
    );
    match open(&storage, 1 << 20) {
        Err(OpenError::Damaged(finding)) => {
            assert_eq!((finding.line, finding.sequence), (3, 2));
            assert_eq!(finding.damage, verify::Damage::Altered);
        }
        other => panic!("opened: {:?}", other.map(|_| ())),
    }
}

/// Each call to the storage fails in turn: what was acknowledged is there, once, and the log
/// goes on.
#[test]
fn each_call_fails_in_turn() {
    let (mut at, mut calls) = (0, 1);
    while at < calls {
        let storage = Faulty::new(7);
        let mut log = open(&storage, 1_500).unwrap();
        storage.set(Faults {
            at: Some(at),
            ..Faults::default()
        });
        let mut acknowledged = Vec::new();
        for n in 1..=12 {
            if log.append(&[event(n)])[0].is_ok() {
                acknowledged.push(event(n).0);
            }
        }
        calls = storage.faulty_calls();
        storage.set(Faults::default());
        assert!(
            log.append(&[event(99)])[0].is_ok(),
            "the log goes on after call {at} failed"
        );
        acknowledged.push(event(99).0);
        drop(log);
        check(&storage, &acknowledged);
        at += 1;
    }
    assert!(calls > 30, "only {calls} calls were made to fail");
}

fn check(storage: &Faulty, acknowledged: &[EventId]) {
    let ids = recorded(storage);
    let unique: HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "a record stands twice");
    for id in acknowledged {
        assert!(
            unique.contains(id),
            "an acknowledged record is missing: {id}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any mixture of short writes, failed writes, syncs, creates and truncates, with restarts.
    #[test]
    fn nothing_acknowledged_is_missing_or_twice(
        seed: u64,
        faults in (0u32..15, 0u32..40, 0u32..15, 0u32..15, 0u32..10),
        rounds in proptest::collection::vec(proptest::collection::vec(1u8..60, 1..8), 1..12),
    ) {
        let storage = Faulty::new(seed);
        let mut log = open(&storage, 3_000).unwrap();
        let mut acknowledged = Vec::new();
        for (i, round) in rounds.iter().enumerate() {
            let (append_fails, append_short, sync_fails, create_fails, truncate_fails) = faults;
            storage.set(Faults {
                append_fails, append_short, sync_fails, create_fails, truncate_fails,
                ..Faults::default()
            });
            let batch: Vec<Pending> = round.iter().map(|n| event(*n)).collect();
            for (answer, (id, _)) in log.append(&batch).iter().zip(&batch) {
                if answer.is_ok() {
                    acknowledged.push(*id);
                }
            }
            storage.set(Faults::default());
            if i % 3 == 2 {
                // The process dies; what the kernel has, it keeps.
                drop(log);
                log = open(&storage, 3_000).unwrap();
            }
        }
        drop(log);
        check(&storage, &acknowledged);
    }
}
