//! Messages that travel together: complete, in order, in few envelopes; each is charged; nothing is
//! lost without a word, and nothing is taken twice, not even after a crash.
#![cfg(test)]

mod common;

use std::{fmt::Write as _, time::Duration};

use common::{
    Issuer, Node, connected_pair, eventually,
    peer::{credential, swarm},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::IdentTopic,
    request_response,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use quantraband::{
    identity::{Credential, ISSUER_KEY_FILE, IssuerKey, NodeKey, wire::Response},
    network::{Entry, Envelope, NodeBehaviour, NodeBehaviourEvent},
    types::{Clock, SystemClock, Timestamp},
};
use tempfile::TempDir;

/// Many lines, each a message of its own.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "message {n}");
        text
    })
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("message {n}")).collect()
}

fn records(node: &Node, words: &[&str]) -> usize {
    let matches = |r: &serde_json::Value| {
        let text = r.to_string();
        words.iter().all(|word| text.contains(word))
    };
    node.audit().iter().filter(|r| matches(r)).count()
}

/// Waits until `publisher` knows that somebody listens.
fn listened(publisher: &Node, topic: &str) {
    eventually("the publisher knows who listens", || {
        let peers = publisher.json(&["peers"]);
        peers.to_string().contains(topic).then_some(())
    });
}

#[test]
fn many_small_messages_arrive_complete_and_in_order_in_few_envelopes() {
    const MANY: usize = 2_000;
    let root = TempDir::new().unwrap();
    let (mut first, second) = connected_pair(
        root.path(),
        "gossip.batch_delay = \"50ms\"\ngossip.subscriber_queue = 10000",
    );
    let got = first.gather("orders");
    listened(&second, "orders");
    let output = second.cli_input(&["publish", "orders", "--lines"], lines(MANY).as_bytes());
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(&format!("published {MANY} messages")),
        "{said}"
    );
    eventually("all of them came", || {
        (got.texts().len() == MANY).then_some(())
    });
    assert_eq!(got.texts(), expected(MANY));
    let envelopes = second.metric("quantraband_batch_messages_count");
    assert!((1.0..200.0).contains(&envelopes), "{envelopes}");
    assert!((second.metric("quantraband_messages_sent_total") - 2_000.0).abs() < 0.5);
    assert!((first.metric("quantraband_messages_received_total") - 2_000.0).abs() < 0.5);
    first.stop();
    first.verify_log();
}

#[test]
fn without_batching_each_message_travels_alone() {
    let root = TempDir::new().unwrap();
    let (first, second) = connected_pair(root.path(), "gossip.batch_count = 1");
    let got = first.gather("orders");
    listened(&second, "orders");
    let output = second.cli_input(&["publish", "orders", "--lines"], lines(100).as_bytes());
    assert!(output.status.success(), "{output:?}");
    eventually("all of them came", || {
        (got.texts().len() == 100).then_some(())
    });
    assert_eq!(got.texts(), expected(100));
    assert!((second.metric("quantraband_batch_messages_count") - 100.0).abs() < 0.5);
}

/// The budget of the neighbours is this node's own: who publishes too fast is told, waits, and loses
/// nothing.
#[test]
fn who_publishes_too_fast_is_told_and_loses_nothing() {
    const MANY: usize = 120;
    let root = TempDir::new().unwrap();
    let (first, mut second) = connected_pair(root.path(), "");
    // The publisher's budget alone: with the same at the listener, a machine that stalls for longer than
    // burst / rate brings more than the burst at once, which the listener refuses.
    second.stop();
    second.replace("messages_per_second = 10000", "messages_per_second = 50");
    second.replace("message_burst = 10000", "message_burst = 20");
    second.start();
    first.wait_peer(&second.peer_id());
    let got = first.gather("orders");
    listened(&second, "orders");
    let output = second.cli_input(
        &["publish", "orders", "--lines", "--output", "json"],
        lines(MANY).as_bytes(),
    );
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["published"], MANY);
    assert!(said["pushed_back"].as_u64().unwrap() > 0, "{said}");
    eventually("all of them came", || {
        (got.texts().len() == MANY).then_some(())
    });
    assert_eq!(got.texts(), expected(MANY));
}

/// A member of the test's own, connected to the node.
struct Member {
    key: NodeKey,
    credential: Vec<u8>,
    swarm: Swarm<NodeBehaviour>,
    node: (PeerId, Multiaddr),
    /// The chains it answers with when it is asked whose a message is.
    shows: Vec<Vec<u8>>,
}

impl Member {
    fn new(node: &Node, acme: &Issuer, seed: u8) -> Self {
        let issuer = IssuerKey::load(&acme.dir.join(ISSUER_KEY_FILE)).unwrap();
        let key = NodeKey::from_seed(&[seed; 32]);
        let credential = credential(
            &issuer,
            &key,
            &format!("member-{seed}"),
            SystemClock::new().now(),
        );
        Self::again(node, key, credential)
    }

    fn again(node: &Node, key: NodeKey, credential: Vec<u8>) -> Self {
        let swarm = swarm(&key, &credential);
        let address = node.address().parse().unwrap();
        Self {
            key,
            credential,
            swarm,
            node: (node.peer_id().parse().unwrap(), address),
            shows: Vec::new(),
        }
    }

    /// Ends its connection.
    fn leave(self) -> (NodeKey, Vec<u8>) {
        (self.key, self.credential)
    }

    fn envelope(&self, first: u64, sent: Timestamp, texts: &[String]) -> Vec<u8> {
        let credential = Credential::decode(&self.credential).unwrap();
        let entries = texts.iter().map(|text| Entry::plain(text.as_bytes()));
        Envelope {
            sent,
            first,
            credential: Some(credential.hash()),
            entries: entries.collect(),
        }
        .encode()
    }

    /// Again after a refusal, too: the node may not yet have seen that the one before left.
    fn connect(&mut self) {
        let dial = DialOpts::peer_id(self.node.0).addresses(vec![self.node.1.clone()]);
        // Refused while it is connected or about to be.
        let _ = self.swarm.dial(dial.build());
    }

    /// Shows its chains to whoever asks.
    fn answer(&mut self, event: SwarmEvent<NodeBehaviourEvent>) {
        if let SwarmEvent::Behaviour(NodeBehaviourEvent::Identity(event)) = event
            && let request_response::Event::Message { message, .. } = *event
            && let request_response::Message::Request { channel, .. } = message
        {
            let chains = Response::Chains(self.shows.clone());
            let identity = &mut self.swarm.behaviour_mut().identity;
            let _ = identity.send_response(channel, chains);
        }
    }

    /// Publishes until gossip takes it, then drives the swarm until `done`.
    async fn publish(&mut self, bytes: Vec<u8>, mut done: impl FnMut() -> bool) {
        let mut left = Some(bytes);
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let driving = async {
            loop {
                tokio::select! {
                    event = self.swarm.select_next_some() => self.answer(event),
                    _ = tick.tick() => {
                        self.connect();
                        if let Some(bytes) = left.take() {
                            let gossip = &mut self.swarm.behaviour_mut().gossip;
                            if gossip.publish(IdentTopic::new("orders"), bytes.clone()).is_err() {
                                left = Some(bytes);
                            }
                        } else if done() {
                            return;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(common::PATIENCE, driving)
            .await
            .expect("never happened");
    }
}

fn node_with(root: &TempDir, burst: u32) -> (Node, Issuer) {
    let acme = Issuer::init(root.path(), "acme");
    // The replay window decides, not gossipsub's memory of ids.
    let mut node = Node::init(root.path(), "node", "gossip.duplicate_cache = \"200ms\"");
    node.enrol(&acme);
    node.replace("messages_per_second = 10000", "messages_per_second = 1");
    node.replace("message_burst = 10000", &format!("message_burst = {burst}"));
    node.start();
    (node, acme)
}

fn texts(from: u64, count: usize) -> Vec<String> {
    (from..).take(count).map(|n| format!("text {n}")).collect()
}

#[tokio::test]
async fn each_message_of_a_batch_is_charged_and_a_batch_over_the_budget_is_ignored_whole() {
    let root = TempDir::new().unwrap();
    let (node, acme) = node_with(&root, 20);
    let got = node.gather("orders");
    let mut member = Member::new(&node, &acme, 61);
    let now = SystemClock::new().now();
    let first = member.envelope(1_000, now, &texts(0, 15));
    member.publish(first, || got.texts().len() == 15).await;
    // Of the 20 that the budget holds 5 are left, and one more each second.
    let refused = || records(&node, &["messages_refused", "author_rate"]);
    let more = member.envelope(2_000, now, &texts(100, 20));
    member.publish(more, || refused() > 0).await;
    assert_eq!(got.texts(), texts(0, 15), "none of it");
    // Who owes nothing gets more than the budget holds, and owes all of it.
    let mut other = Member::new(&node, &acme, 67);
    let large = other.envelope(1_000, now, &texts(500, 200));
    other.publish(large, || got.texts().len() == 215).await;
    let before = refused();
    let small = other.envelope(2_000, now, &texts(800, 1));
    other.publish(small, || refused() > before).await;
    assert_eq!(got.texts().len(), 215);
}

#[tokio::test]
async fn a_neighbour_pays_for_its_frames_whatever_they_carry() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let extra = "limits.frames_per_second = 1\nlimits.frame_burst = 5";
    let mut node = Node::init(root.path(), "node", extra);
    node.enrol(&acme);
    node.start();
    let got = node.gather("orders");
    let mut member = Member::new(&node, &acme, 66);
    for n in 0..12 {
        let one = member.envelope(1_000 + n, SystemClock::new().now(), &texts(n, 1));
        member.publish(one, || true).await;
    }
    let refused = || records(&node, &["messages_refused", "neighbour_frames"]) > 0;
    let last = member.envelope(2_000, SystemClock::new().now(), &texts(99, 1));
    member.publish(last, refused).await;
    assert!(got.texts().len() < 12, "{:?}", got.texts());
}

#[tokio::test]
async fn what_is_replayed_overlaps_or_is_signed_again_by_another_is_not_taken() {
    let root = TempDir::new().unwrap();
    let (node, acme) = node_with(&root, 10_000);
    let got = node.gather("orders");
    let mut member = Member::new(&node, &acme, 62);
    let now = SystemClock::new().now();
    let batch = member.envelope(1_000, now, &texts(0, 10));
    member
        .publish(batch.clone(), || got.texts().len() == 10)
        .await;
    // The same envelope under a new signature of its author, when gossip has forgotten its id.
    let (key, credential) = member.leave();
    let mut again = Member::again(&node, key, credential);
    let replayed = || records(&node, &["messages_refused", "replayed"]) > 0;
    loop {
        let sent = SystemClock::new();
        let waited = || replayed() || sent.elapsed() > Duration::from_secs(1);
        again.publish(batch.clone(), waited).await;
        if replayed() {
            break;
        }
        // It came while gossip still knew its id. The next one that sends it knows nothing of that.
        let (key, credential) = again.leave();
        again = Member::again(&node, key, credential);
    }
    // Numbers that overlap with those of before, with other texts.
    let refused = records(&node, &["messages_refused", "replayed"]);
    let overlapping = again.envelope(1_009, now, &texts(50, 5));
    again
        .publish(overlapping, || {
            records(&node, &["messages_refused", "replayed"]) > refused
        })
        .await;
    // The same under another's signature: it names a credential that is not its author's.
    let mut other = Member::new(&node, &acme, 63);
    other.shows = vec![again.credential.clone()];
    other
        .publish(batch, || {
            records(&node, &["messages_refused", "credential_unknown"]) > 0
        })
        .await;
    assert_eq!(got.texts(), texts(0, 10));
}

#[tokio::test]
async fn after_a_crash_what_was_taken_before_is_not_taken_again() {
    let root = TempDir::new().unwrap();
    let (mut node, acme) = node_with(&root, 10_000);
    let got = node.gather("orders");
    let mut member = Member::new(&node, &acme, 64);
    let batch = member.envelope(1_000, SystemClock::new().now(), &texts(0, 10));
    member
        .publish(batch.clone(), || got.texts().len() == 10)
        .await;
    let (key, credential) = member.leave();
    drop(got);
    node.kill();
    node.start();
    let got = node.gather("orders");
    let mut again = Member::again(&node, key, credential);
    again
        .publish(batch, || {
            records(&node, &["messages_refused", "before_start"]) > 0
        })
        .await;
    assert_eq!(got.texts(), Vec::<String>::new());
    // What is sent from now on is taken, when the reserve is used up at the latest.
    let mut first = 2_000;
    while got.texts().is_empty() {
        first += 10;
        let fresh = again.envelope(first, SystemClock::new().now(), &texts(0, 1));
        let before = SystemClock::new();
        let waited = || before.elapsed() > Duration::from_millis(300) || !got.texts().is_empty();
        again.publish(fresh, waited).await;
        assert!(first < 5_000, "never taken");
    }
}

#[tokio::test]
async fn after_an_orderly_stop_nothing_is_taken_again_and_nothing_new_is_refused() {
    let root = TempDir::new().unwrap();
    let (mut node, acme) = node_with(&root, 10_000);
    let got = node.gather("orders");
    let mut member = Member::new(&node, &acme, 65);
    let batch = member.envelope(1_000, SystemClock::new().now(), &texts(0, 10));
    member
        .publish(batch.clone(), || got.texts().len() == 10)
        .await;
    let (key, credential) = member.leave();
    drop(got);
    node.stop();
    node.start();
    let got = node.gather("orders");
    let mut again = Member::again(&node, key, credential);
    let fresh = again.envelope(2_000, SystemClock::new().now(), &texts(70, 3));
    again.publish(fresh, || got.texts().len() == 3).await;
    again
        .publish(batch, || {
            records(&node, &["messages_refused", "before_start"]) > 0
        })
        .await;
    assert_eq!(got.texts(), texts(70, 3));
    node.stop();
    node.verify_log();
}

#[test]
fn a_trace_context_travels_and_a_wrong_one_is_said() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let root = TempDir::new().unwrap();
    let (first, second) = connected_pair(root.path(), "");
    let got = first.subscribe("orders", 1);
    listened(&second, "orders");
    let wrong = second.cli(&[
        "publish",
        "orders",
        "--data",
        "x",
        "--traceparent",
        "00-1-2-01",
    ]);
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
    second.must(&[
        "publish",
        "orders",
        "--data",
        "x",
        "--traceparent",
        PARENT,
        "--tracestate",
        "a=1, b=2",
    ]);
    let message = got.finish().remove(0);
    assert_eq!(message["trace"]["traceparent"], PARENT);
    assert_eq!(message["trace"]["tracestate"], "a=1,b=2");
}
