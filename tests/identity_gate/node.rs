//! A node's Swarm driven by a task, with a keeper, an admission and probes that tests control.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Swarm,
    core::{Endpoint, transport::PortUse},
    gossipsub::{self, MessageAcceptance},
    identify,
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
};
use quantraband::{
    audit::Direction,
    config::Config,
    identity::{Refusal, Tier},
    network::{
        self, Admission, Admitted, Attribution, Counts, GateKeeper, NodeBehaviour,
        NodeBehaviourEvent, Presented, Setup, Tasks, gate,
    },
    types::{Origin, PeerId, SystemClock, Topic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
};

/// Far longer than anything awaited takes; a test that reaches it has failed.
pub(crate) const GENEROUS: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(GENEROUS, work).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not in {GENEROUS:?}"))
}

/// What the keeper answers.
#[derive(Clone, Default)]
pub(crate) enum Answer {
    #[default]
    Accept,
    Refuse(Refusal),
    Never,
    AnotherPeer,
    Panic,
}

/// A keeper that does as it is told and remembers what it was told.
#[derive(Default)]
pub(crate) struct Keeper {
    pub(crate) answer: Answer,
    pub(crate) banned: Mutex<Vec<PeerId>>,
    pub(crate) judged: Mutex<Vec<Presented>>,
    refused: watch::Sender<Vec<(Direction, Refusal)>>,
}

impl Keeper {
    pub(crate) fn new(answer: Answer) -> Self {
        Self {
            answer,
            ..Self::default()
        }
    }

    pub(crate) fn refusals(&self) -> Vec<(Direction, Refusal)> {
        self.refused.borrow().clone()
    }

    /// The first refusal this keeper is told of.
    pub(crate) async fn refusal(&self) -> (Direction, Refusal) {
        let mut refused = self.refused.subscribe();
        let told = refused.wait_for(|all| !all.is_empty());
        let told = soon("a refusal", told).await.unwrap();
        told[0].clone()
    }

    fn admit(&self, peer: PeerId, tier: Tier) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let admitted = |peer| Admitted {
            peer,
            tier,
            identity: None,
            rule: "test".to_owned(),
        };
        match self.answer.clone() {
            Answer::Accept => futures::future::ok(admitted(peer)).boxed(),
            Answer::Refuse(refusal) => futures::future::err(refusal).boxed(),
            Answer::Never => futures::future::pending().boxed(),
            Answer::AnotherPeer => futures::future::ok(admitted(peer_of(&[99; 32]))).boxed(),
            Answer::Panic => async { panic!("the keeper broke") }.boxed(),
        }
    }
}

impl GateKeeper for Keeper {
    fn own_frame(&self) -> Arc<[u8]> {
        (*b"a credential frame").into()
    }

    fn precheck(&self, peer: &PeerId, _: Option<IpAddr>) -> Result<(), Refusal> {
        if self.banned.lock().unwrap().contains(peer) {
            Err(Refusal::CoolingDown)
        } else {
            Ok(())
        }
    }

    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let peer = presented.peer;
        self.judged.lock().unwrap().push(presented);
        self.admit(peer, Tier::Member)
    }

    fn judge_open(
        &self,
        peer: PeerId,
        _: Option<IpAddr>,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.admit(peer, Tier::Unverified)
    }

    fn refused(&self, _: &PeerId, _: Option<IpAddr>, direction: Direction, refusal: &Refusal) {
        self.refused
            .send_modify(|all| all.push((direction, refusal.clone())));
    }
}

/// Lets in everybody, or nobody.
pub(crate) struct Door(pub(crate) Result<(), &'static str>);

impl Admission for Door {
    fn admit_pending(&self, _: Option<IpAddr>) -> Result<(), &'static str> {
        self.0
    }
}

/// Whose input was handled, and what panicked.
#[derive(Default)]
pub(crate) struct Blame {
    pub(crate) begun: Mutex<Vec<PeerId>>,
    pub(crate) ended: AtomicUsize,
    pub(crate) panicked: watch::Sender<Vec<(Origin, String)>>,
}

impl Attribution for Blame {
    fn begin(&self, peer: PeerId) {
        self.begun.lock().unwrap().push(peer);
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn task_panicked(&self, origin: Origin, detail: &str) {
        self.panicked
            .send_modify(|all| all.push((origin, detail.to_owned())));
    }
}

/// Counts how often a connection reaches a behaviour.
#[derive(Default)]
pub(crate) struct Probe(pub(crate) Arc<AtomicUsize>);

impl NetworkBehaviour for Probe {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: libp2p::PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// The node between two probes: one sees every connection the Swarm knows of, the other those
/// that the node let in.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Probed {
    pub(crate) first: Probe,
    pub(crate) node: NodeBehaviour,
    pub(crate) last: Probe,
}

/// What the Swarm reported so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) established: Vec<libp2p::PeerId>,
    pub(crate) closed: usize,
    pub(crate) inbound_errors: usize,
    /// Failed dials, with the gate's refusal where it was the gate.
    pub(crate) dial_errors: Vec<Option<Refusal>>,
    pub(crate) identified: Vec<String>,
    pub(crate) pings: usize,
    pub(crate) subscriptions: usize,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) counts: Counts,
}

type Command = Box<dyn FnOnce(&mut Swarm<Probed>) + Send>;

pub(crate) struct Node {
    pub(crate) id: libp2p::PeerId,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) blame: Arc<Blame>,
    pub(crate) address: Multiaddr,
    /// Connections the Swarm knew of, and those that came through admission.
    pub(crate) known: Arc<AtomicUsize>,
    pub(crate) admitted: Arc<AtomicUsize>,
    seen: watch::Receiver<Seen>,
    commands: mpsc::Sender<Command>,
}

/// What differs between the nodes of a test.
pub(crate) struct Plan {
    pub(crate) seed: u8,
    pub(crate) keeper: Keeper,
    pub(crate) door: Door,
    pub(crate) config: Config,
    pub(crate) open: bool,
}

impl Plan {
    pub(crate) fn new(seed: u8) -> Self {
        let mut config = Config::default();
        config.limits.max_message_size = quantraband::types::ByteSize(100_000);
        Self {
            seed,
            keeper: Keeper::default(),
            door: Door(Ok(())),
            config,
            open: false,
        }
    }

    pub(crate) fn keeper(mut self, answer: Answer) -> Self {
        self.keeper = Keeper::new(answer);
        self
    }

    pub(crate) fn identity_timeout(mut self, millis: u64) -> Self {
        self.config.network.identity_timeout = Duration::from_millis(millis).into();
        self
    }

    /// Builds the node and waits until it listens.
    pub(crate) async fn start(self) -> Node {
        let blame = Arc::new(Blame::default());
        let keeper = Arc::new(self.keeper);
        let setup = Setup {
            seed: &[self.seed; 32],
            config: &self.config,
            keeper: keeper.clone(),
            admission: Arc::new(self.door),
            attribution: blame.clone(),
            clock: Arc::new(SystemClock::new()),
            tasks: Tasks::here(blame.clone()),
        };
        let mut swarm = network::build_with(&setup, |node| Probed {
            first: Probe::default(),
            node,
            last: Probe::default(),
        })
        .unwrap();
        let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        if self.open {
            network::listen_open(&mut swarm, loopback, |b| &b.node.admission).unwrap();
        } else {
            swarm.listen_on(loopback).unwrap();
        }
        let address = soon("a listener", listening(&mut swarm)).await;
        let (seen_sender, seen) = watch::channel(Seen::default());
        let (commands, receiver) = mpsc::channel(16);
        let node = Node {
            id: *swarm.local_peer_id(),
            keeper,
            blame,
            address: network::convert::with_p2p(&address, *swarm.local_peer_id()),
            known: swarm.behaviour().first.0.clone(),
            admitted: swarm.behaviour().last.0.clone(),
            seen,
            commands,
        };
        tokio::spawn(run(swarm, receiver, seen_sender));
        node
    }
}

async fn listening(swarm: &mut Swarm<Probed>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

async fn run(
    mut swarm: Swarm<Probed>,
    mut commands: mpsc::Receiver<Command>,
    seen: watch::Sender<Seen>,
) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                let now = note(&mut swarm, event, &seen);
                seen.send_replace(now);
            }
            command = commands.recv() => match command {
                Some(command) => command(&mut swarm),
                None => return,
            },
        }
    }
}

fn note(
    swarm: &mut Swarm<Probed>,
    event: SwarmEvent<ProbedEvent>,
    seen: &watch::Sender<Seen>,
) -> Seen {
    let mut now = seen.borrow().clone();
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => now.established.push(peer_id),
        SwarmEvent::ConnectionClosed { .. } => now.closed += 1,
        SwarmEvent::IncomingConnectionError { .. } => now.inbound_errors += 1,
        SwarmEvent::OutgoingConnectionError { error, .. } => {
            now.dial_errors.push(gate::refusal_of(&error).cloned());
        }
        SwarmEvent::Behaviour(ProbedEvent::Node(event)) => match event {
            NodeBehaviourEvent::Gossip(event) => match *event {
                gossipsub::Event::Message {
                    propagation_source,
                    message_id,
                    message,
                } => {
                    now.messages.push(message.data);
                    swarm
                        .behaviour_mut()
                        .node
                        .gossip
                        .report_message_validation_result(
                            &message_id,
                            &propagation_source,
                            MessageAcceptance::Accept,
                        );
                }
                gossipsub::Event::Subscribed { .. } => now.subscriptions += 1,
                _ => {}
            },
            NodeBehaviourEvent::Identify(event) => {
                if let identify::Event::Received { info, .. } = *event {
                    now.identified.push(info.agent_version);
                }
            }
            NodeBehaviourEvent::Ping(event) => now.pings += usize::from(event.result.is_ok()),
        },
        _ => {}
    }
    now.counts = swarm.behaviour().node.admission.counts();
    now
}

impl Node {
    /// Waits until what the Swarm reported satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = soon(what, seen.wait_for(condition)).await;
        found.unwrap().clone()
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Swarm<Probed>) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = oneshot::channel();
        let command: Command = Box::new(move |swarm| {
            let _ = sender.send(work(swarm));
        });
        assert!(self.commands.send(command).await.is_ok());
        answer.await.unwrap()
    }

    /// Dials even when a connection stands or is under way.
    pub(crate) async fn dial(&self, peer: libp2p::PeerId, address: &Multiaddr) {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![address.clone()])
            .build();
        self.with(move |swarm| swarm.dial(opts)).await.unwrap();
    }

    pub(crate) async fn subscribe(&self, topic: &Topic) {
        let topic = topic.clone();
        let joined = self
            .with(move |swarm| network::subscribe(&mut swarm.behaviour_mut().node.gossip, &topic));
        assert!(joined.await.unwrap());
    }

    pub(crate) async fn counts(&self) -> Counts {
        let counts = |swarm: &mut Swarm<Probed>| swarm.behaviour().node.admission.counts();
        self.with(counts).await
    }

    /// What a TCP client that begins the handshake gets before the connection ends.
    pub(crate) async fn bytes_before_the_end(&self) -> usize {
        let port = self.address.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let mut client = TcpStream::connect(("127.0.0.1", port.unwrap()))
            .await
            .unwrap();
        // May fail already, when the node was quicker.
        let _ = client.write_all(b"\x13/multistream/1.0.0\n").await;
        let mut answer = [0; 64];
        // Zero is the end, an error a reset: both without a byte.
        soon("an answer", client.read(&mut answer))
            .await
            .unwrap_or(0)
    }

    /// A dial is under way and no connection stands.
    pub(crate) async fn assert_still_upgrading(&self) {
        assert_eq!(self.known.load(Ordering::SeqCst), 0);
        assert_eq!(self.counts().await.upgrading, 1);
    }

    /// No connection came to the Swarm's knowledge, and nothing is left of the attempts.
    pub(crate) async fn assert_untouched(&self) {
        assert_eq!(self.known.load(Ordering::SeqCst), 0);
        assert_eq!(self.admitted.load(Ordering::SeqCst), 0);
        let counts = self.counts().await;
        assert_eq!((counts.pending, counts.upgrading), (0, 0));
        assert_eq!((counts.inbound, counts.outbound), (0, 0));
    }
}

pub(crate) fn peer_of(seed: &[u8; 32]) -> PeerId {
    let key = libp2p::identity::Keypair::ed25519_from_bytes(*seed).unwrap();
    network::convert::from_libp2p(&key.public().to_peer_id()).unwrap()
}
