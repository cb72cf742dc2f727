//! The published view: where everybody stands, read without asking.

use std::{net::IpAddr, sync::Arc};

use super::{Account, ledger::Ledger, subject_of};
use crate::{
    config::ReputationConfig,
    identity::VerifiedIdentity,
    messages::reputation::{BanInfo, Standing},
    types::{Party, PeerId, SubjectId, Timestamp, TrustScore},
};

/// Why a party may not even begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// Banned until then.
    Until(Timestamp),
    /// No actor has filled the view yet.
    Unknown,
}

/// Bans and scores at the moment of publishing; time is applied when it is read, so a ban in it
/// ends to the millisecond although nobody publishes at that moment.
#[derive(Debug, Clone)]
pub struct Standings {
    /// `None` until the owner published for the first time.
    ledger: Option<Ledger>,
    rules: Arc<ReputationConfig>,
}

impl Standings {
    /// The first view of a node: nothing is known, so nobody stands anywhere and every decision
    /// denies.
    #[must_use]
    pub fn unknown(rules: Arc<ReputationConfig>) -> Self {
        Self {
            ledger: None,
            rules,
        }
    }

    pub(super) fn of(ledger: Ledger, rules: Arc<ReputationConfig>) -> Self {
        Self {
            ledger: Some(ledger),
            rules,
        }
    }

    /// Where a peer stands by its key alone; `None` when nothing was published yet. Decisions go
    /// by [`Standings::standing_of`].
    #[must_use]
    pub fn standing(&self, peer: &PeerId, now: Timestamp) -> Option<Standing> {
        self.standing_of(peer, None, now)
    }

    /// Where a peer stands, as what it was verified to be: the worse of its key and its subject.
    /// `None` when nothing was published yet.
    #[must_use]
    pub fn standing_of(
        &self,
        peer: &PeerId,
        identity: Option<&VerifiedIdentity>,
        now: Timestamp,
    ) -> Option<Standing> {
        let ledger = self.ledger.as_ref()?;
        let subject = identity.and_then(subject_of);
        Some(joint(ledger, peer, subject.as_ref(), now, &self.rules))
    }

    /// Whether the subject of an identity is barred, and until when; by name, for whoever has to
    /// say so.
    #[must_use]
    pub fn subject_barred(
        &self,
        identity: &VerifiedIdentity,
        now: Timestamp,
    ) -> Option<(SubjectId, Barred)> {
        let subject = subject_of(identity)?;
        let barred = self.barred(&Party::Subject(subject.clone()), now)?;
        Some((subject, barred))
    }

    /// Whether a peer or an address is barred, and until when.
    #[must_use]
    pub fn barred(&self, party: &Party, now: Timestamp) -> Option<Barred> {
        let Some(ledger) = &self.ledger else {
            return Some(Barred::Unknown);
        };
        let until = ledger.get(party)?.banned_until(now)?;
        Some(Barred::Until(until))
    }

    /// As [`Standings::barred`], for an address as it comes from a socket.
    #[must_use]
    pub fn address_banned(&self, ip: IpAddr, now: Timestamp) -> Option<Barred> {
        self.barred(&Party::address(ip), now)
    }

    /// All bans in force, those that end first in front.
    #[must_use]
    pub fn bans(&self, now: Timestamp) -> Vec<BanInfo> {
        let mut bans: Vec<_> = self
            .accounts()
            .filter_map(|(party, account)| {
                let ban = account.ban.as_ref().filter(|ban| now < ban.until)?;
                Some(BanInfo {
                    party: party.clone(),
                    since: ban.since,
                    until: ban.until,
                    reason: ban.reason.to_string(),
                })
            })
            .collect();
        bans.sort_by(|a, b| (a.until, &a.party).cmp(&(b.until, &b.party)));
        bans
    }

    /// How many bans are in force, for the metrics.
    #[must_use]
    pub fn bans_active(&self, now: Timestamp) -> usize {
        self.accounts()
            .filter(|(_, account)| account.banned_until(now).is_some())
            .count()
    }

    /// The score of every party remembered, for the histogram.
    pub fn scores(&self, now: Timestamp) -> impl Iterator<Item = TrustScore> {
        self.accounts()
            .map(move |(_, account)| account.standing(now, &self.rules).score)
    }

    /// How many parties are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ledger.as_ref().map_or(0, Ledger::len)
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = (&Party, &Account)> {
        self.ledger.iter().flat_map(Ledger::iter)
    }
}

/// Where a peer that is `subject` stands. A key without an account says nothing beside its
/// subject's; a subject without one is neutral, whatever its key earned otherwise.
pub(super) fn joint(
    ledger: &Ledger,
    peer: &PeerId,
    subject: Option<&SubjectId>,
    now: Timestamp,
    rules: &ReputationConfig,
) -> Standing {
    let known = |party: Party| ledger.get(&party).map(|own| own.standing(now, rules));
    let neutral = Standing {
        score: rules.neutral,
        banned_until: None,
        probation: false,
    };
    let key = known(Party::Peer(*peer));
    let Some(subject) = subject else {
        return key.unwrap_or(neutral);
    };
    let subject = known(Party::Subject(subject.clone())).unwrap_or(neutral);
    key.map_or(subject, |key| key.worse(subject))
}
