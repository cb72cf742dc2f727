//! The pure core against a clock of its own.

use super::*;
use proptest::prelude::*;
use retry::{Attempts, RetryBudget, RetryPolicy};

const CONFIG: Limits = Limits {
    breaker: BreakerConfig {
        failures: 3,
        window: Duration::from_secs(60),
        open: Duration::from_secs(10),
        open_max: Duration::from_secs(100),
        probes: 1,
        successes: 2,
    },
    pace: PaceConfig {
        per_second: 10.0,
        burst: 20,
        under_way: 8,
        settle: Duration::from_secs(1),
    },
    under_way: 12,
    lost_after: Duration::from_secs(60),
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn outward() -> Outward<u32> {
    Outward::new(CONFIG, 7)
}

/// One call with its end.
fn call(out: &mut Outward<u32>, outcome: Outcome, now: Duration) -> Option<Change> {
    let ticket = out.admit(1, now).unwrap();
    out.done(ticket, outcome, now).map(|(_, change)| change)
}

fn opened(out: &mut Outward<u32>, now: Duration) -> Duration {
    for _ in 0..2 {
        assert_eq!(call(out, Outcome::Failed, now), None);
    }
    match call(out, Outcome::Failed, now) {
        Some(Change::Opened(span)) => span,
        other => panic!("{other:?}"),
    }
}

fn state(out: &Outward<u32>, now: Duration) -> State {
    out.standings(now)[0].state
}

#[test]
fn it_opens_after_failures_in_a_row_and_closes_again_after_probes() {
    let mut out = outward();
    let span = opened(&mut out, secs(1));
    assert!(span >= secs(5) && span <= secs(10), "{span:?}");
    let held = out.admit(1, secs(2)).unwrap_err();
    assert_eq!(held.by, HeldBy::BreakerOpen);
    assert_eq!(held.retry_after, secs(1) + span - secs(2));
    // Another destination is not concerned.
    let other = out.admit(2, secs(2)).unwrap();
    out.done(other, Outcome::Answered, secs(2));
    // Half open: one probe at a time.
    let later = secs(1) + span;
    assert_eq!(state(&out, later), State::HalfOpen);
    let probe = out.admit(1, later).unwrap();
    assert_eq!(out.admit(1, later).unwrap_err().by, HeldBy::BreakerOpen);
    assert_eq!(out.done(probe, Outcome::Answered, later), None);
    assert_eq!(
        call(&mut out, Outcome::Answered, later),
        Some(Change::Closed)
    );
    assert_eq!(state(&out, later), State::Closed);
    // It begins from nothing: two failures do not open it.
    assert_eq!(call(&mut out, Outcome::Failed, later), None);
    assert_eq!(call(&mut out, Outcome::Failed, later), None);
    assert_eq!(state(&out, later), State::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_for_longer_up_to_the_cap() {
    let mut out = outward();
    let mut now = secs(1);
    let mut span = opened(&mut out, now);
    for full in [20, 40, 80, 100, 100] {
        now += span;
        span = match call(&mut out, Outcome::Failed, now) {
            Some(Change::Opened(span)) => span,
            other => panic!("{other:?}"),
        };
        assert!(
            span >= secs(full) / 2 && span <= secs(full),
            "{span:?} {full}"
        );
    }
}

#[test]
fn a_row_of_failures_is_broken_by_a_success_and_by_time() {
    let mut out = outward();
    let outcomes = [Outcome::Failed, Outcome::Failed, Outcome::Answered];
    for (now, outcome) in (0..20).zip(outcomes.into_iter().cycle()) {
        assert_eq!(call(&mut out, outcome, secs(now)), None);
    }
    let mut out = outward();
    for now in 0..20 {
        assert_eq!(call(&mut out, Outcome::Failed, secs(now * 61)), None);
    }
    // A destination that pushes back is alive.
    let mut out = outward();
    for now in 0..20 {
        assert_eq!(
            call(&mut out, Outcome::PushedBack(None), secs(now * 10)),
            None
        );
    }
}

#[test]
fn a_connection_that_ends_under_many_calls_is_one_failure() {
    let mut out = outward();
    let cut = |out: &mut Outward<u32>, at| {
        let tickets: Vec<_> = (0..8).map(|_| out.admit(1, at).unwrap()).collect();
        let changes = tickets
            .into_iter()
            .map(|one| out.done(one, Outcome::Cut, at));
        changes.flatten().count()
    };
    assert_eq!(cut(&mut out, secs(1)), 0);
    assert_eq!(out.standings(secs(1))[0].failures, 1);
    assert_eq!(cut(&mut out, secs(3)), 0);
    // The third in a row opens it; and one under a probe keeps it open.
    assert_eq!(cut(&mut out, secs(5)), 1);
    assert!(matches!(
        call(&mut out, Outcome::Cut, secs(15)),
        Some(Change::Opened(_))
    ));
}

#[test]
fn what_began_before_a_change_does_not_count_after_it() {
    let mut out = outward();
    let late: Vec<_> = (0..4).map(|_| out.admit(1, secs(1)).unwrap()).collect();
    let span = opened(&mut out, secs(1));
    let half_open = secs(1) + span;
    let probe = out.admit(1, half_open).unwrap();
    // Late failures do not open it again, late successes do not close it.
    for (ticket, outcome) in late.into_iter().zip([
        Outcome::Failed,
        Outcome::Answered,
        Outcome::Answered,
        Outcome::Failed,
    ]) {
        assert_eq!(out.done(ticket, outcome, half_open), None);
    }
    assert_eq!(state(&out, half_open), State::HalfOpen);
    assert_eq!(out.done(probe, Outcome::Answered, half_open), None);
    assert_eq!(
        call(&mut out, Outcome::Answered, half_open),
        Some(Change::Closed)
    );
}

#[test]
fn a_probe_that_is_never_told_the_end_of_is_taken_back() {
    let mut out = outward();
    let span = opened(&mut out, secs(1));
    let probe = out.admit(1, secs(1) + span).unwrap();
    let later = secs(1) + span + CONFIG.lost_after;
    assert!(out.watch(later - Duration::from_millis(1)).is_empty());
    let lost = out.watch(later);
    assert!(
        matches!(lost[..], [(1, Some(Change::Opened(_)))]),
        "{lost:?}"
    );
    assert_eq!(out.under_way(), 0);
    // Its end comes after all: it counts no more.
    assert_eq!(out.done(probe, Outcome::Answered, later), None);
    // And an abandoned one leaves its place to the next.
    let next = later + secs(20);
    let probe = out.admit(1, next).unwrap();
    out.done(probe, Outcome::Abandoned, next);
    assert!(out.admit(1, next).is_ok());
}

#[test]
fn calls_under_way_are_bounded_for_each_and_for_all() {
    let mut out = outward();
    let tickets: Vec<_> = (0..8).map(|_| out.admit(1, secs(1)).unwrap()).collect();
    assert_eq!(
        out.admit(1, secs(1)).unwrap_err().by,
        HeldBy::DestinationBusy
    );
    for _ in 0..4 {
        out.admit(2, secs(1)).unwrap();
    }
    assert_eq!(out.admit(3, secs(1)).unwrap_err().by, HeldBy::NodeBusy);
    out.done(tickets[0], Outcome::Answered, secs(1));
    assert!(out.admit(3, secs(1)).is_ok());
    // The watchdog frees what was forgotten: nothing silences the node for ever.
    assert_eq!(out.watch(secs(61)).len(), 12);
    assert_eq!(out.under_way(), 0);
}

#[test]
fn the_pace_is_kept_halved_by_a_push_and_regained() {
    let mut out = outward();
    let sent_in = |out: &mut Outward<u32>, from: Duration, span: Duration| {
        let mut sent = 0;
        let mut now = from;
        while now < from + span {
            if let Ok(ticket) = out.admit(1, now) {
                out.done(ticket, Outcome::Answered, now);
                sent += 1;
            }
            now += Duration::from_millis(5);
        }
        sent
    };
    // 20 at once, then 10 a second.
    assert_eq!(sent_in(&mut out, secs(100), secs(10)), 20 + 99);
    for _ in 0..5 {
        // Pushes of one moment are one push.
        out.destinations.get_mut(&1).unwrap().pace.ended(
            &CONFIG.pace,
            Outcome::PushedBack(None),
            secs(110),
        );
    }
    assert!((out.standings(secs(110))[0].pace - 5.0).abs() < 1e-9);
    sent_in(&mut out, secs(111), secs(8));
    assert!((out.standings(secs(119))[0].pace - 10.0).abs() < 1e-9);
    // A wish is kept to.
    let ticket = out.admit(1, secs(200)).unwrap();
    out.done(ticket, Outcome::PushedBack(Some(secs(9))), secs(200));
    let held = out.admit(1, secs(201)).unwrap_err();
    assert_eq!((held.by, held.retry_after), (HeldBy::Pace, secs(8)));
    assert!(out.admit(1, secs(209)).is_ok());
}

#[test]
fn a_destination_that_always_pushes_back_is_still_asked_now_and_then() {
    let mut out = outward();
    let mut asked = 0;
    for n in 0..20_000_u64 {
        let now = secs(1_000) + Duration::from_millis(n * 50);
        if let Ok(ticket) = out.admit(1, now) {
            out.done(ticket, Outcome::PushedBack(None), now);
            asked += 1;
        }
    }
    // A thousand seconds at a sixty-fourth of ten a second.
    assert!((150..250).contains(&asked), "{asked}");
}

#[test]
fn destinations_are_bounded_and_the_open_ones_are_kept_longest() {
    let mut out = Outward::<u32>::new(CONFIG, 7);
    let span = opened(&mut out, secs(1));
    assert!(span > secs(2));
    for who in 2..10_000 {
        let ticket = out.admit(who, secs(2)).unwrap();
        out.done(ticket, Outcome::Failed, secs(2));
        assert!(out.destinations.len() <= MAX_DESTINATIONS);
    }
    assert_eq!(out.admit(1, secs(2)).unwrap_err().by, HeldBy::BreakerOpen);
}

const RETRY: RetryPolicy = RetryPolicy {
    attempts: 5,
    initial: Duration::from_secs(1),
    max: Duration::from_secs(4),
    deadline: Duration::from_secs(30),
};

#[test]
fn retries_end_with_the_attempts_and_with_the_deadline() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut attempts = Attempts::begin(RETRY, secs(100));
    let mut waits = Vec::new();
    while let Some(wait) = attempts.again(secs(100), None, &mut rng) {
        waits.push(wait);
    }
    assert_eq!(waits.len(), 4);
    for (wait, full) in waits.iter().zip([1, 2, 4, 4]) {
        assert!(*wait <= secs(full), "{waits:?}");
    }
    let mut attempts = Attempts::begin(RETRY, secs(100));
    assert_eq!(attempts.again(secs(130), None, &mut rng), None);
    assert_eq!(attempts.again(secs(120), Some(secs(10)), &mut rng), None);
    let wait = attempts.again(secs(120), Some(secs(5)), &mut rng).unwrap();
    assert!(wait >= secs(5) && wait <= secs(6), "{wait:?}");
}

#[test]
fn retries_add_a_tenth_when_everything_fails() {
    let mut budget = RetryBudget::new(5);
    let mut again = 0;
    for _ in 0..1_000 {
        budget.first();
        while budget.again() {
            again += 1;
        }
    }
    assert!((100..=105).contains(&again), "{again}");
}

#[derive(Debug, Clone)]
enum Step {
    Call(u32),
    End(usize, u8),
    Wait(u64),
    Watch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..4).prop_map(Step::Call),
        4 => (0_usize..16, 0_u8..4).prop_map(|(n, outcome)| Step::End(n, outcome)),
        2 => (1_u64..30_000).prop_map(Step::Wait),
        1 => Just(Step::Watch),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens: the bounds hold, and once everything ended or was given up, and time has
    /// passed, each destination answers its way back to closed.
    #[test]
    fn bounds_hold_and_it_always_closes_again(steps in steps(), seed in any::<u64>()) {
        let mut out = Outward::<u32>::new(CONFIG, seed);
        let mut now = secs(1);
        let mut open = Vec::new();
        for step in steps {
            match step {
                Step::Call(who) => {
                    if let Ok(ticket) = out.admit(who, now) {
                        open.push(ticket);
                    }
                }
                Step::End(n, outcome) if !open.is_empty() => {
                    let ticket = open.swap_remove(n % open.len());
                    let outcome = match outcome {
                        0 => Outcome::Answered,
                        1 => Outcome::PushedBack(Some(secs(3))),
                        2 => Outcome::Failed,
                        _ => Outcome::Abandoned,
                    };
                    out.done(ticket, outcome, now);
                }
                Step::End(..) => {}
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Watch => drop(out.watch(now)),
            }
            prop_assert!(out.under_way() <= CONFIG.under_way);
            for standing in out.standings(now) {
                prop_assert!(standing.under_way <= CONFIG.pace.under_way);
                prop_assert!(standing.pace > 0.0 && standing.pace <= CONFIG.pace.per_second);
            }
        }
        // Everything that is under way is forgotten by its caller: the watchdog has it.
        now += CONFIG.lost_after;
        out.watch(now);
        prop_assert_eq!(out.under_way(), 0);
        now += CONFIG.breaker.open_max + secs(300);
        for who in 0..4 {
            for _ in 0..CONFIG.breaker.successes {
                let ticket = out.admit(who, now);
                prop_assert!(ticket.is_ok(), "{} {:?}", who, ticket);
                out.done(ticket.unwrap(), Outcome::Answered, now);
                now += secs(20);
            }
        }
        let all = out.standings(now);
        prop_assert!(all.iter().all(|standing| standing.state == State::Closed), "{:?}", all);
    }
}
