//! The root: its threads, its events, what operators see and may do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, Context, Handler, Message};
use tokio::sync::mpsc;

use super::support::{Count, Do, Family, House, Imp, LONG, Log, Plan, get, run, until};
use crate::{
    config::{RestartOverride, RootStall},
    supervision::{
        AskError, ControlError, Fault, Inject, LastResort, Placement, Root, RunState, Strategy,
        Supervise, hub::EVENTS, lock,
    },
    types::ManualClock,
};

/// A root that tells its last resort instead of acting on it.
fn watched(stall: Duration) -> (House, mpsc::Receiver<LastResort>) {
    let (tell, told) = mpsc::channel(1);
    let mut plan = Plan::new().restart(|config| config.faults = 0);
    plan.config.root_stall = RootStall(stall.into());
    plan.last_resort = tell;
    (plan.build(), told)
}

#[test]
fn a_plain_thread_notices_when_the_root_stands_still() {
    run(async {
        let (house, mut told) = watched(Duration::from_millis(600));
        house.count().await;
        let hub = house.root.hub().clone();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        // Holds what the root's rounds need.
        let holder = std::thread::spawn(move || {
            let _children = lock(&hub.children);
            let _ = held.recv();
        });
        assert_eq!(told.recv().await, Some(LastResort::RootStuck));
        assert_eq!(LastResort::RootStuck.code(), 70);
        drop(release);
        holder.join().expect("it ends");
    });
}

#[test]
fn a_root_that_does_its_rounds_is_left_alone() {
    run(async {
        let (house, mut told) = watched(Duration::from_millis(600));
        house.count().await;
        let waited = tokio::time::timeout(Duration::from_millis(1_500), told.recv()).await;
        assert!(waited.is_err(), "{waited:?}");
    });
}

#[test]
fn an_escalation_that_nobody_heeds_ends_the_process() {
    run(async {
        let (house, mut told) = watched(Duration::from_millis(600));
        house.imp.tell(Do::Panic).expect("room");
        assert_eq!(told.recv().await, Some(LastResort::EscalationIgnored));
    });
}

#[test]
fn an_escalation_that_is_heeded_does_not() {
    run(async {
        let (house, mut told) = watched(Duration::from_millis(600));
        house.imp.tell(Do::Panic).expect("room");
        house.root.escalated().await;
        let waited = tokio::time::timeout(Duration::from_millis(1_500), told.recv()).await;
        assert!(waited.is_err(), "{waited:?}");
    });
}

#[test]
fn a_deadline_for_the_end_is_kept_by_the_same_thread() {
    run(async {
        let (house, mut told) = watched(LONG);
        house.root.end_within(LONG.saturating_mul(100), 1);
        house.root.end_within(Duration::from_millis(100), 75);
        house.root.end_within(LONG, 2);
        assert_eq!(
            told.recv().await,
            Some(LastResort::DeadlinePassed { code: 75 })
        );
    });
}

#[test]
fn events_that_nobody_receives_are_counted_and_hold_nobody_up() {
    run(async {
        let house = House::new();
        house.count().await;
        let control = house.root.control("imp").expect("there");
        let restarts = u64::try_from(EVENTS).expect("small");
        for done in 0..restarts {
            control.restart("again").expect("it lives");
            let mut generation = house.imp.generation();
            generation
                .wait_for(|now| *now > done + 1)
                .await
                .expect("it restarts");
        }
        assert_eq!(house.count().await, 1);
        assert_eq!(house.events.len(), EVENTS);
        assert!(
            house.root.dropped_events() >= restarts,
            "{}",
            house.root.dropped_events()
        );
    });
}

#[test]
fn injection_is_refused_unless_allowed() {
    run(async {
        let mut plan = Plan::new();
        plan.allow_injection = false;
        let house = plan.build();
        house.count().await;
        let control = house.root.control("imp").expect("there");
        for kind in [Inject::Panic, Inject::Error, Inject::Hang, Inject::Block] {
            assert_eq!(control.inject(kind), Err(ControlError::InjectionForbidden));
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(house.count().await, 2);
        assert!("fire".parse::<Inject>().is_err());
    });
}

#[test]
fn injected_panics_and_errors_are_ordinary_faults() {
    run(async {
        for (kind, detail) in [
            (Inject::Panic, "injected panic"),
            (Inject::Error, "injected error"),
        ] {
            let house = House::new();
            house.count().await;
            house
                .root
                .control("imp")
                .expect("there")
                .inject(kind)
                .expect("allowed");
            until(|| house.imp.snapshot().restarts == 1).await;
            assert_eq!(house.count().await, 1);
            assert_eq!(
                house.imp.snapshot().last_fault.expect("a fault").detail,
                detail
            );
        }
    });
}

#[test]
fn who_is_down_takes_no_command() {
    run(async {
        let house = House::new();
        house.root.stop("imp", LONG).await.expect("it stops");
        let control = house.root.control("imp").expect("there");
        assert_eq!(control.restart("test"), Err(ControlError::Down));
        assert_eq!(control.inject(Inject::Panic), Err(ControlError::Down));
        assert_eq!(control.observe(LONG).await.stale, Some(AskError::Down));
        assert!(house.root.control("nobody").is_none());
    });
}

#[test]
fn the_last_observed_state_is_shown_when_an_actor_hangs() {
    run(async {
        let house = House::new();
        let control = house.root.control("imp").expect("there");
        house.count().await;
        let fresh = control.observe(LONG).await;
        assert_eq!((&fresh.state, fresh.stale), (&serde_json::json!(1), None));
        assert!(fresh.at.is_some());
        house.count().await;
        control.inject(Inject::Hang).expect("allowed");
        let old = control.observe(Duration::from_millis(20)).await;
        assert_eq!(
            (old.state, old.stale),
            (fresh.state, Some(AskError::Timeout))
        );
    });
}

#[test]
fn an_observation_passes_a_full_mailbox() {
    run(async {
        let house = Plan::new().restart(|config| config.mailbox = 1).build();
        house
            .imp
            .tell(Do::Block(Duration::from_millis(50)))
            .expect("room");
        until(|| house.imp.tell(Count).is_ok()).await;
        let seen = house
            .root
            .control("imp")
            .expect("there")
            .observe(LONG)
            .await;
        assert_eq!(seen.stale, None);
    });
}

#[test]
fn operators_see_state_faults_depth_and_uptime() {
    run(async {
        let clock = ManualClock::default();
        let mut plan = Plan::new();
        plan.clock = Arc::new(clock.clone());
        let house = plan.build();
        house.count().await;
        clock.advance(Duration::from_secs(90));
        let _ = house.imp.ask(Do::Panic, LONG).await;
        house.count().await;
        clock.advance(Duration::from_secs(30));
        let [snapshot] = &house.root.actors()[..] else {
            panic!("one actor");
        };
        assert_eq!(snapshot.uptime, Duration::from_secs(30));
        let json = serde_json::to_value(snapshot).expect("it serialises");
        assert_eq!(json["name"], "imp");
        assert_eq!(json["state"], "running");
        assert_eq!(json["restarts_by_cause"]["panic"], 1);
        assert_eq!(json["last_fault"]["cause"], "panic");
        assert_eq!(json["last_fault"]["at"], 90_000);
        assert_eq!(json["mailbox_capacity"], 1024);
    });
}

#[test]
fn the_policy_of_each_actor_comes_from_the_configuration() {
    run(async {
        let mut plan = Plan::new();
        let own = RestartOverride {
            faults: Some(1),
            mailbox: Some(7),
            ..RestartOverride::default()
        };
        plan.config.actors.insert("imp".to_owned(), own);
        let house = plan.build();
        assert_eq!(house.imp.snapshot().mailbox_capacity, 7);
        let _ = house.imp.ask(Do::Panic, LONG).await;
        assert_eq!(house.count().await, 1);
        let _ = house.imp.ask(Do::Panic, LONG).await;
        house.root.escalated().await;
    });
}

/// Tells the name of its thread.
struct Homebody;

#[derive(Message)]
#[rtype(result = "String")]
struct WhereAreYou;

impl Actor for Homebody {
    type Context = Context<Self>;
}
crate::supervised!(Homebody);

impl Supervise for Homebody {
    const NAME: &'static str = "homebody";
    const EXCLUSIVE: bool = true;
    type Observable = ();

    fn observe(&self) {}
}

impl Handler<WhereAreYou> for Homebody {
    type Result = String;

    fn handle(&mut self, _: WhereAreYou, _: &mut Context<Self>) -> String {
        std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default()
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_exclusive_actor_has_a_thread_of_its_own_that_bears_its_name() {
    run(async {
        let house = House::new();
        let at_home = house.root.spawn(Placement::Shared, |_| Ok(Homebody));
        let thread = at_home.ask(WhereAreYou, LONG).await.expect("an answer");
        assert_eq!(thread.trim(), "homebody");
    });
}

#[test]
fn guards_go_on_when_the_root_is_gone() {
    run(async {
        let House { root, imp, .. } = House::new();
        drop(root);
        assert_eq!(imp.ask(Do::Panic, LONG).await, Err(AskError::Restarted));
        assert_eq!(imp.ask(Count, LONG).await, Ok(1));
    });
}

/// Three imps in a row, and the order in which they were built.
async fn family(root: &Root) -> (Vec<Family>, Arc<Mutex<Vec<usize>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut family = Vec::new();
    for n in 0..3 {
        let log = Arc::new(Log::default());
        let (built, made) = (order.clone(), log.clone());
        let imp = root.spawn(Placement::Own, move |incarnation| {
            built.lock().unwrap().push(n);
            Ok::<_, Fault>(Imp::make(&made, incarnation))
        });
        imp.ask(Count, LONG).await.expect("an answer");
        family.push(imp);
    }
    order.lock().unwrap().clear();
    (family, order)
}

fn rest_for_one() -> House {
    let mut plan = Plan::new();
    plan.strategy = Strategy::RestForOne;
    plan.config.default.backoff_initial = Duration::from_millis(40).into();
    plan.config.default.backoff_max = Duration::from_millis(40).into();
    plan.build()
}

#[test]
fn rest_for_one_restarts_those_behind_in_order_and_spends_none_of_their_budget() {
    run(async {
        let house = rest_for_one();
        house.count().await;
        let (family, order) = family(&house.root).await;
        for round in 1..=3 {
            let _ = family[1].ask(Do::Panic, LONG).await;
            let generation = round + 1;
            until(|| family[2].snapshot().generation == generation).await;
        }
        assert_eq!(*order.lock().unwrap(), [1, 2, 1, 2, 1, 2]);
        assert_eq!(
            family[0].ask(Count, LONG).await,
            Ok(2),
            "who stands before goes on"
        );
        assert_eq!(family[2].snapshot().restarts_by_cause.len(), 1);
        order.lock().unwrap().clear();
        let _ = family[0].ask(Do::Fail, LONG).await;
        until(|| family[2].snapshot().generation == 5).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert_eq!(get(&house.log.built), 1);
    });
}

#[test]
fn rest_for_one_follows_an_operators_restart_and_repeated_faults() {
    run(async {
        let house = rest_for_one();
        let (family, order) = family(&house.root).await;
        house.root.controls()[1]
            .restart("an operator")
            .expect("it lives");
        until(|| family[2].snapshot().generation == 2).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        order.lock().unwrap().clear();
        // Both at once: the later one must not come up before the earlier.
        let _ = futures::join!(
            family[2].ask(Do::Panic, LONG),
            family[0].ask(Do::Panic, LONG)
        );
        until(|| {
            let all = family.iter().map(Family::snapshot);
            let up = all.filter(|s| s.state == RunState::Running).count();
            up == 3 && family[0].snapshot().generation == 3
        })
        .await;
        for imp in &family {
            assert_eq!(imp.ask(Count, LONG).await, Ok(1));
        }
        assert_eq!(order.lock().unwrap().last(), Some(&2));
    });
}

#[test]
fn one_for_one_leaves_the_others_alone() {
    run(async {
        let house = House::new();
        let (family, order) = family(&house.root).await;
        let _ = family[0].ask(Do::Panic, LONG).await;
        until(|| family[0].snapshot().generation == 2).await;
        assert_eq!(*order.lock().unwrap(), [0]);
        assert_eq!(family[1].ask(Count, LONG).await, Ok(2));
    });
}
