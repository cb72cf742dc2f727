//! Orderly stops.

use std::time::Duration;

use super::support::{Count, Do, House, Imp, LONG, Log, Plan, get, run, until};
use crate::supervision::{AskError, Inject, Placement, RunState, StopError, TellError};

#[test]
fn a_stop_empties_the_queue_then_runs_the_hook_then_drops() {
    run(async {
        let house = House::new();
        house.count().await;
        house
            .imp
            .tell(Do::Block(Duration::from_millis(50)))
            .expect("room");
        let queued = futures::future::join_all((0..100).map(|_| house.imp.ask(Count, LONG)));
        let stopped = async {
            // After the asks have been queued, while the actor is still busy.
            tokio::task::yield_now().await;
            house.root.stop("imp", LONG).await
        };
        let (queued, stopped) = futures::join!(queued, stopped);
        assert_eq!(stopped, Ok(()));
        assert!(queued.iter().all(Result::is_ok), "{queued:?}");
        assert_eq!(
            get(&house.log.stops),
            1,
            "what on_stop waits for is finished"
        );
        until(|| get(&house.log.dropped) == 1).await;
        assert_eq!(house.imp.tell(Count), Err(TellError::Down));
        assert_eq!(house.imp.ask(Count, LONG).await, Err(AskError::Down));
        assert_eq!(house.imp.snapshot().state, RunState::Stopped);
        assert_eq!(house.imp.snapshot().restarts, 0);
        let again = house.root.stop("imp", LONG).await;
        assert_eq!(again, Ok(()), "stopping twice is no harm");
        assert_eq!(get(&house.log.stops), 1);
    });
}

#[test]
fn a_second_stop_joins_the_first() {
    run(async {
        let house = House::new();
        house.count().await;
        let control = house.root.control("imp").expect("there");
        let first = control.stop();
        until(|| get(&house.log.stopping) == 1).await;
        let second = control.stop();
        futures::join!(first, second);
        assert_eq!((get(&house.log.stopping), get(&house.log.stops)), (1, 1));
    });
}

#[test]
fn a_stop_by_its_own_context_is_a_fault_and_an_orderly_one_is_not() {
    run(async {
        let house = Plan::new().restart(|config| config.faults = 0).build();
        house.imp.tell(Do::Stop).expect("room");
        house.root.escalated().await;
        let house = Plan::new().restart(|config| config.faults = 0).build();
        house.count().await;
        house.root.stop_all(LONG).await.expect("it stops");
        assert!(futures::FutureExt::now_or_never(house.root.escalated()).is_none());
    });
}

#[test]
fn the_hook_does_not_run_on_a_faulty_actor() {
    run(async {
        let house = House::new();
        house.count().await;
        // Both are in the queue when the stop begins: the panic comes while it drains.
        house
            .imp
            .tell(Do::Block(Duration::from_millis(50)))
            .expect("room");
        house.imp.tell(Do::Panic).expect("room");
        house.root.stop("imp", LONG).await.expect("it stops");
        assert_eq!(get(&house.log.stops), 0);
        assert_eq!(
            get(&house.log.built),
            1,
            "who is being stopped is not restarted"
        );
        assert_eq!(house.imp.snapshot().state, RunState::Stopped);
    });
}

#[test]
fn an_actor_in_backoff_stops_at_once() {
    run(async {
        let house = Plan::new()
            .restart(|config| {
                config.backoff_initial = LONG.saturating_mul(4).into();
                config.backoff_max = LONG.saturating_mul(4).into();
                config.window = LONG.saturating_mul(100).into();
            })
            .build();
        let _ = house.imp.ask(Do::Panic, LONG).await;
        until(|| house.imp.snapshot().state == RunState::Backoff).await;
        let queued = house.imp.ask(Count, LONG);
        let (queued, stopped) = futures::join!(queued, house.root.stop("imp", LONG));
        assert_eq!((queued, stopped), (Err(AskError::Down), Ok(())));
    });
}

#[test]
fn stop_all_names_who_is_stuck_and_still_stops_the_others() {
    run(async {
        let house = House::new();
        house.count().await;
        let logs: Vec<std::sync::Arc<Log>> = (0..2).map(|_| std::sync::Arc::default()).collect();
        let others: Vec<_> = logs
            .iter()
            .map(|log| {
                let log = log.clone();
                let make = move |incarnation| Ok(Imp::make(&log, incarnation));
                house.root.spawn(Placement::Own, make)
            })
            .collect();
        for other in &others {
            other.ask(Count, LONG).await.expect("an answer");
        }
        // The one in the middle of the order hangs.
        let controls = house.root.controls();
        controls[1].inject(Inject::Hang).expect("allowed");
        let names = vec!["imp"];
        let stopped = house.root.stop_all(Duration::from_secs(2)).await;
        assert_eq!(stopped, Err(StopError { stuck: names }));
        assert_eq!(
            stopped.unwrap_err().to_string(),
            "did not stop in time: imp"
        );
        let states: Vec<_> = house
            .root
            .actors()
            .iter()
            .map(|actor| actor.state)
            .collect();
        assert_eq!(
            states,
            [RunState::Stopped, RunState::Running, RunState::Stopped]
        );
        assert_eq!(
            (
                get(&house.log.stops),
                get(&logs[0].stops),
                get(&logs[1].stops)
            ),
            (1, 0, 1)
        );
    });
}

#[test]
fn the_end_of_the_system_runs_no_hook_and_leaves_no_caller_waiting() {
    run(async {
        let house = House::new();
        house.count().await;
        let silent = house.imp.ask(Do::Silence, LONG);
        let end = async {
            tokio::task::yield_now().await;
            actix::System::current().stop();
        };
        let (silent, ()) = futures::join!(silent, end);
        assert_eq!(silent, Err(AskError::Down));
        assert_eq!(house.imp.snapshot().state, RunState::Stopped);
        until(|| get(&house.log.dropped) == 1).await;
        assert_eq!((get(&house.log.hooks), get(&house.log.stops)), (0, 0));
        assert!(futures::FutureExt::now_or_never(house.root.escalated()).is_none());
    });
}
