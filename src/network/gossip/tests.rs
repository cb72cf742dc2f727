use futures::StreamExt;
use libp2p::swarm::SwarmEvent;

use super::*;
use crate::network::{Entry, Trace};

fn message(source: Option<libp2p::PeerId>, topic: &str, data: &[u8]) -> gossipsub::Message {
    gossipsub::Message {
        source,
        data: data.to_vec(),
        sequence_number: Some(rand::random()),
        topic: TopicHash::from_raw(topic),
    }
}

#[test]
fn a_message_is_named_by_author_topic_and_content_alone() {
    let (one, two) = (libp2p::PeerId::random(), libp2p::PeerId::random());
    let id = message_id(&message(Some(one), "a", b"x"));
    assert_eq!(id, message_id(&message(Some(one), "a", b"x")));
    for other in [
        message(Some(two), "a", b"x"),
        message(Some(one), "b", b"x"),
        message(Some(one), "a", b"y"),
        message(Some(one), "ax", b""),
    ] {
        assert_ne!(id, message_id(&other));
    }
}

fn envelope(entries: Vec<Entry>) -> Envelope {
    Envelope {
        sent: crate::types::Timestamp::from_secs(1),
        first: 1,
        credential: None,
        entries,
    }
}

#[test]
fn a_trace_context_does_not_change_what_a_message_is() {
    let author = libp2p::PeerId::random();
    let id = |envelope: &Envelope| message_id(&message(Some(author), "t", &envelope.encode()));
    let bare = envelope(vec![Entry::plain(*b"x"), Entry::plain(*b"y")]);
    let mut traced = bare.clone();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    traced.entries[1].trace = Some(Box::new(Trace::new(parent, None).unwrap()));
    assert_eq!(id(&bare), id(&traced));
    let mut later = bare.clone();
    later.first = 2;
    let mut fewer = bare.clone();
    fewer.entries = vec![Entry::plain(*b"xy")];
    assert_ne!(id(&bare), id(&later));
    assert_ne!(id(&bare), id(&fewer));
    // Of junk every byte counts.
    let junk = |data: &[u8]| message_id(&message(Some(author), "t", data));
    let bytes = bare.encode();
    assert_ne!(
        junk(&bytes[..bytes.len() - 1]),
        junk(&bytes[..bytes.len() - 2])
    );
}

struct Nobody;

impl Listeners for Nobody {
    fn may_listen(&self, _: &PeerId, _: &Topic) -> bool {
        false
    }
}

fn permitted() -> Permitted {
    Permitted {
        current: Current::default(),
        listeners: Arc::new(Nobody),
    }
}

#[test]
fn topics_are_well_formed_and_peers_need_permission() {
    let mut filter = permitted();
    let topic = TopicHash::from_raw("acme/orders");
    assert!(filter.can_subscribe(&topic));
    assert!(!filter.can_subscribe(&TopicHash::from_raw("a b")));
    assert!(!filter.can_subscribe(&TopicHash::from_raw("x".repeat(10_000))));
    let seed = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    *filter.current.lock().unwrap() = Some(PeerId::from(&seed.verifying_key()));
    assert!(!filter.can_subscribe(&topic));
}

#[test]
fn a_gossip_behaviour_is_built_and_refuses_what_it_would_lose() {
    let key = Keypair::generate_ed25519();
    let mut gossip = gossipsub(key, &GossipConfig::default(), 100, permitted()).unwrap();
    let topic = Topic::try_new("t").unwrap();
    assert!(subscribe(&mut gossip, &topic).unwrap());
    assert!(!subscribe(&mut gossip, &topic).unwrap());
    let mut envelope = envelope(vec![Entry::plain([0; 101])]);
    assert_eq!(
        publish(&mut gossip, &topic, &envelope, 100),
        Err(PublishRefusal::TooLarge {
            size: 101,
            limit: 100
        })
    );
    envelope.entries[0].payload.pop();
    assert_eq!(
        publish(&mut gossip, &topic, &envelope, 100),
        Err(PublishRefusal::NoListeners)
    );
}

#[test]
fn an_offer_is_never_longer_than_what_anybody_takes() {
    // A SHA-256 id in protobuf, the topic and the frame's heads; upstream takes 16 KiB.
    let longest = MAX_IDS_SENT * 34 + 512;
    assert!(longest < 16 * 1024);
    const { assert!(5_000 * 34 + 512 < MAX_CONTROL) };
}

#[test]
fn one_mistake_costs_no_neighbour_its_place_in_the_mesh() {
    let at = |score: f64| {
        let scale = (
            TrustScore::try_new(0.5).unwrap(),
            TrustScore::try_new(0.1).unwrap(),
        );
        application_score(TrustScore::try_new(score).unwrap(), scale)
    };
    for tolerated in [1.0, 0.5, 0.45] {
        assert!(at(tolerated).abs() < 1e-9, "{tolerated}");
    }
    assert!(at(0.3) < 0.0 && at(0.3) > NEAR_BAN);
    assert!((at(0.1) - NEAR_BAN).abs() < 1e-9);
    assert!((at(0.0) - NEAR_BAN).abs() < 1e-9);
}

#[test]
fn everything_that_may_be_long_is_paid_for() {
    let key = Keypair::generate_ed25519();
    let source = Some(key.public().to_peer_id());
    let raw = |data: usize, topic: usize| gossipsub::RawMessage {
        source,
        data: vec![0; data],
        sequence_number: Some(1),
        topic: TopicHash::from_raw("t".repeat(topic)),
        signature: Some(vec![0; 64]),
        key: Some(vec![0; 36]),
        validated: false,
    };
    assert_eq!(bytes(&raw(10, 20)), 10 + 20 + 64 + 36);
    assert_eq!(bytes(&raw(0, 10_000_000)), 10_000_100);
    let mut counter = Counter(0);
    vec![MessageId::new(&[7; 5_000]); 10].hash(&mut counter);
    assert!((50_000..51_000).contains(&counter.0), "{}", counter.0);
}

#[test]
fn what_waits_for_one_neighbour_is_bounded_in_bytes() {
    let at = |size, queued| {
        queue(&GossipConfig {
            batch_size: crate::types::ByteSize(size),
            neighbour_queue: queued,
            ..GossipConfig::default()
        })
    };
    assert_eq!(at(1, 5_000), 5_000);
    assert_eq!(at(32_768, 5_000) * 32_768, QUEUED_BYTES);
    assert_eq!(at(10_000_000, 5_000), SHORTEST_QUEUE);
    assert_eq!(at(10_000_000, 3), 3);
}

type Raw = libp2p::Swarm<Gossip>;

struct Everybody;

impl Listeners for Everybody {
    fn may_listen(&self, _: &PeerId, _: &Topic) -> bool {
        true
    }
}

fn node() -> Raw {
    let key = Keypair::generate_ed25519();
    let permitted = Permitted {
        current: Current::default(),
        listeners: Arc::new(Everybody),
    };
    // Slow enough for a debug build: an offer is of what three heartbeats brought.
    let config = GossipConfig {
        heartbeat: crate::types::Span(Duration::from_millis(500)),
        ..GossipConfig::default()
    };
    let mut gossip = gossipsub(key.clone(), &config, 1_000, permitted).unwrap();
    subscribe(&mut gossip, &Topic::try_new("t").unwrap()).unwrap();
    libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| gossip)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build()
}

/// Accepts it when it is a message. `true`: it was.
fn accept(swarm: &mut Raw, event: SwarmEvent<gossipsub::Event>) -> bool {
    let SwarmEvent::Behaviour(gossipsub::Event::Message {
        propagation_source,
        message_id,
        ..
    }) = event
    else {
        return false;
    };
    let accept = gossipsub::MessageAcceptance::Accept;
    swarm
        .behaviour_mut()
        .report_message_validation_result(&message_id, &propagation_source, accept)
}

/// Somebody outside the mesh lives on what it is offered. Offers longer than their receiver takes
/// would close the stream, and after some of them for good.
#[tokio::test]
async fn a_listener_outside_the_mesh_hears_of_messages_after_thousands_of_ids() {
    const IDS: u64 = 400;
    let (mut first, mut middle, mut last) = (node(), node(), node());
    middle
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = middle.select_next_some().await {
            break address;
        }
    };
    first.dial(address.clone()).unwrap();
    last.dial(address).unwrap();
    let outside = *last.local_peer_id();
    let topic = Topic::try_new("t").unwrap();
    let (mut next, mut heard) = (0_u64, 0_u64);
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    // Rounds of many messages, then one after the other until some of those were heard of.
    let (mut rounds, mut due, mut late) = (0, 0, 0);
    let running = async {
        loop {
            tokio::select! {
                _ = first.select_next_some() => {}
                event = middle.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == outside => {
                        // Below zero: in nobody's mesh; above the threshold of gossip.
                        let gossip = middle.behaviour_mut();
                        assert!(gossip.set_application_score(&outside, -1.0));
                    }
                    event => drop(accept(&mut middle, event)),
                },
                event = last.select_next_some() => {
                    if accept(&mut last, event) {
                        heard += 1;
                        late += u32::from(rounds > 6);
                    }
                    if late > 5 {
                        return;
                    }
                }
                _ = beat.tick() => {
                    due += 1;
                    let many = if rounds <= 6 && due % 25 == 0 { rounds += 1; IDS } else { 1 };
                    for _ in 0..many {
                        next += 1;
                        let mut message = envelope(vec![Entry::plain(*b"x")]);
                        message.first = next;
                        // Nobody there yet, or the queue is full: not what this is about.
                        let _ = publish(first.behaviour_mut(), &topic, &message, 1_000);
                    }
                }
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
    assert!(ended.is_ok(), "{heard} of {next}, {late} of the last");
    let mesh: Vec<_> = middle
        .behaviour()
        .mesh_peers(&TopicHash::from_raw("t"))
        .collect();
    assert!(!mesh.contains(&&outside), "it was outside the mesh");
}
