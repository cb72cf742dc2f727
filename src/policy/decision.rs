//! The answer: a verdict, the rule that gave it, and what belongs to it.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::types::Timestamp;

/// The stable name of a rule: a floor rule's, or the `@id` of a policy. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule(Arc<str>);

impl Rule {
    /// What no permit allows.
    pub(super) const DEFAULT_DENY: &'static str = "default.deny";
    /// A policy erred.
    pub(super) const ERROR: &'static str = "policy.error";
    /// The operator released the peer from the quarantine that policies ask for.
    const RELEASED: &'static str = "policy.released";

    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Rule {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Rule {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Rule {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 over the names and texts of a set's files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyHash(pub [u8; 32]);

impl PolicyHash {
    /// Of what no policy judged.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyHash({self})")
    }
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
    /// The peer may not connect.
    Connection,
    /// The peer may not use this topic.
    Topic,
    /// The peer may not run jobs.
    Jobs,
    /// The peer may not administer this node.
    Administration,
    /// The peer gets no credential here.
    Enrolment,
    /// A question about a topic that names none.
    Malformed,
    /// A connection of which no transport proved how it is encrypted.
    Security,
    /// The peer is in quarantine, and this is not done there.
    Quarantined,
    /// A policy forbids it.
    Forbidden,
    /// A policy could not be evaluated.
    PolicyError,
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
            Self::Connection => "connection",
            Self::Topic => "topic",
            Self::Jobs => "jobs",
            Self::Administration => "administration",
            Self::Enrolment => "enrolment",
            Self::Malformed => "malformed",
            Self::Security => "security",
            Self::Quarantined => "quarantined",
            Self::Forbidden => "forbidden",
            Self::PolicyError => "policy_error",
        }
    }
}

/// What a peer has to bring to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepUp {
    /// A connection whose key exchange is proven hybrid.
    PostQuantum,
}

impl StepUp {
    /// As `@step_up` writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PostQuantum => "post_quantum",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        (name == Self::PostQuantum.name()).then_some(Self::PostQuantum)
    }
}

/// What a forbid asks for instead of a plain denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Obligation {
    /// Put the peer in quarantine.
    Quarantine,
    /// Have it bring more.
    StepUp(StepUp),
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny(DenyReason),
    /// The peer belongs in quarantine.
    Quarantine {
        /// Whether it may do this very thing there.
        permitted: bool,
    },
    /// It may not yet: it has to bring something first.
    StepUp(StepUp),
}

impl Verdict {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Quarantine { .. } => "quarantine",
            Self::StepUp(_) => "step_up",
        }
    }

    /// Whether what was asked may go ahead.
    #[must_use]
    pub fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Quarantine { permitted: true })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny(reason) => write!(f, "deny ({})", reason.name()),
            Self::StepUp(what) => write!(f, "step_up ({})", what.name()),
            other => f.write_str(other.name()),
        }
    }
}

/// A verdict and everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// The rule that gave it; of several policies the first by name.
    pub rule: Rule,
    /// The policies that determined the answer, by name; none for the floor and a default deny.
    pub policies: Vec<Rule>,
    /// For a default deny: the permits of this action, none of which fitted (at most 16).
    pub missed: Arc<[Rule]>,
    /// What the determining forbids ask for; only where the request would be permitted without
    /// them.
    pub obligations: Vec<Obligation>,
    /// What the determining policies say to who is denied.
    pub advice: Vec<Arc<str>>,
    /// The set that judged; [`PolicyHash::NONE`] when the floor did.
    pub policy_hash: PolicyHash,
    /// Until when (exclusive) the verdict holds though no fact changes; `None` when the passing
    /// of time alone changes nothing. A credential's end is the floor's business at every call.
    pub valid_until: Option<Timestamp>,
    /// What policies erred at (at most 8); any error is a denial.
    pub errors: Vec<String>,
    /// What the shadow set says, where it says something else.
    pub shadow: Option<Box<ShadowVerdict>>,
}

/// What a shadow set would have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowVerdict {
    /// Its answer.
    pub verdict: Verdict,
    /// Its rule.
    pub rule: Rule,
    /// The shadow set.
    pub hash: PolicyHash,
}

impl Decision {
    /// Whether what was asked may go ahead: allowed, or done in quarantine.
    #[must_use]
    pub fn permits(&self) -> bool {
        self.verdict.permits()
    }

    /// What is said to who is denied, beside the rule's name.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let advice: Vec<&str> = self.advice.iter().map(|one| &**one).collect();
        match (self.verdict, advice.is_empty()) {
            (_, false) => Some(advice.join("; ")),
            (Verdict::StepUp(what), true) => Some(format!("it asks for {}", what.name())),
            (_, true) => None,
        }
    }

    /// A quarantine's decision, for a peer that the operator released from all the policies that ask
    /// for it: it may, as without them. Any other decision as it is.
    #[must_use]
    pub fn lifted(&self) -> Self {
        if !matches!(self.verdict, Verdict::Quarantine { .. }) {
            return self.clone();
        }
        Self {
            verdict: Verdict::Allow,
            rule: Rule::new(Rule::RELEASED),
            obligations: Vec::new(),
            advice: Vec::new(),
            ..self.clone()
        }
    }

    /// A floor rule's decision, or a start for another.
    pub(super) fn new(verdict: Verdict, rule: Rule) -> Self {
        Self {
            verdict,
            rule,
            policies: Vec::new(),
            missed: Arc::default(),
            obligations: Vec::new(),
            advice: Vec::new(),
            policy_hash: PolicyHash::NONE,
            valid_until: None,
            errors: Vec::new(),
            shadow: None,
        }
    }

    pub(super) fn deny(reason: DenyReason, rule: &str) -> Self {
        Self::new(Verdict::Deny(reason), Rule::new(rule))
    }
}
