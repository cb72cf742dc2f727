//! Administration over the overlay: nobody may by default; who is permitted may what the policy
//! says, and all of it is on record.
#![cfg(test)]

mod common;

use std::fs;

use common::{Issuer, Node, eventually, guests, records::on_record as recorded};
use tempfile::TempDir;

/// Alice looks at everything, and bans; nobody else does anything.
const ALICE: &str = r#"
@id("all.members")
permit (principal is Qb::Peer, action in [Qb::Action::"connect", Qb::Action::"publish",
  Qb::Action::"subscribe"], resource) when { principal.verified };
@id("alice.looks")
permit (principal is Qb::Peer, action == Qb::Action::"administer", resource is Qb::Node)
when {
  principal.issuer == "acme" && principal.subject == "alice" && context has command &&
  ["peers", "bans", "ban", "unban", "actors", "config_reload"].contains(context.command)
};
@id("administer.post_quantum")
@obligation("step_up")
@step_up("post_quantum")
@advice("administration asks for the post-quantum channel")
forbid (principal is Qb::Peer, action == Qb::Action::"administer", resource is Qb::Node)
when { !context.post_quantum };
"#;

/// The hub, whose policies are `policies`; alice and bob, members like the hub, are connected.
fn house(root: &TempDir, policies: &str) -> (Node, Node, Node) {
    let issuer = Issuer::init(root.path(), "acme");
    let extra = if policies.is_empty() {
        ""
    } else {
        "policy.dir = \"own\""
    };
    let mut hub = Node::init(root.path(), "hub", extra);
    if !policies.is_empty() {
        fs::create_dir(hub.dir.join("own")).unwrap();
        fs::write(hub.dir.join("own/rules.cedar"), policies).unwrap();
    }
    hub.enrol(&issuer);
    hub.start();
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let mut node = Node::init(root.path(), name, "");
        node.enrol(&issuer);
        node.configure(&[hub.address()], "");
        node.start();
        node.wait_peer(&hub.peer_id());
        node
    });
    (hub, alice, bob)
}

fn refused(from: &Node, to: &Node, command: &[&str], why: &str) {
    let hub = to.peer_id();
    let output = from.cli(&[&["--node", &hub], command].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert!(told.contains(why), "`{why}` is not in: {told}");
}

#[test]
fn nobody_administers_from_afar_unless_a_policy_says_so() {
    let root = TempDir::new().unwrap();
    let (hub, alice, _bob) = house(&root, "");
    refused(&alice, &hub, &["peers"], "denied by rule default.deny");
    refused(&alice, &hub, &["stop"], "denied by rule default.deny");
    let who = alice.peer_id();
    eventually("it is on record", || {
        recorded(&hub, &["decided", "administer", "default.deny", &who]).then_some(())
    });
    // The local socket asks no policy.
    assert_eq!(hub.json(&["peers"])["peers"].as_array().unwrap().len(), 2);
    // What is no command of a running node has no other node.
    let output = alice.cli(&["--node", &hub.peer_id(), "config", "check"]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn who_is_permitted_gives_the_commands_that_are_permitted() {
    let root = TempDir::new().unwrap();
    let (hub, alice, bob) = house(&root, ALICE);
    let there = hub.peer_id();
    let peers = alice.json(&["--node", &there, "peers"]);
    assert_eq!(peers["peers"].as_array().unwrap().len(), 2, "{peers}");
    refused(&bob, &hub, &["peers"], "default.deny");
    refused(
        &alice,
        &hub,
        &["actors", "restart", "audit"],
        "default.deny",
    );
    refused(&alice, &hub, &["status"], "default.deny");
    // What is done is done there, and on record in the peer's name, decision and deed.
    let victim = bob.peer_id();
    alice.must(&[
        "--node",
        &there,
        "peers",
        "ban",
        &victim,
        "--reason",
        "from afar",
    ]);
    eventually("bob is gone", || {
        (!hub.peers().contains(&victim)).then_some(())
    });
    let who = alice.peer_id();
    assert!(recorded(
        &hub,
        &["administration", "\"ban\"", &who, "from afar"]
    ));
    assert!(recorded(
        &hub,
        &["decided", "administer", "alice.looks", &who]
    ));
    assert!(recorded(&alice, &["administration", "\"remote\"", &there]));
    let report = alice.json(&["--node", &there, "config", "reload"]);
    assert_eq!(report["policy"]["policies"], 3, "{report}");
}

#[test]
fn a_weaker_channel_is_told_what_it_lacks() {
    let root = TempDir::new().unwrap();
    let (mut hub, mut alice, bob) = house(&root, ALICE);
    drop(bob);
    alice.stop();
    alice.configure(&[hub.address()], "transport.security = \"classic\"");
    alice.start();
    alice.wait_peer(&hub.peer_id());
    refused(
        &alice,
        &hub,
        &["peers"],
        "asks for the post-quantum channel",
    );
    hub.stop();
}

/// As [`ALICE`], who may follow log and jobs besides.
fn follows() -> String {
    ALICE.replace(
        "[\"peers\"",
        "[\"audit_tail\", \"job_follow\", \"jobs\", \"peers\"",
    )
}

#[test]
fn a_log_is_followed_from_afar_until_it_is_no_longer_permitted() {
    let root = TempDir::new().unwrap();
    let (hub, alice, bob) = house(&root, &follows());
    let (there, who) = (hub.peer_id(), alice.peer_id());
    let tail = ["--node", &there, "audit", "tail", "-n", "5"];
    let told = alice.must(&tail);
    assert_eq!(told.lines().count(), 5, "{told}");
    refused(&bob, &hub, &["audit", "tail"], "default.deny");
    let mut following = alice.follow(&tail);
    // Something that happens there is told here.
    hub.must(&["peers", "ban", "192.0.2.77", "--reason", "to be seen"]);
    eventually("the record comes", || {
        following.has("to be seen").then_some(())
    });
    // However many questions it was, it is on record once here and there for each stream.
    hub.must(&["peers", "ban", "192.0.2.78", "--reason", "seen later"]);
    eventually("the record comes", || {
        following.has("seen later").then_some(())
    });
    let begun = |node: &Node, parts: &[&str]| {
        let holds = |record: &&serde_json::Value| {
            let text = record.to_string();
            parts.iter().all(|part| text.contains(part))
        };
        node.audit().iter().filter(holds).count()
    };
    assert_eq!(begun(&hub, &["decided", "alice.looks", &who]), 1);
    assert_eq!(begun(&alice, &["\"remote\"", "audit_tail", &there]), 2);
    // Taken back: the stream ends with the next question, named.
    fs::write(hub.dir.join("own/rules.cedar"), ALICE).unwrap();
    hub.must(&["config", "reload"]);
    let output = following.end();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("denied by rule default.deny"), "{told}");
}

#[test]
fn a_jobs_output_is_read_from_afar_and_a_topic_is_not() {
    let root = TempDir::new().unwrap();
    let (hub, alice, bob) = house(&root, &follows());
    let there = hub.peer_id();
    fs::write(hub.dir.join("says.wasm"), guests::says("said here", 3)).unwrap();
    let run = hub.cli(&["job", "run", "says.wasm"]);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    let jobs = alice.json(&["--node", &there, "job", "list"]);
    let job = jobs["jobs"][0]["job"].as_str().unwrap().to_owned();
    let logs = ["--node", &there, "job", "logs", &job];
    assert_eq!(alice.must(&logs).trim_end(), "said here");
    let followed = alice.cli(&[&logs[..], &["--follow"]].concat());
    assert_eq!(followed.status.code(), Some(3), "as the job ended");
    refused(&bob, &hub, &["job", "logs", &job], "default.deny");
    for (command, instead) in [
        (&["subscribe", "news"][..], "subscribe on this node"),
        (&["job", "run", "says.wasm"], "--on"),
        (&["publish", "news", "--data", "x"], "from this node"),
    ] {
        let output = alice.cli(&[&["--node", &there], command].concat());
        assert_eq!(output.status.code(), Some(64), "{command:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(instead), "{told}");
    }
}
