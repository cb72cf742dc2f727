//! A node's Swarm driven by a task, between probes, and what it reported so far.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    gossipsub::{self, MessageAcceptance},
    identify,
    multiaddr::Protocol,
    swarm::{
        DialError, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use quantraband::{
    config::Config,
    identity::Refusal,
    network::{self, Counts, NodeBehaviour, NodeBehaviourEvent, Setup, Tasks, gate},
    types::{PeerId, SecurityInfo, SecurityLevel, SystemClock, Topic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
};

use crate::fakes::{Answer, Blame, Door, Ears, Keeper, Probe, soon};

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
    pub(crate) ears: Ears,
    pub(crate) config: Config,
    pub(crate) open: bool,
    pub(crate) listen: &'static str,
}

impl Plan {
    pub(crate) fn new(seed: u8) -> Self {
        let mut config = Config::default();
        config.limits.max_message_size = quantraband::types::ByteSize(100_000);
        Self {
            seed,
            keeper: Keeper::default(),
            door: Door(Ok(())),
            ears: Ears(true),
            config,
            open: false,
            listen: "/ip4/127.0.0.1/tcp/0",
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

    pub(crate) fn security(mut self, level: SecurityLevel) -> Self {
        self.config.transport.security = level;
        self
    }

    /// What holds for one peer instead.
    pub(crate) fn security_of(mut self, peer: PeerId, level: SecurityLevel) -> Self {
        self.config.transport.peers.insert(peer, level);
        self
    }

    pub(crate) fn quic(mut self) -> Self {
        self.listen = "/ip4/127.0.0.1/udp/0/quic-v1";
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
            listeners: Arc::new(self.ears),
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
        let loopback: Multiaddr = self.listen.parse().unwrap();
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
                    // What a test calls so is what a node finds malformed.
                    let answer = if message.data.ends_with(b"reject me") {
                        MessageAcceptance::Reject
                    } else {
                        MessageAcceptance::Accept
                    };
                    now.messages.push(message.data);
                    swarm
                        .behaviour_mut()
                        .node
                        .gossip
                        .report_message_validation_result(&message_id, &propagation_source, answer);
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
            // What finds and reaches others is off here; the other protocols have tests of their own.
            _ => {}
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
        self.try_dial(peer, address).await.unwrap();
    }

    /// As [`Node::dial`]; the dial may be refused before it begins.
    pub(crate) async fn try_dial(
        &self,
        peer: libp2p::PeerId,
        address: &Multiaddr,
    ) -> Result<(), DialError> {
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![address.clone()])
            .build();
        self.with(move |swarm| swarm.dial(opts)).await
    }

    pub(crate) async fn subscribe(&self, topic: &Topic) {
        let topic = topic.clone();
        let joined = self
            .with(move |swarm| network::subscribe(&mut swarm.behaviour_mut().node.gossip, &topic));
        assert!(joined.await.unwrap());
    }

    /// How its connections are encrypted, by the records they were admitted with.
    pub(crate) async fn securities(&self) -> Vec<SecurityInfo> {
        let securities = |swarm: &mut Swarm<Probed>| {
            let standing = swarm.behaviour().node.admission.standing();
            standing.map(|(_, _, admitted)| admitted.security).collect()
        };
        self.with(securities).await
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
