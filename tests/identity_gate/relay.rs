//! The gate over relayed circuits: the relay carries bytes, and vouches for nobody.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::upgrade::Version,
    identify,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use quantraband::{
    config::Config,
    identity::{Binding, Refusal},
    network::{self, NodeBehaviour, Setup, Tasks, convert, secure::SecurityLevel},
    types::{ChannelKind, SystemClock},
};
use tokio::sync::mpsc;

use crate::{
    fakes::{Blame, Door, Ears, GENEROUS, Keeper, Probe, peer_of, soon},
    raw,
};

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Relay {
    node: NodeBehaviour,
    relay: relay::Behaviour,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Member {
    first: Probe,
    node: NodeBehaviour,
    relay: relay::client::Behaviour,
    last: Probe,
}

/// Knows nothing of the gate.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Stranger {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// What a Swarm's task tells the test.
#[derive(Debug)]
enum Told {
    Listening,
    Established(PeerId, bool),
    Closed(PeerId, bool),
    Failed(String),
}

/// Far more than a test's few connections give.
const EVENTS: usize = 256;

type Ear = mpsc::Receiver<Told>;

fn run<B: NetworkBehaviour<ToSwarm: Send> + Send>(mut swarm: Swarm<B>) -> Ear {
    let (sender, ear) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        loop {
            let told = match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { .. } => Told::Listening,
                SwarmEvent::ConnectionEstablished {
                    peer_id, endpoint, ..
                } => Told::Established(peer_id, endpoint.is_relayed()),
                SwarmEvent::ConnectionClosed {
                    peer_id, endpoint, ..
                } => Told::Closed(peer_id, endpoint.is_relayed()),
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    Told::Failed(error.to_string())
                }
                _ => continue,
            };
            // A test that does not listen still wants the Swarm to live.
            let _ = sender.try_send(told);
        }
    });
    ear
}

async fn heard<T>(ear: &mut Ear, what: &str, wanted: impl Fn(Told) -> Option<T>) -> T {
    let hearing = async {
        loop {
            let told = ear.recv().await.unwrap();
            if let Told::Failed(why) = &told {
                panic!("{what}: {why}");
            }
            if let Some(found) = wanted(told) {
                return found;
            }
        }
    };
    soon(what, hearing).await
}

/// What a node of the test is made of, its keeper kept for questions.
struct Parts {
    seed: [u8; 32],
    config: Config,
    keeper: Arc<Keeper>,
}

impl Parts {
    fn new(seed: u8, level: SecurityLevel) -> Self {
        let mut config = Config::default();
        config.transport.security = level;
        Self {
            seed: [seed; 32],
            config,
            keeper: Arc::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Setup<'_>) -> T) -> T {
        let blame = Arc::new(Blame::default());
        work(&Setup {
            seed: &self.seed,
            config: &self.config,
            keeper: self.keeper.clone(),
            admission: Arc::new(Door(Ok(()))),
            listeners: Arc::new(Ears(true)),
            attribution: blame.clone(),
            clock: Arc::new(SystemClock::new()),
            tasks: Tasks::here(blame),
        })
    }
}

/// A relay that demands a credential at its first address and none at its second.
async fn relay() -> (Multiaddr, Multiaddr) {
    let parts = Parts::new(1, SecurityLevel::PreferHybrid);
    let id = raw::key(1).public().to_peer_id();
    let mut swarm = parts
        .with(|setup| {
            network::build_with(setup, |node| Relay {
                node,
                relay: relay::Behaviour::new(id, relay::Config::default()),
            })
        })
        .unwrap();
    let loopback = || "/ip4/127.0.0.1/tcp/0".parse::<Multiaddr>().unwrap();
    let mut addresses = Vec::new();
    swarm.listen_on(loopback()).unwrap();
    addresses.push(soon("a listener", listening(&mut swarm)).await);
    network::listen_open(&mut swarm, loopback(), |b| &b.node.admission).unwrap();
    addresses.push(soon("a listener", listening(&mut swarm)).await);
    // What it tells those who reserve a place.
    swarm.add_external_address(addresses[0].clone());
    run(swarm);
    let open = convert::with_p2p(&addresses[1], id);
    (convert::with_p2p(&addresses[0], id), open)
}

async fn listening(swarm: &mut Swarm<Relay>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

fn member(parts: &Parts) -> Swarm<Member> {
    let id = raw::key(parts.seed[0]).public().to_peer_id();
    let (circuits, relay) = relay::client::new(id);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default());
    parts
        .with(|setup| {
            let secured = network::secure_for(setup)?.over(circuits.or_transport(tcp));
            network::build_over(setup, secured, |node| Member {
                first: Probe::default(),
                node,
                relay,
                last: Probe::default(),
            })
        })
        .unwrap()
}

/// A member with a place at the relay: its Swarm's ear, and the counts of connections that the
/// Swarm knew of and that were let in.
async fn reserved(parts: &Parts, relay: &Multiaddr) -> (Ear, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let mut swarm = member(parts);
    let known = swarm.behaviour().first.0.clone();
    let admitted = swarm.behaviour().last.0.clone();
    swarm
        .listen_on(relay.clone().with(Protocol::P2pCircuit))
        .unwrap();
    let mut ear = run(swarm);
    heard(&mut ear, "a place at the relay", |told| match told {
        Told::Listening => Some(()),
        _ => None,
    })
    .await;
    (ear, known, admitted)
}

fn through(relay: &Multiaddr, target: u8) -> Multiaddr {
    let target = raw::key(target).public().to_peer_id();
    relay
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(target))
}

#[tokio::test]
async fn a_member_comes_through_a_relay_with_a_proof_of_its_encryption() {
    for (level, kind) in [
        (SecurityLevel::RequireHybrid, ChannelKind::Stacked),
        (SecurityLevel::Classic, ChannelKind::Noise),
    ] {
        let (gated, _) = relay().await;
        let target = Parts::new(2, SecurityLevel::PreferHybrid);
        let (mut ear, known, admitted) = reserved(&target, &gated).await;
        let dialler = Parts::new(3, level);
        let mut swarm = member(&dialler);
        swarm.dial(through(&gated, 2)).unwrap();
        let _running = run(swarm);
        let three = raw::key(3).public().to_peer_id();
        heard(&mut ear, "a relayed connection", |told| match told {
            Told::Established(peer, circuit) => (circuit && peer == three).then_some(()),
            _ => None,
        })
        .await;
        assert_eq!(known.load(Ordering::SeqCst), 2);
        assert_eq!(admitted.load(Ordering::SeqCst), 2);
        let judged = target.keeper.judged.lock().unwrap();
        let found = judged.iter().find(|one| one.peer == peer_of(&[3; 32]));
        let presented = found.unwrap();
        assert_eq!(presented.security.kind, kind);
        // The relay's address is not the peer's.
        assert_eq!(presented.ip, None);
        let exported = matches!(presented.channel.binding, Binding::Exporter(_));
        assert_eq!(exported, kind == ChannelKind::Stacked);
    }
}

#[tokio::test]
async fn a_stranger_behind_a_relay_reaches_nothing() {
    let (gated, open) = relay().await;
    let target = Parts::new(2, SecurityLevel::PreferHybrid);
    let (mut ear, known, admitted) = reserved(&target, &gated).await;

    let key = raw::key(9);
    let (circuits, relay) = relay::client::new(key.public().to_peer_id());
    let transport = circuits
        .or_transport(tcp::tokio::Transport::new(tcp::Config::default()))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .timeout(GENEROUS)
        .boxed();
    let identify = identify::Config::new("/other/1".to_owned(), key.public());
    let behaviour = Stranger {
        relay,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(GENEROUS);
    let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
    swarm.dial(through(&open, 2)).unwrap();
    let mut stranger = run(swarm);

    assert_eq!(target.keeper.refusal().await.1, Refusal::Missing);
    // To the stranger it looked like a connection, until it ended.
    let two = raw::key(2).public().to_peer_id();
    heard(&mut stranger, "the end", |told| match told {
        Told::Closed(peer, circuit) => (circuit && peer == two).then_some(()),
        _ => None,
    })
    .await;
    // The relay itself is the only connection that the member's Swarm ever knew of.
    assert_eq!(known.load(Ordering::SeqCst), 1);
    assert_eq!(admitted.load(Ordering::SeqCst), 1);
    while let Ok(told) = ear.try_recv() {
        assert!(!matches!(told, Told::Established(_, true)), "{told:?}");
    }
}
