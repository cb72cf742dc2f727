//! The enrolment protocol on the wire: who asks for a credential is passed on to Issuer, who shows
//! a renewed one is judged as at the gate.
//!
//! Nothing is decided here but budgets, and what the access decision says. One request of a peer
//! is served at a time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::{
    AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use libp2p::request_response::{OutboundRequestId, ResponseChannel};
use tokio::sync::oneshot;

use super::{SwarmActor, exchange::Heard, peers::Peer};
use crate::{
    actors::issuer::IssuerActor,
    audit::Direction,
    identity::{
        Refusal,
        enrolment::{RefusalCode, Refused, Request, Response},
    },
    messages::{
        enrolment::{AskCredential, AskRotation},
        swarm::{HangUp, PresentRenewed, SendEnrolment, SendFault},
    },
    network::{
        Admitted,
        exchange::{self, Enrolment},
    },
    policy::Action,
    types::{Origin, PeerId},
};

/// How long Issuer may take: two durable records and a busy disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// Peers whose requests are served at once; each holds at most a chain.
const MAX_SERVING: usize = 256;
/// Requests of this node that wait for a peer's answer: one for each peer it tells of its new
/// credential.
const MAX_CALLS: usize = 4_096;
/// When a peer that was told to come again should do so.
const COME_AGAIN: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<Response, SendFault>>;

/// Requests under way in one incarnation.
#[derive(Debug, Default)]
pub(super) struct Enrolments {
    waiting: HashMap<OutboundRequestId, Option<Answer>>,
    serving: HashSet<PeerId>,
}

impl Enrolments {
    pub(super) fn answered(&mut self, id: OutboundRequestId, answer: Result<Response, SendFault>) {
        if let Some(Some(caller)) = self.waiting.remove(&id) {
            // Who asked may have stopped waiting.
            let _ = caller.send(answer);
        }
    }
}

fn again(code: RefusalCode, detail: &str) -> Response {
    Response::Refused(Refused::new(code, detail).after(COME_AGAIN))
}

impl SwarmActor {
    pub(super) fn on_enrolment(
        &mut self,
        event: exchange::Event<Enrolment>,
        ctx: &mut Context<Self>,
    ) {
        match self.hear::<Enrolment>(event) {
            Some(Heard::Request {
                who,
                request,
                channel,
                ..
            }) => self.serve_enrolment(who, request, channel, ctx),
            Some(Heard::Answer { id, answer }) => self.enrolments.answered(id, answer),
            None => {}
        }
    }

    fn serve_enrolment(
        &mut self,
        who: PeerId,
        request: Request,
        channel: ResponseChannel<Response>,
        ctx: &mut Context<Self>,
    ) {
        let admitted = match self.may_enrol(who, &request) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.answer_enrolment(channel, refusal),
        };
        self.enrolments.serving.insert(who);
        match request {
            Request::Enrol { request } => {
                let ask = AskCredential {
                    peer: who,
                    tier: admitted.tier,
                    identity: admitted.identity.clone(),
                    invitation: admitted.invitation,
                    request,
                };
                self.pass_on(who, ask, channel, ctx);
            }
            Request::Rotate { statement } => {
                let ask = AskRotation {
                    peer: who,
                    tier: admitted.tier,
                    identity: admitted.identity.clone(),
                    statement,
                };
                self.pass_on(who, ask, channel, ctx);
            }
            Request::Present { chain } => {
                let ip = self.peers.get(&who).and_then(Peer::ip);
                let judging = self.tools.keeper.judge_renewed(admitted, ip, chain);
                ctx.spawn(judging.into_actor(self).map(move |judged, act, _| {
                    act.enrolments.serving.remove(&who);
                    let response = act.renewed(who, judged);
                    act.answer_enrolment(channel, response);
                }));
            }
        }
    }

    /// Asks Issuer, and answers the peer with what it says.
    fn pass_on<M>(
        &mut self,
        who: PeerId,
        ask: M,
        channel: ResponseChannel<Response>,
        ctx: &mut Context<Self>,
    ) where
        M: Message<Result = Response> + Send + 'static,
        IssuerActor: Handler<M>,
    {
        let issuer = self.tools.issuer.clone();
        let asked = async move {
            let answer = issuer.ask_for(Origin::peer(who), ask, PATIENCE).await;
            answer.unwrap_or_else(|error| again(RefusalCode::Unavailable, error.code()))
        };
        ctx.spawn(asked.into_actor(self).map(move |response, act, _| {
            act.enrolments.serving.remove(&who);
            act.answer_enrolment(channel, response);
        }));
    }

    /// Whether a peer's request is looked at, and as what it is connected.
    fn may_enrol(&self, who: PeerId, request: &Request) -> Result<Arc<Admitted>, Response> {
        let unknown = || Response::refuse(RefusalCode::Denied, "not admitted");
        if self.memory.draining {
            return Err(again(RefusalCode::Unavailable, "the node is stopping"));
        }
        let peer = self.peers.get(&who).ok_or_else(unknown)?;
        if let Err(denial) = self.charge_request(who) {
            return Err(again(RefusalCode::Rate, denial.reason.code()));
        }
        let serving = &self.enrolments.serving;
        if serving.contains(&who) || serving.len() >= MAX_SERVING {
            return Err(again(RefusalCode::Unavailable, "busy"));
        }
        if let Request::Enrol { .. } | Request::Rotate { .. } = request {
            let now = self.tools.clock.now();
            let identity = peer.admitted.identity.as_deref();
            let standings = self.tools.standings.load();
            let standing = standings.standing_of(&who, identity, now);
            let decision = self.evaluate(Action::Enrol, who, peer, standing, None, now);
            self.tools.metrics.decided(Action::Enrol, decision.verdict);
            if !decision.permits() {
                let rule = decision.rule.as_str();
                return Err(Response::refuse(RefusalCode::Denied, rule));
            }
        }
        Ok(Arc::clone(&peer.admitted))
    }

    fn renewed(&mut self, who: PeerId, judged: Result<Admitted, Refusal>) -> Response {
        match judged {
            Ok(admitted) => {
                let admitted = Arc::new(admitted);
                if self.peers.renewed(&admitted, self.tools.clock.now()) {
                    self.tell_footing(who);
                    tracing::info!(peer = %who, "the peer's credential was renewed");
                }
                Response::Noted
            }
            Err(refusal) => {
                let keeper = &self.tools.keeper;
                keeper.refused(&who, None, Direction::Inbound, &refusal);
                match refusal {
                    Refusal::Unavailable(why) => again(RefusalCode::Unavailable, why),
                    other => Response::refuse(RefusalCode::Denied, &other.to_string()),
                }
            }
        }
    }

    fn answer_enrolment(&mut self, channel: ResponseChannel<Response>, response: Response) {
        if let Some(swarm) = self.swarm.as_mut() {
            // The connection may be gone; the peer asks again.
            let enrolment = &mut swarm.behaviour_mut().enrolment;
            let _ = enrolment.send_response(channel, response);
        }
    }

    fn send_enrolment(
        &mut self,
        peer: PeerId,
        request: Request,
        caller: Option<Answer>,
    ) -> Result<(), SendFault> {
        let waiting = &mut self.enrolments.waiting;
        waiting.retain(|_, caller| caller.as_ref().is_none_or(|caller| !caller.is_closed()));
        if waiting.len() >= MAX_CALLS {
            return Err(SendFault::Busy);
        }
        let id = self.call::<Enrolment>(peer, request)?;
        self.enrolments.waiting.insert(id, caller);
        Ok(())
    }
}

impl Handler<SendEnrolment> for SwarmActor {
    type Result = ResponseActFuture<Self, Result<Response, SendFault>>;

    fn handle(&mut self, message: SendEnrolment, _: &mut Context<Self>) -> Self::Result {
        let (caller, answer) = oneshot::channel();
        if let Err(fault) = self.send_enrolment(message.peer, message.request, Some(caller)) {
            return Box::pin(fut::ready(Err(fault)));
        }
        let answer = async move { answer.await.unwrap_or(Err(SendFault::Broken)) };
        Box::pin(answer.into_actor(self))
    }
}

impl Handler<PresentRenewed> for SwarmActor {
    type Result = ();

    fn handle(&mut self, message: PresentRenewed, _: &mut Context<Self>) {
        let members = self.peers.iter().filter(|(_, peer)| peer.closing.is_none());
        let members: Vec<PeerId> = members.map(|(who, _)| *who).collect();
        for who in members {
            let request = Request::Present {
                chain: message.chain.clone(),
            };
            if let Err(error) = self.send_enrolment(who, request, None) {
                // It learns of the new credential when it connects the next time.
                tracing::debug!(peer = %who, %error, "not told of the renewed credential");
            }
        }
    }
}

impl Handler<HangUp> for SwarmActor {
    type Result = ();

    fn handle(&mut self, message: HangUp, _: &mut Context<Self>) {
        self.close_peer(message.peer, message.why);
    }
}
