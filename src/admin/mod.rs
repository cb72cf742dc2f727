//! Administration: what the command line and the node say to each other.
//!
//! Here are only the wire types ([`protocol`], and from afar [`remote`]) and their framing
//! ([`lines`]). The node's end is
//! the admin actor, the other end is `cli::client`. Nothing here does I/O by itself.

pub mod lines;
pub mod protocol;
pub mod remote;
