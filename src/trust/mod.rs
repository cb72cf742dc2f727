//! Trust: quarantine, rate budgets, reputation. Pure cores; time is an argument.

pub mod quarantine;
pub mod rate;
pub mod reputation;
