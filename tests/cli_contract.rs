//! The contract others may script against: where options stand, what commands answer, how they
//! exit.
#![cfg(test)]

mod common;

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use common::{BINARY, Issuer, Node, eventually, run_in};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn usage_errors_exit_64_and_configuration_errors_78() {
    let root = TempDir::new().unwrap();
    for bad in [
        &["frobnicate"][..],
        &["publish"],
        &["devnet", "--nodes", "many"],
        &["--nope"],
    ] {
        assert_eq!(run_in(root.path(), bad).status.code(), Some(64), "{bad:?}");
    }
    std::fs::write(root.path().join("node.toml"), "version = 7\n").unwrap();
    for command in [&["run"][..], &["status"], &["config", "check"]] {
        assert_eq!(
            run_in(root.path(), command).status.code(),
            Some(78),
            "{command:?}"
        );
    }
    let missing = run_in(
        root.path(),
        &["--config", "nowhere.toml", "config", "check"],
    );
    assert_eq!(missing.status.code(), Some(78));
    let version = run_in(root.path(), &["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("quantraband 0."));
}

#[test]
fn no_node_running_exits_69() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    for command in [
        &["status"][..],
        &["peers"],
        &["actors"],
        &["limits"],
        &["publish", "t", "--data", "x"],
    ] {
        assert_eq!(node.cli(command).status.code(), Some(69), "{command:?}");
    }
}

#[test]
fn config_stands_before_or_after_the_command() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", "");
    node.enrol(&issuer);
    node.start();
    let config = node.dir.join("node.toml");
    let config = config.to_str().unwrap();
    let before = run_in(
        root.path(),
        &["--config", config, "status", "--output", "json"],
    );
    let after = run_in(
        root.path(),
        &["--output", "json", "status", "--config", config],
    );
    let here = run_in(&node.dir, &["status", "--output", "json"]);
    for output in [before, after, here] {
        assert!(output.status.success(), "{output:?}");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["peer_id"], node.peer_id().as_str());
        let listen = status["listen"][0].as_str().unwrap();
        assert!(listen.starts_with("/ip4/127.0.0.1/tcp/"), "{listen}");
    }
    let actors = node.json(&["actors"]);
    for actor in actors["actors"].as_array().unwrap() {
        for field in ["name", "state", "restarts", "last_fault"] {
            assert!(actor.get(field).is_some(), "{field} in {actor}");
        }
    }
    let limits = node.json(&["limits"]);
    let limit = |name: &str| {
        let all = limits["limits"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert_eq!(limit("limits.connections_per_peer")["origin"], "default");
    assert!(limit("limits.memory")["used"].as_u64().unwrap() > 1_000_000);
    assert_eq!(limit("limits.pending_connections")["used"], 0);
    let tail = node.must(&["audit", "tail", "--output", "json"]);
    assert!(tail.lines().count() > 0);
    node.signal("INT");
    assert_eq!(node.wait_exit().code(), Some(0));
}

#[test]
fn subscribe_says_when_time_is_up() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", "");
    node.enrol(&issuer);
    node.start();
    let waited = node.cli(&["subscribe", "quiet", "--count", "1", "--timeout", "200ms"]);
    assert_eq!(waited.status.code(), Some(75), "{waited:?}");
    let waited = node.cli(&["subscribe", "quiet", "--timeout", "200ms"]);
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");
}

#[test]
fn health_and_metrics_are_served_on_loopback() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node", "");
    node.enrol(&issuer);
    node.start();
    let status = node.json(&["status"]);
    let http = status["http"].as_str().unwrap();
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(http).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/live").starts_with("HTTP/1.1 200"));
    assert!(
        get("/ready").starts_with("HTTP/1.1 200"),
        "{}",
        get("/ready")
    );
    let metrics = get("/metrics");
    for name in [
        "quantraband_connections_total",
        "quantraband_connections_active",
        "quantraband_denials_total",
        "quantraband_messages_received_total",
        "quantraband_messages_sent_total",
        "quantraband_decisions_total",
        "quantraband_trust_score",
        "quantraband_mailbox",
        "quantraband_actor_restarts_total",
        "quantraband_audit",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[test]
fn a_devnet_connects_and_takes_its_children_along() {
    let root = TempDir::new().unwrap();
    let mut devnet = Command::new(BINARY)
        .args(["devnet", "--nodes", "3", "--issuers", "2", "--dir", "net"])
        .current_dir(root.path())
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(devnet.stdout.take().unwrap()).lines();
    let connected = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|l| l.starts_with("devnet: connected"));
    assert!(connected.is_some(), "the devnet connects");
    let status = |i: usize| {
        let config = format!("net/node-{i}/node.toml");
        let answer = run_in(
            root.path(),
            &["--config", &config, "status", "--output", "json"],
        );
        answer
            .status
            .success()
            .then(|| serde_json::from_slice::<Value>(&answer.stdout).expect("JSON"))
    };
    for i in 1..=3 {
        assert_eq!(status(i).expect("runs")["connected"], 2);
    }
    // As Ctrl-C on a terminal: every process of the group gets it.
    let term = Command::new("kill")
        .args(["-s", "INT", "--", &format!("-{}", devnet.id())])
        .status();
    assert!(term.unwrap().success());
    let end = eventually("the devnet ends", || devnet.try_wait().unwrap());
    assert_eq!(end.code(), Some(0));
    for i in 1..=3 {
        assert!(status(i).is_none(), "node-{i} was left behind");
        let log = std::fs::read_to_string(root.path().join(format!("net/node-{i}/node.log")));
        assert!(
            log.unwrap().contains("\"stopped\""),
            "node-{i} ended in order"
        );
        let dir = format!("net/node-{i}/data/audit");
        assert!(
            run_in(root.path(), &["audit", "verify", "--dir", &dir])
                .status
                .success()
        );
    }
}
