//! The identity gate, in process, over loopback and every channel: who is let in, who is not, what the refused
//! reach (nothing), and what is left of them (nothing).

#[cfg(test)]
mod channels;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod node;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod relay;

use std::sync::atomic::Ordering;

use fakes::{Answer, Door, Ears, peer_of, soon};
use futures::future::join_all;
use libp2p::swarm::DialError;
use node::Plan;
use quantraband::{
    audit::Direction,
    identity::Refusal,
    network::{self, Entry, Envelope, PublishRefusal, convert},
    types::{Timestamp, Topic, TrustScore},
};

fn message(payload: usize) -> Envelope {
    Envelope {
        sent: Timestamp::from_secs(1),
        first: 1,
        credential: None,
        entries: vec![Entry::plain(vec![7; payload])],
    }
}

#[tokio::test]
async fn an_accepted_pair_gossips_identifies_and_pings() {
    let (one, two) = (Plan::new(1).start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    one.until("a connection", |seen| seen.established == [two.id])
        .await;
    two.until("a connection", |seen| seen.established == [one.id])
        .await;

    let topic = Topic::try_new("acme/orders").unwrap();
    one.subscribe(&topic).await;
    two.until("a listener", |seen| seen.subscriptions == 1)
        .await;
    // The largest payload allowed must arrive: gossipsub would lose it without a word.
    let envelope = message(100_000);
    let sent = envelope.clone();
    two.with(move |swarm| {
        let gossip = &mut swarm.behaviour_mut().node.gossip;
        network::publish(gossip, &topic, &sent, 100_000)
    })
    .await
    .unwrap();
    let seen = one
        .until("the message", |seen| !seen.messages.is_empty())
        .await;
    assert_eq!(Envelope::decode(&seen.messages[0], 100_000), Ok(envelope));

    for node in [&one, &two] {
        let seen = node
            .until("identify and ping", |seen| {
                !seen.identified.is_empty() && seen.pings > 0
            })
            .await;
        assert!(seen.identified[0].starts_with("quantraband/"));
        assert_eq!(node.admitted.load(Ordering::SeqCst), 1);
        assert_eq!(node.counts().await.upgrading, 0);
        assert!(node.keeper.refusals().is_empty());
    }
    let presented = one.keeper.judged.lock().unwrap()[0].clone();
    assert_eq!(presented.peer, peer_of(&[2; 32]));
    assert_eq!(presented.direction, Direction::Inbound);
    assert_eq!(presented.frame, b"a credential frame");
    // Input is attributed to the peer it came from, and each handling ended.
    let begun = one.blame.begun.lock().unwrap().clone();
    assert!(!begun.is_empty() && begun.iter().all(|peer| *peer == peer_of(&[2; 32])));
    assert_eq!(one.blame.ended.load(Ordering::SeqCst), begun.len());
}

#[tokio::test]
async fn a_peer_without_permission_to_listen_is_sent_nothing() {
    let mut one = Plan::new(1);
    one.ears = Ears(false);
    let (one, two) = (one.start().await, Plan::new(2).start().await);
    let topic = Topic::try_new("acme/orders").unwrap();
    two.subscribe(&topic).await;
    two.dial(one.id, &one.address).await;
    // Gossip of the other direction shows that the subscription has long been handled.
    one.subscribe(&topic).await;
    two.until("a listener", |seen| seen.subscriptions == 1)
        .await;
    let publish = |topic: Topic| {
        move |swarm: &mut libp2p::Swarm<node::Probed>| {
            let gossip = &mut swarm.behaviour_mut().node.gossip;
            network::publish(gossip, &topic, &message(10), 100_000)
        }
    };
    two.with(publish(topic.clone())).await.unwrap();
    one.until("the message", |seen| seen.messages.len() == 1)
        .await;
    let outcome = one.with(publish(topic)).await;
    assert_eq!(outcome, Err(PublishRefusal::NoListeners));
    assert_eq!(one.seen().subscriptions, 0);
    assert!(two.seen().messages.is_empty());
}

/// What a neighbour forwards and nobody should costs it gossip's ear: neither the time it has spent
/// in the mesh nor a good name pays for that, and a bad name alone does the same.
#[tokio::test]
async fn a_neighbour_of_invalid_messages_is_no_longer_heard() {
    let (one, two) = (Plan::new(1).start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    let topic = Topic::try_new("orders").unwrap();
    one.subscribe(&topic).await;
    two.subscribe(&topic).await;
    for node in [&one, &two] {
        node.until("a listener", |seen| seen.subscriptions == 1)
            .await;
    }
    let publish = |payload: &'static [u8], first: u64| {
        let topic = topic.clone();
        move |swarm: &mut libp2p::Swarm<node::Probed>| {
            let envelope = Envelope {
                first,
                entries: vec![Entry::plain(payload)],
                ..message(0)
            };
            let gossip = &mut swarm.behaviour_mut().node.gossip;
            network::publish(gossip, &topic, &envelope, 100_000)
        }
    };
    two.with(publish(b"well", 1)).await.unwrap();
    one.until("a good one", |seen| seen.messages.len() == 1)
        .await;
    let who = two.id;
    // The best of names.
    let scale = (TrustScore::NEUTRAL, TrustScore::saturating(0.1));
    let score = move |name: Option<TrustScore>| {
        move |swarm: &mut libp2p::Swarm<node::Probed>| {
            let gossip = &mut swarm.behaviour_mut().node.gossip;
            if let Some(name) = name {
                network::stands(gossip, &who, name, scale);
            }
            gossip.peer_score(&who).unwrap()
        }
    };
    assert!(one.with(score(Some(TrustScore::ONE))).await >= 0.0);
    for bad in 2..12 {
        two.with(publish(b"reject me", bad)).await.unwrap();
    }
    let sunk = async {
        while one.with(score(None)).await >= -80.0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the score falls", sunk).await;
    // A little worse yet, so that what it forgets in a second does not matter here.
    one.with(score(Some(TrustScore::saturating(0.4)))).await;
    two.with(publish(b"well again", 20)).await.unwrap();
    // Subscriptions are heard whatever the score is: this one comes after the message.
    two.subscribe(&Topic::try_new("later").unwrap()).await;
    one.until("the other subscription", |seen| seen.subscriptions == 2)
        .await;
    let messages = one.seen().messages;
    assert!(!messages.iter().any(|data| data.ends_with(b"well again")));
}

#[tokio::test]
async fn a_bad_name_costs_gossips_ear_and_ends_with_the_name() {
    let (one, two) = (Plan::new(1).start().await, Plan::new(2).start().await);
    two.dial(one.id, &one.address).await;
    let two_id = two.id;
    one.until("a connection", |seen| seen.established == [two.id])
        .await;
    let named = move |score: f64| {
        move |swarm: &mut libp2p::Swarm<node::Probed>| {
            let gossip = &mut swarm.behaviour_mut().node.gossip;
            let scale = (TrustScore::NEUTRAL, TrustScore::saturating(0.1));
            network::stands(gossip, &two_id, TrustScore::saturating(score), scale);
            gossip.peer_score(&two_id).unwrap()
        }
    };
    let worst = one.with(named(0.1)).await;
    assert!((-10.1..-9.9).contains(&worst), "{worst}");
    let middle = one.with(named(0.3)).await;
    assert!((-9.0..-1.0).contains(&middle), "{middle}");
    assert!(one.with(named(0.5)).await.abs() < f64::EPSILON);
    assert!(one.with(named(1.0)).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_peer_the_listener_refuses_reaches_nothing_and_learns_why() {
    let denied = Refusal::Denied("members_only".to_owned());
    let answer = Answer::Refuse(denied.clone());
    let listener = Plan::new(1).keeper(answer).start().await;
    let dialler = Plan::new(2).start().await;
    dialler.dial(listener.id, &listener.address).await;

    let seen = dialler
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    let Some(Refusal::ByPeer(reason)) = &seen.dial_errors[0] else {
        panic!("{:?}", seen.dial_errors)
    };
    assert_eq!(reason, "denied: denied by rule members_only");
    assert_eq!(
        listener.keeper.refusal().await,
        (Direction::Inbound, denied)
    );
    listener
        .until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    assert_eq!(dialler.keeper.refusal().await.0, Direction::Outbound);
    for node in [&listener, &dialler] {
        node.assert_untouched().await;
        assert_eq!(node.keeper.refusals().len(), 1);
    }
}

#[tokio::test]
async fn a_listener_the_dialler_refuses_reaches_nothing_and_learns_why() {
    let listener = Plan::new(1).start().await;
    let answer = Answer::Refuse(Refusal::WrongKey);
    let dialler = Plan::new(2).keeper(answer).start().await;
    dialler.dial(listener.id, &listener.address).await;

    let seen = dialler
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert_eq!(seen.dial_errors, [Some(Refusal::WrongKey)]);
    let (direction, refusal) = listener.keeper.refusal().await;
    assert_eq!(direction, Direction::Inbound);
    assert!(matches!(refusal, Refusal::ByPeer(reason) if reason.starts_with("wrong_key: ")));
    listener
        .until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    listener.assert_untouched().await;
    dialler.assert_untouched().await;
}

#[tokio::test]
async fn both_refusing_each_other_ends_as_quickly() {
    let refuse = || Answer::Refuse(Refusal::UnknownIssuer("other".to_owned()));
    let listener = Plan::new(1).keeper(refuse()).start().await;
    let dialler = Plan::new(2).keeper(refuse()).start().await;
    dialler.dial(listener.id, &listener.address).await;
    dialler
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    listener
        .until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    listener.assert_untouched().await;
    dialler.assert_untouched().await;
}

#[tokio::test]
async fn a_banned_peer_is_refused_before_it_is_heard() {
    let listener = Plan::new(1).start().await;
    listener
        .keeper
        .banned
        .lock()
        .unwrap()
        .push(peer_of(&[2; 32]));
    let dialler = Plan::new(2).start().await;
    dialler.dial(listener.id, &listener.address).await;
    let seen = dialler
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert!(matches!(
        &seen.dial_errors[0],
        Some(Refusal::ByPeer(reason)) if reason.starts_with("cooling_down: ")
    ));
    listener
        .until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    assert!(listener.keeper.judged.lock().unwrap().is_empty());
    listener.assert_untouched().await;

    // The other way round: the banned one is not even dialled.
    let dialled = listener.try_dial(dialler.id, &dialler.address).await;
    assert!(
        matches!(dialled, Err(DialError::Denied { .. })),
        "{dialled:?}"
    );
    assert!(dialler.keeper.judged.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_peer_than_the_dialled_one_is_shown_nothing() {
    let listener = Plan::new(1).start().await;
    let dialler = Plan::new(2).start().await;
    let stranger = convert::to_libp2p(&peer_of(&[9; 32])).unwrap();
    let (address, _) = convert::split_p2p(&listener.address);
    dialler.dial(stranger, &address).await;
    dialler
        .until("a failed dial", |seen| seen.dial_errors == [None])
        .await;
    listener
        .until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    assert!(listener.keeper.judged.lock().unwrap().is_empty());
    assert!(dialler.keeper.judged.lock().unwrap().is_empty());
    dialler.assert_untouched().await;
}

#[tokio::test]
async fn fifty_concurrent_dials_are_all_let_in() {
    let mut hub = Plan::new(1);
    hub.config.limits.pending_per_address = 64;
    let hub = hub.start().await;
    let diallers = join_all((10..60).map(|seed| Plan::new(seed).start())).await;
    for dialler in &diallers {
        dialler.dial(hub.id, &hub.address).await;
    }
    let seen = hub
        .until("all of them", |seen| seen.established.len() == 50)
        .await;
    assert!(
        diallers
            .iter()
            .all(|dialler| seen.established.contains(&dialler.id))
    );
    let counts = hub.counts().await;
    assert_eq!(
        (counts.pending, counts.upgrading, counts.inbound),
        (0, 0, 50)
    );
}

#[tokio::test]
async fn racing_connections_of_one_pair_each_have_their_own_record() {
    let (one, two) = (Plan::new(1).start().await, Plan::new(2).start().await);
    for _ in 0..2 {
        one.dial(two.id, &two.address).await;
        two.dial(one.id, &one.address).await;
    }
    for node in [&one, &two] {
        node.until("four connections", |seen| seen.established.len() == 4)
            .await;
        let counts = node.counts().await;
        assert_eq!(
            (counts.inbound, counts.outbound, counts.upgrading),
            (2, 2, 0)
        );
    }
    // A fifth would be one more than `connections_per_peer`.
    two.dial(one.id, &one.address).await;
    one.until("a denial", |seen| seen.inbound_errors == 1).await;
    assert_eq!(
        one.counts().await.denied[network::admission::CONNECTIONS_PER_PEER],
        1
    );
}

#[tokio::test]
async fn a_denied_address_gets_not_one_byte() {
    let open = Plan::new(1).start().await;
    assert!(open.bytes_before_the_end().await > 0);

    let mut closed = Plan::new(2);
    closed.door = Door(Err("banned"));
    let closed = closed.start().await;
    for _ in 0..3 {
        assert_eq!(closed.bytes_before_the_end().await, 0);
    }
    closed
        .until("three denials", |seen| seen.inbound_errors == 3)
        .await;
    closed.assert_untouched().await;
    let take = |swarm: &mut libp2p::Swarm<node::Probed>| {
        swarm.behaviour_mut().node.admission.take_denials()
    };
    let denials = closed.with(take).await;
    assert_eq!(denials.len(), 1);
    assert_eq!((denials[0].reason, denials[0].count), ("banned", 3));
    assert_eq!(denials[0].address, Some([127, 0, 0, 1].into()));
}

#[tokio::test]
async fn a_slot_of_a_client_that_goes_away_is_free_again() {
    let node = Plan::new(1).start().await;
    for _ in 0..5 {
        node.bytes_before_the_end().await;
    }
    node.until("five failures", |seen| {
        seen.inbound_errors == 5 && seen.counts.pending == 0
    })
    .await;
    node.assert_untouched().await;
}
