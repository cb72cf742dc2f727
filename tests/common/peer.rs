//! A libp2p peer of the test's own: it speaks the gate's protocol, accepts everybody, and presents
//! whatever credential it is given, with a good proof that it holds its own key.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Swarm,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use quantraband::{
    audit::Direction,
    config::Config,
    identity::{
        Attributes, Channel, Frame, Grant, Groups, IssuerKey, Name, NodeKey, Refusal, Role, Serial,
        SigningRequest, Tier, issue, status::MAX_ENTRIES,
    },
    network::{
        self, Admission, Admitted, Attribution, GateKeeper, Listeners, NodeBehaviour, Presented,
        Setup, Tasks, gate,
    },
    types::{Origin, PeerId, SecurityInfo, SystemClock, Timestamp, Topic},
};

/// Accepts everybody and presents what it was given.
pub(crate) struct Forger {
    /// Whose ML-DSA key proves possession.
    prover: NodeKey,
    credential: Vec<u8>,
    continuity: Option<Vec<u8>>,
    told: Mutex<Option<Refusal>>,
}

impl GateKeeper for Forger {
    fn own_frame(&self, channel: &Channel, role: Role) -> Arc<[u8]> {
        let proof = self.prover.prove(channel, role);
        let frame = Frame::with_parts(vec![self.credential.clone()], proof)
            .with_continuity(self.continuity.clone());
        frame.encode().into()
    }
    fn precheck(&self, _: &PeerId, _: Option<IpAddr>) -> Result<(), Refusal> {
        Ok(())
    }
    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.judge_open(presented.peer, presented.ip, presented.security)
    }
    fn judge_open(
        &self,
        peer: PeerId,
        _: Option<IpAddr>,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let rule = "forger".to_owned();
        futures::future::ok(Admitted {
            peer,
            tier: Tier::Member,
            identity: None,
            invitation: None,
            formerly: None,
            rule,
            security,
            epoch: 0,
        })
        .boxed()
    }
    fn refused(&self, _: &PeerId, _: Option<IpAddr>, _: Direction, refusal: &Refusal) {
        *self.told.lock().unwrap() = Some(refusal.clone());
    }
}

impl Admission for Forger {
    fn admit_pending(&self, _: quantraband::types::Source) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Listeners for Forger {
    fn may_listen(&self, _: &PeerId, _: &Topic) -> bool {
        true
    }
}

impl Attribution for Forger {
    fn begin(&self, _: PeerId) {}
    fn end(&self) {}
    fn task_panicked(&self, _: Origin, detail: &str) {
        panic!("the forger itself broke: {detail}");
    }
}

/// Dials `address` once with `key`, presenting `credential`. `Ok` when it was let in.
pub(crate) async fn present(key: &NodeKey, credential: &[u8], address: &str) -> Result<(), String> {
    present_by(key, key, credential, address).await
}

/// As [`present`], with the proof of possession made by another's key.
pub(crate) async fn present_by(
    key: &NodeKey,
    prover: &NodeKey,
    credential: &[u8],
    address: &str,
) -> Result<(), String> {
    let swarm = Box::new(swarm_by(key, prover, (credential, None)));
    dial(swarm, address).await
}

/// As [`present`], with a continuity statement.
pub(crate) async fn present_continuity(
    key: &NodeKey,
    credential: &[u8],
    statement: &[u8],
    address: &str,
) -> Result<(), String> {
    let shown = (credential, Some(statement.to_vec()));
    dial(Box::new(swarm_by(key, key, shown)), address).await
}

async fn dial(mut swarm: Box<Swarm<NodeBehaviour>>, address: &str) -> Result<(), String> {
    swarm
        .dial(address.parse::<libp2p::Multiaddr>().expect("an address"))
        .expect("dialling");
    let outcome = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    let refusal = gate::refusal_of(&error).map(ToString::to_string);
                    return Err(refusal.unwrap_or_else(|| error.to_string()));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), outcome)
        .await
        .expect("an outcome")
}

/// A Swarm with `key` that presents `credential`; it listens nowhere.
pub(crate) fn swarm(key: &NodeKey, credential: &[u8]) -> Swarm<NodeBehaviour> {
    swarm_by(key, key, (credential, None))
}

/// As [`swarm`], perhaps with a continuity statement.
pub(crate) fn swarm_showing(
    key: &NodeKey,
    credential: &[u8],
    statement: Option<&[u8]>,
) -> Swarm<NodeBehaviour> {
    swarm_by(key, key, (credential, statement.map(<[u8]>::to_vec)))
}

/// As [`swarm`], with behaviours of its own beside the node's.
pub(crate) fn swarm_with<B: NetworkBehaviour>(
    key: &NodeKey,
    credential: &[u8],
    config: &Config,
    wrap: impl FnOnce(NodeBehaviour) -> B,
) -> Swarm<B> {
    build(key, key, (credential, None), config, wrap)
}

fn swarm_by(
    key: &NodeKey,
    prover: &NodeKey,
    shown: (&[u8], Option<Vec<u8>>),
) -> Swarm<NodeBehaviour> {
    build(key, prover, shown, &Config::default(), |node| node)
}

fn build<B: NetworkBehaviour>(
    key: &NodeKey,
    prover: &NodeKey,
    (credential, continuity): (&[u8], Option<Vec<u8>>),
    config: &Config,
    wrap: impl FnOnce(NodeBehaviour) -> B,
) -> Swarm<B> {
    let forger = Arc::new(Forger {
        prover: prover.clone(),
        credential: credential.to_vec(),
        continuity,
        told: Mutex::new(None),
    });
    let setup = Setup {
        seed: &key.seed(),
        config,
        keeper: forger.clone(),
        admission: forger.clone(),
        listeners: forger.clone(),
        attribution: forger.clone(),
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::here(forger),
    };
    network::build_with(&setup, wrap).expect("a swarm")
}

/// A credential of one hour, with a group and an attribute.
pub(crate) fn credential(issuer: &IssuerKey, key: &NodeKey, name: &str, now: Timestamp) -> Vec<u8> {
    let subject = Name::try_new(name).unwrap();
    let role = [("role".to_owned(), "tester".to_owned())];
    let attributes = Attributes::try_new(role.into()).expect("attributes");
    let request = SigningRequest::seal(key, &subject, &attributes, now);
    let request = SigningRequest::open(&request).unwrap();
    let grant = Grant {
        attributes,
        groups: Groups::try_new([Name::try_new("workers").unwrap()]).unwrap(),
        lifetime: Duration::from_secs(3600),
        ..Grant::default()
    };
    let serial = Serial {
        id: rand::random(),
        index: rand::random_range(0..MAX_ENTRIES),
    };
    issue(issuer, &request, &grant, serial, now)
        .unwrap()
        .as_bytes()
        .to_vec()
}
