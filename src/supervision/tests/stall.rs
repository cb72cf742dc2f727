//! Hangs: who is restarted in place, who escalates, and who is left alone.

use std::time::Duration;

use actix::{Actor, Context, Handler};

use super::support::{Count, Do, House, LONG, Plan, add, get, run, until};
use crate::supervision::{
    AskError, Cause, Inject, Placement, RunState, Supervise, SupervisionEvent,
    slot::Pulse,
    watch::{Judgement, Observation},
};

/// Limits short enough for a test, long enough for a busy machine.
fn quick() -> Plan {
    Plan::new().restart(|config| config.stall = Duration::from_millis(400).into())
}

#[test]
fn an_async_hang_is_restarted_in_place() {
    run(async {
        let mut house = quick().build();
        house.count().await;
        house.imp.tell(Do::Hang).expect("room");
        assert_eq!(house.count().await, 1, "answered by the next incarnation");
        let fault = house.imp.snapshot().last_fault.expect("a fault");
        assert_eq!(fault.cause, Cause::Stall);
        let thread = house
            .event(|event| match event {
                SupervisionEvent::Stalled { thread, .. } => Some(thread),
                _ => None,
            })
            .await;
        assert!(!thread);
    });
}

#[test]
fn an_injected_hang_and_a_full_mailbox_do_not_hide_it() {
    run(async {
        let house = quick().restart(|config| config.mailbox = 2).build();
        house.count().await;
        house
            .root
            .control("imp")
            .expect("there")
            .inject(Inject::Hang)
            .expect("allowed");
        until(|| house.imp.tell(Count).is_err()).await;
        until(|| {
            house
                .imp
                .snapshot()
                .restarts_by_cause
                .contains_key(&Cause::Stall)
        })
        .await;
        until(|| house.imp.snapshot().mailbox == 0).await;
    });
}

#[test]
fn a_stuck_thread_escalates_and_is_not_replaced() {
    run(async {
        for inject in [false, true] {
            let mut house = quick().build();
            house.count().await;
            if inject {
                house
                    .root
                    .control("imp")
                    .expect("there")
                    .inject(Inject::Block)
                    .expect("allowed");
            } else {
                house
                    .imp
                    .tell(Do::Block(LONG.saturating_mul(20)))
                    .expect("room");
            }
            let escalation = house.root.escalated().await;
            assert_eq!((escalation.actor, escalation.code), ("imp", 70));
            assert_eq!(escalation.report.cause, Cause::Stall);
            assert!(escalation.report.detail.contains("thread is stuck"));
            assert_eq!(house.imp.snapshot().state, RunState::Down);
            assert_eq!(house.imp.ask(Count, LONG).await, Err(AskError::Down));
            assert_eq!(get(&house.log.built), 1);
            let stuck = house.event(|event| match event {
                SupervisionEvent::Stalled { thread, .. } => Some(thread),
                _ => None,
            });
            assert!(stuck.await);
        }
    });
}

#[test]
fn an_actor_given_up_does_nothing_when_its_thread_comes_back() {
    run(async {
        let house = quick().build();
        house.count().await;
        house
            .imp
            .tell(Do::Block(Duration::from_millis(1_500)))
            .expect("room");
        let queued = house.imp.ask(Count, LONG);
        let (escalation, queued) = futures::join!(house.root.escalated(), queued);
        assert_eq!(escalation.actor, "imp");
        assert_eq!(queued, Err(AskError::Down));
        until(|| get(&house.log.dropped) == 1).await;
        assert_eq!((get(&house.log.handled), get(&house.log.built)), (1, 1));
        assert_eq!(get(&house.log.hooks), 0);
    });
}

#[test]
fn work_that_tells_of_progress_is_no_stall() {
    run(async {
        let house = Plan::new()
            .restart(|config| config.stall = Duration::from_millis(700).into())
            .build();
        let work = house.imp.ask(Do::Work(Duration::from_millis(1_800)), LONG);
        assert_eq!(work.await, Ok(()));
        assert_eq!(house.count().await, 1, "neither given up nor restarted");
        assert_eq!(house.imp.snapshot().restarts, 0);
    });
}

#[test]
fn a_long_queue_is_no_stall() {
    run(async {
        let house = quick().build();
        // Three times the limit of steady work.
        for _ in 0..120 {
            house
                .imp
                .tell(Do::Block(Duration::from_millis(10)))
                .expect("room");
        }
        assert_eq!(house.count().await, 1);
        assert_eq!(house.imp.snapshot().restarts, 0);
    });
}

#[test]
fn an_idle_actor_is_no_stall() {
    run(async {
        let house = quick().build();
        house.count().await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!(house.count().await, 2);
    });
}

/// Shares an arbiter with whoever is stuck.
struct Bystander;

impl Actor for Bystander {
    type Context = Context<Self>;
}
crate::supervised!(Bystander);

impl Supervise for Bystander {
    const NAME: &'static str = "bystander";
    type Observable = ();

    fn observe(&self) {}
}

impl Handler<Count> for Bystander {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        1
    }
}

#[test]
fn a_neighbour_of_a_stuck_actor_is_not_blamed_for_it() {
    run(async {
        let mut plan = quick().restart(|config| config.stall = Duration::from_secs(1).into());
        plan.placement = Placement::Shared;
        let house = plan.build();
        let neighbour = house.root.spawn(Placement::Shared, |_| Ok(Bystander));
        neighbour.ask(Count, LONG).await.expect("an answer");
        house
            .imp
            .tell(Do::Block(Duration::from_millis(1_600)))
            .expect("room");
        assert_eq!(house.root.escalated().await.actor, "imp");
        assert_eq!(
            neighbour.ask(Count, LONG).await,
            Ok(1),
            "once the thread is back"
        );
        assert_eq!(neighbour.snapshot().restarts, 0);
    });
}

#[test]
fn a_thread_held_by_something_else_escalates_in_the_end() {
    run(async {
        let house = quick().build();
        house.count().await;
        let log = house.log.clone();
        // Not an actor, but on the actor's thread.
        let (handle, got) = tokio::sync::oneshot::channel();
        let probe = house.root.spawn(Placement::Shared, {
            let mut handle = Some(handle);
            move |_| {
                if let Some(handle) = handle.take() {
                    let _ = handle.send(actix::Arbiter::current());
                }
                Ok(Bystander)
            }
        });
        let arbiter = got.await.expect("the factory ran");
        probe.ask(Count, LONG).await.expect("an answer");
        arbiter.spawn_fn(move || {
            add(&log.handled);
            std::thread::sleep(LONG.saturating_mul(20));
        });
        assert_eq!(house.root.escalated().await.actor, "bystander");
        assert_eq!(
            house.count().await,
            2,
            "who has a thread of his own goes on"
        );
    });
}

fn pulse(progress: u64, beats: u64, polling: bool) -> Pulse {
    Pulse {
        state: RunState::Running,
        generation: 1,
        progress,
        beats,
        polling,
    }
}

/// Judges these pulses at rounds of half a second with a limit of four.
fn judge(pulses: impl IntoIterator<Item = Pulse>) -> Vec<Judgement> {
    let mut seen = Observation::default();
    let round = Duration::from_millis(500);
    pulses
        .into_iter()
        .map(|pulse| seen.judge(pulse, round, round * 8))
        .collect()
}

#[test]
fn judgements_follow_from_progress_and_polls() {
    let four = Duration::from_secs(4);
    // Progress, whatever else.
    let fine = judge((0..20).map(|n| pulse(n, n, n.is_multiple_of(2))));
    assert!(fine.iter().all(|judgement| *judgement == Judgement::Fine));
    // A round that took long counts like any other.
    let mut seen = Observation::default();
    let judged: Vec<_> = (0..8)
        .map(|_| seen.judge(pulse(1, 1, true), four * 10, four))
        .collect();
    assert!(judged.iter().all(|judgement| *judgement == Judgement::Fine));
    // Polled without progress: told once.
    let hung = judge((0..20).map(|n| pulse(1, n, false)));
    let told: Vec<_> = hung
        .iter()
        .filter(|judgement| **judgement != Judgement::Fine)
        .collect();
    assert_eq!(told, [&Judgement::Hung(four)]);
    // One and the same poll.
    let stuck = judge((0..9).map(|_| pulse(1, 1, true)));
    assert_eq!(stuck[7], Judgement::Fine);
    assert_eq!(stuck[8], Judgement::Stuck(four));
    // Many polls, caught in the middle of one each time: busy, not stuck.
    let busy = judge((0..20).map(|n| pulse(1, n, true)));
    assert!(busy.iter().all(|judgement| *judgement == Judgement::Fine));
    // Not polled at all: the thread has time to come back.
    let gone = judge((0..17).map(|_| pulse(1, 1, false)));
    assert_eq!(gone[15], Judgement::Fine);
    assert_eq!(gone[16], Judgement::ThreadGone(four * 2));
}

#[test]
fn who_waits_to_be_restarted_is_not_hung() {
    let waiting = |state| {
        judge((0..30).map(move |n| Pulse {
            state,
            ..pulse(1, n / 15, false)
        }))
    };
    for state in [RunState::Backoff, RunState::Down, RunState::Stopped] {
        let judged = waiting(state);
        assert!(
            judged.iter().all(|judgement| *judgement == Judgement::Fine),
            "{state:?}"
        );
    }
}

#[test]
fn a_house_at_rest_raises_no_alarm() {
    run(async {
        let mut house = House::new();
        house.count().await;
        house
            .root
            .control("imp")
            .expect("there")
            .restart("test")
            .expect("it lives");
        until(|| house.imp.snapshot().generation == 2).await;
        while let Ok(event) = house.events.try_recv() {
            assert!(
                !matches!(event, SupervisionEvent::Stalled { .. }),
                "{event:?}"
            );
        }
    });
}
