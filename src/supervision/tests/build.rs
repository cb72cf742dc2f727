//! Factories and starts that fail.

use std::sync::{Arc, atomic::Ordering};

use super::support::{Count, Do, LONG, Log, Plan, get, run, until};
use crate::supervision::{AskError, Cause};

fn plan_with(bad_builds: usize, bad_starts: usize) -> Plan {
    let mut plan = Plan::new();
    let log = Log::default();
    log.bad_builds.store(bad_builds, Ordering::SeqCst);
    log.bad_starts.store(bad_starts, Ordering::SeqCst);
    plan.log = Arc::new(log);
    plan
}

#[test]
fn messages_wait_for_the_first_build_that_succeeds() {
    run(async {
        for (builds, starts) in [(2, 0), (0, 2), (1, 1)] {
            let house = plan_with(builds, starts).build();
            assert_eq!(house.count().await, 1, "sent before there was anybody");
            let snapshot = house.imp.snapshot();
            assert_eq!(snapshot.restarts_by_cause.get(&Cause::Build), Some(&2));
            assert_eq!(snapshot.restarts, 2);
            assert_eq!(
                get(&house.log.dropped),
                starts,
                "what did not start is gone"
            );
        }
    });
}

#[test]
fn a_failing_start_handles_no_message() {
    run(async {
        let house = plan_with(0, 2).build();
        let answers = futures::future::join_all((0..10).map(|_| house.imp.ask(Count, LONG))).await;
        assert_eq!(answers, (1..=10).map(Ok).collect::<Vec<_>>());
        assert_eq!(get(&house.log.handled), 10);
    });
}

#[test]
fn failed_builds_spend_the_budget() {
    run(async {
        for (builds, starts) in [(100, 0), (0, 100)] {
            let house = plan_with(builds, starts).build();
            assert_eq!(house.imp.ask(Count, LONG).await, Err(AskError::Down));
            let escalation = house.root.escalated().await;
            assert_eq!(escalation.report.cause, Cause::Build);
            assert_eq!(house.imp.snapshot().restarts, 5);
        }
    });
}

#[test]
fn errors_and_panics_of_a_build_are_reported_in_words() {
    run(async {
        for (builds, starts, text) in [
            (1, 0, "panic: a factory that panics"),
            (2, 0, "a factory that fails"),
            (0, 1, "panic: a start that panics"),
            (0, 2, "a start that fails"),
        ] {
            let house = plan_with(builds, starts)
                .restart(|config| config.faults = 0)
                .build();
            let report = house.root.escalated().await.report;
            assert_eq!((report.cause, report.detail.as_str()), (Cause::Build, text));
        }
    });
}

#[test]
fn a_build_that_fails_after_a_fault_is_tried_again() {
    run(async {
        let house = Plan::new().build();
        house.count().await;
        house.log.bad_builds.store(2, Ordering::SeqCst);
        let _ = house.imp.ask(Do::Panic, LONG).await;
        assert_eq!(house.count().await, 1);
        until(|| house.imp.snapshot().restarts == 3).await;
    });
}
