//! `kill -9` and restart: bans, budgets and the log are there.

mod common;

use std::{io::Read, net::TcpStream, time::Duration};

use common::{Node, eventually};
use tempfile::TempDir;

/// Whether the node talks to a new connection (it sends its multistream header first), or closes
/// it without a byte.
fn is_admitted(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
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
    eventually("the debt is saved", || {
        std::thread::sleep(Duration::from_millis(1_200));
        Some(())
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
