//! Identity: who a peer is, and how it proves it.
//!
//! Pure cores: nothing here knows actix, libp2p or the network; time is an argument.

mod verified;

pub use verified::{Name, NameError, Refusal, Tier, VerifiedIdentity};
