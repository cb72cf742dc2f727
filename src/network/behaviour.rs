//! The node's behaviours, in the order in which libp2p asks them.

use std::convert::Infallible;

use libp2p::{gossipsub, identify, ping, swarm::NetworkBehaviour};

use super::{
    admission,
    attribution::Attributed,
    exchange::{self, Administration, Enrolment, Identity, Jobs},
    gossip::Gossip,
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
    pub identity: Attributed<exchange::Behaviour<Identity>>,
    /// Requests of the job protocol, both ways.
    pub jobs: Attributed<exchange::Behaviour<Jobs>>,
    /// Requests of the enrolment protocol, both ways.
    pub enrolment: Attributed<exchange::Behaviour<Enrolment>>,
    /// Commands of operators elsewhere, both ways.
    pub admin: Attributed<exchange::Behaviour<Administration>>,
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
    Identity(Box<exchange::Event<Identity>>),
    /// A request or an answer of the job protocol.
    Jobs(Box<exchange::Event<Jobs>>),
    /// A request or an answer of the enrolment protocol.
    Enrolment(Box<exchange::Event<Enrolment>>),
    /// A request or an answer of the administration protocol.
    Admin(Box<exchange::Event<Administration>>),
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

impl From<exchange::Event<Identity>> for NodeBehaviourEvent {
    fn from(event: exchange::Event<Identity>) -> Self {
        Self::Identity(Box::new(event))
    }
}

impl From<exchange::Event<Jobs>> for NodeBehaviourEvent {
    fn from(event: exchange::Event<Jobs>) -> Self {
        Self::Jobs(Box::new(event))
    }
}

impl From<exchange::Event<Enrolment>> for NodeBehaviourEvent {
    fn from(event: exchange::Event<Enrolment>) -> Self {
        Self::Enrolment(Box::new(event))
    }
}

impl From<exchange::Event<Administration>> for NodeBehaviourEvent {
    fn from(event: exchange::Event<Administration>) -> Self {
        Self::Admin(Box::new(event))
    }
}

impl From<ping::Event> for NodeBehaviourEvent {
    fn from(event: ping::Event) -> Self {
        Self::Ping(event)
    }
}
