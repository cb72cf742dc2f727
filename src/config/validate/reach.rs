//! `[outward]`, `[discovery]`, `[relay]`: calling, finding and reaching others.

use std::time::Duration;

use super::{
    check::Check,
    wire::{bootstrap_address, is_circuit, listen_address},
};
use crate::{
    config::{Config, RelayConfig},
    network::outward::MAX_CALLS,
};

/// Most found peers to be connected to.
const MAX_PEERS: u64 = 4_096;
/// Shortest time between two walks: each asks some twenty peers.
const SHORTEST_WALK: Duration = Duration::from_secs(1);
/// Most places and circuits of a relay.
const MAX_RELAYED: u64 = 65_536;

pub(super) fn outward(check: &mut Check, config: &Config) {
    let outward = &config.outward;
    for (key, value) in [
        ("failures", outward.failures),
        ("probes", outward.probes),
        ("successes", outward.successes),
        ("attempts", outward.attempts),
    ] {
        check.number(&format!("outward.{key}"), value, 1, 1_000);
    }
    for (key, value) in [
        ("requests_per_second", outward.requests_per_second),
        ("request_burst", outward.request_burst),
    ] {
        check.number(&format!("outward.{key}"), value, 1, 1_000_000);
    }
    check.number("outward.retry_reserve", outward.retry_reserve, 0, 1_000_000);
    let most = MAX_CALLS as u64;
    check.number("outward.requests", outward.requests, 1, most);
    check.number(
        "outward.requests_per_peer",
        outward.requests_per_peer,
        1,
        most,
    );
    check.ordered(
        ("outward.requests_per_peer", outward.requests_per_peer),
        ("outward.requests", outward.requests),
    );
    for (key, span) in [
        ("failures_window", outward.failures_window),
        ("open", outward.open),
        ("open_max", outward.open_max),
        ("settle", outward.settle),
        ("lost_after", outward.lost_after),
        ("retry_initial", outward.retry_initial),
        ("retry_max", outward.retry_max),
        ("retry_deadline", outward.retry_deadline),
    ] {
        check.span(&format!("outward.{key}"), span);
    }
    check.ordered(
        ("outward.open", outward.open),
        ("outward.open_max", outward.open_max),
    );
    check.ordered(
        ("outward.retry_initial", outward.retry_initial),
        ("outward.retry_max", outward.retry_max),
    );
}

pub(super) fn discovery(check: &mut Check, config: &Config) {
    let discovery = &config.discovery;
    check.number("discovery.peers", discovery.peers, 1, MAX_PEERS);
    check.span("discovery.walk", discovery.walk);
    check.that(
        discovery.walk.0 >= SHORTEST_WALK || discovery.walk.0.is_zero(),
        "discovery.walk",
        "is so short that walks would never end",
        "write at least \"1s\"",
    );
    check.list("discovery.announce", discovery.announce.len());
    for (index, address) in discovery.announce.iter().enumerate() {
        if let Err(wrong) = listen_address(address) {
            check.fail(
                &format!("discovery.announce[{index}]"),
                wrong,
                "write /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or /ip6/…), without \
                 the peer",
            );
        }
    }
}

pub(super) fn relay(check: &mut Check, config: &Config) {
    let relay = &config.relay;
    check.list("relay.reserve", relay.reserve.len());
    for (index, address) in relay.reserve.iter().enumerate() {
        let good = bootstrap_address(address).and_then(|()| match is_circuit(address) {
            true => Err(format!("`{address}` is itself reached through a relay")),
            false => Ok(()),
        });
        if let Err(wrong) = good {
            let remedy = "write the relay's own address, /ip4/ADDRESS/tcp/PORT/p2p/PEER";
            check.fail(&format!("relay.reserve[{index}]"), wrong, remedy);
        }
    }
    check.relation(
        relay.reserve.is_empty() || relay.client,
        &["relay.reserve", "relay.client"],
        "names relays, and relay.client is false",
        "set relay.client to true",
    );
    check.relation(
        !relay.hole_punching || relay.client,
        &["relay.hole_punching", "relay.client"],
        "there is nothing to replace while relay.client is false",
        "set relay.client to true",
    );
    let discovery = &config.discovery;
    check.relation(
        !relay.server || !discovery.announce.is_empty() || discovery.autonat_client,
        &[
            "relay.server",
            "discovery.announce",
            "discovery.autonat_client",
        ],
        "is set, and the node knows no address at which it could be reached: nobody could use a \
         place there",
        "write such addresses to discovery.announce, or have them found by \
         discovery.autonat_client",
    );
    let circuit = config.network.bootstrap.iter().any(is_circuit);
    check.relation(
        !circuit || relay.client,
        &["network.bootstrap", "relay.client"],
        "has an address through a relay, and relay.client is false",
        "set relay.client to true",
    );
    relay_limits(check, relay);
}

fn relay_limits(check: &mut Check, relay: &RelayConfig) {
    for (key, value) in [
        ("reservations", relay.reservations),
        ("reservations_per_peer", relay.reservations_per_peer),
        ("circuits", relay.circuits),
        ("circuits_per_peer", relay.circuits_per_peer),
    ] {
        check.number(&format!("relay.{key}"), value, 1, MAX_RELAYED);
    }
    check.number(
        "relay.requests_per_minute",
        relay.requests_per_minute,
        1,
        60_000,
    );
    check.number(
        "relay.circuit_bytes",
        relay.circuit_bytes.0,
        1 << 16,
        1 << 40,
    );
    check.span("relay.reservation_time", relay.reservation_time);
    check.span("relay.circuit_time", relay.circuit_time);
    // What a relay tells of its limits has 32 bits.
    for (key, span) in [
        ("relay.reservation_time", relay.reservation_time),
        ("relay.circuit_time", relay.circuit_time),
    ] {
        check.that(
            span.0 <= Duration::from_hours(24 * 365),
            key,
            "is longer than a year",
            "write at most \"365d\"",
        );
    }
}
