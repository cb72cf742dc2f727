//! An honest pair of real nodes, one of them under attack; what the attacked one counted.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Issuer, Node, eventually};

/// Deadlines short enough for a test; everything else as shipped.
const SHORT: &str = "network.handshake_timeout = \"1s\"\n\
                     network.identity_timeout = \"1s\"\n\
                     network.request_timeout = \"1s\"\n\
                     audit.aggregate = \"1s\"\n";

/// The two nodes, connected; `attacked` listens on an open port too.
pub(crate) struct House {
    pub(crate) attacked: Node,
    pub(crate) friend: Node,
    root: TempDir,
    issuer: Issuer,
}

impl House {
    /// `extra` configures the attacked node.
    pub(crate) fn build(extra: &str) -> Self {
        let root = TempDir::new().unwrap();
        let issuer = Issuer::init(root.path(), "acme");
        let mut attacked = Node::init(root.path(), "attacked", "");
        let mut friend = Node::init(root.path(), "friend", "");
        let open = "network.open_listen = [\"/ip4/127.0.0.1/tcp/0\"]\n";
        // A key of the test's own takes the place of the short one.
        let short = SHORT.lines().filter(|line| {
            let key = line.split(' ').next().unwrap_or_default();
            !extra.contains(key)
        });
        let short: String = short.map(|line| format!("{line}\n")).collect();
        attacked.configure(&[], &format!("{short}{open}{extra}"));
        friend.configure(&[attacked.address()], "");
        for node in [&mut attacked, &mut friend] {
            node.enrol(&issuer);
            node.start();
        }
        attacked.wait_peer(&friend.peer_id());
        Self {
            attacked,
            friend,
            root,
            issuer,
        }
    }

    /// Another member of the house, not started.
    pub(crate) fn stranger(&self, name: &str) -> Node {
        Node::init(self.root.path(), name, "")
    }

    /// A new member that is to find the attacked node at this port, not started.
    pub(crate) fn newcomer(&self, name: &str, port: u16) -> Node {
        let node = self.stranger(name);
        node.enrol(&self.issuer);
        let there = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", self.attacked.peer_id());
        node.configure(&[there], "");
        node
    }

    /// Where plain libp2p clients are served.
    pub(crate) fn open_address(&self) -> String {
        let status = self.attacked.json(&["status"]);
        let listen = status["listen"].as_array().unwrap().clone();
        let own = format!("/tcp/{}/", self.attacked.port);
        let open = listen.iter().filter_map(Value::as_str);
        open.map(str::to_owned)
            .find(|address| !address.contains(&own))
            .expect("an open listener")
    }

    /// Denials so far, of one reason.
    pub(crate) fn denied(&self, reason: &str) -> u64 {
        let wanted = format!("quantraband_denials_total{{reason=\"{reason}\"}}");
        let page = self.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(&wanted));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// A counter of the attacked node; 0 when it is not there yet.
    pub(crate) fn count(&self, name: &str) -> u32 {
        let page = self.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// Denials so far, of any reason.
    pub(crate) fn denied_in_all(&self) -> u64 {
        let page = self.metrics();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("quantraband_denials_total{"));
        let counts = lines.filter_map(|line| line.rsplit_once(' '));
        counts
            .filter_map(|(_, count)| count.parse::<u64>().ok())
            .sum()
    }

    fn metrics(&self) -> String {
        let status = self.attacked.json(&["status"]);
        let mut page = String::new();
        let mut http = TcpStream::connect(status["http"].as_str().unwrap()).unwrap();
        let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        http.write_all(ask.as_bytes()).unwrap();
        http.read_to_string(&mut page).unwrap();
        page
    }

    /// Waits until so many more than `before` were denied for a reason.
    pub(crate) fn counted(&self, reason: &str, before: u64, more: u64) {
        eventually(&format!("{more} more counted as {reason}"), || {
            (self.denied(reason) >= before + more).then_some(())
        });
    }

    /// The friend is connected still, over the connection it had, and is served.
    pub(crate) fn friend_is_served(&self) {
        assert!(self.attacked.peers().contains(&self.friend.peer_id()));
        let closed = self.attacked.log().matches("disconnected").count();
        let friends = self.friend.log().matches("disconnected").count();
        assert_eq!(friends, 0, "the friend lost its connection ({closed})");
        let job = self
            .friend
            .json(&["publish", "attacks", "--data", "still here"]);
        assert!(job["listeners"].is_u64(), "{job}");
    }
}
