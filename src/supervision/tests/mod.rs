//! One file per topic; each test is named after the promise it keeps.
//!
//! The machine's clock is used only where tokio's timers or the watching threads force it, and
//! conditions are awaited.

mod blame;
mod budget;
mod build;
mod mailbox;
mod restart;
mod root;
mod stall;
mod stop;
mod support;
