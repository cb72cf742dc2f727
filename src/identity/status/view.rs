//! What the rest of the node reads: how an identity stands by the lists in force.

use std::{collections::BTreeMap, sync::Arc};

use super::list::{StatusHead, StatusList};
use crate::{
    identity::{Name, StatusEntry, VerifiedIdentity},
    types::Timestamp,
};

/// How an identity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Every list that could revoke it is fresh and does not; or none could (a node that signed
    /// for itself).
    Good,
    /// No list of one of its issuers was ever seen here, and `identity.require_status_lists` is
    /// off.
    Unlisted,
    /// A list is behind its head, past its next update, or required and missing: new jobs are
    /// denied, nothing else.
    Stale,
    /// It, or a delegation above it, was taken back.
    Revoked(Why),
}

/// How something was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Its bit is set.
    Listed,
    /// It was issued before the time from which on its issuer stands by what it issues.
    IssuedBefore,
}

impl Status {
    /// Whether it was taken back.
    #[must_use]
    pub fn is_revoked(self) -> bool {
        matches!(self, Self::Revoked(_))
    }

    /// The same for what began while the lists were fresh: only revocation ends it.
    #[must_use]
    pub fn for_running(self) -> Self {
        match self {
            Self::Stale => Self::Unlisted,
            other => other,
        }
    }

    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unlisted => "unlisted",
            Self::Stale => "stale",
            Self::Revoked(Why::Listed) => "revoked",
            Self::Revoked(Why::IssuedBefore) => "revoked_issued_before",
        }
    }
}

/// What is in force of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce {
    /// The newest list that came.
    pub(super) list: Option<Arc<StatusList>>,
    /// The newest head; that of the list unless the list is behind.
    pub(super) head: Arc<StatusHead>,
}

impl InForce {
    fn is_behind(&self) -> bool {
        let have = self.list.as_ref().map(|list| list.statement().sequence);
        have != Some(self.head.statement().sequence)
    }

    pub(super) fn issued_before(&self) -> Timestamp {
        let list = self
            .list
            .as_ref()
            .map(|list| list.statement().issued_before);
        let head = self.head.statement().issued_before;
        // Until the newer list came, both count.
        list.filter(|_| self.is_behind())
            .map_or(head, |list| list.max(head))
    }

    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.is_behind() || self.head.statement().next_update <= now
    }

    fn status(&self, entry: &StatusEntry, now: Timestamp) -> Status {
        if entry.issued < self.issued_before() {
            return Status::Revoked(Why::IssuedBefore);
        }
        if self
            .list
            .as_ref()
            .is_some_and(|list| list.is_set(entry.index))
        {
            return Status::Revoked(Why::Listed);
        }
        if self.is_stale(now) {
            Status::Stale
        } else {
            Status::Good
        }
    }
}

/// The lists in force, published by the Revocation actor. Cheap to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusView {
    pub(super) issuers: BTreeMap<Name, InForce>,
    required: bool,
}

impl StatusView {
    /// No list is known. `required`: what has none counts as stale.
    #[must_use]
    pub fn empty(required: bool) -> Self {
        Self {
            issuers: BTreeMap::new(),
            required,
        }
    }

    pub(super) fn of(issuers: BTreeMap<Name, InForce>, required: bool) -> Self {
        Self { issuers, required }
    }

    /// How an identity stands.
    #[must_use]
    pub fn standing(&self, identity: &VerifiedIdentity, now: Timestamp) -> Status {
        self.of_entries(&identity.statuses, now)
    }

    /// As [`StatusView::standing`], where there may be no identity: that of a stranger is good.
    #[must_use]
    pub fn of_peer(&self, identity: Option<&VerifiedIdentity>, now: Timestamp) -> Status {
        identity.map_or(Status::Good, |identity| self.standing(identity, now))
    }

    /// How what is listed at these places stands: the worst of them.
    #[must_use]
    pub fn of_entries(&self, entries: &[StatusEntry], now: Timestamp) -> Status {
        let unlisted = if self.required {
            Status::Stale
        } else {
            Status::Unlisted
        };
        entries
            .iter()
            .map(|entry| match self.issuers.get(&entry.issuer) {
                Some(known) => known.status(entry, now),
                None => unlisted,
            })
            .max()
            .unwrap_or(Status::Good)
    }

    /// The list of an issuer, if it is newer than `newer_than`.
    #[must_use]
    pub fn list(&self, issuer: &Name, newer_than: u64) -> Option<Arc<[u8]>> {
        let list = self.issuers.get(issuer)?.list.as_ref()?;
        (list.statement().sequence > newer_than).then(|| list.as_bytes())
    }

    /// The newest head of every issuer.
    #[must_use]
    pub fn heads(&self) -> Vec<Vec<u8>> {
        let heads = self.issuers.values();
        heads.map(|known| known.head.as_bytes().to_vec()).collect()
    }

    /// The newest heads of these issuers, as a frame carries them.
    pub fn heads_of<'a>(&self, issuers: impl Iterator<Item = &'a Name>) -> Vec<u8> {
        issuers
            .filter_map(|issuer| self.issuers.get(issuer))
            .flat_map(|known| known.head.as_bytes().iter().copied())
            .collect()
    }
}
