//! The audit log: records, their chain, segment files, group commit, verification.
//!
//! Cores only: this room knows files through a small trait ([`storage::Storage`]), and no actix.
//! Lines are described in `docs/reference/audit-log.md`.
//!
//! ```text
//! RecordEvent -> Writer (bounded queue, one thread) -> Log (chain, batch) -> Storage -> answers
//! ```

mod aggregate;
pub mod checkpoint;
mod event;
mod ids;
mod lines;
mod log;
pub mod merkle;
pub mod note;
mod prove;
pub mod record;
pub mod storage;
mod tail;
mod verify;
pub mod witness;
mod writer;

pub use aggregate::{Aggregator, Tally};
pub use event::{AuditEvent, Direction};
pub use lines::{segment_name, segment_number};
pub use log::{Checkpointing, Log, LogOptions, OpenError};
pub use prove::{NoProof, Which, prove};
pub use tail::tail;
pub use verify::{
    CHECKPOINT_FILE, Damage, Expected, Finding, Report, for_each_record, kept_checkpoint, verify,
    verify_against,
};
pub use writer::{Fence, Progress, Writer};
