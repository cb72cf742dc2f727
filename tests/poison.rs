//! A peer that has found an input which makes an actor panic: it hurts itself, and does not bring
//! the node down however often it tries.
#![cfg(test)]

mod common;

use common::{Issuer, Node, eventually};
use tempfile::TempDir;

const POISON: &str = "eat this";

/// Faults that end a node (`supervision.default.faults`) and some more.
const TRIES: f64 = 8.0;

#[test]
fn a_peer_whose_input_panics_a_handler_is_kept_out_and_the_node_stays() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let mut victim = Node::init(
        root.path(),
        "victim",
        &format!("testing.panic_on = \"{POISON}\"\nsupervision.default.faults = 3"),
    );
    let mut honest = Node::init(root.path(), "honest", "");
    let mut poisoner = Node::init(root.path(), "poisoner", "");
    for node in [&honest, &poisoner] {
        node.configure(&[victim.address()], "");
    }
    for node in [&mut victim, &mut honest, &mut poisoner] {
        node.enrol(&acme);
        node.start();
    }
    victim.wait_peer(&honest.peer_id());
    let got = victim.gather("orders");
    // Whenever it is let in, it sends it again.
    let refused = || {
        let denied = "quantraband_denials_total{reason=\"cooling_down\"}";
        victim.find_metric(denied).unwrap_or(0.0) >= TRIES
    };
    let mut sent = 0_u64;
    eventually("it is refused", || {
        let listeners = poisoner
            .try_json(&["publish", "orders", "--data", POISON])
            .and_then(|said| said["listeners"].as_u64());
        sent += listeners.unwrap_or(0);
        refused().then_some(())
    });
    assert!(sent >= 1);
    let faults = victim.restarts("swarm").unwrap();
    assert!(faults >= 1, "nothing panicked");
    assert!(faults <= 3, "{faults} faults: it was let in too often");
    assert!(victim.exited().is_none());
    // The honest one came back by itself, and is heard.
    victim.wait_peer(&honest.peer_id());
    eventually("the honest one is heard", || {
        honest.must(&["publish", "orders", "--data", "good day"]);
        got.has("good day").then_some(())
    });
    assert!(!got.has(POISON));
    victim.verify_log();
}
