//! Tampering: whatever is done to a log is found, with its file, its line and its kind; and what
//! a log alone cannot show is written down here as well.

mod tamper;

use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    audit::{
        AuditEvent, Log, LogOptions,
        record::SegmentCause,
        storage::faulty::{Faults, Faulty},
    },
    types::{ManualClock, Timestamp},
};

/// Damage as a test names it: the segment's number, the line, the kind.
type Place = (u64, u64, Damage);

fn open(storage: &Faulty) -> Log {
    let options = LogOptions {
        segment_size: 3_000,
        remembered_ids: 64,
        version: "test".to_owned(),
        clock: std::sync::Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        checkpoints: None,
    };
    Log::open(std::sync::Arc::new(storage.clone()), options).unwrap()
}

fn append(log: &mut Log, n: u8) {
    let event = AuditEvent::NodeStopping {
        reason: format!("number {n}"),
    };
    assert!(log.append(&[(EventId([n; 16]), event)])[0].is_ok());
}

/// Four segments; the first three have at least three lines after their heads.
fn small_log() -> Faulty {
    let storage = Faulty::new(1);
    let mut log = open(&storage);
    for n in 1..=14 {
        append(&mut log, n);
    }
    drop(log);
    let report = verify(&storage).unwrap();
    assert!(report.is_intact() && report.torn_bytes == 0, "{report:?}");
    let sizes: Vec<usize> = numbers(&storage)
        .map(|n| lines(&storage, n).len())
        .collect();
    assert!(
        sizes.len() >= 4 && sizes[..3].iter().all(|n| *n >= 4),
        "{sizes:?}"
    );
    storage
}

fn numbers(storage: &Faulty) -> impl Iterator<Item = u64> + use<> {
    segments(storage).unwrap().into_iter()
}

/// A segment's lines, each with its newline.
fn lines(storage: &Faulty, number: u64) -> Vec<Vec<u8>> {
    let bytes = storage.bytes(&segment_name(number));
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

fn put(storage: &Faulty, number: u64, lines: &[Vec<u8>]) {
    storage.put(&segment_name(number), &lines.concat());
}

/// Changes the lines of a segment.
fn edit(storage: &Faulty, number: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut changed = lines(storage, number);
    change(&mut changed);
    put(storage, number, &changed);
}

fn found(storage: &Faulty) -> Vec<Place> {
    let report = verify(storage).unwrap();
    assert_eq!(report.damaged, report.findings.len() as u64);
    let number = |file: &str| crate::audit::segment_number(file).unwrap();
    let place = |found: &Finding| (number(&found.file), found.line, found.damage);
    report.findings.iter().map(place).collect()
}

/// Seals a line anew after a change, written from the reference and not from the code.
fn seal_again(line: &[u8]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(line).unwrap();
    let attestation = value.pointer_mut("/attestation_list/0").unwrap();
    attestation.as_object_mut().unwrap().remove("fingerprint");
    let bare = serde_json_canonicalizer::to_vec(&value).unwrap();
    let digest = hex::encode(Sha256::digest(&bare));
    value["attestation_list"][0]["fingerprint"] =
        serde_json::json!({"algorithm_id": 3, "value": digest});
    let mut sealed = serde_json_canonicalizer::to_vec(&value).unwrap();
    sealed.push(b'\n');
    sealed
}

/// One bit at every seventh byte of every segment: the line is named.
#[test]
fn a_flipped_bit_is_found_where_it_is() {
    let storage = small_log();
    let last = numbers(&storage).last().unwrap();
    for number in numbers(&storage) {
        let name = segment_name(number);
        let bytes = storage.bytes(&name);
        let newlines = (0..bytes.len()).filter(|at| bytes[*at] == b'\n');
        for at in (0..bytes.len()).step_by(7).chain(newlines) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 7);
            storage.put(&name, &changed);
            if number == last && at == bytes.len() - 1 {
                // Looks as if a crash had cut the newline off: said, and no damage.
                assert!(verify(&storage).unwrap().torn_bytes > 0);
                continue;
            }
            let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            let places = found(&storage);
            let (file, first, damage) = places[0];
            assert_eq!((file, first), (number, line), "bit {at}: {places:?}");
            let kinds = [Damage::Altered, Damage::Malformed, Damage::TornInside];
            assert!(kinds.contains(&damage), "bit {at}: {places:?}");
            // The damage is not smeared over the lines that follow.
            assert!(places.len() <= 3, "bit {at}: {places:?}");
        }
        storage.put(&name, &bytes);
    }
    assert!(verify(&storage).unwrap().is_intact());
}

#[test]
fn a_deleted_line_is_a_gap() {
    for at in 1..3 {
        let storage = small_log();
        edit(&storage, 2, |lines| drop(lines.remove(at)));
        assert_eq!(found(&storage), [(2, at as u64 + 1, Damage::Gap)]);
    }
    let storage = small_log();
    edit(&storage, 2, |lines| drop(lines.pop()));
    assert_eq!(
        found(&storage),
        [(3, 1, Damage::Gap)],
        "the last of a segment"
    );
    let storage = small_log();
    edit(&storage, 2, |lines| drop(lines.remove(0)));
    assert_eq!(
        found(&storage)[0],
        (2, 1, Damage::WrongSegment),
        "the first"
    );
}

#[test]
fn a_repeated_line_is_found() {
    for at in 1..4 {
        let storage = small_log();
        edit(&storage, 2, |lines| lines.insert(at, lines[at].clone()));
        let line = at as u64 + 2;
        assert_eq!(found(&storage), [(2, line, Damage::Repeated)]);
    }
    let storage = small_log();
    edit(&storage, 2, |lines| lines.insert(0, lines[0].clone()));
    assert_eq!(found(&storage), [(2, 2, Damage::WrongSegment)]);
    let storage = small_log();
    let foreign = lines(&storage, 1)[2].clone();
    edit(&storage, 3, |lines| lines.insert(2, foreign));
    assert_eq!(
        found(&storage)[0],
        (3, 3, Damage::Repeated),
        "of another segment"
    );
}

#[test]
fn swapped_lines_are_found() {
    let storage = small_log();
    edit(&storage, 2, |lines| lines.swap(1, 2));
    let expected = [(2, 2, Damage::Gap), (2, 3, Damage::Repeated)];
    assert_eq!(found(&storage)[..2], expected);
    let storage = small_log();
    edit(&storage, 2, |lines| lines.swap(0, 1));
    assert_eq!(found(&storage)[0], (2, 1, Damage::WrongSegment));
}

/// Whoever changes a line and seals it anew breaks the chain at the line after it.
#[test]
fn a_line_sealed_anew_breaks_the_chain() {
    let storage = small_log();
    assert_eq!(seal_again(&lines(&storage, 1)[1]), lines(&storage, 1)[1]);
    for (number, next) in [(1, (1, 3)), (2, (2, 3))] {
        let storage = small_log();
        edit(&storage, number, |lines| {
            let text = String::from_utf8(lines[1].clone()).unwrap();
            lines[1] = seal_again(text.replace("number", "NUMBER").as_bytes());
        });
        assert_eq!(found(&storage), [(next.0, next.1, Damage::ChainBroken)]);
    }
    let storage = small_log();
    edit(&storage, 1, |lines| {
        let last = lines.last_mut().unwrap();
        let text = String::from_utf8(last.clone()).unwrap();
        *last = seal_again(text.replace("number", "NUMBER").as_bytes());
    });
    assert_eq!(
        found(&storage),
        [(2, 1, Damage::ChainBroken)],
        "over segments"
    );
}

/// A first line sealed anew, to tell another history: it contradicts itself or the chain.
#[test]
fn a_first_line_sealed_anew_is_found() {
    let other = "0".repeat(64);
    for (field, value) in [
        ("head", serde_json::json!(other)),
        ("number", 9.into()),
        ("size", 0.into()),
    ] {
        let storage = small_log();
        edit(&storage, 3, |lines| {
            let mut line: Value = serde_json::from_slice(&lines[0]).unwrap();
            line["unmapped"]["segment"][field] = value.clone();
            lines[0] = seal_again(line.to_string().as_bytes());
        });
        assert_eq!(found(&storage)[0], (3, 1, Damage::WrongSegment), "{field}");
    }
}

/// The line with another sequence, its seal left as it was.
fn claiming(line: &[u8], sequence: u64) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(line).unwrap();
    value["metadata"]["sequence"] = sequence.into();
    let mut changed = serde_json::to_vec(&value).unwrap();
    changed.push(b'\n');
    changed
}

/// A sequence near the end of the numbers must not hide the lines that follow it.
#[test]
fn an_absurd_sequence_hides_nothing() {
    // RFC 8785 carries no integer beyond 2^53 exactly, so a sealed line cannot go further.
    for (sealed, sequence) in [(false, u64::MAX), (true, (1 << 53) - 1)] {
        let storage = small_log();
        edit(&storage, 2, |lines| {
            lines[1] = claiming(&lines[1], sequence);
            if sealed {
                lines[1] = seal_again(&lines[1]);
            }
            lines[3] = b"{}\n".to_vec();
        });
        let places = found(&storage);
        let damage = if sealed { Damage::Gap } else { Damage::Altered };
        assert_eq!(places[0], (2, 2, damage), "{places:?}");
        assert!(places.contains(&(2, 4, Damage::Malformed)), "{places:?}");
        assert_eq!(verify(&storage).unwrap().set_aside, 0);
    }
}

#[test]
fn a_removed_segment_is_named_the_oldest_too() {
    for number in [1, 2] {
        let storage = small_log();
        storage.detach(&segment_name(number));
        assert_eq!(found(&storage), [(number, 0, Damage::MissingSegment)]);
    }
}

#[test]
fn swapped_segments_are_found() {
    let storage = small_log();
    let (two, three) = (lines(&storage, 2), lines(&storage, 3));
    put(&storage, 2, &three);
    put(&storage, 3, &two);
    let places = found(&storage);
    assert_eq!(places[0], (2, 1, Damage::WrongSegment));
    assert!(places.contains(&(3, 1, Damage::WrongSegment)), "{places:?}");
}

/// An inner segment cut at any seventh byte; at the end of a line too.
#[test]
fn a_segment_cut_short_is_found() {
    let storage = small_log();
    let name = segment_name(2);
    let bytes = storage.bytes(&name);
    let ends = (1..bytes.len()).filter(|at| bytes[at - 1] == b'\n');
    for at in (0..bytes.len()).step_by(7).chain(ends) {
        storage.put(&name, &bytes[..at]);
        let whole = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
        let expected = if bytes[..at].last().is_none_or(|byte| *byte == b'\n') {
            vec![(3, 1, Damage::Gap)]
        } else {
            vec![(2, whole + 1, Damage::TornInside), (3, 1, Damage::Gap)]
        };
        assert_eq!(found(&storage), expected, "cut at {at}");
    }
}

#[test]
fn lines_that_are_no_records_are_found_and_read_past() {
    let long = [vec![b' '; MAX_LINE + 1], b"\n".to_vec()].concat();
    let barely = [vec![b' '; MAX_LINE], b"\n".to_vec()].concat();
    for (foreign, damage) in [
        (long, Damage::TooLong),
        (barely, Damage::Malformed),
        (vec![b'\n'], Damage::Malformed),
        (b"\xff\x00\n".to_vec(), Damage::Malformed),
        (b"{\"a\":1}\n".to_vec(), Damage::Malformed),
    ] {
        let storage = small_log();
        let before = verify(&storage).unwrap().records;
        edit(&storage, 2, |lines| lines.insert(2, foreign));
        assert_eq!(found(&storage), [(2, 3, damage)]);
        assert_eq!(verify(&storage).unwrap().records, before);
    }
}

#[test]
fn findings_are_bounded_and_all_are_counted() {
    let storage = small_log();
    edit(&storage, 2, |lines| {
        lines.extend(std::iter::repeat_n(b"{}\n".to_vec(), 1_500));
    });
    let report = verify(&storage).unwrap();
    assert_eq!(
        (report.findings.len(), report.damaged),
        (MAX_FINDINGS, 1_500)
    );
}

/// What a crash leaves is said, and is no damage.
#[test]
fn a_torn_tail_is_no_damage() {
    let storage = small_log();
    let last = numbers(&storage).last().unwrap();
    let whole = lines(&storage, last);
    let tail = whole.last().unwrap().len();
    for kept in 1..tail {
        edit(&storage, last, |lines| {
            *lines = whole.clone();
            lines.last_mut().unwrap().truncate(kept);
        });
        let report = verify(&storage).unwrap();
        assert!(report.is_intact());
        assert_eq!(report.torn_bytes, kept as u64);
    }
}

/// What the log alone cannot show, as the reference says: the newest lines or segments cut off,
/// a whole chain written anew.
#[test]
fn what_verification_cannot_show() {
    let storage = small_log();
    let last = numbers(&storage).last().unwrap();
    edit(&storage, last, |lines| drop(lines.pop()));
    assert_eq!(found(&storage), []);
    storage.detach(&segment_name(last));
    assert_eq!(found(&storage), []);
}

/// Two records that count, one that a later segment sets aside, and that segment.
fn log_with_a_line_set_aside() -> Faulty {
    let storage = Faulty::new(1);
    let mut log = open(&storage);
    append(&mut log, 1);
    append(&mut log, 2);
    // The next sync fails (the append is call 0, the sync is call 1), and its remains cannot be
    // cut off.
    storage.set(Faults {
        at: Some(1),
        truncate_fails: 100,
        ..Faults::default()
    });
    append(&mut log, 3);
    append(&mut log, 4);
    assert_eq!(log.segment(), segment_name(2));
    storage
}

#[test]
fn lines_set_aside_are_counted_and_not_judged() {
    let storage = log_with_a_line_set_aside();
    let report = verify(&storage).unwrap();
    assert!(report.is_intact(), "{:#?}", report.findings);
    assert_eq!((report.records, report.set_aside), (6, 1));
    edit(&storage, 1, |lines| lines[3] = b"anything\n".to_vec());
    assert_eq!(found(&storage), []);
}

/// A segment that could not be begun may be gone, and so may its successor's lines; one that held
/// records may not.
#[test]
fn a_segment_is_missed_only_when_it_held_what_counts() {
    let storage = log_with_a_line_set_aside();
    let (two, three) = (segment_name(2), segment_name(3));
    let mut log = open(&storage);
    storage.set(Faults {
        directory_fails: 100,
        remove_fails: 100,
        ..Faults::default()
    });
    assert!(log.rotate(SegmentCause::Command).is_err());
    assert!(log.rotate(SegmentCause::Command).is_err());
    storage.set(Faults::default());
    append(&mut log, 5);
    assert_eq!(log.segment(), segment_name(5));
    drop(log);
    assert_eq!(found(&storage), []);
    storage.detach(&three);
    assert_eq!(found(&storage), [], "segment 4 is still there, and empty");
    storage.detach(&two);
    assert_eq!(found(&storage)[0], (2, 0, Damage::MissingSegment));
}

/// Those before them are judged, also when an altered line claims to be far beyond.
#[test]
fn lines_that_count_cannot_be_put_aside() {
    let storage = log_with_a_line_set_aside();
    edit(&storage, 1, |lines| {
        lines[1] = claiming(&lines[1], 1_000);
        lines[2] = b"anything\n".to_vec();
    });
    let places = found(&storage);
    assert_eq!(places[0], (1, 2, Damage::Altered), "{places:?}");
    assert!(places.contains(&(1, 3, Damage::Malformed)), "{places:?}");
}

proptest! {
    /// Any bytes of any segment replaced by any others: found, unless it only took away from the
    /// log's very end.
    #[test]
    fn no_edit_goes_unseen(
        segment: prop::sample::Index,
        (from, to) in any::<(prop::sample::Index, prop::sample::Index)>(),
        new in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..80)],
    ) {
        let storage = small_log();
        let all: Vec<u64> = numbers(&storage).collect();
        let number = *segment.get(&all);
        let old = storage.bytes(&segment_name(number));
        let (a, b) = (from.index(old.len() + 1), to.index(old.len() + 1));
        let mut changed = old.clone();
        changed.splice(a.min(b)..a.max(b), new);
        prop_assume!(changed != old);
        storage.put(&segment_name(number), &changed);
        let whole = changed.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = Some(&number) == all.last();
        let end_only = last && old.starts_with(&changed[..whole]);
        let report = verify(&storage).unwrap();
        prop_assert_eq!(report.is_intact(), end_only, "{:?}", report.findings);
        prop_assert_eq!(report.torn_bytes > 0, last && whole < changed.len());
    }
}
