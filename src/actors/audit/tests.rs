//! The actor under its real root: no restart, no hanging disk and no flood makes a record be
//! missing, be twice, or be granted before it is durable.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    audit::{AuditEvent, for_each_record, storage::faulty::Faulty},
    config::{RestartConfig, SupervisionConfig},
    supervision::{ActorRef, Inject, Placement, Root},
    telemetry::Metrics,
    types::SystemClock,
};

/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

struct House {
    root: Root,
    actor: ActorRef<AuditActor>,
    tools: AuditTools,
    metrics: Metrics,
}

type Answer = Result<Recorded, AuditUnavailable>;

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

/// A log on `storage`, its actor running.
async fn house(storage: impl Storage, config: AuditConfig) -> House {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut tools = AuditTools::new(PathBuf::new(), config, clock.clone(), None);
    tools.storage = Arc::new(storage);
    drop(tools.open().unwrap());
    let default = RestartConfig {
        backoff_initial: Duration::from_millis(1).into(),
        backoff_max: Duration::from_millis(5).into(),
        faults: 10_000,
        ..RestartConfig::default()
    };
    let supervision = SupervisionConfig {
        default,
        ..SupervisionConfig::default()
    };
    let (root, _) = Root::new(&supervision, clock, true);
    let given = tools.clone();
    let actor = root.spawn(Placement::Own, move |incarnation| {
        Ok(AuditActor::new(incarnation, given.clone()))
    });
    let mut generation = actor.generation();
    generation.wait_for(|now| *now > 0).await.unwrap();
    House {
        root,
        actor,
        tools,
        metrics: Metrics::new(),
    }
}

/// Small batches: many syncs, so that a restart falls between them.
fn small_batches(batch: usize) -> AuditConfig {
    AuditConfig {
        batch,
        ..AuditConfig::default()
    }
}

fn event(n: usize) -> AuditEvent {
    AuditEvent::NodeStopping {
        reason: format!("number {n}"),
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let look = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, look).await.is_ok(),
        "never: {what}"
    );
}

impl House {
    fn handle(&self, timeout: Duration) -> AuditHandle {
        let clock = self.tools.clock.clone();
        AuditHandle::new(self.actor.clone(), clock, timeout, self.metrics.clone())
    }

    /// Asks for so many records at once; each waits in a task of its own.
    fn record(&self, count: usize) -> Vec<JoinHandle<Answer>> {
        let handle = self.handle(LONG);
        (0..count)
            .map(|n| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.record(event(n)).await })
            })
            .collect()
    }

    /// All of them, which must have been acknowledged.
    async fn acknowledged(asked: Vec<JoinHandle<Answer>>) -> Vec<Recorded> {
        let mut answers = Vec::new();
        for task in asked {
            answers.push(task.await.unwrap().unwrap());
        }
        answers
    }

    /// Has the actor panic, and waits until its fault is known; not until it runs again.
    async fn panic(&self) {
        let before = self.actor.snapshot().restarts;
        let control = self.root.control("audit").unwrap();
        control.inject(Inject::Panic).unwrap();
        eventually("the fault is known", || {
            self.actor.snapshot().restarts > before
        })
        .await;
    }

    /// The reasons on record with their places, in order; the log must be intact.
    fn recorded(&self) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let report = for_each_record(&*self.tools.storage, |entry, line| {
            let value: Value = serde_json::from_slice(line).unwrap();
            if entry.event == "node_stopping" {
                let reason = value["status_detail"].as_str().unwrap();
                found.push((entry.sequence, reason.to_owned()));
            }
        });
        let report = report.unwrap();
        assert!(report.is_intact(), "{:#?}", report.findings);
        found
    }

    /// Each of `answers` is on record where it says, and nothing is there twice.
    fn check(&self, answers: &[Recorded]) {
        let recorded = self.recorded();
        let places: HashMap<&str, u64> = recorded
            .iter()
            .map(|(place, reason)| (reason.as_str(), *place))
            .collect();
        assert_eq!(places.len(), recorded.len(), "a record stands twice");
        assert_eq!(recorded.len(), answers.len());
        for (n, answer) in answers.iter().enumerate() {
            let reason = format!("number {n}");
            assert_eq!(places.get(reason.as_str()), Some(&answer.sequence), "{n}");
        }
    }
}

#[test]
fn records_survive_panics_under_traffic_and_stand_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let house = house(Directory::at(dir.path()), small_batches(4)).await;
        let asked = house.record(200);
        for written in [10, 60, 120] {
            let progress = &house.tools.progress;
            eventually("traffic flows", || progress.records() >= written).await;
            house.panic().await;
        }
        let answers = House::acknowledged(asked).await;
        house.check(&answers);
        assert!(house.actor.snapshot().restarts >= 3);
        // The real directory, judged from outside.
        let report = crate::audit::verify(&Directory::at(dir.path())).unwrap();
        assert!(report.is_intact() && report.records >= 200);
    });
}

/// The record is durable, its answer is lost in the panic: asked again under its id it is
/// recognised.
#[test]
fn an_event_whose_answer_was_lost_is_recognised() {
    run(async {
        let storage = Faulty::new(1);
        let house = house(storage.clone(), AuditConfig::default()).await;
        storage.hang(true);
        let asked = house.record(1);
        eventually("it is being written", || storage.waiting() == 1).await;
        house.panic().await;
        storage.hang(false);
        let answers = House::acknowledged(asked).await;
        assert!(answers[0].repeated);
        house.check(&answers);
    });
}

/// No lock here, which would keep the next writer out as well: the fence alone has the old
/// writer write nothing after the batch it is at.
#[test]
fn an_old_writer_stops_at_the_fence() {
    run(async {
        let storage = Faulty::new(1);
        storage.without_lock();
        let house = house(storage.clone(), small_batches(1)).await;
        storage.hang(true);
        let asked = house.record(20);
        eventually("the first is being written", || storage.waiting() == 1).await;
        // Messages are handled in order: the others are in the old writer's queue by then.
        for _ in 0..3 {
            let look = Tail { count: 0 };
            house.actor.ask(look, LONG).await.unwrap().unwrap();
        }
        house.panic().await;
        eventually("the next has read the log", || storage.waiting() == 2).await;
        storage.hang(false);
        let answers = House::acknowledged(asked).await;
        house.check(&answers);
    });
}

#[test]
fn a_full_queue_is_asked_again() {
    run(async {
        let config = AuditConfig {
            queue: 1,
            ..small_batches(1)
        };
        let house = house(Faulty::new(1), config).await;
        let asked = house.record(50);
        let answers = House::acknowledged(asked).await;
        assert!(answers.iter().all(|answer| !answer.repeated));
        house.check(&answers);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a real deadline")]
fn a_hanging_disk_denies_in_time_and_shows_itself() {
    run(async {
        let storage = Faulty::new(1);
        let config = AuditConfig {
            stall_exit: Duration::from_millis(50).into(),
            ..AuditConfig::default()
        };
        let house = house(storage.clone(), config).await;
        let handle = house.handle(Duration::from_millis(100));
        assert!(house.tools.disk_stalled().now_or_never().is_none());
        storage.hang(true);
        let start = Instant::now();
        let answer = handle.record(event(0)).await;
        assert_eq!(answer, Err(AuditUnavailable::Timeout));
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(100) && took < LONG / 2,
            "{took:?}"
        );
        let stalled = tokio::time::timeout(LONG, house.tools.disk_stalled());
        assert!(stalled.await.is_ok(), "the node would end");
        storage.hang(false);
        let next = house.handle(LONG).record(event(1)).await.unwrap();
        // The first was denied in time and is on record all the same, once.
        let reasons: Vec<_> = house.recorded().into_iter().map(|found| found.1).collect();
        assert_eq!(reasons, ["number 0", "number 1"]);
        assert_eq!(next.sequence, 2);
    });
}

#[test]
fn a_full_disk_refuses_at_once_and_by_name() {
    run(async {
        let storage = Faulty::new(1);
        let house = house(storage.clone(), AuditConfig::default()).await;
        storage.set(crate::audit::storage::faulty::Faults {
            space: Some(0),
            ..Default::default()
        });
        let answer = house.handle(LONG).record(event(0)).await;
        assert_eq!(answer, Err(AuditUnavailable::Refused(AuditFault::DiskFull)));
        storage.set(Default::default());
        house.handle(LONG).record(event(0)).await.unwrap();
    });
}

#[test]
fn notes_are_bounded_in_order_and_dropped_ones_counted() {
    run(async {
        let house = house(Faulty::new(1), AuditConfig::default()).await;
        let handle = house.handle(LONG);
        // Nothing is awaited, so the task that writes them has not run yet.
        for n in 0..handle::NOTES + 3 {
            handle.note(event(n));
        }
        let metrics = house.metrics.encode();
        assert!(
            metrics.contains("quantraband_audit_dropped_total 3\n"),
            "{metrics}"
        );
        tokio::time::timeout(LONG, handle.settle()).await.unwrap();
        let recorded = house.recorded();
        assert_eq!(recorded.len(), handle::NOTES);
        for (n, (_, reason)) in recorded.iter().enumerate() {
            assert_eq!(*reason, format!("number {n}"));
        }
    });
}

/// Its thread has ended under a living actor: without a restart it would refuse for ever.
#[test]
fn an_actor_whose_writer_has_ended_is_restarted() {
    run(async {
        let house = house(Faulty::new(1), AuditConfig::default()).await;
        // A writer that is not admitted any more ends before its next batch.
        let _ = house.tools.fence.raise();
        let answers = House::acknowledged(house.record(1)).await;
        assert!(house.actor.snapshot().restarts > 0);
        house.check(&answers);
    });
}
