//! Bad input from an operator or a disk: a clear error that says what and where, the right exit
//! code, and nothing lost.
#![cfg(test)]

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Output};

use common::{Node, eventually, run_in};
use tempfile::TempDir;

fn says(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
}

fn run(node: &Node) -> Output {
    node.cli(&["run"])
}

#[test]
fn broken_toml_names_file_and_line() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    fs::write(node.dir.join("node.toml"), "version = 1\n[network\n").unwrap();
    says(&run(&node), 78, &["node.toml", ":2"]);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    fs::write(
        node.dir.join("node.toml"),
        "version = 1\n[limits]\nconections = 3\n",
    )
    .unwrap();
    says(
        &run(&node),
        78,
        &["node.toml", ":3", "conections", "connections"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let taken = TcpListener::bind(("127.0.0.1", node.port)).unwrap();
    says(&run(&node), 69, &[&node.port.to_string(), "in use"]);
    drop(taken);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let http = taken.local_addr().unwrap();
    let config = fs::read_to_string(node.dir.join("node.toml")).unwrap();
    let config = config.replace("127.0.0.1:0", &http.to_string());
    fs::write(node.dir.join("node.toml"), config).unwrap();
    says(&run(&node), 69, &["admin.http", &http.to_string()]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    // A file where the directory should be: refused for root too, whom modes do not stop.
    fs::rename(node.dir.join("data"), node.dir.join("kept")).unwrap();
    fs::write(node.dir.join("data"), "not a directory").unwrap();
    says(&run(&node), 73, &["data"]);
    assert_eq!(
        fs::read_to_string(node.dir.join("data")).unwrap(),
        "not a directory"
    );
}

#[test]
fn a_key_file_others_may_read_is_refused_with_the_remedy() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let key = node.dir.join("data/node.key");
    let before = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    says(&run(&node), 77, &["node.key", "chmod 600"]);
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn a_key_file_with_other_content_is_refused_and_kept() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let key = node.dir.join("data/node.key");
    fs::write(&key, "this is no key\n").unwrap();
    says(&run(&node), 65, &["node.key"]);
    assert_eq!(fs::read_to_string(&key).unwrap(), "this is no key\n");
}

#[test]
fn a_second_init_overwrites_nothing() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let (key, toml) = (node.dir.join("data/node.key"), node.dir.join("node.toml"));
    let before = (fs::read(&key).unwrap(), fs::read(&toml).unwrap());
    let again = run_in(root.path(), &["init", "--dir", "node"]);
    assert_eq!((fs::read(&key).unwrap(), fs::read(&toml).unwrap()), before);
    let said = String::from_utf8_lossy(&again.stderr).to_string()
        + &String::from_utf8_lossy(&again.stdout);
    assert!(
        said.contains("node.key") || said.contains("node.toml"),
        "{said}"
    );
}

#[test]
fn a_second_node_on_the_same_data_directory_is_refused() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    says(&run(&node), 75, &["data", "another node"]);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_corrupt_store_is_set_aside_aloud_and_bans_come_back_from_the_log() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    node.must(&[
        "peers",
        "ban",
        "198.51.100.7",
        "--for",
        "1h",
        "--reason",
        "kept",
    ]);
    assert_eq!(node.stop().code(), Some(0));
    let state = node.dir.join("data/state");
    let mut spoiled = 0;
    for file in fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
    {
        let mut bytes = fs::read(&file).unwrap();
        bytes.iter_mut().for_each(|b| *b = !*b);
        fs::write(&file, bytes).unwrap();
        spoiled += 1;
    }
    assert!(spoiled > 0, "the store has files");
    node.start();
    assert!(node.log().contains("set aside"), "{}", node.log());
    let names = fs::read_dir(node.dir.join("data")).unwrap();
    let kept = names.filter_map(|e| e.ok()?.file_name().into_string().ok());
    assert!(
        kept.into_iter().any(|n| n.starts_with("state.corrupt-")),
        "the old files are kept"
    );
    let bans = node.json(&["peers", "bans"]);
    assert_eq!(
        bans["bans"][0]["party"]["address"], "198.51.100.7",
        "{bans}"
    );
    assert!(
        node.audit()
            .iter()
            .any(|r| r.to_string().contains("state.corrupt-"))
    );
    assert_eq!(node.stop().code(), Some(0));
    node.verify_log();
}

#[test]
fn bans_come_back_from_the_log_when_the_store_is_gone_altogether() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    node.must(&[
        "peers",
        "ban",
        "198.51.100.7",
        "--for",
        "1h",
        "--reason",
        "kept",
    ]);
    // The ban is durable when it is acknowledged; its record, from which it comes back, follows.
    eventually("the ban is on record", || {
        let text = serde_json::to_string(&node.audit()).unwrap();
        text.contains("198.51.100.7").then_some(())
    });
    node.kill();
    fs::remove_dir_all(node.dir.join("data/state")).unwrap();
    node.start();
    let bans = node.json(&["peers", "bans"]);
    assert_eq!(
        bans["bans"][0]["party"]["address"], "198.51.100.7",
        "{bans}"
    );
}

#[test]
fn a_damaged_log_is_found_and_a_torn_tail_is_said_but_forgiven() {
    let root = TempDir::new().unwrap();
    let mut node = Node::init(root.path(), "node", "");
    node.start();
    node.must(&[
        "peers",
        "ban",
        "198.51.100.7",
        "--for",
        "1h",
        "--reason",
        "x",
    ]);
    // The ban is durable when it is acknowledged; its record follows.
    eventually("the ban is on record", || {
        let text = serde_json::to_string(&node.audit()).unwrap();
        text.contains("198.51.100.7").then_some(())
    });
    node.kill();
    let segment = node.dir.join("data/audit/00000001.jsonl");
    let whole = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, format!("{whole}{{\"torn\":")).unwrap();
    let said = node.must(&["audit", "verify"]);
    assert!(said.contains("torn"), "{said}");
    node.start();
    assert_eq!(node.stop().code(), Some(0));
    node.verify_log();
    let spoiled = fs::read_to_string(&segment)
        .unwrap()
        .replace("198.51.100.7", "198.51.100.8");
    fs::write(&segment, spoiled).unwrap();
    let found = node.cli(&["audit", "verify"]);
    assert_eq!(found.status.code(), Some(65), "{found:?}");
    let said = String::from_utf8_lossy(&found.stdout).to_string();
    assert!(said.contains("00000001.jsonl"), "{said}");
    let dir = node.dir.join("data/audit");
    let offline = run_in(
        root.path(),
        &["audit", "verify", "--dir", dir.to_str().unwrap()],
    );
    assert_eq!(offline.status.code(), Some(65));
    // The node does not go on writing behind a log that was tampered with.
    says(&run(&node), 65, &["00000001.jsonl"]);
}

#[test]
fn a_node_does_not_start_where_session_secrets_would_be_written_down() {
    let root = TempDir::new().unwrap();
    let node = Node::init(root.path(), "node", "");
    let secrets = root.path().join("secrets");
    let output = std::process::Command::new(common::BINARY)
        .args(["run", "--config"])
        .arg(node.dir.join("node.toml"))
        .env("SSLKEYLOGFILE", &secrets)
        .output()
        .unwrap();
    says(&output, 78, &["SSLKEYLOGFILE", "unset"]);
    assert!(!secrets.exists());
}
