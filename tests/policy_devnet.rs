//! Five nodes of two issuers under traffic: policies reload, a score drops, a quarantine begins and
//! ends. Each is seen on live connections everywhere, and innocents lose no message.
#![cfg(test)]
#![expect(clippy::print_stdout, reason = "how long each took")]

mod common;

use std::{fs, path::Path};

use common::{Gathered, Issuer, Node, eventually, records::recorded};
use quantraband::types::{Clock, SystemClock};
use tempfile::TempDir;

const EXTRA: &str = "limits.exempt_networks = [\"127.0.0.0/8\"]\n\
                     policy.dir = \"own\"\n\
                     policy.restricted_topics = [\"help\"]\n\
                     policy.messages_min_score = 0.35";
const NO_VICTIM: &str = r#"
@id("no.victim")
forbid (principal is Qb::Peer, action in [Qb::Action::"publish", Qb::Action::"subscribe"],
  resource is Qb::Topic) when { principal.subject == "node-5" };
"#;

fn policies(node: &Node, more: &str) {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policies/default.cedar");
    let dir = node.dir.join("own");
    fs::create_dir_all(&dir).unwrap();
    let text = fs::read_to_string(built_in).unwrap();
    fs::write(dir.join("rules.cedar"), text + more).unwrap();
}

/// Five nodes, all connected; the last one is the second issuer's.
fn five(root: &Path) -> Vec<Node> {
    let issuers = [Issuer::init(root, "acme"), Issuer::init(root, "globex")];
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..5 {
        let mut node = Node::init(root, &format!("node-{}", n + 1), "");
        let own = &issuers[usize::from(n == 4)];
        node.enrol(own);
        for issuer in issuers.iter().filter(|issuer| issuer.name != own.name) {
            node.trust(issuer);
        }
        let known: Vec<String> = nodes.iter().map(Node::address).collect();
        node.configure(&known, EXTRA);
        policies(&node, "");
        node.start();
        nodes.push(node);
    }
    let ids: Vec<String> = nodes.iter().map(Node::peer_id).collect();
    for (node, own) in nodes.iter().zip(&ids) {
        for id in ids.iter().filter(|id| *id != own) {
            node.wait_peer(id);
        }
    }
    nodes
}

/// Waits for `seen` on every node, and says how long it took.
fn everywhere(what: &str, nodes: &[Node], seen: impl Fn(&Node) -> bool) {
    let clock = SystemClock::new();
    for node in nodes {
        eventually(what, || seen(node).then_some(()));
    }
    println!("{what}: everywhere after {:?}", clock.elapsed());
}

fn quarantined(node: &Node) -> bool {
    let listed = node.try_json(&["peers", "quarantined"]);
    listed.is_some_and(|all| all.to_string().contains("globex/node-5"))
}

/// An innocent's messages, each of which its neighbours must get.
struct Traffic<'a> {
    from: &'a Node,
    listeners: Vec<Gathered>,
    sent: usize,
}

impl Traffic<'_> {
    /// Some more messages; all so far have arrived when it returns.
    fn flow(&mut self) {
        for _ in 0..20 {
            let text = format!("order {}", self.sent);
            self.from.must(&["publish", "orders", "--data", &text]);
            self.sent += 1;
        }
        for listener in &self.listeners {
            eventually("every message arrives", || {
                let all = (0..self.sent).all(|n| listener.has(&format!("order {n}")));
                all.then_some(())
            });
        }
    }
}

#[test]
fn five_nodes_follow_policy_score_and_quarantine_and_innocents_lose_nothing() {
    let root = TempDir::new().unwrap();
    let mut nodes = five(root.path());
    let victim = nodes.pop().unwrap();
    let who = victim.peer_id();
    let mut traffic = Traffic {
        from: &nodes[0],
        listeners: nodes[1..].iter().map(|n| n.gather("orders")).collect(),
        sent: 0,
    };
    let heard = victim.gather("orders");
    traffic.flow();
    eventually("the victim hears it, too", || {
        heard.has("order 19").then_some(())
    });

    // Policy: it is silenced by its name, on connections that stand.
    for node in &nodes {
        policies(node, NO_VICTIM);
        node.must(&["config", "reload"]);
    }
    everywhere("policy reload", &nodes, |node| {
        recorded(node, &["decided", "subscribe", "no.victim", &who]) > 0
    });
    traffic.flow();
    assert!(!heard.has("order 20"), "it may not listen any more");
    for node in &nodes {
        policies(node, "");
        node.must(&["config", "reload"]);
    }
    everywhere("policy given back", &nodes, |node| {
        let allow = ["decided", "subscribe", "topic.member", &who];
        recorded(node, &allow) > 1
    });

    // Score: a short ban leaves it on probation, with less than messages need.
    for node in &nodes {
        node.must(&["peers", "ban", "globex/node-5", "--for", "1s"]);
    }
    everywhere("score drop", &nodes, |node| {
        quarantined(node) && node.peers().contains(&who)
    });
    traffic.flow();

    // By hand, and released: nothing else holds it once its score suffices.
    for node in &nodes {
        node.configure(&[], &EXTRA.replace("0.35", "0.2"));
        node.must(&["config", "reload"]);
        node.must(&["peers", "release", "globex/node-5"]);
    }
    everywhere("release", &nodes, |node| !quarantined(node));
    let free = victim.gather("news");
    eventually("it is heard again", || {
        nodes[0].cli(&["publish", "news", "--data", "hello"]);
        free.has("hello").then_some(())
    });
    for node in &nodes {
        node.must(&["peers", "quarantine", "globex/node-5"]);
    }
    everywhere("quarantine", &nodes, |node| {
        quarantined(node) && recorded(node, &["decided", "quarantine.topics", &who]) > 0
    });
    traffic.flow();
}
