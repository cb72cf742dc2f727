//! A node changes its keys and stays who it is, on real nodes; and nobody else does it for it.
#![cfg(test)]

mod common;

use std::{fs, path::Path};

use ciborium::Value as Cbor;
use common::{
    Issuer, Node, eventually, member,
    peer::{credential, present, present_continuity},
    records::{on_record, seen},
};
use libp2p::Swarm;
use quantraband::{
    identity::{
        Chain, Continuity, Credential, Domain, IssuerKey, NodeKey,
        enrolment::{RefusalCode, Request, Response},
    },
    network::NodeBehaviour,
    types::{Clock, SystemClock, Timestamp},
};
use serde_json::Value;
use tempfile::TempDir;

/// A node of the issuer that issues.
fn hub(root: &Path, extra: &str) -> (Issuer, Node) {
    let issuer = Issuer::init(root, "acme");
    let extra = format!("issuer.dir = {:?}\n{extra}", issuer.dir);
    let mut hub = Node::init(root, "hub", &extra);
    hub.enrol(&issuer);
    hub.start();
    (issuer, hub)
}

/// The rotation under way, as `identity show` says it.
fn rotation(node: &Node) -> Value {
    node.json(&["identity", "show"])["rotation"].clone()
}

fn revoked(node: &Node) -> u64 {
    let lists = node.try_json(&["status", "list"]).unwrap_or_default();
    lists["lists"][0]["revoked"].as_u64().unwrap_or_default()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one life of one node, step by step")]
async fn a_node_changes_its_keys_and_stays_who_it_is() {
    let root = TempDir::new().unwrap();
    let (issuer, hub) = hub(root.path(), "");
    let mut other = Node::init(root.path(), "other", "");
    other.enrol(&issuer);
    other.configure(&[hub.address()], "");
    other.start();
    let mut node = Node::init(root.path(), "node-1", "");
    node.enrol(&issuer);
    let data = node.dir.join("data");
    let wrap = root.path().join("wrap.key");
    // What a thief of the old keys would have.
    let stolen = NodeKey::load(&data.join("node.key")).unwrap();
    let held = fs::read(data.join("identity/credential.cose")).unwrap();
    node.must(&[
        "identity",
        "protect",
        "--with",
        &format!("file:{}", wrap.display()),
    ]);
    node.configure(&[hub.address(), other.address()], "");
    node.start();
    let old = node.peer_id();
    let name = eventually("it is known", || {
        seen(&hub, &old)?;
        seen(&other, &old)?["identity"].as_str().map(str::to_owned)
    });

    let out = root.path().join("rotation.cose");
    let rotate = ["identity", "rotate", "--out", out.to_str().unwrap()];
    let report = node.json(&rotate);
    let new = report["rotation"]["next_peer_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(new, old);
    eventually("its credential is there", || {
        (rotation(&node)["state"] == "ready").then_some(())
    });
    assert_eq!(node.json(&rotate)["before"], true);
    assert_eq!(node.peer_id(), old, "nothing changes while it runs");
    let sealed = fs::read_to_string(data.join("node.key.next")).unwrap();
    assert!(
        sealed.starts_with("quantraband-sealed-key-v1\n"),
        "{sealed}"
    );
    assert!(on_record(
        &hub,
        &["key_rotated", "enrol.rotation", &old, &new]
    ));
    assert_eq!(
        revoked(&hub),
        0,
        "the old one holds until the new keys are seen"
    );

    // Killed and not stopped: the switch is at the start.
    node.kill();
    node.start();
    assert_eq!(node.peer_id(), new);
    for (by, what) in [(&other, "the third peer"), (&hub, "the issuer's node")] {
        let entry = eventually(what, || seen(by, &new));
        assert_eq!(entry["identity"], name.as_str(), "{entry}");
        assert_eq!(entry["formerly"], old.as_str(), "{entry}");
        assert_eq!(entry["tier"], "member", "{entry}");
    }
    for by in [&hub, &other] {
        eventually("the old credential is revoked", || {
            (revoked(by) == 1).then_some(())
        });
    }
    for by in [&hub, &other] {
        let why = present(&stolen, &held, &by.address()).await.unwrap_err();
        assert!(
            why.contains("revoked") || why.contains("superseded"),
            "{why}"
        );
    }
    assert!(on_record(&other, &["key_rotated", "gate", &old, &new]));
    assert!(on_record(&node, &["key_rotated", "own", &old, &new]));
    eventually("the old keys are erased", || {
        (!data.join("node.key.retired").exists()).then_some(())
    });
    assert_eq!(rotation(&node), Value::Null);
    // One log over both names, and told once.
    node.stop();
    node.start();
    let told = node.audit();
    let told = told
        .iter()
        .filter(|r| r.to_string().contains("key_rotated"));
    assert_eq!(told.count(), 1);
    for one in [&node, &hub, &other] {
        one.verify_log();
    }
}

#[test]
fn a_node_without_an_issuers_node_changes_its_keys_by_files() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node-1", "");
    node.enrol(&issuer);
    let old = node.peer_id();
    let subject = node.json(&["identity", "show"])["credential"]["subject"].clone();
    let (request, answer) = (root.path().join("request"), root.path().join("answer"));
    let (request, answer) = (request.to_str().unwrap(), answer.to_str().unwrap());
    let first = node.json(&["identity", "rotate", "--out", request])["rotation"].clone();
    assert_eq!(rotation(&node)["state"], "asking");
    // The request may have been handed on: it is not forgotten, but replaced.
    let report = node.json(&["identity", "rotate", "--abandon", "--out", request]);
    assert_eq!(report["replaces"], true, "{report}");
    let sequence = |rotation: &Value| rotation["sequence"].as_u64().unwrap();
    assert!(sequence(&report["rotation"]) > sequence(&first));
    let new = report["rotation"]["next_peer_id"].clone();
    assert_ne!(new, first["next_peer_id"]);
    let dir = issuer.dir.to_str().unwrap();
    let issue = [
        "identity", "issue", request, "--issuer", dir, "--out", answer,
    ];
    let denied = node.cli(&[&issue[..], &["--group", "ops"]].concat());
    assert!(
        String::from_utf8_lossy(&denied.stderr).contains("--group"),
        "{denied:?}"
    );
    let report = node.json(&issue);
    assert_eq!(report["credential"]["subject"], subject);
    assert_eq!(report["rotated"]["former_peer_id"], old.as_str());
    let index = report["rotated"]["take_back"][0].as_u64().unwrap();
    // The answer may have been lost: the same again.
    let given = fs::read(answer).unwrap();
    fs::remove_file(answer).unwrap();
    node.json(&issue);
    assert_eq!(fs::read(answer).unwrap(), given);
    assert_eq!(node.json(&["identity", "import", answer])["next"], true);
    assert_eq!(rotation(&node)["state"], "ready");
    let late = node.cli(&["identity", "rotate", "--abandon"]);
    assert!(!late.status.success(), "{late:?}");
    node.start();
    assert_eq!(Value::from(node.peer_id()), new);
    assert_eq!(node.json(&["identity", "show"])["valid"], true);
    // No member was met: the former keys are there, and would stay sealed as they are.
    let protect = ["identity", "protect", "--with", "file:wrap.key"];
    let refused = node.cli(&protect);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("node.key.retired"), "{words}");
    node.verify_log();
    let index = index.to_string();
    node.must(&["identity", "revoke", "--issuer", dir, "--index", &index]);
    // Nothing is given any more for keys whose credential was taken back.
    let again = node.cli(&issue);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("revoked"),
        "{again:?}"
    );
}

/// The payload of a statement, signed by these keys alone.
fn signed_by(key: &NodeKey, statement: &Continuity) -> Vec<u8> {
    let Cbor::Tag(_, parts) = ciborium::from_reader(statement.as_bytes()).unwrap() else {
        panic!("no tag")
    };
    let payload = parts.into_array().unwrap().remove(2).into_bytes().unwrap();
    key.signer().seal(Domain::Continuity, &payload)
}

struct World {
    _root: TempDir,
    hub: Node,
    key: IssuerKey,
    now: Timestamp,
}

fn world() -> World {
    let root = TempDir::new().unwrap();
    let (issuer, hub) = hub(root.path(), "");
    World {
        key: IssuerKey::load(&issuer.dir.join("issuer.key")).unwrap(),
        _root: root,
        hub,
        now: SystemClock::new().now(),
    }
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed(&[n; 32])
}

impl World {
    fn held(&self, key: &NodeKey, name: &str) -> Vec<u8> {
        credential(&self.key, key, name, self.now)
    }

    /// The statement of these keys' holder about the next, later by so many sequences.
    fn statement(&self, old: u8, new: u8, name: &str, last: Option<u64>) -> Continuity {
        let held = Credential::decode(&self.held(&key(old), name)).unwrap();
        Continuity::seal((&key(old), &key(new)), &held, last, self.now).unwrap()
    }

    fn charged(&self, who: &NodeKey) {
        let who = who.peer().to_string();
        eventually("it is charged", || {
            on_record(&self.hub, &["charged", "bad_credential", &who]).then_some(())
        });
    }

    async fn connected(&self, key: &NodeKey, credential: &[u8]) -> Swarm<NodeBehaviour> {
        member::connected(&self.hub, key, credential, None).await
    }

    async fn rotate(&self, swarm: &mut Swarm<NodeBehaviour>, statement: &[u8]) -> Response {
        let statement = statement.to_vec();
        member::ask(&self.hub, swarm, Request::Rotate { statement }).await
    }
}

fn refusal(response: &Response) -> (RefusalCode, &str) {
    match response {
        Response::Refused(refused) => (refused.code, &refused.detail),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn at_the_gate_a_forged_statement_is_charged_and_an_older_one_refused() {
    let world = world();
    let address = world.hub.address();
    let show = async |who: u8, name: &str, statement: &[u8]| {
        let held = world.held(&key(who), name);
        present_continuity(&key(who), &held, statement, &address).await
    };
    // Its bearer alone signed it: the holder of the old keys knows nothing of it.
    let claimed = world.statement(1, 2, "node-1", None);
    let why = show(2, "node-1", &signed_by(&key(2), &claimed)).await;
    assert!(why.unwrap_err().contains("continuity"));
    world.charged(&key(2));
    // One of another subject, and one that leads to another's keys.
    let elsewhere = world.statement(3, 4, "node-3", None);
    let why = show(4, "node-4", elsewhere.as_bytes()).await;
    assert!(why.unwrap_err().contains("continuity"));
    world.charged(&key(4));
    let why = show(5, "node-3", elsewhere.as_bytes()).await;
    assert!(why.unwrap_err().contains("continuity"));
    world.charged(&key(5));

    // A good one; then the next; then the first again.
    let first = world.statement(6, 7, "node-6", None);
    let second = world.statement(7, 8, "node-6", Some(first.sequence()));
    let held = world.held(&key(7), "node-6");
    let statement = Some(first.as_bytes());
    let standing = member::connected(&world.hub, &key(7), &held, statement).await;
    let entry = eventually("it is known by both names", || {
        seen(&world.hub, &key(7).peer().to_string())
    });
    assert_eq!(entry["formerly"], key(6).peer().to_string(), "{entry}");
    drop(standing);
    let why = present(&key(6), &world.held(&key(6), "node-6"), &address).await;
    assert!(why.unwrap_err().contains("continuity.superseded"));
    show(8, "node-6", second.as_bytes()).await.unwrap();
    let why = show(7, "node-6", first.as_bytes()).await.unwrap_err();
    assert!(why.contains("continuity.replayed"), "{why}");
    // The keys before the last ones are as given up as those.
    let why = present(&key(6), &world.held(&key(6), "node-6"), &address).await;
    assert!(why.unwrap_err().contains("continuity.superseded"));
    let honest = key(7).peer().to_string();
    assert!(
        !on_record(&world.hub, &["charged", &honest]),
        "it is no misdeed"
    );
}

#[tokio::test]
async fn the_issuer_believes_the_old_keys_alone_and_each_statement_once() {
    let mut world = world();
    let (old, name) = (key(11), "node-11");
    let held = world.held(&old, name);
    let mut me = world.connected(&old, &held).await;
    // Signed by the new keys alone.
    let first = world.statement(11, 12, name, None);
    let answer = world.rotate(&mut me, &signed_by(&key(12), &first)).await;
    assert_eq!(refusal(&answer).0, RefusalCode::Invalid);
    world.charged(&old);
    // Of another subject; then the real one, twice, and with a crash of the issuer in between.
    let other = world.statement(11, 12, "node-99", None);
    let answer = world.rotate(&mut me, other.as_bytes()).await;
    assert_eq!(refusal(&answer).0, RefusalCode::Denied);
    let given = world.rotate(&mut me, first.as_bytes()).await;
    let Response::Rotated { chain, until } = &given else {
        panic!("{given:?}");
    };
    assert!(*until > world.now);
    let chain = Chain::decode(chain).unwrap();
    let claims = chain.credential().claims();
    assert_eq!(claims.keys, *key(12).public());
    assert_eq!(claims.subject.as_str(), name);
    assert_eq!(claims.attributes.as_map()["role"], "tester");
    assert_eq!(claims.groups.iter().count(), 1);
    assert_eq!(world.rotate(&mut me, first.as_bytes()).await, given);
    drop(me);
    world.hub.kill();
    world.hub.start();
    let mut me = world.connected(&old, &held).await;
    assert_eq!(world.rotate(&mut me, first.as_bytes()).await, given);
    // A later one takes its place; the first is a replay from then on.
    let second = world.statement(11, 13, name, Some(first.sequence()));
    let answer = world.rotate(&mut me, second.as_bytes()).await;
    assert!(matches!(answer, Response::Rotated { .. }), "{answer:?}");
    let answer = world.rotate(&mut me, first.as_bytes()).await;
    assert!(
        refusal(&answer).1.contains("rotation.replayed"),
        "{answer:?}"
    );
    // One was given up; after that it has to wait.
    let third = world.statement(11, 14, name, Some(second.sequence()));
    let answer = world.rotate(&mut me, third.as_bytes()).await;
    assert_eq!(refusal(&answer).0, RefusalCode::TooEarly, "{answer:?}");
    // The old keys are given up: they are not renewed.
    let subject = quantraband::identity::Name::try_new(name).unwrap();
    let request = quantraband::identity::SigningRequest::seal(
        &old,
        &subject,
        &Default::default(),
        SystemClock::new().now(),
    );
    let answer = member::ask(&world.hub, &mut me, Request::Enrol { request }).await;
    assert!(refusal(&answer).1.contains("renewal.rotated"), "{answer:?}");

    // A thief of the statement has no connection of the old keys.
    let thief = key(14);
    let mut thieves = world.connected(&thief, &world.held(&thief, name)).await;
    let stolen = world.statement(11, 15, name, Some(second.sequence()));
    let answer = world.rotate(&mut thieves, stolen.as_bytes()).await;
    assert_eq!(refusal(&answer).0, RefusalCode::Invalid);
    world.charged(&thief);
}
