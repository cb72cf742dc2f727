//! Jobs: what peers ask this node to run, and how it is run so that nothing else is touched.
//!
//! The cores here know no actor and take the time as an argument. A *job* is a WebAssembly module
//! with arguments and standard input; the *executor* runs it in a process of its own that it can
//! kill, keeps the output for a while, and signs a *receipt* over all of it. The *submitter* gets
//! the output by cursor, so that a broken connection or a restart costs nothing.
//!
//! Way of a job: `wire` (what a peer sends) → `registry` (may it, is there room, whose turn) →
//! `blobs` (module and input, by hash) → `pool` and `worker` (compiled and run) → `spool` (its
//! output) → `receipt`.

/// Most bytes of a module, an input or an output that travel in one message.
pub const MAX_PIECE: usize = 256 << 10;

pub mod blobs;
mod cache;
mod form;
mod hash;
mod job;
mod limits;
pub mod pool;
mod raw;
pub mod receipt;
pub mod registry;
pub mod sent;
pub mod spool;
pub mod wire;
pub mod worker;

pub use hash::{ContentHash, Hasher};
pub use job::{
    CancelledBy, IdempotencyKey, JobFault, JobId, JobSpec, JobState, MAX_ARGUMENT_BYTES,
    MAX_ARGUMENTS, Outcome, SpecError, Stream, Usage,
};
pub use limits::{LimitName, Limits, LimitsWanted, Refusal as LimitRefusal};
pub use pool::{MAX_CHUNK, Output, Pool, PoolCounts, PoolError, PoolSetup, Report, Task};
pub use raw::{Protection, forbid_writable_executable, writable_executable_forbidden};
pub use receipt::{Content, Receipt, ReceiptBody};
