//! The mailbox: bounded exactly, fair, and honest to its callers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::support::{Count, Do, House, LONG, Plan, SpawnTickers, get, run, until};
use crate::supervision::{AskError, Placement, TellError, mailbox::TURN};

/// A house whose imp takes no message: it waits, and nobody calls that a hang yet.
async fn hanging(capacity: usize) -> House {
    let house = Plan::new()
        .restart(|config| {
            config.mailbox = capacity;
            config.stall = LONG.saturating_mul(10).into();
        })
        .build();
    house.imp.tell(Do::Hang).expect("room");
    until(|| house.imp.snapshot().mailbox == 0).await;
    house
}

#[test]
fn the_bound_is_exact() {
    run(async {
        let house = hanging(3).await;
        for waiting in 1..=3 {
            assert_eq!(house.imp.tell(Count), Ok(()));
            assert_eq!(house.imp.snapshot().mailbox, waiting);
        }
        assert_eq!(house.imp.tell(Count), Err(TellError::Full));
        assert_eq!(
            house.imp.clone().tell(Count),
            Err(TellError::Full),
            "nor by a clone"
        );
        assert_eq!(house.imp.ask(Count, LONG).await, Err(AskError::Overloaded));
        let snapshot = house.imp.snapshot();
        assert_eq!((snapshot.mailbox, snapshot.mailbox_capacity), (3, 3));
        house
            .root
            .control("imp")
            .expect("there")
            .restart("test")
            .expect("it lives");
        until(|| get(&house.log.handled) == 3).await;
        until(|| house.imp.snapshot().mailbox == 0).await;
    });
}

#[test]
fn many_senders_do_not_pass_the_bound() {
    run(async {
        let house = hanging(10).await;
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let imp = house.imp.clone();
                std::thread::spawn(move || (0..100).filter(|_| imp.tell(Count).is_ok()).count())
            })
            .collect();
        let accepted: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(accepted, 10);
    });
}

#[test]
fn a_timed_out_ask_holds_its_place_and_is_not_handled_later() {
    run(async {
        let house = hanging(2).await;
        let short = Duration::from_millis(5);
        assert_eq!(house.imp.ask(Count, short).await, Err(AskError::Timeout));
        assert_eq!(house.imp.snapshot().mailbox, 1);
        assert_eq!(house.imp.tell(Count), Ok(()));
        assert_eq!(house.imp.tell(Count), Err(TellError::Full));
        house
            .root
            .control("imp")
            .expect("there")
            .restart("test")
            .expect("it lives");
        until(|| house.imp.snapshot().mailbox == 0).await;
        assert_eq!(house.count().await, 2, "the tell and this");
    });
}

#[test]
fn errors_have_stable_codes() {
    let codes = [
        AskError::Restarted,
        AskError::Down,
        AskError::Timeout,
        AskError::Overloaded,
    ]
    .map(|error| error.code());
    assert_eq!(codes, ["restarted", "down", "timeout", "overloaded"]);
}

#[test]
fn a_flood_starves_no_spawned_future() {
    run(async {
        for placement in [Placement::Own, Placement::Shared] {
            let mut plan = Plan::new();
            plan.placement = placement;
            let house = plan.build();
            house.imp.ask(SpawnTickers, LONG).await.expect("spawned");
            let floods: Vec<_> = (0..2).map(|_| flood(&house)).collect();
            let before = ticks(&house);
            let handled = get(&house.log.handled);
            // The mailbox never ran empty meanwhile, and every one of the futures got on.
            until(|| get(&house.log.handled) > handled + 20_000).await;
            let after = ticks(&house);
            for (before, after) in before.into_iter().zip(after) {
                assert!(
                    after > before + 100,
                    "{before} to {after} within 20,000 messages"
                );
            }
            drop(floods);
            let gap = get(&house.log.gap);
            assert!(gap <= TURN as usize, "{gap} messages in one turn");
        }
    });
}

fn ticks(house: &House) -> Vec<u64> {
    house
        .log
        .ticks
        .iter()
        .map(|tick| tick.load(Ordering::SeqCst))
        .collect()
}

/// Keeps the mailbox full until dropped.
fn flood(house: &House) -> impl Drop + use<> {
    struct Flood(
        Arc<std::sync::atomic::AtomicBool>,
        Option<std::thread::JoinHandle<()>>,
    );
    impl Drop for Flood {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            if let Some(thread) = self.1.take() {
                let _ = thread.join();
            }
        }
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (imp, stopped) = (house.imp.clone(), stop.clone());
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            while imp.tell(Count).is_ok() {}
            std::thread::yield_now();
        }
    });
    Flood(stop, Some(thread))
}
