//! A libp2p peer of the test's own: it speaks the gate's protocol, accepts everybody, and presents
//! whatever frame it is given.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{Swarm, swarm::SwarmEvent};
use quantraband::{
    audit::Direction,
    config::Config,
    identity::{
        Attributes, Channel, Grant, Groups, IssuerKey, Name, NodeKey, Refusal, Role,
        SigningRequest, Tier, issue,
    },
    network::{
        self, Admission, Admitted, Attribution, GateKeeper, Listeners, NodeBehaviour, Presented,
        Setup, Tasks, gate,
    },
    types::{Origin, PeerId, SecurityInfo, SystemClock, Timestamp, Topic},
};

/// Accepts everybody and presents what it was given.
pub(crate) struct Forger {
    frame: Arc<[u8]>,
    told: Mutex<Option<Refusal>>,
}

impl GateKeeper for Forger {
    fn own_frame(&self, _: &Channel, _: Role) -> Arc<[u8]> {
        self.frame.clone()
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
    fn admit_pending(&self, _: Option<IpAddr>) -> Result<(), &'static str> {
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

/// Dials `address` once with `key`, presenting `frame`. `Ok` when it was let in.
pub(crate) async fn present(key: &NodeKey, frame: Vec<u8>, address: &str) -> Result<(), String> {
    let mut swarm = swarm(key, frame);
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

/// A Swarm with `key` that presents `frame`; it listens nowhere.
pub(crate) fn swarm(key: &NodeKey, frame: Vec<u8>) -> Swarm<NodeBehaviour> {
    let forger = Arc::new(Forger {
        frame: frame.into(),
        told: Mutex::new(None),
    });
    let config = Config::default();
    network::build(&Setup {
        seed: &key.seed(),
        config: &config,
        keeper: forger.clone(),
        admission: forger.clone(),
        listeners: forger.clone(),
        attribution: forger.clone(),
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::here(forger),
    })
    .expect("a swarm")
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
    issue(issuer, &request, &grant, rand::random(), now)
        .unwrap()
        .as_bytes()
        .to_vec()
}
