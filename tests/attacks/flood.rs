//! Floods: connection attempts from one address and from many, half-open ones, streams, a liar.
//! What is asserted are counts and states; times are printed.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quantraband::{
    identity::NodeKey,
    network::secure::Breach,
    types::{Clock, SystemClock},
};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    common::{Node, eventually, peer},
    house::House,
    raw::Raw,
};

/// Attackers at work at the same time.
const ATTACKERS: u64 = 64;

/// The long form was asked for.
fn evidence() -> bool {
    std::env::var_os("QUANTRABAND_EVIDENCE").is_some()
}

/// Attempts of one flood.
fn attempts() -> u64 {
    if evidence() { 200_000 } else { 3_000 }
}

async fn connect(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
}

/// What became of a flood's attempts.
#[derive(Debug, Default)]
struct Outcome {
    /// Ended without a byte from the node.
    refused: u64,
    /// Answered: the node began a handshake.
    heard: u64,
    /// Never connected: the listener's queue was full, or this machine had no port left.
    failed: u64,
    /// Of each address, how often it was heard.
    by_address: HashMap<Ipv4Addr, u64>,
    took: Duration,
}

impl Outcome {
    fn all(&self) -> u64 {
        self.refused + self.heard + self.failed
    }

    /// What a budget of so many a minute lets through in the time that the flood took.
    fn allowed(&self, a_minute: u64) -> u64 {
        let seconds = self.took.as_secs() + 1;
        a_minute + a_minute * seconds / 60 + 1
    }

    /// Nearly all attempts got as far as the node: the flood was one.
    fn arrived(&self) {
        assert!(self.failed * 100 <= self.all(), "{self:?}");
    }
}

/// Connects again and again from addresses of `from`, says what a libp2p client says, and waits
/// for the answer: [`attempts`] times, and on until `honest` is done. At most 10,000 a second.
async fn flood<T>(
    port: u16,
    from: fn(u64) -> Ipv4Addr,
    honest: impl Future<Output = T>,
) -> (Outcome, T) {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let next = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(SystemClock::new());
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (outcome, next) = (Arc::clone(&outcome), Arc::clone(&next));
        let (clock, done) = (Arc::clone(&clock), Arc::clone(&done));
        attackers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= attempts() && done.load(Ordering::Relaxed) {
                    return;
                }
                let early = Duration::from_micros(n * 100).saturating_sub(clock.elapsed());
                if early > Duration::from_millis(1) {
                    tokio::time::sleep(early).await;
                }
                let got = attempt(from(n), port).await;
                let mut outcome = outcome.lock().unwrap();
                match got {
                    Ok(0) => outcome.refused += 1,
                    Ok(_) => {
                        outcome.heard += 1;
                        *outcome.by_address.entry(from(n)).or_default() += 1;
                    }
                    Err(_) => outcome.failed += 1,
                }
            }
        });
    }
    let got = honest.await;
    done.store(true, Ordering::Relaxed);
    while attackers.join_next().await.is_some() {}
    let mut outcome = std::mem::take(&mut *outcome.lock().unwrap());
    outcome.took = clock.elapsed();
    let Outcome {
        refused,
        heard,
        failed,
        took,
        ..
    } = &outcome;
    println!(
        "{} attempts in {took:?}: {refused} refused, {heard} heard, {failed} failed",
        outcome.all()
    );
    (outcome, got)
}

/// Has what comes to a port of its own go on to the node from another address; that port.
async fn from_elsewhere(from: Ipv4Addr, port: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = connect(from, port).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    own
}

/// A member that the node has not seen before starts, and is connected.
fn comes(house: &House, newcomer: &mut Node) {
    tokio::task::block_in_place(|| {
        newcomer.start();
        house.attacked.wait_peer(&newcomer.peer_id());
    });
}

async fn attempt(from: Ipv4Addr, port: u16) -> std::io::Result<u64> {
    let mut socket = connect(from, port).await?;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"\x13/multistream/1.0.0\n").await;
    let mut answer = [0; 64];
    match socket.read(&mut answer).await {
        Ok(read) => Ok(u64::try_from(read).unwrap_or_default()),
        // Reset: it was closed before it read what we said.
        Err(_) => Ok(0),
    }
}

/// Messages from the friend to the attacked node; every one arrives.
fn served(house: &House) {
    let messages = if evidence() { 200 } else { 20 };
    let inbox = house.attacked.subscribe("flood", messages);
    // The friend knows who listens.
    eventually("the friend hears of the subscription", || {
        let sent = house.friend.json(&["publish", "warm", "--data", "x"]);
        let status = house.friend.json(&["status"]);
        (sent["listeners"].is_u64() && status["connected"] == 1).then_some(())
    });
    for n in 0..messages {
        let data = format!("message {n}");
        eventually("a message is sent", || {
            let sent = house.friend.json(&["publish", "flood", "--data", &data]);
            (sent["listeners"] == 1).then_some(())
        });
    }
    assert_eq!(inbox.finish().len(), messages);
    house.friend_is_served();
}

/// Denials of the node for any of these reasons.
fn denials(house: &House, reasons: &[&str]) -> u64 {
    reasons.iter().map(|reason| house.denied(reason)).sum()
}

const BEFORE_HANDSHAKE: [&str; 17] = [
    "address_rate",
    "subnet_rate",
    "relay_rate",
    "unvalidated_rate",
    "connection_rate",
    "pending_per_address",
    "pending_per_subnet",
    "pending_connections",
    "pending_unvalidated",
    "inbound_connections",
    "connections",
    "connections_per_address",
    "connections_per_subnet",
    "memory",
    "cooling_down",
    "address_banned",
    "reputation_unknown",
];

/// No refusal of a flood is missing in the counters.
fn all_counted(house: &House, outcome: &Outcome) {
    eventually("every refusal is counted", || {
        (denials(house, &BEFORE_HANDSHAKE) >= outcome.refused).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_attempts_from_one_address_cost_the_others_nothing() {
    let house = House::build("");
    let port = house.attacked.port;
    let elsewhere = from_elsewhere(Ipv4Addr::new(127, 9, 9, 9), port).await;
    let mut newcomer = house.newcomer("late", elsewhere);
    let attacker = |_| Ipv4Addr::new(127, 1, 1, 1);
    let honest = async {
        tokio::task::block_in_place(|| served(&house));
        // Somebody new, from where nobody came from before, is heard at once and let in.
        assert!(attempt(Ipv4Addr::new(127, 9, 9, 8), port).await.unwrap() > 0);
        comes(&house, &mut newcomer);
    };
    let (outcome, ()) = flood(port, attacker, honest).await;
    outcome.arrived();
    // The burst of a minute, and what is given again meanwhile.
    let allowed = outcome.allowed(100);
    assert!(outcome.heard <= allowed, "{outcome:?}, {allowed} allowed");
    all_counted(&house, &outcome);
    // And in the log they are sums, not lines.
    let sums = |log: Vec<Value>| {
        let of = |record: &&Value| record.to_string().contains("address_rate");
        log.iter().filter(of).count()
    };
    eventually("the log has the sums", || {
        (sums(house.attacked.audit()) > 0).then_some(())
    });
    let lines = sums(house.attacked.audit());
    assert!(lines < 100, "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_back_by_turns_from_many_addresses_resets_no_limit() {
    let limits = "limits.connections_per_minute_per_address = 2\n\
                  limits.connections_per_minute = 1000000\n";
    let house = House::build(limits);
    // 400 addresses, two of each /24, again and again.
    let by_turns = |n: u64| {
        Ipv4Addr::new(
            127,
            50,
            u8::try_from(n % 200).unwrap(),
            1 + u8::from(n % 400 > 199),
        )
    };
    let honest = async { tokio::task::block_in_place(|| served(&house)) };
    let (outcome, ()) = flood(house.attacked.port, by_turns, honest).await;
    outcome.arrived();
    let most = outcome.by_address.values().max().copied().unwrap_or(0);
    let allowed = outcome.allowed(2);
    assert!(
        most > 0 && most <= allowed,
        "{most} of one, {allowed} allowed"
    );
    assert!(outcome.all() > 400 * allowed, "no address came too often");
    all_counted(&house, &outcome);
}

/// Ever new addresses, hardly two of a /24.
fn rotating(n: u64) -> Ipv4Addr {
    let [.., a, b, c] = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
    Ipv4Addr::new(127, a | 2, b, c.clamp(1, 254))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filling_the_table_of_budgets_resets_no_limit() {
    // Each place of the table is taken for three seconds by one connection.
    let limits = "limits.tracked_keys = 256\n\
                  limits.connections_per_minute_per_address = 20\n\
                  limits.connections_per_minute_per_subnet = 20\n\
                  limits.connections_per_minute = 1000000\n";
    let house = House::build(limits);
    let honest = async { tokio::task::block_in_place(|| served(&house)) };
    let (outcome, ()) = flood(house.attacked.port, rotating, honest).await;
    outcome.arrived();
    // The places, as often as they were free, and what all the others share.
    let turns = 1 + (outcome.took.as_secs() + 1).div_ceil(3);
    let allowed = 256 * turns + outcome.allowed(20);
    assert!(outcome.heard <= allowed, "{outcome:?}, {allowed} allowed");
    let usage = house.attacked.json(&["limits"]);
    let limits = usage["limits"].as_array().unwrap();
    let tracked = limits
        .iter()
        .find(|one| one["name"] == "limits.tracked_keys");
    assert!(tracked.unwrap()["used"].as_u64().unwrap() <= 256);
    all_counted(&house, &outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_everywhere_leaves_a_share_to_the_hosts_of_members() {
    // Spent at once, and ten a second after that: a thousand want each of them.
    let house = House::build("limits.connections_per_minute = 600\n");
    let port = house.attacked.port;
    // A new member, from where the friend is.
    let mut newcomer = house.newcomer("late", port);
    let honest = async {
        let full = || (house.denied("connection_rate") > 0).then_some(());
        tokio::task::block_in_place(|| eventually("the budget of all is spent", full));
        comes(&house, &mut newcomer);
    };
    let (outcome, ()) = flood(port, rotating, honest).await;
    outcome.arrived();
    // Strangers have three quarters of it, whatever their addresses.
    let allowed = outcome.allowed(450);
    assert!(outcome.heard <= allowed, "{outcome:?}, {allowed} allowed");
    all_counted(&house, &outcome);
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_take_no_more_than_their_share() {
    let house = House::build("network.handshake_timeout = \"30s\"\n");
    let port = house.attacked.port;
    let attacker = Ipv4Addr::new(127, 3, 3, 3);
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(connect(attacker, port).await.unwrap());
    }
    let pending = || {
        let usage = house.attacked.json(&["limits"]);
        let limits = usage["limits"].as_array().unwrap().clone();
        let pending = limits
            .iter()
            .find(|one| one["name"] == "limits.pending_connections");
        pending.unwrap()["used"].as_u64().unwrap()
    };
    house.counted("pending_per_address", 0, 80 - 32);
    assert_eq!(pending(), 32);
    // The next /24 has a share of its own, and this one has a second half.
    for n in 0..40 {
        held.push(
            connect(Ipv4Addr::new(127, 3, 3, 100 + n), port)
                .await
                .unwrap(),
        );
    }
    house.counted("pending_per_subnet", 0, 8);
    assert_eq!(pending(), 64);
    assert!(attempt(Ipv4Addr::new(127, 4, 4, 4), port).await.unwrap() > 0);
    house.friend_is_served();
    drop(held);
    eventually("the places are free again", || {
        (pending() == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_cuts_the_peer_off_and_charges_it() {
    let house = House::build("");
    // Held open: more at once than a connection may have.
    let raw = Raw::dial(71, &house.open_address()).await;
    let mut held = Vec::new();
    while let Some(stream) = raw.one_byte().await {
        held.push(stream);
        assert!(held.len() < 1_000);
    }
    raw.cut_off().await;
    house.counted(Breach::Streams.code(), 0, 1);
    // Opened and let go: faster than the budget.
    let raw = Raw::dial(72, &house.open_address()).await;
    let mut opened = 0_u32;
    while let Some(stream) = raw.one_byte().await {
        drop(stream);
        opened += 1;
        assert!(opened < 1_000_000);
        if opened.is_multiple_of(20) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    raw.cut_off().await;
    let reasons = [Breach::StreamRate.code(), Breach::Streams.code()];
    eventually("it is counted", || {
        (denials(&house, &reasons) >= 2).then_some(())
    });
    let charged = || {
        let log = house.attacked.audit();
        let charged = log.iter().filter(|record| {
            let text = record.to_string();
            text.contains("handshake_abuse") && text.contains("streams")
        });
        charged.count()
    };
    // The charge gets to the log through two actors.
    eventually("both are charged", || (charged() >= 2).then_some(()));
    assert_eq!(charged(), 2);
    house.friend_is_served();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_with_the_victims_credential_harms_the_victim_nowhere() {
    let house = House::build("");
    let credential = std::fs::read(house.friend.dir.join("node.credential")).unwrap();
    let liar = house.stranger("liar");
    let key = NodeKey::from_seed(&[81; 32]);
    let mut refused = 0;
    for _ in 0..8 {
        let outcome = peer::present(&key, &credential, &house.attacked.address()).await;
        refused += u32::from(outcome.is_err());
    }
    assert_eq!(refused, 8);
    let bans = house.attacked.json(&["peers", "bans"]).to_string();
    assert!(!bans.contains(&house.friend.peer_id()), "{bans}");
    drop(liar);
    house.friend_is_served();
}
