//! The actor and its handle across faults: nothing acknowledged is missing or stands twice.

use std::{collections::BTreeSet, path::Path};

use super::*;
use crate::{
    audit::{AuditEvent, for_each_record, verify},
    config::{RestartConfig, SupervisionConfig},
    supervision::{ActorRef, Inject, Placement, Root},
    telemetry::Metrics,
    types::{EventId, SystemClock},
};

/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

struct House {
    root: Root,
    actor: ActorRef<AuditActor>,
    handle: AuditHandle,
    tools: AuditTools,
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

fn house(path: &Path) -> House {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let supervision = SupervisionConfig {
        default: RestartConfig {
            faults: 100,
            backoff_initial: Duration::from_millis(1).into(),
            backoff_max: Duration::from_millis(2).into(),
            ..RestartConfig::default()
        },
        ..SupervisionConfig::default()
    };
    let (root, _) = Root::new(&supervision, Arc::clone(&clock), true);
    let tools = AuditTools::new(path.to_owned(), AuditConfig::default(), Arc::clone(&clock));
    let own = tools.clone();
    let actor = root.spawn(Placement::Own, move |incarnation| {
        Ok(AuditActor::new(incarnation, own.clone()))
    });
    let handle = AuditHandle::new(actor.clone(), clock, LONG, Metrics::new());
    House {
        root,
        actor,
        handle,
        tools,
    }
}

fn event(n: u64) -> AuditEvent {
    AuditEvent::NodeStopping {
        reason: format!("number {n}"),
    }
}

fn intact(path: &Path) -> u64 {
    let report = verify(&Directory::at(path)).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    report.records
}

#[test]
fn what_is_recorded_under_faults_stands_in_the_log_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(dir.path());
        let callers = (0..8_u64).map(|caller| {
            let handle = house.handle.clone();
            async move {
                let mut places = Vec::new();
                for n in 0..20 {
                    let recorded = handle.record(event(caller * 100 + n)).await.unwrap();
                    places.push(recorded.sequence);
                }
                places
            }
        });
        let faults = async {
            for kind in [Inject::Panic, Inject::Error, Inject::Panic] {
                let before = house.actor.snapshot().restarts;
                house.root.control("audit").unwrap().inject(kind).unwrap();
                while house.actor.ask(FlushLog, LONG).await.is_err()
                    || house.actor.snapshot().restarts == before
                {}
            }
        };
        let (places, ()) = tokio::join!(futures::future::join_all(callers), faults);
        let distinct: BTreeSet<u64> = places.iter().flatten().copied().collect();
        assert_eq!(distinct.len(), 8 * 20);
        house.root.stop_all(LONG).await.unwrap();
        let mut texts = Vec::new();
        for_each_record(&Directory::at(dir.path()), |entry, line| {
            if entry.event == "node_stopping" {
                assert!(distinct.contains(&entry.sequence));
                texts.push(line.to_vec());
            }
        })
        .unwrap();
        assert_eq!(texts.len(), 8 * 20, "each stands once");
        intact(dir.path());
    });
}

#[test]
fn a_repeat_is_recognised_by_the_next_incarnation() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(dir.path());
        let record = RecordEvent {
            id: EventId::random(),
            event: event(1),
        };
        let first = house.actor.ask(record.clone(), LONG).await.unwrap();
        let first = first.unwrap();
        house
            .root
            .control("audit")
            .unwrap()
            .restart("test")
            .unwrap();
        let again = loop {
            if let Ok(Ok(again)) = house.actor.ask(record.clone(), LONG).await
                && house.actor.snapshot().restarts > 0
            {
                break again;
            }
        };
        assert_eq!((again.sequence, again.repeated), (first.sequence, true));
        house.root.stop_all(LONG).await.unwrap();
        assert_eq!(intact(dir.path()), 2);
    });
}

#[test]
fn an_actor_whose_writer_has_ended_is_restarted() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(dir.path());
        house.handle.record(event(1)).await.unwrap();
        // As if the thread had ended: it does so before its next batch.
        let _ = house.tools.fence.raise();
        let recorded = house.handle.record(event(2)).await.unwrap();
        assert_eq!((recorded.sequence, recorded.repeated), (2, false));
        assert!(house.actor.snapshot().restarts > 0);
        house.root.stop_all(LONG).await.unwrap();
        intact(dir.path());
    });
}

#[test]
fn notes_settle_and_the_tail_shows_them() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(dir.path());
        for n in 0..500 {
            house.handle.note(event(n));
        }
        house.handle.settle().await;
        let newest = house.actor.ask(Tail { count: 3 }, LONG).await.unwrap();
        let newest = newest.unwrap();
        assert_eq!(newest.len(), 3);
        assert!(newest[2].contains("number 499"), "in the order noted");
        let segment = house.actor.ask(RotateLog, LONG).await.unwrap();
        assert_eq!(segment.unwrap(), "00000002.jsonl");
        house.root.stop_all(LONG).await.unwrap();
        assert_eq!(intact(dir.path()), 502);
    });
}

#[test]
fn another_nodes_log_is_not_touched() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(dir.path());
        house.handle.record(event(1)).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let other = AuditTools::new(dir.path().to_owned(), AuditConfig::default(), clock);
        assert!(matches!(other.open(), Err(OpenError::Locked(_))));
        house.root.stop_all(LONG).await.unwrap();
    });
}
