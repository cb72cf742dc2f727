//! The node's behaviours, in the order in which libp2p asks them.

use std::convert::Infallible;

use libp2p::{
    autonat::v2 as autonat,
    dcutr, gossipsub, identify, mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    admission,
    attribution::Attributed,
    discovery::{Dials, Found, MembersOnly, Nearby, Observed, Walker},
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
    /// Lets dials out. Second: it is asked before anybody could prepare one.
    pub dials: Dials,
    /// Messages.
    pub gossip: Attributed<Gossip>,
    /// Tells peers what this node speaks.
    pub identify: Attributed<Observed>,
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
    /// Finds peers by asking members.
    pub walker: Toggle<MembersOnly<Attributed<Walker>>>,
    /// Finds peers on this node's own network.
    pub mdns: Toggle<Nearby>,
    /// Relays for members.
    pub relay: Toggle<MembersOnly<Attributed<relay::Behaviour>>>,
    /// Reaches others through relays.
    pub circuits: Toggle<MembersOnly<Attributed<relay::client::Behaviour>>>,
    /// Replaces relayed connections by direct ones.
    pub punch: Toggle<MembersOnly<Attributed<dcutr::Behaviour>>>,
    /// Has members try whether this node can be reached.
    pub probe: Toggle<MembersOnly<Attributed<autonat::client::Behaviour>>>,
    /// Tries that for members.
    pub prober: Toggle<MembersOnly<Attributed<autonat::server::Behaviour>>>,
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
    /// Something was found by asking members.
    Found(Found),
    /// Something was found on this node's own network.
    Mdns(mdns::Event),
    /// What this node does as a relay.
    Relay(Box<relay::Event>),
    /// A place at a relay, or a circuit.
    Circuit(Box<relay::client::Event>),
    /// A hole was punched, or not.
    Punch(Box<dcutr::Event>),
    /// Whether this node was reached at one of its addresses.
    Probe(Box<autonat::client::Event>),
    /// Whether another was.
    Probed(Box<autonat::server::Event>),
}

impl From<Found> for NodeBehaviourEvent {
    fn from(event: Found) -> Self {
        Self::Found(event)
    }
}

impl From<mdns::Event> for NodeBehaviourEvent {
    fn from(event: mdns::Event) -> Self {
        Self::Mdns(event)
    }
}

impl From<relay::Event> for NodeBehaviourEvent {
    fn from(event: relay::Event) -> Self {
        Self::Relay(Box::new(event))
    }
}

impl From<relay::client::Event> for NodeBehaviourEvent {
    fn from(event: relay::client::Event) -> Self {
        Self::Circuit(Box::new(event))
    }
}

impl From<dcutr::Event> for NodeBehaviourEvent {
    fn from(event: dcutr::Event) -> Self {
        Self::Punch(Box::new(event))
    }
}

impl From<autonat::client::Event> for NodeBehaviourEvent {
    fn from(event: autonat::client::Event) -> Self {
        Self::Probe(Box::new(event))
    }
}

impl From<autonat::server::Event> for NodeBehaviourEvent {
    fn from(event: autonat::server::Event) -> Self {
        Self::Probed(Box::new(event))
    }
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
