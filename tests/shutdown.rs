//! The end of a node: in order within its deadline, naming what is stuck; at once when told twice.
#![cfg(test)]

mod common;

use common::{Node, connected_pair, eventually};
use tempfile::TempDir;

/// Hung parts are neither restarted meanwhile nor waited for.
const PATIENT: &str = "supervision.default.stall = \"10m\"";

/// The last thing that happened is on record, and a checkpoint covers it.
fn ends_covered(node: &Node) {
    let audit = node.audit();
    let events = audit
        .iter()
        .rev()
        .map(|record| &record["unmapped"]["event"]);
    let last: Vec<_> = events.take(2).collect();
    assert_eq!(last, ["log_checkpoint", "node_stopping"]);
}

#[test]
fn a_part_that_is_stuck_is_named_and_the_log_is_flushed_all_the_same() {
    let root = TempDir::new().unwrap();
    let extra = format!("{PATIENT}\nnode.shutdown_deadline = \"2s\"");
    let mut node = Node::init(root.path(), "node", &extra);
    node.start();
    node.must(&["actors", "inject", "reputation", "hang"]);
    eventually("it hangs", || {
        node.try_json(&["actors", "show", "reputation"])?["state"]["stale"]
            .is_string()
            .then_some(())
    });
    assert_eq!(node.stop().code(), Some(70), "{}", node.log());
    assert!(
        node.log().contains("did not stop in time"),
        "{}",
        node.log()
    );
    assert!(node.log().contains("reputation"), "{}", node.log());
    node.verify_log();
    ends_covered(&node);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let root = TempDir::new().unwrap();
    let extra = format!("{PATIENT}\nnode.shutdown_deadline = \"10m\"");
    let mut node = Node::init(root.path(), "node", &extra);
    node.start();
    node.must(&["actors", "inject", "reputation", "hang"]);
    node.signal("TERM");
    eventually("the stop begins", || {
        node.log().contains("\"stopping\"").then_some(())
    });
    assert!(node.exited().is_none(), "it waits for the hung part");
    node.signal("INT");
    assert_eq!(node.wait_exit().code(), Some(70));
    assert!(node.log().contains("second signal"), "{}", node.log());
    node.verify_log();
}

#[test]
fn the_command_stops_it_and_the_other_side_sees_an_orderly_end() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = connected_pair(root.path(), "");
    second.must(&["stop"]);
    assert_eq!(second.wait_exit().code(), Some(0), "{}", second.log());
    eventually("the connection is gone", || {
        first.peers().is_empty().then_some(())
    });
    assert_eq!(first.stop().code(), Some(0));
    assert!(
        !first.dir.join("data/admin.sock").exists(),
        "the socket goes with the node"
    );
    ends_covered(&second);
}
