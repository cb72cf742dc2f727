//! Lists for tests, by the issuers of this room's small world.

use super::{Record, Statement, StatusHead, StatusList};
use crate::{
    identity::{
        Delegation, IssuerKey,
        testing::{HOUR, NOW},
    },
    types::Timestamp,
};

/// Nothing is revoked by its age.
pub(crate) const NEVER: Timestamp = Timestamp::from_secs(0);

/// What a list is made of; it is signed at [`NOW`] and holds for an hour.
pub(crate) struct Make<'a> {
    pub(crate) issuer: &'a IssuerKey,
    pub(crate) sequence: u64,
    pub(crate) set: &'a [u32],
    pub(crate) before: Timestamp,
    pub(crate) above: Vec<Delegation>,
}

impl<'a> Make<'a> {
    pub(crate) fn new(issuer: &'a IssuerKey, sequence: u64, set: &'a [u32]) -> Self {
        Self {
            issuer,
            sequence,
            set,
            before: NEVER,
            above: Vec::new(),
        }
    }

    pub(crate) fn list(self) -> StatusList {
        let mut bits = vec![0_u8; 128];
        for index in self.set {
            bits[usize::try_from(index / 8).unwrap()] |= 1 << (index % 8);
        }
        let times = (NOW, NOW.after(HOUR), self.before);
        let name = self.issuer.name().clone();
        let statement = Statement::about(name, self.sequence, times, &bits);
        let head = StatusHead::sign(statement, self.issuer.signer());
        StatusList::try_new(head, bits, self.above).unwrap()
    }
}

/// The sequence of a record's newest head.
pub(crate) fn record_of(record: &Record) -> u64 {
    record.head().statement().sequence
}
