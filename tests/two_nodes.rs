//! Two real processes: they find each other, prove who they are, gossip, and write it down.
#![cfg(test)]

mod common;

use common::{Issuer, Node, connected_pair, eventually, pair};
use tempfile::TempDir;

fn hex(text: &str) -> String {
    hex::encode(text)
}

#[test]
fn they_connect_prove_themselves_gossip_and_both_logs_verify() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = connected_pair(root.path(), "");

    let listening = first.subscribe("orders", 3);
    let back = second.subscribe("invoices", 1);
    eventually("the second node knows who listens", || {
        let sent = second.json(&["publish", "orders", "--data", "one"]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    second.must(&["publish", "orders", "--data", "two"]);
    let file = root.path().join("payload");
    std::fs::write(&file, "three").unwrap();
    second.must(&["publish", "orders", "--file", file.to_str().unwrap()]);

    let got = listening.finish();
    let payloads: Vec<&str> = got.iter().filter_map(|m| m["payload"].as_str()).collect();
    assert_eq!(payloads.len(), 3, "{got:?}");
    assert!(payloads.contains(&hex("three").as_str()), "{got:?}");
    assert!(
        got.iter().all(|m| m["author"] == second.peer_id().as_str()),
        "{got:?}"
    );

    eventually("the first node knows who listens", || {
        let sent = first.json(&["publish", "invoices", "--data", "paid"]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    assert_eq!(back.finish()[0]["payload"], hex("paid"));

    let (one, two) = (first.peer_id(), second.peer_id());
    let peers = first.json(&["peers"]);
    assert_eq!(peers["peers"][0]["identity"], "acme/node-2");
    assert_eq!(peers["peers"][0]["tier"], "member");
    assert_eq!(first.stop().code(), Some(0));
    assert_eq!(second.stop().code(), Some(0));
    first.verify_log();
    second.verify_log();
    let accepted = |node: &Node, other: &str, name: &str| {
        node.audit().iter().any(|r| {
            let text = r.to_string();
            r["class_uid"] == 4001
                && r["activity_id"] == 1
                && text.contains(other)
                && text.contains(name)
        })
    };
    assert!(accepted(&first, &two, "acme/node-2"));
    assert!(accepted(&second, &one, "acme/node-1"));
}

#[test]
fn publishing_needs_no_listener_and_a_local_one_hears_it() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "alone", "");
    node.enrol(&issuer);
    node.start();
    let sent = node.json(&["publish", "nobody/listens", "--data", "hello"]);
    assert_eq!(sent["listeners"], 0);
    let listening = node.subscribe("mine", 1);
    node.must(&["publish", "mine", "--data", "echo"]);
    assert_eq!(listening.finish()[0]["payload"], hex("echo"));
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_stranger_is_refused_and_not_charged_for_being_one() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = connected_pair(root.path(), "");
    let mut stranger = Node::init(root.path(), "stranger", "");
    stranger.configure(&[first.address()], "");
    stranger.start();
    let who = stranger.peer_id();
    eventually("the refusal is on record", || {
        first
            .audit()
            .iter()
            .any(|r| {
                let text = r.to_string();
                text.contains(&who) && text.contains("missing")
            })
            .then_some(())
    });
    assert!(!first.peers().contains(&who));
    assert!(stranger.peers().is_empty());
    let charged = first.audit().iter().any(|r| {
        let text = r.to_string();
        text.contains(&who) && text.contains("bad_credential")
    });
    assert!(!charged, "having no credential is no misdeed");
    for node in [&mut first, &mut second, &mut stranger] {
        assert_eq!(node.stop().code(), Some(0));
        node.verify_log();
    }
}

#[test]
fn two_organisations_meet_only_when_both_trust() {
    let root = TempDir::new().unwrap();
    let (acme, globex) = (
        Issuer::init(root.path(), "acme"),
        Issuer::init(root.path(), "globex"),
    );
    let mut first = Node::init(root.path(), "node-1", "");
    let mut second = Node::init(root.path(), "node-2", "");
    first.enrol(&acme);
    second.enrol(&globex);
    second.configure(&[first.address()], "");
    first.trust(&globex);
    first.start();
    second.start();
    let one = first.peer_id();
    eventually("the second node refused the first", || {
        let refused = |r: &serde_json::Value| {
            let text = r.to_string();
            text.contains(&one) && text.contains("unknown_issuer")
        };
        second.audit().iter().any(refused).then_some(())
    });
    assert!(second.peers().is_empty());
    // Trust added to the running node is in force at once.
    second.trust(&acme);
    second.wait_peer(&one);
    // Trust taken back ends the live connection.
    second.must(&["trust", "remove", "acme"]);
    eventually("the live connection ends", || {
        second.peers().is_empty().then_some(())
    });
}

#[test]
fn a_ban_ends_the_live_connection_and_lifting_it_lets_the_peer_back() {
    let root = TempDir::new().unwrap();
    let (mut first, second) = connected_pair(root.path(), "");
    let two = second.peer_id();
    first.must(&[
        "peers",
        "ban",
        &two,
        "--for",
        "1h",
        "--reason",
        "test of a ban",
    ]);
    eventually("the live connection ends", || {
        first.peers().is_empty().then_some(())
    });
    // A ban survives the process, however it ended.
    first.kill();
    first.start();
    let bans = first.json(&["peers", "bans"]);
    assert_eq!(bans["bans"][0]["party"]["peer"], two.as_str(), "{bans}");
    assert!(first.peers().is_empty());
    first.must(&["peers", "unban", &two]);
    first.wait_peer(&two);
    first.verify_log();
}

#[test]
fn topics_outside_the_policy_are_denied() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = pair(root.path(), "policy.member_topics = [\"acme/*\"]");
    first.start();
    second.start();
    second.wait_peer(&first.peer_id());
    let denied = second.cli(&["publish", "other/topic", "--data", "x"]);
    assert_eq!(denied.status.code(), Some(77), "{denied:?}");
    let denied = second.cli(&[
        "subscribe",
        "other/topic",
        "--count",
        "1",
        "--timeout",
        "5s",
    ]);
    assert_eq!(denied.status.code(), Some(77), "{denied:?}");
    let listening = first.subscribe("acme/orders", 1);
    eventually("the second node knows who listens", || {
        let sent = second.json(&["publish", "acme/orders", "--data", "one"]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    assert_eq!(listening.finish().len(), 1);
}

#[test]
fn a_ban_of_an_address_ends_the_connections_from_it() {
    let root = TempDir::new().unwrap();
    let (first, second) = connected_pair(root.path(), "");
    first.must(&[
        "peers",
        "ban",
        "127.0.0.1",
        "--for",
        "1h",
        "--reason",
        "test",
    ]);
    eventually("the live connection ends", || {
        first.peers().is_empty().then_some(())
    });
    assert!(second.peers().is_empty() || !first.peers().contains(&second.peer_id()));
    first.must(&["peers", "unban", "127.0.0.1"]);
    first.wait_peer(&second.peer_id());
}

#[test]
fn a_node_whose_key_is_gone_does_not_become_another() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    assert_eq!(node.stop().code(), Some(0));
    std::fs::remove_file(node.dir.join("data/node.key")).unwrap();
    let refused = node.cli(&["run"]);
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    assert!(!node.dir.join("data/node.key").exists());
}
