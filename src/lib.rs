//! QuantraBand: a zero-trust peer-to-peer node.
//!
//! # The map of the house
//!
//! | room | what it owns |
//! |---|---|
//! | [`actors`] | thin shells that own state and do I/O |
//! | [`cbor`] | the one encoding of everything signed or sent (pure) |
//! | [`types`] | identifiers, time, sizes, published views |
//! | [`config`] | the typed configuration |
//! | [`messages`] | the language of the node, one file per actor |
//! | [`identity`] | credentials, issuers, the node key (pure) |
//! | [`trust`] | budgets, reputation, the access decision (pure) |
//! | [`policy`] | who may do what: floor, policies, verdicts (pure; knows cedar) |
//! | [`audit`] | the tamper-evident log |
//! | [`network`] | transport, identity gate, admission, behaviours (knows libp2p) |
//! | [`supervision`] | restart policy, guard, actor reference, root (knows no actor) |
//! | [`sandbox`] | jobs: limits, queue, worker processes, receipts (knows wasmtime) |
//! | [`store`] | the embedded database: typed trees, checked values (knows sled) |
//! | [`actors`] | thin shells over the cores: state and I/O |
//! | [`admin`] | the language of the admin socket |
//! | [`telemetry`] | metrics, logging, health over HTTP |
//! | [`node`] | wiring: order of start, order of shutdown |
//! | [`cli`] | the command line: one file per command |
//!
//! A connection's way in: [`network::admission`], [`network::secure`], [`network::gate`], [`actors::gatekeeper`]
//! (which asks Identity, Reputation, the decision and Audit), then the Swarm actor.

pub mod actors;
pub mod admin;
pub mod audit;
pub mod cbor;
pub mod cli;
pub mod config;
pub mod identity;
pub mod messages;
pub mod network;
pub mod node;
pub mod policy;
pub mod sandbox;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod trust;
pub mod types;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision it was built from, when the build was told: `QUANTRABAND_GIT_REVISION=$(git
/// rev-parse --short HEAD) cargo build`.
pub const REVISION: Option<&str> = option_env!("QUANTRABAND_GIT_REVISION");
