//! The identity protocol on the wire: heads of status lists go to Revocation, requests for lists
//! are answered from the published view, and this node's own announcements and questions go out.
//!
//! Nothing is decided here but budgets, which are those of job requests. An announcement that a
//! neighbour could not take is repeated a few times; beyond that the neighbour is owed all of them,
//! and is shown them when it answers again, or a while later.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{
    AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use libp2p::request_response::{OutboundRequestId, ResponseChannel};
use tokio::sync::oneshot;

use super::{SwarmActor, exchange::Heard};
use crate::{
    identity::{
        Tier,
        status::MAX_HEADS,
        wire::{Request, Response},
    },
    messages::{
        revocation::AnnouncedHeads,
        swarm::{Announce, Neighbours, SendFault, SendIdentityRequest},
    },
    network::{
        exchange::{self, Identity},
        outward::retry::Attempts,
        parking::CredentialHash,
    },
    types::{Origin, PeerId},
};

/// Requests of this node that wait for an answer: a list for each issuer, and announcements.
const MAX_CALLS: usize = 4_096;
/// What a request weighs beside its documents, bytes.
const REQUEST_BYTES: u64 = 512;

type Answer = oneshot::Sender<Result<Response, SendFault>>;

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    Caller(Answer),
    Announcement(Announcement),
    Chains(PeerId, Vec<CredentialHash>),
}

#[derive(Debug, Clone)]
struct Announcement {
    peer: PeerId,
    heads: Arc<[Vec<u8>]>,
    attempts: Attempts,
}

/// Requests under way in one incarnation.
#[derive(Debug, Default)]
pub(super) struct IdentityCalls(HashMap<OutboundRequestId, Waiting>);

fn weight(request: &Request) -> u64 {
    let heads = match request {
        Request::Announce { heads } => heads.iter().map(Vec::len).sum(),
        Request::GetList { .. } | Request::GetChains { .. } => 0,
    };
    u64::try_from(heads)
        .unwrap_or(u64::MAX)
        .saturating_add(REQUEST_BYTES)
}

impl SwarmActor {
    pub(super) fn on_identity(
        &mut self,
        event: exchange::Event<Identity>,
        ctx: &mut Context<Self>,
    ) {
        match self.hear::<Identity>(event) {
            Some(Heard::Request {
                who,
                request,
                channel,
                ..
            }) => self.on_identity_request(who, request, channel, ctx),
            Some(Heard::Answer { id, answer }) => self.identity_answered(id, answer, ctx),
            None => {}
        }
    }

    fn on_identity_request(
        &mut self,
        who: PeerId,
        request: Request,
        channel: ResponseChannel<Response>,
        ctx: &mut Context<Self>,
    ) {
        match self.answer_identity(who, request) {
            Ok(response) => self.respond_identity(channel, response),
            Err(credentials) => self.serve_chains(who, credentials, ctx, |act, response| {
                act.respond_identity(channel, response);
            }),
        }
    }

    fn respond_identity(&mut self, channel: ResponseChannel<Response>, response: Response) {
        if let Some(swarm) = self.swarm.as_mut() {
            // The connection may be gone; the peer asks again.
            let _ = swarm
                .behaviour_mut()
                .identity
                .send_response(channel, response);
        }
    }

    /// The answer; or the credentials whose chains Identity has to be asked for.
    fn answer_identity(
        &self,
        who: PeerId,
        request: Request,
    ) -> Result<Response, Vec<CredentialHash>> {
        let limiter = self.tools.limiter.load();
        let charged = self
            .charge_request(who)
            .and_then(|()| limiter.charge_neighbour(who, weight(&request)));
        let Some(peer) = self.peers.get(&who) else {
            return Ok(Response::Later);
        };
        if charged.is_err() || self.memory.draining {
            return Ok(Response::Later);
        }
        let tier = peer.admitted.tier;
        if tier.is_limited() {
            // It may ask for a credential, and for nothing else.
            return Ok(Response::Later);
        }
        let known = peer.admitted.identity.is_some();
        Ok(match request {
            // Strangers are not heard: a head that cannot be proved yet has a request made for it.
            Request::Announce { .. } if tier != Tier::Member => Response::Later,
            Request::Announce { heads } => {
                let announced = AnnouncedHeads { peer: who, heads };
                match self.tools.revocation.tell_for(Origin::peer(who), announced) {
                    Ok(()) => Response::Heard,
                    Err(_) => Response::Later,
                }
            }
            Request::GetList { issuer, newer_than } => {
                let list = self.tools.statuses.load().list(&issuer, newer_than);
                list.map_or(Response::NoList, |list| Response::List(list.to_vec()))
            }
            // Who is a member of what is told to those who told it of themselves.
            Request::GetChains { .. } if !known => Response::Chains(Vec::new()),
            Request::GetChains { credentials } => return Err(credentials),
        })
    }

    pub(super) fn identity_answered(
        &mut self,
        id: OutboundRequestId,
        answer: Result<Response, SendFault>,
        ctx: &mut Context<Self>,
    ) {
        match self.identity_calls.0.remove(&id) {
            None => {}
            Some(Waiting::Caller(caller)) => {
                // Who asked may have stopped waiting.
                let _ = caller.send(answer);
            }
            Some(Waiting::Chains(peer, asked)) => self.on_chains(peer, asked, answer, ctx),
            Some(Waiting::Announcement(announcement)) => match answer {
                Ok(Response::Later) | Err(SendFault::Broken) => {
                    self.announce_again(announcement, None, ctx);
                }
                Ok(_) => {
                    let now = self.tools.clock.elapsed();
                    self.outbound.heard(&announcement.peer, now);
                }
                Err(_) => {}
            },
        }
    }

    /// Heads are the same however often they are told: they may be repeated.
    fn announce_again(
        &mut self,
        mut announcement: Announcement,
        not_before: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.tools.clock.elapsed();
        let (peer, attempts) = (announcement.peer, &mut announcement.attempts);
        match self.outbound.again(&peer, attempts, not_before, now) {
            Some(wait) => {
                ctx.run_later(wait, move |act, ctx| {
                    act.send_announcement(announcement, ctx);
                });
            }
            None => self.outbound.owe(peer, now),
        }
    }

    fn announce(&mut self, peer: PeerId, heads: Arc<[Vec<u8>]>, ctx: &mut Context<Self>) {
        let attempts = self.outbound.attempts(peer, self.tools.clock.elapsed());
        let announcement = Announcement {
            peer,
            heads,
            attempts,
        };
        self.send_announcement(announcement, ctx);
    }

    /// Shows a peer all heads that are known here: one that has just connected, or missed some.
    pub(super) fn show_all_heads(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        let heads = self.tools.statuses.load().heads();
        for chunk in heads.chunks(MAX_HEADS) {
            self.announce(peer, chunk.into(), ctx);
        }
    }

    fn send_announcement(&mut self, announcement: Announcement, ctx: &mut Context<Self>) {
        let request = Request::Announce {
            heads: announcement.heads.to_vec(),
        };
        match self.send_identity(announcement.peer, request) {
            Ok(id) => {
                let waiting = Waiting::Announcement(announcement);
                self.identity_calls.0.insert(id, waiting);
            }
            Err(SendFault::Held { retry_after, .. }) => {
                self.announce_again(announcement, Some(retry_after), ctx);
            }
            // It learns of them when it connects the next time.
            Err(SendFault::NotConnected) => {}
            Err(_) => {
                let now = self.tools.clock.elapsed();
                self.outbound.owe(announcement.peer, now);
            }
        }
    }

    pub(super) fn ask_for_chains(
        &mut self,
        peer: PeerId,
        asked: Vec<CredentialHash>,
        request: Request,
    ) -> Result<(), SendFault> {
        let id = self.send_identity(peer, request)?;
        self.identity_calls
            .0
            .insert(id, Waiting::Chains(peer, asked));
        Ok(())
    }

    /// The peers that this protocol is spoken with.
    fn unlimited(&self) -> Vec<PeerId> {
        let peers = self.peers.iter();
        peers
            .filter(|(_, peer)| !peer.admitted.tier.is_limited())
            .map(|(who, _)| *who)
            .collect()
    }

    fn send_identity(
        &mut self,
        peer: PeerId,
        request: Request,
    ) -> Result<OutboundRequestId, SendFault> {
        if self.identity_calls.0.len() >= MAX_CALLS {
            return Err(SendFault::Busy);
        }
        self.call::<Identity>(peer, request)
    }
}

impl Handler<SendIdentityRequest> for SwarmActor {
    type Result = ResponseActFuture<Self, Result<Response, SendFault>>;

    fn handle(&mut self, message: SendIdentityRequest, _: &mut Context<Self>) -> Self::Result {
        let (caller, answer) = oneshot::channel();
        match self.send_identity(message.peer, message.request) {
            Ok(id) => drop(self.identity_calls.0.insert(id, Waiting::Caller(caller))),
            Err(fault) => return Box::pin(fut::ready(Err(fault))),
        }
        let answer = async move { answer.await.unwrap_or(Err(SendFault::Broken)) };
        Box::pin(answer.into_actor(self).map(|answer, _, _| answer))
    }
}

impl Handler<Announce> for SwarmActor {
    type Result = ();

    fn handle(&mut self, message: Announce, ctx: &mut Context<Self>) {
        let heads: Arc<[Vec<u8>]> = message.heads.into();
        let peers = self.unlimited();
        for peer in peers.into_iter().filter(|who| Some(*who) != message.except) {
            self.announce(peer, Arc::clone(&heads), ctx);
        }
    }
}

impl Handler<Neighbours> for SwarmActor {
    type Result = Vec<PeerId>;

    fn handle(&mut self, _: Neighbours, _: &mut Context<Self>) -> Self::Result {
        self.unlimited()
    }
}
