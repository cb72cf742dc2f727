//! The wire and disk formats of identity, frozen: one byte that changes fails here until somebody
//! changes the fixture on purpose (`QUANTRABAND_BLESS=1 cargo test --test identity_format`) and
//! raises the version.
#![cfg(test)]

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use quantraband::{
    identity::{
        Anchor, Attributes, BINDING_BYTES, Binding, Chain, Channel, Continuity, Credential,
        Delegation, Frame, Grant, Grants, Groups, IssuerKey, ML_DSA_SIGNATURE_BYTES, Name, NodeKey,
        Role, Scope, Serial, SigningRequest, TrustAnchor, TrustAnchors, delegate, issue,
        status::{Statement, StatusHead, StatusList},
        verify_credential, verify_delegations, verify_frame,
        wire::{Request, Response},
    },
    types::{Span, Timestamp},
};

/// 2026-11-24T00:00:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

fn node() -> NodeKey {
    NodeKey::from_seed(&[0x4e; 32])
}

fn acme() -> IssuerKey {
    IssuerKey::from_seed(name("acme"), &[0x49; 32])
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let map: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Attributes::try_new(map).unwrap()
}

fn request() -> Vec<u8> {
    SigningRequest::seal(
        &node(),
        &name("node-1"),
        &attributes(&[("region", "eu")]),
        NOW,
    )
}

fn credential() -> Credential {
    let grant = Grant {
        subject: Some(name("node-1.berlin")),
        groups: Groups::try_new(["workers", "gateways"].map(name)).unwrap(),
        attributes: attributes(&[("region", "eu"), ("hardware-class", "edge")]),
        lifetime: Duration::from_hours(24 * 30),
    };
    let request = SigningRequest::open(&request()).unwrap();
    issue(&acme(), &request, &grant, serial(1), NOW).unwrap()
}

fn serial(index: u32) -> Serial {
    Serial {
        id: [0x1d; 16],
        index,
    }
}

fn entry() -> TrustAnchor {
    let anchor = Anchor::open(&Anchor::seal(&acme(), NOW)).unwrap();
    TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants: Grants::default(),
    }
}

/// The node's channel to a listener, as far as the frame's proof is concerned.
fn channel() -> Channel {
    Channel {
        opener: node().peer(),
        listener: NodeKey::from_seed(&[0x4c; 32]).peer(),
        binding: Binding::Exporter([0x42; BINDING_BYTES]),
    }
}

fn anchors() -> TrustAnchors {
    let mut anchors = TrustAnchors::default();
    anchors.add(entry()).unwrap();
    anchors
}

/// The bytes of a document but for its ML-DSA signatures, which are never the same twice: each is
/// the end of what has the right length, so zeroes take its place.
fn without_ml_dsa(bytes: &[u8]) -> Vec<u8> {
    // bstr of 3309 bytes: 59 0c ed.
    let head = [0x59, 0x0c, 0xed];
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at + head.len() + ML_DSA_SIGNATURE_BYTES <= out.len() {
        if out[at..].starts_with(&head) {
            let from = at + head.len();
            out[from..from + ML_DSA_SIGNATURE_BYTES].fill(0);
            at = from + ML_DSA_SIGNATURE_BYTES;
        } else {
            at += 1;
        }
    }
    out
}

/// Compares with a committed fixture, byte for byte, ML-DSA signatures aside; returns the fixture,
/// whose own signatures the caller verifies.
fn frozen(file: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/identity")
        .join(file);
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read(&path).unwrap();
    assert_eq!(
        hex::encode(without_ml_dsa(&kept)),
        hex::encode(without_ml_dsa(made)),
        "{file}: the format changed; old nodes will not read it"
    );
    kept
}

#[test]
fn the_request_is_frozen() {
    let kept = frozen("request.cose", &request());
    assert_eq!(SigningRequest::open(&kept).unwrap().keys, *node().public());
}

#[test]
fn the_credential_is_frozen_and_verifies() {
    let kept = frozen("credential.cose", credential().as_bytes());
    let read = Credential::decode(&kept).unwrap();
    assert_eq!(read.claims(), credential().claims());
    verify_credential(&kept, node().peer(), &anchors(), NOW).unwrap();
}

#[test]
fn the_delegation_is_frozen_and_verifies() {
    let europe = IssuerKey::from_seed(name("acme.eu"), &[0x45; 32]);
    let anchor = Anchor::open(&Anchor::seal(&europe, NOW)).unwrap();
    let scope = Scope {
        groups: ["workers", "gate*"].map(|g| g.parse().unwrap()).into(),
        max_lifetime: Span(Duration::from_hours(24 * 30)),
        depth: 1,
    };
    let (lifetime, serial) = (Duration::from_hours(24 * 60), serial(2));
    let made = delegate((&acme(), &[]), &anchor, scope, lifetime, serial, NOW).unwrap();
    let kept = frozen("delegation.cose", made[0].as_bytes());
    let read = Delegation::decode(&kept).unwrap();
    assert_eq!(read.mandate(), made[0].mandate());
    verify_delegations(&name("acme.eu"), &[read], &anchors(), NOW).unwrap();
}

#[test]
fn the_status_list_is_frozen_and_verifies() {
    let mut bits = vec![0_u8; 128];
    bits[0] = 0b1000_0010;
    let hold = Duration::from_hours(24 * 8);
    let times = (NOW, NOW.after(hold), Timestamp::from_secs(1_795_000_000));
    let statement = Statement::about(name("acme"), 3, times, &bits);
    let head = StatusHead::sign(statement.clone(), acme().signer());
    let made = StatusList::try_new(head, bits, Vec::new()).unwrap();
    let kept = frozen("acme.status", &made.as_bytes());
    let read = StatusList::decode(&kept).unwrap();
    assert_eq!(*read.statement(), statement);
    assert!(read.is_set(1) && read.is_set(7) && read.revoked() == 2);
    read.verify(&anchors()).unwrap();
}

#[test]
fn the_identity_protocol_is_frozen() {
    let requests = [
        Request::Announce {
            heads: vec![vec![1, 2, 3], vec![4]],
        },
        Request::GetList {
            issuer: name("acme"),
            newer_than: 7,
        },
        Request::GetChains {
            credentials: vec![[5; 32], [6; 32]],
        },
    ];
    let responses = [
        Response::Heard,
        Response::NoList,
        Response::List(vec![1, 2, 3]),
        Response::Chains(vec![vec![4, 5], vec![6]]),
        Response::Later,
    ];
    let lines = |messages: Vec<Vec<u8>>| {
        let lines = messages.into_iter().map(|bytes| hex::encode(bytes) + "\n");
        lines.collect::<String>().into_bytes()
    };
    frozen(
        "request.hex",
        &lines(requests.iter().map(Request::encode).collect()),
    );
    frozen(
        "response.hex",
        &lines(responses.iter().map(Response::encode).collect()),
    );
}

#[test]
fn the_anchor_is_frozen() {
    let kept = frozen("acme.anchor.cose", &Anchor::seal(&acme(), NOW));
    assert_eq!(Anchor::open(&kept).unwrap().key, *acme().public());
}

#[test]
fn the_gate_frame_is_frozen_and_verifies() {
    let chain = Chain::of(credential());
    let made = Frame::of(&chain, &node(), &channel(), Role::Opener).encode();
    let kept = frozen("frame.cbor", &made);
    let peer = node().peer();
    let identity = verify_frame(&kept, peer, &channel(), Role::Opener, &anchors(), NOW).unwrap();
    assert_eq!(identity.groups, ["acme/gateways", "acme/workers"]);
    assert!(identity.pq_auth);
    frozen("empty-frame.cbor", &Frame::bare().encode());
}

/// The node before it changed its keys.
fn former() -> NodeKey {
    NodeKey::from_seed(&[0x4f; 32])
}

fn continuity() -> Continuity {
    let subject = name("node-1.berlin");
    let request = SigningRequest::seal(&former(), &subject, &Attributes::default(), NOW);
    let request = SigningRequest::open(&request).unwrap();
    let held = issue(&acme(), &request, &Grant::default(), serial(3), NOW).unwrap();
    Continuity::seal((&former(), &node()), &held, None, NOW).unwrap()
}

#[test]
fn the_continuity_statement_is_frozen_and_verifies() {
    let kept = frozen("continuity.cose", continuity().as_bytes());
    let read = Continuity::open(&kept).unwrap();
    assert_eq!(
        (read.former(), read.sequence()),
        (former().peer(), NOW.secs())
    );
    assert_eq!(read.new_keys(), node().public());
    let claims = credential().claims().clone();
    let names = (&claims.issuer, &claims.subject);
    read.leads_to(Some(&claims.keys), names).unwrap();
    // The frame of a node that shows it.
    let chain = Chain::of(credential());
    let statement = Some(continuity().as_bytes().to_vec());
    let made = Frame::of(&chain, &node(), &channel(), Role::Opener).with_continuity(statement);
    let kept = frozen("rotated-frame.cbor", &made.encode());
    let frame = Frame::decode(&kept).unwrap();
    Continuity::open(frame.continuity().unwrap()).unwrap();
    let peer = node().peer();
    verify_frame(&kept, peer, &channel(), Role::Opener, &anchors(), NOW).unwrap();
}

#[test]
fn the_trust_entry_is_frozen() {
    let kept = frozen("acme.entry.toml", entry().to_text().as_bytes());
    let text = String::from_utf8(kept).unwrap();
    assert_eq!(TrustAnchor::from_text(&text).unwrap(), entry());
}

#[test]
fn the_key_files_are_frozen() {
    use std::os::unix::fs::OpenOptionsExt;
    let (ed25519, ml_dsa, x_wing) = ("4e".repeat(32), "4f".repeat(32), "50".repeat(32));
    let keys = format!("ed25519 {ed25519}\nml-dsa-65 {ml_dsa}\n");
    let node_file = format!("quantraband-node-key-v2\n{keys}x-wing {x_wing}\n");
    let issuer_file = format!("quantraband-issuer-key-v2\nacme\n{keys}");
    let dir = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| {
        let path = dir.path().join(file);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
        path
    };
    let key = NodeKey::load(&put("node.key", &node_file)).unwrap();
    assert_eq!(key.peer(), node().peer());
    // The seeds are independent: each key comes from its own line alone.
    assert_ne!(key.public().ml_dsa, node().public().ml_dsa);
    let issuer = IssuerKey::load(&put("issuer.key", &issuer_file)).unwrap();
    assert_eq!(issuer.public(), key.signer().public());
    assert_eq!(*issuer.name(), name("acme"));
    let old = format!("quantraband-node-key-v1\n{ed25519}\n");
    let error = NodeKey::load(&put("old.key", &old))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("version 1") && error.contains("new key"),
        "{error}"
    );

    let made = dir.path().join("made.key");
    let key = NodeKey::create(&made).unwrap();
    let text = fs::read_to_string(&made).unwrap();
    let seeds: Vec<_> = text.lines().skip(1).collect();
    let [first, second, third] = <[&str; 3]>::try_from(seeds).unwrap();
    assert_eq!(first, format!("ed25519 {}", hex::encode(*key.seed())));
    assert!(second.starts_with("ml-dsa-65 ") && third.starts_with("x-wing "));
    assert_ne!(second[10..], third[7..], "independent seeds");
}
