//! Sealed messages between real nodes: those they are meant for read them, those who carry them
//! do not.
#![cfg(test)]

mod common;

use std::thread;

use common::{Issuer, Node, eventually};
use tempfile::TempDir;

/// Three nodes; the second is connected to both others, and those, when they `meet`, to each other.
fn three(root: &TempDir, meet: bool) -> [Node; 3] {
    let issuer = Issuer::init(root.path(), "acme");
    let mut nodes = ["node-1", "node-2", "node-3"].map(|name| {
        let node = Node::init(root.path(), name, "");
        node.enrol(&issuer);
        node
    });
    let (first, middle) = (nodes[0].address(), nodes[1].address());
    nodes[0].configure(std::slice::from_ref(&middle), "");
    let others = if meet {
        vec![middle, first]
    } else {
        vec![middle]
    };
    nodes[2].configure(&others, "");
    nodes[1].start();
    nodes[0].start();
    nodes[2].start();
    for node in [&nodes[0], &nodes[2]] {
        node.wait_peer(&nodes[1].peer_id());
    }
    if meet {
        nodes[0].wait_peer(&nodes[2].peer_id());
    }
    nodes
}

#[test]
fn only_the_peer_it_is_sealed_to_reads_it() {
    let root = TempDir::new().unwrap();
    let [first, second, third] = three(&root, true);
    let reading = second.subscribe("orders", 1);
    let third_reads = third.subscribe("orders", 1);
    let own = first.subscribe("orders", 1);
    let peer = second.peer_id();
    eventually("the second node listens", || {
        let sent = first.json(&["publish", "orders", "--data", "secret", "--seal-to", &peer]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    let got = reading.finish();
    assert_eq!(got[0]["text"], "secret", "{got:?}");
    assert_eq!(got[0]["sealed"], true);
    assert_eq!(got[0]["author"], first.peer_id().as_str());
    // What is for everybody still reaches everybody, and is the first that the others see.
    for subscription in [own, third_reads] {
        let waiting = thread::spawn(move || subscription.finish());
        eventually("a plain message arrives", || {
            first.must(&["publish", "orders", "--data", "plain"]);
            waiting.is_finished().then_some(())
        });
        let got = waiting.join().unwrap();
        assert_eq!(got[0]["text"], "plain", "{got:?}");
        assert_eq!(got[0]["sealed"], false);
    }
}

#[test]
fn a_group_reads_what_is_sealed_to_it_and_strangers_are_no_recipients() {
    let root = TempDir::new().unwrap();
    let [first, second, third] = three(&root, false);
    let reading = second.subscribe("orders", 1);
    // Sender and neighbour are both in the group.
    let own = first.subscribe("orders", 1);
    eventually("the group listens", || {
        let sent = first.json(&[
            "publish",
            "orders",
            "--data",
            "ours",
            "--seal-to",
            "acme/workers",
        ]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    for subscription in [reading, own] {
        let got = subscription.finish();
        assert_eq!(got[0]["text"], "ours", "{got:?}");
    }
    // The third was never connected to the first: nobody vouched for a key of its.
    let stranger = third.peer_id();
    for to in [stranger.as_str(), "acme/bosses"] {
        let output = first.cli(&["publish", "orders", "--data", "x", "--seal-to", to]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("seal.unknown"), "{said}");
    }
}
