//! Policies, quarantine and settings on nodes that run: what changes takes effect on live
//! connections, subscriptions and jobs, and what is wrong changes nothing.
#![cfg(test)]

mod common;

use std::{fs, path::Path};

use common::{Gathered, Issuer, Node, eventually, guests, records::on_record as recorded};
use serde_json::Value;
use tempfile::TempDir;

/// Policies of an operator, in the folder `own` beside the configuration.
const MEMBERS: &str = r#"
@id("all.members")
permit (principal is Qb::Peer, action, resource) when { principal.verified };
@id("quiet.quarantine")
forbid (
  principal is Qb::Peer,
  action in [Qb::Action::"publish", Qb::Action::"subscribe"],
  resource is Qb::Topic
) when { principal.quarantined && !resource.restricted };
"#;
const NO_JOBS: &str = r#"
@id("no.jobs")
forbid (principal is Qb::Peer, action == Qb::Action::"run_job", resource is Qb::Sandbox);
"#;
const NO_NEWS: &str = r#"
@id("no.news")
forbid (
  principal is Qb::Peer,
  action in [Qb::Action::"publish", Qb::Action::"subscribe"],
  resource is Qb::Topic
) when { resource == Qb::Topic::"news" && principal.subject == "bob" };
"#;

/// Jobs and topics as in quarantine, for a peer that it puts there.
const ODD_BOB: &str = r#"
@id("odd.bob")
@obligation("quarantine")
forbid (principal is Qb::Peer, action, resource) when { principal.subject == "bob" };
@id("quarantine.jobs")
forbid (principal is Qb::Peer, action == Qb::Action::"run_job", resource is Qb::Sandbox)
when { principal.quarantined };
"#;

fn write_policies(node: &Node, parts: &[&str]) {
    let dir = node.dir.join("own");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("rules.cedar"), parts.concat()).unwrap();
}

/// Two members of one issuer, connected: `alice` with `extra`, and `bob`, who dials her.
fn pair(root: &Path, extra: &str) -> (Node, Node) {
    let issuer = Issuer::init(root, "acme");
    let mut alice = Node::init(root, "alice", extra);
    alice.enrol(&issuer);
    if extra.contains("policy.dir") {
        write_policies(&alice, &[MEMBERS]);
    }
    alice.start();
    let mut bob = Node::init(root, "bob", "");
    bob.enrol(&issuer);
    bob.configure(&[alice.address()], "");
    bob.start();
    bob.wait_peer(&alice.peer_id());
    (alice, bob)
}

/// The newest job that a node runs for another.
fn job_of(executor: &Node) -> Option<Value> {
    let list = executor.try_json(&["job", "list"])?;
    let jobs = list["jobs"].as_array()?;
    jobs.iter().find(|job| job["role"] == "executor").cloned()
}

/// Has bob give alice a job that sleeps for a minute, and waits until it runs.
fn start_sleeper(alice: &Node, bob: &Node) {
    fs::write(bob.dir.join("sleeps.wasm"), guests::sleeps()).unwrap();
    let peer = alice.peer_id();
    bob.must(&[
        "job",
        "run",
        "--detach",
        "--on",
        &peer,
        "--wall-clock",
        "1m",
        "sleeps.wasm",
    ]);
    eventually("the job runs", || {
        (job_of(alice)?["state"] == "running").then_some(())
    });
}

/// What is said to bob when he gives alice a short job.
fn try_job(alice: &Node, bob: &Node) -> String {
    fs::write(bob.dir.join("says.wasm"), guests::says("x", 0)).unwrap();
    let output = bob.cli(&["job", "run", "--on", &alice.peer_id(), "says.wasm"]);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Publishes until the other end has it: a connection may be made anew meanwhile.
fn reaches(from: &Node, topic: &str, listener: &Gathered, text: &str) {
    eventually("the message arrives", || {
        from.cli(&["publish", topic, "--data", text]);
        listener.has(text).then_some(())
    });
}

#[test]
fn a_reload_ends_what_is_no_longer_permitted_and_a_wrong_one_changes_nothing() {
    let root = TempDir::new().unwrap();
    let (alice, bob) = pair(root.path(), "policy.dir = \"own\"");
    start_sleeper(&alice, &bob);
    // Wrong policies: told with their place, and nothing changes.
    write_policies(&alice, &["permit (principal, action"]);
    let output = alice.cli(&["config", "reload"]);
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("rules.cedar:1"), "{told}");
    eventually("it is on record", || {
        recorded(&alice, &["policy_refused"]).then_some(())
    });
    assert_eq!(job_of(&alice).unwrap()["state"], "running");
    // Jobs are forbidden: the one that runs ends, and another is refused by name.
    write_policies(&alice, &[MEMBERS, NO_JOBS]);
    let report = alice.json(&["config", "reload"]);
    assert_eq!(report["policy"]["policies"], 3, "{report}");
    let ended = eventually("the job ends", || {
        job_of(&alice).filter(|job| job["state"] == "finished")
    });
    assert!(ended["outcome"].to_string().contains("policy"), "{ended}");
    let refused = try_job(&alice, &bob);
    assert!(refused.contains("no.jobs"), "{refused}");
    assert!(
        alice.peers().contains(&bob.peer_id()),
        "bob stays connected"
    );
    let hash = report["policy"]["hash"].as_str().unwrap();
    eventually("it is on record", || {
        recorded(&alice, &["policy_loaded", hash]).then_some(())
    });
    // By signal, too.
    write_policies(&alice, &[MEMBERS]);
    alice.signal("HUP");
    eventually("jobs are allowed again", || {
        let answer = try_job(&alice, &bob);
        (!answer.contains("no.jobs")).then_some(())
    });
}

#[test]
fn a_topic_that_is_taken_away_and_given_back_needs_no_operator_at_the_other_end() {
    let root = TempDir::new().unwrap();
    let (alice, bob) = pair(root.path(), "policy.dir = \"own\"");
    let news = bob.gather("news");
    reaches(&alice, "news", &news, "one");
    write_policies(&alice, &[MEMBERS, NO_NEWS]);
    alice.must(&["config", "reload"]);
    eventually("the subscription is denied", || {
        recorded(&alice, &["decided", "no.news", &bob.peer_id()]).then_some(())
    });
    eventually("bob is connected again", || {
        alice.peers().contains(&bob.peer_id()).then_some(())
    });
    alice.must(&["publish", "news", "--data", "two"]);
    write_policies(&alice, &[MEMBERS]);
    alice.must(&["config", "reload"]);
    reaches(&alice, "news", &news, "three");
    assert!(
        !news.has("two"),
        "it was published while bob might not listen"
    );
}

#[test]
fn a_quarantined_peer_talks_on_restricted_topics_and_runs_nothing_until_it_is_released() {
    let root = TempDir::new().unwrap();
    let (mut alice, bob) = pair(root.path(), "policy.restricted_topics = [\"help\"]");
    let help = alice.gather("help");
    let news = alice.gather("news");
    reaches(&bob, "news", &news, "one");
    start_sleeper(&alice, &bob);
    let put = ["peers", "quarantine", "acme/bob", "--reason", "odd"];
    let answer = alice.json(&put);
    assert_eq!(answer["quarantines"][0]["reason"], "odd");
    eventually("the job ends", || {
        let job = job_of(&alice)?;
        job["outcome"].to_string().contains("policy").then_some(())
    });
    let refused = try_job(&alice, &bob);
    assert!(refused.contains("quarantine.jobs"), "{refused}");
    reaches(&bob, "help", &help, "please");
    bob.must(&["publish", "news", "--data", "two"]);
    // By the same connection: what was sent after it has come.
    reaches(&bob, "help", &help, "once more");
    assert!(!news.has("two"), "a peer in quarantine was heard");
    // It is durable, and held by the member's name.
    alice.stop();
    alice.start();
    bob.wait_peer(&alice.peer_id());
    let listed = alice.json(&["peers", "quarantined"]);
    assert_eq!(
        listed["quarantines"][0]["party"]["subject"], "acme/bob",
        "{listed}"
    );
    let refused = try_job(&alice, &bob);
    assert!(refused.contains("quarantine.jobs"), "{refused}");
    alice.must(&["peers", "release", "acme/bob"]);
    let news = alice.gather("news");
    reaches(&bob, "news", &news, "three");
    assert!(recorded(&alice, &["quarantine_started", "acme/bob"]));
    assert!(recorded(
        &alice,
        &["quarantine_ended", "acme/bob", "released"]
    ));
}

#[test]
fn what_the_operator_releases_stays_released_though_the_policy_still_applies() {
    let root = TempDir::new().unwrap();
    let (mut alice, bob) = pair(root.path(), "policy.dir = \"own\"");
    let who = bob.peer_id();
    let news = alice.gather("news");
    reaches(&bob, "news", &news, "one");
    write_policies(&alice, &[MEMBERS, ODD_BOB]);
    alice.must(&["config", "reload"]);
    let listed = |alice: &Node| alice.json(&["peers", "quarantined"])["quarantines"].clone();
    eventually("the policy puts bob in quarantine", || {
        listed(&alice).to_string().contains("odd.bob").then_some(())
    });
    bob.must(&["publish", "news", "--data", "two"]);
    // By his key, though he is held by his name.
    let released = alice.json(&["peers", "release", &who]);
    assert_eq!(released["parties"][0]["subject"], "acme/bob", "{released}");
    let news = alice.gather("news");
    reaches(&bob, "news", &news, "three");
    assert!(!news.has("two"), "a peer in quarantine was heard");
    let by_hand = ["decided", "policy.released", &who];
    eventually("it is on record why", || {
        recorded(&alice, &by_hand).then_some(())
    });
    assert_eq!(listed(&alice), serde_json::json!([]));
    // Durable, and many reviews later still so: two nodes that reconnect are judged anew.
    alice.stop();
    alice.start();
    bob.wait_peer(&alice.peer_id());
    let news = alice.gather("news");
    reaches(&bob, "news", &news, "four");
    assert_eq!(listed(&alice), serde_json::json!([]));
    // The operator's own hand outweighs it, on key and name.
    let put = alice.json(&["peers", "quarantine", &who]);
    assert_eq!(put["quarantines"].as_array().unwrap().len(), 2, "{put}");
    assert_eq!(listed(&alice).as_array().unwrap().len(), 2);
    let refused = try_job(&alice, &bob);
    assert!(!refused.is_empty(), "a peer in quarantine runs nothing");
}

#[test]
fn a_reload_says_of_each_key_what_became_of_it() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    let before = node.restarts("swarm").unwrap();
    let unchanged = node.json(&["config", "reload"]);
    assert_eq!(unchanged["changes"].as_array().unwrap().len(), 0);
    node.configure(
        &[],
        "reputation.ban_below = 0.15\nlog.level = \"debug\"\ngossip.heartbeat = \"300ms\"",
    );
    let report = node.json(&["config", "reload"]);
    let how = |key: &str| {
        let changes = report["changes"].as_array().unwrap();
        let found = changes.iter().find(|change| change["key"] == key);
        found.unwrap_or_else(|| panic!("{key}: {report}"))["applied"].clone()
    };
    assert_eq!(how("reputation.ban_below"), true);
    assert_eq!(how("log.level"), true);
    assert_eq!(how("gossip.heartbeat"), false);
    assert_eq!(report["restarted"], serde_json::json!(["reputation"]));
    eventually("it logs more", || {
        node.log().contains("DEBUG").then_some(())
    });
    assert_eq!(node.restarts("swarm"), Some(before), "connections stand");
    // What waits for a start is still said to wait.
    let again = node.json(&["config", "reload"]);
    assert_eq!(again["changes"][0]["key"], "gossip.heartbeat");
    // A wrong file changes nothing, and says what is wrong with it.
    node.configure(&[], "reputation.ban_below = 7");
    let output = node.cli(&["peers"]);
    assert!(!output.status.success(), "the command reads the file, too");
    node.signal("HUP");
    eventually("it is refused", || {
        recorded(&node, &["settings_refused", "ban_below"]).then_some(())
    });
    node.configure(&[], "");
    let report = node.json(&["config", "reload"]);
    assert_eq!(report["restarted"], serde_json::json!(["reputation"]));
}
