//! RateLimit: budgets. The checks themselves run in the callers, on the handle it publishes
//! ([`crate::trust::rate::Limiter`]); messages only manage it.

use actix::Message;
use serde::{Deserialize, Serialize};

// Used by Admin and the node at shutdown.

/// Writes every debt to the store now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), String>")]
pub struct SaveBudgets;

/// How full the tables of budgets are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BudgetUsage")]
pub struct DescribeBudgets;

/// Answer to [`DescribeBudgets`]: keys held, by table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BudgetUsage {
    /// Addresses with a debt.
    pub addresses: usize,
    /// Subnets with a debt.
    pub subnets: usize,
    /// Relays with a debt.
    pub relays: usize,
    /// Neighbours with a debt.
    pub neighbours: usize,
    /// Authors with a debt.
    pub authors: usize,
    /// Peers with a debt of job requests.
    pub requesters: usize,
    /// Members with a debt of messages.
    pub members: usize,
    /// Members with a debt of job requests.
    pub member_requesters: usize,
    /// Most keys a table may hold.
    pub capacity: usize,
}

impl BudgetUsage {
    /// Keys in the fullest table. Subnets have four tables of their own.
    #[must_use]
    pub fn fullest(&self) -> usize {
        let tables = [
            self.addresses,
            self.subnets.div_ceil(4),
            self.relays,
            self.neighbours,
            self.authors,
            self.requesters,
            self.members,
            self.member_requesters,
        ];
        tables.into_iter().max().unwrap_or_default()
    }
}
