//! Failing disks together with restarts and power failures: what a reader of the page cache
//! would believe is not what the disk holds.

use proptest::prelude::*;

use super::*;

/// Says what is acknowledged now, so that a later round may only add to it.
fn append(log: &mut Log, numbers: &[u8], acknowledged: &mut Vec<EventId>) {
    let batch: Vec<Pending> = numbers.iter().map(|n| event(*n)).collect();
    for (answer, (id, _)) in log.append(&batch).iter().zip(&batch) {
        if answer.is_ok() {
            acknowledged.push(*id);
        }
    }
}

#[test]
fn what_a_failed_sync_lost_is_not_believed_after_a_restart() {
    let storage = Faulty::new(3);
    let mut log = open(&storage, 1 << 20).unwrap();
    storage.set(Faults {
        sync_fails: 100,
        create_fails: 100,
        ..Faults::default()
    });
    assert!(log.append(&[event(1)])[0].is_err());
    storage.set(Faults::default());
    drop(log);
    let mut log = open(&storage, 1 << 20).unwrap();
    let answer = log.append(&[event(1)])[0].clone().unwrap();
    assert!(!answer.repeated, "it was never durable: {answer:?}");
    storage.crash();
    drop(log);
    check(&storage, &[event(1).0]);
}

#[test]
fn a_segment_that_was_not_begun_never_shadows_what_was_acknowledged() {
    for remove_fails in [0, 100] {
        for seed in 0..20 {
            let storage = Faulty::new(seed);
            // Each record fills a segment, so that each is followed by a rotation.
            let mut log = open(&storage, 1).unwrap();
            storage.set(Faults {
                directory_fails: 100,
                remove_fails,
                ..Faults::default()
            });
            let mut acknowledged = Vec::new();
            append(&mut log, &[1], &mut acknowledged);
            append(&mut log, &[2], &mut acknowledged);
            storage.set(Faults::default());
            append(&mut log, &[3], &mut acknowledged);
            if seed % 2 == 0 {
                storage.crash();
            }
            drop(log);
            drop(open(&storage, 1 << 20).unwrap());
            check(&storage, &acknowledged);
        }
    }
}

/// As in the test before, but the process dies before it could name another segment.
#[test]
fn a_removed_segment_does_not_come_back_over_a_restarted_writers_records() {
    for seed in 0..20 {
        let storage = Faulty::new(seed);
        let mut log = open(&storage, 1).unwrap();
        storage.set(Faults {
            directory_fails: 100,
            ..Faults::default()
        });
        let mut acknowledged = Vec::new();
        append(&mut log, &[1], &mut acknowledged);
        storage.set(Faults::default());
        drop(log);
        let mut log = open(&storage, 1 << 20).unwrap();
        append(&mut log, &[2, 3], &mut acknowledged);
        storage.crash();
        drop(log);
        drop(open(&storage, 1 << 20).unwrap());
        check(&storage, &acknowledged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// As the property above it, with the power failing in between.
    #[test]
    fn nothing_acknowledged_is_missing_or_twice_when_the_power_fails(
        seed: u64,
        faults in (0u32..20, 0u32..40, 0u32..30, 0u32..30, 0u32..30, 0u32..30),
        rounds in proptest::collection::vec(
            (proptest::collection::vec(1u8..60, 1..6), 0u8..4), 1..14),
    ) {
        let storage = Faulty::new(seed);
        let mut log = open(&storage, 2_500).unwrap();
        let mut acknowledged = Vec::new();
        for (numbers, then) in &rounds {
            let (append_fails, append_short, sync_fails, create_fails, remove_fails, directory_fails) = faults;
            storage.set(Faults {
                append_fails, append_short, sync_fails, create_fails, remove_fails, directory_fails,
                ..Faults::default()
            });
            append(&mut log, numbers, &mut acknowledged);
            storage.set(Faults::default());
            match then {
                // The process dies.
                0 => drop(log),
                // The power fails.
                1 => {
                    drop(log);
                    storage.crash();
                }
                _ => continue,
            }
            log = open(&storage, 2_500).unwrap();
        }
        drop(log);
        storage.crash();
        drop(open(&storage, 2_500).unwrap());
        check(&storage, &acknowledged);
    }
}
