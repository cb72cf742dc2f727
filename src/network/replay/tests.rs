use super::*;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use std::collections::HashSet;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn author(n: u32) -> PeerId {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    PeerId::from(&SigningKey::from_bytes(&seed).verifying_key())
}

fn numbers(first: u64, count: u32, sent: Timestamp) -> Numbers {
    Numbers { first, count, sent }
}

/// A mark that is written at once.
fn mark(now: Timestamp) -> Mark {
    let mut mark = Mark::default();
    mark.due(now, Duration::ZERO).unwrap();
    mark.written(true);
    mark
}

/// As an envelope is admitted at that time.
fn admit(
    windows: &mut ReplayWindows,
    who: u32,
    numbers: Numbers,
    now: Timestamp,
    mark: &mut Mark,
) -> Result<bool, Stale> {
    windows.admit(author(who), numbers, (now, Duration::ZERO), mark)
}

/// As an envelope of a member passes.
fn pass(
    windows: &mut ReplayWindows,
    who: u32,
    numbers: Numbers,
    now: Timestamp,
) -> Result<(), Stale> {
    let mut mark = mark(now.max(numbers.sent));
    if admit(windows, who, numbers, now, &mut mark)? {
        return Ok(());
    }
    windows.take(author(who), numbers, now, false)
}

#[test]
fn what_is_too_old_or_from_the_future_is_stale() {
    let mut windows = ReplayWindows::default();
    for secs in [1_800_000_000 - 301, 1_800_000_000 + 301] {
        let late = numbers(1, 1, Timestamp::from_secs(secs));
        assert_eq!(pass(&mut windows, 1, late, NOW), Err(Stale::Time));
    }
    let fresh = numbers(1, 1, Timestamp::from_secs(1_800_000_000 - 299));
    assert_eq!(pass(&mut windows, 1, fresh, NOW), Ok(()));
    assert_eq!(pass(&mut windows, 1, fresh, NOW), Err(Stale::Replayed));
    assert_eq!(
        pass(&mut windows, 2, fresh, NOW),
        Ok(()),
        "authors are apart"
    );
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let mut windows = ReplayWindows::default();
    let mut pass = |first, count| pass(&mut windows, 1, numbers(first, count, NOW), NOW);
    assert_eq!(pass(100, 10), Ok(()));
    for (first, count) in [(95, 6), (109, 5), (103, 1), (90, 30), (100, 10)] {
        assert_eq!(pass(first, count), Err(Stale::Replayed), "{first} {count}");
    }
    // What was refused took nothing.
    assert_eq!(pass(110, 4), Ok(()));
    assert_eq!(pass(95, 5), Ok(()));
    assert_eq!(pass(u64::MAX, 1), Err(Stale::Replayed), "no such number");
}

#[test]
fn what_the_disk_does_not_know_is_not_taken() {
    let mut windows = ReplayWindows::default();
    let ahead = numbers(1, 1, NOW.after(RESERVE).after(Duration::from_millis(1)));
    let late = admit(&mut windows, 1, ahead, NOW, &mut mark(NOW));
    assert_eq!(late, Err(Stale::Ahead));
    let mut failing = Mark::default();
    assert!(failing.due(NOW, Duration::ZERO).is_some());
    assert!(
        failing.due(NOW, MARK_EVERY * 3).is_none(),
        "one write at a time"
    );
    failing.written(false);
    let fresh = numbers(1, 1, NOW);
    assert_eq!(
        admit(&mut windows, 1, fresh, NOW, &mut failing),
        Err(Stale::Ahead)
    );
    assert!(failing.due(NOW, MARK_EVERY).is_some(), "tried again");
    failing.written(true);
    assert_eq!(admit(&mut windows, 1, fresh, NOW, &mut failing), Ok(false));
    failing.close();
    assert_eq!(
        admit(&mut windows, 1, fresh, NOW, &mut failing),
        Err(Stale::Ahead)
    );
    assert!(failing.due(NOW, MARK_EVERY * 9).is_none());
}

#[test]
fn an_author_whose_clock_is_ahead_gets_a_mark_of_its_own() {
    let mut windows = ReplayWindows::default();
    let mut mark = mark(NOW);
    let ahead = Duration::from_secs(100);
    let mut elapsed = Duration::ZERO;
    let mut at = |mark: &mut Mark, elapsed: Duration, first| {
        let now = NOW.after(elapsed);
        let numbers = numbers(first, 1, now.after(ahead));
        windows
            .admit(author(1), numbers, (now, elapsed), mark)
            .is_ok()
    };
    assert!(!at(&mut mark, elapsed, 1), "the disk does not know yet");
    for first in 2..200 {
        elapsed += MARK_EVERY;
        let writing = mark.due(NOW.after(elapsed), elapsed).unwrap();
        assert_eq!(
            writing.own,
            [(author(1), NOW.after(elapsed + ahead + RESERVE))]
        );
        mark.written(true);
        // Also after a silence.
        assert!(first % 50 != 0 || at(&mut mark, elapsed, first));
    }
    elapsed += Duration::from_secs(601);
    assert_eq!(
        mark.due(NOW.after(elapsed), elapsed).unwrap().gone,
        [author(1)]
    );
}

#[test]
fn strangers_crowd_out_strangers_alone() {
    let mut windows = ReplayWindows::default();
    let first = numbers(1, 1, NOW);
    assert_eq!(windows.take(author(0), first, NOW, false), Ok(()));
    for n in 1..=u32::try_from(MAX_STRANGERS).unwrap() + 1 {
        let later = NOW.after(Duration::from_millis(n.into()));
        let sent = numbers(1, 1, later);
        assert_eq!(windows.take(author(n), sent, later, true), Ok(()));
    }
    assert_eq!(windows.strangers.authors.len(), MAX_STRANGERS);
    let again = windows.take(
        author(1),
        numbers(1, 1, NOW.after(Duration::from_millis(1))),
        NOW,
        true,
    );
    assert_eq!(again, Err(Stale::Replayed), "forgotten, and yet stale");
    assert_eq!(pass(&mut windows, 0, first, NOW), Err(Stale::Replayed));
    assert_eq!(pass(&mut windows, 0, numbers(2, 1, NOW), NOW), Ok(()));
}

proptest! {
    /// No number is taken twice; what is taken is taken whole; one author's envelopes in any
    /// order within the bound on ranges are all taken once.
    #[test]
    fn each_number_at_most_once(
        ranges in proptest::collection::vec((1000_u64..1400, 1_u32..20), 1..60),
    ) {
        let mut windows = ReplayWindows::default();
        let mut taken = HashSet::new();
        for (first, count) in ranges {
            let all: Vec<u64> = (first..first + u64::from(count)).collect();
            let fresh = pass(&mut windows, 1, numbers(first, count, NOW), NOW).is_ok();
            let expected = all.iter().all(|number| !taken.contains(number));
            prop_assert_eq!(fresh, expected, "{} {}", first, count);
            if fresh {
                taken.extend(all);
            }
            let ranges = &windows.members.authors[&author(1)].ranges;
            prop_assert!(ranges.iter().all(|(from, until)| from < until));
            prop_assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0), "{:?}", ranges);
        }
    }

    /// With gaps without end the memory stays bounded, and nothing is taken twice.
    #[test]
    fn gaps_are_closed_from_below(gaps in proptest::collection::vec(2_u64..9, 65..200)) {
        let mut windows = ReplayWindows::default();
        let (mut at, mut all) = (1000, Vec::new());
        for gap in gaps {
            at += gap;
            all.push(at);
            prop_assert_eq!(pass(&mut windows, 1, numbers(at, 1, NOW), NOW), Ok(()));
        }
        prop_assert!(windows.members.authors[&author(1)].ranges.len() <= MAX_RANGES);
        for number in all {
            prop_assert_eq!(
                pass(&mut windows, 1, numbers(number, 1, NOW), NOW),
                Err(Stale::Replayed)
            );
        }
    }

    /// Whatever is taken, and whenever the process dies, nothing is taken again afterwards.
    #[test]
    fn nothing_is_taken_again_after_a_restart(
        steps in proptest::collection::vec((0_u32..3, 0_u64..4_000, -60_000_i64..60_000, any::<bool>()), 1..60),
        orderly: bool,
    ) {
        let mut windows = ReplayWindows::default();
        let mut mark = Mark::default();
        // What lies on the disk.
        let mut disk = Floors::default();
        let (mut now, mut elapsed) = (NOW, Duration::ZERO);
        let mut taken = Vec::new();
        for (sequence, (who, wait, skew, durable)) in (1000..).zip(steps) {
            now = now.after(Duration::from_millis(wait));
            elapsed += Duration::from_millis(wait);
            if let Some(writing) = mark.due(now, elapsed) {
                if durable {
                    disk.raise_all(writing.until);
                    for (author, until) in writing.own {
                        disk.raise(author, until);
                    }
                }
                mark.written(durable);
            }
            let sent = Timestamp::from_millis(now.millis().saturating_add_signed(skew));
            let numbers = numbers(sequence, 1, sent);
            let admitted = windows.admit(author(who), numbers, (now, elapsed), &mut mark);
            let passed = match admitted {
                Ok(true) => true,
                Ok(false) => windows.take(author(who), numbers, now, who == 2).is_ok(),
                Err(_) => false,
            };
            if passed {
                taken.push((who, numbers));
            }
        }
        if orderly {
            disk = windows.floors(now);
        }
        let mut after = ReplayWindows::after(disk);
        for (who, numbers) in taken {
            prop_assert!(pass(&mut after, who, numbers, now).is_err());
        }
    }
}
