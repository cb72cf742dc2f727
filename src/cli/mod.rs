//! The commands: one file each. Parsing and printing are apart from what a command does, so that
//! each is a function from typed arguments to a report.

pub mod enrol;
pub mod identity;
pub mod trust;
