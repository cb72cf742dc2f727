//! Goodput of 256-byte messages between two whole nodes, in two processes, with every check on,
//! beside a bare pair of rust-libp2p's gossipsub: signed, strict, validated, and nothing else.
//!
//! Both sides in one run, in turns. The nodes' limits are raised by configuration, none is removed;
//! they are published to and listened to from inside their processes ([`quantraband::node::Local`]).
//! Messages that are lost, or come twice or out of order, are counted on both sides, and so is how
//! often a node pushed back. Latencies are measured at half of what was reached, from the time at which
//! a message was *due* to the subscriber's queue, on both sides: a stall shows in all that was due
//! meanwhile. The bare pair is also measured with batches, which its program would have to make.
//!
//! `cargo bench --bench gossip -- [--seconds N] [--threads N] [--rounds N] [--batch N]`; the seconds are
//! also taken from `GOSSIP_BENCH_SECONDS`. Ends with 1 when a node lost anything.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures with the machine's clock, and stops at the first surprise"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc as std_mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{Issuer, Node};
use futures::{StreamExt, stream::FuturesOrdered};
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

/// Bytes of a message. It begins with its number and the time at which it was due.
const SIZE: usize = 256;
/// Messages published by one call at most.
const MANY: usize = 1_024;
/// Calls under way at once: enough that the node is never without work, and fewer messages than
/// may wait.
const CALLS: usize = 8;
/// Messages on their way at most when nothing is lost: what a subscriber's queue holds.
const QUEUE: usize = 1 << 20;
/// Latencies are counted in steps of so many nanoseconds, up to so many steps: ten seconds.
const STEP: u64 = 10_000;
const STEPS: usize = 1_000_000;
/// How long one message may wait for others in the bare pair, as `gossip.batch_delay`.
const DELAY: u64 = 2_000_000;
/// The end of a phase is said so often, so far apart: one of them may be lost.
const ENDS: usize = 5;
const END_EVERY: Duration = Duration::from_millis(200);
const TOPIC: &str = "bench";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

fn message(number: u64, due: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; SIZE];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..16].copy_from_slice(&due.to_be_bytes());
    bytes
}

/// When messages are due: at a rate, or (0) as soon as they go.
#[derive(Clone, Copy)]
struct Schedule {
    begin: u64,
    until: u64,
    rate: f64,
}

impl Schedule {
    fn new(seconds: f64, rate: f64) -> Self {
        let begin = now();
        Self {
            begin,
            until: begin + (seconds * 1e9) as u64,
            rate,
        }
    }

    fn over(&self) -> bool {
        now() >= self.until
    }

    /// How many of at most `most` are due, when `number` were published.
    fn due(&self, number: u64, most: usize) -> usize {
        if self.rate == 0.0 {
            return most;
        }
        let due = ((now() - self.begin) as f64 / 1e9 * self.rate) as u64;
        (due.saturating_sub(number) as usize).min(most)
    }

    fn message(&self, number: u64) -> Vec<u8> {
        let due = if self.rate == 0.0 {
            now()
        } else {
            self.begin + (number as f64 / self.rate * 1e9) as u64
        };
        message(number, due)
    }
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What a receiver saw.
struct Seen {
    phase: u64,
    count: u64,
    /// Lost, twice, or out of order.
    wrong: u64,
    next: u64,
    first: u64,
    last: u64,
    latencies: Vec<u32>,
}

impl Seen {
    fn of(phase: u64) -> Self {
        Self {
            phase,
            count: 0,
            wrong: 0,
            next: 0,
            first: 0,
            last: 0,
            latencies: vec![0; STEPS],
        }
    }

    fn share(&self, share: f64) -> u64 {
        let mut left = (self.count as f64 * share) as u64;
        for (step, count) in self.latencies.iter().enumerate() {
            if u64::from(*count) > left {
                return step as u64 * STEP;
            }
            left -= u64::from(*count);
        }
        STEPS as u64 * STEP
    }

    /// Takes a message, or the end of a phase, upon which the phase is printed.
    fn take(&mut self, bytes: &[u8]) {
        let (number, due) = (number_at(bytes, 0), number_at(bytes, 8));
        if number == u64::MAX {
            // Said more than once.
            if due == self.phase {
                let span = (self.last - self.first) as f64 / 1e9;
                let goodput = self.count as f64 / span.max(1e-9);
                let (p50, p99) = (self.share(0.5), self.share(0.99));
                println!("result {} {} {goodput} {p50} {p99}", self.next, self.wrong);
                *self = Self::of(self.phase + 1);
            }
            return;
        }
        self.last = now();
        if self.count == 0 {
            self.first = self.last;
        }
        self.count += 1;
        // One that comes late counts twice: when it was missed, and now.
        self.wrong += number.abs_diff(self.next);
        self.next = number + 1;
        let step = (self.last.saturating_sub(due) / STEP) as usize;
        self.latencies[step.min(STEPS - 1)] += 1;
    }
}

/// The end of a phase.
fn end_marker(phase: u64) -> Vec<u8> {
    message(u64::MAX, phase)
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
    let mut seen = Seen::of(0);
    while let Some(delivered) = messages.recv().await {
        match delivered {
            Delivered::Message(message) => seen.take(&message.payload),
            // Seen by the numbers, too.
            Delivered::Lagged(n) => eprintln!("the subscriber lost {n}"),
        }
    }
}

/// Publishes until all of them are accepted; how often the node pushed back.
async fn insist(local: &Local, topic: &Topic, mut payloads: Vec<Vec<u8>>) -> u64 {
    let mut pushed_back = 0;
    while !payloads.is_empty() {
        let outcome = local.publish(topic, payloads.clone()).await.unwrap();
        payloads.drain(..outcome.accepted);
        if let Some(fault) = outcome.fault {
            assert!(fault.to_string().contains("try again"), "{fault}");
            pushed_back += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    pushed_back
}

/// Publishes what is due. Calls are made in order and some are under way at once; when one is refused
/// those behind it are awaited before what it left is published, so that what was overtaken is
/// counted as out of order by the listener.
async fn node_phase(local: &Local, topic: &Topic, schedule: Schedule) -> (u64, u64) {
    let (mut number, mut pushed_back) = (0_u64, 0);
    let mut calls = FuturesOrdered::new();
    while !schedule.over() {
        let due = schedule.due(number, MANY);
        if due > 0 && calls.len() < CALLS {
            let payloads: Vec<_> = (0..due as u64)
                .map(|n| schedule.message(number + n))
                .collect();
            number += due as u64;
            let call = async move {
                let outcome = local.publish(topic, payloads.clone()).await.unwrap();
                (payloads, outcome)
            };
            calls.push_back(call);
        }
        let idle = due == 0 && calls.len() < CALLS;
        let ended = if calls.len() >= CALLS {
            calls.next().await
        } else {
            // Its first poll sends it off.
            futures::FutureExt::now_or_never(calls.next()).flatten()
        };
        match ended {
            Some((mut payloads, outcome)) if outcome.fault.is_some() => {
                payloads.drain(..outcome.accepted);
                let mut rest = vec![payloads];
                while let Some((mut payloads, outcome)) = calls.next().await {
                    payloads.drain(..outcome.accepted);
                    rest.push(payloads);
                }
                for payloads in rest {
                    pushed_back += 1 + insist(local, topic, payloads).await;
                }
            }
            Some(_) => {}
            None if idle => tokio::time::sleep(Duration::from_micros(500)).await,
            None => tokio::task::yield_now().await,
        }
    }
    while let Some((mut payloads, outcome)) = calls.next().await {
        payloads.drain(..outcome.accepted);
        pushed_back += insist(local, topic, payloads).await;
    }
    (number, pushed_back)
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
    let mut phase = 0;
    while let Some((seconds, rate)) = tokio::task::spawn_blocking(order).await.unwrap() {
        let schedule = Schedule::new(seconds, rate);
        let (number, pushed_back) = node_phase(&local, &topic, schedule).await;
        for _ in 0..ENDS {
            insist(&local, &topic, vec![end_marker(phase)]).await;
            tokio::time::sleep(END_EVERY).await;
        }
        phase += 1;
        println!("published {number} {pushed_back}");
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
        .max_transmit_size(10_000_000)
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
    let mut seen = Seen::of(0);
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
                for record in message.data.chunks_exact(SIZE) {
                    seen.take(record);
                }
            }
            _ => {}
        }
    }
}

/// One event, if there is one, and whether something that was accepted was lost.
fn turn(swarm: &mut Swarm<gossipsub::Behaviour>) -> Option<bool> {
    let event = futures::FutureExt::now_or_never(swarm.select_next_some())?;
    Some(matches!(
        event,
        SwarmEvent::Behaviour(gossipsub::Event::SlowPeer { .. })
    ))
}

/// Publishes what is due, in batches; how many, and how often all queues were full.
async fn bare_phase(
    swarm: &mut Swarm<gossipsub::Behaviour>,
    schedule: Schedule,
    batch: usize,
) -> (u64, u64) {
    let (mut number, mut pushed_back) = (0_u64, 0);
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut waiting: Vec<u8> = Vec::new();
    let mut since = now();
    while !schedule.over() || !waiting.is_empty() {
        let mut idle = true;
        // Some batches, then the network's turn.
        for _ in 0..64 {
            let room = batch - waiting.len() / SIZE;
            let due = if schedule.over() {
                0
            } else {
                schedule.due(number, room)
            };
            if waiting.is_empty() {
                since = now();
            }
            for _ in 0..due {
                waiting.extend_from_slice(&schedule.message(number));
                number += 1;
            }
            let full = waiting.len() >= batch * SIZE;
            let late = batch == 1 || schedule.over() || now() - since >= DELAY;
            if waiting.is_empty() || !(full || late) {
                break;
            }
            let gossip = swarm.behaviour_mut();
            match gossip.publish(IdentTopic::new(TOPIC), waiting.clone()) {
                Ok(_) => {
                    waiting.clear();
                    idle = false;
                }
                Err(PublishError::AllQueuesFull(_)) => {
                    pushed_back += 1;
                    idle = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        while turn(swarm).is_some() {}
        if idle {
            tokio::select! {
                _ = tick.tick() => {}
                _ = swarm.select_next_some() => {}
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
    (number, pushed_back)
}

async fn bare_publishes(address: &str, batch: usize) {
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
    let mut phase = 0;
    loop {
        let (seconds, rate) = tokio::select! {
            order = orders.recv() => order.unwrap(),
            _ = swarm.select_next_some() => continue,
        };
        let schedule = Schedule::new(seconds, rate);
        let (number, pushed_back) = bare_phase(&mut swarm, schedule, batch).await;
        for _ in 0..ENDS {
            let gossip = swarm.behaviour_mut();
            let _ = gossip.publish(IdentTopic::new(TOPIC), end_marker(phase));
            let pause = tokio::time::sleep(END_EVERY);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    _ = swarm.select_next_some() => {}
                }
            }
        }
        phase += 1;
        println!("published {number} {pushed_back}");
    }
}

// ---- the parent

struct Part {
    child: Child,
    lines: std_mpsc::Receiver<String>,
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
        let (sender, lines) = std_mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// What it says after this word, within `seconds` and a minute.
    fn line(&self, begins: &str, seconds: f64) -> String {
        let patience = Duration::from_secs_f64(seconds + 60.0);
        loop {
            let line = self.lines.recv_timeout(patience);
            let line = line.unwrap_or_else(|_| panic!("a part never said `{begins}`"));
            if let Some(rest) = line.trim().strip_prefix(begins) {
                return rest.trim().to_owned();
            }
        }
    }

    fn numbers(&self, begins: &str, seconds: f64) -> Vec<f64> {
        let line = self.line(begins, seconds);
        line.split(' ').map(|word| word.parse().unwrap()).collect()
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

#[derive(Default)]
struct Measured {
    goodput: f64,
    p50: f64,
    p99: f64,
    /// Of all phases: lost, twice or out of order; pushed back.
    lost: u64,
    pushed_back: u64,
}

/// Saturated, then at half of it.
fn measure(listener: &Part, publisher: &mut Part, seconds: f64) -> Measured {
    let mut measured = Measured::default();
    let mut phase = |seconds: f64, rate: f64| {
        publisher.order(seconds, rate);
        let published = publisher.numbers("published", seconds);
        let seen = listener.numbers("result", seconds);
        measured.lost += seen[1] as u64 + (published[0] as u64).saturating_sub(seen[0] as u64);
        measured.pushed_back += published[1] as u64;
        seen
    };
    phase(0.5, 0.0);
    let goodput = phase(seconds, 0.0)[2];
    let half = phase((seconds / 2.0).max(1.0), goodput / 2.0);
    (measured.goodput, measured.p50, measured.p99) = (goodput, half[3] / 1e6, half[4] / 1e6);
    measured
}

fn measure_bare(batch: usize, seconds: f64) -> Measured {
    let listener = Part::spawn(&["bare-listen"]);
    let address = listener.line("ready", 0.0);
    let mut publisher = Part::spawn(&["bare-publish", &address, &batch.to_string()]);
    publisher.line("ready", 0.0);
    measure(&listener, &mut publisher, seconds)
}

fn measure_nodes(
    root: &TempDir,
    name: &str,
    batch: (usize, &str),
    threads: usize,
    seconds: f64,
) -> Measured {
    let acme = Issuer::init(root.path(), &format!("acme-{name}"));
    let (count, size) = batch;
    // Raised so far that none is met, and every one is still charged. No jobs: their workers are this
    // program run again, and a benchmark is not the node's program.
    let extra = format!(
        "gossip.batch_count = {count}\ngossip.batch_size = \"{size}\"\n\
         gossip.subscriber_queue = 65536\nnetwork.connection_threads = {threads}\n\
         limits.frames_per_second = 1000000\nlimits.frame_burst = 1000000\n\
         limits.bytes_per_second = \"4 GB\"\nsandbox.enabled = false\nlog.level = \"error\"\n"
    );
    let write = |node: &Node, bootstrap: &[String]| {
        node.configure(bootstrap, &extra);
        node.replace(
            "messages_per_second = 10000\n",
            "messages_per_second = 10000000\n",
        );
        node.replace("message_burst = 10000\n", "message_burst = 10000000\n");
    };
    let first = Node::init(root.path(), &format!("{name}-1"), "");
    let second = Node::init(root.path(), &format!("{name}-2"), "");
    first.enrol(&acme);
    second.enrol(&acme);
    write(&first, &[]);
    write(&second, &[first.address()]);
    let listener = Part::spawn(&["node-listen", first.dir.to_str().unwrap()]);
    listener.line("ready", 0.0);
    let mut publisher = Part::spawn(&["node-publish", second.dir.to_str().unwrap()]);
    publisher.line("ready", 0.0);
    measure(&listener, &mut publisher, seconds)
}

fn print(what: &str, measured: &Measured, beside: Option<(&Measured, f64)>) {
    let ratio = beside.map_or(String::new(), |(bare, target)| {
        let ratio = measured.goodput / bare.goodput;
        format!("{ratio:.2} of bare unbatched (target {target})")
    });
    println!(
        "{what:<34} {:>9.0} messages/s   p50 {:>7.2} ms   p99 {:>7.2} ms   lost {:>4}   \
         pushed back {:>4}   {ratio}",
        measured.goodput, measured.p50, measured.p99, measured.lost, measured.pushed_back
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
            _ => runtime().block_on(bare_publishes(&args[1], args[2].parse().unwrap())),
        };
    }
    let value = |name: &str, default: f64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().unwrap())
    };
    let seconds = env::var("GOSSIP_BENCH_SECONDS").ok();
    let seconds = seconds.map_or(3.0, |seconds| seconds.parse().unwrap());
    let (seconds, threads) = (
        value("--seconds", seconds),
        value("--threads", 1.0) as usize,
    );
    let batch = value("--batch", 1_024.0) as usize;
    println!("messages of {SIZE} bytes, {seconds} s each, {threads} threads for connections");
    let mut lost = 0;
    for round in 0..value("--rounds", 1.0) as usize {
        let root = TempDir::new().unwrap();
        let mut nodes = |name: &str, batch: (usize, &str), beside: Option<(&Measured, f64)>| {
            let name = format!("{name}{round}");
            let measured = measure_nodes(&root, &name, batch, threads, seconds);
            lost += measured.lost;
            let what = match batch.0 {
                1 => "two nodes, unbatched".to_owned(),
                count => format!("two nodes, batches of {count}, {}", batch.1),
            };
            print(&what, &measured, beside);
        };
        let bare = measure_bare(1, seconds);
        print("bare gossipsub, unbatched", &bare, None);
        nodes("one", (1, "32 KiB"), Some((&bare, 0.9)));
        let again = measure_bare(1, seconds);
        print("bare gossipsub, unbatched, again", &again, None);
        nodes("many", (batch, "512 KiB"), Some((&again, 20.0)));
        print(
            &format!("bare gossipsub, batches of {batch}"),
            &measure_bare(batch, seconds),
            None,
        );
        let shipped = config::Config::default().gossip;
        let size = shipped.batch_size.to_string();
        nodes("shipped", (shipped.batch_count, &size), None);
    }
    if lost > 0 {
        println!("the nodes lost {lost}");
        std::process::exit(1);
    }
}
