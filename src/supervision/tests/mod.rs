//! One file per topic; each test is named after the promise it keeps.
//!
//! Tests run on the machine's clock only where tokio's timers force them to, and await conditions.

mod restart;
mod support;
