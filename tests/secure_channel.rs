//! Real processes over every secure channel: what `peers`, the log and the metrics say of it, and
//! what the strict level refuses, by name.
#![cfg(test)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use common::{Issuer, Node, eventually, pair};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What one node says of its connection to the other: `peers`, and the accepted connection's
/// record.
fn shown(node: &Node, other: &str) -> (Value, Value) {
    node.wait_peer(other);
    let answer = node.json(&["peers"]);
    let peers = answer["peers"].as_array().unwrap();
    let peer = peers.iter().find(|peer| peer["peer_id"] == other).unwrap();
    assert_eq!(peer["connections"][0]["security"], peer["security"]);
    let record = eventually("the record of the connection", || {
        node.audit().into_iter().find(|record| {
            record["unmapped"]["event"] == "connection_accepted"
                && record.to_string().contains(other)
        })
    });
    (
        peer["security"].clone(),
        record["unmapped"]["security"].clone(),
    )
}

fn scrape(node: &Node) -> String {
    let status = node.json(&["status"]);
    let http = status["http"].as_str().unwrap();
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn everywhere(mut first: Node, mut second: Node, expected: &Value, column: &str) {
    first.start();
    second.start();
    let (one, two) = (first.peer_id(), second.peer_id());
    for (node, other) in [(&first, &two), (&second, &one)] {
        let (peers, record) = shown(node, other);
        assert_eq!(&peers, expected);
        assert_eq!(&record, expected);
        let table = node.must(&["peers"]);
        assert!(
            table.contains("CHANNEL") && table.contains(column),
            "{table}"
        );
        let series = format!(
            "quantraband_channels_total{{channel={},hybrid=\"{}\"}} 1",
            expected["kind"], expected["hybrid"]
        );
        let metrics = scrape(node);
        assert!(metrics.contains(&series), "{series} is not in\n{metrics}");
    }
    for node in [&mut first, &mut second] {
        assert_eq!(node.stop().code(), Some(0));
        node.verify_log();
    }
}

#[test]
fn by_default_two_nodes_are_connected_by_tls_with_ml_kem_inside_noise() {
    let root = TempDir::new().unwrap();
    let (first, second) = pair(root.path(), "");
    let expected = json!({
        "kind": "stacked",
        "protocol": "/quantraband/noise+tls13pq/1",
        "layers": ["noise", "tls13"],
        "group": "X25519MLKEM768",
        "cipher": "AES_256_GCM_SHA384",
        "hybrid": true,
    });
    everywhere(first, second, &expected, "stacked X25519MLKEM768");
}

#[test]
fn classic_nodes_are_connected_by_noise_and_it_is_shown() {
    let root = TempDir::new().unwrap();
    let (first, second) = pair(root.path(), "transport.security = \"classic\"");
    let expected = json!({
        "kind": "noise",
        "protocol": "/noise",
        "layers": ["noise"],
        "group": "X25519",
        "cipher": "CHACHA20_POLY1305_SHA256",
        "hybrid": false,
    });
    everywhere(first, second, &expected, "noise X25519");
}

#[test]
fn quic_connects_them_too_and_claims_no_more_than_it_can_prove() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let first = Node::init(root.path(), "node-1", "");
    let second = Node::init(root.path(), "node-2", "");
    first.enrol(&issuer);
    second.enrol(&issuer);
    let quic = |node: &Node| format!("/ip4/127.0.0.1/udp/{}/quic-v1", node.port);
    let rewrite = |node: &Node, bootstrap: &[String]| {
        node.configure(bootstrap, "");
        let file = node.dir.join("node.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let tcp = format!("/ip4/127.0.0.1/tcp/{}\"", node.port);
        let text = text.replacen(&tcp, &format!("{}\"", quic(node)), 1);
        std::fs::write(file, text).unwrap();
    };
    rewrite(&first, &[]);
    rewrite(
        &second,
        &[format!("{}/p2p/{}", quic(&first), first.peer_id())],
    );
    let expected = json!({
        "kind": "quic",
        "protocol": "/quic-v1",
        "layers": ["quic_v1", "tls13"],
        "group": "X25519MLKEM768 preferred, unproven",
        "cipher": "TLS 1.3, not told",
        "hybrid": false,
    });
    everywhere(
        first,
        second,
        &expected,
        "quic X25519MLKEM768 preferred, unproven",
    );
}

/// Waits for a record that names the refusal.
fn refused(node: &Node, event: &str, code: &str) -> Value {
    eventually("the refusal is on record", || {
        node.audit()
            .into_iter()
            .find(|record| record["unmapped"]["event"] == event && record["status_code"] == code)
    })
}

#[test]
fn a_strict_node_and_a_classic_one_do_not_meet_and_both_say_why() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = pair(root.path(), "audit.aggregate = \"200ms\"");
    let strict = "transport.security = \"require-hybrid\"\naudit.aggregate = \"200ms\"";
    first.configure(&[], strict);
    second.configure(&[first.address()], "transport.security = \"classic\"");
    first.start();
    second.start();
    // The dialler knows whom it meant; the listener has only an address.
    let record = refused(&second, "authentication_failed", "channel_none_in_common");
    assert!(record.to_string().contains(&first.peer_id()), "{record}");
    assert!(
        record.to_string().contains("transport.security"),
        "{record}"
    );
    let record = refused(&first, "connections_refused", "hybrid_required");
    assert!(record.to_string().contains("127.0.0.1"), "{record}");
    eventually("the refusal is counted", || {
        let metrics = scrape(&first);
        let line = metrics
            .lines()
            .find(|line| line.contains("denials_total{reason=\"hybrid_required\"}"))?;
        (!line.ends_with(" 0")).then_some(())
    });
    assert!(second.log().contains("no secure channel in common"));
    assert!(first.peers().is_empty() && second.peers().is_empty());
    for node in [&mut first, &mut second] {
        assert_eq!(node.stop().code(), Some(0));
        node.verify_log();
    }
}

#[test]
fn a_strict_dialler_names_what_is_missing_and_a_single_peer_can_be_held_to_it() {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = pair(root.path(), "");
    first.configure(&[], "transport.security = \"classic\"");
    let held = format!("transport.peers.{} = \"require-hybrid\"", first.peer_id());
    second.configure(&[first.address()], &held);
    first.start();
    second.start();
    let record = refused(&second, "authentication_failed", "hybrid_required");
    assert!(record.to_string().contains("require-hybrid"), "{record}");
    assert!(second.log().contains("/quantraband/noise+tls13pq/1"));
    assert!(second.peers().is_empty());
    // The other side gives way: now they meet.
    assert_eq!(first.stop().code(), Some(0));
    first.configure(&[], "");
    first.start();
    let (security, _) = shown(&second, &first.peer_id());
    assert_eq!(security["kind"], "stacked");
}

#[test]
fn strictness_and_quic_exclude_each_other_in_the_configuration() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let strict = "transport.security = \"require-hybrid\"\n\
                  network.open_listen = [\"/ip4/127.0.0.1/udp/0/quic-v1\"]";
    node.configure(&[], strict);
    let output = node.cli(&["config", "check"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("network.open_listen") && said.contains("hybrid"),
        "{said}"
    );
}
