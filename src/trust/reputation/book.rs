//! The accounts with their indexes, kept in step in two functions.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{Account, BanRecord, account::Rank, ledger::Ledger};
use crate::{
    config::ReputationConfig,
    types::{Party, Timestamp},
};

#[derive(Debug)]
pub(super) struct Book {
    rules: Arc<ReputationConfig>,
    ledger: Ledger,
    /// Accounts without a ban, in the order in which they are forgotten.
    ranks: BTreeSet<(Rank, Party)>,
    /// Bans by their end: those that follow from misdeeds, and operators'.
    ends: BTreeSet<(Timestamp, Party)>,
    operator_ends: BTreeSet<(Timestamp, Party)>,
    /// How many banned peers are behind an address.
    behind: HashMap<IpAddr, u32>,
}

impl Book {
    pub(super) fn new(rules: Arc<ReputationConfig>) -> Self {
        Self {
            rules,
            ledger: Ledger::new(),
            ranks: BTreeSet::new(),
            ends: BTreeSet::new(),
            operator_ends: BTreeSet::new(),
            behind: HashMap::new(),
        }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn get(&self, party: &Party) -> Option<&Account> {
        self.ledger.get(party)
    }

    pub(super) fn len(&self) -> usize {
        self.ledger.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.rules.tracked_parties.max(1)
    }

    pub(super) fn banned(&self) -> usize {
        self.ends.len() + self.operator_ends.len()
    }

    pub(super) fn banned_behind(&self, ip: &IpAddr) -> u32 {
        self.behind.get(ip).copied().unwrap_or_default()
    }

    /// Who is nearest to neutral and not banned.
    pub(super) fn nearest(&self) -> Option<(Rank, Party)> {
        self.ranks.first().copied()
    }

    /// The ban that ends soonest, operators' aside.
    pub(super) fn soonest(&self) -> Option<(Timestamp, Party)> {
        self.ends.first().copied()
    }

    /// A party whose ban is over at `now`.
    pub(super) fn ended(&self, now: Timestamp) -> Option<Party> {
        let firsts = self
            .ends
            .first()
            .into_iter()
            .chain(self.operator_ends.first());
        firsts
            .filter(|(end, _)| *end <= now)
            .map(|(_, party)| *party)
            .next()
    }

    /// The only place, with [`Self::forget`], where accounts and indexes change.
    pub(super) fn set(&mut self, party: Party, account: Account) {
        self.forget(&party);
        match &account.ban {
            None => {
                self.ranks.insert((account.rank(&self.rules), party));
            }
            Some(ban) => {
                self.ends_of(ban).insert((ban.until, party));
                if let Some(ip) = ban.address {
                    let count = self.behind.entry(ip).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        self.ledger.insert(party, account);
    }

    pub(super) fn forget(&mut self, party: &Party) {
        let Some(old) = self.ledger.remove(party) else {
            return;
        };
        let Some(ban) = &old.ban else {
            self.ranks.remove(&(old.rank(&self.rules), *party));
            return;
        };
        self.ends_of(ban).remove(&(ban.until, *party));
        if let Some(ip) = ban.address
            && let Some(count) = self.behind.get_mut(&ip)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.behind.remove(&ip);
            }
        }
    }

    fn ends_of(&mut self, ban: &BanRecord) -> &mut BTreeSet<(Timestamp, Party)> {
        if ban.by_operator {
            &mut self.operator_ends
        } else {
            &mut self.ends
        }
    }
}

#[cfg(test)]
impl Book {
    /// What must always hold; used by the property tests.
    pub(super) fn check_invariants(&self, latest: Timestamp) {
        assert!(self.len() <= self.rules.tracked_parties.max(1));
        assert_eq!(self.ranks.len() + self.banned(), self.len());
        assert_eq!(self.ledger.iter().count(), self.len());
        let mut behind: HashMap<IpAddr, u32> = HashMap::new();
        for (party, account) in self.ledger.iter() {
            assert!(account.at <= latest, "an account from the future");
            let Some(ban) = &account.ban else {
                assert!(self.ranks.contains(&(account.rank(&self.rules), *party)));
                continue;
            };
            assert!(ban.until > latest, "a ban that should have ended");
            assert!(
                ban.until <= latest.after(super::MAX_BAN),
                "a ban without an end"
            );
            if let Some(ip) = ban.address {
                *behind.entry(ip).or_default() += 1;
            }
        }
        assert_eq!(behind, self.behind);
    }
}
