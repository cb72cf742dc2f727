//! Rate budgets: who may do how much, enforced where the work would begin.
//!
//! Owned by the RateLimit actor, which publishes one [`Limiter`]; the gate and Swarm check it
//! without asking anybody. The arithmetic is governor's GCRA; keys, bounds and memory are this
//! room's.
//!
//! # Invariants
//! - A debt is forgotten only when it is paid: not by reconnecting, not by a restart, not
//!   because a table is full.
//! - Tables are bounded. In a full one, new keys share their subnet's budget and at last one
//!   overflow budget, so rotating addresses or keys gains nothing.
//! - A member, known by issuer and name, has one budget of messages and one of job requests for all
//!   its keys together, beside each key's own: a new key brings none. Bytes belong to a connection,
//!   and are charged to its key alone.
//! - The wall clock matters only across a restart, and there a step back neither lengthens nor
//!   erases a debt.
//!
//! # When it fails
//! A limiter that was not opened by its owner yet ([`Limiter::closed`]) denies everything.

mod debt;
mod limiter;
mod networks;
mod table;
#[cfg(test)]
mod tests;

pub use debt::{Debt, DebtKey, DebtKeyError};
pub use limiter::{Denial, DenialReason, LimitError, Limiter};
pub use networks::{ExemptNetworks, NetworkError};
