//! Restart intensity: the sliding window, backoff, escalation.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::support::{Count, Do, House, LONG, Plan, run, until};
use crate::{
    config::RestartConfig,
    supervision::{
        AskError, Cause, EXIT_ESCALATED, Intensity, PolicyError, RestartPolicy, RunState,
        SupervisionEvent, Verdict,
    },
    types::ManualClock,
};

fn config(faults: u32, window: u64, initial: u64, max: u64) -> RestartConfig {
    RestartConfig {
        faults,
        window: Duration::from_millis(window).into(),
        backoff_initial: Duration::from_millis(initial).into(),
        backoff_max: Duration::from_millis(max).into(),
        ..RestartConfig::default()
    }
}

#[test]
fn the_default_is_five_faults_in_sixty_seconds() {
    let policy = RestartPolicy::try_new(&RestartConfig::default()).expect("valid");
    let mut faults = Intensity::new(policy);
    let at = Duration::from_secs;
    for second in 0..5 {
        assert!(matches!(
            faults.record(at(second), 0.5),
            Verdict::Restart(_)
        ));
    }
    assert_eq!(faults.record(at(59), 0.5), Verdict::Escalate);
}

#[test]
fn the_window_slides() {
    let policy = RestartPolicy::try_new(&config(2, 10_000, 10, 20)).expect("valid");
    let mut faults = Intensity::new(policy);
    let at = Duration::from_secs;
    for second in [0, 5, 11, 16, 21] {
        let verdict = faults.record(at(second), 0.0);
        assert!(
            matches!(verdict, Verdict::Restart(_)),
            "at {second}: never three in ten"
        );
    }
    assert_eq!(
        faults.record(at(25), 0.0),
        Verdict::Escalate,
        "16, 21 and 25"
    );
}

#[test]
fn backoff_doubles_up_to_its_cap_and_jitter_halves_it_at_most() {
    let policy = RestartPolicy::try_new(&config(10, 60_000, 20, 100)).expect("valid");
    let waits: Vec<_> = (1..=5).map(|n| policy.backoff(n).as_millis()).collect();
    assert_eq!(waits, [20, 40, 80, 100, 100]);
    let wait = |jitter| Intensity::new(policy.clone()).record(Duration::ZERO, jitter);
    assert_eq!(wait(0.0), Verdict::Restart(Duration::from_millis(10)));
    assert_eq!(wait(1.0), Verdict::Restart(Duration::from_millis(20)));
}

#[test]
fn a_window_in_which_the_budget_cannot_be_spent_is_refused() {
    // Waits of 1, 2, 4, 8 and 8 seconds: 23 in all.
    let short = config(5, 45_000, 1_000, 8_000);
    let error = RestartPolicy::try_new(&short).expect_err("too short");
    assert!(
        matches!(error, PolicyError::WindowTooShort { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("46s"), "{error}");
    assert!(RestartPolicy::try_new(&config(5, 46_000, 1_000, 8_000)).is_ok());
    // A node that gets such a configuration all the same uses the nearest that works.
    let mut faults = Intensity::new(RestartPolicy::nearest(&short));
    for second in [0, 9, 18, 27, 36] {
        faults.record(Duration::from_secs(second), 1.0);
    }
    assert_eq!(
        faults.record(Duration::from_millis(45_500), 1.0),
        Verdict::Escalate
    );
}

#[test]
fn other_impossible_policies_are_refused() {
    let base = RestartConfig::default();
    let none = Duration::ZERO.into();
    for (bad, error) in [
        (
            RestartConfig {
                mailbox: 0,
                ..base.clone()
            },
            PolicyError::NoMailbox,
        ),
        (
            RestartConfig {
                stall: none,
                ..base.clone()
            },
            PolicyError::NoStall,
        ),
        (
            RestartConfig {
                backoff_max: none,
                ..base.clone()
            },
            PolicyError::CapBelowInitial,
        ),
        (
            RestartConfig {
                faults: u32::MAX,
                ..base
            },
            PolicyError::TooManyFaults,
        ),
    ] {
        assert_eq!(RestartPolicy::try_new(&bad), Err(error));
        assert!(RestartPolicy::nearest(&bad).mailbox() > 0);
    }
}

proptest! {
    /// However a crash loop's restarts are spread by backoff and jitter, it ends.
    #[test]
    fn every_valid_policy_ends_a_crash_loop(
        faults in 0u32..20, window in 0u64..200_000, initial in 0u64..5_000, max in 0u64..10_000,
        jitters in proptest::collection::vec(0.0f64..=1.0, 21),
    ) {
        let Ok(policy) = RestartPolicy::try_new(&config(faults, window, initial, max)) else {
            return Ok(());
        };
        let mut budget = Intensity::new(policy);
        let mut now = Duration::ZERO;
        let mut restarts = 0;
        for jitter in jitters {
            match budget.record(now, jitter) {
                Verdict::Restart(wait) => {
                    restarts += 1;
                    now += wait;
                }
                Verdict::Escalate => break,
            }
        }
        prop_assert_eq!(restarts, faults);
    }

    /// Never more restarts than `faults` in any window.
    #[test]
    fn no_window_holds_more_restarts_than_the_budget(
        faults in 1u32..6, gaps in proptest::collection::vec(0u64..4_000, 1..60),
    ) {
        let mut budget = Intensity::new(RestartPolicy::try_new(&config(faults, 10_000, 0, 0))?);
        let mut now = Duration::ZERO;
        let mut granted = Vec::new();
        for gap in gaps {
            now += Duration::from_millis(gap);
            if budget.record(now, 0.0) == Verdict::Escalate {
                break;
            }
            granted.push(now);
        }
        for (i, from) in granted.iter().enumerate() {
            let until = *from + Duration::from_secs(10);
            let within = granted[i..].iter().filter(|at| **at < until).count();
            prop_assert!(within <= faults as usize);
        }
    }
}

#[test]
fn a_crash_loop_escalates_with_code_70() {
    run(async {
        let mut house = House::new();
        for _ in 0..6 {
            let _ = house.imp.ask(Do::Panic, LONG).await;
        }
        let escalation = house.root.escalated().await;
        assert_eq!(escalation.code, 70);
        assert_eq!(escalation.code, EXIT_ESCALATED);
        assert_eq!(escalation.actor, "imp");
        assert_eq!(escalation.report.cause, Cause::Panic);
        assert_eq!(house.imp.ask(Count, LONG).await, Err(AskError::Down));
        let snapshot = house.imp.snapshot();
        assert_eq!((snapshot.state, snapshot.restarts), (RunState::Down, 5));
        let faults = async {
            let mut faults = 0;
            loop {
                match house.events.recv().await.expect("events") {
                    SupervisionEvent::Fault { .. } => faults += 1,
                    SupervisionEvent::Escalated { .. } => return faults,
                    SupervisionEvent::Started { .. } | SupervisionEvent::Stalled { .. } => {}
                }
            }
        };
        assert_eq!(faults.await, 5);
    });
}

#[test]
fn what_waits_when_the_budget_is_spent_is_told_down() {
    run(async {
        let house = Plan::new().restart(|config| config.faults = 0).build();
        let panic = house.imp.ask(Do::Panic, LONG);
        let queued = house.imp.ask(Count, LONG);
        let (_, queued) = futures::join!(panic, queued);
        assert_eq!(queued, Err(AskError::Down));
    });
}

#[test]
fn faults_outside_the_window_are_forgotten() {
    run(async {
        let clock = ManualClock::default();
        let mut plan = Plan::new().restart(|config| config.faults = 1);
        plan.clock = Arc::new(clock.clone());
        let house = plan.build();
        for restarts in 1..=4 {
            let _ = house.imp.ask(Do::Panic, LONG).await;
            until(|| house.imp.snapshot().restarts == restarts).await;
            house.count().await;
            clock.advance(Duration::from_secs(61));
        }
        let _ = house.imp.ask(Do::Panic, LONG).await;
        let _ = house.imp.ask(Do::Panic, LONG).await;
        house.root.escalated().await;
    });
}

#[test]
fn a_restart_by_an_operator_spends_no_budget() {
    run(async {
        let house = Plan::new().restart(|config| config.faults = 0).build();
        let control = house.root.control("imp").expect("it is there");
        for restarts in 1..=20 {
            house.count().await;
            control.restart("an operator asked").expect("it lives");
            until(|| house.imp.snapshot().restarts == restarts).await;
        }
        assert_eq!(house.count().await, 1);
        let snapshot = house.imp.snapshot();
        assert_eq!(snapshot.restarts_by_cause.get(&Cause::Admin), Some(&20));
        assert_eq!(
            snapshot.last_fault.map(|f| f.detail).as_deref(),
            Some("an operator asked")
        );
    });
}
