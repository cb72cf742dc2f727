//! The wire and disk formats of identity, frozen: one byte that changes fails here until somebody
//! changes the fixture on purpose (`QUANTRABAND_BLESS=1 cargo test --test identity_format`) and
//! raises the version.
#![cfg(test)]

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use quantraband::{
    identity::{
        Anchor, Attributes, Credential, Frame, Grant, Grants, Groups, IssuerKey, Name, NodeKey,
        SigningRequest, TrustAnchor, TrustAnchors, issue, verify_frame,
    },
    types::Timestamp,
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
    issue(&acme(), &request, &grant, [0x1d; 16], NOW).unwrap()
}

fn entry() -> TrustAnchor {
    let anchor = Anchor::open(&Anchor::seal(&acme(), NOW)).unwrap();
    TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants: Grants::default(),
    }
}

/// Compares with a committed fixture, byte for byte.
fn frozen(file: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/identity")
        .join(file);
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read(&path).unwrap();
    assert_eq!(
        hex::encode(&kept),
        hex::encode(made),
        "{file}: the format changed; old nodes will not read it"
    );
    kept
}

#[test]
fn the_request_is_frozen() {
    let kept = frozen("request.cose", &request());
    assert_eq!(SigningRequest::open(&kept).unwrap().peer, node().peer());
}

#[test]
fn the_credential_is_frozen() {
    let kept = frozen("credential.cose", credential().as_bytes());
    assert_eq!(Credential::decode(&kept).unwrap(), credential());
}

#[test]
fn the_anchor_is_frozen() {
    let kept = frozen("acme.anchor.cose", &Anchor::seal(&acme(), NOW));
    assert_eq!(Anchor::open(&kept).unwrap().key, acme().public());
}

#[test]
fn the_gate_frame_is_frozen_and_verifies() {
    let kept = frozen(
        "frame.cbor",
        &Frame::of(Some(credential().as_bytes())).encode(),
    );
    let mut anchors = TrustAnchors::default();
    anchors.add(entry()).unwrap();
    let identity = verify_frame(&kept, node().peer(), &anchors, NOW).unwrap();
    assert_eq!(identity.groups, ["acme/gateways", "acme/workers"]);
    frozen("empty-frame.cbor", &Frame::of(None).encode());
}

#[test]
fn the_trust_entry_is_frozen() {
    let kept = frozen("acme.entry.toml", entry().to_text().as_bytes());
    let text = String::from_utf8(kept).unwrap();
    assert_eq!(TrustAnchor::from_text(&text).unwrap(), entry());
}

#[test]
fn the_node_key_file_is_frozen() {
    use std::os::unix::fs::OpenOptionsExt;
    let text = format!("quantraband-node-key-v1\n{}\n", "4e".repeat(32));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    assert_eq!(NodeKey::load(&path).unwrap().peer(), node().peer());
    let made = dir.path().join("made.key");
    let key = NodeKey::create(&made).unwrap();
    assert_eq!(
        fs::read_to_string(&made).unwrap(),
        format!("quantraband-node-key-v1\n{}\n", hex::encode(*key.seed()))
    );
}
