//! Joining: one connection of a node that has no credential yet, to the node that invited it.
//!
//! No actors run here: a Swarm of the node's own behaviours is driven by one future, which dials,
//! asks once, and ends. It listens nowhere and serves nothing. Who answers must be the peer that the
//! invitation names, before anything is shown to it: the dial expects that peer, and the secret is
//! proved only over a channel with it. That it is a member of the issuer can be judged only once the
//! issuer's anchor is there; so what it presented is handed to the caller ([`Answer::presented`]).
//!
//! Bounded in time. It fails with a [`JoinFault`].

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Swarm,
    request_response::{Event, Message, OutboundFailure},
    swarm::{
        SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use thiserror::Error;

use super::{
    Admission, Admitted, Attribution, BuildError, GateKeeper, Listeners, NodeBehaviour,
    NodeBehaviourEvent, Presented, Setup, Tasks, build, convert, gate, resolve,
};
use crate::{
    audit::Direction,
    config::Config,
    identity::{
        Channel, Frame, NodeKey, Refusal, Role, Tier,
        enrolment::{Refused, Request, Response},
        invitation::{InvitationKey, Token},
    },
    types::{Clock, Origin, PeerId, SecurityInfo, Topic},
};

/// For everything: resolving, dialling, the gate, and the issuer's durable records.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long the system's resolver may take for one name.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

/// Why the node was not enrolled.
#[derive(Debug, Error)]
pub enum JoinFault {
    /// The Swarm cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// None of the addresses leads to the peer.
    #[error(
        "the inviting node {peer} is not reached: {why}; does it run, and may this machine \
         connect to it?"
    )]
    Unreachable {
        /// Whom.
        peer: PeerId,
        /// Why not.
        why: String,
    },
    /// One of the two refused the other at the gate.
    #[error("refused at the gate: {0}")]
    Gate(Refusal),
    /// The issuer's node says no.
    #[error("the issuer's node refuses ({}): {}", .0.code.name(), .0.detail)]
    Refused(Refused),
    /// The connection broke before the answer came.
    #[error("the connection broke before the answer came ({0}); trying again may help")]
    Broken(String),
}

/// What the issuer's node gave.
#[derive(Debug)]
pub struct Answer {
    /// The new chain as a file holds it.
    pub chain: Vec<u8>,
    /// The issuer's anchor.
    pub anchor: Vec<u8>,
    /// What the node that answered presented of itself.
    pub presented: Presented,
}

/// Lets in the one peer that is asked, and keeps what it presented.
struct Doorman {
    token: Token,
    key: InvitationKey,
    presented: Mutex<Option<Presented>>,
}

impl Doorman {
    fn only(&self, peer: PeerId) -> Result<(), Refusal> {
        match peer == self.token.peer {
            true => Ok(()),
            false => Err(Refusal::Denied("join.other_peer".into())),
        }
    }
}

impl GateKeeper for Doorman {
    fn own_frame(&self, channel: &Channel, role: Role) -> Arc<[u8]> {
        let proof = self.key.prove(self.token.id, channel, role);
        Frame::invited(proof).encode().into()
    }

    fn precheck(&self, peer: &PeerId, _: Option<IpAddr>) -> Result<(), Refusal> {
        self.only(*peer)
    }

    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let admitted = self.only(presented.peer).map(|()| Admitted {
            peer: presented.peer,
            tier: Tier::Unverified,
            identity: None,
            invitation: None,
            formerly: None,
            rule: "join".to_owned(),
            security: presented.security,
            epoch: 0,
        });
        let mut slot = self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Some(presented);
        futures::future::ready(admitted).boxed()
    }

    fn judge_open(
        &self,
        _: PeerId,
        _: Option<IpAddr>,
        _: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        futures::future::ready(Err(Refusal::Unavailable("nobody is served here"))).boxed()
    }

    fn refused(&self, peer: &PeerId, _: Option<IpAddr>, _: Direction, why: &Refusal) {
        tracing::debug!(%peer, %why, "refused");
    }
}

/// Nobody else is let in, listened to, or blamed.
struct Closed;

impl Admission for Closed {
    fn admit_pending(&self, _: crate::types::Source, _: bool) -> Result<(), &'static str> {
        Err("joining")
    }
}

impl Listeners for Closed {
    fn may_listen(&self, _: &PeerId, _: &Topic) -> bool {
        false
    }
}

impl Attribution for Closed {
    fn begin(&self, _: PeerId) {}

    fn end(&self) {}

    fn invalid_messages(&self, _: PeerId, _: usize) {}

    fn task_panicked(&self, _: Origin, detail: &str) {
        tracing::error!(detail, "a connection task panicked");
    }
}

/// Asks the node that `token` names for a credential. Must be called on a tokio runtime.
///
/// # Errors
/// [`JoinFault`].
pub async fn enrol(
    token: &Token,
    key: &NodeKey,
    config: &Config,
    clock: Arc<dyn Clock>,
    request: Vec<u8>,
) -> Result<Answer, JoinFault> {
    let doorman = Arc::new(Doorman {
        token: token.clone(),
        key: InvitationKey::of(&token.secret),
        presented: Mutex::default(),
    });
    let closed = Arc::new(Closed);
    let mut swarm = build(&Setup {
        seed: &key.seed(),
        config,
        keeper: doorman.clone(),
        admission: closed.clone(),
        listeners: closed.clone(),
        attribution: closed.clone(),
        clock,
        tasks: Tasks::here(closed),
    })?;
    let asking = ask(&mut swarm, token, request);
    let answered = tokio::time::timeout(DEADLINE, asking).await;
    let (chain, anchor) =
        answered.unwrap_or_else(|_| Err(JoinFault::Broken(format!("not within {DEADLINE:?}"))))?;
    let presented = doorman.presented.lock();
    let presented = presented.unwrap_or_else(PoisonError::into_inner).take();
    let presented = presented.ok_or_else(|| JoinFault::Broken("nothing was shown".to_owned()))?;
    Ok(Answer {
        chain,
        anchor,
        presented,
    })
}

async fn addresses(token: &Token) -> Result<Vec<Multiaddr>, String> {
    let mut found = Vec::new();
    let mut why = "the invitation names no address".to_owned();
    for text in &token.addresses {
        let address: Multiaddr = match text.parse() {
            Ok(address) => address,
            Err(error) => {
                why = format!("`{}`: {error}", text.escape_debug());
                continue;
            }
        };
        match resolve(&address, RESOLVE_DEADLINE).await {
            Ok(resolved) => found.extend(resolved),
            Err(error) => why = error.to_string(),
        }
    }
    if found.is_empty() {
        Err(why)
    } else {
        Ok(found)
    }
}

async fn ask(
    swarm: &mut Swarm<NodeBehaviour>,
    token: &Token,
    request: Vec<u8>,
) -> Result<Documents, JoinFault> {
    let unreachable = |why: String| JoinFault::Unreachable {
        peer: token.peer,
        why,
    };
    let target = convert::to_libp2p(&token.peer).map_err(|error| unreachable(error.to_string()))?;
    let addresses = addresses(token).await.map_err(unreachable)?;
    let dial = DialOpts::peer_id(target)
        .condition(PeerCondition::Always)
        .addresses(addresses)
        .build();
    swarm
        .dial(dial)
        .map_err(|error| unreachable(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                let request = Request::Enrol {
                    request: request.clone(),
                };
                let enrolment = &mut swarm.behaviour_mut().enrolment;
                enrolment.send_request(&peer_id, Ok(request));
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(match gate::refusal_of(&error) {
                    Some(refusal) => JoinFault::Gate(refusal.clone()),
                    None => unreachable(error.to_string()),
                });
            }
            SwarmEvent::ConnectionClosed { cause, .. } => {
                let cause = cause.map_or("closed".to_owned(), |error| error.to_string());
                return Err(JoinFault::Broken(cause));
            }
            SwarmEvent::Behaviour(NodeBehaviourEvent::Enrolment(event)) => {
                if let Some(answer) = answer(*event) {
                    return answer;
                }
            }
            _ => {}
        }
    }
}

/// A chain and its issuer's anchor.
type Documents = (Vec<u8>, Vec<u8>);
type Asked = super::exchange::Event<super::exchange::Enrolment>;

fn answer(event: Asked) -> Option<Result<Documents, JoinFault>> {
    let broken = |why: &str| JoinFault::Broken(why.to_owned());
    match event {
        Event::Message {
            message: Message::Response { response, .. },
            ..
        } => Some(match response {
            Response::Issued {
                chain,
                anchor: Some(anchor),
            } => Ok((chain, anchor)),
            Response::Refused(refused) => Err(JoinFault::Refused(refused)),
            Response::Issued { anchor: None, .. } | Response::Rotated { .. } | Response::Noted => {
                Err(broken("a strange answer"))
            }
        }),
        Event::OutboundFailure { error, .. } => Some(Err(match error {
            OutboundFailure::UnsupportedProtocols => broken("the node does not enrol others"),
            other => broken(&other.to_string()),
        })),
        _ => None,
    }
}
