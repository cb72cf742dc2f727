//! Policy: what judges tell it, and what the operator asks.

use std::{path::PathBuf, sync::Arc, time::Duration};

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::{
    config::PolicyConfig,
    identity::VerifiedIdentity,
    trust::quarantine::QuarantineInfo,
    types::{Party, PeerId},
};

// Used by judges: the gate, Swarm, Sandbox.

/// A policy put a peer in quarantine.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Quarantined {
    /// Who.
    pub peer: PeerId,
    /// Its credential.
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// Which policy.
    pub rule: Arc<str>,
}

/// A peer's new credential released it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ReleasedByCredential {
    /// Who.
    pub peer: PeerId,
    /// Its credential.
    pub identity: Arc<VerifiedIdentity>,
}

/// What a judge saw that an operator should know of, in sums.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oddity {
    /// A policy could not be evaluated, so the request was denied.
    Erred {
        /// Which policies, and why.
        what: String,
        /// What was asked.
        action: &'static str,
    },
    /// The shadow set answers otherwise.
    Differs {
        /// What was asked.
        action: &'static str,
        /// Verdict and rule in force.
        active: String,
        /// Verdict and rule of the shadow set.
        shadow: String,
    },
}

/// Tells of one.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct SawOddity(pub Oddity);

// Used by Settings.

/// Reads the policies anew under these settings and tries them. Nothing changes before they are
/// taken ([`TakePolicies`]); those that were prepared before cannot be taken any more.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<PreparedPolicies, String>")]
pub struct PreparePolicies {
    /// `[policy]`.
    pub config: PolicyConfig,
}

/// Policies that are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedPolicies {
    /// Names them, to take them.
    pub ticket: u64,
    /// What they are.
    pub report: PolicyReport,
}

/// Puts policies in force that were prepared.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<PolicyReport, String>")]
pub struct TakePolicies {
    /// Which.
    pub ticket: u64,
}

/// The policies in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Their folder; `None`: those of the program.
    pub dir: Option<PathBuf>,
    /// How many.
    pub policies: usize,
    /// SHA-256 over their text, hex.
    pub hash: String,
    /// The shadow set's hash, when there is one.
    pub shadow: Option<String>,
    /// Policy tests that passed.
    pub tests: usize,
    /// What the validator warns of.
    pub warnings: Vec<String>,
}

// Used by Admin.

/// The policies in force.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "PolicyReport")]
pub struct DescribePolicies;

/// Quarantine by the operator's hand, of a key and of the member it is. Answered with who is held.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<Vec<QuarantineInfo>, String>")]
pub struct PutInQuarantine {
    /// Who.
    pub parties: Vec<Party>,
    /// How long.
    pub span: Duration,
    /// Why.
    pub reason: String,
}

/// Releases by the operator's hand, for `policy.quarantine` also from the policy that was the
/// cause. Answered with those that were in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<Vec<Party>, String>")]
pub struct Release {
    /// Who.
    pub parties: Vec<Party>,
}

/// Everybody in quarantine.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<QuarantineInfo>")]
pub struct ListQuarantines;
