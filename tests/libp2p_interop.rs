//! Plain libp2p clients that were not written here, against the real program: js-libp2p and
//! py-libp2p are served on the open listener (identify, ping, signed gossip both ways on the one
//! topic that policy leaves open) and refused on the ordinary one.
//!
//! Needs npm (js-libp2p wants Node.js 22, which npm brings), python3 with venv, and the network
//! once. Without them a test says aloud that it was skipped, or fails where
//! `QUANTRABAND_REQUIRE_LIBP2P=1`.
#![cfg(test)]

mod common;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use common::{Issuer, Node, eventually, foreign, free_port};
use serde_json::Value;
use tempfile::TempDir;

const REQUIRE: &str = "QUANTRABAND_REQUIRE_LIBP2P";
const PYTHON_LIBRARIES: [&str; 2] = ["libp2p==0.8.1", "cbor2==5.9.0"];

/// A client that runs, and what it said.
struct Client {
    child: Child,
    /// It goes on until this is closed.
    _input: ChildStdin,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    saying.lock().unwrap().push(event);
                }
            }
        });
        Self {
            child,
            _input: input,
            said,
        }
    }

    fn all(&self, event: &str) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        let all = said.iter().filter(|one| one["event"] == event);
        all.cloned().collect()
    }

    /// Waits until it says this.
    fn wait(&self, event: &str) -> Value {
        eventually(event, || self.all(event).into_iter().next())
    }

    /// Envelopes it got from `author`, by topic.
    fn heard(&self, author: &str) -> Vec<(String, Vec<u8>)> {
        let from = |one: &Value| one["from"] == author;
        let messages = self.all("message").into_iter().filter(from);
        let read = |one: Value| {
            let data = hex::decode(one["data"].as_str().unwrap()).unwrap();
            (one["topic"].as_str().unwrap().to_owned(), data)
        };
        messages.map(read).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = format!("the client said {:#?}\n", self.said.lock());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
        }
    }
}

/// A node with an ordinary and an open listener, and one topic for strangers.
fn open_node(root: &Path) -> (Node, String) {
    let issuer = Issuer::init(root, "acme");
    let port = free_port();
    let mut node = Node::init(
        root,
        "node",
        &format!(
            "network.open_listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
             policy.unverified_topics = [\"open\"]\n"
        ),
    );
    node.enrol(&issuer);
    node.start();
    let open = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", node.peer_id());
    (node, open)
}

fn contains(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|part| part == text.as_bytes())
}

/// What a client meets on the open listener.
fn served(node: &Node, client: &Client, name: &str) {
    let (open, closed) = (node.gather("open"), node.gather("closed"));
    let identify = client.wait("identify");
    let agent = identify["agent"].as_str().unwrap();
    assert!(agent.starts_with("quantraband/"), "{identify}");
    let protocols = identify["protocols"].as_array().unwrap();
    assert!(protocols.contains(&"/meshsub/1.1.0".into()), "{identify}");
    client.wait("ping");
    // From the client to the node: what it publishes is signed, judged and delivered.
    eventually("a message of the client", || {
        open.has(&format!("{name} open 3")).then_some(())
    });
    // From the node to the client. Until gossip knows that it listens, nobody hears.
    let mut number = 0;
    eventually("a message of the node", || {
        number += 1;
        for topic in ["open", "closed"] {
            node.must(&["publish", topic, "--data", &format!("of the node {number}")]);
        }
        let heard = client.heard(&node.peer_id());
        let open = |(topic, data): &(String, Vec<u8>)| topic == "open" && contains(data, "of the");
        heard.iter().any(open).then_some(())
    });
    // Of the topic that is not open it neither hears nor tells.
    let heard = client.heard(&node.peer_id());
    assert!(heard.iter().all(|(topic, _)| topic == "open"), "{heard:?}");
    assert!(!closed.has(&format!("{name} closed 1")));
    let subscriptions = client.all("subscriptions");
    assert!(
        !subscriptions.is_empty(),
        "the node told what it listens to"
    );
    let peer = &node.json(&["peers"])["peers"][0];
    assert_eq!(peer["tier"], "unverified");
    assert_eq!(peer["topics"].to_string(), "[\"open\"]");
    assert_eq!(client.all("disconnected").len(), 0);
}

/// What a client meets where every peer must prove who it is.
fn refused(node: &Node, client: &Client) {
    client.wait("failed");
    assert_eq!(client.all("identify").len(), 0);
    assert_eq!(client.all("ping").len(), 0);
    assert!(node.peers().is_empty());
    eventually("the refusal is on record", || {
        let refused = |record: &Value| record.to_string().contains("refused");
        node.audit().iter().any(refused).then_some(())
    });
    node.verify_log();
}

fn javascript(address: &str, security: &str) -> Option<Client> {
    match foreign::javascript("client.mjs") {
        Ok((node, script)) => {
            let mut command = Command::new(node);
            command.arg(script).args([address, security]);
            Some(Client::start(command))
        }
        Err(why) => {
            foreign::skip("libp2p_interop (js-libp2p)", REQUIRE, &why);
            None
        }
    }
}

fn python(address: &str) -> Option<Client> {
    match foreign::python(&PYTHON_LIBRARIES, "libp2p, cbor2, trio") {
        Ok(python) => {
            let mut command = Command::new(python);
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/py/client.py");
            command.arg(script).arg(address);
            Some(Client::start(command))
        }
        Err(why) => {
            foreign::skip("libp2p_interop (py-libp2p)", REQUIRE, &why);
            None
        }
    }
}

#[test]
fn js_libp2p_over_noise_and_over_tls() {
    let root = TempDir::new().unwrap();
    let (node, open) = open_node(root.path());
    for security in ["noise", "tls"] {
        let Some(client) = javascript(&open, security) else {
            return;
        };
        served(&node, &client, "js");
        drop(client);
        eventually("it is gone", || node.peers().is_empty().then_some(()));
    }
    if let Some(client) = javascript(&node.address(), "noise") {
        refused(&node, &client);
    }
}

#[test]
fn py_libp2p() {
    let root = TempDir::new().unwrap();
    let (node, open) = open_node(root.path());
    if let Some(client) = python(&open) {
        served(&node, &client, "py");
        drop(client);
        eventually("it is gone", || node.peers().is_empty().then_some(()));
    }
    if let Some(client) = python(&node.address()) {
        refused(&node, &client);
    }
}
