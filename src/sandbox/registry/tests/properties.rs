#![cfg(test)]
//! Promises under any sequence of inputs, clocks and crashes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Submit { peer: u8, key: u8, argument: u8 },
    Record(usize),
    Forget(usize),
    Ready(usize),
    Unready(usize),
    Next,
    Finish { pick: usize, cpu_us: u64 },
    Receipt(usize),
    Cancel(usize),
    Due,
}

#[derive(Debug, Clone)]
enum Step {
    /// Done, and written down.
    Done(Op),
    /// Done, but the node dies before it is written down.
    Crash(Option<Op>),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<usize>;
    prop_oneof![
        6 => (0_u8..4, 0_u8..5, 0_u8..2)
            .prop_map(|(peer, key, argument)| Op::Submit { peer, key, argument }),
        5 => pick().prop_map(Op::Record),
        1 => pick().prop_map(Op::Forget),
        5 => pick().prop_map(Op::Ready),
        1 => pick().prop_map(Op::Unready),
        5 => Just(Op::Next),
        4 => (pick(), 0_u64..40_000_000).prop_map(|(pick, cpu_us)| Op::Finish { pick, cpu_us }),
        4 => pick().prop_map(Op::Receipt),
        1 => pick().prop_map(Op::Cancel),
        2 => Just(Op::Due),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => op().prop_map(Step::Done),
        1 => prop::option::of(op()).prop_map(Step::Crash),
    ]
}

/// Mostly small steps forward, sometimes far, sometimes back.
fn clock() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 0_i64..5_000,
        1 => 0_i64..200_000,
        1 => -100_000_i64..0,
    ]
}

/// What was promised to submitters, and what is on disk.
#[derive(Debug, Default, Clone)]
struct Model {
    disk: BTreeMap<JobId, JobRecord>,
    /// How each job ended, as far as anybody was told.
    ended: BTreeMap<JobId, Outcome>,
}

fn pick(registry: &Registry, at: usize) -> Option<JobId> {
    let ids: Vec<_> = registry.iter().map(|record| record.id).collect();
    (!ids.is_empty()).then(|| ids[at % ids.len()])
}

fn submitted(peer: u8, key: u8, argument: u8) -> JobSpec {
    JobSpec {
        arguments: vec![format!("guest{argument}")],
        module: ContentHash([peer % 2; 32]),
        ..spec(key)
    }
}

/// Does it, and checks what can be checked of the answer alone.
fn apply(registry: &mut Registry, op: &Op, now: Timestamp) {
    let chosen = |registry: &Registry, at: &usize| pick(registry, *at);
    match op {
        Op::Submit {
            peer: n,
            key,
            argument,
        } => {
            let spec = submitted(*n, *key, *argument);
            let id = JobId::new(&me(), &peer(*n), &spec.key);
            let known = registry.job(&id).cloned();
            let recorded = registry.is_on_record(&id);
            match (registry.submit(who(*n), spec.clone(), now), known) {
                (Ok(accepted), Some(known)) => {
                    assert!(accepted.repeated && recorded && known.spec == spec);
                    assert_eq!(registry.job(&id), Some(&known), "a repeat changes nothing");
                }
                (Ok(accepted), None) => assert!(!accepted.repeated && accepted.id == id),
                (Err(Rejection::KeyReused), Some(known)) => assert_ne!(known.spec, spec),
                (Err(Rejection::UnderWay), Some(_)) => assert!(!recorded),
                (Err(error), Some(_)) => panic!("a known job was refused: {error}"),
                (Err(_), None) => {}
            }
        }
        Op::Record(at) => chosen(registry, at)
            .iter()
            .for_each(|id| registry.on_record(id, now)),
        Op::Forget(at) => chosen(registry, at)
            .iter()
            .for_each(|id| registry.forget(id)),
        Op::Ready(at) => chosen(registry, at)
            .iter()
            .for_each(|id| registry.ready(id)),
        Op::Unready(at) => chosen(registry, at)
            .iter()
            .for_each(|id| registry.unready(id, now)),
        Op::Next => {
            if let Some(id) = registry.next(now) {
                assert!(registry.is_on_record(&id));
                assert_eq!(registry.job(&id).unwrap().state, JobState::Running);
            }
        }
        Op::Finish { pick: at, cpu_us } => {
            let Some(id) = chosen(registry, at) else {
                return;
            };
            let running = registry.job(&id).unwrap().state == JobState::Running;
            let usage = Usage {
                cpu_us: *cpu_us,
                ..Usage::default()
            };
            assert_eq!(registry.finish(id, DONE, usage, now), running);
        }
        Op::Receipt(at) => {
            let id = chosen(registry, at);
            id.iter().for_each(|id| registry.set_receipt(id, vec![1]));
        }
        Op::Cancel(at) => {
            if let Some(id) = chosen(registry, at) {
                let ended = registry.job(&id).unwrap().is_finished();
                let effect = registry.cancel(id, CancelledBy::Operator, now).unwrap();
                assert_eq!(effect == CancelEffect::NothingToDo, ended);
            }
        }
        Op::Due => drop(registry.due(now)),
    }
}

/// Writes down what changed, and checks it against what was promised.
fn write_down(model: &mut Model, registry: &mut Registry) {
    for (id, record) in registry.take_dirty() {
        match record {
            Some(record) => {
                if let Some(outcome) = &record.outcome {
                    let told = model.ended.entry(id).or_insert_with(|| outcome.clone());
                    assert_eq!(told, outcome, "two results");
                }
                model.disk.insert(id, record);
            }
            None => {
                // Only what has ended is forgotten; its key may then name a new job.
                assert!(model.ended.remove(&id).is_some() || !model.disk.contains_key(&id));
                model.disk.remove(&id);
            }
        }
    }
    let recorded: BTreeMap<_, _> = registry
        .iter()
        .filter(|record| registry.is_on_record(&record.id))
        .map(|record| (record.id, record.clone()))
        .collect();
    assert_eq!(recorded, model.disk, "disk and memory differ");
}

proptest! {
    /// Bounds hold, every job ends at most once, nothing that was written down is lost, whatever
    /// happens when.
    #[test]
    fn promises_are_kept(
        steps in prop::collection::vec((step(), clock()), 1..150),
        jobs in 1_usize..10,
        each in 1_usize..6,
        workers in 1_usize..4,
        results in 1_usize..6,
    ) {
        let config = || config(|c| {
            c.jobs = jobs;
            c.jobs_per_peer = each;
            c.workers = workers;
            c.running_per_peer = 2;
            c.results = results;
            c.cpu_per_hour = Span(Duration::from_secs(120));
            c.input_timeout = Span(Duration::from_secs(20));
            c.results_kept = Span(Duration::from_secs(60));
        });
        let mut registry = Registry::new(config(), me());
        let mut model = Model::default();
        let mut now = START;
        for (step, clock) in steps {
            now = Timestamp::from_millis(now.millis().saturating_add_signed(clock));
            match step {
                Step::Done(op) => apply(&mut registry, &op, now),
                Step::Crash(op) => {
                    if let Some(op) = op {
                        apply(&mut registry, &op, now);
                    }
                    let disk = model.disk.values().cloned();
                    registry = Registry::restore(config(), me(), disk, now);
                    let known = registry.iter().map(|record| record.id);
                    prop_assert!(known.eq(model.disk.keys().copied()), "lost at a restart");
                    for record in registry.iter() {
                        let before = &model.disk[&record.id];
                        if before.is_finished() {
                            prop_assert_eq!(record, before);
                        }
                        prop_assert_eq!(record.attempt, before.attempt);
                        prop_assert_ne!(record.state, JobState::Running);
                    }
                }
            }
            registry.check_invariants();
            write_down(&mut model, &mut registry);
            let unfinished = || registry.iter().filter(|record| !record.is_finished());
            prop_assert!(unfinished().count() <= jobs);
            for n in 0..4 {
                let own = unfinished().filter(|record| record.submitter.peer == peer(n));
                prop_assert!(own.count() <= each);
            }
            registry.due(now);
            let sealed = registry
                .iter()
                .filter(|record| record.receipt.is_some())
                .filter(|record| registry.is_on_record(&record.id));
            prop_assert!(sealed.count() <= results);
            write_down(&mut model, &mut registry);
        }
    }

    /// A peer that may have a turn has one before any other has two.
    #[test]
    fn nobody_starves(
        peers in 2_u8..6,
        first in prop::collection::vec(0_u8..6, 1..40),
        more in prop::collection::vec(prop::option::of(0_u8..6), 1..60),
        spent in prop::collection::btree_set(0_u8..6, 0..3),
        workers in 1_usize..4,
    ) {
        let config = config(|c| {
            c.jobs = 1_000;
            c.jobs_per_peer = 1_000;
            c.workers = workers;
            c.cpu_per_hour = Span(Duration::from_secs(10));
        });
        let mut registry = Registry::new(config, me());
        let mut key = 0;
        let mut give = |registry: &mut Registry, n: u8| {
            key += 1;
            queued(registry, n % peers, key, START);
        };
        for n in first {
            give(&mut registry, n);
        }
        for n in &spent {
            registry.quota.charge(peer(n % peers), 11_000_000, START);
        }
        let spent: BTreeSet<_> = spent.iter().map(|n| peer(n % peers)).collect();
        let mut passed: BTreeMap<PeerId, u8> = BTreeMap::new();
        let mut running = std::collections::VecDeque::new();
        for n in more {
            let waiting: BTreeSet<_> = registry
                .iter()
                .filter(|record| record.state == JobState::Queued)
                .map(|record| record.submitter.peer)
                .filter(|peer| !spent.contains(peer))
                .filter(|peer| registry.turns.running_of(peer) == 0)
                .collect();
            if let Some(id) = registry.next(START) {
                let who = registry.job(&id).unwrap().submitter.peer;
                prop_assert!(!spent.contains(&who));
                passed.remove(&who);
                passed.retain(|peer, _| waiting.contains(peer));
                for peer in waiting.iter().filter(|peer| **peer != who) {
                    let turns = passed.entry(*peer).or_default();
                    *turns += 1;
                    prop_assert!(*turns < peers, "passed over again and again");
                }
                running.push_back(id);
            } else {
                prop_assert!(waiting.is_empty() || running.len() == workers, "idle");
            }
            if (running.len() == workers || n.is_none())
                && let Some(id) = running.pop_front()
            {
                registry.finish(id, DONE, Usage::default(), START);
            }
            if let Some(n) = n.filter(|n| !spent.contains(&peer(n % peers))) {
                give(&mut registry, n);
            }
        }
    }
}
