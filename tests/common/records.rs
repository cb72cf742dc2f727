//! What a node has on record, and what it says of its peers.

use serde_json::Value;

use super::Node;

/// How many records of a node's audit log hold all of these words.
pub(crate) fn recorded(node: &Node, words: &[&str]) -> usize {
    let holds = |record: &&Value| {
        let text = record.to_string();
        words.iter().all(|word| text.contains(word))
    };
    node.audit().iter().filter(holds).count()
}

/// Whether one does.
pub(crate) fn on_record(node: &Node, words: &[&str]) -> bool {
    recorded(node, words) > 0
}

/// The entry of `peer` in what `node` says of its peers.
pub(crate) fn seen(node: &Node, peer: &str) -> Option<Value> {
    let answer = node.try_json(&["peers"])?;
    let peers = answer["peers"].as_array()?.clone();
    peers.into_iter().find(|entry| entry["peer_id"] == peer)
}
