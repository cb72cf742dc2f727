//! Floods: connection attempts from one address and from many, half-open ones, streams, a liar.
//! What is asserted are counts and states; times are printed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quantraband::{
    identity::NodeKey,
    network::secure::Breach,
    types::{Clock, SystemClock},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    common::{eventually, peer},
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
    refused: AtomicU64,
    /// Answered: the node began a handshake.
    heard: AtomicU64,
    /// Never connected: the listener's queue was full.
    failed: AtomicU64,
}

/// Connects again and again from addresses of `from`, says what a libp2p client says, and waits
/// for the answer. At most 10,000 a second.
async fn flood(port: u16, from: fn(u64) -> Ipv4Addr) -> Arc<Outcome> {
    let outcome = Arc::new(Outcome::default());
    let next = Arc::new(AtomicU64::new(0));
    let clock = SystemClock::new();
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (outcome, next) = (Arc::clone(&outcome), Arc::clone(&next));
        attackers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= attempts() {
                    return;
                }
                let due = Duration::from_micros(n * 100);
                let early = due.saturating_sub(clock.elapsed());
                if early > Duration::from_millis(1) {
                    tokio::time::sleep(early).await;
                }
                let count = match attempt(from(n), port).await {
                    Ok(0) => &outcome.refused,
                    Ok(_) => &outcome.heard,
                    Err(_) => &outcome.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while attackers.join_next().await.is_some() {}
    println!(
        "{} attempts in {:?}: {outcome:?}",
        attempts(),
        clock.elapsed()
    );
    outcome
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

/// Messages from the friend to the attacked node while `work` goes on; every one arrives.
async fn served_during<T>(house: &House, work: impl Future<Output = T>) -> T {
    let messages = if evidence() { 200 } else { 20 };
    let inbox = house.attacked.subscribe("flood", messages);
    // The friend knows who listens.
    eventually("the friend hears of the subscription", || {
        let sent = house.friend.json(&["publish", "warm", "--data", "x"]);
        let status = house.friend.json(&["status"]);
        (sent["listeners"].is_u64() && status["connected"] == 1).then_some(())
    });
    let sending = async {
        for n in 0..messages {
            let data = format!("message {n}");
            tokio::task::block_in_place(|| {
                loop {
                    let sent = house.friend.json(&["publish", "flood", "--data", &data]);
                    if sent["listeners"] == 1 {
                        break;
                    }
                }
            });
            tokio::task::yield_now().await;
        }
    };
    let (done, ()) = tokio::join!(work, sending);
    let heard = tokio::task::block_in_place(|| inbox.finish());
    assert_eq!(heard.len(), messages);
    house.friend_is_served();
    done
}

/// Denials of the node for any of these reasons.
fn denials(house: &House, reasons: &[&str]) -> u64 {
    reasons.iter().map(|reason| house.denied(reason)).sum()
}

const BEFORE_HANDSHAKE: [&str; 8] = [
    "address_rate",
    "subnet_rate",
    "connection_rate",
    "pending_per_address",
    "pending_per_subnet",
    "pending_connections",
    "cooling_down",
    "address_banned",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_attempts_from_one_address_cost_the_others_nothing() {
    let house = House::build("");
    let port = house.attacked.port;
    let outcome = served_during(&house, flood(port, |_| Ipv4Addr::new(127, 1, 1, 1))).await;
    let refused = outcome.refused.load(Ordering::Relaxed);
    let heard = outcome.heard.load(Ordering::Relaxed);
    let failed = outcome.failed.load(Ordering::Relaxed);
    assert_eq!(refused + heard + failed, attempts());
    // The burst of a minute, and what is given again meanwhile, at 100 a minute.
    let allowed = 100 + (attempts() / 100);
    assert!(heard <= allowed, "{heard} were heard");
    let counted = || denials(&house, &BEFORE_HANDSHAKE);
    eventually("every refusal is counted", || {
        (counted() >= refused.saturating_sub(allowed)).then_some(())
    });
    println!("counted {} denials", counted());
    // And in the log they are sums, not lines.
    let log = house.attacked.audit();
    let sums: Vec<_> = log
        .iter()
        .filter(|record| record.to_string().contains("address_rate"))
        .collect();
    assert!(!sums.is_empty() && sums.len() < 100, "{}", sums.len());
    // Somebody new, from elsewhere, is heard at once.
    assert!(attempt(Ipv4Addr::new(127, 9, 9, 9), port).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_addresses_resets_no_limit() {
    // A table that the attackers fill many times over.
    let limits = "limits.tracked_keys = 256\nlimits.connections_per_minute = 600\n";
    let house = House::build(limits);
    let clock = SystemClock::new();
    let rotating = |n: u64| {
        let [.., a, b, c] = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
        Ipv4Addr::new(127, a | 2, b, c.clamp(1, 254))
    };
    let outcome = served_during(&house, flood(house.attacked.port, rotating)).await;
    let heard = outcome.heard.load(Ordering::Relaxed);
    // In all: a burst of 600 and 10 a second, whatever the addresses.
    let allowed = 600 + 10 * (clock.elapsed().as_secs() + 1);
    assert!(heard <= allowed, "{heard} were heard");
    let usage = house.attacked.json(&["limits"]);
    let limits = usage["limits"].as_array().unwrap();
    let tracked = limits
        .iter()
        .find(|one| one["name"] == "limits.tracked_keys");
    assert!(tracked.unwrap()["used"].as_u64().unwrap() <= 256);
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
    let log = house.attacked.audit();
    let charged = log.iter().filter(|record| {
        let text = record.to_string();
        text.contains("handshake_abuse") && text.contains("streams")
    });
    assert_eq!(charged.count(), 2);
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
