//! Members that answer for status lists with something else, and a gate whose Revocation is down.
#![cfg(test)]

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    Issuer, Node, eventually, guests,
    member::{self, peer_of},
    peer::{credential, present},
    records::{on_record, recorded},
};
use futures::StreamExt;
use libp2p::{
    Swarm,
    request_response::{Event, Message},
    swarm::SwarmEvent,
};
use quantraband::{
    identity::{
        IssuerKey, NodeKey,
        status::{Statement, StatusHead, StatusList},
        wire::{Request, Response},
    },
    network::{NodeBehaviour, NodeBehaviourEvent},
    types::{Clock, SystemClock},
};
use serde_json::Value;
use tempfile::TempDir;

/// Signs the issuer's list again; its bytes, and the file.
fn signed(root: &Path, issuer: &Issuer, next_update: &str) -> Vec<u8> {
    let dir = issuer.dir.to_str().unwrap();
    let args = ["--issuer", dir, "--next-update", next_update];
    common::must(root, &[&["identity", "status"], &args[..]].concat());
    fs::read(issuer.dir.join("acme.status")).unwrap()
}

fn import(node: &Node, list: &[u8]) {
    let file = node.dir.join("list.status");
    fs::write(&file, list).unwrap();
    node.must(&["status", "import", file.to_str().unwrap()]);
}

fn known(node: &Node) -> Option<Value> {
    node.try_json(&["status", "show", "acme"])
}

fn wait_list(node: &Node, sequence: u64, state: &str) {
    eventually("the list is known", || {
        let known = known(node)?;
        (known["list_sequence"] == sequence && known["state"] == state).then_some(())
    });
}

/// What a member gives for a list.
struct Liar {
    key: NodeKey,
    lie: Vec<u8>,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    fn new(n: u8, lie: Vec<u8>) -> Self {
        Self {
            key: NodeKey::from_seed(&[n; 32]),
            lie,
            asked: Arc::default(),
        }
    }

    fn id(&self) -> String {
        self.key.peer().to_string()
    }

    /// Answers every request for a list with the lie.
    fn serve(&self, mut swarm: Swarm<NodeBehaviour>) {
        let (lie, asked) = (self.lie.clone(), Arc::clone(&self.asked));
        tokio::spawn(async move {
            loop {
                let SwarmEvent::Behaviour(NodeBehaviourEvent::Identity(event)) =
                    swarm.select_next_some().await
                else {
                    continue;
                };
                let Event::Message {
                    message:
                        Message::Request {
                            request, channel, ..
                        },
                    ..
                } = *event
                else {
                    continue;
                };
                let answer = match request {
                    Ok(Request::GetList { .. }) => {
                        asked.fetch_add(1, Ordering::SeqCst);
                        Response::List(lie.clone())
                    }
                    _ => Response::Heard,
                };
                let identity = &mut swarm.behaviour_mut().identity;
                identity.send_response(channel, answer).unwrap();
            }
        });
    }
}

/// A list like this one, by other keys of the same name.
fn by_other_keys(list: &StatusList) -> Vec<u8> {
    let known = list.statement();
    let key = IssuerKey::from_seed(known.issuer.clone(), &[99; 32]);
    let times = (known.issued, known.next_update, known.issued_before);
    let bits = vec![0; 128];
    let statement = Statement::about(known.issuer.clone(), known.sequence, times, &bits);
    let head = StatusHead::sign(statement, key.signer());
    let list = StatusList::try_new(head, bits, Vec::new()).unwrap();
    list.as_bytes().to_vec()
}

/// The list with a signature that does not hold.
fn forged(list: &StatusList) -> Vec<u8> {
    let mut bytes = list.as_bytes().to_vec();
    let head = list.head().as_bytes();
    let at = bytes.windows(head.len()).position(|part| part == head);
    let last = at.unwrap() + head.len() - 1;
    bytes[last] ^= 1;
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lies_about_a_list_brings_nothing_and_holds_nothing_up() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let key = IssuerKey::load(&issuer.dir.join("issuer.key")).unwrap();
    let extra = "limits.exempt_networks = [\"127.0.0.0/8\"]";
    let mut node = Node::init(root.path(), "node", extra);
    node.enrol(&issuer);
    let mut honest = Node::init(root.path(), "honest", "");
    honest.enrol(&issuer);
    node.start();
    let first = signed(root.path(), &issuer, "8d");
    import(&node, &first);
    let second = signed(root.path(), &issuer, "8d");
    let list = StatusList::decode(&second).unwrap();
    let liars = [
        Liar::new(61, first),
        Liar::new(62, by_other_keys(&list)),
        Liar::new(63, forged(&list)),
        Liar::new(64, b"no list at all".to_vec()),
    ];
    let now = SystemClock::new().now();
    let mut swarms = Vec::new();
    for (n, liar) in liars.iter().enumerate() {
        let held = credential(&key, &liar.key, &format!("liar-{n}"), now);
        swarms.push(member::connected(&node, &liar.key, &held, None).await);
    }
    // One tells of the newer list, which is true; whom the node asks for it, it does not get it of.
    let hub = peer_of(&node);
    let heads = vec![list.head().as_bytes().to_vec()];
    let announce = Ok(Request::Announce { heads });
    let identity = &mut swarms[0].behaviour_mut().identity;
    identity.send_request(&hub, announce);
    for (liar, swarm) in liars.iter().zip(swarms) {
        liar.serve(swarm);
    }
    for liar in &liars {
        eventually("it was asked", || {
            (liar.asked.load(Ordering::SeqCst) > 0).then_some(())
        });
    }
    let [older, other, forger, garbage] = &liars;
    for (liar, code) in [(forger, "forged"), (garbage, "malformed")] {
        eventually("it is on record, and charged", || {
            let refused = on_record(&node, &["status_list_refused", code, &liar.id()]);
            (refused && on_record(&node, &["\"charged\"", &liar.id()])).then_some(())
        });
    }
    let shown = known(&node).unwrap();
    assert_eq!(shown["list_sequence"], 1, "{shown}");
    assert_eq!(shown["state"], "behind", "{shown}");
    // From whoever has it, it comes at once.
    honest.start();
    import(&honest, &second);
    honest.stop();
    honest.configure(&[node.address()], "");
    honest.start();
    wait_list(&node, 2, "in_force");
    // Who knows less, or trusts other keys, may be honest.
    for liar in [older, other] {
        assert_eq!(recorded(&node, &["\"charged\"", &liar.id()]), 0);
    }
    assert!(on_record(
        &node,
        &["status_list_accepted", "\"status_sequence\":2"]
    ));
}

/// A node that knows the issuer's list and whose Revocation answers nothing from now on: it hangs,
/// and nobody restarts it.
fn deaf(root: &Path, issuer: &Issuer, list: &[u8]) -> Node {
    let extra = "supervision.actors.revocation.stall = \"1h\"";
    let mut node = Node::init(root, "node", extra);
    node.enrol(issuer);
    node.start();
    import(&node, list);
    node.must(&["actors", "inject", "revocation", "hang"]);
    eventually("it answers nothing", || {
        known(&node).is_none().then_some(())
    });
    node
}

#[tokio::test]
async fn while_revocation_is_down_the_gate_judges_by_the_lists_in_force() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let gone = Node::init(root.path(), "gone", "");
    gone.enrol(&issuer);
    let (dir, file) = (issuer.dir.clone(), gone.dir.join("node.credential"));
    let flags = [
        "--issuer",
        dir.to_str().unwrap(),
        "--credential",
        file.to_str().unwrap(),
    ];
    common::must(root.path(), &[&["identity", "revoke"], &flags[..]].concat());
    let list = fs::read(dir.join("acme.status")).unwrap();
    let mut other = Node::init(root.path(), "other", "");
    other.enrol(&issuer);
    other.start();
    let mut node = deaf(root.path(), &issuer, &list);
    import(&other, &signed(root.path(), &issuer, "8d"));

    let key = NodeKey::load(&gone.dir.join("data/node.key")).unwrap();
    let held = fs::read(gone.dir.join("data/identity/credential.cose")).unwrap();
    let why = present(&key, &held, &node.address()).await.unwrap_err();
    assert!(why.contains("revoked"), "{why}");
    // Who shows heads that nobody reads is judged all the same, by what is in force.
    other.stop();
    other.configure(&[node.address()], "");
    other.start();
    node.wait_peer(&other.peer_id());
    let who = gone.peer_id();
    assert_eq!(
        recorded(&node, &["authentication_failed", "revoked", &who]),
        1
    );
    assert!(!on_record(
        &node,
        &["status_list_accepted", "\"status_sequence\":2"]
    ));
    // Once it is there again it learns what it missed.
    node.kill();
    node.start();
    wait_list(&node, 2, "in_force");
    let why = present(&key, &held, &node.address()).await.unwrap_err();
    assert!(why.contains("revoked"), "{why}");
}

#[test]
fn while_revocation_is_down_lists_become_stale_and_deny_jobs_alone() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut other = Node::init(root.path(), "other", "");
    other.enrol(&issuer);
    let list = signed(root.path(), &issuer, "1s");
    let node = deaf(root.path(), &issuer, &list);
    other.configure(&[node.address()], "");
    other.start();
    let (me, peer) = (node.peer_id(), other.peer_id());
    node.wait_peer(&peer);
    fs::write(other.dir.join("hello.wasm"), guests::says("hello\\n", 0)).unwrap();
    let run = || other.cli(&["job", "run", "--on", &me, "hello.wasm"]);
    eventually("a job is denied by the executor", || {
        run();
        on_record(&node, &["identity.status_stale", &peer]).then_some(())
    });
    let refused = run();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(node.peers().contains(&peer), "it is connected all the same");
}
