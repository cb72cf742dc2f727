//! The writer's thread: one sync for many, fencing, a hanging disk.

use super::*;
use crate::{
    audit::{
        LogOptions,
        storage::faulty::{Call, Faulty},
        verify,
    },
    types::{SystemClock, Timestamp},
};

fn log(storage: &Faulty) -> Result<Log, crate::audit::OpenError> {
    Log::open(
        Arc::new(storage.clone()),
        LogOptions {
            segment_size: 1 << 20,
            remembered_ids: 1_000,
            version: "test".to_owned(),
            clock: Arc::new(crate::types::ManualClock::at(Timestamp::from_secs(
                1_800_000_000,
            ))),
            checkpoints: None,
        },
    )
}

fn start(storage: &Faulty, fence: &Fence) -> (Writer, Arc<Progress>) {
    let (progress, clock) = (Arc::new(Progress::default()), Arc::new(SystemClock::new()));
    let ticket = (fence.clone(), fence.raise());
    let writer = Writer::start(
        log(storage).unwrap(),
        ticket,
        progress.clone(),
        clock,
        64,
        32,
    )
    .unwrap();
    (writer, progress)
}

fn event(n: u8) -> (EventId, AuditEvent) {
    (
        EventId([n; 16]),
        AuditEvent::NodeStopping {
            reason: format!("number {n}"),
        },
    )
}

fn record(writer: &Writer, n: u8) -> oneshot::Receiver<Result<Recorded, AuditFault>> {
    let (id, event) = event(n);
    writer.record(id, event)
}

#[tokio::test]
async fn records_that_wait_together_share_a_sync() {
    let storage = Faulty::new(1);
    let (writer, _) = start(&storage, &Fence::default());
    storage.hang(true);
    let waiting: Vec<_> = (1..=20).map(|n| record(&writer, n)).collect();
    storage.hang(false);
    for answer in waiting {
        assert!(answer.await.unwrap().is_ok());
    }
    writer.flush().await.unwrap().unwrap();
    let syncs = storage
        .calls()
        .iter()
        .filter(|call| **call == Call::Sync)
        .count();
    assert!(
        syncs <= 4,
        "one for the segment, and one or two for 20 records: {syncs}"
    );
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_hanging_disk_shows() {
    let storage = Faulty::new(1);
    let (writer, progress) = start(&storage, &Fence::default());
    storage.hang(true);
    let waiting: Vec<_> = (0..200).map(|n| record(&writer, n)).collect();
    let clock = SystemClock::new();
    let mut refused = 0;
    let mut pending = Vec::new();
    for mut answer in waiting {
        match answer.try_recv() {
            Ok(Err(AuditFault::QueueFull)) => refused += 1,
            Ok(other) => panic!("answered while the disk hangs: {other:?}"),
            Err(_) => pending.push(answer),
        }
    }
    assert!(refused >= 200 - 64 - 32, "{refused}");
    while progress.busy(&clock).is_zero() {
        tokio::task::yield_now().await;
    }
    storage.hang(false);
    for answer in pending {
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_fenced_writer_writes_nothing_more_and_lets_go_of_the_log() {
    let storage = Faulty::new(1);
    let fence = Fence::default();
    let (old, _) = start(&storage, &fence);
    record(&old, 1).await.unwrap().unwrap();
    let ticket = fence.raise();
    assert_eq!(record(&old, 2).await.unwrap(), Err(AuditFault::Stopped));
    let taken_over = loop {
        match log(&storage) {
            Ok(log) => break log,
            Err(crate::audit::OpenError::Locked(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let progress = Arc::new(Progress::default());
    let clock = Arc::new(SystemClock::new());
    let new = Writer::start(taken_over, (fence, ticket), progress, clock, 64, 32).unwrap();
    assert_eq!(
        record(&new, 1).await.unwrap(),
        Ok(Recorded {
            sequence: 1,
            repeated: true
        }),
        "a repeat is recognised by the next incarnation"
    );
    record(&new, 2).await.unwrap().unwrap();
    let mut ids = Vec::new();
    let report = verify::for_each_record(&storage, |entry, _| ids.push(entry.id)).unwrap();
    assert!(report.is_intact());
    assert_eq!(ids[1..], [event(1).0, event(2).0]);
}

#[tokio::test]
async fn the_fence_alone_keeps_an_old_writer_from_writing() {
    let storage = Faulty::new(1);
    storage.without_lock();
    let fence = Fence::default();
    let (old, _) = start(&storage, &fence);
    record(&old, 1).await.unwrap().unwrap();
    // The new one is at work already, which the lock would not have allowed.
    let (new, _) = start(&storage, &fence);
    record(&new, 2).await.unwrap().unwrap();
    let bytes = storage.bytes("00000001.jsonl");
    assert_eq!(record(&old, 3).await.unwrap(), Err(AuditFault::Stopped));
    assert_eq!(storage.bytes("00000001.jsonl"), bytes);
    record(&new, 4).await.unwrap().unwrap();
    assert!(verify(&storage).unwrap().is_intact());
}
