//! What the rest of the node reads: how an identity stands by the lists in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::list::{StatusHead, StatusList};
use crate::{
    identity::{Name, StatusEntry, Thumbprint, VerifiedIdentity},
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
    /// Whose keys signed them.
    pub(super) key: Thumbprint,
    /// The delegation it rests on was revoked: what it took back stays so for what these keys
    /// issued; it says nothing else.
    pub(super) cut: bool,
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

    /// `None`: it says nothing about this one.
    fn status(&self, entry: &StatusEntry, now: Timestamp) -> Option<Status> {
        if self.cut && entry.signer != self.key.0 {
            return None;
        }
        let revoked = self.revokes(entry).map(Status::Revoked);
        if revoked.is_some() || self.cut {
            return revoked;
        }
        Some(if self.is_stale(now) {
            Status::Stale
        } else {
            Status::Good
        })
    }

    fn revokes(&self, entry: &StatusEntry) -> Option<Why> {
        if entry.issued < self.issued_before() {
            return Some(Why::IssuedBefore);
        }
        let list = self.list.as_ref();
        list.is_some_and(|list| list.is_set(entry.index))
            .then_some(Why::Listed)
    }
}

/// The lists in force, published by the Revocation actor. Cheap to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusView {
    pub(super) issuers: BTreeMap<Name, InForce>,
    required: bool,
    lost: BTreeSet<Name>,
}

impl StatusView {
    /// No list is known. `required`: what has none counts as stale.
    #[must_use]
    pub fn empty(required: bool) -> Self {
        Self {
            issuers: BTreeMap::new(),
            required,
            lost: BTreeSet::new(),
        }
    }

    pub(super) fn of(issuers: BTreeMap<Name, InForce>, required: bool) -> Self {
        Self {
            issuers,
            required,
            lost: BTreeSet::new(),
        }
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
        entries
            .iter()
            .map(|entry| {
                let known = self.issuers.get(&entry.issuer);
                let said = known.and_then(|known| known.status(entry, now));
                said.unwrap_or_else(|| self.silent_on(&entry.issuer))
            })
            .max()
            .unwrap_or(Status::Good)
    }

    /// How those of an issuer stand of whose lists none is in force.
    fn silent_on(&self, issuer: &Name) -> Status {
        if self.required || self.lost.contains(issuer) {
            Status::Stale
        } else {
            Status::Unlisted
        }
    }

    /// The same, where the store lost what was known of these issuers: they count as stale until a
    /// list comes.
    #[must_use]
    pub fn with_lost(mut self, lost: BTreeSet<Name>) -> Self {
        self.lost = lost;
        self
    }

    /// Whether a list of this issuer counts.
    pub(super) fn is_in_force(&self, issuer: &Name) -> bool {
        self.issuers.get(issuer).is_some_and(|known| !known.cut)
    }

    fn in_force(&self) -> impl Iterator<Item = &InForce> {
        self.issuers.values().filter(|known| !known.cut)
    }

    /// The list of an issuer, if it is newer than `newer_than`.
    #[must_use]
    pub fn list(&self, issuer: &Name, newer_than: u64) -> Option<Arc<[u8]>> {
        let known = self.issuers.get(issuer).filter(|known| !known.cut);
        let list = known?.list.as_ref()?;
        (list.statement().sequence > newer_than).then(|| list.as_bytes())
    }

    /// The newest head of every issuer.
    #[must_use]
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.in_force()
            .map(|known| known.head.as_bytes().to_vec())
            .collect()
    }

    /// The newest heads of these issuers, as a frame carries them.
    pub fn heads_of<'a>(&self, issuers: impl Iterator<Item = &'a Name>) -> Vec<u8> {
        issuers
            .filter_map(|issuer| self.issuers.get(issuer).filter(|known| !known.cut))
            .flat_map(|known| known.head.as_bytes().iter().copied())
            .collect()
    }
}
