//! How this node finds others and is reached by them: Kademlia, multicast DNS, relays, hole
//! punching, AutoNAT. All of it is off unless it is configured.
//!
//! What protects the node from whom it finds:
//!
//! - [`MembersOnly`]: only connections that the gate admitted as a member's get the handlers of
//!   these protocols. To everybody else the node does not speak them.
//! - [`Dials`]: every dial of this node, whoever wants it, is asked about here. Banned peers and
//!   addresses are not dialled; where a peer chooses the address it must be one that the peer can
//!   answer for, and it may do so a few times a minute ([`Allowance`]).
//! - [`Walker`]: Kademlia finds and never dials. What it finds are hints for
//!   [`DialPlan`](super::DialPlan), which decides how many of them are followed. It stores nothing
//!   for anybody.
//! - [`Observed`]: where this node is seen from is heard from members alone, and not without end.
//! - [`Nearby`]: multicast DNS gives hints, so many a minute.
//! - [`scope`]: addresses that make no sense, seen from whoever tells them, are dropped.
//!
//! An address that is learnt is trusted with nothing: whoever answers there must prove itself at
//! the gate as everybody else.

mod allowance;
mod assemble;
mod dials;
mod members;
mod nearby;
mod observed;
pub mod scope;
mod walker;

pub use allowance::{Allowance, Buckets, Rate};
pub(super) use assemble::{circuits, extras};
pub use dials::{DialBook, Dials, Purpose};
pub use members::MembersOnly;
pub use nearby::{Nearby, Ration, is_near};
pub use observed::{Hearsay, Observed};
pub use walker::{Found, PROTOCOL, Walker};

/// Addresses taken from one message of a peer; the rest of them are dropped unread.
pub const MAX_ADDRESSES: usize = 8;
