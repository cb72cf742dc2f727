//! Sealed messages between real nodes: those they are meant for read them, those who carry them
//! do not.
#![cfg(test)]

mod common;

use std::{fs, path::Path, thread};

use common::{Issuer, Node, connected_pair, eventually, guests};
use tempfile::TempDir;

/// Three nodes; the second is connected to both others, and those, when they `meet`, to each other.
fn three(root: &TempDir, meet: bool) -> [Node; 3] {
    let issuer = Issuer::init(root.path(), "acme");
    let mut nodes = ["node-1", "node-2", "node-3"].map(|name| {
        let node = Node::init(root.path(), name, "");
        node.enrol(&issuer);
        node
    });
    let (first, middle) = (nodes[0].address(), nodes[1].address());
    nodes[0].configure(std::slice::from_ref(&middle), "");
    let others = if meet {
        vec![middle, first]
    } else {
        vec![middle]
    };
    nodes[2].configure(&others, "");
    nodes[1].start();
    nodes[0].start();
    nodes[2].start();
    for node in [&nodes[0], &nodes[2]] {
        node.wait_peer(&nodes[1].peer_id());
    }
    if meet {
        nodes[0].wait_peer(&nodes[2].peer_id());
    }
    nodes
}

#[test]
fn only_the_peer_it_is_sealed_to_reads_it() {
    let root = TempDir::new().unwrap();
    let [first, second, third] = three(&root, true);
    let reading = second.subscribe("orders", 1);
    let third_reads = third.subscribe("orders", 1);
    let own = first.subscribe("orders", 1);
    let peer = second.peer_id();
    eventually("the second node listens", || {
        let sent = first.json(&["publish", "orders", "--data", "secret", "--seal-to", &peer]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    let got = reading.finish();
    assert_eq!(got[0]["text"], "secret", "{got:?}");
    assert_eq!(got[0]["sealed"], true);
    assert_eq!(got[0]["author"], first.peer_id().as_str());
    // What is for everybody still reaches everybody, and is the first that the others see.
    for subscription in [own, third_reads] {
        let waiting = thread::spawn(move || subscription.finish());
        eventually("a plain message arrives", || {
            first.must(&["publish", "orders", "--data", "plain"]);
            waiting.is_finished().then_some(())
        });
        let got = waiting.join().unwrap();
        assert_eq!(got[0]["text"], "plain", "{got:?}");
        assert_eq!(got[0]["sealed"], false);
    }
}

#[test]
fn a_group_reads_what_is_sealed_to_it_and_strangers_are_no_recipients() {
    let root = TempDir::new().unwrap();
    let [first, second, third] = three(&root, false);
    let reading = second.subscribe("orders", 1);
    // Sender and neighbour are both in the group.
    let own = first.subscribe("orders", 1);
    eventually("the group listens", || {
        let sent = first.json(&[
            "publish",
            "orders",
            "--data",
            "ours",
            "--seal-to",
            "acme/workers",
        ]);
        (sent["listeners"].as_u64()? > 0).then_some(())
    });
    for subscription in [reading, own] {
        let got = subscription.finish();
        assert_eq!(got[0]["text"], "ours", "{got:?}");
    }
    // The third was never connected to the first: nobody vouched for a key of its.
    let stranger = third.peer_id();
    for to in [stranger.as_str(), "acme/bosses"] {
        let output = first.cli(&["publish", "orders", "--data", "x", "--seal-to", to]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("seal.unknown"), "{said}");
    }
}

/// Whether any file under a directory holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let file = fs::read(&path).unwrap_or_default();
        file.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn a_sealed_input_is_read_by_the_guest_and_lies_on_no_disk() {
    let root = TempDir::new().unwrap();
    let (executor, submitter) = connected_pair(root.path(), "");
    fs::write(submitter.dir.join("cat.wasm"), guests::cat()).unwrap();
    let secret = "the combination is 12345";
    // Not within what the nodes keep.
    let file = root.path().join("secret");
    fs::write(&file, secret).unwrap();
    let peer = executor.peer_id();
    for on in [&["--on", peer.as_str()][..], &[]] {
        let stdin = ["--seal", "--stdin", file.to_str().unwrap(), "cat.wasm"];
        let output = submitter.must(&[&["job", "run"], on, &stdin].concat());
        assert_eq!(output, secret);
    }
    for (node, side) in [
        (&executor, "run"),
        (&submitter, "sent"),
        (&submitter, "run"),
    ] {
        let blobs = node.dir.join("data/jobs").join(side).join("blobs");
        assert!(!holds(&blobs, secret.as_bytes()), "{}", blobs.display());
        assert!(!holds(&node.dir.join("data/audit"), secret.as_bytes()));
    }
    // The same without the flag does lie there: the test sees what it looks for.
    let stdin = ["job", "run", "--stdin", file.to_str().unwrap(), "cat.wasm"];
    assert_eq!(submitter.must(&stdin), secret);
    assert!(holds(
        &submitter.dir.join("data/jobs/run/blobs"),
        secret.as_bytes()
    ));
}
