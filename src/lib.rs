//! QuantraBand: a zero-trust peer-to-peer node.
//!
//! # The map of the house
//!
//! | room | what it owns |
//! |---|---|
//! | [`actors`] | thin shells that own state and do I/O |
//! | [`types`] | identifiers, time, sizes, published views |
//! | [`config`] | the typed configuration |
//! | [`messages`] | the language of the node, one file per actor |
//! | [`identity`] | credentials, issuers, the node key (pure) |
//! | [`trust`] | budgets, reputation, the access decision (pure) |
//! | [`store`] | the embedded database: typed trees, checked values |
//! | [`audit`] | the tamper-evident log |
//! | [`supervision`] | restart policy, guard, actor reference, root (knows no actor) |

pub mod actors;
pub mod audit;
pub mod config;
pub mod identity;
pub mod messages;
pub mod store;
pub mod supervision;
pub mod trust;
pub mod types;
