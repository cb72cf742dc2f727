//! Whose input it was, and what comes of it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture};
use ed25519_dalek::SigningKey;

use super::support::{Do, House, Input, LONG, Plan, run, until};
use crate::{
    config::CoolDownConfig,
    supervision::{ActorRef, AskError, Cause, CoolDowns, Fault, Incarnation, Placement, Supervise},
    types::{ManualClock, Origin, Party, PeerId},
};

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn house(clock: &ManualClock) -> House {
    let mut plan = Plan::new();
    plan.clock = Arc::new(clock.clone());
    plan.build()
}

#[test]
fn the_peer_whose_input_panicked_is_refused_and_others_are_not() {
    run(async {
        let clock = ManualClock::default();
        let house = house(&clock);
        let (bad, good) = (Origin::peer(peer(1)), Origin::peer(peer(2)));
        let ask = |origin, input| house.imp.ask_for(origin, Input(input), LONG);
        assert_eq!(ask(bad, true).await, Ok(1));
        assert_eq!(ask(bad, false).await, Err(AskError::Restarted));
        assert_eq!(ask(good, true).await, Ok(1));
        let fault = house.imp.snapshot().last_fault.expect("a fault");
        assert_eq!(fault.blamed, Some(Party::Peer(peer(1))));

        let cooldowns = house.root.cooldowns();
        assert_eq!(cooldowns.is_cooling(&bad), Some(Duration::from_secs(5)));
        assert_eq!(cooldowns.is_cooling(&good), None);
        for _ in 0..10 {
            assert_eq!(ask(bad, false).await, Err(AskError::Restarted));
        }
        house.imp.tell_for(bad, Input(false)).expect("room");
        assert_eq!(ask(good, true).await, Ok(2), "no second fault");
        assert_eq!(house.imp.snapshot().restarts, 1);
        assert_eq!(cooldowns.refused(), 11);

        clock.advance(Duration::from_secs(5));
        assert_eq!(ask(bad, true).await, Ok(3), "it is over");
        assert_eq!(ask(bad, false).await, Err(AskError::Restarted));
        until(|| house.imp.snapshot().restarts == 2).await;
        assert_eq!(
            cooldowns.is_cooling(&bad),
            Some(Duration::from_secs(10)),
            "twice as long"
        );
    });
}

#[test]
fn a_peer_alone_cannot_spend_the_budget() {
    run(async {
        let clock = ManualClock::default();
        let house = house(&clock);
        let bad = Origin::peer(peer(1));
        // As fast as it can, for the length of the window.
        for _ in 0..60 {
            let _ = house.imp.ask_for(bad, Input(false), LONG).await;
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(house.imp.ask(Input(true), LONG).await, Ok(1));
        assert!(house.imp.snapshot().restarts <= 5);
    });
}

#[test]
fn nobody_is_blamed_for_what_is_nobodys_input() {
    run(async {
        let house = House::new();
        let origin = Origin::peer(peer(1));
        house
            .imp
            .ask_for(origin, Input(true), LONG)
            .await
            .expect("fine");
        let _ = house.imp.ask(Do::PanicLater, LONG).await;
        until(|| house.imp.snapshot().restarts == 1).await;
        assert_eq!(
            house.imp.snapshot().last_fault.expect("a fault").blamed,
            None
        );
        assert_eq!(house.root.cooldowns().tracked(), 0);
    });
}

#[test]
fn errors_exits_and_hangs_are_blamed_too() {
    run(async {
        for (n, misdeed, cause) in [
            (1, Do::Fail, Cause::Error),
            (2, Do::Stop, Cause::Exit),
            (3, Do::Hang, Cause::Stall),
        ] {
            let house = Plan::new()
                .restart(|config| config.stall = Duration::from_millis(300).into())
                .build();
            house
                .imp
                .tell_for(Origin::peer(peer(n)), misdeed)
                .expect("room");
            until(|| house.imp.snapshot().restarts == 1).await;
            let fault = house.imp.snapshot().last_fault.expect("a fault");
            assert_eq!(
                (fault.cause, fault.blamed),
                (cause, Some(Party::Peer(peer(n))))
            );
        }
    });
}

#[test]
fn an_operators_restart_blames_nobody() {
    run(async {
        let house = House::new();
        house
            .imp
            .tell_for(Origin::peer(peer(1)), Do::Hang)
            .expect("room");
        until(|| house.imp.snapshot().mailbox == 0).await;
        house
            .root
            .control("imp")
            .expect("there")
            .restart("test")
            .expect("it lives");
        until(|| house.imp.snapshot().restarts == 1).await;
        assert_eq!(house.root.cooldowns().tracked(), 0);
    });
}

/// Handles inputs in scopes and futures of its own, as Swarm does.
struct Scoped(Incarnation);

impl Actor for Scoped {
    type Context = Context<Self>;
}
crate::supervised!(Scoped);

impl Supervise for Scoped {
    const NAME: &'static str = "scoped";
    type Observable = ();

    fn observe(&self) {}
}

#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
enum In {
    /// Panics within a scope, inside another.
    Nested,
    /// Panics after a scope ended.
    After,
    /// Panics in a future that is attributed, once it was woken.
    Future,
    /// Panics beside such a future.
    BesideFuture,
}

impl Handler<In> for Scoped {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, kind: In, ctx: &mut Context<Self>) -> Self::Result {
        let scope = self.0.handling(Origin::peer(peer(1)));
        let panics = |text: &'static str| async move {
            tokio::task::yield_now().await;
            panic!("{text}");
        };
        match kind {
            In::Nested => {
                let _inner = self.0.handling(Origin::peer(peer(2)));
                panic!("inside");
            }
            In::After => {
                drop(self.0.handling(Origin::peer(peer(2))));
                drop(scope);
                panic!("outside");
            }
            In::Future => {
                drop(scope);
                let future = panics("in a future").into_actor(self);
                let _ = ctx;
                Box::pin(self.0.attribute(Origin::peer(peer(3)), future))
            }
            In::BesideFuture => {
                drop(scope);
                let waits = std::future::pending().into_actor(self);
                ctx.spawn(self.0.attribute(Origin::peer(peer(3)), waits));
                Box::pin(panics("beside a future").into_actor(self))
            }
        }
    }
}

#[test]
fn scopes_and_attributed_futures_name_the_innermost_origin() {
    run(async {
        for (kind, blamed) in [
            (In::Nested, Some(2)),
            (In::After, None),
            (In::Future, Some(3)),
            (In::BesideFuture, None),
        ] {
            let house = House::new();
            let actor: ActorRef<Scoped> = house.root.spawn(Placement::Own, |incarnation| {
                Ok::<_, Fault>(Scoped(incarnation))
            });
            let answer = actor.ask(kind, LONG).await;
            assert_eq!(answer, Err(AskError::Restarted));
            until(|| actor.snapshot().restarts == 1).await;
            let fault = actor.snapshot().last_fault.expect("a fault");
            assert_eq!(
                fault.blamed,
                blamed.map(|n| Party::Peer(peer(n))),
                "{kind:?}"
            );
        }
    });
}

fn cooldowns(clock: &ManualClock, tracked: usize) -> CoolDowns {
    let config = CoolDownConfig {
        tracked,
        ..CoolDownConfig::default()
    };
    CoolDowns::new(&config, Arc::new(clock.clone()))
}

#[test]
fn cool_downs_grow_to_their_cap_and_are_forgotten_after_a_quiet_time() {
    let clock = ManualClock::default();
    let table = cooldowns(&clock, 10);
    let origin = Origin::peer(peer(1));
    let seconds = || {
        table.blame(&origin);
        table.is_cooling(&origin).expect("it cools").as_secs()
    };
    let grown: Vec<_> = (0..12).map(|_| seconds()).collect();
    assert_eq!(
        grown,
        [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    );
    clock.advance(Duration::from_secs(3600));
    assert_eq!(table.is_cooling(&origin), None, "it ends");
    assert_eq!(seconds(), 3600, "it is remembered");
    clock.advance(Duration::from_secs(7200));
    assert_eq!(seconds(), 5, "it is forgiven");
}

#[test]
fn peer_and_address_cool_down_each_for_itself() {
    let clock = ManualClock::default();
    let table = cooldowns(&clock, 10);
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    table.blame(&Origin {
        peer: Some(peer(1)),
        address: Some(ip),
    });
    assert!(table.is_cooling(&Origin::peer(peer(1))).is_some());
    for address in [ip, mapped] {
        let other = Origin {
            peer: Some(peer(2)),
            address: Some(address),
        };
        assert!(
            table.is_cooling(&other).is_some(),
            "another key from the same address"
        );
    }
    assert_eq!(table.is_cooling(&Origin::peer(peer(2))), None);
    assert_eq!(table.is_cooling(&Origin::default()), None);
}

#[test]
fn the_table_is_bounded_and_the_oldest_goes_first() {
    let clock = ManualClock::default();
    let table = cooldowns(&clock, 3);
    for n in 1..=5 {
        clock.advance(Duration::from_millis(1));
        table.blame(&Origin::peer(peer(n)));
        assert!(table.tracked() <= 3);
    }
    let cooling: Vec<_> = (1..=5)
        .filter(|n| table.is_cooling(&Origin::peer(peer(*n))).is_some())
        .collect();
    assert_eq!(cooling, [3, 4, 5]);
}
