//! The configuration: typed sections, loaded in layers, validated, described.
//!
//! Precedence: flag, then environment (`QUANTRABAND_SECTION__KEY`), then file, then default.
//! A key that does nothing is a defect; an unset limit is never "unlimited".

mod sections;

pub use sections::*;
