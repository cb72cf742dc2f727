//! What a flood of connection attempts costs a node and those it serves.
//!
//! An honest peer sends 32 bytes to a real node and has them back, again and again, while another
//! process attempts up to 10,000 connections a second: first to a bare listener that accepts and
//! closes, in a process of its own beside the node; then to the node. The ratio of the two p99 is
//! the result. Then processor time for each denied attempt, of both; and what an idle connection
//! takes of the node's memory, its other end in another process.
//!
//! `cargo bench --bench admission [latency|memory]`.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first surprise"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/attacks/raw.rs"]
#[allow(dead_code, reason = "the attacks use all of it")]
mod raw;

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Issuer, Node};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use quantraband::{
    config::Machine,
    types::{Clock, SystemClock},
};
use raw::Raw;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpSocket, task::JoinSet};

/// Attempts a second, at most.
const RATE: u64 = 10_000;
/// How long one flood lasts.
const FLOOD: Duration = Duration::from_secs(5);
/// Idle connections whose memory is measured.
const CROWD: usize = 1_000;
/// Attempts under way at once.
const ATTACKERS: u64 = 256;
const EXTRA: &str = "network.open_listen = [\"/ip4/127.0.0.1/tcp/0\"]\n\
                     network.idle_timeout = \"10m\"\n\
                     limits.exempt_networks = [\"127.0.0.1/32\"]\n\
                     limits.connections = 2000\n\
                     limits.inbound_connections = 1500\n\
                     limits.pending_per_address = 200\n\
                     limits.pending_per_subnet = 200\n\
                     audit.aggregate = \"1s\"\n\
                     log.level = \"warn\"\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match arguments.get(1).map(String::as_str) {
        Some("bare") => runtime.block_on(bare()),
        Some("flood") => runtime.block_on(flood(arguments[2].parse().unwrap())),
        Some("rest") => {
            std::thread::sleep(FLOOD);
            println!("0");
        }
        Some("crowd") => runtime.block_on(crowd(&arguments[2])),
        _ => runtime.block_on(measure()),
    }
}

/// This program again, in another part.
fn part(arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn line_of(child: &mut Child) -> String {
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    let mut out = BufReader::new(out);
    out.read_line(&mut line).unwrap();
    child.stdout = Some(out.into_inner());
    line.trim().to_owned()
}

/// Accepts and closes.
async fn bare() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1_024).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        drop(listener.accept().await);
    }
}

/// Attempts connections for a while; prints how many.
async fn flood(port: u16) {
    let clock = SystemClock::new();
    let next = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (next, done) = (Arc::clone(&next), Arc::clone(&done));
        attackers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_nanos(n * 1_000_000_000 / RATE);
                if due > FLOOD || clock.elapsed() > FLOOD {
                    return;
                }
                let early = due.saturating_sub(clock.elapsed());
                if early > Duration::from_millis(1) {
                    tokio::time::sleep(early).await;
                }
                if attempt(port).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while attackers.join_next().await.is_some() {}
    println!("{}", done.load(Ordering::Relaxed));
}

async fn attempt(port: u16) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, 1, 1), 0)))?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = socket.connect(to).await?;
    let mut end = [0; 16];
    // The few that are let in wait for a client that says nothing: so do we, for a moment.
    let wait = Duration::from_millis(50);
    let _ = tokio::time::timeout(wait, stream.read(&mut end)).await;
    Ok(())
}

/// Opens many connections and holds them until it is told to go.
async fn crowd(address: &str) {
    let _ = Machine::claim();
    let mut held = Vec::new();
    // Four connections of each of 250 peers.
    for n in 0..CROWD {
        held.push(Raw::dial(u8::try_from(n % 250).unwrap(), address).await);
    }
    println!("{}", held.len());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
}

/// Between two questions of the honest peer.
const EVERY: Duration = Duration::from_millis(2);

/// Round trips of an honest peer until `child` ends, sorted, and what the child printed. Each is
/// counted from when it was due: while one waits, the next ones wait too.
async fn round_trips(honest: &mut raw::Stream, mut child: Child) -> (Vec<Duration>, u64) {
    let clock = SystemClock::new();
    let mut all = Vec::new();
    let mut echo = [0; 32];
    let mut due = clock.elapsed();
    while child.try_wait().unwrap().is_none() {
        let early = due.saturating_sub(clock.elapsed());
        if !early.is_zero() {
            tokio::time::sleep(early).await;
        }
        honest.write_all(&[7; 32]).await.unwrap();
        honest.flush().await.unwrap();
        honest.read_exact(&mut echo).await.unwrap();
        all.push(clock.elapsed().saturating_sub(due));
        due += EVERY;
    }
    all.sort_unstable();
    let attempts = line_of(&mut child).parse().unwrap();
    (all, attempts)
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len() - 1;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between nothing and the last place"
    )]
    let place = (last as f64 * part) as usize;
    sorted[place]
}

/// Processor time of a process so far, microseconds (in ticks of a hundredth of a second).
fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10_000
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kib * 1_024
}

/// Denials of a node so far, once it has counted them.
fn denials(node: &Node) -> u64 {
    std::thread::sleep(Duration::from_millis(1_500));
    let status = node.json(&["status"]);
    let mut page = String::new();
    let mut http = std::net::TcpStream::connect(status["http"].as_str().unwrap()).unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    http.write_all(ask.as_bytes()).unwrap();
    std::io::Read::read_to_string(&mut http, &mut page).unwrap();
    let lines = page.lines();
    let counts = lines.filter(|line| line.starts_with("quantraband_denials_total{"));
    let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.sum()
}

fn report(what: &str, trips: &[Duration], attempts: u64) -> f64 {
    let (p50, p99) = (quantile(trips, 0.5), quantile(trips, 0.99));
    println!(
        "{what}: {:.0} attempts a second; honest round trip p50 {p50:.0?}, p99 {p99:.0?} of {}",
        attempts as f64 / FLOOD.as_secs_f64(),
        trips.len(),
    );
    p99.as_secs_f64()
}

/// A node with an open listener, and that listener's address.
fn serve(root: &TempDir, issuer: &Issuer, name: &str) -> (Node, String) {
    let mut node = Node::init(root.path(), name, EXTRA);
    node.enrol(issuer);
    node.start();
    let status = node.json(&["status"]);
    let listen = status["listen"].as_array().unwrap().clone();
    let own = format!("/tcp/{}/", node.port);
    let mut open = listen.iter().filter_map(Value::as_str);
    let open = open.find(|one| !one.contains(&own)).unwrap().to_owned();
    (node, open)
}

async fn measure() {
    let _ = Machine::claim();
    let root = TempDir::new().unwrap();
    let issuer = Issuer::init(root.path(), "acme");
    if !std::env::args().any(|argument| argument == "memory") {
        under_flood(&root, &issuer).await;
    }
    if !std::env::args().any(|argument| argument == "latency") {
        idle(&root, &issuer).await;
    }
}

async fn under_flood(root: &TempDir, issuer: &Issuer) {
    let (node, open) = serve(root, issuer, "node");
    let pid = node.pid();
    let honest = Raw::dial(251, &open).await;
    let mut ping = honest.stream("/ipfs/ping/1.0.0").await.unwrap();
    let mut bare = part(&["bare"]);
    let bare_port = line_of(&mut bare);
    let node_port = node.port.to_string();

    // What the node spends on the honest peer alone, its flood going nowhere.
    let before = cpu(pid);
    let (trips, _) = round_trips(&mut ping, part(&["rest"])).await;
    report("no flood       ", &trips, 0);
    let at_rest = cpu(pid) - before;
    let mut ratios = Vec::new();
    for _ in 0..2 {
        let before = cpu(bare.id());
        let (trips, attempts) = round_trips(&mut ping, part(&["flood", &bare_port])).await;
        let spent = (cpu(bare.id()) - before) as f64 / attempts as f64;
        let beside = report("bare listener  ", &trips, attempts);
        println!("  {spent:.1} µs of processor time for each accepted and closed");
        let denied = denials(&node);
        let before = cpu(pid);
        let (trips, theirs) = round_trips(&mut ping, part(&["flood", &node_port])).await;
        let spent = (cpu(pid) - before).saturating_sub(at_rest) as f64;
        let ours = report("this node      ", &trips, theirs);
        let denied = denials(&node) - denied;
        println!(
            "  {:.1} µs of processor time for each denied, {denied} of them",
            spent / denied as f64
        );
        if attempts.abs_diff(theirs) * 20 > attempts {
            println!("  the floods differ by more than a twentieth: not comparable");
        }
        ratios.push(format!("{:.2}", ours / beside));
    }
    println!(
        "p99 under the flood, node / bare listener: {}",
        ratios.join(", ")
    );
    bare.kill().unwrap();
    bare.wait().unwrap();
}

/// On a node that has done nothing yet: freed memory would be used again.
async fn idle(root: &TempDir, issuer: &Issuer) {
    let (node, open) = serve(root, issuer, "fresh");
    let pid = node.pid();
    let before = resident(pid);
    let mut crowd = part(&["crowd", &open]);
    line_of(&mut crowd);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let grown = resident(pid).saturating_sub(before);
    let usage = node.json(&["limits"]);
    let limits = usage["limits"].as_array().unwrap();
    let inbound = limits
        .iter()
        .find(|one| one["name"] == "limits.inbound_connections");
    let inbound = inbound.unwrap()["used"].as_u64().unwrap();
    println!(
        "{inbound} idle connections: {} KiB of memory each",
        grown / inbound / 1_024
    );
    crowd.stdin.take().unwrap().write_all(b"\n").unwrap();
    crowd.wait().unwrap();
}
