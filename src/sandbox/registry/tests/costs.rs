//! What a job costs its submitter and this node's disk, whatever it does.

use super::*;

const KIB: u64 = 1 << 10;

/// Room for four outputs of a KiB in all; a peer's share is one.
fn small_disk() -> SandboxConfig {
    config(|c| {
        c.max_output = ByteSize(KIB);
        c.output_storage = ByteSize(4 * KIB);
    })
}

fn printed(bytes: u64) -> Usage {
    Usage {
        stdout: bytes,
        ..Usage::default()
    }
}

#[test]
fn room_for_output_is_reserved_as_long_as_a_job_can_print() {
    let mut registry = Registry::new(small_disk(), me());
    queued(&mut registry, 1, 1, START);
    let second = registry.submit(who(1), spec(2), START);
    assert_eq!(second, Err(Rejection::PeerQueueFull), "a quarter each");
    for n in 2..=4 {
        queued(&mut registry, n, 1, START);
    }
    let fifth = registry.submit(who(5), spec(1), START);
    assert_eq!(fifth, Err(Rejection::QueueFull));
    // Who asks for less gets in sooner.
    let mut modest = spec(1);
    let mut registry = Registry::new(small_disk(), me());
    modest.limits.output = Some(KIB / 2);
    let id = registry.submit(who(1), modest.clone(), START).unwrap().id;
    registry.on_record(&id, START);
    modest.key = IdempotencyKey([2; 16]);
    assert!(registry.submit(who(1), modest, START).is_ok());
}

#[test]
fn results_beyond_the_disk_go_and_the_largest_holder_pays() {
    let mut registry = Registry::new(small_disk(), me());
    let ran = |registry: &mut Registry, n, key, at, bytes| {
        let id = queued(registry, n, key, at);
        assert_eq!(registry.next(at), Some(id));
        registry.finish(id, DONE, printed(bytes), at);
        registry.set_receipt(&id, vec![1]);
        id
    };
    let quiet = ran(&mut registry, 2, 1, START, 100);
    let flood: Vec<_> = (0..5)
        .map(|key| ran(&mut registry, 1, key, later(u64::from(key) + 1), KIB))
        .collect();
    // 5 KiB and 100 bytes are there, 4 KiB may be.
    assert_eq!(registry.due(later(10)).dropped, flood[..2]);
    assert!(registry.job(&quiet).is_some());
    // What an unfinished job may still print takes its place before results do.
    queued(&mut registry, 3, 1, later(11));
    assert_eq!(registry.due(later(11)).dropped, flood[2..3]);
}

#[test]
fn submitting_and_cancelling_is_not_free() {
    let hour = Duration::from_secs(3_600);
    let small = config(|c| c.cpu_per_hour = Span(Duration::from_millis(100)));
    let mut registry = Registry::new(small, me());
    let mut taken = 0;
    for key in 0..20 {
        let Ok(accepted) = registry.submit(who(1), spec(key), START) else {
            break;
        };
        registry.on_record(&accepted.id, START);
        registry.cancel(accepted.id, CancelledBy::Submitter, START);
        taken += 1;
    }
    assert_eq!(taken, 10, "ten milliseconds each");
    assert!(registry.submit(who(2), spec(0), START).is_ok());
    let again = START.after(hour / 10);
    assert!(registry.submit(who(1), spec(21), again).is_ok());
}

#[test]
fn sleeping_in_a_worker_is_charged_for() {
    let small = config(|c| c.cpu_per_hour = Span(Duration::from_secs(60)));
    let mut registry = Registry::new(small, me());
    let id = queued(&mut registry, 1, 1, START);
    registry.next(START);
    let asleep = Usage {
        wall_ms: 600_000,
        ..Usage::default()
    };
    registry.finish(id, DONE, asleep, later(600));
    let next = registry.submit(who(1), spec(2), later(600));
    assert!(matches!(next, Err(Rejection::CpuQuota { .. })), "{next:?}");
    assert_eq!(
        registry.job(&id).unwrap().usage,
        asleep,
        "not in the receipt"
    );
}
