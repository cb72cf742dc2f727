//! Plain libp2p: refused where identity is required, served where a listener is open, and never
//! let in around the gate.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Swarm, Transport,
    core::upgrade::Version,
    identify, noise, ping,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use quantraband::{
    config::LimitsConfig,
    identity::{Refusal, Tier},
    network::{admission, gate::Ledger},
    types::SystemClock,
};

use crate::{
    fakes::{Answer, Door, GENEROUS, Probe, soon},
    node::Plan,
    raw,
};

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Client {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn client(seed: u8) -> Swarm<Client> {
    let key = raw::key(seed);
    let identify = identify::Config::new("/other/1".to_owned(), key.public());
    let behaviour = Client {
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    };
    plain(seed, behaviour)
}

fn plain<B: NetworkBehaviour>(seed: u8, behaviour: B) -> Swarm<B> {
    let key = raw::key(seed);
    let secured = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .timeout(GENEROUS)
        .boxed();
    let config =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(secured, behaviour, key.public().to_peer_id(), config)
}

#[tokio::test]
async fn a_plain_client_is_refused_where_identity_is_required() {
    let node = Plan::new(1).start().await;
    let mut client = client(2);
    client.dial(node.address.clone()).unwrap();
    let driver = tokio::spawn(async move {
        let mut served = 0;
        loop {
            match client.select_next_some().await {
                SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received {
                    ..
                })) => served += 1,
                SwarmEvent::Behaviour(ClientEvent::Ping(event)) if event.result.is_ok() => {
                    served += 1;
                }
                SwarmEvent::ConnectionClosed { .. } => return served,
                _ => {}
            }
        }
    });
    let (_, refusal) = node.keeper.refusal().await;
    // It shows no credential, which is no misdeed.
    assert_eq!(refusal, Refusal::Missing);
    assert!(!refusal.charged());
    assert_eq!(soon("the client is cut off", driver).await.unwrap(), 0);
    node.until("a failed connection", |seen| seen.inbound_errors == 1)
        .await;
    node.assert_untouched().await;
}

#[tokio::test]
async fn a_plain_client_is_served_where_the_listener_is_open() {
    let mut plan = Plan::new(1);
    plan.open = true;
    let node = plan.start().await;
    let mut client = client(2);
    client.dial(node.address.clone()).unwrap();
    let served = async {
        let (mut identified, mut pinged) = (false, false);
        while !(identified && pinged) {
            match client.select_next_some().await {
                SwarmEvent::Behaviour(ClientEvent::Identify(identify::Event::Received {
                    info,
                    ..
                })) => {
                    assert_eq!(info.protocol_version, "/quantraband/1");
                    // Where the node listens is not told.
                    assert!(info.listen_addrs.is_empty());
                    identified = true;
                }
                SwarmEvent::Behaviour(ClientEvent::Ping(event)) => pinged |= event.result.is_ok(),
                _ => {}
            }
        }
    };
    soon("identify and ping", served).await;
    let tiers = |swarm: &mut Swarm<crate::node::Probed>| {
        let admission = &swarm.behaviour().node.admission;
        admission
            .standing()
            .map(|(_, _, admitted)| admitted.tier)
            .collect::<Vec<_>>()
    };
    assert_eq!(node.with(tiers).await, [Tier::Unverified]);
    assert!(node.keeper.judged.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_open_listener_still_asks_the_keeper() {
    let mut plan = Plan::new(1).keeper(Answer::Refuse(Refusal::CoolingDown));
    plan.open = true;
    let node = plan.start().await;
    let mut client = client(2);
    client.dial(node.address.clone()).unwrap();
    let driver = tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = client.select_next_some().await {
                return;
            }
        }
    });
    assert_eq!(node.keeper.refusal().await.1, Refusal::CoolingDown);
    soon("the client is cut off", driver).await.unwrap();
    node.assert_untouched().await;
}

#[tokio::test]
async fn a_node_refuses_a_plain_listener() {
    let mut server = client(2);
    server
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let (id, address) = (*server.local_peer_id(), async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
                return address;
            }
        }
    });
    let address = soon("a listener", address).await;
    tokio::spawn(async move {
        loop {
            server.select_next_some().await;
        }
    });
    let node = Plan::new(1).start().await;
    node.dial(id, &address).await;
    let seen = node
        .until("a failed dial", |seen| !seen.dial_errors.is_empty())
        .await;
    assert_eq!(seen.dial_errors, [Some(Refusal::Missing)]);
    node.assert_untouched().await;
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Ungated {
    first: Probe,
    admission: admission::Behaviour,
    last: Probe,
}

/// Admission behind a transport that somebody forgot to put the gate around.
#[tokio::test]
async fn without_the_gates_record_no_connection_is_established() {
    let limits = LimitsConfig::default();
    let (door, clock) = (Arc::new(Door(Ok(()))), Arc::new(SystemClock::new()));
    let behaviour = Ungated {
        first: Probe::default(),
        admission: admission::Behaviour::new(&limits, Ledger::default(), door, clock),
        last: Probe::default(),
    };
    let (known, admitted) = (behaviour.first.0.clone(), behaviour.last.0.clone());
    let mut server = plain(1, behaviour);
    server
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let mut client = client(2);
    let failed = async {
        loop {
            tokio::select! {
                event = server.select_next_some() => match event {
                    SwarmEvent::NewListenAddr { address, .. } => client.dial(address).unwrap(),
                    SwarmEvent::IncomingConnectionError { error, .. } => return error.to_string(),
                    SwarmEvent::ConnectionEstablished { .. } => panic!("established"),
                    _ => {}
                },
                _ = client.select_next_some() => {}
            }
        }
    };
    soon("a denial", failed).await;
    assert_eq!(known.load(Ordering::SeqCst), 1);
    assert_eq!(admitted.load(Ordering::SeqCst), 0);
    let counts = server.behaviour().admission.counts();
    assert_eq!(counts.denied[admission::NO_RECORD], 1);
}
