//! The optional behaviours, as the configuration wants them.

use std::{collections::HashSet, num::NonZeroU32, sync::Arc, time::Duration};

use libp2p::{
    autonat::v2 as autonat,
    dcutr, kad,
    relay::{self, client},
    swarm::behaviour::toggle::Toggle,
};

use super::{DialBook, Dials, MembersOnly, Nearby, Purpose, Rate, Walker, scope};
use crate::{
    config::{Config, DiscoveryMode},
    network::{Attribution, attribution::Attributed, convert, gate::GateKeeper, gate::Ledger},
    types::Clock,
};

/// Addresses of this node that are tried for reachability.
const MAX_CANDIDATES: usize = 8;
/// Time between two such tries.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// What one peer's connections may report of hole punching: the crate keeps something of each round
/// for good. One has three tries, and each is reported twice.
const PUNCH_REPORTS: Rate = Rate {
    burst: 8,
    refill: Duration::from_secs(20),
};
const MINUTE: Duration = Duration::from_secs(60);

/// Behaviours that may be off.
pub(in crate::network) struct Extras {
    pub(in crate::network) dials: Dials,
    pub(in crate::network) walker: Toggle<MembersOnly<Attributed<Walker>>>,
    pub(in crate::network) mdns: Toggle<Nearby>,
    pub(in crate::network) relay: Toggle<MembersOnly<Attributed<relay::Behaviour>>>,
    pub(in crate::network) circuits: Toggle<MembersOnly<Attributed<client::Behaviour>>>,
    pub(in crate::network) punch: Toggle<MembersOnly<Attributed<dcutr::Behaviour>>>,
    pub(in crate::network) probe: Toggle<MembersOnly<Attributed<autonat::client::Behaviour>>>,
    pub(in crate::network) prober: Toggle<MembersOnly<Attributed<autonat::server::Behaviour>>>,
}

/// The two ends of circuits, when they are wanted.
pub(in crate::network) fn circuits(
    config: &Config,
    me: libp2p::PeerId,
) -> Option<(client::Transport, client::Behaviour)> {
    config.relay.client.then(|| client::new(me))
}

/// What the configuration switches on, behind `ledger`'s records.
///
/// # Errors
/// When the machine lets nobody listen for multicast.
pub(in crate::network) fn extras(
    config: &Config,
    me: libp2p::PeerId,
    circuits: Option<client::Behaviour>,
    ledger: &Ledger,
    (keeper, clock): (Arc<dyn GateKeeper>, Arc<dyn Clock>),
    attribution: &Arc<dyn Attribution>,
) -> std::io::Result<Extras> {
    let (discovery, relay) = (&config.discovery, &config.relay);
    let book = DialBook::default();
    let mode = match discovery.mode {
        DiscoveryMode::Auto => None,
        DiscoveryMode::Server => Some(kad::Mode::Server),
        DiscoveryMode::Client => Some(kad::Mode::Client),
    };
    let walker = discovery.kademlia.then(|| Walker::new(me, mode));
    let mdns = match discovery.mdns {
        true => Some(Nearby::new(me, clock.clone())?),
        false => None,
    };
    let server = relay
        .server
        .then(|| relay::Behaviour::new(me, limits(config)));
    let punch = relay.hole_punching.then(|| {
        let inner = Attributed::new(dcutr::Behaviour::new(me), Arc::clone(attribution));
        let book = book.clone();
        MembersOnly::dialling(inner, ledger.clone(), book, Purpose::Punch)
            .throttled(PUNCH_REPORTS, clock.clone())
    });
    let probing = autonat::client::Config::default()
        .with_max_candidates(MAX_CANDIDATES)
        .with_probe_interval(PROBE_INTERVAL);
    let probe = discovery
        .autonat_client
        .then(|| autonat::client::Behaviour::new(libp2p_rng(), probing));
    let prober = discovery
        .autonat_server
        .then(autonat::server::Behaviour::default);
    Ok(Extras {
        dials: Dials::new(
            keeper,
            book.clone(),
            configured(config),
            discovery.private_addresses,
            clock,
        ),
        walker: only(walker, ledger, attribution, None),
        mdns: mdns.into(),
        relay: only(server, ledger, attribution, None),
        circuits: only(circuits, ledger, attribution, Some((&book, Purpose::Relay))),
        punch: punch.into(),
        probe: only(probe, ledger, attribution, None),
        prober: only(prober, ledger, attribution, Some((&book, Purpose::Probe))),
    })
}

fn libp2p_rng() -> rand::rngs::StdRng {
    rand::make_rng()
}

fn only<B: libp2p::swarm::NetworkBehaviour>(
    inner: Option<B>,
    ledger: &Ledger,
    attribution: &Arc<dyn Attribution>,
    dials: Option<(&DialBook, Purpose)>,
) -> Toggle<MembersOnly<Attributed<B>>> {
    inner
        .map(|inner| {
            let inner = Attributed::new(inner, Arc::clone(attribution));
            match dials {
                Some((book, purpose)) => {
                    MembersOnly::dialling(inner, ledger.clone(), book.clone(), purpose)
                }
                None => MembersOnly::new(inner, ledger.clone()),
            }
        })
        .into()
}

/// Peers whose addresses the operator wrote down, relays on the way included.
fn configured(config: &Config) -> HashSet<libp2p::PeerId> {
    let all = config.network.bootstrap.iter().chain(&config.relay.reserve);
    all.flat_map(|address| [convert::split_p2p(address).1, scope::relay_of(address)])
        .flatten()
        .collect()
}

/// The limits of the relay. Rates are per peer: who is a member is known, and an address may be
/// many members'.
fn limits(config: &Config) -> relay::Config {
    let relay = &config.relay;
    let rate = NonZeroU32::new(relay.requests_per_minute).unwrap_or(NonZeroU32::MIN);
    // The crate's limiter fills one token an interval.
    let interval = MINUTE.checked_div(rate.get()).unwrap_or(MINUTE);
    let limits = relay::Config {
        max_reservations: relay.reservations,
        max_reservations_per_peer: one_less(relay.reservations_per_peer),
        reservation_duration: relay.reservation_time.0,
        max_circuits: relay.circuits,
        max_circuits_per_peer: one_less(relay.circuits_per_peer),
        max_circuit_duration: relay.circuit_time.0,
        max_circuit_bytes: relay.circuit_bytes.0,
        reservation_rate_limiters: Vec::new(),
        circuit_src_rate_limiters: Vec::new(),
    };
    limits
        .reservation_rate_per_peer(rate, interval)
        .circuit_src_per_peer(rate, interval)
}

/// The crate allows one more of one peer than it is told (`>` where it is `>=` for the totals).
fn one_less(limit: usize) -> usize {
    limit.saturating_sub(1)
}
