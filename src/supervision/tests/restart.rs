//! What a restart keeps, and what it does not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Handler, Message};

use super::support::{Count, Do, House, LONG, Log, Plan, get, run, until};
use crate::supervision::{AskError, Cause, Fault, Incarnation, Placement, RunState, Supervise};

#[test]
fn a_panic_gives_fresh_state_behind_the_same_reference() {
    run(async {
        let house = House::new();
        assert_eq!(house.count().await, 1);
        assert_eq!(house.count().await, 2);
        let answer = house.imp.ask(Do::Panic, LONG).await;
        assert_eq!(answer, Err(AskError::Restarted));
        assert_eq!(house.count().await, 1, "the state is fresh");
        let fault = house.imp.snapshot().last_fault.expect("a fault");
        assert_eq!(fault.cause, Cause::Panic);
        assert_eq!(fault.detail, "a handler that panics");
    });
}

#[test]
fn every_kind_of_fault_restarts_and_is_told_apart() {
    let cases = [
        (Do::Panic, Cause::Panic, Err(AskError::Restarted)),
        (Do::PanicLater, Cause::Panic, Ok(())),
        (Do::PanicAsync, Cause::Panic, Err(AskError::Restarted)),
        (Do::Fail, Cause::Error, Ok(())),
        (Do::Stop, Cause::Exit, Err(AskError::Restarted)),
        (Do::Terminate, Cause::Exit, Err(AskError::Restarted)),
    ];
    run(async move {
        for (misdeed, cause, answer) in cases {
            let house = House::new();
            assert_eq!(house.count().await, 1);
            let got = house.imp.ask(misdeed, LONG).await;
            // Whether a finished answer or the end of the incarnation comes first is open.
            let restarted = got == Err(AskError::Restarted);
            assert!(got == answer || restarted, "{misdeed:?}: {got:?}");
            until(|| house.imp.snapshot().restarts == 1).await;
            assert_eq!(house.count().await, 1, "{misdeed:?} keeps no state");
            let snapshot = house.imp.snapshot();
            assert_eq!(snapshot.last_fault.map(|fault| fault.cause), Some(cause));
            assert_eq!(snapshot.restarts_by_cause.get(&cause), Some(&1));
            assert_eq!(snapshot.generation, 2);
        }
    });
}

#[test]
fn in_flight_is_restarted_and_queued_is_answered_anew() {
    run(async {
        let house = House::new();
        house.count().await;
        let silent = house.imp.ask(Do::Silence, LONG);
        let panic = house.imp.ask(Do::Panic, LONG);
        let queued = futures::future::join_all((0..50).map(|_| house.imp.ask(Count, LONG)));
        let (silent, panic, queued) = futures::join!(silent, panic, queued);
        assert_eq!(
            silent,
            Err(AskError::Restarted),
            "its future went with the state"
        );
        assert_eq!(panic, Err(AskError::Restarted));
        let expected: Vec<_> = (1..=50).map(Ok).collect();
        assert_eq!(queued, expected, "by one fresh incarnation, in order");
    });
}

#[test]
fn callers_learn_of_a_fault_before_the_backoff_is_over() {
    run(async {
        let house = Plan::new()
            .restart(|config| {
                config.backoff_initial = LONG.saturating_mul(4).into();
                config.backoff_max = LONG.saturating_mul(4).into();
                config.window = LONG.saturating_mul(100).into();
            })
            .build();
        let silent = house.imp.ask(Do::Silence, LONG);
        let panic = house.imp.ask(Do::Panic, LONG);
        let answers = futures::join!(silent, panic);
        assert_eq!(
            answers,
            (Err(AskError::Restarted), Err(AskError::Restarted))
        );
        until(|| get(&house.log.dropped) == 1).await;
        assert_eq!(house.imp.snapshot().state, RunState::Backoff);
    });
}

#[test]
fn hooks_never_see_corrupt_state() {
    run(async {
        let house = House::new();
        for misdeed in [Do::Panic, Do::PanicLater, Do::PanicAsync] {
            let before = house.imp.snapshot().restarts;
            let _ = house.imp.ask(misdeed, LONG).await;
            until(|| house.imp.snapshot().restarts > before).await;
            house.count().await;
        }
        let restart = house
            .root
            .control("imp")
            .expect("it is there")
            .restart("test");
        assert_eq!(restart, Ok(()));
        until(|| house.imp.snapshot().restarts == 4).await;
        house.count().await;
        assert_eq!(get(&house.log.hooks), 0);
        assert_eq!(get(&house.log.stops), 0);
        assert_eq!(get(&house.log.dropped), 4);
    });
}

#[test]
fn panicking_destructors_do_not_abort_the_process() {
    run(async {
        let house = House::new();
        let _ = house.imp.ask(Do::PanicWithBombs, LONG).await;
        until(|| house.imp.snapshot().restarts == 1).await;
        assert_eq!(house.count().await, 1);
        let fault = house.imp.snapshot().last_fault.expect("a fault");
        assert_eq!(fault.detail, "a timer that panics");
    });
}

#[test]
fn the_old_value_is_gone_before_the_factory_makes_the_next() {
    run(async {
        let log = Arc::new(Log::default());
        let house = House::new();
        let overlaps = Arc::new(AtomicUsize::new(0));
        let (made, seen) = (log.clone(), overlaps.clone());
        let imp = house.root.spawn(Placement::Own, move |incarnation| {
            let alive = get(&made.built) - get(&made.dropped);
            seen.fetch_add(alive, Ordering::SeqCst);
            Ok(super::support::Imp::make(&made, incarnation))
        });
        for misdeed in [Do::Panic, Do::Fail, Do::Stop] {
            let before = imp.snapshot().restarts;
            let _ = imp.ask(misdeed, LONG).await;
            until(|| imp.snapshot().restarts > before).await;
            imp.ask(Count, LONG).await.expect("an answer");
        }
        assert_eq!(get(&log.built), 4);
        assert_eq!(get(&overlaps), 0);
    });
}

#[test]
fn an_earlier_life_cannot_harm_the_present_one() {
    run(async {
        let house = House::new();
        let old = Arc::new(std::sync::Mutex::new(None::<Incarnation>));
        let (kept, log) = (old.clone(), house.log.clone());
        let imp = house.root.spawn(Placement::Own, move |incarnation| {
            kept.lock().unwrap().get_or_insert(incarnation.clone());
            Ok(super::support::Imp::make(&log, incarnation))
        });
        let _ = imp.ask(Do::Panic, LONG).await;
        assert_eq!(imp.ask(Count, LONG).await, Ok(1));
        let old = old.lock().unwrap().clone().expect("the first");
        assert_eq!(old.generation(), 1);
        old.fail("too late");
        assert_eq!(imp.ask(Count, LONG).await, Ok(2));
        assert_eq!(imp.snapshot().restarts, 1);
    });
}

#[test]
fn a_new_generation_is_announced_when_it_is_ready() {
    run(async {
        let house = House::new();
        let mut generation = house.imp.generation();
        generation
            .wait_for(|now| *now == 1)
            .await
            .expect("it starts");
        house.imp.tell(Do::Panic).expect("room");
        generation
            .wait_for(|now| *now == 2)
            .await
            .expect("it restarts");
        assert_eq!(get(&house.log.started), 2);
    });
}

/// Cancels a future just before it stops, then sets a timer when it is new.
struct Canceller(u64);

impl Actor for Canceller {
    type Context = Context<Self>;
}
crate::supervised!(Canceller);

#[derive(Message)]
#[rtype(result = "()")]
struct CancelAndStop;

impl Handler<CancelAndStop> for Canceller {
    type Result = ();

    fn handle(&mut self, _: CancelAndStop, ctx: &mut Context<Self>) {
        use actix::ActorContext;
        // In plain actix these handles kill the first timers of the next incarnation.
        let handles: Vec<_> = (0..4).map(|_| ctx.run_later(LONG, |_, _| ())).collect();
        for handle in handles {
            ctx.cancel_future(handle);
        }
        ctx.stop();
    }
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ticks;

impl Handler<Ticks> for Canceller {
    type Result = u64;

    fn handle(&mut self, _: Ticks, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

impl Supervise for Canceller {
    const NAME: &'static str = "canceller";
    type Observable = u64;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        for _ in 0..3 {
            ctx.run_later(Duration::from_millis(1), |act, _| act.0 += 1);
        }
        Ok(())
    }

    fn observe(&self) -> u64 {
        self.0
    }
}

#[test]
fn timers_of_a_new_incarnation_survive_an_old_cancel() {
    run(async {
        let house = House::new();
        let actor = house.root.spawn(Placement::Own, |_| Ok(Canceller(0)));
        actor.tell(CancelAndStop).expect("room");
        until(|| actor.snapshot().generation == 2).await;
        let all = async {
            while actor.ask(Ticks, LONG).await != Ok(3) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, all)
            .await
            .expect("all three timers fire");
    });
}
