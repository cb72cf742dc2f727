#![cfg(test)]
//! What survives a restart, and what it costs.

use super::*;

#[test]
fn spent_processor_time_survives_a_restart() {
    let small = || config(|c| c.cpu_per_hour = Span(Duration::from_secs(60)));
    let mut registry = Registry::new(small(), me());
    let id = queued(&mut registry, 1, 1, START);
    registry.next(START);
    registry.finish(id, DONE, cpu(61), START);
    let mut again = restarted(&registry, small(), START);
    assert!(again.submit(who(1), spec(2), START).is_err());
    // From the ledger, too, when the records are gone.
    let debts: Vec<_> = registry.quota().debts().map(|(p, t)| (*p, *t)).collect();
    let mut again = Registry::restore(small(), me(), [], START);
    again.restore_quota(debts);
    assert!(again.submit(who(1), spec(2), START).is_err());
}

#[test]
fn a_lost_attempt_is_paid_for() {
    let small = || config(|c| c.cpu_per_hour = Span(Duration::from_secs(60)));
    let mut registry = Registry::new(small(), me());
    let id = queued(&mut registry, 1, 1, START);
    registry.next(START);
    let mut again = restarted(&registry, small(), later(62));
    assert!(again.submit(who(1), spec(2), later(62)).is_err());
    let record = again.job(&id).unwrap();
    assert_eq!(record.lost_cpu_us, 62_000_000);
    assert_eq!(record.usage, Usage::default(), "nobody signs a guess");
    // And once only, however often this node restarts.
    let third = restarted(&again, small(), later(63));
    assert_eq!(third.job(&id).unwrap().lost_cpu_us, 62_000_000);
}

#[test]
fn what_ran_at_a_restart_runs_again_but_not_for_ever() {
    let mut registry = Registry::new(config(|_| {}), me());
    let id = queued(&mut registry, 1, 1, START);
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(registry.next(START), Some(id));
        assert_eq!(registry.job(&id).unwrap().attempt, attempt);
        registry = restarted(&registry, config(|_| {}), START);
        registry.check_invariants();
    }
    assert_eq!(registry.next(START), None);
    let fault = JobFault::Interrupted;
    let record = registry.job(&id).unwrap();
    assert_eq!(record.outcome, Some(Outcome::Failed { fault }));
    assert!(!registry.take_dirty().is_empty());
}

#[test]
fn a_cancelled_job_does_not_come_back_with_a_restart() {
    let by = CancelledBy::Submitter;
    let mut registry = Registry::new(config(|_| {}), me());
    let id = queued(&mut registry, 1, 1, START);
    registry.next(START);
    assert_eq!(
        registry.cancel(id, by, START),
        Some(CancelEffect::StopRunning)
    );
    let again = restarted(&registry, config(|_| {}), START);
    let cancelled = Some(Outcome::Cancelled { by });
    assert_eq!(again.job(&id).unwrap().outcome, cancelled);
    // Its worker dies of it: no accident. One that ended by itself did so.
    let died = Outcome::Failed {
        fault: JobFault::WorkerDied,
    };
    assert!(registry.finish(id, died, Usage::default(), START));
    assert_eq!(registry.job(&id).unwrap().outcome, cancelled);
    assert_eq!(
        registry.cancel(id, by, START),
        Some(CancelEffect::NothingToDo)
    );
}

#[test]
fn jobs_of_another_key_of_this_node_are_dropped() {
    let mut registry = Registry::new(config(|_| {}), me());
    let id = queued(&mut registry, 1, 1, START);
    let mut other = Registry::restore(config(|_| {}), peer(201), records(&registry), START);
    assert_eq!(other.next(START), None);
    assert_eq!(other.take_dirty(), [(id, None)]);
}

#[test]
fn where_jobs_are_disabled_the_unfinished_have_ended() {
    let mut registry = Registry::new(config(|_| {}), me());
    let id = queued(&mut registry, 1, 1, START);
    let again = restarted(&registry, config(|c| c.enabled = false), START);
    let fault = JobFault::Interrupted;
    let record = again.job(&id).unwrap();
    assert_eq!(record.outcome, Some(Outcome::Failed { fault }));
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let mut registry = Registry::new(config(|_| {}), me());
    ran(&mut registry, 1, 1, START);
    queued(&mut registry, 2, 1, START);
    let own: Vec<_> = registry.iter().cloned().collect();
    assert_eq!(records(&registry), own);
}
