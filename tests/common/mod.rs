//! A workshop for whole-node tests: real processes of the real binary, on loopback, in a
//! temporary directory, driven only by the commands an operator has.
//!
//! Every wait is for a condition, with a deadline that only a broken node reaches.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of the workshop"
)]

pub(crate) mod following;
pub(crate) mod foreign;
pub(crate) mod guests;
pub(crate) mod member;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod records;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use quantraband::types::{Clock, SystemClock};
use serde_json::Value;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_quantraband");

/// Longest wait for anything: far beyond what a healthy node needs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the binary in `dir` to its end.
pub(crate) fn run_in(dir: &Path, args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the binary runs")
}

/// Runs the binary, demands success, and returns its standard output.
pub(crate) fn must(dir: &Path, args: &[&str]) -> String {
    let output = run_in(dir, args);
    assert!(
        output.status.success(),
        "{args:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Waits until `probe` gives something; panics with `what` when it never does.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(clock.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A TCP port nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    probe.local_addr().expect("bound").port()
}

/// An issuer with its key, in a directory of its own.
pub(crate) struct Issuer {
    /// Where its key lies.
    pub(crate) dir: PathBuf,
    /// Its name.
    pub(crate) name: String,
}

impl Issuer {
    /// `identity issuer init`.
    pub(crate) fn init(root: &Path, name: &str) -> Self {
        let dir = root.join(format!("issuer-{name}"));
        must(
            root,
            &["identity", "issuer", "init", name, "--dir", text(&dir)],
        );
        Self {
            dir,
            name: name.to_owned(),
        }
    }

    /// What others add to their trust.
    pub(crate) fn anchor(&self) -> PathBuf {
        self.dir.join(format!("{}.anchor", self.name))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// One node: its directory, and its process while it runs.
pub(crate) struct Node {
    /// Holds `node.toml`, `data/` and `node.log`.
    pub(crate) dir: PathBuf,
    /// Its TCP port, kept over restarts.
    pub(crate) port: u16,
    /// What its process and its commands have in their environment.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

impl Node {
    /// `init`, with a configuration for loopback; `extra` is appended to it.
    pub(crate) fn init(root: &Path, name: &str, extra: &str) -> Self {
        let dir = root.join(name);
        fs::create_dir_all(&dir).expect("temporary directory");
        must(root, &["init", "--dir", text(&dir)]);
        let node = Self {
            dir,
            port: free_port(),
            env: Vec::new(),
            child: None,
        };
        node.configure(&[], extra);
        node
    }

    /// Writes `node.toml` anew.
    pub(crate) fn configure(&self, bootstrap: &[String], extra: &str) {
        let toml = format!(
            "version = 1\n\
             network.listen = [\"/ip4/127.0.0.1/tcp/{}\"]\n\
             network.bootstrap = {bootstrap:?}\n\
             network.dial_backoff_initial = \"100ms\"\n\
             network.dial_backoff_max = \"500ms\"\n\
             admin.http = \"127.0.0.1:0\"\n\
             limits.messages_per_second = 10000\n\
             limits.message_burst = 10000\n\
             testing.fault_injection = true\n\
             {extra}\n",
            self.port,
        );
        fs::write(self.dir.join("node.toml"), toml).expect("configuration written");
    }

    /// Request, issue, import, trust: what two organisations do by hand.
    pub(crate) fn enrol(&self, issuer: &Issuer) {
        self.enrol_for(issuer, "30d");
    }

    /// As [`Node::enrol`], with a credential that holds for `lifetime`.
    pub(crate) fn enrol_for(&self, issuer: &Issuer, lifetime: &str) {
        let request = self.dir.join("node.request");
        let credential = self.dir.join("node.credential");
        let subject = self
            .dir
            .file_name()
            .and_then(|n| n.to_str())
            .expect("named");
        self.must(&[
            "identity",
            "request",
            "--subject",
            subject,
            "--out",
            text(&request),
        ]);
        let issuer_dir = text(&issuer.dir);
        self.must(&[
            "identity",
            "issue",
            "--issuer",
            issuer_dir,
            "--lifetime",
            lifetime,
            "--group",
            "workers",
            "--attribute",
            "role=tester",
            "--out",
            text(&credential),
            text(&request),
        ]);
        self.trust(issuer);
        self.must(&["identity", "import", text(&credential)]);
    }

    /// `trust add`.
    pub(crate) fn trust(&self, issuer: &Issuer) {
        self.must(&["trust", "add", text(&issuer.anchor())]);
    }

    /// The multiaddress others dial.
    pub(crate) fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.port, self.peer_id())
    }

    /// The peer id, from the key on disk.
    pub(crate) fn peer_id(&self) -> String {
        let shown = self.json(&["identity", "show"]);
        shown["peer_id"].as_str().expect("a peer id").to_owned()
    }

    /// Starts the process and waits until it answers commands.
    pub(crate) fn start(&mut self) {
        self.spawn();
        eventually("the node answers", || {
            if let Some(status) = self.exited() {
                panic!("the node ended with {status}\n{}", self.log());
            }
            self.try_json(&["status"])
        });
    }

    /// Starts the process without waiting.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "started twice");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("node.log"))
            .expect("log file");
        let child = Command::new(BINARY)
            .args(["run", "--config", text(&self.dir.join("node.toml"))])
            .envs(self.env.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the node starts");
        self.child = Some(child);
    }

    /// What the node logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("node.log")).unwrap_or_default()
    }

    /// The exit status when the process has ended by itself.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("own child")
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let status = eventually("the node ends", || self.exited());
        self.child = None;
        status
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Sends a signal by name (`TERM`, `INT`, `KILL`).
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// SIGKILL, as a crash of the machine's power would be to the process.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.wait_exit();
    }

    fn full(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["--config", text(&self.dir.join("node.toml"))])
            .args(args);
        command.current_dir(&self.dir).envs(self.env.clone());
        command
    }

    /// Runs a command against this node.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.full(args).output().expect("the binary runs")
    }

    /// Runs a command against this node that reads this from standard input.
    pub(crate) fn cli_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.full(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("own child");
        // Who refuses the input does not read it to its end.
        let _ = writing.join().expect("no panic in the writer");
        output
    }

    /// Changes the configuration on disk; takes effect with the next start.
    pub(crate) fn replace(&self, from: &str, to: &str) {
        let path = self.dir.join("node.toml");
        let text = fs::read_to_string(&path).expect("configuration");
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replace(from, to)).expect("configuration written");
    }

    /// The value of a metric, its labels written as the page has them.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let found = self.find_metric(name);
        found.unwrap_or_else(|| panic!("no {name} among the metrics"))
    }

    /// As [`Node::metric`], for one that may not be there yet.
    pub(crate) fn find_metric(&self, name: &str) -> Option<f64> {
        let status = self.json(&["status"]);
        let address = status["http"].as_str().expect("HTTP is on");
        let mut stream = std::net::TcpStream::connect(address).expect("metrics are served");
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    /// Runs a command against this node and demands success.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(
            output.status.success(),
            "{args:?} ended with {}\n{}\n{}\nnode log:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log(),
        );
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// Runs a command with `--output json` and demands success.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.must(&[args, &["--output", "json"]].concat());
        let value: Value = serde_json::from_str(&out).expect("one JSON value");
        assert!(
            value["schema"].is_string(),
            "{args:?} has no schema: {value}"
        );
        value
    }

    /// As [`Node::json`], but `None` when the command fails.
    pub(crate) fn try_json(&self, args: &[&str]) -> Option<Value> {
        let output = self.cli(&[args, &["--output", "json"]].concat());
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    /// Peer ids this node is connected to.
    pub(crate) fn peers(&self) -> Vec<String> {
        let Some(answer) = self.try_json(&["peers"]) else {
            return Vec::new();
        };
        let peers = answer["peers"].as_array().cloned().unwrap_or_default();
        peers
            .iter()
            .filter_map(|p| p["peer_id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Since when the node is connected to `peer`.
    pub(crate) fn since(&self, peer: &str) -> Option<u64> {
        let answer = self.try_json(&["peers"])?;
        let found = answer["peers"]
            .as_array()?
            .iter()
            .find(|p| p["peer_id"] == peer)?
            .clone();
        found["since"].as_u64()
    }

    /// Waits until the node is connected to `peer`.
    pub(crate) fn wait_peer(&self, peer: &str) {
        eventually("the nodes are connected", || {
            self.peers().iter().any(|p| p == peer).then_some(())
        });
    }

    /// What `actors` says of one actor.
    pub(crate) fn actor(&self, name: &str) -> Option<Value> {
        let answer = self.try_json(&["actors"])?;
        answer["actors"]
            .as_array()?
            .iter()
            .find(|a| a["name"] == name)
            .cloned()
    }

    /// Restarts of one actor so far.
    pub(crate) fn restarts(&self, name: &str) -> Option<u64> {
        self.actor(name)?["restarts"].as_u64()
    }

    /// Starts `subscribe` and waits until it listens.
    pub(crate) fn subscribe(&self, topic: &str, count: usize) -> Subscription {
        let mut child = self
            .full(&[
                "subscribe",
                topic,
                "--count",
                &count.to_string(),
                "--timeout",
                "60s",
            ])
            .args(["--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("subscribe starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        eventually("the subscription stands", || {
            let status = self.try_json(&["status"])?;
            status["topics"]
                .as_array()?
                .iter()
                .any(|t| t == topic)
                .then_some(())
        });
        Subscription {
            child: Kept(Some(child)),
            lines,
        }
    }

    /// Every record of the audit log on disk, oldest first.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.join("data/audit"))
            .expect("audit directory")
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        files.sort();
        let lines = files.iter().flat_map(|f| {
            let text = fs::read_to_string(f).expect("segment");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines
            .filter_map(|line| serde_json::from_str(&line).ok())
            .collect()
    }

    /// `audit verify`, which must find the log intact.
    pub(crate) fn verify_log(&self) {
        self.must(&["audit", "verify"]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = format!("--- log of {}\n{}\n", self.dir.display(), self.log());
            let _ = std::io::stderr().write_all(log.as_bytes());
        }
    }
}

/// A running `subscribe`.
pub(crate) struct Subscription {
    child: Kept,
    lines: BufReader<ChildStdout>,
}

/// A process that ends with its owner.
pub(crate) struct Kept(Option<Child>);

impl Kept {
    fn wait(&mut self) -> ExitStatus {
        let child = self.0.as_mut().expect("kept");
        child.wait().expect("own child")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A subscription whose messages are gathered in the background.
pub(crate) struct Gathered {
    _child: Kept,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Gathered {
    /// The messages so far, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let got = self.got.lock().expect("no panic in the reader");
        let text = |message: &Value| message["text"].as_str().unwrap_or_default().to_owned();
        got.iter().map(text).collect()
    }

    /// Whether a message with this text came.
    pub(crate) fn has(&self, text: &str) -> bool {
        let got = self.got.lock().expect("no panic in the reader");
        got.iter().any(|message| message["text"] == text)
    }
}

impl Node {
    /// As [`Node::subscribe`], gathering in the background.
    pub(crate) fn gather(&self, topic: &str) -> Gathered {
        let Subscription { child, lines } = self.subscribe(topic, 100_000);
        let got: Arc<Mutex<Vec<Value>>> = Arc::default();
        let gathered = Arc::clone(&got);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).expect("JSON");
                gathered.lock().expect("no panic").push(message);
            }
        });
        Gathered { _child: child, got }
    }
}

impl Subscription {
    /// Its remaining messages, once it has ended by itself.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        let mut got = Vec::new();
        for line in (&mut self.lines).lines() {
            got.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
        }
        assert!(self.child.wait().success(), "subscribe failed: {got:?}");
        got
    }

    /// Waits for one message.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

/// Two enrolled nodes of one issuer; the second dials the first.
pub(crate) fn pair(root: &Path, extra: &str) -> (Node, Node) {
    let issuer = Issuer::init(root, "acme");
    let first = Node::init(root, "node-1", extra);
    let second = Node::init(root, "node-2", extra);
    first.enrol(&issuer);
    second.enrol(&issuer);
    second.configure(&[first.address()], extra);
    (first, second)
}

/// As [`pair`], started and connected.
pub(crate) fn connected_pair(root: &Path, extra: &str) -> (Node, Node) {
    let (mut first, mut second) = pair(root, extra);
    first.start();
    second.start();
    second.wait_peer(&first.peer_id());
    first.wait_peer(&second.peer_id());
    (first, second)
}
