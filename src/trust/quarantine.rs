//! Quarantine: peers that stay connected, may talk on restricted topics, and run nothing, until
//! they are released by time, by a credential, or by the operator.
//!
//! Owned by the Policy actor. [`Quarantines`] is the core and the published view in one: an
//! immutable copy is what judges read. What puts a peer there is an obligation of a policy or the
//! operator's hand; what it may do meanwhile the policies say (`principal.quarantined`).
//!
//! # Invariants
//! - A quarantine has an end, at most [`MAX_SPAN`] away. While its cause lasts it is prolonged.
//! - A renewed credential releases nobody: renewal is automatic. Only one that was issued later and
//!   *grants* something else (another group, another attribute) does, since an issuer decided that
//!   anew; and only where a policy, not the operator, was the cause. It must be later than the last
//!   cause, not only than the first.
//! - An issuer that changes what a member is granted must revoke the former credential: else the
//!   member holds two, and is released, or judged, by whichever it shows.
//! - A peer's score has no part in its end: one that is above the line again stays for the whole
//!   span.
//! - What the operator releases stays released: for a while the policy that was the cause puts it
//!   there no more, though its cause lasts ([`Quarantines::lift`]). Any other policy does.
//! - The table is bounded. When it is full the one that ends soonest yields, an operator's never.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::reputation::subject_of;
use crate::{
    identity::VerifiedIdentity,
    types::{Party, PeerId, Timestamp},
};

/// The longest quarantine: a year, as the longest ban.
pub const MAX_SPAN: Duration = Duration::from_hours(24 * 365);
/// Parties in quarantine at once: as many as a large network has, 100 bytes each.
const MAX_ENTRIES: usize = 65_536;
/// Longest reason kept, characters.
const MAX_REASON: usize = 256;

/// Why and how long a party is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Since when.
    pub since: Timestamp,
    /// When there was a cause the last time: a credential of before releases nobody.
    pub caused: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The policy's id, or the operator's words.
    pub reason: String,
    /// The policy that was the cause; beside the operator's words the one of before.
    pub rule: Option<String>,
    /// Whether the operator released it: then the entry holds nobody, and until its end its policy
    /// puts nobody there again.
    pub released: bool,
    /// Whether the operator's hand did it.
    pub by_operator: bool,
    /// What its credential granted at the time ([`grant_of`]).
    #[serde(default)]
    pub grant: Option<[u8; 32]>,
}

/// One party in quarantine, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineInfo {
    /// Who.
    pub party: Party,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By which rule, or the operator's reason.
    pub reason: String,
}

/// What became of a wish to put somebody in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It began; who had to yield, if the table was full.
    New(Option<Party>),
    /// It was there, and lasts longer now.
    Prolonged,
    /// It was there and lasts as long in any case.
    Known,
    /// The table is full of operators' quarantines.
    Full,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantines(BTreeMap<Party, Entry>);

impl Quarantines {
    /// What was stored, and has not ended.
    #[must_use]
    pub fn restore(stored: impl IntoIterator<Item = (Party, Entry)>, now: Timestamp) -> Self {
        let lasting = stored.into_iter().filter(|(_, entry)| now < entry.until);
        Self(lasting.take(MAX_ENTRIES).collect())
    }

    /// Puts a party in quarantine, or prolongs it.
    pub fn begin(&mut self, party: Party, mut entry: Entry) -> Begun {
        entry.until = entry.until.min(entry.caused.after(MAX_SPAN));
        entry.reason = entry.reason.chars().take(MAX_REASON).collect();
        if let Some(known) = self.0.get_mut(&party) {
            if known.released {
                let lifted = entry.caused < known.until && entry.rule == known.rule;
                if lifted && !entry.by_operator {
                    return Begun::Known;
                }
                entry.rule = entry.rule.or(known.rule.take());
                *known = entry;
                return Begun::New(None);
            }
            let stronger = entry.by_operator && !known.by_operator;
            if entry.until <= known.until && !stronger {
                return Begun::Known;
            }
            entry.since = known.since;
            entry.until = entry.until.max(known.until);
            if known.by_operator && !entry.by_operator {
                // It is still the operator's: no credential ends it.
                known.until = entry.until;
                known.rule = entry.rule;
            } else {
                entry.rule = entry.rule.or(known.rule.take());
                *known = entry;
            }
            return Begun::Prolonged;
        }
        let mut gone = None;
        if self.0.len() >= MAX_ENTRIES {
            let weakest = self.0.iter().filter(|(_, entry)| !entry.by_operator);
            let weakest = weakest.min_by_key(|(_, entry)| entry.until);
            let Some(party) = weakest.map(|(party, _)| party.clone()) else {
                return Begun::Full;
            };
            self.0.remove(&party);
            gone = Some(party);
        }
        self.0.insert(party, entry);
        Begun::New(gone)
    }

    /// Releases a party; `None`: it was not in quarantine.
    pub fn release(&mut self, party: &Party) -> Option<Entry> {
        self.0.remove(party)
    }

    /// Releases a party by the operator's hand. The policy that was the cause puts it there no more
    /// for `span`. `false`: it was not in quarantine.
    pub fn lift(&mut self, party: &Party, now: Timestamp, span: Duration) -> bool {
        let Some(entry) = self.0.get_mut(party).filter(|entry| !entry.released) else {
            return false;
        };
        if entry.rule.is_none() {
            self.0.remove(party);
        } else {
            entry.released = true;
            entry.by_operator = false;
            entry.until = now.after(span.min(MAX_SPAN));
        }
        true
    }

    /// Whether the operator released a peer from every one of these policies, and that lasts.
    pub fn lifts<'a>(
        &self,
        peer: &PeerId,
        identity: Option<&VerifiedIdentity>,
        mut rules: impl Iterator<Item = &'a str>,
        now: Timestamp,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let parties = parties_of(peer, identity);
        rules.all(|rule| {
            parties.iter().any(|party| {
                let released = |entry: &&Entry| entry.released && now < entry.until;
                let entry = self.0.get(party).filter(released);
                entry.is_some_and(|entry| entry.rule.as_deref() == Some(rule))
            })
        })
    }

    /// Those that have ended, releases among them.
    pub fn sweep(&mut self, now: Timestamp) -> Vec<(Party, Entry)> {
        let ended = self.0.extract_if(.., |_, entry| entry.until <= now);
        ended.collect()
    }

    /// The entry that holds a peer at `now`, by its key or by what its credential names.
    #[must_use]
    pub fn holding(
        &self,
        peer: &PeerId,
        identity: Option<&VerifiedIdentity>,
        now: Timestamp,
    ) -> Option<(Party, &Entry)> {
        if self.0.is_empty() {
            return None;
        }
        parties_of(peer, identity).into_iter().find_map(|party| {
            let entry = self.0.get(&party)?;
            let holds = now < entry.until && !entry.released && !released_by(entry, identity);
            holds.then_some((party, entry))
        })
    }

    /// The parties of a peer whose credential has released them.
    #[must_use]
    pub fn released(&self, peer: &PeerId, identity: &VerifiedIdentity) -> Vec<Party> {
        let released = |party: &Party| {
            let entry = self.0.get(party);
            entry.is_some_and(|entry| released_by(entry, Some(identity)))
        };
        let parties = parties_of(peer, Some(identity)).into_iter();
        parties.filter(released).collect()
    }

    /// Whether one has ended and was not swept yet.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.0.values().any(|entry| entry.until <= now)
    }

    /// All, by party.
    pub fn iter(&self) -> impl Iterator<Item = (&Party, &Entry)> {
        self.0.iter()
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, party: &Party) -> Option<&Entry> {
        self.0.get(party)
    }

    /// All, by party.
    #[must_use]
    pub fn list(&self) -> Vec<QuarantineInfo> {
        let held = self.0.iter().filter(|(_, entry)| !entry.released);
        held.map(|(party, entry)| QuarantineInfo {
            party: party.clone(),
            since: entry.since,
            until: entry.until,
            reason: entry.reason.clone(),
        })
        .collect()
    }

    /// How many are in quarantine.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.values().filter(|entry| !entry.released).count()
    }

    /// Whether there are none, and no releases that last.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn released_by(entry: &Entry, identity: Option<&VerifiedIdentity>) -> bool {
    let by_hand = entry.by_operator || entry.released;
    let (false, Some(then), Some(identity)) = (by_hand, entry.grant, identity) else {
        return false;
    };
    // When it was issued is told by its place on its issuer's list.
    let mut places = identity.statuses.iter();
    let own = places.find(|place| place.issuer == identity.issuer);
    own.is_some_and(|own| own.issued > entry.caused) && grant_of(identity) != then
}

/// As whom a peer is put in quarantine: a member by its name, so that another key or credential of
/// that name is held, too.
#[must_use]
pub fn party_of(peer: &PeerId, identity: Option<&VerifiedIdentity>) -> Party {
    let subject = identity.and_then(subject_of);
    subject.map_or(Party::Peer(*peer), Party::Subject)
}

/// As whom a peer may be in quarantine.
fn parties_of(peer: &PeerId, identity: Option<&VerifiedIdentity>) -> Vec<Party> {
    let subject = identity.and_then(subject_of).map(Party::Subject);
    subject.into_iter().chain([Party::Peer(*peer)]).collect()
}

/// A hash over what a credential grants: issuer, subject, groups, attributes. A renewal leaves it
/// as it is.
#[must_use]
pub fn grant_of(identity: &VerifiedIdentity) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut put = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    };
    put(identity.issuer.as_str());
    put(identity.subject.as_str());
    for group in &identity.groups {
        put("group");
        put(group);
    }
    for (name, value) in &identity.attributes {
        put("attribute");
        put(name);
        put(value);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
