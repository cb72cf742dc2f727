//! Real nodes that reach each other through a third one: what a relay carries is proved and
//! encrypted by its two ends, it relays for members alone and within its limits, and a hole is
//! punched where it can be.
#![cfg(test)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use common::{Issuer, Node, PATIENCE, eventually, free_port};
use futures::StreamExt;
use libp2p::{
    Multiaddr, SwarmBuilder, identify,
    multiaddr::Protocol,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use serde_json::Value;
use tempfile::TempDir;

fn metric(node: &Node, name: &str) -> u64 {
    let status = node.json(&["status"]);
    let mut stream = TcpStream::connect(status["http"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a metric").trim().parse().unwrap()
}

fn event(node: &Node, name: &str) -> u64 {
    metric(
        node,
        &format!("quantraband_reach_total{{event=\"{name}\"}}"),
    )
}

/// A running relay of `issuer`'s.
fn relay(root: &TempDir, issuer: &Issuer, limits: &str) -> Node {
    let mut node = Node::init(root.path(), "relay", "");
    let extra = format!(
        "relay.server = true\n\
         discovery.announce = [\"/ip4/127.0.0.1/tcp/{}\"]\n\
         {limits}",
        node.port
    );
    node.configure(&[], &extra);
    node.enrol(issuer);
    node.start();
    node
}

/// A node that keeps a place at the relay, and nothing else is known of it.
fn placed(root: &TempDir, issuer: &Issuer, name: &str, relay: &Node, extra: &str) -> Node {
    let mut node = Node::init(root.path(), name, "");
    let extra = format!(
        "relay.client = true\nrelay.reserve = [\"{}\"]\n{extra}",
        relay.address()
    );
    node.configure(&[], &extra);
    node.enrol(issuer);
    node.start();
    node
}

fn has_place(node: &Node) {
    eventually("a place at the relay", || {
        let status = node.json(&["status"]);
        let listen = status["listen"].as_array().unwrap();
        let circuit = |one: &Value| one.as_str().unwrap().contains("/p2p-circuit");
        listen.iter().any(circuit).then_some(())
    });
}

/// The way to a node through the relay.
fn through(relay: &Node, node: &Node) -> String {
    format!("{}/p2p-circuit/p2p/{}", relay.address(), node.peer_id())
}

/// A running node that dials `bootstrap`.
fn dialler(root: &TempDir, issuer: &Issuer, (name, bootstrap): (&str, &str), extra: &str) -> Node {
    let mut node = Node::init(root.path(), name, "");
    let extra = format!("relay.client = true\n{extra}");
    node.configure(&[bootstrap.to_owned()], &extra);
    node.enrol(issuer);
    node.start();
    node
}

/// The connections of a node with another.
fn connections(node: &Node, other: &str) -> Vec<Value> {
    let answer = node.json(&["peers"]);
    let peers = answer["peers"].as_array().unwrap();
    let found = peers.iter().find(|peer| peer["peer_id"] == other);
    let all = found.and_then(|peer| peer["connections"].as_array());
    all.cloned().unwrap_or_default()
}

#[test]
fn two_nodes_talk_through_a_third_and_prove_themselves_to_each_other() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let relay = relay(&root, &issuer, "");
    let hybrid = "transport.security = \"require-hybrid\"\n";
    let target = placed(&root, &issuer, "target", &relay, hybrid);
    has_place(&target);
    let way = through(&relay, &target);
    let second = dialler(&root, &issuer, ("second", &way), hybrid);
    let (there, here) = (target.peer_id(), second.peer_id());
    second.wait_peer(&there);
    target.wait_peer(&here);
    for (node, other) in [(&second, &there), (&target, &here)] {
        let all = connections(node, other);
        assert_eq!(all.len(), 1, "{all:?}");
        // The relay is named, and nothing of the encryption is its own.
        assert_eq!(all[0]["relay"], relay.peer_id().as_str());
        assert_eq!(all[0]["security"]["kind"], "stacked");
        assert_eq!(all[0]["security"]["hybrid"], true);
        assert_eq!(all[0]["pq_auth"], true);
        let table = node.must(&["peers"]);
        assert!(
            table.contains(&format!("relayed by {}", relay.peer_id())),
            "{table}"
        );
    }
    let listener = second.subscribe("far", 1);
    eventually("it listens", || {
        let answer = target.json(&["publish", "far", "--data", "hello"]);
        (answer["listeners"].as_u64()? > 0).then_some(())
    });
    assert_eq!(listener.finish()[0]["text"], "hello");
    assert_eq!(event(&relay, "relay_circuit"), 1);

    // Who accepts only classic channels is refused inside the circuit, by name.
    let classic = "transport.security = \"classic\"\n";
    let third = dialler(&root, &issuer, ("third", &way), classic);
    third.wait_peer(&relay.peer_id());
    eventually("the channel is refused", || {
        third.log().contains("not connected").then_some(())
    });
    assert_eq!(connections(&target, &third.peer_id()), Vec::<Value>::new());

    // Nor is a member of somebody else's let in, though the relay lets it.
    let globex = Issuer::init(root.path(), "globex");
    relay.trust(&globex);
    let foreign = dialler(&root, &globex, ("foreign", &way), "");
    foreign.trust(&issuer);
    eventually("the foreigner is refused", || {
        let all = target.audit();
        let mut all = all.iter().filter(|one| {
            one["unmapped"]["event"] == "authentication_failed"
                && one.to_string().contains(&foreign.peer_id())
        });
        all.next().map(|_| ())
    });
    assert_eq!(
        connections(&target, &foreign.peer_id()),
        Vec::<Value>::new()
    );
}

#[test]
fn a_relay_keeps_to_its_limits() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let limits = "relay.reservations = 1\nrelay.circuits = 1\n";
    let relay = relay(&root, &issuer, limits);
    let target = placed(&root, &issuer, "target", &relay, "");
    has_place(&target);
    // A second place is not to be had, and it is asked for again and again.
    let late = placed(&root, &issuer, "late", &relay, "");
    eventually("the place is denied", || {
        (event(&relay, "relay_denied") >= 2).then_some(())
    });
    assert!(event(&late, "reservation_lost") >= 1);
    // From here on whatever is denied is a circuit.
    drop(late);
    let way = through(&relay, &target);
    let second = dialler(&root, &issuer, ("second", &way), "");
    second.wait_peer(&target.peer_id());
    let third = dialler(&root, &issuer, ("third", &way), "");
    let before = event(&relay, "relay_denied");
    eventually("the circuit is denied", || {
        (event(&relay, "relay_denied") > before + 1).then_some(())
    });
    assert_eq!(connections(&target, &third.peer_id()), Vec::<Value>::new());
    assert_eq!(connections(&third, &target.peer_id()), Vec::<Value>::new());
    assert_eq!(connections(&second, &target.peer_id()).len(), 1);
}

#[test]
fn one_peer_has_no_more_circuits_than_the_key_says() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let relay = relay(&root, &issuer, "relay.circuits_per_peer = 1\n");
    let one = placed(&root, &issuer, "one", &relay, "");
    let two = placed(&root, &issuer, "two", &relay, "");
    has_place(&one);
    has_place(&two);
    let ways = [through(&relay, &one), through(&relay, &two)];
    let mut second = Node::init(root.path(), "second", "");
    second.configure(&ways, "relay.client = true\n");
    second.enrol(&issuer);
    second.start();
    eventually("one circuit stands and the other is denied", || {
        let stand = [&one, &two]
            .iter()
            .filter(|node| !connections(&second, &node.peer_id()).is_empty())
            .count();
        (stand == 1 && event(&relay, "relay_denied") >= 2).then_some(())
    });
    assert!(connections(&one, &two.peer_id()).is_empty());
}

/// A plain libp2p client.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Stranger {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
}

#[tokio::test]
async fn a_stranger_gets_no_place_and_no_circuit() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let port = free_port();
    let open = format!("network.open_listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n");
    let relay = relay(&root, &issuer, &open);
    let target = placed(&root, &issuer, "target", &relay, "");
    has_place(&target);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key, relay| Stranger {
            relay,
            identify: identify::Behaviour::new(identify::Config::new(
                "/other/1".to_owned(),
                key.public(),
            )),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    let there = relay.peer_id();
    let way: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{there}")
        .parse()
        .unwrap();
    // It is let in, and served what strangers are served.
    swarm.dial(way.clone()).unwrap();
    let served = async {
        while !matches!(
            swarm.select_next_some().await,
            SwarmEvent::Behaviour(StrangerEvent::Identify(identify::Event::Received { .. }))
        ) {}
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    let place = swarm
        .listen_on(way.clone().with(Protocol::P2pCircuit))
        .unwrap();
    let to_target = way
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(target.peer_id().parse().unwrap()));
    swarm.dial(to_target).unwrap();
    let mut refused = (false, false);
    let ending = async {
        while refused != (true, true) {
            match swarm.select_next_some().await {
                SwarmEvent::ListenerClosed { listener_id, .. } if listener_id == place => {
                    refused.0 = true;
                }
                SwarmEvent::OutgoingConnectionError { .. } => refused.1 = true,
                SwarmEvent::NewListenAddr { listener_id, .. } => assert_ne!(listener_id, place),
                SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                    assert!(!endpoint.is_relayed());
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.unwrap();
    // The target's place is the only one.
    assert_eq!(event(&relay, "relay_reservation"), 1);
    assert_eq!(event(&relay, "relay_circuit"), 0);
}

#[test]
fn a_hole_is_punched_and_the_relay_is_spared() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let relay = relay(&root, &issuer, "");
    // On loopback every address is private.
    let punch = "relay.hole_punching = true\ndiscovery.private_addresses = true\n";
    let target = placed(&root, &issuer, "target", &relay, punch);
    has_place(&target);
    let way = through(&relay, &target);
    let second = dialler(&root, &issuer, ("second", &way), punch);
    second.wait_peer(&target.peer_id());
    eventually("only a direct connection is left", || {
        let all = connections(&second, &target.peer_id());
        let direct = !all.is_empty() && all.iter().all(|one| one["relay"].is_null());
        direct.then_some(())
    });
    assert!(event(&second, "hole_punched") + event(&target, "hole_punched") >= 1);
}

#[test]
fn a_member_tries_for_another_whether_it_can_be_reached() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    // On loopback every address is private.
    let near = "discovery.private_addresses = true\n";
    let serves = format!("discovery.autonat_server = true\n{near}");
    let mut server = Node::init(root.path(), "server", &serves);
    server.enrol(&issuer);
    server.start();
    let mut client = Node::init(root.path(), "client", "");
    let asks = format!("discovery.autonat_client = true\n{near}");
    client.configure(&[server.address()], &asks);
    client.enrol(&issuer);
    client.start();
    let status = eventually("it was tried", || {
        let status = client.json(&["status"]);
        (status["reachability"] == "reachable").then_some(status)
    });
    let announced = format!("/ip4/127.0.0.1/tcp/{}", client.port);
    let external = status["external"].as_array().unwrap();
    assert!(
        external.iter().any(|one| *one == announced.as_str()),
        "{status}"
    );
    assert!(event(&server, "probe") >= 1);
}
