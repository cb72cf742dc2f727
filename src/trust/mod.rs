//! Trust: rate budgets, reputation, and the access decision. Pure cores; time is an argument.

pub mod decision;
pub mod quarantine;
pub mod rate;
pub mod reputation;
