//! What an issuer takes back ends everywhere, within seconds, and nothing is ever given back by an
//! old list; on real nodes.
#![cfg(test)]
#![expect(
    clippy::print_stdout,
    reason = "how long it took, and what was skipped"
)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use common::{Issuer, Node, connected_pair, eventually, guests};
use quantraband::types::{Clock, SystemClock};
use serde_json::Value;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Issuer {
    /// Signs the list again, and hands a copy of it out.
    fn refresh(&self, root: &Path, next_update: &str) -> PathBuf {
        let flags = ["--issuer", text(&self.dir), "--next-update", next_update];
        common::must(root, &[&["identity", "status"], &flags[..]].concat());
        self.copy()
    }

    /// Takes a credential back, and hands a copy of the list out.
    fn revoke(&self, root: &Path, credential: &Path) -> PathBuf {
        let flags = [
            "--issuer",
            text(&self.dir),
            "--credential",
            text(credential),
        ];
        common::must(root, &[&["identity", "revoke"], &flags[..]].concat());
        self.copy()
    }

    fn copy(&self) -> PathBuf {
        let list = self.dir.join(format!("{}.status", self.name));
        let bytes = fs::read(&list).unwrap();
        let copies = (0..).map(|n| self.dir.join(format!("copy-{n}.status")));
        let copy = copies.into_iter().find(|copy| !copy.exists()).unwrap();
        fs::write(&copy, bytes).unwrap();
        copy
    }
}

/// What a node says of an issuer's list.
fn list(node: &Node, issuer: &str) -> Option<Value> {
    node.try_json(&["status", "show", issuer])
}

fn wait_list(node: &Node, issuer: &Issuer, sequence: u64, state: &str) {
    eventually("the list is known", || {
        let known = list(node, &issuer.name)?;
        (known["list_sequence"] == sequence && known["state"] == state).then_some(())
    });
}

fn import(node: &Node, list: &Path) {
    node.must(&["status", "import", text(list)]);
}

fn records(node: &Node, event: &str) -> Vec<Value> {
    let mut all = node.audit();
    all.retain(|record| record["unmapped"]["event"] == event);
    all
}

/// The jobs a node runs for others.
fn running(node: &Node) -> Vec<Value> {
    let list = node.try_json(&["job", "list"]);
    let jobs = list.and_then(|list| list["jobs"].as_array().cloned());
    let mut jobs = jobs.unwrap_or_default();
    jobs.retain(|job| job["role"] == "executor");
    jobs
}

/// Five nodes of two issuers that know one another and both issuers' first lists; the last node is
/// the second issuer's.
fn five(root: &Path) -> (Vec<Node>, [Issuer; 2]) {
    let issuers = [Issuer::init(root, "acme"), Issuer::init(root, "globex")];
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..5 {
        let mut node = Node::init(root, &format!("node-{}", n + 1), "");
        let own = &issuers[usize::from(n >= 3)];
        node.enrol(own);
        for issuer in issuers.iter().filter(|issuer| issuer.name != own.name) {
            node.trust(issuer);
        }
        let known: Vec<String> = nodes.iter().map(Node::address).collect();
        node.configure(&known, "limits.exempt_networks = [\"127.0.0.0/8\"]");
        node.start();
        nodes.push(node);
    }
    let ids: Vec<String> = nodes.iter().map(Node::peer_id).collect();
    for (node, own) in nodes.iter().zip(&ids) {
        for id in ids.iter().filter(|id| *id != own) {
            node.wait_peer(id);
        }
    }
    for issuer in &issuers {
        import(&nodes[0], &issuer.refresh(root, "8d"));
    }
    for node in &nodes {
        for issuer in &issuers {
            wait_list(node, issuer, 1, "in_force");
        }
    }
    (nodes, issuers)
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story of five nodes, which cost most to start"
)]
fn revocation_ends_jobs_and_subscriptions_on_every_node_and_stays() {
    let root = TempDir::new().unwrap();
    let root = root.path();
    let (mut nodes, [acme, globex]) = five(root);
    let victim = nodes.pop().unwrap();
    let (who, credential) = (victim.peer_id(), victim.dir.join("node.credential"));

    // A job of a minute at each of the others, and a subscription that gets its messages.
    let module = victim.dir.join("sleeps.wasm");
    fs::write(&module, guests::sleeps()).unwrap();
    for node in &nodes {
        let peer = node.peer_id();
        let flags = ["--on", &peer, "--wall-clock", "60s", text(&module)];
        victim.must(&[&["job", "run", "--detach"], &flags[..]].concat());
    }
    for node in &nodes {
        eventually("the job runs", || {
            running(node)
                .iter()
                .any(|job| job["state"] == "running")
                .then_some(())
        });
    }
    let mut subscription = victim.subscribe("news", 2);
    for node in &nodes {
        eventually("the subscription is known", || {
            let peers = node.try_json(&["peers"])?;
            let peer = peers["peers"]
                .as_array()?
                .iter()
                .find(|p| p["peer_id"] == who)?
                .clone();
            peer["topics"]
                .as_array()?
                .iter()
                .any(|t| t == "news")
                .then_some(())
        });
    }
    nodes[0].must(&["publish", "news", "--data", "before"]);
    assert_eq!(subscription.next()["text"], "before");

    let taken_back = globex.revoke(root, &credential);
    let clock = SystemClock::new();
    import(&nodes[0], &taken_back);
    let mut slowest = Duration::ZERO;
    for node in &nodes {
        eventually("the revoked node is gone and its job has ended", || {
            let gone = !node.peers().contains(&who);
            let ended = running(node).iter().all(|job| job["state"] == "finished");
            (gone && ended).then_some(())
        });
        slowest = slowest.max(clock.elapsed());
    }
    println!("revocation took effect on all nodes within {slowest:?}");
    for node in &nodes {
        let jobs = running(node);
        assert_eq!(jobs.len(), 1);
        assert!(
            jobs[0]["outcome"].to_string().contains("policy"),
            "{}",
            jobs[0]
        );
        let accepted = records(node, "status_list_accepted");
        assert!(
            accepted
                .iter()
                .any(|r| r["unmapped"]["status_sequence"] == 2)
        );
    }
    // Its subscription gets nothing any more, and the others' do not suffer.
    let published = nodes[0].json(&["publish", "news", "--data", "after"]);
    assert_eq!(published["listeners"], 0);

    // It dials again, is refused in the gate under its name, and pays nothing for it.
    eventually("the revoked node is refused in the gate", || {
        let refused = nodes
            .iter()
            .flat_map(|node| records(node, "authentication_failed"));
        refused
            .into_iter()
            .find(|r| r["status_code"] == "revoked" && r["user"]["uid"] == who.as_str())
    });
    for node in &nodes {
        let charged = records(node, "charged");
        assert!(
            !charged.iter().any(|r| r.to_string().contains(&who)),
            "{charged:?}"
        );
    }

    // An old list is refused by name, also after the process was killed and began anew.
    let old = globex.dir.join("copy-0.status");
    for killed in [false, true] {
        if killed {
            nodes[1].kill();
            nodes[1].start();
        }
        let refused = nodes[1].cli(&["status", "import", text(&old)]);
        assert_eq!(refused.status.code(), Some(65), "{}", stderr(&refused));
        assert!(
            stderr(&refused).contains("sequence"),
            "{}",
            stderr(&refused)
        );
        wait_list(&nodes[1], &globex, 2, "in_force");
    }

    // One that was away learns what it missed from whom it meets.
    nodes[2].stop();
    import(&nodes[0], &acme.refresh(root, "8d"));
    nodes[2].start();
    wait_list(&nodes[2], &acme, 2, "in_force");
    for node in &nodes {
        node.verify_log();
    }
}

#[test]
fn a_stale_list_denies_jobs_and_nothing_else_until_a_fresh_one_comes() {
    let root = TempDir::new().unwrap();
    let (first, second) = connected_pair(root.path(), "");
    let issuer = Issuer {
        dir: root.path().join("issuer-acme"),
        name: "acme".to_owned(),
    };
    fs::write(second.dir.join("hello.wasm"), guests::says("hello\\n", 0)).unwrap();
    let peer = first.peer_id();
    let job = ["job", "run", "--on", &peer, "hello.wasm"];

    // No list was ever seen: by default that is no reason to deny anything.
    second.must(&job);
    import(&first, &issuer.refresh(root.path(), "1s"));
    wait_list(&first, &issuer, 1, "stale");
    wait_list(&second, &issuer, 1, "stale");
    let refused = second.cli(&job);
    assert_eq!(refused.status.code(), Some(77), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("identity.status_stale"),
        "{}",
        stderr(&refused)
    );
    assert!(first.peers().contains(&second.peer_id()));
    // Also new connections stand, and the fresh list comes over them.
    let (mut first, mut second) = (first, second);
    second.stop();
    second.start();
    second.wait_peer(&peer);
    import(&second, &issuer.refresh(root.path(), "8d"));
    wait_list(&first, &issuer, 2, "in_force");
    second.must(&job);
    first.stop();
}

#[test]
fn where_lists_are_required_a_first_start_deadlocks_nothing() {
    let root = TempDir::new().unwrap();
    let (first, second) = connected_pair(root.path(), "identity.require_status_lists = true");
    let issuer = Issuer {
        dir: root.path().join("issuer-acme"),
        name: "acme".to_owned(),
    };
    fs::write(second.dir.join("hello.wasm"), guests::says("hello\\n", 0)).unwrap();
    let peer = first.peer_id();
    let job = ["job", "run", "--on", &peer, "hello.wasm"];
    let refused = second.cli(&job);
    assert!(
        stderr(&refused).contains("identity.status_stale"),
        "{}",
        stderr(&refused)
    );
    import(&second, &issuer.refresh(root.path(), "8d"));
    wait_list(&first, &issuer, 1, "in_force");
    second.must(&job);
}

/// Watches the system calls of a node while it takes a list: the store's file is synced.
#[test]
fn the_store_is_synced_by_the_system_before_a_list_is_acknowledged() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut node = Node::init(root.path(), "node-1", "");
    node.enrol(&issuer);
    node.start();
    let pid = node.json(&["status"])["pid"].to_string();
    let log = root.path().join("calls");
    let flags = [
        "-f",
        "-y",
        "-e",
        "trace=fsync,fdatasync",
        "-p",
        &pid,
        "-o",
        text(&log),
    ];
    let strace = Command::new("strace")
        .args(flags)
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut strace) = strace else {
        println!("SKIPPED: there is no strace here; the unit tests count the store's own syncs");
        return;
    };
    // It says so once it is attached; and where it may not, it ends.
    let attached = eventually("strace is attached", || {
        let tracer = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let traced = !tracer.lines().any(|line| line == "TracerPid:\t0");
        match strace.try_wait().unwrap() {
            Some(_) => Some(false),
            None => traced.then_some(true),
        }
    });
    if !attached {
        println!("SKIPPED: strace may not trace here; the unit tests count the store's own syncs");
        return;
    }
    import(&node, &issuer.refresh(root.path(), "8d"));
    let pid = strace.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    strace.wait().unwrap();
    let calls = fs::read_to_string(&log).unwrap();
    assert!(
        calls
            .lines()
            .any(|call| call.contains("sync(") && call.contains("/state/db>")),
        "{calls}"
    );
}
