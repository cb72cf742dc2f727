//! Keys encrypted at rest, by the real program: a node starts with its secret and not without, and
//! nothing secret is in its log or could be in a core file.
#![cfg(test)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use common::{BINARY, Node, eventually};
use tempfile::TempDir;

fn key(node: &Node) -> String {
    fs::read_to_string(node.dir.join("data/node.key")).unwrap()
}

/// The seeds of an open key file, as it writes them.
fn seeds(text: &str) -> Vec<String> {
    let seeds: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
        .collect();
    assert_eq!(seeds.len(), 3, "three keys");
    seeds
}

#[test]
fn a_node_starts_with_the_file_that_its_key_is_sealed_with_and_not_without() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "log.level = \"trace\"");
    let (peer, secrets) = (node.peer_id(), seeds(&key(&node)));
    let secret = root.path().join("wrap.key");
    let with = format!("file:{}", secret.display());
    let said = node.must(&["identity", "protect", "--with", &with]);
    assert!(said.contains("none") && said.contains(&with), "{said}");
    let sealed = key(&node);
    assert!(
        secrets.iter().all(|seed| !sealed.contains(seed)),
        "{sealed}"
    );
    assert_eq!(node.peer_id(), peer, "the same key");
    node.start();
    node.stop();
    let log = node.log();
    assert!(secrets.iter().all(|seed| !log.contains(seed)));
    assert!(!log.contains(fs::read_to_string(&secret).unwrap().trim()));

    // Another secret, one that others may read, none.
    let good = fs::read(&secret).unwrap();
    fs::write(&secret, [b'x'; 64]).unwrap();
    let refused = |node: &Node, code: i32, words: &str| {
        let output = node.cli(&["identity", "show"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    };
    refused(&node, 77, "does not open with this secret");
    fs::write(&secret, &good).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&node, 77, "chmod 600");
    fs::remove_file(&secret).unwrap();
    refused(&node, 77, "wrap.key");
    node.spawn();
    assert_ne!(node.wait_exit().code(), Some(0));
    assert_eq!(key(&node), sealed, "nothing was changed");
}

#[test]
fn a_passphrase_comes_from_a_file_or_from_a_person() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let peer = node.peer_id();
    let file = root.path().join("passphrase");
    let command = |args: &[&str], passphrase: Option<&str>| {
        let mut command = Command::new(BINARY);
        command
            .current_dir(&node.dir)
            .args(["--config", "node.toml"])
            .args(args)
            .env_remove("QUANTRABAND_PASSPHRASE_FILE")
            .stdin(std::process::Stdio::null());
        if let Some(text) = passphrase {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            command.env("QUANTRABAND_PASSPHRASE_FILE", &file);
        }
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let protect: &[&str] = &["identity", "protect", "--with", "passphrase"];
    let (code, said) = command(protect, Some("too short\n"));
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("15 characters"), "{said}");
    let (code, said) = command(protect, Some("correct horse battery staple\n"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = command(&["identity", "show"], Some("correct horse battery staple"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&peer), "{said}");
    let (code, said) = command(&["identity", "show"], Some("correct horse battery stable"));
    assert_eq!(code, Some(77), "{said}");
    // Nobody is at the terminal.
    let (code, said) = command(&["identity", "show"], None);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("QUANTRABAND_PASSPHRASE_FILE"), "{said}");
    // And back.
    let open: &[&str] = &["identity", "protect", "--with", "none"];
    let (code, said) = command(open, Some("correct horse battery staple"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(node.peer_id(), peer);
}

#[test]
fn the_service_manager_hands_the_secret_over() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let peer = node.peer_id();
    let credentials = root.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let credential = credentials.join("node-key");
    fs::write(&credential, [7; 32]).unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    let run = |args: &[&str], credentials: Option<&std::path::Path>| {
        let mut command = Command::new(BINARY);
        command
            .current_dir(&node.dir)
            .args(["--config", "node.toml"])
            .args(args);
        match credentials {
            Some(folder) => command.env("CREDENTIALS_DIRECTORY", folder),
            None => command.env_remove("CREDENTIALS_DIRECTORY"),
        };
        command.output().unwrap()
    };
    let protect = ["identity", "protect", "--with", "systemd:node-key"];
    assert!(run(&protect, Some(&credentials)).status.success());
    let shown = run(&["identity", "show"], Some(&credentials));
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&peer));
    let without = run(&["identity", "show"], None);
    assert_eq!(without.status.code(), Some(77));
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(said.contains("LoadCredentialEncrypted=node-key"), "{said}");
}

#[test]
fn a_running_node_leaves_no_core_file() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    let pid = node.json(&["status"])["pid"].as_u64().unwrap();
    let limits = eventually("its limits are read", || {
        fs::read_to_string(format!("/proc/{pid}/limits")).ok()
    });
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core:?}");
}
