//! Any actor may be killed under traffic: the node goes on, the log stays whole, the other node
//! stays connected (or, when Swarm itself fell, is connected again).
#![cfg(test)]

mod common;

use std::{
    collections::HashSet,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use common::{BINARY, Node, connected_pair, eventually};
use tempfile::TempDir;

const ACTORS: [&str; 6] = [
    "audit",
    "identity",
    "rate_limit",
    "reputation",
    "swarm",
    "admin",
];

/// Publishes in the background until dropped; counts what was acknowledged.
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(node: &Node) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let config = node.dir.join("node.toml");
        let thread = thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let done = Command::new(BINARY)
                        .arg("--config")
                        .arg(&config)
                        .args(["publish", "traffic", "--data", "x"])
                        .output()
                        .expect("the binary runs");
                    sent.fetch_add(usize::from(done.status.success()), Ordering::SeqCst);
                }
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Waits until one more message was accepted.
    fn flows(&self) {
        let before = self.sent.load(Ordering::SeqCst);
        eventually("traffic flows", || {
            (self.sent.load(Ordering::SeqCst) > before + 1).then_some(())
        });
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Every event id in the log, each once.
fn no_event_twice(node: &Node) {
    let mut seen = HashSet::new();
    for record in node.audit() {
        let id = record["metadata"]["uid"]
            .as_str()
            .expect("an event id")
            .to_owned();
        assert!(seen.insert(id), "recorded twice: {record}");
    }
}

fn each_actor_in_turn(kind: &str, extra: &str) {
    let root = TempDir::new().unwrap();
    let (mut first, mut second) = connected_pair(root.path(), extra);
    let (one, two) = (first.peer_id(), second.peer_id());
    let traffic = Traffic::start(&second);
    let mut banned: Vec<String> = Vec::new();
    for actor in ACTORS {
        traffic.flows();
        let before = second.restarts(actor).expect("the actor is listed");
        let since = (first.since(&two), second.since(&one));
        second.must(&["actors", "inject", actor, kind]);
        // Acknowledged while the actor falls and rises: on record, once.
        let party = format!("198.51.100.{}", banned.len() + 1);
        let ban = [
            "peers",
            "ban",
            &party,
            "--for",
            "1h",
            "--reason",
            "under fire",
        ];
        if second.cli(&ban).status.success() {
            banned.push(party);
        }
        eventually("the actor was restarted", || {
            (second.restarts(actor)? > before).then_some(())
        });
        eventually("the actor runs", || {
            (second.actor(actor)?["state"] == "running").then_some(())
        });
        second.wait_peer(&one);
        first.wait_peer(&two);
        traffic.flows();
        if actor != "swarm" {
            let now = (first.since(&two), second.since(&one));
            assert_eq!(
                now, since,
                "the connection stood while {actor} was restarted"
            );
        }
    }
    drop(traffic);
    assert!(!banned.is_empty(), "some commands were acknowledged");
    for party in &banned {
        let uid = format!("\"ban:{party}\"");
        let started = |r: &&serde_json::Value| {
            let text = r.to_string();
            text.contains("ban_started") && text.contains(&uid)
        };
        assert_eq!(
            second.audit().iter().filter(started).count(),
            1,
            "the ban of {party}"
        );
    }
    let audited: Vec<String> = second.audit().iter().map(ToString::to_string).collect();
    for actor in ACTORS {
        let on_record = |r: &&String| r.contains(&format!("\"{actor}\"")) && r.contains("restart");
        assert!(
            audited.iter().any(|r| on_record(&r)),
            "the restart of {actor} is on record"
        );
    }
    for node in [&mut first, &mut second] {
        assert_eq!(node.stop().code(), Some(0), "{}", node.log());
        node.verify_log();
        no_event_twice(node);
    }
}

#[test]
fn a_panic_in_each_actor_is_survived() {
    each_actor_in_turn("panic", "");
}

#[test]
fn an_error_in_each_actor_is_survived() {
    each_actor_in_turn("error", "");
}

#[test]
fn an_async_hang_in_each_actor_is_survived() {
    each_actor_in_turn("hang", "supervision.default.stall = \"2s\"");
}

#[test]
fn an_operator_restarts_each_actor_and_spends_no_budget() {
    let root = TempDir::new().unwrap();
    let (mut first, second) = connected_pair(root.path(), "");
    for actor in ACTORS {
        // More often than the budget of 5 faults would allow.
        for _ in 0..7 {
            let before = first.restarts(actor).expect("the actor is listed");
            first.must(&["actors", "restart", actor]);
            eventually("restarted and running", || {
                let now = first.actor(actor)?;
                (now["restarts"].as_u64()? > before && now["state"] == "running").then_some(())
            });
        }
    }
    first.wait_peer(&second.peer_id());
    assert_eq!(first.stop().code(), Some(0));
    first.verify_log();
}

#[test]
fn a_crash_loop_ends_in_exit_code_70_with_the_log_flushed() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    for _ in 0..12 {
        if node.exited().is_some() {
            break;
        }
        let before = node.restarts("reputation");
        if !node
            .cli(&["actors", "inject", "reputation", "panic"])
            .status
            .success()
        {
            break;
        }
        eventually("restarted, or the node gave up", || {
            (node.exited().is_some() || node.restarts("reputation") > before).then_some(())
        });
    }
    assert_eq!(node.wait_exit().code(), Some(70), "{}", node.log());
    node.verify_log();
    let last: Vec<String> = node
        .audit()
        .iter()
        .rev()
        .take(5)
        .map(ToString::to_string)
        .collect();
    assert!(last.iter().any(|r| r.contains("escalat")), "{last:#?}");
    // The node starts again as if nothing had happened.
    node.start();
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_thread_that_is_stuck_ends_the_node_with_70() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "supervision.default.stall = \"2s\"");
    node.start();
    node.must(&["actors", "inject", "swarm", "block"]);
    assert_eq!(node.wait_exit().code(), Some(70), "{}", node.log());
    node.verify_log();
}
