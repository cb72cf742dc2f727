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
//! | [`trust`] | budgets, reputation, the access decision (pure) |
//! | [`audit`] | the tamper-evident log |
//! | [`actors`] | thin shells: they own state and I/O |
//! | [`cli`] | one file per command |
//! | [`supervision`] | restart policy, guard, actor reference, root (knows no actor) |

pub mod actors;
pub mod audit;
pub mod cli;
pub mod config;
pub mod identity;
pub mod messages;
pub mod supervision;
pub mod trust;
pub mod types;
