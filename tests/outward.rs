//! How real nodes call others: who does not answer is left alone for a while and tried again, who
//! says that it is too much is called less, and what nothing is heard of gives its place back.
#![cfg(test)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{Issuer, Node, eventually, peer};
use futures::StreamExt;
use libp2p::{
    request_response::{Event, Message},
    swarm::SwarmEvent,
};
use quantraband::{
    admin::{
        protocol::{self, Failure, FailureCode},
        remote,
    },
    identity::{ISSUER_KEY_FILE, IssuerKey, NodeKey},
    network::NodeBehaviourEvent,
    types::{Clock, SystemClock},
};
use serde_json::Value;
use tempfile::TempDir;

/// What the callee does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Takes it, and lets it drop.
    Gone,
    /// Takes it, and does not answer until its mood changes; then lets it drop.
    Mute,
    /// Answers.
    Well,
    /// Says that it is too much.
    Busy,
}

/// A member that is called; it lives in a thread of its own.
struct Callee {
    id: String,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

impl Callee {
    /// Connects to the node.
    fn connect(issuer: &Issuer, node: &Node) -> Self {
        let key = NodeKey::from_seed(&[77; 32]);
        let issuer = IssuerKey::load(&issuer.dir.join(ISSUER_KEY_FILE)).unwrap();
        let now = SystemClock::new().now();
        let credential = peer::credential(&issuer, &key, "callee", now);
        let mood = Arc::new(Mutex::new(Mood::Gone));
        let asked = Arc::new(AtomicUsize::new(0));
        let (state, count, address) = (Arc::clone(&mood), Arc::clone(&asked), node.address());
        let id = key.peer().to_string();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(live(&key, &credential, &address, &state, &count));
        });
        node.wait_peer(&id);
        Self { id, mood, asked }
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn live(
    key: &NodeKey,
    credential: &[u8],
    address: &str,
    mood: &Mutex<Mood>,
    asked: &AtomicUsize,
) {
    let mut swarm = peer::swarm(key, credential);
    swarm
        .dial(address.parse::<libp2p::Multiaddr>().unwrap())
        .unwrap();
    let mut kept = Vec::new();
    let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            _ = look.tick() => {
                if *mood.lock().unwrap() != Mood::Mute {
                    kept.clear();
                }
                continue;
            }
        };
        let SwarmEvent::Behaviour(NodeBehaviourEvent::Admin(event)) = event else {
            continue;
        };
        let Event::Message {
            message: Message::Request { channel, .. },
            ..
        } = *event
        else {
            continue;
        };
        asked.fetch_add(1, Ordering::SeqCst);
        let answer = match *mood.lock().unwrap() {
            Mood::Gone => continue,
            Mood::Mute => {
                kept.push(channel);
                continue;
            }
            Mood::Well => protocol::Response::Peers { peers: Vec::new() },
            Mood::Busy => {
                protocol::Response::Error(Failure::new(FailureCode::Again, "too many requests"))
            }
        };
        let answer = remote::Response(Box::new(answer));
        let _ = swarm.behaviour_mut().admin.send_response(channel, answer);
    }
}

fn caller(root: &TempDir, extra: &str) -> (Node, Issuer) {
    let issuer = Issuer::init(root.path(), "acme");
    let extra = format!("audit.aggregate = \"200ms\"\n{extra}");
    let mut node = Node::init(root.path(), "caller", &extra);
    node.enrol(&issuer);
    node.start();
    (node, issuer)
}

fn call(node: &Node, callee: &Callee) -> Output {
    node.cli(&["--node", &callee.id, "peers"])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn calls(node: &Node, callee: &Callee) -> Value {
    let answer = node.json(&["peers"]);
    let peers = answer["peers"].as_array().unwrap();
    let found = peers.iter().find(|one| one["peer_id"] == callee.id);
    found.expect("connected")["calls"].clone()
}

fn metric(node: &Node, name: &str) -> u64 {
    let status = node.json(&["status"]);
    let mut stream = TcpStream::connect(status["http"].as_str().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a metric").trim().parse().unwrap()
}

const QUICK: &str = "\
    outward.failures = 3\n\
    outward.open = \"4s\"\n\
    outward.open_max = \"8s\"\n";

#[test]
fn who_never_answers_is_left_alone_is_tried_again_and_is_called_as_before_once_it_answers() {
    let root = TempDir::new().unwrap();
    let (node, issuer) = caller(&root, QUICK);
    let callee = Callee::connect(&issuer, &node);
    assert_eq!(calls(&node, &callee)["breaker"], "closed");
    // Every call of them is let out, and fails.
    let held = eventually("the call is held", || {
        let output = call(&node, &callee);
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        said(&output)
            .contains("did not answer the calls")
            .then(|| said(&output))
    });
    assert!(
        held.contains("did not answer the calls before this one; try again in"),
        "{held}"
    );
    assert!(callee.asked() >= 3);
    let shown = node.must(&["actors", "show", "swarm"]);
    assert!(shown.contains(&callee.id), "{shown}");
    assert_ne!(calls(&node, &callee)["breaker"], "closed");
    let table = node.must(&["peers"]);
    assert!(
        table.contains("held for") || table.contains("on trial"),
        "{table}"
    );
    assert!(metric(&node, "quantraband_calls_held_total{by=\"breaker_open\"}") >= 1);
    assert!(metric(&node, "quantraband_calls_total{outcome=\"failed\"}") >= 3);

    // It comes back: half open, it is tried, and everything is as it was.
    callee.is(Mood::Well);
    for _ in 0..2 {
        eventually("it is called again", || {
            call(&node, &callee).status.success().then_some(())
        });
    }
    assert_eq!(calls(&node, &callee)["breaker"], "closed");
    for _ in 0..5 {
        assert!(call(&node, &callee).status.success());
    }
    assert_eq!(
        metric(&node, "quantraband_breaker_changes_total{state=\"closed\"}"),
        1
    );
    eventually("both changes are on record", || {
        let audit = node.audit();
        let has = |state: &str| {
            audit.iter().any(|record| {
                record["unmapped"]["event"] == "calls_changed" && record["status_code"] == state
            })
        };
        (has("open") && has("closed")).then_some(())
    });
    node.verify_log();
}

#[test]
fn who_is_slow_holds_up_no_more_than_its_own_places_and_gives_them_back() {
    let root = TempDir::new().unwrap();
    let (node, issuer) = caller(&root, "outward.requests_per_peer = 1\n");
    let callee = Callee::connect(&issuer, &node);
    callee.is(Mood::Mute);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| call(&node, &callee));
        eventually("the first is under way", || {
            (callee.asked() == 1).then_some(())
        });
        let second = call(&node, &callee);
        assert_eq!(second.status.code(), Some(75));
        assert!(
            said(&second).contains("too many calls to the peer"),
            "{second:?}"
        );
        assert_eq!(callee.asked(), 1);
        callee.is(Mood::Gone);
        // Its caller is told, too, and does not wait for what never comes.
        assert_eq!(first.join().unwrap().status.code(), Some(75));
    });
    callee.is(Mood::Well);
    assert!(call(&node, &callee).status.success());
    assert_eq!(metric(&node, "quantraband_calls_under_way"), 0);
}

#[test]
fn who_says_that_it_is_too_much_is_called_less() {
    let root = TempDir::new().unwrap();
    let extra = "outward.settle = \"1ms\"\noutward.requests_per_second = 64\n";
    let (node, issuer) = caller(&root, extra);
    let callee = Callee::connect(&issuer, &node);
    callee.is(Mood::Busy);
    let pace = || calls(&node, &callee)["per_second"].as_f64().unwrap();
    for full in [64.0, 32.0, 16.0] {
        let output = call(&node, &callee);
        assert_eq!(output.status.code(), Some(75));
        assert!((pace() - full / 2.0).abs() < 1e-9);
    }
    // It is alive: its breaker stays closed.
    assert_eq!(calls(&node, &callee)["breaker"], "closed");
    callee.is(Mood::Well);
    for _ in 0..12 {
        assert!(call(&node, &callee).status.success());
    }
    assert!((pace() - 64.0).abs() < 1e-9);
}

#[test]
fn a_real_peer_whose_budget_is_spent_does_not_charge_or_ban_who_keeps_to_its_word() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let strict = "limits.job_requests_per_second = 1\nlimits.job_request_burst = 2\n";
    let mut hub = Node::init(root.path(), "hub", strict);
    let mut alice = Node::init(root.path(), "alice", "");
    hub.enrol(&issuer);
    alice.enrol(&issuer);
    alice.configure(&[hub.address()], "");
    hub.start();
    alice.start();
    let (there, who) = (hub.peer_id(), alice.peer_id());
    alice.wait_peer(&there);
    let since = hub.since(&who);
    let pushed = "quantraband_calls_total{outcome=\"pushed_back\"}";
    eventually("the hub says that it is too much", || {
        alice.cli(&["--node", &there, "peers"]);
        (metric(&alice, pushed) >= 3).then_some(())
    });
    assert!(
        hub.json(&["peers", "bans"])["bans"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let charged = hub
        .audit()
        .iter()
        .any(|record| record["unmapped"]["event"] == "charged");
    assert!(!charged);
    assert_eq!(hub.since(&who), since);
}
