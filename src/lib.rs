//! QuantraBand: a zero-trust peer-to-peer node.
//!
//! # The map of the house
//!
//! | room | what it owns |
//! |---|---|
//! | [`types`] | identifiers, time, sizes, published views |
//! | [`config`] | the typed configuration |
//! | [`messages`] | the language of the node, one file per actor |
//! | [`identity`] | credentials, issuers, the node key (pure) |
//! | [`network`] | transport, identity gate, admission, behaviours (knows libp2p) |
//! | [`trust`] | budgets, reputation, the access decision (pure) |
//! | [`audit`] | the tamper-evident log |

pub mod audit;
pub mod config;
pub mod identity;
pub mod messages;
pub mod network;
pub mod trust;
pub mod types;
