//! The audit log: records, their chain, segment files, group commit, verification.
//!
//! Cores only: this room knows files through a small trait ([`storage::Storage`]), and no actix.
//! Lines are described in `docs/reference/audit-log.md`.
//!
//! ```text
//! RecordEvent -> Writer (bounded queue, one thread) -> Log (chain, batch) -> Storage -> answers
//! ```

mod aggregate;
mod event;
mod ids;
mod lines;
mod log;
pub mod merkle;
pub mod record;
pub mod storage;
mod tail;
mod verify;
mod writer;

pub use aggregate::{Aggregator, Tally};
pub use event::{AuditEvent, Direction};
pub use lines::{segment_name, segment_number};
pub use log::{Log, LogOptions, OpenError};
pub use tail::tail;
pub use verify::{Damage, Finding, Report, for_each_record, verify};
pub use writer::{Fence, Progress, Writer};
