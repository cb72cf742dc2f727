//! Swarm: owns libp2p's Swarm, and with it every connection.
//!
//! The value is built anew by each incarnation: connections, peers and local subscriptions go
//! with it. What outlives it is little and published ([`SwarmMemory`]): the concrete addresses
//! it listened on and the peers it had dialled, so that the next one listens on the same
//! addresses and dials them again.
//!
//! It never waits for another actor: messages are judged from published views, connections by
//! the gate inside the transport upgrade ([`super::gatekeeper`]).

mod admin;
mod attribution;
mod authors;
mod charges;
mod drive;
mod enrolment;
mod events;
mod exchange;
mod gossip;
mod handlers;
mod identity;
mod jobs;
mod judge;
mod listeners;
mod live;
mod outbound;
mod peers;
mod publish;
mod reach;
mod replay;
mod sealed;
mod subscribers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix::{Actor, AsyncContext, Context};
use libp2p::{Multiaddr, Swarm, core::transport::ListenerId, multiaddr::Protocol};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    actors::{
        admin::AdminActor,
        audit::AuditHandle,
        identity::IdentityActor,
        issuer::IssuerActor,
        judge::{Bench, Judge},
        reputation::ReputationActor,
        revocation::RevocationActor,
        sandbox::SandboxActor,
    },
    audit::Aggregator,
    config::Config,
    identity::{NodeKey, OwnIdentity, StatusView, TrustView},
    network::{
        self, Admission, DialPlan, GateKeeper, NodeBehaviour, Setup, Workers, parking::Parking,
        replay::Mark,
    },
    policy::Rule,
    supervised,
    supervision::{ActorRef, CoolDowns, Fault, Incarnation, Supervise},
    telemetry::Metrics,
    trust::{rate::Limiter, reputation::Standings},
    types::{Clock, PeerId, Publisher, Timestamp, Topic, View},
};

use admin::Commands;
use attribution::SwarmAttribution;
use authors::ParkedMessage;
use drive::Drive;
use enrolment::Enrolments;
use identity::IdentityCalls;
use jobs::Calls;
use listeners::Neighbours;
use outbound::{Outbound, OutboundState};
use peers::Peers;
use publish::Outbox;
use reach::Reach;
pub use replay::ReplayMemory;
use subscribers::Subscribers;

/// How often the actor looks at its dial plan: the shortest wait that makes sense before a
/// redial is a few times this.
const TICK: Duration = Duration::from_millis(100);
/// How often live connections are judged again; bounds how long a ban, an expiry or withdrawn
/// trust may go unnoticed (five seconds are promised).
const REVIEW: Duration = Duration::from_secs(1);
/// Kinds of refused messages told apart until the next record: reasons times authors.
const REFUSAL_KEYS: usize = 1_024;

/// What Swarm needs. Made once by the node; each incarnation gets a clone.
#[derive(Clone)]
pub struct SwarmTools {
    /// The node's configuration.
    pub config: Arc<Config>,
    /// What is in force; of it the rules of batches and of calls are taken.
    pub live: View<Config>,
    /// Runs connection tasks.
    pub workers: Arc<Workers>,
    /// What was taken of which author.
    pub replay: Arc<ReplayMemory>,
    /// The node's key: sealed messages are opened with it.
    pub key: NodeKey,
    /// The node key's seed.
    pub seed: Arc<Zeroizing<[u8; 32]>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Judges peers inside the transport upgrade.
    pub keeper: Arc<dyn GateKeeper>,
    /// Judges addresses before the handshake.
    pub admission: Arc<dyn Admission>,
    /// Makes judges.
    pub bench: Bench,
    /// Rate budgets.
    pub limiter: View<Limiter>,
    /// Scores and bans.
    pub standings: View<Standings>,
    /// Whom this node trusts.
    pub trust: View<TrustView>,
    /// What issuers took back.
    pub statuses: View<StatusView>,
    /// What this node is.
    pub own: View<OwnIdentity>,
    /// Told of misdeeds and of good connections.
    pub reputation: ActorRef<ReputationActor>,
    /// Verifies authors, and knows the chains of those it verified.
    pub identity: ActorRef<IdentityActor>,
    /// Told of heads of status lists.
    pub revocation: ActorRef<RevocationActor>,
    /// Carries out what peers want run.
    pub sandbox: ActorRef<SandboxActor>,
    /// Gives credentials to peers.
    pub issuer: ActorRef<IssuerActor>,
    /// Carries out commands of peers. Starts after Swarm does.
    pub admin: Arc<OnceLock<ActorRef<AdminActor>>>,
    /// Told of everything.
    pub audit: AuditHandle,
    /// Told of peers whose input made a connection task panic.
    pub cooldowns: Arc<CoolDowns>,
    /// Counts.
    pub metrics: Metrics,
    /// What the next incarnation needs to know of this one.
    pub memory: Publisher<SwarmMemory>,
}

impl fmt::Debug for SwarmTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmTools").finish_non_exhaustive()
    }
}

/// What outlives an incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwarmMemory {
    /// The port in use for each configured address, whether the system chose it or not.
    pub ports: BTreeMap<Multiaddr, u16>,
    /// Whether the node is stopping: nothing is listened on or dialled again.
    pub draining: bool,
    /// Dialled peers that are connected, each address ending in `/p2p/PEER`.
    pub dialled: BTreeSet<Multiaddr>,
    /// The same of those that were found.
    pub found: BTreeSet<Multiaddr>,
}

/// The actor.
pub struct SwarmActor {
    incarnation: Incarnation,
    tools: SwarmTools,
    swarm: Option<Swarm<NodeBehaviour>>,
    me: PeerId,
    peers: Peers,
    neighbours: Arc<Neighbours>,
    judge: Arc<Judge>,
    subscribers: Subscribers,
    plan: DialPlan,
    bootstrap: BTreeSet<PeerId>,
    memory: SwarmMemory,
    /// Listeners and the configured address of each.
    listeners: HashMap<ListenerId, Multiaddr>,
    /// Addresses it listens on now, without `/p2p`.
    listening: BTreeSet<Multiaddr>,
    mark: Mark,
    /// Which incarnation it is that writes marks.
    marking: u64,
    outbox: Outbox,
    /// Authors and topics about which a rule has decided on record.
    publishers: HashSet<(PeerId, Topic, Rule)>,
    refused: Aggregator<(&'static str, Option<PeerId>)>,
    outbound: Outbound,
    reach: Reach,
    calls: Calls,
    identity_calls: IdentityCalls,
    parking: Parking<ParkedMessage>,
    enrolments: Enrolments,
    commands: Commands,
    /// Peers whose rights are still to be looked at in this round.
    reviewing: VecDeque<PeerId>,
    next_review: Duration,
    next_report: Duration,
    sequence: u64,
    /// When it last sent something, as it said: that never goes back.
    last_sent: Timestamp,
    /// The standings that gossip was told of.
    told: Option<Arc<Standings>>,
    received: u64,
    sent: u64,
}

impl fmt::Debug for SwarmActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmActor")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

/// What the actor shows of itself.
#[derive(Debug, Clone, Serialize)]
pub struct SwarmState {
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Connected peers.
    pub peers: usize,
    /// Connections and handshakes.
    pub connections: Option<network::Counts>,
    /// Local subscriptions.
    pub topics: Vec<Topic>,
    /// Messages accepted from peers.
    pub received: u64,
    /// Messages published.
    pub sent: u64,
    /// Calls of this node to others.
    pub calls: OutboundState,
    /// Whether it no longer accepts anything.
    pub draining: bool,
}

supervised!(SwarmActor);

impl Actor for SwarmActor {
    type Context = Context<Self>;
}

impl SwarmActor {
    /// A value for one incarnation; binds nothing yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, tools: SwarmTools) -> Self {
        let network = &tools.config.network;
        let plan = DialPlan::new(
            network.dial_backoff_initial.0,
            network.dial_backoff_max.0,
            rand::random(),
        );
        let me = tools.own.load().peer;
        // Ascending over restarts: a thousand messages a millisecond would be needed to overtake
        // the clock.
        let sequence = tools.clock.now().millis().saturating_mul(1_000);
        let judge = Arc::new(tools.bench.judge());
        Self {
            incarnation,
            swarm: None,
            me,
            peers: Peers::default(),
            neighbours: Arc::new(Neighbours::new(
                tools.audit.clone(),
                (
                    tools.standings.clone(),
                    tools.statuses.clone(),
                    tools.limiter.clone(),
                ),
                Arc::clone(&judge),
                Arc::clone(&tools.clock),
                tools.metrics.clone(),
            )),
            judge,
            subscribers: Subscribers::default(),
            plan,
            bootstrap: BTreeSet::new(),
            memory: SwarmMemory::default(),
            listeners: HashMap::new(),
            listening: BTreeSet::new(),
            mark: Mark::default(),
            marking: 0,
            outbox: Outbox::new(publish::rules(&tools.live.load())),
            publishers: HashSet::new(),
            refused: Aggregator::new(REFUSAL_KEYS, |(reason, _)| (reason, None)),
            outbound: Outbound::new(tools.live.clone(), tools.metrics.clone()),
            reach: Reach::new(&tools.config.relay.reserve),
            calls: Calls::default(),
            identity_calls: IdentityCalls::default(),
            parking: Parking::new(authors::patience(
                tools.config.gossip.heartbeat.0,
                tools.config.gossip.history_length,
            )),
            enrolments: Enrolments::default(),
            commands: Commands::default(),
            reviewing: VecDeque::new(),
            next_review: Duration::ZERO,
            next_report: Duration::ZERO,
            sequence,
            last_sent: Timestamp::default(),
            told: None,
            received: 0,
            sent: 0,
            tools,
        }
    }

    fn build(&self) -> Result<Swarm<NodeBehaviour>, network::BuildError> {
        let attribution = Arc::new(SwarmAttribution::new(
            self.incarnation.clone(),
            Arc::clone(&self.tools.cooldowns),
            self.tools.reputation.clone(),
            Arc::clone(&self.neighbours),
        ));
        network::build(&Setup {
            seed: &self.tools.seed,
            config: &self.tools.config,
            keeper: Arc::clone(&self.tools.keeper),
            admission: Arc::clone(&self.tools.admission),
            listeners: Arc::clone(&self.neighbours) as Arc<dyn network::Listeners>,
            attribution: attribution.clone(),
            clock: Arc::clone(&self.tools.clock),
            tasks: self.tools.workers.tasks(attribution),
        })
    }

    /// Listens where the configuration says; where the system is to choose a port, on the one it
    /// chose before.
    fn listen(&mut self, swarm: &mut Swarm<NodeBehaviour>) -> Result<(), Fault> {
        let config = Arc::clone(&self.tools.config);
        let fail = |address: &Multiaddr, error: &dyn fmt::Display| {
            Fault::build(format!("cannot listen on {address}: {error}"))
        };
        for configured in &config.network.listen {
            let address = with_port(configured, &self.memory);
            let id = swarm
                .listen_on(address)
                .map_err(|error| fail(configured, &error))?;
            self.listeners.insert(id, configured.clone());
        }
        for configured in &config.network.open_listen {
            let address = with_port(configured, &self.memory);
            let id = network::listen_open(swarm, address, |node| &node.admission)
                .map_err(|error| fail(configured, &error))?;
            self.listeners.insert(id, configured.clone());
        }
        Ok(())
    }

    fn plan_dials(&mut self) {
        for address in &self.tools.config.network.bootstrap {
            match self.plan.add(address) {
                Ok(peer) if peer == self.me => self.plan.remove(&peer),
                Ok(peer) => drop(self.bootstrap.insert(peer)),
                Err(error) => tracing::warn!(%error, "a bootstrap address is passed over"),
            }
        }
        for address in &self.memory.dialled {
            if let Err(error) = self.plan.add(address) {
                tracing::warn!(%error, "a peer of before the restart is not dialled again");
            }
        }
        for address in &self.memory.found {
            self.plan.hint(address);
        }
    }
}

/// A configured address with the port the system chose for it, when it was left to the system.
fn with_port(configured: &Multiaddr, memory: &SwarmMemory) -> Multiaddr {
    let port = memory.ports.get(configured).copied();
    let parts = configured.iter().map(|part| match (part, port) {
        (Protocol::Tcp(0), Some(port)) => Protocol::Tcp(port),
        (Protocol::Udp(0), Some(port)) => Protocol::Udp(port),
        (part, _) => part,
    });
    parts.collect()
}

impl Supervise for SwarmActor {
    const NAME: &'static str = "swarm";
    const EXCLUSIVE: bool = true;
    type Observable = SwarmState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.memory = (*self.tools.memory.view().load()).clone();
        let mut swarm = self.build().map_err(Fault::build)?;
        self.tools.metrics.set_connections_active(0);
        if !self.memory.draining {
            self.listen(&mut swarm)?;
            self.plan_dials();
        }
        self.first_mark().map_err(Fault::build)?;
        self.swarm = Some(swarm);
        self.announce_addresses();
        ctx.spawn(Drive::default());
        ctx.run_interval(TICK, Self::on_tick);
        Ok(())
    }

    fn observe(&self) -> SwarmState {
        SwarmState {
            listen: self.listen_addresses(),
            peers: self.peers.len(),
            connections: self
                .swarm
                .as_ref()
                .map(|swarm| swarm.behaviour().admission.counts()),
            topics: self.subscribers.topics(),
            received: self.received,
            sent: self.sent,
            calls: self.outbound.observe(self.tools.clock.elapsed()),
            draining: self.memory.draining,
        }
    }
}
