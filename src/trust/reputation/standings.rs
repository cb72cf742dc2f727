//! The published view: where everybody stands, read without asking.

use std::{net::IpAddr, sync::Arc};

use super::{Account, ledger::Ledger};
use crate::{
    config::ReputationConfig,
    messages::reputation::{BanInfo, Standing},
    types::{Party, PeerId, Timestamp, TrustScore},
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

    /// Where a peer stands; `None` when nothing was published yet.
    #[must_use]
    pub fn standing(&self, peer: &PeerId, now: Timestamp) -> Option<Standing> {
        let account = self.ledger.as_ref()?.get(&Party::Peer(*peer));
        Some(account.map_or(
            Standing {
                score: self.rules.neutral,
                banned_until: None,
                probation: false,
            },
            |account| account.standing(now, &self.rules),
        ))
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
                    party: *party,
                    since: ban.since,
                    until: ban.until,
                    reason: ban.reason.to_string(),
                })
            })
            .collect();
        bans.sort_by_key(|ban| (ban.until, ban.party));
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
