//! The language of the node: one file per actor, its messages grouped by who sends them.
//!
//! Knows no actor and does no I/O. A message is a noun or an imperative; its fields carry their
//! units in their types; what it answers is its `rtype`.

pub mod admin;
pub mod audit;
pub mod enrolment;
pub mod identity;
pub mod jobs;
pub mod policy;
pub mod rate_limit;
pub mod reputation;
pub mod revocation;
pub mod sandbox;
pub mod settings;
pub mod swarm;
