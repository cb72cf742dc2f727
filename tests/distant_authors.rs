//! Messages of an author that is nobody's neighbour here: its credential is fetched from whoever
//! forwards them; on real nodes in a row.
#![cfg(test)]

mod common;

use common::{Issuer, Node, eventually};
use tempfile::TempDir;

/// first - second - third: the ends do not know each other. All trust `issuer`.
fn row(root: &TempDir, issuers: [&Issuer; 3]) -> [Node; 3] {
    let root = root.path();
    let mut nodes = ["first", "second", "third"].map(|name| Node::init(root, name, ""));
    let mut before: Option<String> = None;
    for (node, issuer) in nodes.iter_mut().zip(issuers) {
        node.enrol(issuer);
        for other in issuers.iter().filter(|other| other.name != issuer.name) {
            node.trust(other);
        }
        let known: Vec<String> = before.into_iter().collect();
        node.configure(&known, "");
        node.start();
        before = Some(node.address());
    }
    nodes[1].wait_peer(&nodes[0].peer_id());
    nodes[2].wait_peer(&nodes[1].peer_id());
    nodes
}

fn received(node: &Node) -> Option<u64> {
    node.try_json(&["actors", "show", "swarm"])?["state"]["state"]["received"].as_u64()
}

#[test]
fn an_author_two_hops_away_is_known_by_what_the_neighbour_shows() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let globex = Issuer::init(root.path(), "globex");
    let [first, second, third] = row(&root, [&acme, &acme, &globex]);
    let _relay = second.subscribe("far", 1_000);
    let mut listener = third.subscribe("far", 1_000);
    eventually("a message comes through", || {
        first.must(&["publish", "far", "--data", "hello"]);
        received(&third).filter(|count| *count > 0)
    });
    let message = listener.next();
    assert_eq!(message["text"], "hello");
    assert_eq!(message["author"], first.peer_id().as_str());
    assert_eq!(third.peers(), [second.peer_id()]);

    // Once known, it is asked for no more, and what it publishes comes at once.
    let fetched = |node: &Node| {
        let metrics = node.json(&["actors", "show", "identity"]);
        metrics["state"]["state"]["cached"].as_u64()
    };
    let before = fetched(&third);
    let count = received(&third).unwrap_or(0);
    for n in 0..10 {
        first.must(&["publish", "far", "--data", &format!("more {n}")]);
    }
    eventually("all of them come", || {
        received(&third).filter(|now| *now >= count + 10)
    });
    assert_eq!(fetched(&third), before);
}

#[test]
fn an_author_of_an_issuer_that_is_not_trusted_here_is_ignored_and_its_relay_is_not_punished() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let globex = Issuer::init(root.path(), "globex");
    let [first, second, third] = row(&root, [&globex, &acme, &acme]);
    third.must(&["trust", "remove", "globex"]);
    let _relay = second.subscribe("far", 1_000);
    let mut listener = third.subscribe("far", 1_000);
    // The relay's own message shows that the way is open, after those that may not come.
    eventually("the relay is heard", || {
        first.must(&["publish", "far", "--data", "foreign"]);
        second.must(&["publish", "far", "--data", "own"]);
        received(&third).filter(|count| *count > 0)
    });
    assert_eq!(listener.next()["text"], "own");
    eventually("the foreign author's messages are refused by name", || {
        let records = third.audit();
        records.into_iter().find(|record| {
            record["unmapped"]["event"] == "messages_refused"
                && record["status_code"] == "author_unknown"
                && record["actor"].to_string().contains(&first.peer_id())
        })
    });
    let charged = third.audit();
    assert!(
        !charged
            .iter()
            .any(|record| record["unmapped"]["event"] == "charged")
    );
    assert_eq!(third.peers(), [second.peer_id()]);
}
