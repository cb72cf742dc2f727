//! What a gate remembers of continuity statements: who each subject is since the last one.
//!
//! What a node gave up itself is not taken again, even before its issuer's status list says so. All
//! keys that a subject had before are concerned, not only the last ones: each other key must have
//! been issued for after the statement was made (the node was enrolled anew), or be what the present
//! keys themselves lead to. A statement that leads to it from elsewhere is worth nothing: whoever
//! holds an old key can make one with keys of his own.
//!
//! Pure; lives as long as the process. Owner: the gatekeeper. It fails with a [`Refusal`] that is
//! charged to nobody: an honest node may have been restored from a backup.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::Continuity;
use crate::{
    identity::{CLOCK_SKEW, Name, Refusal, VerifiedIdentity},
    types::{PeerId, Timestamp},
};

/// Most subjects whose last statement is remembered, some 300 bytes each. Who is forgotten can show
/// an older statement again, with keys that its issuer has taken back.
const MAX_SEEN: usize = 4_096;
/// How far a statement may be ahead of this node's clock: what clocks may differ by. One of a later
/// time would shut out keys that its subject is given in the meantime.
const MAX_AHEAD: Duration = CLOCK_SKEW;

/// The last statement of each subject that was let in, while this process lives.
#[derive(Debug, Default)]
pub struct Seen {
    subjects: HashMap<(Name, Name), Last>,
    /// Oldest first.
    order: VecDeque<(Name, Name)>,
}

#[derive(Debug)]
struct Last {
    sequence: u64,
    hash: [u8; 32],
    /// Who the subject is.
    peer: PeerId,
    created: Timestamp,
}

impl Last {
    fn of(statement: &Continuity) -> Self {
        Self {
            sequence: statement.sequence(),
            hash: statement.hash(),
            peer: statement.new_keys().peer,
            created: statement.created(),
        }
    }

    fn check(&self, who: &VerifiedIdentity, shown: Option<&Continuity>) -> Result<(), Refusal> {
        let later = shown.filter(|shown| shown.sequence() > self.sequence);
        if later.is_none() && shown.is_some_and(|shown| shown.hash() != self.hash) {
            return Err(Refusal::Denied("continuity.replayed".into()));
        }
        let goes_on = later.is_some_and(|shown| shown.former() == self.peer);
        // Unknown is as old as can be.
        let issued = who.issued().unwrap_or_default();
        if who.peer != self.peer && !goes_on && issued <= self.created {
            return Err(Refusal::Denied("continuity.superseded".into()));
        }
        Ok(())
    }
}

impl Seen {
    /// Whether the subject of `who`, which shows this statement, may be `who.peer`.
    ///
    /// # Errors
    /// [`Refusal::Denied`]: the statement is older than one that was seen or not of now, or the
    /// keys are of those that the subject gave up.
    pub fn check(
        &self,
        who: &VerifiedIdentity,
        statement: Option<&Continuity>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if statement.is_some_and(|shown| shown.created() > now.after(MAX_AHEAD)) {
            return Err(Refusal::Denied("continuity.future".into()));
        }
        let key = (who.issuer.clone(), who.subject.clone());
        match self.subjects.get(&key) {
            Some(last) => last.check(who, statement),
            None => Ok(()),
        }
    }

    /// Checks once more and remembers the statement, in one step; whether it is news. For when
    /// nothing else stands against the peer any more: between the first check and this the subject
    /// may have come with other keys.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn admit(
        &mut self,
        who: &VerifiedIdentity,
        statement: Option<&Continuity>,
        now: Timestamp,
    ) -> Result<bool, Refusal> {
        self.check(who, statement, now)?;
        Ok(statement.is_some_and(|statement| self.take(statement)))
    }

    fn take(&mut self, statement: &Continuity) -> bool {
        let key = (statement.issuer().clone(), statement.subject().clone());
        let known = self.subjects.get(&key);
        if known.is_some_and(|last| last.sequence >= statement.sequence()) {
            return false;
        }
        if known.is_none() {
            if self.subjects.len() >= MAX_SEEN
                && let Some(oldest) = self.order.pop_front()
            {
                self.subjects.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.subjects.insert(key, Last::of(statement));
        true
    }
}

#[cfg(test)]
mod tests;
