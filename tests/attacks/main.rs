//! Attacks on a real node with counted results, an honest pair connected and served throughout.
//!
//! The floods have a long form, at up to 10,000 attempts a second: `QUANTRABAND_EVIDENCE=1`.
#![cfg(test)]
#![expect(clippy::print_stdout, reason = "counted results are for people")]

#[path = "../common/mod.rs"]
mod common;
mod control;
mod flood;
mod frames;
mod house;
mod raw;
mod slow;
