//! Debts across faults, restarts of the node, and steps of the clock.

use std::{net::IpAddr, path::Path};

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    config::{RestartConfig, SupervisionConfig},
    supervision::{ActorRef, Inject, Placement, Root},
    trust::rate::DenialReason,
    types::{ManualClock, PeerId, View},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Long enough for anything on a busy machine; reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

struct House {
    root: Root,
    actor: ActorRef<RateLimitActor>,
    view: View<Limiter>,
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

fn peer() -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[1; 32]).verifying_key())
}

fn ip() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

/// A node's worth of it: the store is opened, so no other may live beside it.
async fn house(path: &Path, clock: &ManualClock) -> House {
    let store = opened(path).await;
    let limits = LimitsConfig::default();
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let publisher = Publisher::new(Limiter::closed(&limits, Arc::clone(&clock)).unwrap());
    let view = publisher.view();
    let config = SupervisionConfig {
        default: RestartConfig {
            backoff_initial: Duration::from_millis(1).into(),
            ..RestartConfig::default()
        },
        ..SupervisionConfig::default()
    };
    let (root, _) = Root::new(&config, Arc::clone(&clock), true);
    let setup = RateLimitSetup {
        limits,
        clock,
        store,
        publisher,
    };
    let actor = root.spawn(Placement::Own, move |incarnation| {
        Ok(RateLimitActor::new(incarnation, setup.clone()))
    });
    House { root, actor, view }
}

/// The arbiters of a former node let go of the store a moment after it stopped.
async fn opened(path: &Path) -> Store {
    let free = async {
        loop {
            match Store::open(path, NOW) {
                Ok((store, aside)) => {
                    assert_eq!(aside, None);
                    return store;
                }
                Err(StoreError::Locked(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(LONG, free).await.unwrap()
}

async fn stop(house: House) {
    house.root.stop_all(LONG).await.unwrap();
}

fn spend(limiter: &Limiter) {
    while limiter.admit_connection(ip()).is_ok() {}
    limiter.charge_author(peer(), 20).unwrap();
    limiter.charge_neighbour(peer(), 40_000_000).unwrap();
}

fn assert_spent(limiter: &Limiter, when: &str) {
    assert_eq!(
        limiter.admit_connection(ip()).unwrap_err().reason,
        DenialReason::AddressRate,
        "{when}"
    );
    assert!(limiter.charge_author(peer(), 1).is_err(), "{when}");
    assert!(
        limiter.charge_neighbour(peer(), 40_000_000).is_err(),
        "{when}"
    );
}

#[test]
fn closed_until_debts_are_restored_and_open_then() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state"), &ManualClock::at(NOW)).await;
        let usage = house.actor.ask(DescribeBudgets, LONG).await.unwrap();
        assert_eq!(usage.capacity, 65_536);
        assert!(house.view.load().admit_connection(ip()).is_ok());
        let usage = house.actor.ask(DescribeBudgets, LONG).await.unwrap();
        assert_eq!((usage.addresses, usage.subnets), (1, 1));
        stop(house).await;
    });
}

#[test]
fn a_fault_loses_no_debt_not_even_an_unsaved_one() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state"), &ManualClock::at(NOW)).await;
        house.actor.ask(DescribeBudgets, LONG).await.unwrap();
        spend(&house.view.load());
        for kind in [Inject::Panic, Inject::Error] {
            let before = house.actor.snapshot().restarts;
            let former = house.view.load();
            let control = house.root.control("rate_limit").unwrap();
            control.inject(kind).unwrap();
            // Answered by the next incarnation, when the present one does not get to it.
            // (Asked only once the fault is counted, or it might be the present one's answer.)
            while house.actor.snapshot().restarts == before
                || house.actor.ask(DescribeBudgets, LONG).await.is_err()
            {}
            let now = house.view.load();
            assert!(
                !Arc::ptr_eq(&former, &now),
                "the new incarnation published its own"
            );
            assert_spent(&now, "after a fault");
        }
        stop(house).await;
    });
}

#[test]
fn debts_survive_an_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (path, clock) = (dir.path().join("state"), ManualClock::at(NOW));
    run(async {
        let first = house(&path, &clock).await;
        first.actor.ask(DescribeBudgets, LONG).await.unwrap();
        spend(&first.view.load());
        stop(first).await;
        // Another process has another monotonic clock.
        let second = house(&path, &ManualClock::at(NOW)).await;
        second.actor.ask(DescribeBudgets, LONG).await.unwrap();
        assert_spent(&second.view.load(), "after a restart of the node");
        stop(second).await;
        let much_later = ManualClock::at(NOW.after(Duration::from_secs(120)));
        let third = house(&path, &much_later).await;
        let usage = third.actor.ask(DescribeBudgets, LONG).await.unwrap();
        assert_eq!(
            (usage.addresses, usage.authors),
            (0, 0),
            "paid debts are forgotten"
        );
        stop(third).await;
    });
}

#[test]
fn debts_are_saved_on_request_and_each_second() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let house = house(&dir.path().join("state"), &ManualClock::at(NOW)).await;
        house.actor.ask(DescribeBudgets, LONG).await.unwrap();
        spend(&house.view.load());
        assert_eq!(house.actor.ask(SaveBudgets, LONG).await, Ok(Ok(())));
        let control = house.root.control("rate_limit").unwrap();
        let saved = async || {
            let seen = control.observe(LONG).await;
            serde_json::to_value(seen).unwrap().to_string()
        };
        assert!(saved().await.contains("\"saved\":5"), "{}", saved().await);
        // The timer's: one more key, written without being asked.
        house
            .view
            .load()
            .admit_connection(IpAddr::from([198, 51, 100, 1]))
            .unwrap();
        let wait = async {
            while !saved().await.contains("\"saved\":8") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap();
        stop(house).await;
    });
}

#[test]
fn a_step_of_the_clock_rewrites_all_debts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, clock) = (dir.path().join("state"), ManualClock::at(NOW));
    run(async {
        let first = house(&path, &clock).await;
        first.actor.ask(DescribeBudgets, LONG).await.unwrap();
        spend(&first.view.load());
        first.actor.ask(SaveBudgets, LONG).await.unwrap().unwrap();
        // An hour on: without rewriting, the next process would find them paid.
        clock.step_wall(NOW.after(Duration::from_secs(3_600)));
        stop(first).await;
        let second = house(&path, &ManualClock::at(clock.now())).await;
        second.actor.ask(DescribeBudgets, LONG).await.unwrap();
        assert_spent(&second.view.load(), "after the clock stepped");
        stop(second).await;
    });
}
