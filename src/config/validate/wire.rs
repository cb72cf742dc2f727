//! `[network]`, `[gossip]`, `[limits]`: what meets strangers.

use std::{net::IpAddr, time::Duration};

use multiaddr::{Multiaddr, Protocol};

use super::check::Check;
use crate::{
    admin::protocol::MAX_PAYLOAD,
    config::{Config, LimitsConfig, clip},
    network::envelope::MAX_ENTRIES,
    types::{PeerId, SecurityLevel},
};

/// Most `network.connection_threads`: more cores than any machine this runs on has to spare.
const MAX_THREADS: u64 = 64;
/// Longest `gossip.batch_delay`: a tenth of the patience of whoever publishes.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

pub(super) fn network(check: &mut Check, config: &Config) {
    let network = &config.network;
    for (key, addresses) in [
        ("network.listen", &network.listen),
        ("network.open_listen", &network.open_listen),
    ] {
        check.list(key, addresses.len());
        for (index, address) in addresses.iter().enumerate() {
            if let Err(wrong) = listen_address(address) {
                let remedy = "write /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or \
                              /ip6/…)";
                check.fail(&format!("{key}[{index}]"), wrong, remedy);
            }
        }
    }
    check.that(
        !network.listen.is_empty()
            || !network.open_listen.is_empty()
            || !network.bootstrap.is_empty(),
        "network.listen",
        "is empty, and there is no open_listen or bootstrap either: the node would be alone",
        "write for example [\"/ip4/0.0.0.0/tcp/4001\"]",
    );
    for (index, address) in network.open_listen.iter().enumerate() {
        check.that(
            !network.listen.contains(address) || has_port_zero(address),
            &format!("network.open_listen[{index}]"),
            "is also in network.listen",
            "give the open listener a port of its own",
        );
    }
    check.list("network.bootstrap", network.bootstrap.len());
    for (index, address) in network.bootstrap.iter().enumerate() {
        if let Err(wrong) = bootstrap_address(address) {
            let remedy = "write /ip4/ADDRESS/tcp/PORT/p2p/PEER, where PEER is what `quantraband \
                          status` of that node prints (12D3KooW…); for QUIC \
                          /ip4/ADDRESS/udp/PORT/quic-v1/p2p/PEER";
            check.fail(&format!("network.bootstrap[{index}]"), wrong, remedy);
        }
    }
    check.span("network.handshake_timeout", network.handshake_timeout);
    check.span("network.identity_timeout", network.identity_timeout);
    check.span("network.request_timeout", network.request_timeout);
    check.span("network.idle_timeout", network.idle_timeout);
    check.span("network.ping_interval", network.ping_interval);
    check.span("network.ping_timeout", network.ping_timeout);
    check.span("network.dial_backoff_initial", network.dial_backoff_initial);
    check.span("network.dial_backoff_max", network.dial_backoff_max);
    check.number(
        "network.connection_threads",
        network.connection_threads,
        0,
        MAX_THREADS,
    );
    check.ordered(
        ("network.dial_backoff_initial", network.dial_backoff_initial),
        ("network.dial_backoff_max", network.dial_backoff_max),
    );
}

/// `[transport]`: QUIC cannot prove its key exchange, so strictness and QUIC exclude each other.
pub(super) fn transport(check: &mut Check, config: &Config) {
    let transport = &config.transport;
    check.list("transport.peers", transport.peers.len());
    let strict = |level: &SecurityLevel| *level == SecurityLevel::RequireHybrid;
    if !strict(&transport.security) || !transport.peers.values().all(strict) {
        return;
    }
    for (key, addresses) in [
        ("network.listen", &config.network.listen),
        ("network.open_listen", &config.network.open_listen),
    ] {
        for (index, address) in addresses.iter().enumerate() {
            check.relation(
                !is_quic(address),
                &[&format!("{key}[{index}]"), "transport.security"],
                "listens for QUIC, which cannot prove a hybrid key exchange, while \
                 transport.security is \"require-hybrid\"",
                "remove the address, or write \"prefer-hybrid\"",
            );
        }
    }
    for (index, address) in config.network.bootstrap.iter().enumerate() {
        check.relation(
            !is_quic(address),
            &[&format!("network.bootstrap[{index}]"), "transport.security"],
            "would be dialled by QUIC, which cannot prove a hybrid key exchange, while \
             transport.security is \"require-hybrid\"",
            "write its TCP address, or \"prefer-hybrid\"",
        );
    }
}

/// Whether the connection itself, and not only the way to a relay, is QUIC.
fn is_quic(address: &Multiaddr) -> bool {
    let has = |wanted: Protocol<'_>| address.iter().any(|part| part == wanted);
    has(Protocol::QuicV1) && !is_circuit(address)
}

pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// `/ip4|ip6/…/tcp/N` or `/ip4|ip6/…/udp/N/quic-v1`, and nothing after it.
pub(super) fn listen_address(address: &Multiaddr) -> Result<(), String> {
    let mut parts = address.iter();
    let host = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Tcp(_)), None, None) if host => Ok(()),
        (Some(Protocol::Udp(_)), Some(Protocol::QuicV1), None) if host => Ok(()),
        _ => Err(format!(
            "`{address}` is no TCP or QUIC address to listen on"
        )),
    }
}

/// `/ip4|ip6|dns*/…/tcp/N/p2p/PEER` or `…/udp/N/quic-v1/p2p/PEER`, where PEER is an Ed25519 key.
pub(super) fn bootstrap_address(address: &Multiaddr) -> Result<(), String> {
    let mut parts = address.iter();
    let host = parts.next();
    let host_is_good = matches!(
        host,
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        )
    );
    let port_is_good = match parts.next() {
        Some(Protocol::Tcp(port)) => port != 0,
        Some(Protocol::Udp(port)) => port != 0 && parts.next() == Some(Protocol::QuicV1),
        _ => false,
    };
    if !host_is_good || !port_is_good {
        return Err(format!(
            "`{address}` does not begin with a host and a TCP port, or a UDP port for QUIC"
        ));
    }
    let peer = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::P2p(peer)), None, None, None) => Some(peer),
        // Through a relay, which is at the first part.
        (Some(Protocol::P2p(_)), Some(Protocol::P2pCircuit), Some(Protocol::P2p(peer)), None) => {
            Some(peer)
        }
        _ => None,
    };
    match peer {
        Some(peer) => PeerId::from_bytes(&peer.to_bytes())
            .map(|_| ())
            .map_err(|error| format!("`{address}`: {error}")),
        None => Err(format!("`{address}` does not end in the peer it leads to")),
    }
}

fn has_port_zero(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| matches!(part, Protocol::Tcp(0) | Protocol::Udp(0)))
}

pub(super) fn gossip(check: &mut Check, config: &Config) {
    let gossip = &config.gossip;
    check.span("gossip.heartbeat", gossip.heartbeat);
    check.that(
        gossip.heartbeat.0 >= Duration::from_millis(50) || gossip.heartbeat.0.is_zero(),
        "gossip.heartbeat",
        "is shorter than a busy machine can keep",
        "write at least \"50ms\"",
    );
    check.span("gossip.duplicate_cache", gossip.duplicate_cache);
    // gossipsub gossips over 3 heartbeats of the history, which must hold them and one more.
    check.number("gossip.history_length", gossip.history_length, 4, 1_000);
    check.that(
        gossip.batch_delay.0 <= LONGEST_DELAY,
        "gossip.batch_delay",
        "is longer than anybody waits for an answer",
        "write at most \"1s\"; \"0s\" sends at once",
    );
    let largest = config.limits.max_message_size.0;
    check.number(
        "gossip.batch_size",
        gossip.batch_size.0,
        1,
        MAX_PAYLOAD as u64,
    );
    check.relation(
        gossip.batch_size.0 <= largest,
        &["gossip.batch_size", "limits.max_message_size"],
        "is more than one message may have, and no batch may be longer",
        "lower the first or raise the second",
    );
    check.number(
        "gossip.batch_count",
        gossip.batch_count,
        1,
        MAX_ENTRIES as u64,
    );
    check.relation(
        u64::try_from(gossip.batch_count).unwrap_or(u64::MAX)
            <= u64::from(config.limits.message_burst),
        &["gossip.batch_count", "limits.message_burst"],
        "is more than one author may send at once; neighbours configured alike would refuse such \
         batches",
        "lower it or raise limits.message_burst, here and at the neighbours",
    );
    check.queue("gossip.neighbour_queue", gossip.neighbour_queue);
    check.queue("gossip.subscriber_queue", gossip.subscriber_queue);
}

/// Fewest streams a connection can work with: two of gossip and one each of the other protocols.
const MIN_STREAMS: u64 = 96;
/// Most streams a peer may be let have: the muxer holds 256, both directions together.
const MAX_PEER_STREAMS: u64 = 192;
/// A node that has just started takes some tens of megabytes.
const MIN_MEMORY: u64 = 64_000_000;

pub(super) fn limits(check: &mut Check, config: &Config) {
    let limits = &config.limits;
    let most = u64::from(u32::MAX);
    for (key, value) in [
        (
            "connections_per_minute_per_address",
            limits.connections_per_minute_per_address,
        ),
        (
            "connections_per_minute_per_subnet",
            limits.connections_per_minute_per_subnet,
        ),
        (
            "connections_per_minute_per_relay",
            limits.connections_per_minute_per_relay,
        ),
        ("connections_per_minute", limits.connections_per_minute),
        ("connections", limits.connections),
        ("inbound_connections", limits.inbound_connections),
        ("outbound_connections", limits.outbound_connections),
        ("connections_per_peer", limits.connections_per_peer),
        ("connections_per_address", limits.connections_per_address),
        ("connections_per_subnet", limits.connections_per_subnet),
        ("pending_connections", limits.pending_connections),
        ("pending_per_address", limits.pending_per_address),
        ("pending_per_subnet", limits.pending_per_subnet),
        ("streams_per_second", limits.streams_per_second),
        ("stream_burst", limits.stream_burst),
        ("messages_per_second", limits.messages_per_second),
        ("message_burst", limits.message_burst),
        ("job_requests_per_second", limits.job_requests_per_second),
        ("job_request_burst", limits.job_request_burst),
        ("frames_per_second", limits.frames_per_second),
        ("frame_burst", limits.frame_burst),
    ] {
        check.number(&format!("limits.{key}"), value, 1, most);
    }
    let streams = limits.streams_per_connection;
    check.number(
        "limits.streams_per_connection",
        streams,
        MIN_STREAMS,
        MAX_PEER_STREAMS,
    );
    check.number("limits.memory", limits.memory.0, MIN_MEMORY, u64::MAX);
    relations(check, limits);
    let largest = limits.max_message_size.0;
    check.number("limits.max_message_size", largest, 1, MAX_PAYLOAD as u64);
    check.ordered(
        ("limits.max_message_size", limits.max_message_size),
        ("limits.bytes_per_second", limits.bytes_per_second),
    );
    check.number(
        "limits.bytes_per_second",
        limits.bytes_per_second.0,
        1,
        u64::from(u32::MAX),
    );
    check.table("limits.tracked_keys", limits.tracked_keys);
    check.queue("limits.pending_decisions", limits.pending_decisions);
    check.list("limits.exempt_networks", limits.exempt_networks.len());
    for (index, network) in limits.exempt_networks.iter().enumerate() {
        if !is_cidr(network) {
            check.fail(
                &format!("limits.exempt_networks[{index}]"),
                format!("`{}` is no network", clip(network)),
                "write for example \"10.0.0.0/8\" or \"fd00::/8\"",
            );
        }
    }
}

/// The narrower limit is never above the wider one, where it would do nothing.
fn relations(check: &mut Check, limits: &LimitsConfig) {
    check.ordered(
        (
            "limits.connections_per_minute_per_address",
            limits.connections_per_minute_per_address,
        ),
        (
            "limits.connections_per_minute_per_subnet",
            limits.connections_per_minute_per_subnet,
        ),
    );
    check.ordered(
        (
            "limits.connections_per_minute_per_subnet",
            limits.connections_per_minute_per_subnet,
        ),
        (
            "limits.connections_per_minute",
            limits.connections_per_minute,
        ),
    );
    check.ordered(
        ("limits.connections_per_peer", limits.connections_per_peer),
        ("limits.connections", limits.connections),
    );
    check.ordered(
        (
            "limits.connections_per_address",
            limits.connections_per_address,
        ),
        (
            "limits.connections_per_subnet",
            limits.connections_per_subnet,
        ),
    );
    check.ordered(
        ("limits.pending_per_address", limits.pending_per_address),
        ("limits.pending_connections", limits.pending_connections),
    );
}

/// `ADDRESS/BITS`, the bits after the prefix zero.
fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match address {
        IpAddr::V4(ip) => bits <= 32 && ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
        IpAddr::V6(ip) => bits <= 128 && ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
    }
}
