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
