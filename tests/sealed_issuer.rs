//! An issuer's key that is sealed at rest: a node issues from it, new machines join, and the key is
//! written nowhere in the open.
#![cfg(test)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use common::{Issuer, Node, eventually, records::seen};
use tempfile::TempDir;

const PASSPHRASE: &str = "QUANTRABAND_PASSPHRASE_FILE";

/// The seeds of an open key file.
fn seeds(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let seeds = text.lines().filter_map(|line| line.split_once(' '));
    let seeds: Vec<_> = seeds.map(|(_, seed)| seed.to_owned()).collect();
    assert_eq!(seeds.len(), 2, "two keys");
    seeds
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(files(&entry.path())),
            kind if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
    all
}

fn assert_nowhere_open(root: &Path, seeds: &[String]) {
    for file in files(root) {
        // One that is there for a moment alone was not written by who is asked here.
        let Ok(bytes) = fs::read(&file) else { continue };
        for seed in seeds {
            let raw = hex::decode(seed).unwrap();
            for secret in [seed.as_bytes(), &raw] {
                let open = bytes.windows(secret.len()).any(|part| part == secret);
                assert!(!open, "{} holds the issuer's key", file.display());
            }
        }
    }
}

/// Seals the issuer's key, enrols the hub and a new machine by it, and looks for the key.
fn issues_when_sealed(root: &Path, with: &str, env: Vec<(&'static str, PathBuf)>) {
    let issuer = Issuer::init(root, "acme");
    let path = issuer.dir.join("issuer.key");
    let seeds = seeds(&path);
    let extra = format!("log.level = \"trace\"\nissuer.dir = {:?}", issuer.dir);
    let mut hub = Node::init(root, "hub", &extra);
    hub.env = env;
    let dir = issuer.dir.to_str().unwrap();
    hub.must(&["identity", "protect", "--issuer", dir, "--with", with]);
    let sealed = fs::read(&path).unwrap();
    assert!(sealed.starts_with(b"quantraband-sealed-key-v1\n"));
    // The command issues with it, and so does the node.
    hub.enrol(&issuer);
    hub.start();
    let invite = ["invite", "--subject", "node-9", "--group", "workers"];
    let token = hub.json(&invite)["token"].as_str().unwrap().to_owned();
    let mut node = Node::init(root, "node-9", "");
    node.must(&["join", &token, "--dir", node.dir.to_str().unwrap()]);
    node.configure(&[hub.address()], "");
    node.start();
    let entry = eventually("the hub sees it", || seen(&hub, &node.peer_id()));
    assert_eq!(entry["tier"], "member", "{entry}");
    assert_eq!(entry["identity"], "acme/node-9", "{entry}");
    // It takes back what it gave: the list is signed with the same key.
    let credential = node.dir.join("data/identity/credential.cose");
    let given = ["--credential", credential.to_str().unwrap()];
    hub.must(&[&["identity", "revoke", "--issuer", dir], &given[..]].concat());
    assert_nowhere_open(root, &seeds);
    assert_eq!(fs::read(&path).unwrap(), sealed, "it is as it was");

    // Without the secret the node does not start, and says why.
    hub.stop();
    hub.env.clear();
    let secret = root.join("secret");
    fs::remove_file(&secret).unwrap();
    hub.spawn();
    assert_ne!(hub.wait_exit().code(), Some(0));
    assert!(hub.log().contains("issuer.key"), "{}", hub.log());
    assert_nowhere_open(root, &seeds);
}

#[test]
fn a_machine_joins_an_issuer_whose_key_is_sealed_with_a_file() {
    let root = TempDir::new().unwrap();
    let with = format!("file:{}", root.path().join("secret").display());
    issues_when_sealed(root.path(), &with, Vec::new());
}

#[test]
fn a_machine_joins_an_issuer_whose_key_is_sealed_with_a_passphrase() {
    let root = TempDir::new().unwrap();
    let secret = root.path().join("secret");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    issues_when_sealed(root.path(), "passphrase", vec![(PASSPHRASE, secret)]);
}
