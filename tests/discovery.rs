//! How real nodes find each other: by asking members (Kademlia), and no further than they want.
#![cfg(test)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use common::{Issuer, Node, PATIENCE, eventually, free_port, peer};
use futures::StreamExt;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify,
    kad::{
        self, Quorum, Record,
        store::{MemoryStore, RecordStore},
    },
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use quantraband::{
    config::Config,
    identity::{ISSUER_KEY_FILE, IssuerKey, NodeKey},
    network::{NodeBehaviour, NodeBehaviourEvent, discovery::PROTOCOL},
    types::{Clock, PeerId, SystemClock},
};
use tempfile::TempDir;

const FINDING: &str = "\
    discovery.kademlia = true\n\
    discovery.mode = \"server\"\n\
    discovery.walk = \"1s\"\n";

fn metric(node: &Node, name: &str) -> u64 {
    let status = node.json(&["status"]);
    let mut stream = TcpStream::connect(status["http"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a metric").trim().parse().unwrap()
}

#[test]
fn five_nodes_of_which_each_knows_one_find_each_other_but_not_who_is_banned() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut nodes: Vec<Node> = (0..5)
        .map(|n| Node::init(root.path(), &format!("node-{n}"), FINDING))
        .collect();
    let mut before: Vec<String> = Vec::new();
    for node in &mut nodes {
        node.enrol(&issuer);
        node.configure(&before, FINDING);
        before = vec![node.address()];
    }
    let names: Vec<String> = nodes.iter().map(Node::peer_id).collect();
    nodes[0].start();
    // The first wants nothing to do with the last.
    nodes[0].must(&["peers", "ban", &names[4], "--for", "1h"]);
    for node in &mut nodes[1..] {
        node.start();
    }
    for (n, node) in nodes.iter().enumerate() {
        for (m, name) in names.iter().enumerate() {
            if n != m && n.abs_diff(m) != 4 {
                node.wait_peer(name);
            }
        }
    }
    // It was named to the first by everybody, again and again, and that was all: nothing was planned,
    // so that no dial had to be refused either.
    let banned = "quantraband_reach_total{event=\"hint_banned\"}";
    eventually("the banned one is passed over", || {
        (metric(&nodes[0], banned) >= 3).then_some(())
    });
    assert!(!nodes[0].peers().contains(&names[4]));
    let refused = "quantraband_reach_total{event=\"dial_refused\"}";
    assert_eq!(metric(&nodes[0], refused), 0);
}

/// A node that speaks Kademlia without the walker's restraint.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Pusher {
    node: NodeBehaviour,
    kad: kad::Behaviour<MemoryStore>,
}

fn pusher(issuer: &Issuer, seed: u8) -> (Swarm<Pusher>, PeerId) {
    let key = NodeKey::from_seed(&[seed; 32]);
    let issuer = IssuerKey::load(&issuer.dir.join(ISSUER_KEY_FILE)).unwrap();
    let now = SystemClock::new().now();
    let credential = peer::credential(&issuer, &key, "pusher", now);
    let me = libp2p::PeerId::from_bytes(&key.peer().to_bytes()).unwrap();
    let kad = kad_of(me);
    let swarm = peer::swarm_with(&key, &credential, &Config::default(), |node| Pusher {
        node,
        kad,
    });
    (swarm, key.peer())
}

fn kad_of(me: libp2p::PeerId) -> kad::Behaviour<MemoryStore> {
    let config = kad::Config::new(StreamProtocol::new(PROTOCOL));
    kad::Behaviour::with_config(me, MemoryStore::new(me), config)
}

fn libp2p_id(node: &Node) -> libp2p::PeerId {
    let id = node.peer_id().parse::<PeerId>().unwrap();
    libp2p::PeerId::from_bytes(&id.to_bytes()).unwrap()
}

/// The end of a query.
async fn ended(swarm: &mut Swarm<Pusher>) -> kad::QueryResult {
    let waiting =
        async {
            loop {
                if let SwarmEvent::Behaviour(PusherEvent::Kad(
                    kad::Event::OutboundQueryProgressed { result, step, .. },
                )) = swarm.select_next_some().await
                    && step.last
                {
                    return result;
                }
            }
        };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap()
}

async fn connected(swarm: &mut Swarm<Pusher>, node: &Node) {
    swarm
        .dial(node.address().parse::<Multiaddr>().unwrap())
        .unwrap();
    let waiting = async {
        while !matches!(
            swarm.select_next_some().await,
            SwarmEvent::ConnectionEstablished { .. }
        ) {}
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", node.port);
    swarm
        .behaviour_mut()
        .kad
        .add_address(&libp2p_id(node), address.parse().unwrap());
}

#[tokio::test]
async fn records_that_a_member_pushes_are_not_kept_and_it_is_charged() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", FINDING);
    node.enrol(&issuer);
    node.start();
    let (mut rogue, who) = pusher(&issuer, 61);
    connected(&mut rogue, &node).await;
    let record = Record::new(b"key".to_vec(), b"value".to_vec());
    let to = [libp2p_id(&node)];
    let kad = &mut rogue.behaviour_mut().kad;
    kad.put_record_to(record.clone(), to.into_iter(), Quorum::One);
    ended(&mut rogue).await;
    let refused = "quantraband_reach_total{event=\"record_refused\"}";
    assert!(metric(&node, refused) >= 1);
    eventually("it is charged", || {
        let all = node.audit();
        let mut all = all.iter().map(ToString::to_string);
        all.any(|one| one.contains("to be stored by Kademlia") && one.contains(&who.to_string()))
            .then_some(())
    });

    // Another asks for it, and the node has nothing.
    let (mut other, _) = pusher(&issuer, 62);
    connected(&mut other, &node).await;
    assert!(
        other
            .behaviour_mut()
            .kad
            .store_mut()
            .get(&record.key)
            .is_none()
    );
    other.behaviour_mut().kad.get_record(record.key.clone());
    let found = ended(&mut other).await;
    assert!(
        matches!(
            found,
            kad::QueryResult::GetRecord(
                Err(_) | Ok(kad::GetRecordOk::FinishedWithNoAdditionalRecord { .. })
            )
        ),
        "{found:?}"
    );
    let none = matches!(found, kad::QueryResult::GetRecord(Err(_)));
    assert!(none, "{found:?}");
}

/// What a stranger on the open listener is told that the node speaks.
async fn spoken_with_strangers(address: &str) -> Vec<String> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            identify::Behaviour::new(identify::Config::new("/other/1".to_owned(), key.public()))
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    let waiting = async {
        loop {
            if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) =
                swarm.select_next_some().await
            {
                return info.protocols;
            }
        }
    };
    let protocols = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    protocols.iter().map(ToString::to_string).collect()
}

/// What a member is told that the node speaks.
async fn spoken_with_members(issuer: &Issuer, address: &str) -> Vec<String> {
    let key = NodeKey::from_seed(&[63; 32]);
    let issuer = IssuerKey::load(&issuer.dir.join(ISSUER_KEY_FILE)).unwrap();
    let credential = peer::credential(&issuer, &key, "asker", SystemClock::new().now());
    let mut swarm = peer::swarm(&key, &credential);
    swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    let waiting = async {
        loop {
            if let SwarmEvent::Behaviour(NodeBehaviourEvent::Identify(event)) =
                swarm.select_next_some().await
                && let identify::Event::Received { info, .. } = *event
            {
                return info.protocols;
            }
        }
    };
    let protocols = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    protocols.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn with_strangers_nothing_of_this_is_spoken() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let port = free_port();
    let open = format!("/ip4/127.0.0.1/tcp/{port}");
    let extra = format!(
        "{FINDING}network.open_listen = [\"{open}\"]\n\
         discovery.autonat_client = true\n\
         discovery.autonat_server = true\n\
         discovery.announce = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
         relay.server = true\n\
         relay.client = true\n\
         relay.hole_punching = true\n"
    );
    let mut node = Node::init(root.path(), "node", &extra);
    node.enrol(&issuer);
    node.start();
    // Hole punching is spoken inside circuits only.
    let words = ["/kad/", "/relay/", "/hop", "/stop", "autonat"];
    let spoken = spoken_with_members(&issuer, &node.address()).await;
    for word in words {
        assert!(spoken.iter().any(|one| one.contains(word)), "{spoken:?}");
    }
    let spoken = spoken_with_strangers(&open).await;
    assert!(spoken.iter().any(|one| one.contains("ping")), "{spoken:?}");
    for word in words {
        let found = spoken.iter().find(|one| one.contains(word));
        assert_eq!(found, None, "{spoken:?}");
    }
}
