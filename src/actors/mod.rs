//! The actors: thin shells that own state and do I/O; what they decide is decided by the cores.
//!
//! Each is supervised ([`crate::supervision`]): others hold an `ActorRef`, ask with a deadline,
//! and deny when no answer comes.

pub mod admin;
pub mod audit;
pub mod gatekeeper;
pub mod identity;
pub mod issuer;
pub mod jobs;
pub mod judge;
pub mod policy;
pub mod rate_limit;
pub mod renewal;
pub mod reputation;
pub mod revocation;
pub mod sandbox;
pub mod settings;
pub mod swarm;
mod waiters;
