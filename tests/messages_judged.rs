//! What peers send is judged: form, signature, budget, policy. Who is to blame is charged, and
//! whoever goes on is banned and cut off.
#![cfg(test)]

mod common;

use std::{fs, time::Duration};

use common::{
    Issuer, Node, eventually, free_port,
    peer::{credential, swarm},
    records::recorded as records,
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use quantraband::{
    identity::{ISSUER_KEY_FILE, IssuerKey, NodeKey},
    network::{Entry, Envelope, NodeBehaviour},
    sandbox::{ContentHash, JobId, wire::Request},
    types::{Clock, PeerId, SystemClock},
};
use tempfile::TempDir;

/// Drives a Swarm until `done` says so.
async fn drive<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    mut done: impl FnMut(&mut Swarm<B>, Option<SwarmEvent<B::ToSwarm>>) -> bool,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let driving = async {
        loop {
            let event = tokio::select! {
                event = swarm.select_next_some() => Some(event),
                _ = tick.tick() => None,
            };
            if done(swarm, event) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), driving)
        .await
        .expect("never happened");
}

/// A node that runs, and a member of its own that speaks the gate's protocol and is no node.
fn node_and_rogue(root: &TempDir, seed: u8) -> (Node, Swarm<NodeBehaviour>, String) {
    let acme = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", "");
    node.enrol(&acme);
    node.start();
    let issuer = IssuerKey::load(&acme.dir.join(ISSUER_KEY_FILE)).unwrap();
    let key = NodeKey::from_seed(&[seed; 32]);
    let credential = credential(&issuer, &key, "rogue", SystemClock::new().now());
    let mut rogue = swarm(&key, &credential);
    rogue
        .dial(node.address().parse::<Multiaddr>().unwrap())
        .unwrap();
    (node, rogue, key.peer().to_string())
}

/// It was charged for what it sent, banned for it, and cut off.
fn banned(node: &Node, who: &str) {
    // 0.5 at first, 0.05 each, banned below 0.1: the ninth.
    assert!(records(node, &["invalid_message", who]) >= 8);
    let bans = node.json(&["peers", "bans"]);
    assert_eq!(bans["bans"][0]["party"]["peer"], who, "{bans}");
    assert!(!node.peers().contains(&who.to_owned()));
    node.verify_log();
}

#[tokio::test]
async fn a_member_that_sends_malformed_messages_is_charged_banned_and_cut_off() {
    let root = TempDir::new().unwrap();
    let (node, mut rogue, who) = node_and_rogue(&root, 51);
    let _listening = node.subscribe("orders", 1);
    let mut number = 0_u32;
    drive(&mut rogue, |rogue, event| {
        if let Some(SwarmEvent::ConnectionClosed { .. }) = event {
            return true;
        }
        // Signed and well framed, but no envelope. Each is new, or it would be a duplicate.
        number += 1;
        let junk = number.to_be_bytes().to_vec();
        let _ = rogue
            .behaviour_mut()
            .gossip
            .publish(IdentTopic::new("orders"), junk);
        false
    })
    .await;
    banned(&node, &who);
}

#[tokio::test]
async fn a_member_that_sends_malformed_job_requests_is_charged_banned_and_cut_off() {
    let root = TempDir::new().unwrap();
    let (node, mut rogue, who) = node_and_rogue(&root, 52);
    let to = libp2p::PeerId::from_bytes(&node.peer_id().parse::<PeerId>().unwrap().to_bytes());
    let to = to.unwrap();
    // An empty chunk: well framed, and forbidden.
    let empty = Request::Put {
        job: JobId([0; 16]),
        blob: ContentHash::of(b""),
        offset: 0,
        bytes: Vec::new(),
    };
    let mut connected = false;
    drive(&mut rogue, |rogue, event| {
        match event {
            Some(SwarmEvent::ConnectionClosed { .. }) => return true,
            Some(SwarmEvent::ConnectionEstablished { .. }) => connected = true,
            // It would be a dial, and the dial's end would look like the end of this.
            _ if !connected => return false,
            _ => {}
        }
        let jobs = &mut rogue.behaviour_mut().jobs;
        let _ = jobs.send_request(&to, Ok(empty.clone()));
        false
    })
    .await;
    banned(&node, &who);
    assert!(records(&node, &["a malformed request of the job protocol", &who]) >= 8);
}

/// A plain libp2p client, as any program might be: no gate, no credential.
fn plain(authenticity: MessageAuthenticity, key: Keypair) -> Swarm<gossipsub::Behaviour> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(match authenticity {
            MessageAuthenticity::Signed(_) => ValidationMode::Strict,
            _ => ValidationMode::None,
        })
        .heartbeat_interval(Duration::from_millis(200))
        // By content: without author and number all messages would have one name.
        .message_id_fn(|message| message.data.clone().into())
        .build()
        .unwrap();
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| gossipsub::Behaviour::new(authenticity, config).unwrap())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

/// A node with an open listener, on which strangers may use the topic `open` and nothing else.
fn open_node(root: &TempDir) -> (Node, String) {
    let acme = Issuer::init(root.path(), "acme");
    let port = free_port();
    let extra = format!(
        "network.open_listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
         policy.unverified_topics = [\"open\"]\n"
    );
    let mut node = Node::init(root.path(), "node", &extra);
    node.enrol(&acme);
    node.start();
    (node, format!("/ip4/127.0.0.1/tcp/{port}"))
}

fn envelope(number: u64) -> Vec<u8> {
    let sent = SystemClock::new().now();
    Envelope {
        sent,
        first: number,
        credential: None,
        entries: vec![Entry::plain(*b"hello")],
    }
    .encode()
}

#[tokio::test]
async fn a_stranger_on_the_open_listener_reaches_the_open_topic_alone() {
    let root = TempDir::new().unwrap();
    let (node, address) = open_node(&root);
    let open = node.subscribe("open", 1);
    let _closed = node.subscribe("closed", 1);
    let key = Keypair::generate_ed25519();
    let mut stranger = plain(MessageAuthenticity::Signed(key.clone()), key);
    for topic in ["open", "closed"] {
        stranger
            .behaviour_mut()
            .subscribe(&IdentTopic::new(topic))
            .unwrap();
    }
    stranger
        .dial(address.parse::<Multiaddr>().unwrap())
        .unwrap();
    let (mut number, mut sent) = (0, 0);
    drive(&mut stranger, |stranger, _| {
        for topic in ["closed", "open"] {
            number += 1;
            let message = envelope(number);
            sent += usize::from(
                stranger
                    .behaviour_mut()
                    .publish(IdentTopic::new(topic), message)
                    .is_ok(),
            );
        }
        records(&node, &["messages_refused", "policy"]) > 0
    })
    .await;
    assert!(sent >= 2);
    let got = open.finish();
    assert_eq!(got[0]["payload"], hex::encode("hello"));
    // What it may not hear it is not sent: the node does not even count it as a listener.
    node.must(&["publish", "closed", "--data", "secret"]);
    let status = node.json(&["peers"]);
    let topics = status["peers"][0]["topics"].to_string();
    assert_eq!(status["peers"][0]["tier"], "unverified");
    assert_eq!(topics, "[\"open\"]", "{status}");
    assert_eq!(records(&node, &["\"closed\"", "invalid_message"]), 0);
}

#[tokio::test]
async fn messages_without_a_signature_are_charged_to_the_neighbour_that_sent_them() {
    let root = TempDir::new().unwrap();
    let (node, address) = open_node(&root);
    let _open = node.subscribe("open", 1);
    let key = Keypair::generate_ed25519();
    let who = key.public().to_peer_id().to_string();
    let _: PeerId = who.parse().unwrap();
    let mut rogue = plain(MessageAuthenticity::Anonymous, key);
    rogue.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    let mut number = 0;
    drive(&mut rogue, |rogue, event| {
        if let Some(SwarmEvent::ConnectionClosed { .. }) = event {
            return true;
        }
        number += 1;
        let _ = rogue
            .behaviour_mut()
            .publish(IdentTopic::new("open"), envelope(number));
        false
    })
    .await;
    assert!(records(&node, &["invalid_message", &who]) >= 8);
    let bans = node.json(&["peers", "bans"]);
    assert_eq!(bans["bans"][0]["party"]["peer"], who.as_str(), "{bans}");
}

#[test]
fn over_its_budget_a_publisher_is_told_to_try_again() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", "");
    node.enrol(&acme);
    let config = fs::read_to_string(node.dir.join("node.toml")).unwrap();
    let config = config
        .replace("messages_per_second = 10000", "messages_per_second = 1")
        .replace(
            "message_burst = 10000",
            "message_burst = 3\ngossip.batch_count = 3",
        );
    fs::write(node.dir.join("node.toml"), config).unwrap();
    node.start();
    let codes: Vec<_> = (0..8)
        .map(|_| {
            node.cli(&["publish", "t", "--data", "x"])
                .status
                .code()
                .unwrap()
        })
        .collect();
    assert_eq!(codes[..3], [0, 0, 0], "{codes:?}");
    assert!(codes.contains(&75), "{codes:?}");
    eventually("the budget comes back", || {
        node.cli(&["publish", "t", "--data", "x"])
            .status
            .success()
            .then_some(())
    });
}
