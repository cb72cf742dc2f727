//! Administration from afar, on the wire: a peer's command is judged, written down and passed on
//! to Admin; commands of this node's operator for other nodes go out.
//!
//! A command is carried out only when the decision to do so is durable.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use actix::{
    AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use libp2p::request_response::{OutboundRequestId, ResponseChannel};
use tokio::sync::oneshot;

use super::{SwarmActor, exchange::Heard};
use crate::{
    actors::judge::Question,
    admin::{
        protocol::{self, Failure, FailureCode},
        remote::{Request, Response, instead_of, is_taken},
    },
    audit::AuditEvent,
    messages::{
        admin::RemoteCommand,
        swarm::{SendCommand, SendFault},
    },
    network::exchange::{self, Administration},
    policy::{Action, Rule},
    types::{Origin, PeerId},
};

/// How long Admin may take: as long as the slowest command.
const PATIENCE: Duration = Duration::from_secs(65);
/// Commands of peers that are carried out at once, one of each.
const MAX_SERVING: usize = 16;
/// Streams of peers that go on, remembered so that each is on record once and not with every
/// question: some for each peer that is served. Beyond it all are recorded anew.
const MAX_STREAMS: usize = 64;
/// Commands of this node that wait for an answer.
const MAX_CALLS: usize = 64;

type Answer = oneshot::Sender<Result<Response, SendFault>>;

/// Commands under way in one incarnation.
#[derive(Debug, Default)]
pub(super) struct Commands {
    waiting: HashMap<OutboundRequestId, Answer>,
    serving: HashSet<PeerId>,
    /// What a rule permitted, on record: as long as the connection lasts and the rule is the same.
    streams: HashSet<(PeerId, &'static str, Rule)>,
}

impl Commands {
    /// Whether a stream goes on that is on record; it is from now on.
    fn goes_on(&mut self, who: PeerId, command: &'static str, rule: &Rule) -> bool {
        if self.streams.len() >= MAX_STREAMS {
            self.streams.clear();
        }
        !self.streams.insert((who, command, rule.clone()))
    }

    /// A peer is disconnected, or may not administer: its streams are over.
    pub(super) fn end_streams(&mut self, who: &PeerId) {
        self.streams.retain(|(one, _, _)| one != who);
    }
}

impl Commands {
    pub(super) fn answered(&mut self, id: OutboundRequestId, answer: Result<Response, SendFault>) {
        if let Some(caller) = self.waiting.remove(&id) {
            // Who asked may have stopped waiting.
            let _ = caller.send(answer);
        }
    }
}

fn failure(code: FailureCode, why: impl Into<String>) -> Response {
    Response(Box::new(protocol::Response::Error(Failure::new(code, why))))
}

impl SwarmActor {
    pub(super) fn on_admin(
        &mut self,
        event: exchange::Event<Administration>,
        ctx: &mut Context<Self>,
    ) {
        match self.hear::<Administration>(event) {
            Some(Heard::Request {
                who,
                request,
                channel,
                ..
            }) => self.serve_command(who, request, channel, ctx),
            Some(Heard::Answer { id, answer }) => self.commands.answered(id, answer),
            None => {}
        }
    }

    fn serve_command(
        &mut self,
        who: PeerId,
        request: Request,
        channel: ResponseChannel<Response>,
        ctx: &mut Context<Self>,
    ) {
        let (command, granted) = match self.may_command(who, request) {
            Ok(granted) => granted,
            Err(refusal) => return self.answer_command(channel, refusal),
        };
        self.commands.serving.insert(who);
        let (audit, admin) = (self.tools.audit.clone(), self.tools.admin.get().cloned());
        let done = async move {
            if let Some(granted) = granted
                && audit.record(granted).await.is_err()
            {
                return failure(
                    FailureCode::Again,
                    "the audit log does not take records now",
                );
            }
            let Some(admin) = admin else {
                return failure(FailureCode::Again, "the node is starting");
            };
            let command = RemoteCommand { peer: who, command };
            let done = admin.ask_for(Origin::peer(who), command, PATIENCE).await;
            match done {
                Ok(answer) => Response(Box::new(answer)),
                Err(error) => failure(FailureCode::Again, error.to_string()),
            }
        };
        ctx.spawn(done.into_actor(self).map(move |response, act, _| {
            act.commands.serving.remove(&who);
            act.answer_command(channel, response);
        }));
    }

    /// The command, and the record of the decision that lets a peer give it; none for a stream that
    /// goes on.
    fn may_command(
        &mut self,
        who: PeerId,
        request: Request,
    ) -> Result<(protocol::Request, Option<AuditEvent>), Response> {
        if self.memory.draining {
            return Err(failure(FailureCode::Again, "the node is stopping"));
        }
        let denied = |why: &str| failure(FailureCode::Denied, why);
        let peer = self.peers.get(&who).ok_or_else(|| denied("not admitted"))?;
        if let Err(denial) = self.charge_request(who) {
            return Err(failure(FailureCode::Again, denial.reason.code()));
        }
        // A command that is not known is judged, too: strangers learn nothing of versions.
        let name = match &request {
            Request::Command(command) => command.name(),
            Request::Unknown(_) => "unknown",
        };
        let now = self.tools.clock.now();
        let identity = peer.admitted.identity.as_ref();
        let known = identity.map(|one| &**one);
        let decision = self.judge.decide(&Question {
            action: Action::Administer,
            peer: who,
            tier: peer.admitted.tier,
            identity,
            standing: self.tools.standings.load().standing_of(&who, known, now),
            status: self.tools.statuses.load().of_peer(known, now),
            topic: None,
            command: Some(name),
            footing: Some(peer.footing()),
            now,
        });
        let record = AuditEvent::Decided {
            action: Action::Administer.name().to_owned(),
            peer: who,
            topic: None,
            verdict: decision.verdict.name().to_owned(),
            rule: decision.rule.to_string(),
        };
        if !decision.permits() {
            self.tools.audit.note(record);
            self.commands.end_streams(&who);
            let rule = &decision.rule;
            return Err(denied(&match decision.hint() {
                Some(hint) => format!("denied by rule {rule}: {hint}"),
                None => format!("denied by rule {rule}"),
            }));
        }
        match request {
            Request::Unknown(why) => Err(failure(FailureCode::Invalid, why)),
            Request::Command(command) if !is_taken(&command) => {
                let why = format!("`{name}` is not taken from afar: {}", instead_of(&command));
                Err(failure(FailureCode::Invalid, why))
            }
            Request::Command(_) if self.is_busy(&who) => Err(failure(
                FailureCode::Again,
                "a command is being carried out",
            )),
            Request::Command(command) => {
                let rule = &decision.rule;
                let goes_on = command.is_stream() && self.commands.goes_on(who, name, rule);
                Ok((*command, (!goes_on).then_some(record)))
            }
        }
    }

    fn is_busy(&self, who: &PeerId) -> bool {
        let serving = &self.commands.serving;
        serving.contains(who) || serving.len() >= MAX_SERVING
    }

    fn answer_command(&mut self, channel: ResponseChannel<Response>, response: Response) {
        if let Some(swarm) = self.swarm.as_mut() {
            // The connection may be gone; what was done is done, and in the log.
            let admin = &mut swarm.behaviour_mut().admin;
            let _ = admin.send_response(channel, response);
        }
    }

    fn send_command(&mut self, message: SendCommand, caller: Answer) -> Result<(), SendFault> {
        let waiting = &mut self.commands.waiting;
        waiting.retain(|_, caller| !caller.is_closed());
        if waiting.len() >= MAX_CALLS {
            return Err(SendFault::Busy);
        }
        let request = Request::Command(Box::new(message.command));
        let id = self.call::<Administration>(message.peer, request)?;
        self.commands.waiting.insert(id, caller);
        Ok(())
    }
}

impl Handler<SendCommand> for SwarmActor {
    type Result = ResponseActFuture<Self, Result<protocol::Response, SendFault>>;

    fn handle(&mut self, message: SendCommand, _: &mut Context<Self>) -> Self::Result {
        let (caller, answer) = oneshot::channel();
        if let Err(fault) = self.send_command(message, caller) {
            return Box::pin(fut::ready(Err(fault)));
        }
        let answer = async move {
            let answer = answer.await.unwrap_or(Err(SendFault::Broken));
            answer.map(|Response(answer)| *answer)
        };
        Box::pin(answer.into_actor(self))
    }
}
