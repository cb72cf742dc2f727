#![cfg(test)]

use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    identity::Tier,
    sandbox::{
        CancelledBy, ContentHash, IdempotencyKey, JobFault, JobSpec, LimitName, LimitsWanted, Usage,
    },
    types::{ByteSize, Span},
};

mod costs;
mod properties;
mod restart;
mod submitters;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn later(secs: u64) -> Timestamp {
    START.after(Duration::from_secs(secs))
}

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n.wrapping_add(1); 32]).verifying_key())
}

fn me() -> PeerId {
    peer(200)
}

fn who(n: u8) -> Submitter {
    Submitter {
        statuses: Vec::new(),
        peer: peer(n),
        tier: Tier::Member,
        anchor: Some("issuer".parse().unwrap()),
        identity: Some(format!("issuer/{n}")),
        expires: None,
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        footing: None,
    }
}

fn config(change: impl FnOnce(&mut SandboxConfig)) -> SandboxConfig {
    let mut config = SandboxConfig {
        workers: 2,
        running_per_peer: 1,
        ..SandboxConfig::default()
    };
    change(&mut config);
    config
}

fn spec(key: u8) -> JobSpec {
    JobSpec {
        key: IdempotencyKey([key; 16]),
        module: ContentHash([1; 32]),
        module_size: 1_000,
        arguments: vec!["guest".to_owned()],
        environment: Vec::new(),
        input: ContentHash::of(b""),
        input_size: 0,
        limits: LimitsWanted::default(),
        deterministic: None,
        sealed: false,
    }
}

fn cpu(secs: u64) -> Usage {
    Usage {
        cpu_us: secs * 1_000_000,
        ..Usage::default()
    }
}

const DONE: Outcome = Outcome::Exited { status: 0 };

/// A job on record that has all it needs.
fn queued(registry: &mut Registry, n: u8, key: u8, now: Timestamp) -> JobId {
    let id = registry.submit(who(n), spec(key), now).unwrap().id;
    registry.on_record(&id, now);
    registry.ready(&id);
    id
}

fn ran(registry: &mut Registry, n: u8, key: u8, now: Timestamp) -> JobId {
    let id = queued(registry, n, key, now);
    assert_eq!(registry.next(now), Some(id));
    assert!(registry.finish(id, DONE, Usage::default(), now));
    registry.set_receipt(&id, vec![1]);
    id
}

fn records(registry: &Registry) -> Vec<JobRecord> {
    // Through their written form, as after a restart.
    registry
        .iter()
        .map(|record| serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap())
        .collect()
}

fn restarted(registry: &Registry, config: SandboxConfig, now: Timestamp) -> Registry {
    Registry::restore(config, me(), records(registry), now)
}

impl Registry {
    /// Panics when an invariant is broken.
    fn check_invariants(&self) {
        let of = |state| self.iter().filter(move |record| record.state == state);
        let queued: Vec<_> = of(JobState::Queued)
            .map(|record| (record.submitter.peer, record.id))
            .collect();
        let running: Vec<_> = of(JobState::Running)
            .map(|record| record.submitter.peer)
            .collect();
        self.turns.check(&queued, &running);
        assert!(running.len() <= self.config.workers);
        for record in self.iter() {
            assert_eq!(record.is_finished(), record.outcome.is_some());
            assert_eq!(record.is_finished(), record.finished.is_some());
            assert!(record.attempt <= MAX_ATTEMPTS);
            let same = running
                .iter()
                .filter(|peer| **peer == record.submitter.peer);
            assert!(same.count() <= self.config.running_per_peer);
            if self.unrecorded.contains(&record.id) {
                assert!(matches!(
                    record.state,
                    JobState::Waiting | JobState::Finished
                ));
            }
        }
        assert!(self.unrecorded.iter().all(|id| self.jobs.contains_key(id)));
    }
}

#[test]
fn a_job_goes_from_its_submission_to_its_end() {
    let mut registry = Registry::new(config(|_| {}), me());
    let accepted = registry.submit(who(1), spec(1), START).unwrap();
    let id = accepted.id;
    assert!(!accepted.repeated);
    assert_eq!(registry.take_dirty(), [], "not on record yet");
    registry.ready(&id);
    assert_eq!(registry.next(START), None, "not on record yet");
    registry.on_record(&id, START);
    assert_eq!(registry.next(START), None, "its module is not here yet");
    assert_eq!(registry.waiting_for(&ContentHash([1; 32])), [id]);
    registry.ready(&id);
    assert_eq!(registry.next(later(1)), Some(id));
    assert_eq!(registry.job(&id).unwrap().attempt, 1);
    assert!(registry.finish(id, DONE, cpu(1), later(2)));
    assert!(!registry.finish(id, DONE, cpu(1), later(2)), "only once");
    registry.set_receipt(&id, vec![7]);
    let record = registry.job(&id).unwrap();
    assert_eq!(record.outcome, Some(DONE));
    assert_eq!(record.usage, cpu(1));
    assert_eq!(registry.take_dirty().len(), 1);
    assert_eq!(registry.counts().finished, 1);
    registry.check_invariants();
}

#[test]
fn a_repeated_submission_is_the_same_job_and_never_runs_again() {
    let mut registry = Registry::new(config(|_| {}), me());
    let id = registry.submit(who(1), spec(1), START).unwrap().id;
    assert_eq!(
        registry.submit(who(1), spec(1), START),
        Err(Rejection::UnderWay)
    );
    registry.on_record(&id, START);
    registry.ready(&id);
    let other = JobSpec {
        arguments: vec!["other".to_owned()],
        ..spec(1)
    };
    let repeat = |registry: &mut Registry| {
        let again = registry.submit(who(1), spec(1), START).unwrap();
        assert!(again.repeated && again.id == id);
        assert_eq!(
            registry.submit(who(1), other.clone(), START),
            Err(Rejection::KeyReused)
        );
    };
    repeat(&mut registry);
    registry.next(START).unwrap();
    repeat(&mut registry);
    registry.finish(id, DONE, Usage::default(), START);
    registry.set_receipt(&id, vec![1]);
    repeat(&mut registry);
    // Even where nothing new is accepted any more.
    let mut registry = restarted(&registry, config(|c| c.enabled = false), START);
    repeat(&mut registry);
    assert_eq!(registry.next(START), None);
    assert_eq!(
        registry.submit(who(1), spec(2), START),
        Err(Rejection::Disabled)
    );
    // The same key of another peer is another job.
    let mut registry = restarted(&registry, config(|_| {}), START);
    assert_ne!(registry.submit(who(2), spec(1), START).unwrap().id, id);
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let mut registry = Registry::new(config(|c| c.max_input = ByteSize(10)), me());
    let large = JobSpec {
        input: ContentHash([2; 32]),
        input_size: 11,
        ..spec(1)
    };
    assert_eq!(
        registry.submit(who(1), large, START),
        Err(Rejection::TooLarge {
            limit: LimitName::InputSize,
            size: 11,
            ceiling: ByteSize(10)
        })
    );
    let greedy = JobSpec {
        limits: LimitsWanted {
            memory: Some(u64::MAX),
            ..LimitsWanted::default()
        },
        ..spec(1)
    };
    assert!(matches!(
        registry.submit(who(1), greedy, START),
        Err(Rejection::Limit(_))
    ));
    let nameless = JobSpec {
        arguments: Vec::new(),
        ..spec(1)
    };
    assert!(matches!(
        registry.submit(who(1), nameless, START),
        Err(Rejection::Invalid(_))
    ));
    assert_eq!(registry.counts(), JobCounts::default());
}

#[test]
fn unfinished_jobs_are_bounded_for_all_and_for_each() {
    let small = config(|c| {
        c.jobs = 3;
        c.jobs_per_peer = 2;
    });
    let mut registry = Registry::new(small, me());
    let first = queued(&mut registry, 1, 1, START);
    queued(&mut registry, 1, 2, START);
    assert_eq!(
        registry.submit(who(1), spec(3), START),
        Err(Rejection::PeerQueueFull)
    );
    queued(&mut registry, 2, 1, START);
    assert_eq!(
        registry.submit(who(3), spec(1), START),
        Err(Rejection::QueueFull)
    );
    assert_eq!(registry.next(START), Some(first));
    registry.finish(first, DONE, Usage::default(), START);
    assert_eq!(
        registry.submit(who(3), spec(1), START),
        Err(Rejection::QueueFull),
        "without a receipt it still counts"
    );
    registry.set_receipt(&first, vec![1]);
    registry.submit(who(3), spec(1), START).unwrap();
}

#[test]
fn nobody_fills_the_disk_with_inputs() {
    let small = config(|c| {
        c.max_module = ByteSize(1_000);
        c.max_input = ByteSize(1_000);
        c.blob_cache = ByteSize(8_000);
    });
    let mut registry = Registry::new(small, me());
    let job = |key: u8, input: u8| JobSpec {
        input: ContentHash([input; 32]),
        input_size: 500,
        ..spec(key)
    };
    // The module counts once, each input once: 1,000 + 2 * 500 is the peer's share.
    registry.submit(who(1), job(1, 11), START).unwrap();
    registry.submit(who(1), job(2, 12), START).unwrap();
    registry.submit(who(1), job(3, 12), START).unwrap();
    assert_eq!(
        registry.submit(who(1), job(4, 13), START),
        Err(Rejection::PeerQueueFull)
    );
    for n in 2..=4 {
        registry.submit(who(n), job(1, 11), START).unwrap();
        registry.submit(who(n), job(2, 12), START).unwrap();
    }
    assert_eq!(
        registry.submit(who(5), job(1, 11), START),
        Err(Rejection::QueueFull)
    );
}

#[test]
fn peers_take_turns_and_a_flood_delays_nobody() {
    let mut registry = Registry::new(config(|c| c.workers = 1), me());
    let flood: Vec<_> = (0..20)
        .map(|key| queued(&mut registry, 1, key, START))
        .collect();
    let quiet = queued(&mut registry, 2, 1, START);
    let mut order = Vec::new();
    while let Some(id) = registry.next(START) {
        registry.finish(id, DONE, Usage::default(), START);
        order.push(id);
    }
    assert_eq!(order[0], flood[0]);
    assert_eq!(order[1], quiet, "the second turn is the other peer's");
    assert_eq!(order[2..], flood[1..], "each peer's own come in order");
}

#[test]
fn workers_and_running_per_peer_bound_what_runs() {
    let mut registry = Registry::new(config(|_| {}), me());
    let first = queued(&mut registry, 1, 1, START);
    let second = queued(&mut registry, 1, 2, START);
    let other = queued(&mut registry, 2, 1, START);
    let third = queued(&mut registry, 3, 1, START);
    assert_eq!(registry.next(START), Some(first));
    assert_eq!(registry.next(START), Some(other), "one of each peer");
    assert_eq!(registry.next(START), None, "two workers");
    registry.finish(first, DONE, Usage::default(), START);
    assert_eq!(registry.next(START), Some(third), "had no turn yet");
    registry.finish(third, DONE, Usage::default(), START);
    assert_eq!(registry.next(START), Some(second));
    registry.check_invariants();
}

#[test]
fn spent_processor_time_stops_one_peer_only() {
    let small = config(|c| c.cpu_per_hour = Span(Duration::from_secs(60)));
    let mut registry = Registry::new(small, me());
    let first = queued(&mut registry, 1, 1, START);
    let waits = queued(&mut registry, 1, 2, START);
    let other = queued(&mut registry, 2, 1, START);
    assert_eq!(registry.next(START), Some(first));
    registry.finish(first, DONE, cpu(61), START);
    assert_eq!(registry.next(START), Some(other));
    assert_eq!(registry.next(START), None);
    let Err(Rejection::CpuQuota { retry_after }) = registry.submit(who(1), spec(3), START) else {
        panic!("accepted");
    };
    // A second too much takes a minute to come back, and the twenty milliseconds of taking two
    // jobs 1.2 seconds; what was accepted then has its turn.
    assert_eq!(retry_after, Duration::from_millis(61_200));
    registry.finish(other, DONE, Usage::default(), START);
    assert_eq!(registry.next(later(61)), None);
    assert_eq!(registry.next(later(62)), Some(waits));
}

#[test]
fn cancelled_before_its_turn_it_never_runs() {
    let by = CancelledBy::Policy;
    let mut registry = Registry::new(config(|_| {}), me());
    let id = queued(&mut registry, 1, 1, START);
    let next = queued(&mut registry, 1, 2, START);
    assert_eq!(registry.cancel(id, by, START), Some(CancelEffect::EndedNow));
    assert_eq!(registry.next(START), Some(next));
    assert_eq!(registry.cancel(JobId([0; 16]), by, START), None);
    registry.check_invariants();
}

#[test]
fn inputs_that_never_come_end_a_job() {
    let timed = config(|c| c.input_timeout = Span(Duration::from_secs(10)));
    let mut registry = Registry::new(timed, me());
    let id = registry.submit(who(1), spec(1), START).unwrap().id;
    registry.on_record(&id, START);
    assert_eq!(registry.due(later(9)), Due::default());
    // The clock went back by five seconds, once: they are not waited for again.
    assert_eq!(registry.due(later(4)), Due::default());
    assert_eq!(registry.due(later(5)).ended, [id]);
    let fault = JobFault::InputMissing;
    let record = registry.job(&id).unwrap();
    assert_eq!(record.outcome, Some(Outcome::Failed { fault }));
    assert_eq!(registry.due(later(5)), Due::default());
    // What is not on record yet does not end.
    registry.submit(who(1), spec(2), later(5)).unwrap();
    assert_eq!(registry.due(later(60)), Due::default());
}

#[test]
fn an_input_that_is_lost_is_waited_for_anew() {
    let timed = config(|c| c.input_timeout = Span(Duration::from_secs(10)));
    let mut registry = Registry::new(timed, me());
    let id = queued(&mut registry, 1, 1, START);
    registry.unready(&id, later(60));
    assert_eq!(registry.next(later(60)), None);
    assert_eq!(registry.due(later(60)), Due::default());
    registry.ready(&id);
    assert_eq!(registry.next(later(61)), Some(id));
    // Found out at its turn: that was no attempt.
    registry.unready(&id, later(61));
    assert_eq!(registry.counts().waiting, 1);
    registry.check_invariants();
    registry.ready(&id);
    assert_eq!(registry.next(later(61)), Some(id));
    assert_eq!(registry.job(&id).unwrap().attempt, 1);
    registry.finish(id, DONE, Usage::default(), later(61));
    registry.unready(&id, later(61));
    assert_eq!(registry.counts().finished, 1);
    registry.check_invariants();
}

#[test]
fn results_go_when_their_time_is_over() {
    let timed = config(|c| c.results_kept = Span(Duration::from_secs(100)));
    let mut registry = Registry::new(timed, me());
    let id = ran(&mut registry, 1, 1, START);
    assert_eq!(registry.due(later(99)), Due::default());
    registry.take_dirty();
    assert_eq!(registry.due(later(100)).dropped, [id]);
    assert_eq!(registry.take_dirty(), [(id, None)]);
    assert!(registry.job(&id).is_none());
}

#[test]
fn a_flood_pushes_out_its_own_results_only() {
    let mut registry = Registry::new(config(|c| c.results = 4), me());
    let quiet = ran(&mut registry, 2, 1, START);
    let flood: Vec<_> = (0..6)
        .map(|key| ran(&mut registry, 1, key, later(u64::from(key) + 1)))
        .collect();
    assert_eq!(registry.due(later(10)).dropped, flood[..3]);
    assert!(registry.job(&quiet).is_some());
}

#[test]
fn a_result_waits_for_its_receipt() {
    let timed = config(|c| {
        c.results_kept = Span(Duration::from_secs(100));
        c.results = 1;
    });
    let mut registry = Registry::new(timed, me());
    let id = queued(&mut registry, 1, 1, START);
    registry.next(START);
    registry.finish(id, DONE, Usage::default(), START);
    ran(&mut registry, 1, 2, START);
    assert_eq!(registry.due(later(99)), Due::default());
    let due = registry.due(later(199));
    assert!(!due.dropped.contains(&id));
    assert!(
        registry.due(later(200)).dropped.contains(&id),
        "not for ever"
    );
}
