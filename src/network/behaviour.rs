//! The node's behaviours, in the order in which libp2p asks them.

use std::convert::Infallible;

use libp2p::{gossipsub, identify, ping, request_response, swarm::NetworkBehaviour};

use super::{
    admission,
    attribution::Attributed,
    enrolment::{self, EnrolmentCodec},
    gossip::Gossip,
    identity::{self as identity_protocol, IdentityCodec},
    jobs::{Incoming, JobCodec},
};
use crate::{
    identity::{enrolment::Response as EnrolmentResponse, wire},
    sandbox::wire::Response,
};

/// What this node does on the network. [`admission`] is first: libp2p asks the fields in order
/// and stops at the first that denies, so nothing below sees a connection it did not admit.
#[derive(NetworkBehaviour)]
#[behaviour(
    to_swarm = "NodeBehaviourEvent",
    prelude = "libp2p::swarm::derive_prelude"
)]
pub struct NodeBehaviour {
    /// Lets connections in.
    pub admission: admission::Behaviour,
    /// Messages.
    pub gossip: Attributed<Gossip>,
    /// Tells peers what this node speaks.
    pub identify: Attributed<identify::Behaviour>,
    /// Requests of the identity protocol, both ways.
    pub identity: Attributed<request_response::Behaviour<IdentityCodec>>,
    /// Requests of the job protocol, both ways.
    pub jobs: Attributed<request_response::Behaviour<JobCodec>>,
    /// Requests of the enrolment protocol, both ways.
    pub enrolment: Attributed<request_response::Behaviour<EnrolmentCodec>>,
    /// Notices dead connections.
    pub ping: Attributed<ping::Behaviour>,
}

/// What the behaviours report.
#[derive(Debug)]
pub enum NodeBehaviourEvent {
    /// A message, or a neighbour's subscription.
    Gossip(Box<gossipsub::Event>),
    /// What a peer says of itself; to be trusted with nothing.
    Identify(Box<identify::Event>),
    /// A request or an answer of the identity protocol.
    Identity(Box<request_response::Event<identity_protocol::Incoming, wire::Response>>),
    /// A request or an answer of the job protocol.
    Jobs(Box<request_response::Event<Incoming, Response>>),
    /// A request or an answer of the enrolment protocol.
    Enrolment(Box<request_response::Event<enrolment::Incoming, EnrolmentResponse>>),
    /// A ping came back, or did not.
    Ping(ping::Event),
}

impl From<Infallible> for NodeBehaviourEvent {
    fn from(event: Infallible) -> Self {
        match event {}
    }
}

impl From<gossipsub::Event> for NodeBehaviourEvent {
    fn from(event: gossipsub::Event) -> Self {
        Self::Gossip(Box::new(event))
    }
}

impl From<identify::Event> for NodeBehaviourEvent {
    fn from(event: identify::Event) -> Self {
        Self::Identify(Box::new(event))
    }
}

impl From<request_response::Event<identity_protocol::Incoming, wire::Response>>
    for NodeBehaviourEvent
{
    fn from(event: request_response::Event<identity_protocol::Incoming, wire::Response>) -> Self {
        Self::Identity(Box::new(event))
    }
}

impl From<request_response::Event<Incoming, Response>> for NodeBehaviourEvent {
    fn from(event: request_response::Event<Incoming, Response>) -> Self {
        Self::Jobs(Box::new(event))
    }
}

impl From<request_response::Event<enrolment::Incoming, EnrolmentResponse>> for NodeBehaviourEvent {
    fn from(event: request_response::Event<enrolment::Incoming, EnrolmentResponse>) -> Self {
        Self::Enrolment(Box::new(event))
    }
}

impl From<ping::Event> for NodeBehaviourEvent {
    fn from(event: ping::Event) -> Self {
        Self::Ping(event)
    }
}
