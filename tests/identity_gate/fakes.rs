//! What the node asks of its surroundings, answered as a test wants: keeper, door, ears, blame.

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

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use quantraband::{
    audit::Direction,
    identity::{Channel, Refusal, Role, Tier},
    network::{self, Admission, Admitted, Attribution, GateKeeper, Listeners, Presented},
    types::{Cipher, Origin, PeerId, SecurityInfo, Topic},
};
use tokio::sync::watch;

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
    /// About the right peer on another channel than the one it came by.
    AnotherChannel,
    Panic,
}

/// A keeper that does as it is told and remembers what it was told.
#[derive(Default)]
pub(crate) struct Keeper {
    pub(crate) answer: Answer,
    pub(crate) banned: Mutex<Vec<PeerId>>,
    pub(crate) judged: Mutex<Vec<Presented>>,
    /// The channels for which a frame was asked, and this node's end of each.
    pub(crate) bound: Mutex<Vec<(Channel, Role)>>,
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

    fn admit(
        &self,
        peer: PeerId,
        tier: Tier,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let admitted = |peer| Admitted {
            peer,
            tier,
            identity: None,
            invitation: None,
            formerly: None,
            rule: "test".to_owned(),
            security,
            epoch: 0,
        };
        match self.answer.clone() {
            Answer::Accept => futures::future::ok(admitted(peer)).boxed(),
            Answer::Refuse(refusal) => futures::future::err(refusal).boxed(),
            Answer::Never => futures::future::pending().boxed(),
            Answer::AnotherPeer => futures::future::ok(admitted(peer_of(&[99; 32]))).boxed(),
            Answer::AnotherChannel => {
                let mut other = admitted(peer);
                other.security.cipher = Cipher::Untold;
                futures::future::ok(other).boxed()
            }
            Answer::Panic => async { panic!("the keeper broke") }.boxed(),
        }
    }
}

impl GateKeeper for Keeper {
    fn own_frame(&self, channel: &Channel, role: Role) -> Arc<[u8]> {
        self.bound.lock().unwrap().push((*channel, role));
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
        let (peer, security) = (presented.peer, presented.security);
        self.judged.lock().unwrap().push(presented);
        self.admit(peer, Tier::Member, security)
    }

    fn judge_open(
        &self,
        peer: PeerId,
        _: Option<IpAddr>,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.admit(peer, Tier::Unverified, security)
    }

    fn refused(&self, _: &PeerId, _: Option<IpAddr>, direction: Direction, refusal: &Refusal) {
        self.refused
            .send_modify(|all| all.push((direction, refusal.clone())));
    }
}

/// Lets in everybody, or nobody.
pub(crate) struct Door(pub(crate) Result<(), &'static str>);

impl Admission for Door {
    fn admit_pending(&self, _: quantraband::types::Source, _: bool) -> Result<(), &'static str> {
        self.0
    }
}

/// Lets every peer listen to everything, or none to anything.
pub(crate) struct Ears(pub(crate) bool);

impl Listeners for Ears {
    fn may_listen(&self, _: &PeerId, _: &Topic) -> bool {
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

pub(crate) fn peer_of(seed: &[u8; 32]) -> PeerId {
    let key = libp2p::identity::Keypair::ed25519_from_bytes(*seed).unwrap();
    network::convert::from_libp2p(&key.public().to_peer_id()).unwrap()
}
