//! What no policy may lift.
//!
//! Runs before the policies at every call and is never remembered: a ban, an expiry, a revocation
//! hold from the moment they are known, whatever any policy or cache says. Limited tiers (an
//! invited peer, one whose credential lapsed lately) and enrolment are judged here to the end.

use super::{Action, Decision, DenyReason, Facts, Request, Rule, Verdict, settings::rounded_down};
use crate::{
    identity::{Status, Tier},
    types::Timestamp,
};

/// What the floor says of a request.
#[derive(Debug, Clone)]
pub enum Floor {
    /// It is decided.
    Decided(Decision),
    /// The policies decide, by these facts.
    Ask(Box<Facts>),
}

/// The rules that no policy may lift, in a fixed order.
#[must_use]
pub fn floor(request: &Request<'_>) -> Floor {
    if let Some(denied) = standing(request).or_else(|| identity(request)) {
        return Floor::Decided(denied);
    }
    let tier = request.subject.tier;
    if tier.is_limited() || request.action == Action::Enrol {
        return Floor::Decided(limited(request));
    }
    if let Some(denied) = not_asked(request) {
        return Floor::Decided(denied);
    }
    match Facts::of(request) {
        Some(facts) => Floor::Ask(Box::new(facts)),
        None => Floor::Decided(Decision::deny(DenyReason::Malformed, "topic.missing")),
    }
}

fn standing(request: &Request<'_>) -> Option<Decision> {
    let Some(standing) = request.subject.standing else {
        return Some(Decision::deny(
            DenyReason::StandingUnknown,
            "standing.unknown",
        ));
    };
    let banned = standing.banned_until.is_some_and(|end| request.now < end);
    banned.then(|| Decision::deny(DenyReason::Banned, "reputation.banned"))
}

/// Whether tier, credential and time fit together.
fn identity(request: &Request<'_>) -> Option<Decision> {
    let subject = &request.subject;
    let now: Timestamp = request.now;
    let denied = |rule| Some(Decision::deny(DenyReason::Identity, rule));
    match (subject.tier, subject.identity) {
        (Tier::Unverified | Tier::Invited, None) => None,
        // A credential that did not make its holder a member was not accepted: trust neither.
        (Tier::Unverified | Tier::Invited, Some(_)) => denied("identity.contradicts_tier"),
        (Tier::SelfSigned | Tier::Member | Tier::RenewalOnly, None) => denied("identity.missing"),
        // Who signs for itself is never taken for a member, nor the other way round.
        (tier, Some(identity)) if identity.tier != tier => denied("identity.contradicts_tier"),
        (_, Some(identity)) if identity.peer != subject.peer => denied("identity.other_peer"),
        // That it has ended is what this tier says; how long ago is the verification's business.
        (Tier::RenewalOnly, Some(_)) => None,
        (_, Some(identity)) if now >= identity.expires => {
            Some(Decision::deny(DenyReason::Expired, "identity.expired"))
        }
        (_, Some(_)) if subject.status.is_revoked() => {
            Some(Decision::deny(DenyReason::Revoked, "identity.revoked"))
        }
        (_, Some(_)) => None,
    }
}

/// What keeps a request from the policies.
fn not_asked(request: &Request<'_>) -> Option<Decision> {
    // A connection of one who was revoked meanwhile ends when the list comes; what a job or an
    // administrator did cannot be undone. So a list that is not fresh denies these, and nothing
    // else: else no node could start, or get the list it lacks.
    let lasting = matches!(request.action, Action::RunJob | Action::Administer);
    if lasting && request.subject.status == Status::Stale {
        return Some(Decision::deny(
            DenyReason::StatusStale,
            "identity.status_stale",
        ));
    }
    security_unknown(request)
}

fn security_unknown(request: &Request<'_>) -> Option<Decision> {
    let unknown = request.action == Action::Connect && request.security.is_none();
    unknown.then(|| Decision::deny(DenyReason::Security, "connect.security_unknown"))
}

/// Enrolment, and the limited tiers: they connect and enrol, as far as their score allows.
fn limited(request: &Request<'_>) -> Decision {
    let settings = request.settings;
    let standing = request.subject.standing;
    let trust = standing.map_or(0, |standing| rounded_down(standing.score));
    if trust < settings.connect_min_trust {
        return Decision::deny(DenyReason::Score, "tier.connect_min_score");
    }
    if let Some(denied) = security_unknown(request) {
        return denied;
    }
    let tier = request.subject.tier;
    let rule = match (request.action, tier) {
        (Action::Connect, Tier::RenewalOnly) => "connect.renewal_only",
        (Action::Connect, Tier::Invited) => "connect.invited",
        (Action::Enrol, Tier::Member) => "enrol.member",
        (Action::Enrol, Tier::RenewalOnly) => "enrol.renewal_only",
        (Action::Enrol, Tier::Invited) => "enrol.invited",
        (Action::Enrol, Tier::SelfSigned | Tier::Unverified) => {
            return Decision::deny(DenyReason::Enrolment, Rule::DEFAULT_DENY);
        }
        _ => return Decision::deny(DenyReason::Enrolment, "tier.limited"),
    };
    if trust < settings.messages_min_trust {
        let permitted = request.action == Action::Connect;
        return Decision::new(
            Verdict::Quarantine { permitted },
            Rule::new("tier.messages_min_score"),
        );
    }
    Decision::new(Verdict::Allow, Rule::new(rule))
}

/// Whether a name belongs to the floor, or to the program's own words: no policy may bear it, for
/// the log would not tell who decided.
pub(super) fn is_reserved(id: &str) -> bool {
    const NAMES: [&str; 8] = [
        "standing.unknown",
        "reputation.banned",
        "topic.missing",
        "connect.security_unknown",
        "connect.renewal_only",
        "connect.invited",
        // What this node's own operator submits.
        "run_job.local",
        Rule::DEFAULT_DENY,
    ];
    const SPACES: [&str; 4] = ["identity.", "enrol.", "policy.", "tier."];
    NAMES.contains(&id) || SPACES.iter().any(|space| id.starts_with(space))
}
