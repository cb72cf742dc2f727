//! Puts the Swarm together. Binds nothing: the caller listens and dials.

use std::{sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, Swarm, Transport, TransportError,
    core::transport::{Boxed, ListenerId},
    identify,
    identity::Keypair,
    ping, relay,
    swarm::{self, NetworkBehaviour},
};
use thiserror::Error;

use super::{
    Admission, Attribution, GateKeeper, Listeners, NodeBehaviour, Tasks, admission,
    attribution::Attributed,
    convert, discovery,
    discovery::{Hearsay, Observed},
    exchange,
    gate::{Gated, Ledger, Rules},
    gossip,
    secure::{FEWEST_STREAMS, Policy, Secure, Secured, SetupError, StreamLimits},
};
use crate::{
    config::Config,
    types::{Clock, PeerIdError},
};

/// Protocol version that identify tells; peers of other versions still connect.
const PROTOCOL_VERSION: &str = "/quantraband/1";
/// Program and version that identify tells.
const AGENT_VERSION: &str = concat!("quantraband/", env!("CARGO_PKG_VERSION"));
/// Inbound streams of one connection whose protocol is not settled yet; more are dropped. The
/// node's protocols open two at once at most.
const NEGOTIATING_STREAMS: usize = 32;

/// How long an answer of the job protocol may take: the longest wait it allows, one durable record
/// and a slow line.
const JOB_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests of the job protocol under way on one connection, in each direction.
const JOB_STREAMS: usize = 64;

/// How long an answer of the identity protocol may take: 400 KB on a slow line.
const IDENTITY_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Its requests under way on one connection, in each direction.
const IDENTITY_STREAMS: usize = 16;
/// How long an answer of the enrolment protocol may take: a few durable writes of a busy issuer.
const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer of the administration protocol may take: a reload tries policies first.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(70);
/// The longest of these deadlines: whoever takes a request for lost before takes a live one for it.
pub const LONGEST_REQUEST: Duration = ADMIN_TIMEOUT;
/// Commands under way on one connection, both directions together; each holds at most an answer.
const ADMIN_STREAMS: usize = 4;
/// Requests of the enrolment protocol under way on one connection: one each way, and one more.
const ENROLMENT_STREAMS: usize = 4;
// Gossip, identify, pings and what finds peers have the rest.
const _: () = assert!(
    JOB_STREAMS + IDENTITY_STREAMS + ADMIN_STREAMS + ENROLMENT_STREAMS + 8 <= FEWEST_STREAMS
);

/// Everything a Swarm is made of.
pub struct Setup<'a> {
    /// The node's Ed25519 seed; its peer id follows from it.
    pub seed: &'a [u8; 32],
    /// The whole configuration: `network`, `transport`, `gossip` and `limits` are read.
    pub config: &'a Config,
    /// Judges peers inside the upgrade.
    pub keeper: Arc<dyn GateKeeper>,
    /// Judges addresses before the handshake.
    pub admission: Arc<dyn Admission>,
    /// Says which peers may listen to which topics.
    pub listeners: Arc<dyn Listeners>,
    /// Told whose input is handled.
    pub attribution: Arc<dyn Attribution>,
    /// Dates denials.
    pub clock: Arc<dyn Clock>,
    /// Runs connection tasks.
    pub tasks: Tasks,
}

/// Why no Swarm could be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The seed is no key.
    #[error("the node key: {0}; restore DATA/node.key from a backup")]
    Key(#[from] libp2p::identity::DecodingError),
    /// The key has no name here.
    #[error("the node key: {0}")]
    Name(#[from] PeerIdError),
    /// The secure channel could not make its keys.
    #[error("the secure channel: {0}")]
    Channel(#[from] SetupError),
    /// Multicast is not to be had.
    #[error("discovery.mdns: {0}")]
    Multicast(#[source] std::io::Error),
    /// Gossipsub refuses its configuration.
    #[error("[gossip]: {0}")]
    Gossip(String),
}

/// The node's Swarm.
///
/// # Errors
/// As [`BuildError`] says.
pub fn build(setup: &Setup<'_>) -> Result<Swarm<NodeBehaviour>, BuildError> {
    build_with(setup, |node| node)
}

/// A Swarm whose behaviour contains the node's, for example with a probe behind it.
///
/// # Errors
/// As [`BuildError`] says.
pub fn build_with<B: NetworkBehaviour>(
    setup: &Setup<'_>,
    wrap: impl FnOnce(NodeBehaviour) -> B,
) -> Result<Swarm<B>, BuildError> {
    let secure = secure_for(setup)?;
    let key = Keypair::ed25519_from_bytes(*setup.seed)?;
    let me = key.public().to_peer_id();
    let (transport, circuits) = discovery::circuits(setup.config, me).unzip();
    let deadline = setup.config.network.handshake_timeout.0;
    let secured = secure.transport_with(&key, deadline, transport);
    assemble(setup, secured, circuits, wrap)
}

/// The secure channel of this setup, to put over transports of one's own.
///
/// # Errors
/// As [`BuildError`] says.
pub fn secure_for(setup: &Setup<'_>) -> Result<Secure, BuildError> {
    let key = Keypair::ed25519_from_bytes(*setup.seed)?;
    let policy = Policy::from(&setup.config.transport);
    Ok(Secure::new(&key, policy)?)
}

/// As [`build_with`], over a transport of the caller's: one that relays, for example. The gate is
/// put around it.
///
/// # Errors
/// As [`BuildError`] says.
pub fn build_over<B: NetworkBehaviour>(
    setup: &Setup<'_>,
    secured: Boxed<Secured>,
    wrap: impl FnOnce(NodeBehaviour) -> B,
) -> Result<Swarm<B>, BuildError> {
    assemble(setup, secured, None, wrap)
}

fn assemble<B: NetworkBehaviour>(
    setup: &Setup<'_>,
    secured: Boxed<Secured>,
    circuits: Option<relay::client::Behaviour>,
    wrap: impl FnOnce(NodeBehaviour) -> B,
) -> Result<Swarm<B>, BuildError> {
    let key = Keypair::ed25519_from_bytes(*setup.seed)?;
    let network = &setup.config.network;
    let ledger = Ledger::default();
    let rules = Rules {
        me: convert::from_libp2p(&key.public().to_peer_id())?,
        policy: Policy::from(&setup.config.transport),
        keeper: setup.keeper.clone(),
        deadline: network.identity_timeout.0,
        streams: StreamLimits::from(&setup.config.limits),
        clock: setup.clock.clone(),
    };
    let gated = Gated::new(secured, ledger.clone(), rules);
    let behaviour = wrap(behaviour(&key, ledger, circuits, setup)?);
    let config = swarm::Config::with_executor(setup.tasks.clone())
        .with_idle_connection_timeout(network.idle_timeout.0)
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS);
    let local = key.public().to_peer_id();
    Ok(Swarm::new(gated.boxed(), behaviour, local, config))
}

fn behaviour(
    key: &Keypair,
    ledger: Ledger,
    circuits: Option<relay::client::Behaviour>,
    setup: &Setup<'_>,
) -> Result<NodeBehaviour, BuildError> {
    let extras = discovery::extras(
        setup.config,
        key.public().to_peer_id(),
        circuits,
        &ledger,
        (setup.keeper.clone(), setup.clock.clone()),
        &setup.attribution,
    )
    .map_err(BuildError::Multicast)?;
    let Config {
        network,
        gossip,
        limits,
        ..
    } = setup.config;
    let patience = network.request_timeout.0;
    let max_payload = limits.max_message_size.as_usize();
    let gossip = gossip::behaviour(
        key.clone(),
        gossip,
        max_payload,
        setup.listeners.clone(),
        setup.attribution.clone(),
    )
    .map_err(BuildError::Gossip)?;
    let identify = identify(key, ledger.clone(), setup);
    let ping = ping::Config::new()
        .with_interval(network.ping_interval.0)
        .with_timeout(network.ping_timeout.0);
    let (admission, clock) = (setup.admission.clone(), setup.clock.clone());
    Ok(NodeBehaviour {
        admission: admission::Behaviour::new(limits, ledger, admission, clock),
        dials: extras.dials,
        gossip,
        identify,
        identity: Attributed::new(
            exchange::behaviour(IDENTITY_REQUEST_TIMEOUT, patience, IDENTITY_STREAMS),
            setup.attribution.clone(),
        ),
        jobs: Attributed::new(
            exchange::behaviour(JOB_REQUEST_TIMEOUT, patience, JOB_STREAMS),
            setup.attribution.clone(),
        ),
        enrolment: Attributed::new(
            exchange::behaviour(ENROLMENT_TIMEOUT, patience, ENROLMENT_STREAMS),
            setup.attribution.clone(),
        ),
        admin: Attributed::new(
            exchange::behaviour(ADMIN_TIMEOUT, patience, ADMIN_STREAMS),
            setup.attribution.clone(),
        ),
        ping: Attributed::new(ping::Behaviour::new(ping), setup.attribution.clone()),
        walker: extras.walker,
        mdns: extras.mdns,
        relay: extras.relay,
        circuits: extras.circuits,
        punch: extras.punch,
        probe: extras.probe,
        prober: extras.prober,
    })
}

fn identify(key: &Keypair, ledger: Ledger, setup: &Setup<'_>) -> Attributed<Observed> {
    let (discovery, relay) = (&setup.config.discovery, &setup.config.relay);
    let config = identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
        .with_agent_version(AGENT_VERSION.to_owned())
        // Where this node listens is told to nobody who does not know it already, unless others
        // are to find it.
        .with_hide_listen_addrs(!discovery.kademlia)
        .with_push_listen_addr_updates(discovery.kademlia)
        .with_cache_size(0);
    let hearsay = Hearsay::new(
        discovery.autonat_client || relay.hole_punching,
        discovery.private_addresses,
    );
    let inner = identify::Behaviour::new(config);
    let observed = Observed::new(inner, ledger, hearsay, setup.clock.clone());
    Attributed::new(observed, setup.attribution.clone())
}

/// Listens on an address that asks for no credential. `admission` finds the node's admission
/// behaviour inside the Swarm's.
///
/// The exemption is registered before the Swarm is polled again, and so before any connection
/// of this listener can arrive.
///
/// # Errors
/// As [`Swarm::listen_on`].
pub fn listen_open<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    address: Multiaddr,
    admission: impl FnOnce(&B) -> &admission::Behaviour,
) -> Result<ListenerId, TransportError<std::io::Error>> {
    let id = swarm.listen_on(address)?;
    admission(swarm.behaviour()).ledger().open(id);
    Ok(id)
}
