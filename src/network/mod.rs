//! The network: transport, identity gate, admission, behaviours, envelope, dialling.
//!
//! The only room, besides the Swarm actor, that knows libp2p. What a peer must pass, in order:
//!
//! 1. [`admission`]: before any cryptography (bans by address, rates, concurrency);
//! 2. [`secure`]: TCP or QUIC; TLS inside Noise, or one of them; Yamux; with a deadline;
//! 3. [`gate`]: both sides show credentials *inside the transport upgrade*, so a peer that was
//!    not accepted by its [`GateKeeper`] never reaches a protocol handler;
//! 4. [`admission`] again: a connection without the gate's record is denied.
//!
//! Policy is not decided here: [`GateKeeper`] and [`Admission`] are what the node answers.
//! When anything fails, the connection is closed: this room fails closed.

pub mod admission;
pub mod attribution;
pub mod batch;
mod behaviour;
mod build;
pub mod convert;
pub mod dial;
pub mod discovery;
pub mod envelope;
pub mod exchange;
pub mod gate;
mod gossip;
pub mod join;
pub mod outward;
pub mod parking;
pub mod replay;
mod resolve;
pub mod secure;
mod tasks;

pub use admission::{Admission, Counts, Refused};
pub use attribution::{Admits, Attribution, Load};
pub use behaviour::{NodeBehaviour, NodeBehaviourEvent};
pub use build::{
    BuildError, LONGEST_REQUEST, Setup, build, build_over, build_with, listen_open, secure_for,
};
pub use dial::{DialPlan, Due};
pub use envelope::{Entry, Envelope, EnvelopeError, Trace};
pub use gate::{Admitted, GateKeeper, Presented};
pub use gossip::{Gossip, Listeners, Permitted, PublishRefusal, publish, stands, subscribe};
pub use resolve::{ResolveError, resolve};
pub use tasks::{Tasks, Workers};
