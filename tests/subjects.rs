//! Bans follow a member to its next key, and nobody is banned for what another did in its name; on
//! real nodes.
#![cfg(test)]

mod common;

use std::{fs, time::Duration};

use common::{
    Issuer, Node, eventually,
    peer::{credential, present, swarm},
    records::recorded as records,
};
use futures::StreamExt;
use libp2p::{Multiaddr, Swarm, gossipsub::IdentTopic, swarm::SwarmEvent};
use quantraband::{
    identity::{ISSUER_KEY_FILE, IssuerKey, NodeKey},
    network::NodeBehaviour,
    types::{Clock, SystemClock, Timestamp},
};
use tempfile::TempDir;

/// All these peers share one address, and each dials many times.
const MANY: &str = "limits.exempt_networks = [\"127.0.0.0/8\"]";

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn node_of(root: &TempDir, acme: &Issuer) -> Node {
    let mut node = Node::init(root.path(), "node", MANY);
    node.enrol(acme);
    node.start();
    node
}

fn key_of(issuer: &Issuer) -> IssuerKey {
    IssuerKey::load(&issuer.dir.join(ISSUER_KEY_FILE)).unwrap()
}

fn dialling(key: &NodeKey, credential: &[u8], node: &Node) -> Swarm<NodeBehaviour> {
    let mut swarm = swarm(key, credential);
    let address = node.address().parse::<Multiaddr>().unwrap();
    swarm.dial(address).unwrap();
    swarm
}

/// Drives a Swarm until `done` says so; it is asked now and then, too, when nothing happens.
async fn drive(
    swarm: &mut Swarm<NodeBehaviour>,
    mut done: impl FnMut(&mut Swarm<NodeBehaviour>, Option<&str>) -> bool,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let driving = async {
        loop {
            let event = tokio::select! {
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => Some("connected"),
                    SwarmEvent::ConnectionClosed { .. } => Some("closed"),
                    _ => None,
                },
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

/// The banned, as an operator types them.
fn bans(node: &Node) -> Vec<String> {
    let listed = node.json(&["peers", "bans"]);
    let all = listed["bans"].as_array().unwrap().iter();
    let mut all: Vec<String> = all
        .map(|ban| {
            let names = ban["party"].as_object().unwrap();
            names.values().next().unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_banned_member_that_comes_back_with_another_key_is_refused_by_name_until_released() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let mut node = node_of(&root, &acme);
    let issuer = key_of(&acme);
    let [old, new] = [61, 62].map(|seed| NodeKey::from_seed(&[seed; 32]));
    let first = credential(&issuer, &old, "rogue", now());
    let second = credential(&issuer, &new, "rogue", now());
    let other = NodeKey::from_seed(&[63; 32]);
    let honest = credential(&issuer, &other, "honest", now());

    // It publishes what nobody publishes until it is cut off.
    let _listening = node.subscribe("orders", 1);
    let mut rogue = dialling(&old, &first, &node);
    let mut number = 0_u32;
    drive(&mut rogue, |rogue, event| {
        number += 1;
        let junk = number.to_be_bytes().to_vec();
        let gossip = &mut rogue.behaviour_mut().gossip;
        let _ = gossip.publish(IdentTopic::new("orders"), junk);
        event == Some("closed")
    })
    .await;
    let mut both = [old.peer().to_string(), "acme/rogue".to_owned()];
    both.sort();
    assert_eq!(bans(&node), both);

    // Another key, another credential, the same member: refused as banned, and the log says who.
    let refused = present(&new, &second, &node.address()).await.unwrap_err();
    assert!(refused.contains("banned"), "{refused}");
    let who = new.peer().to_string();
    eventually("it is on record", || {
        (records(&node, &[&who, "acme/rogue is banned until"]) > 0).then_some(())
    });
    assert_eq!(records(&node, &[&format!("charge:{who}")]), 0);
    present(&other, &honest, &node.address()).await.unwrap();

    // It is so after a restart, by the store, and when the store is lost, by the log.
    assert_eq!(node.stop().code(), Some(0));
    fs::remove_dir_all(node.dir.join("data/state")).unwrap();
    node.start();
    assert_eq!(bans(&node), both);
    let refused = present(&new, &second, &node.address()).await.unwrap_err();
    assert!(refused.contains("banned"), "{refused}");

    // The operator releases the member: its new key is let in, the old one is still banned.
    node.must(&["peers", "unban", "acme/rogue"]);
    let mut rogue = dialling(&new, &second, &node);
    drive(&mut rogue, |_, event| event == Some("connected")).await;
    let refused = present(&old, &first, &node.address()).await.unwrap_err();
    assert!(refused.contains("banned"), "{refused}");

    // And bans it by name: a live connection ends.
    eventually("it is a peer", || node.peers().contains(&who).then_some(()));
    node.must(&["peers", "ban", "acme/rogue"]);
    drive(&mut rogue, |_, event| event == Some("closed")).await;
    node.verify_log();
}

#[tokio::test]
async fn who_presents_a_document_that_names_another_harms_itself_alone() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let node = node_of(&root, &acme);
    let [victim, thief, forger] = [71, 72, 73].map(|seed| NodeKey::from_seed(&[seed; 32]));
    let good = credential(&key_of(&acme), &victim, "victim", now());

    // The victim's own credential, and one that another made in the issuer's name.
    let elsewhere = root.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let false_acme = Issuer::init(&elsewhere, "acme");
    let forged = credential(&key_of(&false_acme), &forger, "victim", now());
    let mut harmed = Vec::new();
    for (key, shown) in [(&thief, &good), (&forger, &forged)] {
        let who = key.peer().to_string();
        eventually_banned(&node, key, shown).await;
        eventually("each is on record", || {
            let charge = format!("charge:{who}");
            (records(&node, &[&charge, "bad_credential"]) >= 5).then_some(())
        });
        harmed.push(who);
        harmed.sort();
        assert_eq!(bans(&node), harmed);
    }
    assert_eq!(records(&node, &["charge:acme/victim"]), 0);
    present(&victim, &good, &node.address()).await.unwrap();
    node.verify_log();
}

/// Presents it again and again, until the key is banned for it.
async fn eventually_banned(node: &Node, key: &NodeKey, shown: &[u8]) {
    for _ in 0..50 {
        let refused = present(key, shown, &node.address()).await.unwrap_err();
        if refused.contains("banned") || bans(node).contains(&key.peer().to_string()) {
            return;
        }
    }
    panic!("nobody minds");
}

#[test]
fn an_author_that_is_no_neighbour_is_barred_by_its_name() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let mut nodes = ["first", "second", "third"].map(|name| Node::init(root.path(), name, ""));
    let mut before: Option<String> = None;
    for node in &mut nodes {
        node.enrol(&acme);
        let known: Vec<String> = before.into_iter().collect();
        node.configure(&known, "audit.aggregate = \"1s\"");
        node.start();
        before = Some(node.address());
    }
    let [first, second, third] = nodes;
    second.wait_peer(&first.peer_id());
    third.wait_peer(&second.peer_id());
    third.must(&["peers", "ban", "acme/first"]);
    let _relay = second.subscribe("far", 1_000);
    let mut listener = third.subscribe("far", 1_000);
    let author = first.peer_id();
    eventually("it is refused as banned", || {
        first.must(&["publish", "far", "--data", "barred"]);
        (records(&third, &[&author, "author_banned"]) > 0).then_some(())
    });
    second.must(&["publish", "far", "--data", "own"]);
    assert_eq!(listener.next()["text"], "own");
    assert_eq!(bans(&third), ["acme/first"]);
}
