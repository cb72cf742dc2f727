//! Reputation: what is remembered of a party's conduct, and the bans that follow from it.
//!
//! Owned by the Reputation actor. [`Reputation`] takes `(input, now)` and answers [`Effect`]s;
//! [`Standings`] is the immutable view that gate and Swarm read.
//!
//! # Invariants
//! - A score lies in 0..=1 and moves toward neutral by half its distance in each half-life.
//! - Every ban ends: at most [`MAX_BAN`] after it began, into probation with a score above the
//!   threshold, so that nobody is banned for what an ended ban has paid for. A misdeed during
//!   probation bans again.
//! - A wall clock that steps back makes time stand still: nothing gets longer or shorter.
//! - A member is two parties: its key and its subject, the name its issuer gives it. What it does
//!   is charged and credited to both in one step; it stands where the worse of both stands, and a
//!   ban on either bars it. A key that a member brings for the first time begins where its subject
//!   stands. What a peer does that is no member is charged to its key, whatever it presents.
//! - The table is bounded, with as many places for subjects as for keys and addresses together.
//!   Neither kind takes a place of the other: keys cost a stranger nothing. Who is nearest to neutral is forgotten first and a banned party
//!   never, as long as anybody else is there. In a table of bans alone, the ban that ends
//!   soonest yields to a new misdeed (it has the least left to lose), an operator's ban never.
//! - An address is banned only for abuse before authentication, or when several peers behind it
//!   are banned; one peer's misdeeds never ban an address (NAT).
//!
//! # When it fails
//! A view that no actor filled yet says so, and the decision denies.

mod account;
mod book;
mod core;
mod effects;
mod ledger;
mod standings;
mod subject;
#[cfg(test)]
mod tests;

pub use self::core::Reputation;
pub use account::{Account, BanRecord, MAX_BAN};
pub use effects::{BanError, Effect, Input};
pub use standings::{Barred, Standings};
pub use subject::{answers, subject_of};
