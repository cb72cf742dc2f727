//! A forged credential is refused before any protocol handler, audited, and charged to the right
//! party: to the key that presented it, never to the one it names.
//!
//! The forger is a libp2p node that speaks the gate's protocol perfectly and accepts everybody;
//! only its credential is wrong, in one way at a time.
#![cfg(test)]

mod common;

use ciborium::Value;
use common::{
    Issuer, Node, eventually,
    peer::{credential, present, present_by},
};
use quantraband::{
    identity::{
        ISSUER_KEY_FILE, IdentityPaths, IssuerKey, Name, NodeKey, state, verify_credential,
    },
    types::{Clock, PeerId, SystemClock, Timestamp},
};
use tempfile::TempDir;

/// The parts of a COSE_Sign message.
struct Cose {
    tag: u64,
    parts: Vec<Value>,
}

impl Cose {
    fn open(bytes: &[u8]) -> Self {
        match ciborium::from_reader(bytes).expect("CBOR") {
            Value::Tag(tag, inner) => Self {
                tag,
                parts: inner.into_array().expect("an array"),
            },
            other => panic!("not a tagged message: {other:?}"),
        }
    }

    fn claims(&self) -> Vec<(Value, Value)> {
        let payload = self.parts[2].as_bytes().expect("a payload");
        let claims: Value = ciborium::from_reader(payload.as_slice()).expect("CBOR");
        claims.into_map().expect("a map of claims")
    }

    fn set_claims(&mut self, claims: Vec<(Value, Value)>) {
        let mut payload = Vec::new();
        ciborium::into_writer(&Value::Map(claims), &mut payload).expect("CBOR");
        self.parts[2] = Value::Bytes(payload);
    }

    fn signatures(&mut self) -> &mut Vec<Value> {
        self.parts[3].as_array_mut().expect("signatures")
    }

    /// The Ed25519 signature (0) or the ML-DSA one (1).
    fn signature(&mut self, which: usize) -> &mut Vec<u8> {
        let one = self.signatures()[which].as_array_mut();
        one.expect("a signature")[2].as_bytes_mut().expect("bytes")
    }

    fn close(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let message = Value::Tag(self.tag, Box::new(Value::Array(self.parts)));
        ciborium::into_writer(&message, &mut bytes).expect("CBOR");
        bytes
    }
}

/// Changes the first leaf of a value, keeping its kind and its length.
fn tweak(value: &mut Value) {
    match value {
        Value::Integer(number) => {
            *number = (i128::from(*number) + 1)
                .try_into()
                .expect("still in range");
        }
        Value::Text(text) => {
            let last = text.pop().expect("not empty");
            text.push(if last == 'x' { 'y' } else { 'x' });
        }
        Value::Bytes(bytes) => *bytes.last_mut().expect("not empty") ^= 1,
        Value::Array(items) => tweak(items.last_mut().expect("not empty")),
        Value::Map(entries) => tweak(&mut entries.last_mut().expect("not empty").1),
        other => panic!("no tweak for {other:?}"),
    }
}

struct Scene {
    node: Node,
    /// A member whose credential is stolen; it never connects itself.
    victim: PeerId,
    forger: NodeKey,
    good: Vec<u8>,
    stolen: Vec<u8>,
    issuer: IssuerKey,
    _root: TempDir,
}

fn scene() -> Scene {
    let root = TempDir::new().unwrap();
    let acme = Issuer::init(root.path(), "acme");
    // No ban before the last forgery: what is looked at is each refusal by itself.
    let mut node = Node::init(root.path(), "node", "reputation.bad_credential = 0.001");
    node.enrol(&acme);
    node.start();
    let issuer = IssuerKey::load(&acme.dir.join(ISSUER_KEY_FILE)).unwrap();
    let now = SystemClock::new().now();
    let (forger, other) = (NodeKey::from_seed(&[41; 32]), NodeKey::from_seed(&[42; 32]));
    Scene {
        good: credential(&issuer, &forger, "forger", now),
        stolen: credential(&issuer, &other, "victim", now),
        victim: other.peer(),
        forger,
        node,
        issuer,
        _root: root,
    }
}

impl Scene {
    /// Presents `bytes`, expects a refusal with this code on both ends, and no connection.
    async fn refused(&self, what: &str, bytes: &[u8], code: &str, charged: bool) {
        let before = self.records(code);
        let charges = self.charges();
        let outcome = present(&self.forger, bytes, &self.node.address()).await;
        let said = outcome.expect_err(what);
        eventually(
            &format!("{what} is on record as {code} (the forger heard: {said})"),
            || (self.records(code) > before).then_some(()),
        );
        assert!(
            !self.node.peers().contains(&self.forger.peer().to_string()),
            "{what}"
        );
        if charged {
            eventually(&format!("{what} is charged"), || {
                (self.charges() > charges).then_some(())
            });
        }
    }

    /// Refusals on record with this code: of the forger's key one by one, and in sums where there
    /// were too many in an interval. Nobody else is refused here.
    fn records(&self, code: &str) -> usize {
        let in_sums = |r: &serde_json::Value| {
            let sum = r["unmapped"]["event"] == "connections_refused" && r["status_code"] == code;
            sum.then(|| r["count"].as_u64().unwrap())
        };
        let sums: u64 = self.node.audit().iter().filter_map(in_sums).sum();
        self.singly(code) + usize::try_from(sums).unwrap()
    }

    fn singly(&self, code: &str) -> usize {
        let who = self.forger.peer().to_string();
        let quoted = format!("\"{code}\"");
        let matching = |r: &serde_json::Value| {
            let text = r.to_string();
            r["class_uid"] == 3002 && text.contains(&who) && text.contains(&quoted)
        };
        self.node.audit().iter().filter(|r| matching(r)).count()
    }

    fn charges(&self) -> usize {
        let who = self.forger.peer().to_string();
        let is_charge = |text: &str| text.contains("bad_credential") && text.contains(&who);
        self.node
            .audit()
            .iter()
            .filter(|r| is_charge(&r.to_string()))
            .count()
    }
}

#[tokio::test]
async fn each_field_changed_in_turn_is_refused_audited_and_charged() {
    let scene = scene();
    let claims = Cose::open(&scene.good).claims();
    assert!(
        claims.len() >= 11,
        "the claims are all looked at: {claims:?}"
    );
    // Private-use claims (attributes, groups, required algorithms) first.
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|i| i128::from(claims[*i].0.as_integer().expect("integer keys")));
    for i in order {
        let key = i128::from(claims[i].0.as_integer().unwrap());
        let mut forged = Cose::open(&scene.good);
        let mut claims = claims.clone();
        tweak(&mut claims[i].1);
        forged.set_claims(claims);
        // Another issuer's name is not known; whatever else changes breaks the signature, a form
        // rule, or the binding to the key.
        let before: Vec<usize> = CODES.iter().map(|c| scene.records(c)).collect();
        let outcome = present(&scene.forger, &forged.close(), &scene.node.address()).await;
        assert!(outcome.is_err(), "claim {key} changed and let in");
        eventually(&format!("the change of claim {key} is on record"), || {
            CODES
                .iter()
                .zip(&before)
                .any(|(c, n)| scene.records(c) > *n)
                .then_some(())
        });
    }
    assert!(scene.charges() > 0, "forgeries are charged to the forger");
    let bans = scene.node.json(&["peers", "bans"]);
    assert_eq!(bans["bans"].as_array().unwrap().len(), 0);
    let victims = scene.node.audit();
    let victim = scene.victim.to_string();
    assert!(
        !victims.iter().any(|r| r.to_string().contains(&victim)),
        "nobody else is named"
    );
}

/// Refusals a changed claim may lead to.
const CODES: [&str; 5] = [
    "malformed",
    "signature",
    "wrong_key",
    "unknown_issuer",
    "denied",
];

#[tokio::test]
async fn wrong_signatures_are_charged() {
    let scene = scene();
    for (which, length) in [
        (0, 63_usize),
        (0, 65),
        (0, 0),
        (1, 3308),
        (1, 3310),
        (1, 64),
    ] {
        let mut forged = Cose::open(&scene.good);
        forged.signature(which).resize(length, 7);
        let bytes = forged.close();
        let code = if scene_code(&bytes, &scene) == "malformed" {
            "malformed"
        } else {
            "signature"
        };
        scene
            .refused(
                &format!("a signature of {length} bytes"),
                &bytes,
                code,
                true,
            )
            .await;
    }
    for which in [0, 1] {
        let mut forged = Cose::open(&scene.good);
        forged.signature(which)[10] ^= 1;
        let what = format!("a flipped bit in signature {which}");
        scene
            .refused(&what, &forged.close(), "signature", true)
            .await;
        // Either signature cut away: the other alone is not enough.
        let mut forged = Cose::open(&scene.good);
        forged.signatures().remove(which);
        let what = format!("signature {which} stripped");
        scene
            .refused(&what, &forged.close(), "signature", true)
            .await;
    }
}

/// On a node of their own: after ten of a reason, charges are on record in sums.
#[tokio::test]
async fn swapped_signatures_and_stolen_credentials_are_charged() {
    let scene = scene();
    let mut forged = Cose::open(&scene.good);
    forged.signatures().reverse();
    scene
        .refused("the signatures swapped", &forged.close(), "signature", true)
        .await;
    scene
        .refused(
            "another peer's credential",
            &scene.stolen,
            "wrong_key",
            true,
        )
        .await;
}

/// The Ed25519 key was taken over, the credential copied: without the ML-DSA key they are worth
/// nothing.
#[tokio::test]
async fn a_good_credential_without_its_ml_dsa_key_is_refused_and_charged() {
    let scene = scene();
    let (charges, address) = (scene.charges(), scene.node.address());
    let thief = NodeKey::from_seed(&[43; 32]);
    let outcome = present_by(&scene.forger, &thief, &scene.good, &address).await;
    outcome.expect_err("no proof of possession");
    eventually("it is on record", || {
        (scene.records("possession") > 0).then_some(())
    });
    eventually("it is charged", || {
        (scene.charges() > charges).then_some(())
    });
    present(&scene.forger, &scene.good, &address)
        .await
        .expect("with the right key");
}

#[tokio::test]
async fn what_lapsed_or_is_unknown_here_is_refused_and_not_charged() {
    let scene = scene();
    let charges = scene.charges();
    let now = SystemClock::new().now();
    let long_ago = Timestamp::from_secs(now.secs() - 2 * 3600);
    let expired = credential(&scene.issuer, &scene.forger, "forger", long_ago);
    scene
        .refused("an expired credential", &expired, "expired", false)
        .await;
    let stranger = IssuerKey::from_seed(Name::try_new("stranger").unwrap(), &[9; 32]);
    let unknown = credential(&stranger, &scene.forger, "forger", now);
    scene
        .refused("an unknown issuer", &unknown, "unknown_issuer", false)
        .await;
    assert_eq!(
        scene.charges(),
        charges,
        "what lapsed or is unknown here is no misdeed"
    );
    // A namesake of the trusted issuer, with a key of its own.
    let namesake = IssuerKey::from_seed(Name::try_new("acme").unwrap(), &[9; 32]);
    let forged = credential(&namesake, &scene.forger, "forger", now);
    scene
        .refused("a namesake of the issuer", &forged, "signature", true)
        .await;

    // The defence does not refuse everything: the untouched credential is let in.
    present(&scene.forger, &scene.good, &scene.node.address())
        .await
        .expect("a good credential");
    scene.node.verify_log();
}

/// What this node's own verification says, to know whether form or signature is named first.
fn scene_code(bytes: &[u8], scene: &Scene) -> &'static str {
    let anchors = state::load_anchors(&IdentityPaths::new(scene.node.dir.join("data"))).unwrap();
    let now = SystemClock::new().now();
    verify_credential(bytes, scene.forger.peer(), &anchors, now)
        .expect_err("forged")
        .code()
}
