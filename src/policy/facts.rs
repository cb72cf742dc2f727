//! Everything a policy may see of a request, as owned plain data.
//!
//! Invariant: bounded and rounded. Every number is small enough that no sensible arithmetic of a
//! policy overflows, and coarse enough that a verdict can be remembered.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Action, Request, settings::rounded_down};
use crate::{
    identity::Tier,
    types::{ChannelKind, PeerId, Topic},
};

/// Last second that a policy is told: the end of the year 9999, as in credentials.
const MAX_SECONDS: u64 = 253_402_300_799;
/// Highest trust and anomaly.
const MOST: u8 = 100;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    /// What is wanted.
    pub action: Action,
    /// By whom.
    pub principal: Principal,
    /// Of what.
    pub resource: Resource,
    /// How.
    pub context: Context,
    /// The peer's address; `None` when it is unknown or a relay's.
    pub ip: Option<IpAddr>,
    /// When, in Unix seconds.
    pub now: u64,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The peer.
    pub peer: PeerId,
    /// Member, self-signed or unverified.
    pub tier: Tier,
    /// Its credential's issuer; empty without one.
    pub issuer: String,
    /// Its name there; empty without one.
    pub subject: String,
    /// Its groups, in the issuer's name: `acme/workers`.
    pub groups: Vec<String>,
    /// Its credential's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its score, in hundredths.
    pub trust: u8,
    /// How odd its conduct is, 0 to 100.
    pub anomaly: u8,
    /// On probation after a ban.
    pub probation: bool,
    /// In quarantine.
    pub quarantined: bool,
    /// End of its credential, Unix seconds.
    pub expires: Option<u64>,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// This node.
    Node(PeerId),
    /// A topic.
    Topic(TopicFacts),
    /// The sandbox of this node.
    Sandbox {
        /// `policy.members_run_jobs`.
        members_run_jobs: bool,
        /// `sandbox.max_cpu_time`, seconds.
        max_cpu_s: u64,
    },
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicFacts {
    /// Its name.
    pub name: Topic,
    /// Matches `policy.member_topics`.
    pub members: bool,
    /// Is in `policy.unverified_topics`.
    pub open: bool,
    /// Matches `policy.restricted_topics`.
    pub restricted: bool,
    /// Least score, in hundredths.
    pub min_trust: u8,
    /// Marked as sensitive.
    pub sensitive: bool,
}

/// How it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// How the connection is secured; `None` without one.
    pub transport: Option<ChannelKind>,
    /// Its key exchange is proven hybrid.
    pub post_quantum: bool,
    /// The peer proved its ML-DSA key.
    pub pq_auth: bool,
    /// The command it gives; to administer.
    pub command: Option<String>,
    /// `policy.connect_min_score`, in hundredths.
    pub connect_min_trust: u8,
    /// `policy.messages_min_score`, in hundredths.
    pub messages_min_trust: u8,
}

impl Facts {
    /// The facts of a request that the floor let pass; `None` for one that names no topic where
    /// one is needed, or no standing.
    #[must_use]
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        let Request {
            subject, settings, ..
        } = *request;
        let standing = subject.standing?;
        let resource = match request.action {
            Action::Connect | Action::Administer => Resource::Node(request.node),
            Action::Publish | Action::Subscribe => Resource::Topic(settings.topic(request.topic?)),
            Action::RunJob => Resource::Sandbox {
                members_run_jobs: settings.members_run_jobs,
                max_cpu_s: settings.max_cpu_s.min(MAX_SECONDS),
            },
            Action::Enrol => return None,
        };
        let identity = subject.identity;
        Some(Self {
            action: request.action,
            principal: Principal {
                peer: subject.peer,
                tier: subject.tier,
                issuer: identity.map_or_else(String::new, |id| id.issuer.to_string()),
                subject: identity.map_or_else(String::new, |id| id.subject.to_string()),
                groups: identity.map_or_else(Vec::new, |id| id.groups.clone()),
                attributes: identity.map_or_else(BTreeMap::new, |id| id.attributes.clone()),
                trust: rounded_down(standing.score),
                anomaly: subject.anomaly.min(MOST),
                probation: standing.probation,
                quarantined: subject.quarantined,
                expires: identity.map(|id| id.expires.secs().min(MAX_SECONDS)),
            },
            resource,
            context: Context {
                transport: request.security.map(|info| info.kind),
                post_quantum: request.security.is_some_and(|info| info.is_hybrid()),
                pq_auth: request.pq_auth && identity.is_some(),
                command: request.command.map(str::to_owned),
                connect_min_trust: settings.connect_min_trust,
                messages_min_trust: settings.messages_min_trust,
            },
            ip: request.ip,
            now: request.now.secs().min(MAX_SECONDS),
        })
    }
}
