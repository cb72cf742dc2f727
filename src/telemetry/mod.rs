//! Telemetry: what the node shows of itself to those who watch it.
//!
//! [`Metrics`] is the only place that names a metric; [`init_logging`] the only one that decides
//! where log lines go and how they look; [`http`] serves liveness, readiness and metrics on
//! loopback. Nothing here decides anything, and nothing here can make the node fail.

mod gossip;
pub mod http;
mod jobs;
mod logging;
mod metrics;
mod policy;
mod printable;
mod reach;
mod status;

pub use http::{Health, Readiness};
pub use jobs::JobMetrics;
pub use logging::{LogFilter, LoggingError, init_logging};
pub use metrics::Metrics;
pub use policy::PolicyMetrics;
pub use printable::printable;
pub use reach::ReachMetrics;
pub use status::StatusMetrics;
