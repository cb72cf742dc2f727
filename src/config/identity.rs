//! `[identity]` and `[issuer]`: this node's own credential, and those it issues.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{DEFAULT_LIFETIME, Name, SelfSigned},
    types::Span,
};

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// What becomes of nodes that sign for themselves.
    pub self_signed: SelfSigned,
    /// Whether an issuer without a status list counts as one whose list is stale.
    pub require_status_lists: bool,
    /// Whether this node asks its issuer for a new credential before its own ends.
    pub renew: bool,
    /// How long after its end a credential of this node's issuer is heard, for renewal alone. Of
    /// consequence only where `issuer.dir` is set.
    pub renewal_grace: Span,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            self_signed: SelfSigned::default(),
            require_status_lists: false,
            renew: true,
            renewal_grace: Span(Duration::from_hours(24 * 7)),
        }
    }
}

/// `[issuer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerConfig {
    /// The issuer's folder, relative to the configuration file; empty: this node issues nothing.
    pub dir: PathBuf,
    /// Whether it renews credentials of its issuer.
    pub renew: bool,
    /// How long a renewed credential, or that of an invited node, holds.
    pub lifetime: Span,
    /// Subjects that get no credential any more.
    pub deny: Vec<Name>,
    /// How long after it gave a node a credential for new keys it takes back that of the old ones,
    /// when the new ones were not seen before.
    pub rotation_grace: Span,
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            renew: true,
            lifetime: Span(DEFAULT_LIFETIME),
            deny: Vec::new(),
            rotation_grace: Span(Duration::from_hours(24 * 7)),
        }
    }
}

impl IssuerConfig {
    /// Whether this node issues.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }
}
