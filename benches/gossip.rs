//! Goodput of 256-byte messages between two whole nodes, in two processes, with every check on,
//! beside a bare pair of rust-libp2p's gossipsub: signed, strict, validated, and nothing else.
//!
//! Both sides in one run, in turns. The nodes' limits are raised by configuration, none is removed;
//! they are published to and listened to from inside their processes ([`quantraband::node::Local`]).
//! A message that is lost, comes twice or out of order ends the benchmark. Latencies are measured at
//! half of what was reached, from the publisher's call to the subscriber's queue.
//!
//! `cargo bench --bench gossip -- [--seconds N] [--threads N] [--rounds N]`
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures with the machine's clock, and stops at the first surprise"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{Issuer, Node};
use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    gossipsub::{
        self, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, PublishError,
        ValidationMode,
    },
    identity::Keypair,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use quantraband::{
    config,
    messages::swarm::Delivered,
    node::{self, Local},
    telemetry::LogFilter,
    types::Topic,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Bytes of a message. It begins with its number and the time at which it was published.
const SIZE: usize = 256;
/// Messages published by one call.
const MANY: usize = 256;
/// Messages on their way at most when nothing is lost: what a subscriber's queue holds.
const QUEUE: usize = 1 << 20;
const TOPIC: &str = "bench";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

fn message(number: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; SIZE];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..16].copy_from_slice(&now().to_be_bytes());
    bytes
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What a receiver saw.
struct Seen {
    count: u64,
    first: u64,
    last: u64,
    latencies: Vec<u64>,
}

impl Seen {
    fn new() -> Self {
        Self {
            count: 0,
            first: 0,
            last: 0,
            latencies: Vec::new(),
        }
    }

    /// `true`: it was the last of the phase, and the phase was printed.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let (number, sent) = (number_at(bytes, 0), number_at(bytes, 8));
        if number == u64::MAX {
            let span = (self.last - self.first) as f64 / 1e9;
            self.latencies.sort_unstable();
            let at = |share: f64| {
                let index = (self.latencies.len() as f64 * share) as usize;
                self.latencies
                    .get(index.min(self.latencies.len().saturating_sub(1)))
            };
            println!(
                "result {} {} {} {}",
                self.count,
                self.count as f64 / span.max(1e-9),
                at(0.5).copied().unwrap_or_default(),
                at(0.99).copied().unwrap_or_default()
            );
            *self = Self::new();
            return true;
        }
        assert_eq!(number, self.count, "lost, twice, or out of order");
        self.last = now();
        if self.count == 0 {
            self.first = self.last;
        }
        self.count += 1;
        self.latencies.push(self.last.saturating_sub(sent));
        false
    }
}

/// The end of a phase.
fn end_marker() -> Vec<u8> {
    message(u64::MAX)
}

/// What the parent says on standard input: seconds and messages a second (0: as many as go).
fn order() -> Option<(f64, f64)> {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap() == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
    Some((words.next().unwrap(), words.next().unwrap()))
}

// ---- whole nodes

fn run_node(dir: &str, role: &'static str) {
    let path = std::path::Path::new(dir).join("node.toml");
    let loaded = config::load(Some(&path), &[], &[]).expect("a configuration");
    actix::System::new().block_on(async move {
        let started = move |local: Local| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    match role {
                        "listen" => node_listens(local).await,
                        _ => node_publishes(local).await,
                    }
                });
                std::process::exit(0);
            });
        };
        node::run_with(loaded, LogFilter::none(), false, started)
            .await
            .unwrap();
    });
}

async fn node_listens(local: Local) {
    let topic: Topic = TOPIC.parse().unwrap();
    let (sink, mut messages) = mpsc::channel(QUEUE);
    local.subscribe(&topic, sink).await.unwrap().unwrap();
    println!("ready");
    let mut seen = Seen::new();
    while let Some(delivered) = messages.recv().await {
        match delivered {
            Delivered::Message(message) => drop(seen.take(&message.payload)),
            Delivered::Lagged(n) => panic!("the subscriber lost {n}"),
        }
    }
}

/// Publishes until all of them are accepted.
async fn insist(local: &Local, topic: &Topic, mut payloads: Vec<Vec<u8>>) {
    while !payloads.is_empty() {
        let outcome = local.publish(topic, payloads.clone()).await.unwrap();
        payloads.drain(..outcome.accepted);
        if let Some(fault) = outcome.fault {
            assert!(fault.to_string().contains("try again"), "{fault}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn node_publishes(local: Local) {
    let topic: Topic = TOPIC.parse().unwrap();
    // Until the other one listens.
    while !local
        .peers()
        .await
        .unwrap()
        .iter()
        .any(|peer| peer.topics.contains(&topic))
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("ready");
    while let Some((seconds, rate)) = tokio::task::spawn_blocking(order).await.unwrap() {
        let begin = now();
        let mut number = 0_u64;
        while ((now() - begin) as f64) < seconds * 1e9 {
            let due = if rate > 0.0 {
                let due = ((now() - begin) as f64 / 1e9 * rate) as u64;
                (due.saturating_sub(number) as usize).min(MANY)
            } else {
                MANY
            };
            if due == 0 {
                tokio::time::sleep(Duration::from_micros(500)).await;
                continue;
            }
            let many = (0..due as u64).map(|n| message(number + n)).collect();
            insist(&local, &topic, many).await;
            number += due as u64;
        }
        insist(&local, &topic, vec![end_marker()]).await;
        println!("published {number}");
    }
}

// ---- the bare pair

fn bare() -> Swarm<gossipsub::Behaviour> {
    let key = Keypair::generate_ed25519();
    // What the node sets, too: with the defaults messages are lost at this rate.
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .heartbeat_interval(Duration::from_millis(200))
        .duplicate_cache_time(Duration::from_secs(10))
        .build()
        .unwrap();
    let authenticity = MessageAuthenticity::Signed(key.clone());
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| gossipsub::Behaviour::new(authenticity, config).unwrap())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build()
}

async fn bare_listens() {
    let mut swarm = bare();
    swarm
        .behaviour_mut()
        .subscribe(&IdentTopic::new(TOPIC))
        .unwrap();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let mut seen = Seen::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => println!("ready {address}"),
            SwarmEvent::Behaviour(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            }) => {
                swarm.behaviour_mut().report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    MessageAcceptance::Accept,
                );
                seen.take(&message.data);
            }
            _ => {}
        }
    }
}

async fn bare_publishes(address: &str) {
    let mut swarm = bare();
    swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    while !matches!(
        swarm.select_next_some().await,
        SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. })
    ) {}
    println!("ready");
    let (sender, mut orders) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Some(order) = order() {
            let _ = sender.blocking_send(order);
        }
        std::process::exit(0);
    });
    loop {
        let (seconds, rate) = tokio::select! {
            order = orders.recv() => order.unwrap(),
            _ = swarm.select_next_some() => continue,
        };
        let begin = now();
        let mut number = 0_u64;
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while ((now() - begin) as f64) < seconds * 1e9 {
            let due = ((now() - begin) as f64 / 1e9 * rate) as u64;
            let mut left = if rate > 0.0 {
                due.saturating_sub(number)
            } else {
                64
            }
            .min(64);
            let full = loop {
                if left == 0 {
                    break rate > 0.0;
                }
                match swarm
                    .behaviour_mut()
                    .publish(IdentTopic::new(TOPIC), message(number))
                {
                    Ok(_) => (number, left) = (number + 1, left - 1),
                    Err(PublishError::AllQueuesFull(_)) => break true,
                    Err(error) => panic!("{error}"),
                }
            };
            // Its turn, and a pause when nothing more goes now.
            while let Some(event) = futures::FutureExt::now_or_never(swarm.select_next_some()) {
                assert!(
                    !matches!(
                        event,
                        SwarmEvent::Behaviour(gossipsub::Event::SlowPeer { .. })
                    ) || rate == 0.0
                );
            }
            if full {
                tokio::select! {
                    _ = tick.tick() => {}
                    _ = swarm.select_next_some() => {}
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
        while swarm
            .behaviour_mut()
            .publish(IdentTopic::new(TOPIC), end_marker())
            .is_err()
        {
            tokio::select! {
                _ = tick.tick() => {}
                _ = swarm.select_next_some() => {}
            }
        }
        println!("published {number}");
    }
}

// ---- the parent

struct Part {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Part {
    fn spawn(args: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(args)
            .env("GOSSIP_BENCH_PART", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self, begins: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "a part ended");
            if let Some(rest) = line.trim().strip_prefix(begins) {
                return rest.trim().to_owned();
            }
        }
    }

    fn order(&mut self, seconds: f64, rate: f64) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{seconds} {rate}").unwrap();
        stdin.flush().unwrap();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Measured {
    goodput: f64,
    p50: f64,
    p99: f64,
}

/// Saturated, then at half of it.
fn measure(listener: &mut Part, publisher: &mut Part, seconds: f64) -> Measured {
    let mut phase = |seconds: f64, rate: f64| {
        publisher.order(seconds, rate);
        let published: u64 = publisher.line("published").parse().unwrap();
        let result = listener.line("result");
        let numbers: Vec<f64> = result
            .split(' ')
            .map(|word| word.parse().unwrap())
            .collect();
        assert_eq!(numbers[0] as u64, published, "messages were lost");
        numbers
    };
    phase(0.5, 0.0);
    let goodput = phase(seconds, 0.0)[1];
    let half = phase((seconds / 2.0).max(1.0), goodput / 2.0);
    Measured {
        goodput,
        p50: half[2] / 1e6,
        p99: half[3] / 1e6,
    }
}

fn measure_bare(seconds: f64) -> Measured {
    let mut listener = Part::spawn(&["bare-listen"]);
    let address = listener.line("ready");
    let mut publisher = Part::spawn(&["bare-publish", &address]);
    publisher.line("ready");
    measure(&mut listener, &mut publisher, seconds)
}

fn measure_nodes(
    root: &TempDir,
    name: &str,
    batch: usize,
    threads: usize,
    seconds: f64,
) -> Measured {
    let acme = Issuer::init(root.path(), &format!("acme-{name}"));
    // Raised so far that none is met, and every one is still charged.
    let extra = format!(
        "gossip.batch_count = {batch}\ngossip.batch_size = \"256 KiB\"\n\
         gossip.subscriber_queue = 65536\nnetwork.connection_threads = {threads}\n\
         limits.frames_per_second = 1000000\nlimits.frame_burst = 1000000\n\
         limits.bytes_per_second = \"4 GB\"\nlog.level = \"error\"\n"
    );
    let write = |node: &Node, bootstrap: &[String]| {
        node.configure(bootstrap, &extra);
        let path = node.dir.join("node.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace(
                "messages_per_second = 10000",
                "messages_per_second = 10000000",
            )
            .replace("message_burst = 10000", "message_burst = 10000000");
        std::fs::write(path, text).unwrap();
    };
    let first = Node::init(root.path(), &format!("{name}-1"), "");
    let second = Node::init(root.path(), &format!("{name}-2"), "");
    first.enrol(&acme);
    second.enrol(&acme);
    write(&first, &[]);
    write(&second, &[first.address()]);
    let mut listener = Part::spawn(&["node-listen", first.dir.to_str().unwrap()]);
    listener.line("ready");
    let mut publisher = Part::spawn(&["node-publish", second.dir.to_str().unwrap()]);
    publisher.line("ready");
    measure(&mut listener, &mut publisher, seconds)
}

fn print(what: &str, measured: &Measured, beside: Option<&Measured>) {
    let ratio = beside.map_or(String::new(), |bare| {
        format!("{:.2} of bare", measured.goodput / bare.goodput)
    });
    println!(
        "{what:<28} {:>9.0} messages/s   p50 {:>7.2} ms   p99 {:>7.2} ms   {ratio}",
        measured.goodput, measured.p50, measured.p99
    );
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if env::var_os("GOSSIP_BENCH_PART").is_some() {
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        return match args[0].as_str() {
            "node-listen" => run_node(&args[1], "listen"),
            "node-publish" => run_node(&args[1], "publish"),
            "bare-listen" => runtime().block_on(bare_listens()),
            _ => runtime().block_on(bare_publishes(&args[1])),
        };
    }
    let value = |name: &str, default: f64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().unwrap())
    };
    let (seconds, threads) = (value("--seconds", 3.0), value("--threads", 1.0) as usize);
    println!("messages of {SIZE} bytes, {seconds} s each, {threads} threads for connections");
    for round in 0..value("--rounds", 1.0) as usize {
        let root = TempDir::new().unwrap();
        let bare = measure_bare(seconds);
        print("bare gossipsub, unbatched", &bare, None);
        let single = measure_nodes(&root, &format!("one{round}"), 1, threads, seconds);
        print("two nodes, unbatched", &single, Some(&bare));
        let again = measure_bare(seconds);
        print("bare gossipsub, again", &again, None);
        let many = measure_nodes(&root, &format!("many{round}"), 1_024, threads, seconds);
        print("two nodes, batched", &many, Some(&again));
    }
}
