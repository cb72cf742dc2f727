//! A small network under traffic for a while, with actors that fall: what goes in comes out, and
//! nothing grows.
//!
//! Ten seconds here; `QUANTRABAND_SOAK_SECONDS` for longer (`scripts/evidence` asks for minutes).
//! What an honest node says arrives at an honest node, in order, each message once; memory and file
//! descriptors at the end are those after the first messages, within what caches may take.
#![cfg(test)]
#![expect(
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "one story from beginning to end, whose figures scripts/evidence prints"
)]

mod common;

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use common::{BINARY, Issuer, Node, eventually};
use quantraband::types::{Clock, SystemClock};
use tempfile::TempDir;

/// Messages a second of the publisher: well within the default budget of a tuned node, and slow
/// enough for a busy machine.
const PACE: Duration = Duration::from_millis(5);
/// Actors that fall in turn on the third node.
const FALLING: [&str; 5] = ["audit", "identity", "rate_limit", "reputation", "swarm"];
/// What a process may gain between the first messages and the last: pools and caches that fill, and
/// what the allocator keeps.
const GROWTH_KIB: u64 = 48 * 1024;
const MORE_DESCRIPTORS: usize = 24;

fn seconds() -> u64 {
    let asked = std::env::var("QUANTRABAND_SOAK_SECONDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    kib: u64,
    descriptors: usize,
}

fn held(pid: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    Held {
        kib,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

/// `publish --lines` on `topic`, fed a numbered line at a time until it is dropped.
struct Publisher {
    child: Child,
    sent: u64,
}

impl Publisher {
    fn start(node: &Node, topic: &str) -> Self {
        let child = Command::new(BINARY)
            .arg("--config")
            .arg(node.dir.join("node.toml"))
            .args(["publish", topic, "--lines"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, sent: 0 }
    }

    fn send(&mut self) {
        self.sent += 1;
        let line = format!("message {}\n", self.sent);
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
    }

    /// Ends the input; every line was acknowledged when it ends well.
    fn finish(mut self) -> u64 {
        drop(self.child.stdin.take());
        assert!(
            self.child.wait().unwrap().success(),
            "not all was published"
        );
        self.sent
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_goes_in_comes_out_and_nothing_grows() {
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    let mut nodes: Vec<Node> = ["speaker", "listener", "sick"]
        .into_iter()
        .map(|name| Node::init(root.path(), name, ""))
        .collect();
    for node in &nodes {
        node.enrol(&issuer);
    }
    let first = nodes[0].address();
    for node in &mut nodes {
        let others = if node.address() == first {
            vec![]
        } else {
            vec![first.clone()]
        };
        node.configure(&others, "");
        node.start();
    }
    let (speaker, listener, sick) = (&nodes[0], &nodes[1], &nodes[2]);
    speaker.wait_peer(&listener.peer_id());
    speaker.wait_peer(&sick.peer_id());
    let heard = listener.gather("soak");
    let at_the_sick = sick.gather("soak");
    let mut publisher = Publisher::start(speaker, "soak");
    eventually("the first messages are heard", || {
        publisher.send();
        (!heard.texts().is_empty() && !at_the_sick.texts().is_empty()).then_some(())
    });
    let (first_heard, before) = (
        heard.texts()[0].clone(),
        [held(speaker.pid()), held(listener.pid())],
    );

    let clock = SystemClock::new();
    let (until, mut falls) = (Duration::from_secs(seconds()), 0_usize);
    while clock.elapsed() < until {
        publisher.send();
        thread::sleep(PACE);
        // Something falls on the third node every two seconds.
        if clock.elapsed() > Duration::from_secs(2) * u32::try_from(falls + 1).unwrap() {
            let actor = FALLING[falls % FALLING.len()];
            sick.must(&["actors", "inject", actor, "panic"]);
            falls += 1;
        }
    }
    let sent = publisher.finish();
    let last = format!("message {sent}");
    eventually("the last message is heard", || {
        heard.has(&last).then_some(())
    });

    // Between the two that did not fall: every message once and in order, from the first heard on.
    let texts = heard.texts();
    let from: u64 = first_heard.trim_start_matches("message ").parse().unwrap();
    let expected: Vec<String> = (from..=sent).map(|n| format!("message {n}")).collect();
    assert_eq!(
        texts.len(),
        expected.len(),
        "lost or doubled: {from}..={sent}"
    );
    assert_eq!(texts, expected);
    let after = [held(speaker.pid()), held(listener.pid())];
    println!(
        "soak: {} s, {falls} falls, {} messages, {} lost; KiB and descriptors {before:?} -> {after:?}",
        seconds(),
        expected.len(),
        expected.len() - texts.len(),
    );
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            after.kib <= before.kib + GROWTH_KIB,
            "{before:?} -> {after:?}"
        );
        assert!(
            after.descriptors <= before.descriptors + MORE_DESCRIPTORS,
            "{before:?} -> {after:?}"
        );
    }
    // The third came back each time and is connected.
    eventually("the sick node is connected", || {
        speaker.peers().contains(&sick.peer_id()).then_some(())
    });
    for node in &nodes {
        node.verify_log();
    }
}
