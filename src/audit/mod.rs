//! The audit log: records, their chain, segment files, group commit, verification.
//!
//! Cores only: this room knows files through a small trait, and no actix.

mod event;
pub mod record;

pub use event::{AuditEvent, Direction};
