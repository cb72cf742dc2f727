//! Proofs out of a real log, over segments and set-aside lines.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    audit::{
        AuditEvent, Checkpointing, Log, LogOptions, checkpoint::log_keys, segment_name,
        storage::faulty::Faulty,
    },
    identity::NodeKey,
    types::{ManualClock, Timestamp},
};

fn key() -> NodeKey {
    NodeKey::from_seed(&[5; 32])
}

fn log(storage: &Faulty) -> Log {
    let options = LogOptions {
        segment_size: 4_000,
        remembered_ids: 64,
        version: "test".to_owned(),
        clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        checkpoints: Some(Checkpointing {
            key: key(),
            records: 1_000,
            interval: Duration::from_secs(60),
        }),
    };
    Log::open(Arc::new(storage.clone()), options).unwrap()
}

fn append(log: &mut Log, n: u8) {
    let reason = format!("number {n}");
    let answers = log.append(&[(EventId([n; 16]), AuditEvent::NodeStopping { reason })]);
    assert!(answers[0].is_ok());
}

#[test]
fn every_record_up_to_the_checkpoint_is_proved() {
    let storage = Faulty::new(1);
    let mut log = log(&storage);
    assert!(matches!(
        prove(&storage, Which::Sequence(0)),
        Err(NoProof::NoCheckpoint)
    ));
    (0..30).for_each(|n| append(&mut log, n));
    assert!(log.segment() > segment_name(3));
    log.checkpoint().unwrap();
    append(&mut log, 30);
    let kept = kept_checkpoint(&storage).unwrap().unwrap().unwrap();
    let size = kept.checkpoint().size;
    assert!(log.head().size > size);
    let keys = log_keys(key().public());
    for index in 0..size {
        let proof = prove(&storage, Which::Sequence(index)).unwrap();
        assert_eq!(proof.index, index);
        proof.verify(&keys).unwrap();
        let again = InclusionProof::read(proof.encode().as_bytes()).unwrap();
        assert_eq!(again, proof);
    }
    let by_id = prove(&storage, Which::Id(EventId([7; 16]))).unwrap();
    assert!(String::from_utf8(by_id.line).unwrap().contains("number 7"));
    // The checkpoint's own record, and what came after it.
    for late in size..log.head().size {
        assert!(matches!(
            prove(&storage, Which::Sequence(late)),
            Err(NoProof::NotCovered { .. })
        ));
    }
    for nothing in [Which::Sequence(9_999), Which::Id(EventId([99; 16]))] {
        assert!(matches!(prove(&storage, nothing), Err(NoProof::NotFound)));
    }
}

#[test]
fn a_damaged_log_proves_nothing() {
    let storage = Faulty::new(1);
    let mut log = log(&storage);
    (0..5).for_each(|n| append(&mut log, n));
    log.checkpoint().unwrap();
    let mut bytes = storage.bytes(&segment_name(1));
    let at = bytes.windows(8).position(|w| w == b"number 3").unwrap();
    bytes[at] = b'N';
    storage.put(&segment_name(1), &bytes);
    assert!(matches!(
        prove(&storage, Which::Sequence(1)),
        Err(NoProof::Damaged)
    ));
}

#[test]
fn records_are_named_by_place_or_id() {
    assert_eq!("17".parse(), Ok(Which::Sequence(17)));
    let id = "0102030405060708090a0b0c0d0e0f10";
    assert!(matches!(id.parse(), Ok(Which::Id(EventId([1, 2, ..])))));
    for wrong in ["", "-1", "first", "0x10", &id[1..]] {
        assert!(
            wrong.parse::<Which>().is_err() || wrong == &id[1..],
            "{wrong}"
        );
    }
}
