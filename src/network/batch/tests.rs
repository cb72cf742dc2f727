use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MS: Duration = Duration::from_millis(1);

fn topic(n: u8) -> Topic {
    Topic::try_new(&format!("t/{n}")).unwrap()
}

fn entry(payload: usize) -> Entry {
    Entry::plain(vec![0; payload])
}

fn payloads(batch: &Batch<u64>) -> Vec<usize> {
    batch
        .entries
        .iter()
        .map(|entry| entry.payload.len())
        .collect()
}

#[test]
fn a_batch_leaves_when_it_is_full_or_its_time_has_come() {
    let mut batcher = Batcher::new(Rules::new(MS * 5, 1_000, 3));
    let t = topic(1);
    batcher.push(&t, entry(1), 1, MS).unwrap();
    assert_eq!(batcher.next_due(), Some(MS * 6));
    assert!(batcher.take(MS * 5).is_none());
    batcher.push(&t, entry(2), 1, MS * 5).unwrap();
    let batch = batcher.take(MS * 6).unwrap();
    assert_eq!(
        (payloads(&batch), batch.owners.clone()),
        (vec![1, 2], vec![(1, 2)])
    );
    assert!(batcher.take(MS * 6).is_none());
    batcher.sent(&batch, MS * 6);
    assert_eq!(batcher.waiting(), (0, 0));
    for owner in [1, 1, 2, 2] {
        batcher.push(&t, entry(1), owner, MS * 7).unwrap();
    }
    let batch = batcher.take(MS * 7).unwrap();
    assert_eq!(batch.owners, [(1, 2), (2, 1)], "full, and due at once");
    assert!(batcher.take(MS * 20).is_none(), "one of a topic at a time");
    batcher.sent(&batch, MS * 7);
    assert_eq!(batcher.next_due(), Some(MS * 12));
}

#[test]
fn without_a_delay_everything_is_due_at_once() {
    let mut batcher = Batcher::new(Rules::new(Duration::ZERO, 1_000, 100));
    batcher.push(&topic(1), entry(1), 1_u64, MS).unwrap();
    batcher.push(&topic(1), entry(2), 2, MS).unwrap();
    assert_eq!(payloads(&batcher.take(MS).unwrap()), [1, 2]);
}

#[test]
fn a_large_message_sends_off_what_is_before_it_and_travels_alone() {
    let mut batcher = Batcher::new(Rules::new(MS * 5, 100, 10));
    let t = topic(1);
    for size in [1, 2, 500, 3] {
        batcher.push(&t, entry(size), 1, MS).unwrap();
    }
    let mut sent = Vec::new();
    while let Some(batch) = batcher.take(MS) {
        batcher.sent(&batch, MS);
        sent.push(payloads(&batch));
    }
    assert_eq!(sent, [vec![1, 2], vec![500]]);
    assert_eq!(payloads(&batcher.take(MS * 6).unwrap()), [3]);
}

#[test]
fn what_is_refused_keeps_its_place_and_is_given_back_in_the_end() {
    let mut batcher = Batcher::new(Rules::new(MS, 1_000, 2));
    for n in 1..=4 {
        batcher.push(&topic(1), entry(n), 1, MS).unwrap();
    }
    batcher.push(&topic(2), entry(9), 1, MS).unwrap();
    let mut batch = batcher.take(MS).unwrap();
    batch.first = Some(7);
    assert_eq!(batcher.refused(batch, MS), []);
    let other = batcher.take(MS * 2).unwrap();
    assert_eq!(payloads(&other), [9], "other topics go on");
    batcher.sent(&other, MS * 2);
    assert!(batcher.take(MS * 5).is_none());
    let mut now = MS + RETRY;
    let mut tries = 1;
    let gone = loop {
        tries += 1;
        let batch = batcher.take(now).unwrap();
        assert_eq!((payloads(&batch), batch.first), (vec![1, 2], Some(7)));
        let gone = batcher.refused(batch, now);
        if !gone.is_empty() {
            break gone;
        }
        now = batcher.next_due().unwrap();
    };
    assert!(now >= MS + GIVE_UP);
    // Gossipsub keeps and offers each of them.
    assert!((10..25).contains(&tries), "{tries}");
    let gone: Vec<_> = gone.iter().map(payloads).collect();
    assert_eq!(gone, [vec![1, 2], vec![3, 4]], "nothing overtakes it");
    assert_eq!((batcher.waiting(), batcher.next_due()), ((0, 0), None));
}

#[test]
fn what_waits_of_somebody_can_be_withdrawn_but_for_what_is_tried() {
    let mut batcher = Batcher::new(Rules::new(MS * 9, 1_000, 2));
    for owner in [1, 1, 1, 2, 1] {
        batcher.push(&topic(1), entry(4), owner, MS).unwrap();
    }
    batcher.push(&topic(2), entry(1), 1, MS).unwrap();
    let batch = batcher.take(MS).unwrap();
    assert_eq!(batcher.refused(batch, MS), []);
    assert_eq!(batcher.withdraw(1, MS), 3);
    assert_eq!(batcher.waiting().0, 3);
    let batch = batcher.take(MS * 6).unwrap();
    assert_eq!(batch.owners, [(1, 2)]);
    batcher.sent(&batch, MS * 6);
    assert_eq!(
        batcher.next_due(),
        Some(MS * 10),
        "the other topic is empty"
    );
    let batch = batcher.take(MS * 10).unwrap();
    assert_eq!(batch.owners, [(2, 1)]);
    batcher.sent(&batch, MS * 10);
    assert_eq!((batcher.waiting(), batcher.next_due()), ((0, 0), None));
}

#[test]
fn room_is_what_push_takes() {
    let mut batcher = Batcher::new(Rules::new(MS, usize::MAX, 2));
    let half = MAX_WAITING_BYTES / 2 + 1;
    assert_eq!(batcher.room([half, half].into_iter()), 1);
    assert_eq!(batcher.room([MAX_WAITING_BYTES * 2, 1].into_iter()), 1);
    assert_eq!(
        batcher.room(std::iter::repeat_n(1, MAX_WAITING + 5)),
        MAX_WAITING
    );
    batcher.push(&topic(1), entry(half), 1_u64, MS).unwrap();
    assert_eq!(batcher.room([1, half].into_iter()), 1);
}

#[test]
fn it_is_bounded_and_one_message_of_any_size_fits() {
    let mut batcher = Batcher::new(Rules::new(MS, usize::MAX, 2));
    let half = MAX_WAITING_BYTES / 2 + 1;
    batcher.push(&topic(1), entry(half), 1_u64, MS).unwrap();
    assert_eq!(batcher.push(&topic(2), entry(half), 1, MS), Err(Full));
    batcher.push(&topic(2), entry(1), 1, MS).unwrap();
    let mut batcher = Batcher::new(Rules::new(MS, usize::MAX, 2));
    batcher
        .push(&topic(1), entry(MAX_WAITING_BYTES), 1_u64, MS)
        .unwrap();
    assert_eq!(batcher.push(&topic(1), entry(0), 1, MS), Err(Full));
    let mut batcher = Batcher::new(Rules::new(MS, usize::MAX, 2));
    for _ in 0..MAX_WAITING {
        batcher.push(&topic(1), entry(0), 1_u64, MS).unwrap();
    }
    assert_eq!(batcher.push(&topic(2), entry(0), 1, MS), Err(Full));
    let waiting: usize = batcher.abandon().iter().map(|b| b.entries.len()).sum();
    assert_eq!((waiting, batcher.waiting()), (MAX_WAITING, (0, 0)));
    assert_eq!(batcher.next_due(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, usize),
    Wait(u64),
    /// The network takes none of the next batch.
    Refuse,
    /// The rules change.
    Rules(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..3, 0_usize..40).prop_map(|(topic, size)| Step::Push(topic, size)),
        1 => (0_u8..3, 100_usize..300).prop_map(|(topic, size)| Step::Push(topic, size)),
        3 => (0_u64..8).prop_map(Step::Wait),
        1 => Just(Step::Refuse),
        1 => (1_usize..200, 1_usize..9).prop_map(|(bytes, count)| Step::Rules(bytes, count)),
    ];
    proptest::collection::vec(step, 1..200)
}

fn send_one(
    batcher: &mut Batcher<u64>,
    batch: &Batch<u64>,
    now: Duration,
    sent: &mut BTreeMap<Topic, Vec<u64>>,
) {
    for (owner, n) in &batch.owners {
        assert_eq!(*n, 1);
        sent.entry(batch.topic.clone()).or_default().push(*owner);
    }
    batcher.sent(batch, now);
}

/// Sends everything that is due, in the time at which it is due.
fn send_due(
    batcher: &mut Batcher<u64>,
    now: Duration,
    came: &BTreeMap<u64, Duration>,
    held: &BTreeSet<Topic>,
    (delay, bytes, count): (Duration, usize, usize),
    sent: &mut BTreeMap<Topic, Vec<u64>>,
) {
    while let Some(batch) = batcher.take(now) {
        // What was refused was cut by the rules of before.
        if batch.until.is_none() {
            assert!(batch.entries.len() <= count);
            assert!(batch.bytes() <= bytes || batch.entries.len() == 1);
        }
        for (owner, _) in &batch.owners {
            // What stands behind a refused one of its topic waits for it.
            if !held.contains(&batch.topic) {
                assert!(came[owner] + delay >= now, "late");
            }
        }
        send_one(batcher, &batch, now, sent);
    }
}

proptest! {
    /// Nothing is lost, nothing leaves twice, each topic keeps its order, the bounds hold, and
    /// whatever the network does not refuse leaves by its deadline.
    #[test]
    fn everything_leaves_once_in_order_and_in_time(
        steps in steps(),
        delay in 0_u32..6,
        bytes in 1_usize..200,
        count in 1_usize..9,
    ) {
        let mut rules = (MS * delay, bytes, count);
        let mut batcher = Batcher::new(Rules::new(rules.0, bytes, count));
        let (mut now, mut next) = (Duration::ZERO, 0_u64);
        let mut pushed: BTreeMap<Topic, Vec<u64>> = BTreeMap::new();
        let mut came = BTreeMap::new();
        let mut sent = BTreeMap::new();
        let mut held = BTreeSet::new();
        for step in steps {
            match step {
                Step::Push(to, size) => {
                    next += 1;
                    batcher.push(&topic(to), entry(size), next, now).unwrap();
                    pushed.entry(topic(to)).or_default().push(next);
                    came.insert(next, now);
                }
                Step::Wait(ms) => {
                    // As the owner does: it wakes when something is due.
                    let until = now + MS * u32::try_from(ms).unwrap();
                    while let Some(due) = batcher.next_due().filter(|due| *due <= until) {
                        now = now.max(due);
                        send_due(&mut batcher, now, &came, &held, rules, &mut sent);
                    }
                    now = until;
                }
                Step::Refuse => {
                    if let Some(batch) = batcher.take(now) {
                        held.insert(batch.topic.clone());
                        if batch.until.is_none_or(|until| now < until) {
                            prop_assert_eq!(batcher.refused(batch, now), []);
                        } else {
                            send_one(&mut batcher, &batch, now, &mut sent);
                        }
                    }
                }
                Step::Rules(bytes, count) => {
                    rules = (rules.0, bytes, count);
                    batcher.set_rules(Rules::new(rules.0, bytes, count));
                }
            }
            let waiting: usize = came.len() - sent.values().map(Vec::len).sum::<usize>();
            prop_assert_eq!(batcher.waiting().0, waiting);
        }
        while let Some(due) = batcher.next_due() {
            now = now.max(due);
            send_due(&mut batcher, now, &came, &held, rules, &mut sent);
        }
        prop_assert_eq!(batcher.waiting(), (0, 0));
        prop_assert_eq!(sent, pushed);
    }
}
