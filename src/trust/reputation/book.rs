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

/// The indexes of one kind of party.
#[derive(Debug, Default)]
struct Shelf {
    /// Accounts without a ban, in the order in which they are forgotten.
    ranks: BTreeSet<(Rank, Party)>,
    /// Bans by their end: those that follow from misdeeds, and operators'.
    ends: BTreeSet<(Timestamp, Party)>,
    operator_ends: BTreeSet<(Timestamp, Party)>,
}

impl Shelf {
    fn len(&self) -> usize {
        self.ranks.len() + self.banned()
    }

    fn banned(&self) -> usize {
        self.ends.len() + self.operator_ends.len()
    }

    fn ends_of(&mut self, ban: &BanRecord) -> &mut BTreeSet<(Timestamp, Party)> {
        if ban.by_operator {
            &mut self.operator_ends
        } else {
            &mut self.ends
        }
    }
}

#[derive(Debug)]
pub(super) struct Book {
    rules: Arc<ReputationConfig>,
    ledger: Ledger,
    /// Keys and addresses: anybody can have many.
    keys: Shelf,
    /// Subjects: each has an issuer that named it.
    subjects: Shelf,
    /// How many banned peers are behind an address.
    behind: HashMap<IpAddr, u32>,
}

impl Book {
    pub(super) fn new(rules: Arc<ReputationConfig>) -> Self {
        Self {
            rules,
            ledger: Ledger::new(),
            keys: Shelf::default(),
            subjects: Shelf::default(),
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

    /// Whether there is no room for one more of the party's kind.
    pub(super) fn is_full(&self, party: &Party) -> bool {
        self.shelf(party).len() >= self.places()
    }

    /// Most parties of one kind.
    pub(super) fn places(&self) -> usize {
        self.rules.tracked_parties.max(1)
    }

    pub(super) fn banned(&self) -> usize {
        self.shelves().map(Shelf::banned).sum()
    }

    pub(super) fn banned_behind(&self, ip: &IpAddr) -> u32 {
        self.behind.get(ip).copied().unwrap_or_default()
    }

    /// Who is nearest to neutral and not banned, of the kind of `like`.
    pub(super) fn nearest_like(&self, like: &Party) -> Option<(Rank, Party)> {
        self.shelf(like).ranks.first().cloned()
    }

    /// Who is nearest to neutral and not banned.
    pub(super) fn nearest(&self) -> Option<Party> {
        let firsts = self.shelves().filter_map(|shelf| shelf.ranks.first());
        firsts.min().map(|(_, party)| party.clone())
    }

    /// The ban that ends soonest of the kind of `like`, operators' aside.
    pub(super) fn soonest_like(&self, like: &Party) -> Option<Party> {
        let first = self.shelf(like).ends.first();
        first.map(|(_, party)| party.clone())
    }

    /// A party whose ban is over at `now`.
    pub(super) fn ended(&self, now: Timestamp) -> Option<Party> {
        let firsts = self.shelves().flat_map(|shelf| {
            let own = shelf.ends.first();
            own.into_iter().chain(shelf.operator_ends.first())
        });
        firsts
            .filter(|(end, _)| *end <= now)
            .map(|(_, party)| party.clone())
            .next()
    }

    /// The only place, with [`Self::forget`], where accounts and indexes change.
    pub(super) fn set(&mut self, party: Party, account: Account) {
        self.forget(&party);
        match &account.ban {
            None => {
                let rank = account.rank(&self.rules);
                self.shelf_mut(&party).ranks.insert((rank, party.clone()));
            }
            Some(ban) => {
                let entry = (ban.until, party.clone());
                self.shelf_mut(&party).ends_of(ban).insert(entry);
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
            let entry = (old.rank(&self.rules), party.clone());
            self.shelf_mut(party).ranks.remove(&entry);
            return;
        };
        let entry = (ban.until, party.clone());
        self.shelf_mut(party).ends_of(ban).remove(&entry);
        if let Some(ip) = ban.address
            && let Some(count) = self.behind.get_mut(&ip)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.behind.remove(&ip);
            }
        }
    }

    fn shelves(&self) -> impl Iterator<Item = &Shelf> {
        [&self.keys, &self.subjects].into_iter()
    }

    fn shelf(&self, party: &Party) -> &Shelf {
        match party {
            Party::Peer(_) | Party::Address(_) => &self.keys,
            Party::Subject(_) => &self.subjects,
        }
    }

    fn shelf_mut(&mut self, party: &Party) -> &mut Shelf {
        match party {
            Party::Peer(_) | Party::Address(_) => &mut self.keys,
            Party::Subject(_) => &mut self.subjects,
        }
    }
}

#[cfg(test)]
impl Book {
    /// What must always hold; used by the property tests.
    pub(super) fn check_invariants(&self, latest: Timestamp) {
        assert!(self.shelves().all(|shelf| shelf.len() <= self.places()));
        assert_eq!(self.shelves().map(Shelf::len).sum::<usize>(), self.len());
        assert_eq!(self.ledger.iter().count(), self.len());
        let mut behind: HashMap<IpAddr, u32> = HashMap::new();
        for (party, account) in self.ledger.iter() {
            assert!(account.at <= latest, "an account from the future");
            let Some(ban) = &account.ban else {
                let entry = (account.rank(&self.rules), party.clone());
                assert!(self.shelf(party).ranks.contains(&entry));
                continue;
            };
            assert!(ban.until > latest, "a ban that should have ended");
            assert!(
                ban.until <= latest.after(super::MAX_BAN),
                "a ban without an end"
            );
            assert!(ban.address.is_none() || matches!(party, Party::Peer(_)));
            if let Some(ip) = ban.address {
                *behind.entry(ip).or_default() += 1;
            }
        }
        assert_eq!(behind, self.behind);
    }
}
