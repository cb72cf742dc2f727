//! Real nodes: one enrolled by a delegate is a member where only the anchor is trusted; one that
//! signs for itself is let in where the operator says so, and may do less.
#![cfg(test)]

mod common;

use std::path::Path;

use common::{Issuer, Node, eventually, must, records::on_record};
use serde_json::Value;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// An issuer below `above`, which lets it put nodes in `work*`.
fn delegate(root: &Path, above: &Issuer, name: &str) -> Issuer {
    let below = Issuer::init(root, name);
    let leave = root.join("leave");
    let (anchor, dir) = (below.anchor(), &above.dir);
    let grant = ["--issuer", text(dir), "--group", "work*", "--out"];
    let begin = ["identity", "delegate", text(&anchor)];
    must(root, &[&begin[..], &grant, &[text(&leave)]].concat());
    let (top, own) = (above.anchor(), &below.dir);
    let end = ["--anchor", text(&top), "--dir", text(own)];
    let begin = ["identity", "issuer", "import", text(&leave)];
    must(root, &[&begin[..], &end].concat());
    below
}

/// The entry of `peer` in what `node` shows of its peers.
fn shown(node: &Node, peer: &str) -> Option<Value> {
    let peers = node.try_json(&["peers"])?;
    let mut found = peers["peers"].as_array()?.iter();
    found.find(|p| p["peer_id"] == peer).cloned()
}

#[test]
fn a_delegates_node_is_a_member_where_the_anchor_alone_is_trusted() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let europe = delegate(root.path(), &acme, "acme.eu");
    let mut first = Node::init(root.path(), "node-1", "");
    first.enrol(&acme);
    first.start();
    // It trusts its own issuer by name, too: `enrol` says so. The first knows acme alone.
    let mut second = Node::init(root.path(), "node-2", "");
    second.trust(&acme);
    second.enrol(&europe);
    second.configure(&[first.address()], "");
    second.start();
    let who = second.peer_id();
    let peer = eventually("the delegate's node is let in", || shown(&first, &who));
    assert_eq!(peer["identity"], "acme.eu/node-2");
    assert_eq!(peer["tier"], "member");

    // What the operator allows the anchor to grant is narrowed: the node is cut off.
    let anchor = acme.anchor();
    first.must(&["trust", "add", text(&anchor), "--max-depth", "0"]);
    eventually("it is refused by name", || {
        on_record(&first, &[&who, "anchor.max-depth"]).then_some(())
    });
    eventually("it is gone", || shown(&first, &who).is_none().then_some(()));
    for node in [&mut first, &mut second] {
        assert_eq!(node.stop().code(), Some(0));
        node.verify_log();
    }
}

#[test]
fn who_signs_for_itself_is_let_in_by_configuration_alone_and_may_do_less() {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    let mut first = Node::init(root.path(), "node-1", "");
    first.enrol(&acme);
    first.start();
    let mut lone = Node::init(root.path(), "lone", "");
    lone.trust(&acme);
    lone.must(&["identity", "self-sign", "--subject", "lone"]);
    lone.configure(&[first.address()], "identity.self_signed = \"allow\"");
    lone.start();
    let who = lone.peer_id();
    eventually("it is refused by default", || {
        on_record(&first, &[&who, "identity.self_signed"]).then_some(())
    });
    assert_eq!(shown(&first, &who), None);
    let charged = on_record(&first, &[&who, "bad_credential"]);
    assert!(!charged, "to sign for oneself is no misdeed");

    assert_eq!(first.stop().code(), Some(0));
    first.configure(
        &[],
        "identity.self_signed = \"allow\"\npolicy.unverified_topics = [\"open\"]",
    );
    first.start();
    let peer = eventually("it is let in where that is allowed", || shown(&first, &who));
    assert_eq!(peer["tier"], "self_signed");
    let identity = peer["identity"].as_str().unwrap();
    assert!(
        identity.starts_with("self.") && identity.ends_with("/lone"),
        "{identity}"
    );
    assert!(on_record(&first, &[&who, "connect.self_signed"]));

    // The member runs nothing for it.
    let module = root.path().join("nothing.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    let run = lone.cli(&["job", "run", "--on", &first.peer_id(), text(&module)]);
    assert!(!run.status.success());
    eventually("the job is refused by the rules", || {
        on_record(&first, &[&who, "run_job", "default.deny"]).then_some(())
    });
    for node in [&mut first, &mut lone] {
        assert_eq!(node.stop().code(), Some(0));
        node.verify_log();
    }
}
