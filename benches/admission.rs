//! What a flood of connection attempts costs a node and those it serves.
//!
//! An honest peer sends 32 bytes to a real node and has them back, on a fixed schedule, while
//! another process attempts 10,000 connections a second: to a bare listener that accepts and
//! closes, in a process of its own beside the node, and to the node, in turns. Latency counts from
//! when a question was due, so that a standstill is as many samples as it held up. The ratio of
//! the two p99 is the result, of pairs whose floods reached the same rate (else they are marked).
//! Processor time for each denial is what the node took beyond a run of the same length without a
//! flood. Memory of an idle connection is measured on a node that has done nothing before, with
//! 1,000 whole libp2p peers (identify, ping, gossip) in another process.
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
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, SwarmBuilder, gossipsub, identify,
    identity::Keypair,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
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
/// How long one flood lasts. Shorter than the node waits for an answer to its own pings.
const FLOOD: Duration = Duration::from_secs(10);
/// Floods of each side.
const ROUNDS: usize = 3;
/// Idle connections whose memory is measured.
const CROWD: usize = 1_000;
/// Peers of it that connect at once.
const ARRIVING: usize = 16;
/// Until all of them have identified each other and the node has pinged each once.
const SETTLE: Duration = Duration::from_secs(20);
/// Attempts under way at once: so many that those let in, who wait, do not slow the flood.
const ATTACKERS: u64 = 256;
const EXTRA: &str = "network.open_listen = [\"/ip4/127.0.0.1/tcp/0\"]\n\
                     network.idle_timeout = \"10m\"\n\
                     limits.exempt_networks = [\"127.0.0.1/32\"]\n\
                     limits.connections = 2500\n\
                     limits.inbound_connections = 2200\n\
                     limits.max_message_size = \"1 MB\"\n\
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

#[derive(NetworkBehaviour)]
struct Client {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    gossip: gossipsub::Behaviour,
}

/// A whole peer of libp2p; says once that it is connected, and stays.
async fn client(address: Multiaddr, arrived: tokio::sync::mpsc::Sender<bool>) {
    let key = Keypair::generate_ed25519();
    let gossip = gossipsub::Config::default();
    let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
    let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| Client {
            identify: identify::Behaviour::new(identify::Config::new(
                "/bench/1.0.0".to_owned(),
                key.public(),
            )),
            ping: ping::Behaviour::default(),
            gossip: gossipsub::Behaviour::new(signed, gossip).unwrap(),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    swarm.dial(address).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => arrived.send(true).await.unwrap(),
            SwarmEvent::OutgoingConnectionError { .. } => arrived.send(false).await.unwrap(),
            _ => {}
        }
    }
}

/// Opens many connections and holds them until it is told to go.
async fn crowd(address: &str) {
    let _ = Machine::claim();
    let address: Multiaddr = address.parse().unwrap();
    let (sender, mut arrived) = tokio::sync::mpsc::channel(ARRIVING);
    let (mut begun, mut inside) = (0, 0);
    let mut clients = JoinSet::new();
    for done in 0..CROWD {
        while begun < CROWD && begun < done + ARRIVING {
            clients.spawn(client(address.clone(), sender.clone()));
            begun += 1;
        }
        inside += usize::from(arrived.recv().await.unwrap());
    }
    println!("{inside}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
}

/// Between two questions of the honest peer: well above a round trip on a busy machine, so that
/// what is counted is the round trip and not a queue of questions.
const EVERY: Duration = Duration::from_millis(5);

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
            // The timer's own coarseness, up to a millisecond, is no latency of the node's.
            due = due.max(clock.elapsed());
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

/// Round trips of a peer that has just connected, until `child` ends.
async fn honest(open: &str, child: Child) -> (Vec<Duration>, u64) {
    let raw = Raw::dial(251, open).await;
    let mut ping = raw.stream("/ipfs/ping/1.0.0").await.unwrap();
    round_trips(&mut ping, child).await
}

async fn under_flood(root: &TempDir, issuer: &Issuer) {
    let (node, open) = serve(root, issuer, "node");
    let pid = node.pid();
    let mut bare = part(&["bare"]);
    let bare_port = line_of(&mut bare);
    let node_port = node.port.to_string();

    // What the node spends on the honest peer alone.
    honest(&open, part(&["rest"])).await;
    let before = cpu(pid);
    let (trips, _) = honest(&open, part(&["rest"])).await;
    let at_rest = cpu(pid) - before;
    report("no flood     ", &trips, 0);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let before = cpu(bare.id());
        let (trips, attempts) = honest(&open, part(&["flood", &bare_port])).await;
        let spent = (cpu(bare.id()) - before) as f64 / attempts as f64;
        let beside = report("bare listener", &trips, attempts);
        println!("  {spent:.1} µs of processor time for each accepted and closed");
        let denied = denials(&node);
        let before = cpu(pid);
        let (trips, theirs) = honest(&open, part(&["flood", &node_port])).await;
        let spent = (cpu(pid) - before).saturating_sub(at_rest) as f64;
        let ours = report("this node    ", &trips, theirs);
        let denied = denials(&node) - denied;
        println!(
            "  {:.1} µs of processor time for each denied, {denied} of {theirs}",
            spent / denied as f64
        );
        if attempts.abs_diff(theirs) * 20 > attempts {
            println!("  the floods differ by more than a twentieth: not comparable");
        } else {
            ratios.push(ours / beside);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("p99 under the flood, node / bare listener (target: at most 1.25): {ratios:.2?}");
    bare.kill().unwrap();
    bare.wait().unwrap();
}

/// Of `limits`, what is in use of one.
fn used(node: &Node, name: &str) -> u64 {
    let usage = node.json(&["limits"]);
    let limits = usage["limits"].as_array().unwrap();
    let one = limits.iter().find(|one| one["name"] == name);
    one.unwrap()["used"].as_u64().unwrap()
}

/// On a node that has done nothing yet: freed memory would be used again.
async fn idle(root: &TempDir, issuer: &Issuer) {
    let (node, open) = serve(root, issuer, "fresh");
    let pid = node.pid();
    let before = resident(pid);
    let mut crowd = part(&["crowd", &open]);
    let inside = line_of(&mut crowd);
    tokio::time::sleep(SETTLE).await;
    let grown = resident(pid).saturating_sub(before);
    let inbound = used(&node, "limits.inbound_connections");
    println!(
        "{inbound} idle connections ({inside} of {CROWD} dialled): {:.1} KiB of memory each, \
         {} MiB before",
        grown as f64 / inbound as f64 / 1_024.0,
        before >> 20,
    );
    crowd.stdin.take().unwrap().write_all(b"\n").unwrap();
    crowd.wait().unwrap();
}
