//! The access decision: one place, deny by default, fail closed.
//!
//! A pure function of the request and the rules; whoever enforces it audits it. Rules are tried
//! in a fixed order, each with a stable name; what no rule allows is denied.
//!
//! Two tiers are *limited*: a peer that was invited, and one whose credential lapsed lately. A node
//! of their issuer lets them connect (`connect.invited`, `connect.renewal_only`) and ask for a
//! credential (`enrol.…`), and nothing else.
//!
//! Three more come here. A *member* has a credential of a trusted issuer. A *self-signed* peer has
//! one that it made itself, where `identity.self_signed` allows that: it is known again by its keys,
//! and may do what an unverified peer may, by rules of its own name (`connect.self_signed`,
//! `topic.self_signed`). An *unverified* peer has a key. Neither of the latter two runs jobs.
//!
//! *Quarantine* (a score between `policy.connect_min_score` and `policy.messages_min_score`): the
//! peer may be connected, but publishes nothing, subscribes to nothing and runs nothing. It is answered only where the
//! request would otherwise be allowed; a stranger is never let in by it.

use std::fmt;

use crate::{
    config::PolicyConfig,
    identity::{Status, Tier, VerifiedIdentity},
    messages::reputation::Standing,
    types::{PeerId, SecurityInfo, Timestamp, Topic},
};

/// What a peer wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Hold a connection.
    Connect,
    /// Have its messages on a topic accepted.
    Publish,
    /// Receive a topic's messages.
    Subscribe,
    /// Have a job run.
    RunJob,
    /// Be given a credential by this node's issuer.
    Enrol,
}

impl Action {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::RunJob => "run_job",
            Self::Enrol => "enrol",
        }
    }
}

/// Whom it is about, as far as it was proved.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The peer, as the connection or the signature proved it.
    pub peer: PeerId,
    /// What its identity is worth.
    pub tier: Tier,
    /// Its verified credential. Members and the self-signed have one, unverified peers have none.
    pub identity: Option<&'a VerifiedIdentity>,
    /// Where it stands; `None` when Reputation has not said, which denies.
    pub standing: Option<Standing>,
    /// How its credential stands by the status lists; good without one.
    pub status: Status,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is wanted.
    pub action: Action,
    /// By whom.
    pub subject: Subject<'a>,
    /// On which topic; needed to publish and to subscribe.
    pub topic: Option<&'a Topic>,
    /// How the peer's connection is encrypted, the weakest when it has several; `None` for an
    /// author who is not connected. To hold a connection there must be a proof.
    pub security: Option<SecurityInfo>,
    /// When.
    pub now: Timestamp,
    /// The rules in force.
    pub policy: &'a PolicyConfig,
}

/// Why a request was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// Reputation has not said where the peer stands.
    StandingUnknown,
    /// The peer is banned.
    Banned,
    /// A member without a credential, a credential of another peer, or a tier that contradicts.
    Identity,
    /// The credential's time is over.
    Expired,
    /// The credential, or a delegation above it, was taken back.
    Revoked,
    /// Whether it was taken back is not known for certain: the list is stale.
    StatusStale,
    /// The score is too low.
    Score,
    /// The peer may not use this topic.
    Topic,
    /// The peer may not run jobs.
    Jobs,
    /// The peer gets no credential here.
    Enrolment,
    /// A question about a topic that names none.
    Malformed,
    /// A connection of which no transport proved how it is encrypted.
    Security,
}

impl DenyReason {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StandingUnknown => "standing_unknown",
            Self::Banned => "banned",
            Self::Identity => "identity",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::StatusStale => "status_stale",
            Self::Score => "score",
            Self::Topic => "topic",
            Self::Jobs => "jobs",
            Self::Enrolment => "enrolment",
            Self::Malformed => "malformed",
            Self::Security => "security",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny(DenyReason),
    /// It may stay connected and do nothing else.
    Quarantine,
}

impl Verdict {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Quarantine => "quarantine",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny(reason) => write!(f, "deny ({})", reason.name()),
            other => f.write_str(other.name()),
        }
    }
}

/// A verdict and the rule that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// The rule's stable name.
    pub rule: &'static str,
}

impl Decision {
    /// Whether `action` may go ahead: allowed, or a connection in quarantine.
    #[must_use]
    pub fn permits(&self, action: Action) -> bool {
        match self.verdict {
            Verdict::Allow => true,
            Verdict::Quarantine => action == Action::Connect,
            Verdict::Deny(_) => false,
        }
    }

    const fn deny(reason: DenyReason, rule: &'static str) -> Self {
        Self {
            verdict: Verdict::Deny(reason),
            rule,
        }
    }
}

/// Decides.
#[must_use]
pub fn evaluate(request: &Request<'_>) -> Decision {
    let Request {
        subject,
        now,
        policy,
        ..
    } = *request;
    let Some(standing) = subject.standing else {
        return Decision::deny(DenyReason::StandingUnknown, "standing.unknown");
    };
    if standing.banned_until.is_some_and(|until| now < until) {
        return Decision::deny(DenyReason::Banned, "reputation.banned");
    }
    if let Some(denied) = check_identity(&subject, now) {
        return denied;
    }
    if standing.score < policy.connect_min_score {
        return Decision::deny(DenyReason::Score, "reputation.connect_min_score");
    }
    let allowed = match permit(request) {
        Ok(rule) => rule,
        Err(denied) => return denied,
    };
    if standing.score < policy.messages_min_score {
        return Decision {
            verdict: Verdict::Quarantine,
            rule: "reputation.messages_min_score",
        };
    }
    Decision {
        verdict: Verdict::Allow,
        rule: allowed,
    }
}

/// Whether tier, credential and time fit together.
fn check_identity(subject: &Subject<'_>, now: Timestamp) -> Option<Decision> {
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

/// The rule that would allow the request, scores aside.
fn permit(request: &Request<'_>) -> Result<&'static str, Decision> {
    let tier = request.subject.tier;
    if request.action == Action::Connect {
        if request.security.is_none() {
            return Err(Decision::deny(
                DenyReason::Security,
                "connect.security_unknown",
            ));
        }
        // An unverified peer comes this far only on a listener opened for such peers.
        return Ok(match tier {
            Tier::Member => "connect.member",
            // The verification let it come this far: `identity.self_signed` allows it.
            Tier::SelfSigned => "connect.self_signed",
            Tier::Unverified => "connect.unverified",
            // The verification made these only where this node issues.
            Tier::RenewalOnly => "connect.renewal_only",
            Tier::Invited => "connect.invited",
        });
    }
    if request.action == Action::Enrol {
        return match tier {
            Tier::Member => Ok("enrol.member"),
            Tier::RenewalOnly => Ok("enrol.renewal_only"),
            Tier::Invited => Ok("enrol.invited"),
            Tier::SelfSigned | Tier::Unverified => {
                Err(Decision::deny(DenyReason::Enrolment, "default.deny"))
            }
        };
    }
    if tier.is_limited() {
        return Err(Decision::deny(DenyReason::Enrolment, "tier.limited"));
    }
    if request.action == Action::RunJob {
        // Never an unverified peer, nor one that signs for itself: nobody answers for what it runs.
        if tier != Tier::Member || !request.policy.members_run_jobs {
            return Err(Decision::deny(DenyReason::Jobs, "default.deny"));
        }
        // A connection of one who was revoked meanwhile ends when the list comes; what a job did
        // cannot be undone. So a list that is not fresh denies jobs, and nothing else: else no
        // node could start, or get the list it lacks.
        if request.subject.status == Status::Stale {
            return Err(Decision::deny(
                DenyReason::StatusStale,
                "identity.status_stale",
            ));
        }
        return Ok("run_job.member");
    }
    let Some(topic) = request.topic else {
        return Err(Decision::deny(DenyReason::Malformed, "topic.missing"));
    };
    let (known, rule) = match tier {
        Tier::Member => {
            let patterns = &request.policy.member_topics;
            (patterns.iter().any(|p| matches(p, topic)), "topic.member")
        }
        // It can be known again, and that is all: it gets no topic more than a stranger.
        Tier::SelfSigned => {
            let topics = &request.policy.unverified_topics;
            (topics.contains(topic), "topic.self_signed")
        }
        Tier::Unverified => {
            let topics = &request.policy.unverified_topics;
            (topics.contains(topic), "topic.unverified")
        }
        Tier::RenewalOnly | Tier::Invited => (false, "tier.limited"),
    };
    if known {
        Ok(rule)
    } else {
        Err(Decision::deny(DenyReason::Topic, "default.deny"))
    }
}

/// `*` matches all, `acme/*` what begins with `acme/`, anything else itself. A `*` elsewhere
/// matches nothing, since no topic contains one.
fn matches(pattern: &str, topic: &Topic) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) if prefix.ends_with('/') => topic
            .as_str()
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty()),
        _ => pattern == topic.as_str(),
    }
}

#[cfg(test)]
mod tests;
