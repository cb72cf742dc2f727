//! The job protocol on the wire: requests of peers go to Sandbox, requests of Jobs go to peers.
//!
//! Nothing is decided here but budgets: a request that is over one is answered at once, before
//! Sandbox hears of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{
    AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use tokio::sync::oneshot;

use super::{SwarmActor, exchange::Heard};
use crate::{
    identity::VerifiedIdentity,
    messages::{
        sandbox::JobRequest,
        swarm::{SendFault, SendJobRequest},
    },
    network::exchange::{self, Jobs},
    sandbox::wire::{MAX_WAIT, RefusalCode, Refused, Request, Response},
    types::{Footing, Origin, PeerId},
};

/// How long Sandbox may take beyond what the request itself waits for: one durable record and
/// some disk.
const GRACE: Duration = Duration::from_secs(10);
/// Requests of peers that Sandbox works at. Most wait for news and hold nothing; an upload holds
/// one piece of a blob.
const MAX_SERVING: usize = 1_024;
/// The same of one peer: a waiting request for each of its jobs, and uploads. One peer that lets
/// all of them wait takes an eighth of the whole, and nobody else's.
const MAX_SERVING_PER_PEER: usize = 128;
/// Requests of this node that wait for a peer's answer.
const MAX_CALLS: usize = 1_024;
/// What a request weighs beside the piece it may carry, bytes.
const REQUEST_BYTES: u64 = 512;
/// When a peer that was told to come again should do so.
const COME_AGAIN: Duration = Duration::from_millis(500);

type Answer = oneshot::Sender<Result<Response, SendFault>>;

/// Requests under way in one incarnation.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: HashMap<OutboundRequestId, Answer>,
    serving: HashMap<PeerId, usize>,
}

fn refuse(code: RefusalCode, detail: &str, again: Option<Duration>) -> Response {
    let refused = Refused::new(code, detail);
    Response::Refused(match again {
        Some(span) => refused.after(span),
        None => refused,
    })
}

fn weight(request: &Request) -> u64 {
    let piece = match request {
        Request::Put { bytes, .. } => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        _ => 0,
    };
    piece.saturating_add(REQUEST_BYTES)
}

impl SwarmActor {
    pub(super) fn on_jobs(&mut self, event: exchange::Event<Jobs>, ctx: &mut Context<Self>) {
        match self.hear::<Jobs>(event) {
            Some(Heard::Request {
                who,
                id,
                request,
                channel,
            }) => self.on_job_request(who, id, request, channel, ctx),
            Some(Heard::Answer { id, answer }) => self.calls.answered(id, answer),
            None => {}
        }
    }

    fn on_job_request(
        &mut self,
        who: PeerId,
        id: InboundRequestId,
        request: Request,
        channel: ResponseChannel<Response>,
        ctx: &mut Context<Self>,
    ) {
        let (identity, epoch, footing) = match self.may_ask(who, &request) {
            Ok(known) => known,
            Err(refusal) => return self.respond(channel, refusal),
        };
        self.calls.begin(who);
        let sandbox = self.tools.sandbox.clone();
        let message = JobRequest {
            peer: who,
            identity,
            epoch,
            footing: Some(footing),
            request,
        };
        let deadline = MAX_WAIT.saturating_add(GRACE);
        let asked = async move {
            let answer = sandbox.ask_for(Origin::peer(who), message, deadline).await;
            answer.unwrap_or_else(|error| {
                tracing::debug!(peer = %who, ?id, %error, "a job request was not carried out");
                refuse(RefusalCode::Unavailable, error.code(), Some(COME_AGAIN))
            })
        };
        ctx.spawn(asked.into_actor(self).map(move |response, act, _| {
            act.calls.end(&who);
            act.respond(channel, response);
        }));
    }

    /// Whether a peer's request is passed on, as whose, and how it came.
    fn may_ask(
        &self,
        who: PeerId,
        request: &Request,
    ) -> Result<(Option<Arc<VerifiedIdentity>>, u64, Footing), Response> {
        if self.memory.draining {
            let again = Some(COME_AGAIN);
            return Err(refuse(RefusalCode::Stopping, "the node is stopping", again));
        }
        let Some(peer) = self.peers.get(&who) else {
            return Err(refuse(RefusalCode::Denied, "not admitted", None));
        };
        if peer.admitted.tier.is_limited() {
            let tier = peer.admitted.tier.to_string();
            return Err(refuse(RefusalCode::Denied, &tier, None));
        }
        let limiter = self.tools.limiter.load();
        let charged = self
            .charge_request(who)
            .and_then(|()| limiter.charge_neighbour(who, weight(request)));
        if let Err(denial) = charged {
            self.tools.metrics.jobs().refused("rate");
            let again = denial.retry_after.or(Some(COME_AGAIN));
            return Err(refuse(RefusalCode::Rate, denial.reason.code(), again));
        }
        if self.calls.is_busy(&who) {
            self.tools.metrics.jobs().refused("unavailable");
            return Err(refuse(RefusalCode::Unavailable, "busy", Some(COME_AGAIN)));
        }
        let admitted = &peer.admitted;
        Ok((admitted.identity.clone(), admitted.epoch, peer.footing()))
    }

    fn respond(&mut self, channel: ResponseChannel<Response>, response: Response) {
        if let Some(swarm) = self.swarm.as_mut() {
            // The connection may be gone; the peer asks again.
            let _ = swarm.behaviour_mut().jobs.send_response(channel, response);
        }
    }
}

impl Calls {
    fn begin(&mut self, peer: PeerId) {
        let count = self.serving.entry(peer).or_default();
        *count = count.saturating_add(1);
    }

    fn end(&mut self, peer: &PeerId) {
        if let Some(count) = self.serving.get_mut(peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.serving.remove(peer);
            }
        }
    }

    /// Whether a request of this peer would be one too many.
    fn is_busy(&self, peer: &PeerId) -> bool {
        let all: usize = self.serving.values().sum();
        let own = self.serving.get(peer).copied().unwrap_or(0);
        all >= MAX_SERVING || own >= MAX_SERVING_PER_PEER
    }

    pub(super) fn answered(&mut self, id: OutboundRequestId, answer: Result<Response, SendFault>) {
        if let Some(caller) = self.waiting.remove(&id) {
            // Who asked may have stopped waiting.
            let _ = caller.send(answer);
        }
    }
}

impl Handler<SendJobRequest> for SwarmActor {
    type Result = ResponseActFuture<Self, Result<Response, SendFault>>;

    fn handle(&mut self, message: SendJobRequest, _: &mut Context<Self>) -> Self::Result {
        let SendJobRequest { peer, request } = message;
        let fail = |fault| -> Self::Result { Box::pin(fut::ready(Err(fault))) };
        self.calls.waiting.retain(|_, caller| !caller.is_closed());
        if self.calls.waiting.len() >= MAX_CALLS {
            return fail(SendFault::Busy);
        }
        let (caller, answer) = oneshot::channel();
        match self.call::<Jobs>(peer, request) {
            Ok(id) => drop(self.calls.waiting.insert(id, caller)),
            Err(fault) => return fail(fault),
        }
        let answer = async move { answer.await.unwrap_or(Err(SendFault::Broken)) };
        Box::pin(answer.into_actor(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key())
    }

    #[test]
    fn one_peer_that_lets_requests_wait_leaves_room_for_others() {
        let mut calls = Calls::default();
        while !calls.is_busy(&peer(1)) {
            calls.begin(peer(1));
        }
        assert!(!calls.is_busy(&peer(2)));
        calls.end(&peer(1));
        assert!(!calls.is_busy(&peer(1)));
        for n in 2..=250 {
            while !calls.is_busy(&peer(n)) {
                calls.begin(peer(n));
            }
        }
        assert_eq!(calls.serving.values().sum::<usize>(), MAX_SERVING);
    }
}
