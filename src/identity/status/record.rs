//! What is written of an issuer's list, and how an operator sees it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::list::{StatusHead, StatusList};
use crate::{
    cbor::Malformed,
    identity::{Delegation, Name, Thumbprint},
    types::Timestamp,
};

/// What must be written before it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub(super) key: Thumbprint,
    pub(super) list: Option<Arc<StatusList>>,
    pub(super) head: Arc<StatusHead>,
}

impl Record {
    /// Reads what was written, whose signatures were verified then.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn restore(list: Option<&[u8]>, head: &[u8]) -> Result<Self, Malformed> {
        let head = StatusHead::decode(head)?;
        let key = head.signed_by().ok_or(Malformed("a head names no key"))?;
        let list = list.map(StatusList::decode).transpose()?.map(Arc::new);
        let fits = list.as_ref().is_none_or(|list| {
            let statement = list.statement();
            list.head().signed_by() == Some(key)
                && statement.issuer == head.statement().issuer
                && statement.sequence <= head.statement().sequence
        });
        if !fits {
            return Err(Malformed("a list and a head that do not belong together"));
        }
        Ok(Self {
            key,
            list,
            head: Arc::new(head),
        })
    }

    /// Whose.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.head.statement().issuer
    }

    /// The newest head.
    #[must_use]
    pub fn head(&self) -> &Arc<StatusHead> {
        &self.head
    }

    /// The newest list.
    #[must_use]
    pub fn list(&self) -> Option<&Arc<StatusList>> {
        self.list.as_ref()
    }

    /// Whether the list of the head is still to come.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.sequence() != self.head.statement().sequence
    }

    /// The sequence of the list; 0: there is none.
    pub(super) fn sequence(&self) -> u64 {
        let list = self.list.as_ref();
        list.map_or(0, |list| list.statement().sequence)
    }

    pub(super) fn delegations(&self) -> &[Delegation] {
        self.list.as_ref().map_or(&[], |list| list.delegations())
    }
}

/// An issuer's list as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// The issuer.
    pub issuer: Name,
    /// `in_force`, `stale`, `behind` (a newer head is known), `untrusted`, `cut` (the delegation
    /// it rests on was revoked).
    pub state: String,
    /// Sequence of the newest head.
    pub sequence: u64,
    /// Sequence of the list; absent when only a head is known.
    pub list_sequence: Option<u64>,
    /// When the head was signed.
    pub issued: Timestamp,
    /// When a newer one should be known.
    pub next_update: Timestamp,
    /// What was issued before is revoked.
    pub issued_before: Option<Timestamp>,
    /// Entries of the list.
    pub entries: u32,
    /// Entries that are revoked.
    pub revoked: u32,
    /// SHA-256 of the list, hex.
    pub hash: String,
}

impl ListReport {
    pub(super) fn of(record: &Record, state: &str) -> Self {
        let statement = record.head.statement();
        let list = record.list.as_ref();
        Self {
            issuer: statement.issuer.clone(),
            state: state.to_owned(),
            sequence: statement.sequence,
            list_sequence: list.map(|list| list.statement().sequence),
            issued: statement.issued,
            next_update: statement.next_update,
            issued_before: Some(statement.issued_before).filter(|before| before.secs() > 0),
            entries: statement.entries,
            revoked: list.map_or(0, |list| list.revoked()),
            hash: hex::encode(statement.hash),
        }
    }
}
