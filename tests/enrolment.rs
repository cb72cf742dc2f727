//! A credential's life on real nodes: invited, renewed, lapsed and recovered, refused.
#![cfg(test)]

mod common;

use std::{path::Path, process::Output, time::Duration};

use common::{
    Issuer, Node, eventually,
    records::{on_record, seen},
    run_in,
};
use quantraband::identity::invitation::Token;
use quantraband::types::{Clock, SystemClock, Timestamp};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// A node of the issuer `acme` that issues; its own credential holds for 30 days.
fn hub(root: &Path, extra: &str) -> (Issuer, Node) {
    let issuer = Issuer::init(root, "acme");
    let mut hub = Node::init(root, "hub", &issues(&issuer, extra));
    hub.enrol(&issuer);
    hub.start();
    (issuer, hub)
}

fn issues(issuer: &Issuer, extra: &str) -> String {
    format!("issuer.dir = {:?}\n{extra}", issuer.dir)
}

fn invite(hub: &Node, subject: &str, more: &[&str]) -> String {
    let args = [
        &["invite", "--subject", subject, "--group", "workers"],
        more,
    ]
    .concat();
    hub.json(&args)["token"].as_str().unwrap().to_owned()
}

fn join(node: &Node, token: &str) -> Output {
    node.cli(&["join", token, "--dir", node.dir.to_str().unwrap()])
}

fn joined(node: &Node, hub: &Node, token: &str) {
    let output = join(node, token);
    assert!(output.status.success(), "{output:?}\n{}", hub.log());
}

fn refused(output: &Output, code: i32, why: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(text.contains(why), "`{why}` is not in: {text}");
}

fn wait_until(at: Timestamp) {
    let clock = SystemClock::new();
    eventually("the time has come", || (clock.now() > at).then_some(()));
}

fn expiry(node: &Node) -> Timestamp {
    let shown = node.json(&["identity", "show"]);
    Timestamp::from_millis(shown["credential"]["expires"].as_u64().unwrap())
}

#[test]
fn one_command_makes_a_member_of_a_new_machine() {
    let root = TempDir::new().unwrap();
    let (_, hub) = hub(root.path(), "");
    let token = invite(&hub, "node-9", &[]);
    // A machine on which there is nothing.
    let fresh = root.path().join("fresh");
    let dir = fresh.to_str().unwrap();
    let output = run_in(root.path(), &["join", &token, "--dir", dir]);
    assert!(output.status.success(), "{output:?}\n{}", hub.log());
    let config = std::fs::read_to_string(fresh.join("node.toml")).unwrap();
    assert!(config.contains(&hub.address()), "{config}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("quantraband run"));

    let mut node = Node::init(root.path(), "node-10", "");
    joined(&node, &hub, &invite(&hub, "node-10", &[]));
    node.configure(&[hub.address()], "");
    node.start();
    node.wait_peer(&hub.peer_id());
    let entry = eventually("the hub sees it", || seen(&hub, &node.peer_id()));
    assert_eq!(entry["tier"], "member", "{entry}");
    assert_eq!(entry["identity"], "acme/node-10", "{entry}");
    let shown = node.json(&["identity", "show"]);
    assert_eq!(shown["credential"]["groups"][0], "acme/workers", "{shown}");
    assert!(on_record(&hub, &["credential_issued", &node.peer_id()]));
    assert!(on_record(&hub, &["invitation_made", "acme/node-10"]));
    let secret = Token::from_text(&token).unwrap().secret;
    let secret = hex::encode(*secret);
    assert!(!hub.audit().iter().any(|r| r.to_string().contains(&secret)));
    assert!(!hub.log().contains(&token));
}

#[test]
fn an_invitation_is_good_once_for_one_key_and_for_its_time() {
    let root = TempDir::new().unwrap();
    let (issuer, mut hub) = hub(root.path(), "");
    let (first, second) = (
        Node::init(root.path(), "first", ""),
        Node::init(root.path(), "second", ""),
    );
    let token = invite(&hub, "node-1", &[]);
    let mut wrong = Token::from_text(&token).unwrap();
    wrong.secret = Zeroizing::new([1; 32]);
    refused(&join(&first, &wrong.to_text()), 77, "no such invitation");
    let who = first.peer_id();
    eventually("the guess is charged", || {
        on_record(&hub, &["charged", "bad_credential", &who]).then_some(())
    });
    joined(&first, &hub, &token);
    let hash =
        |node: &Node| node.json(&["identity", "show"])["credential"]["credential_hash"].clone();
    let got = hash(&first);
    // Its answer might have been lost: the same key may ask again, also after a crash of the hub,
    // and gets what it got.
    hub.kill();
    hub.start();
    joined(&first, &hub, &token);
    assert_eq!(hash(&first), got);
    refused(&join(&second, &token), 77, "invitation.used");

    let short = invite(&hub, "node-2", &["--expires", "1s"]);
    let mut token = Token::from_text(&short).unwrap();
    wait_until(token.expires);
    refused(&join(&second, &short), 65, "expired");
    // Nor does the hub believe a token that says otherwise.
    token.expires = token.expires.after(Duration::from_secs(3_600));
    refused(&join(&second, &token.to_text()), 77, "invitation.expired");
    // A node that does not issue invites nobody.
    hub.stop();
    hub.configure(&[], "");
    hub.start();
    let denied = hub.cli(&["invite", "--subject", "x"]);
    refused(&denied, 77, "issuer.dir");
    drop(issuer);
}

#[test]
fn of_two_that_come_at_once_one_wins() {
    let root = TempDir::new().unwrap();
    let (_, hub) = hub(root.path(), "");
    let token = invite(&hub, "node-1", &[]);
    let nodes = [
        Node::init(root.path(), "first", ""),
        Node::init(root.path(), "second", ""),
    ];
    let outputs = std::thread::scope(|scope| {
        nodes
            .each_ref()
            .map(|node| scope.spawn(|| join(node, &token)))
            .map(|thread| thread.join().unwrap())
    });
    let won = outputs.iter().filter(|o| o.status.success()).count();
    assert_eq!(won, 1, "{outputs:?}");
    let lost = outputs.iter().find(|o| !o.status.success()).unwrap();
    refused(lost, 77, "invitation.used");
}

#[test]
fn a_token_for_another_issuers_key_is_not_believed() {
    let root = TempDir::new().unwrap();
    let (_, hub) = hub(root.path(), "");
    let mut token = Token::from_text(&invite(&hub, "node-1", &[])).unwrap();
    token.issuer.0[0] ^= 1;
    let node = Node::init(root.path(), "node", "");
    refused(&join(&node, &token.to_text()), 65, "not the invitation's");
    assert!(!node.dir.join("data/identity/credential.cose").exists());
    assert!(!node.dir.join("data/trust/acme.anchor").exists());
    // And nobody but the peer that it names is shown anything.
    let mut token = Token::from_text(&invite(&hub, "node-2", &[])).unwrap();
    token.peer = node.peer_id().parse().unwrap();
    let other = Node::init(root.path(), "other", "");
    refused(&join(&other, &token.to_text()), 69, "not reached");
}

#[test]
fn a_credential_is_renewed_before_its_end_and_nobody_is_disconnected() {
    let root = TempDir::new().unwrap();
    let (_, hub) = hub(root.path(), "issuer.lifetime = \"12s\"");
    let mut node = Node::init(root.path(), "node-1", "");
    joined(&node, &hub, &invite(&hub, "node-1", &[]));
    let first = expiry(&node);
    node.configure(&[hub.address()], "");
    node.start();
    let (me, other) = (node.peer_id(), hub.peer_id());
    node.wait_peer(&other);
    let since = eventually("the hub sees it", || hub.since(&me));
    eventually("the hub sees the renewed credential", || {
        let entry = seen(&hub, &me)?;
        (entry["expires"].as_u64()? > first.millis()).then_some(())
    });
    wait_until(first.after(Duration::from_secs(2)));
    assert_eq!(hub.since(&me), Some(since), "the connection stands");
    assert!(on_record(
        &hub,
        &["credential_renewed", "enrol.member", &me]
    ));
    assert!(on_record(&node, &["credential_renewed", &me]));
    // Messages are known by the new credential at once.
    let listening = hub.subscribe("orders", 1);
    eventually("the message arrives", || {
        let sent = node.json(&["publish", "orders", "--data", "x"]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    assert_eq!(listening.finish().len(), 1);
}

#[test]
fn a_node_that_was_off_too_long_recovers_by_itself() {
    let root = TempDir::new().unwrap();
    let (issuer, mut hub) = hub(root.path(), "issuer.lifetime = \"2s\"");
    let mut node = Node::init(root.path(), "node-1", "");
    joined(&node, &hub, &invite(&hub, "node-1", &[]));
    let end = expiry(&node);
    wait_until(end);
    // As long as nothing is renewed, it may connect, and that is all.
    hub.stop();
    hub.configure(&[], &issues(&issuer, "issuer.renew = false"));
    hub.start();
    node.configure(&[hub.address()], "");
    node.start();
    let me = node.peer_id();
    let entry = eventually("it is let in for renewal", || seen(&hub, &me));
    assert_eq!(entry["tier"], "renewal_only", "{entry}");
    eventually("it asks in vain", || {
        on_record(&hub, &["renewal_refused", "issuer.renew", &me]).then_some(())
    });
    assert_eq!(expiry(&node), end);
    hub.stop();
    hub.configure(&[], &issues(&issuer, "issuer.lifetime = \"30d\""));
    hub.start();
    eventually("it is a member again", || {
        (seen(&hub, &me)?["tier"] == "member").then_some(())
    });
    assert!(expiry(&node) > end);
    assert!(on_record(
        &hub,
        &["credential_renewed", "enrol.renewal_only", &me]
    ));
    node.verify_log();
    hub.verify_log();
}

#[test]
fn what_lapsed_long_ago_is_refused_and_named() {
    let root = TempDir::new().unwrap();
    let extra = "issuer.lifetime = \"6s\"\nidentity.renewal_grace = \"1s\"";
    let (_, hub) = hub(root.path(), extra);
    let mut node = Node::init(root.path(), "node-1", "");
    joined(&node, &hub, &invite(&hub, "node-1", &[]));
    wait_until(expiry(&node).after(Duration::from_secs(1)));
    node.configure(&[hub.address()], "");
    node.start();
    let me = node.peer_id();
    eventually("it is refused", || {
        on_record(&hub, &["authentication_failed", "expired", &me]).then_some(())
    });
    assert!(seen(&hub, &me).is_none());
    assert!(!on_record(&hub, &["charged", &me]), "it is no misdeed");
}

#[test]
fn only_a_node_of_the_issuer_hears_what_lapsed() {
    let root = TempDir::new().unwrap();
    let (issuer, hub) = hub(root.path(), "issuer.lifetime = \"6s\"");
    let mut other = Node::init(root.path(), "other", "");
    other.enrol(&issuer);
    other.start();
    let mut node = Node::init(root.path(), "node-1", "");
    joined(&node, &hub, &invite(&hub, "node-1", &[]));
    wait_until(expiry(&node));
    node.configure(&[other.address()], "");
    node.start();
    let me = node.peer_id();
    eventually("it is refused", || {
        on_record(&other, &["authentication_failed", "expired", &me]).then_some(())
    });
    assert!(seen(&other, &me).is_none());
}

#[test]
fn the_issuers_own_node_renews_itself_also_after_its_end() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut hub = Node::init(root.path(), "hub", &issues(&issuer, ""));
    hub.enrol_for(&issuer, "6s");
    let end = expiry(&hub);
    wait_until(end);
    hub.start();
    eventually("it has a new one", || (expiry(&hub) > end).then_some(()));
    assert!(on_record(&hub, &["credential_renewed", "enrol.own"]));
}
