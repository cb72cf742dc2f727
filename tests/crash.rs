//! `kill -9` and restart: bans, budgets and the log are there.
#![cfg(test)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use common::{Node, eventually};
use tempfile::TempDir;

/// How a libp2p client begins, and how the other side answers (multistream-select 1.0).
const HELLO: &[u8] = b"\x13/multistream/1.0.0\n";

/// Whether the node answers a new connection, or closes it without a byte.
fn is_admitted(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // A connection that is closed already may refuse the bytes.
    let _ = stream.write_all(HELLO);
    let mut byte = [0];
    matches!(stream.read(&mut byte), Ok(1))
}

#[test]
fn a_spent_connection_budget_survives_kill_9() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(
        root.path(),
        "node",
        "limits.connections_per_minute_per_address = 4",
    );
    node.start();
    let admitted = (0..8).filter(|_| is_admitted(node.port)).count();
    assert!(
        (4..=5).contains(&admitted),
        "4 a minute, and what comes back meanwhile: {admitted}"
    );
    assert!(!is_admitted(node.port));
    let rounds = || {
        let shown = node.try_json(&["actors", "show", "rate_limit"])?;
        shown["state"]["state"]["rounds"].as_u64()
    };
    let before = eventually("the actor shows its state", rounds);
    eventually("the debt is saved", || {
        (rounds()? > before + 1).then_some(())
    });
    node.kill();
    node.start();
    let again = (0..4).filter(|_| is_admitted(node.port)).count();
    assert!(
        again <= 1,
        "a restart must not forgive the debt, but {again} were admitted"
    );
    assert!(node.must(&["status"]).contains("12D3KooW"));
    assert_eq!(node.stop().code(), Some(0));
    node.verify_log();
}

#[test]
fn the_log_survives_kill_9_again_and_again() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    let mut known = 0;
    for round in 0..5 {
        node.start();
        let party = format!("198.51.100.{}", round + 1);
        node.must(&["peers", "ban", &party, "--for", "1h", "--reason", "round"]);
        node.kill();
        node.verify_log();
        let records = node.audit().len();
        assert!(records > known, "nothing acknowledged may be missing");
        known = records;
    }
    node.start();
    let bans = node.json(&["peers", "bans"]);
    assert_eq!(bans["bans"].as_array().unwrap().len(), 5, "{bans}");
}
