//! What the Swarm actor's protocols of requests and responses have in common: what an event
//! means, who is charged for what is no message, and whether a request may go out.

use std::fmt;

use libp2p::request_response::{
    InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel,
};

use super::{
    SwarmActor,
    outbound::{Calls, outcome_of},
};
use crate::{
    messages::swarm::SendFault,
    network::{
        convert,
        exchange::{self, Protocol, is_malformed},
        outward::Outcome,
    },
    types::PeerId,
};

/// What an event of a protocol says.
#[derive(Debug)]
pub(super) enum Heard<P: Protocol> {
    /// A peer asks.
    Request {
        who: PeerId,
        id: InboundRequestId,
        request: P::Request,
        channel: ResponseChannel<P::Response>,
    },
    /// A question of this node has its end.
    Answer {
        id: OutboundRequestId,
        answer: Result<P::Response, SendFault>,
    },
}

impl SwarmActor {
    /// What is to be done about an event, if anything. Who sent what is no message is charged.
    pub(super) fn hear<P: Calls>(&mut self, event: exchange::Event<P>) -> Option<Heard<P>> {
        match event {
            exchange::Event::<P>::Message { peer, message, .. } => match message {
                Message::Request {
                    request_id: id,
                    request,
                    channel,
                } => {
                    let who = convert::from_libp2p(&peer).ok()?;
                    match request {
                        Ok(request) => Some(Heard::Request {
                            who,
                            id,
                            request,
                            channel,
                        }),
                        // Without an answer the stream ends.
                        Err(exchange::SLOW) => {
                            self.tools.metrics.denied("request_timeout");
                            None
                        }
                        Err(malformed) => {
                            self.charge_malformed::<P>(who, "request", &malformed);
                            None
                        }
                    }
                }
                Message::Response {
                    request_id: id,
                    response,
                } => {
                    let pushed = P::pushed_back(&response);
                    let outcome = pushed.map_or(Outcome::Answered, Outcome::PushedBack);
                    let moment = self.moment();
                    self.outbound.settle::<P>(id, outcome, moment);
                    Some(Heard::Answer {
                        id,
                        answer: Ok(response),
                    })
                }
            },
            exchange::Event::<P>::OutboundFailure {
                request_id: id,
                error,
                peer,
                ..
            } => {
                if let (OutboundFailure::Io(error), Ok(who)) = (&error, convert::from_libp2p(&peer))
                    && is_malformed(error)
                {
                    self.charge_malformed::<P>(who, "response", error);
                }
                let moment = self.moment();
                self.outbound.settle::<P>(id, outcome_of(&error), moment);
                let fault = match error {
                    OutboundFailure::DialFailure => SendFault::NotConnected,
                    OutboundFailure::UnsupportedProtocols => SendFault::Unsupported,
                    _ => SendFault::Broken,
                };
                Some(Heard::Answer {
                    id,
                    answer: Err(fault),
                })
            }
            exchange::Event::<P>::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, protocol = P::LABEL, "a request was not answered");
                None
            }
            exchange::Event::<P>::ResponseSent { .. } => None,
        }
    }

    /// Charges what no honest peer of a protocol sends.
    pub(super) fn charge_malformed<P: Protocol>(
        &self,
        who: PeerId,
        kind: &str,
        why: &dyn fmt::Display,
    ) {
        self.charge_invalid(
            who,
            format!("a malformed {kind} of the {} protocol: {why}", P::LABEL),
        );
    }

    /// The address of a request: a connected peer, while this node is not stopping.
    pub(super) fn reach(&self, peer: PeerId) -> Result<libp2p::PeerId, SendFault> {
        let (Some(swarm), Ok(target)) = (self.swarm.as_ref(), convert::to_libp2p(&peer)) else {
            return Err(SendFault::NotConnected);
        };
        if self.memory.draining || !swarm.is_connected(&target) {
            return Err(SendFault::NotConnected);
        }
        Ok(target)
    }
}
