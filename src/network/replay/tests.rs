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
    let clocks = (now, Duration::ZERO);
    windows.take((author(who), false), numbers, clocks, &mut mark)
}

/// As an envelope of an author of that kind is taken, with a disk that knows everything.
fn take(
    windows: &mut ReplayWindows,
    who: Who,
    numbers: Numbers,
    now: Timestamp,
) -> Result<(), Stale> {
    let mut mark = mark(now.max(numbers.sent));
    windows.take(who, numbers, (now, Duration::ZERO), &mut mark)
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
    let clocks = (NOW, Duration::ZERO);
    let mut of = |mark: &mut Mark, numbers| windows.take((author(1), false), numbers, clocks, mark);
    assert_eq!(of(&mut mark(NOW), ahead), Err(Stale::Ahead));
    let mut failing = Mark::default();
    assert!(failing.due(NOW, Duration::ZERO).is_some());
    assert!(
        failing.due(NOW, MARK_EVERY * 3).is_none(),
        "one write at a time"
    );
    failing.written(false);
    let fresh = numbers(1, 1, NOW);
    assert_eq!(of(&mut failing, fresh), Err(Stale::Ahead));
    assert!(failing.due(NOW, MARK_EVERY).is_some(), "tried again");
    failing.written(true);
    assert_eq!(of(&mut failing, fresh), Ok(()));
    // Those who have a window, too, and nothing of anybody once it is closed.
    let next = |first| numbers(first, 1, NOW);
    assert_eq!(
        admit(&mut windows, 1, ahead, NOW, &mut failing),
        Err(Stale::Ahead)
    );
    assert_eq!(admit(&mut windows, 1, next(2), NOW, &mut failing), Ok(true));
    failing.close();
    assert_eq!(
        admit(&mut windows, 1, next(3), NOW, &mut failing),
        Err(Stale::Ahead)
    );
    let late = windows.take((author(2), false), next(1), clocks, &mut failing);
    assert_eq!(late, Err(Stale::Ahead), "what was parked, neither");
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
        match windows.admit(author(1), numbers, (now, elapsed), mark) {
            Ok(false) => windows
                .take((author(1), false), numbers, (now, elapsed), mark)
                .is_ok(),
            admitted => admitted.is_ok(),
        }
    };
    assert!(!at(&mut mark, elapsed, 1), "the disk does not know yet");
    for first in 2..200 {
        elapsed += MARK_EVERY;
        let writing = mark.due(NOW.after(elapsed), elapsed).unwrap();
        assert_eq!(
            writing.own,
            [((author(1), false), NOW.after(elapsed + ahead + RESERVE))]
        );
        mark.written(true);
        // Also after a silence.
        assert!(first % 50 != 0 || at(&mut mark, elapsed, first));
    }
    // Everybody's mark overtakes it first.
    elapsed += Duration::from_secs(601);
    let writing = mark.due(NOW.after(elapsed), elapsed).unwrap();
    assert_eq!((writing.own, writing.gone), (vec![], vec![]));
    mark.written(true);
    elapsed += MARK_EVERY;
    assert_eq!(
        mark.due(NOW.after(elapsed), elapsed).unwrap().gone,
        [(author(1), false)]
    );
}

/// A mark of an author's own goes when everybody's has overtaken it: not by the time that passed,
/// since the clock may have stepped back meanwhile.
#[test]
fn a_mark_of_an_authors_own_stays_when_the_clock_stepped_back() {
    let mut mark = mark(NOW);
    let sent = NOW.after(MAX_AGE);
    let who = (author(1), false);
    assert!(!mark.covers(who, sent, (NOW, Duration::ZERO)));
    let mut elapsed = MARK_EVERY;
    mark.due(NOW, elapsed).unwrap();
    mark.written(true);
    assert!(mark.covers(who, sent, (NOW, elapsed)));
    let back = Timestamp::from_millis(NOW.millis() - 3_600_000);
    elapsed += Duration::from_secs(700);
    let now = back.after(elapsed);
    let writing = mark.due(now, elapsed).unwrap();
    assert_eq!((writing.gone, writing.own), (vec![], vec![]));
    mark.written(true);
    assert!(mark.covers(who, sent, (now, elapsed)), "as it was");
}

#[test]
fn strangers_whose_clocks_are_ahead_take_no_members_place() {
    let mut mark = mark(NOW);
    let (ahead, clocks) = (NOW.after(MAX_AGE), (NOW, Duration::ZERO));
    let crowd = u32::try_from(MAX_STRANGERS).unwrap();
    for n in 1..crowd {
        assert!(!mark.covers((author(n), true), ahead, clocks));
    }
    assert!(!mark.covers((author(0), false), ahead, clocks));
    let writing = mark.due(NOW, MARK_EVERY).unwrap();
    assert!(writing.own.len() < 300, "{}", writing.own.len());
    mark.written(true);
    assert!(mark.covers((author(0), false), ahead, clocks));
}

/// Whoever is not known to be somebody whose messages are taken costs no place at all.
#[test]
fn made_up_keys_get_no_marks() {
    let mut windows = ReplayWindows::default();
    let mut mark = mark(NOW);
    for n in 1..100 {
        let ahead = numbers(1, 1, NOW.after(MAX_AGE));
        assert_eq!(admit(&mut windows, n, ahead, NOW, &mut mark), Ok(false));
    }
    assert_eq!(mark.due(NOW, MARK_EVERY).unwrap().own, []);
}

#[test]
fn what_strangers_leave_closes_nothing_of_members() {
    let mut windows = ReplayWindows::default().with_room(3);
    for n in 0..9 {
        let ahead = numbers(1, 1, NOW.after(MAX_AGE));
        take(&mut windows, (author(n), true), ahead, NOW).unwrap_or(());
    }
    let mut next = ReplayWindows::after(windows.floors(NOW));
    let fresh = numbers(1, 1, NOW);
    assert_eq!(pass(&mut next, 20, fresh, NOW), Ok(()));
    assert_eq!(
        take(&mut next, (author(21), true), fresh, NOW),
        Err(Stale::Replayed)
    );
}

/// Windows and floors that are dropped while the clock is ahead close what they closed when it has
/// stepped back.
#[test]
fn what_is_forgotten_while_the_clock_is_ahead_stays_closed() {
    let mut windows = ReplayWindows::default().with_room(1);
    let old = numbers(1, 1, NOW);
    assert_eq!(pass(&mut windows, 1, old, NOW), Ok(()));
    let ahead = NOW.after(Duration::from_secs(3_600));
    let floors = windows.floors(ahead);
    assert_eq!(floors.authors().count(), 0, "too old to be kept");
    let mut next = ReplayWindows::after(floors);
    assert!(pass(&mut next, 1, old, NOW).is_err(), "the floor");
    // And its window, when another needs the place.
    assert_eq!(pass(&mut windows, 2, numbers(1, 1, ahead), ahead), Ok(()));
    assert!(pass(&mut windows, 1, old, NOW).is_err(), "the window");
}

/// An author that was crowded out gets a new window with its next message. What it sent before is
/// older than that window.
#[test]
fn a_new_window_opens_nothing_of_the_old_one() {
    let mut windows = ReplayWindows::default().with_room(1);
    let old = numbers(1, 1, NOW);
    assert_eq!(pass(&mut windows, 1, old, NOW), Ok(()));
    let later = |secs| numbers(10, 1, NOW.after(Duration::from_secs(secs)));
    assert_eq!(pass(&mut windows, 2, later(1), NOW), Ok(()));
    assert_eq!(pass(&mut windows, 1, later(2), NOW), Ok(()));
    assert_eq!(pass(&mut windows, 1, old, NOW), Err(Stale::Replayed));
}

#[test]
fn strangers_crowd_out_strangers_alone() {
    let mut windows = ReplayWindows::default();
    let first = numbers(1, 1, NOW);
    assert_eq!(take(&mut windows, (author(0), false), first, NOW), Ok(()));
    for n in 1..=u32::try_from(MAX_STRANGERS).unwrap() + 1 {
        let later = NOW.after(Duration::from_millis(n.into()));
        let sent = numbers(1, 1, later);
        assert_eq!(take(&mut windows, (author(n), true), sent, later), Ok(()));
    }
    assert_eq!(windows.strangers.authors.len(), MAX_STRANGERS);
    let again = take(
        &mut windows,
        (author(1), true),
        numbers(1, 1, NOW.after(Duration::from_millis(1))),
        NOW,
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
    fn gaps_are_closed_from_below(gaps in proptest::collection::vec(2_u64..9, 257..400)) {
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
}
