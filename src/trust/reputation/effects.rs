//! What comes in and what goes out.

use std::net::IpAddr;

use thiserror::Error;

use super::MAX_BAN;
use crate::{
    audit::AuditEvent,
    messages::reputation::Severity,
    types::{Party, PeerId, Span, SubjectId},
};

/// Longest reason and evidence kept, in characters.
const MAX_TEXT: usize = 256;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A proved misdeed.
    Charge {
        /// The authenticated key that did it, or an address before authentication.
        party: Party,
        /// The member that acted by the key, verified: it is charged as well.
        subject: Option<SubjectId>,
        /// The address it came from.
        address: Option<IpAddr>,
        /// What kind.
        severity: Severity,
        /// What happened, in words.
        evidence: String,
        /// It is in a sum of refusals, and has no record of its own.
        summed: bool,
    },
    /// A connection that stood.
    Credit {
        /// The peer.
        peer: PeerId,
        /// The member whose connection it is.
        subject: Option<SubjectId>,
    },
    /// Time passed; due about once a second.
    Tick,
}

/// What the owner must do, in this order: publish, persist, audit.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the party's account, or remove it when there is none any more.
    Persist {
        /// Whose.
        party: Party,
        /// Whether the change must be on the disk before anybody is told of it.
        durable: bool,
    },
    /// Publish the standings anew.
    Publish,
    /// Record an event.
    Audit(AuditEvent),
}

/// Why an operator's ban was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BanError {
    /// No time at all, or more than [`MAX_BAN`].
    #[error("a ban lasts from 1 ms to {max}, not {0}", max = Span(MAX_BAN))]
    Span(Span),
    /// Nothing but operators' bans is remembered.
    #[error("all {0} places are operators' bans: lift one, or raise reputation.tracked_parties")]
    Full(usize),
}

pub(super) fn persist(party: Party, durable: bool) -> Effect {
    Effect::Persist { party, durable }
}

pub(super) fn ban_ended(party: Party, cause: &str) -> Effect {
    Effect::Audit(AuditEvent::BanEnded {
        party,
        cause: cause.to_owned(),
    })
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
