//! A map of accounts that can be published at each change.
//!
//! Copy on write, in shards: a snapshot shares everything, and the next change copies one shard
//! of a few hundred accounts instead of all. The hash is keyed, so nobody can choose keys that
//! fall into one shard.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::Account;
use crate::types::Party;

/// At the default of 100,000 parties a shard holds 400, and copying it takes some 10 µs.
const SHARDS: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Ledger {
    shards: Vec<Arc<HashMap<Party, Account>>>,
    hasher: RandomState,
    len: usize,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
            hasher: RandomState::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, party: &Party) -> Option<&Account> {
        self.shards.get(self.shard(party))?.get(party)
    }

    pub(super) fn insert(&mut self, party: Party, account: Account) -> Option<Account> {
        let at = self.shard(&party);
        let shard = self.shards.get_mut(at)?;
        let old = Arc::make_mut(shard).insert(party, account);
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, party: &Party) -> Option<Account> {
        let at = self.shard(party);
        let shard = self.shards.get_mut(at)?;
        let old = shard
            .contains_key(party)
            .then(|| Arc::make_mut(shard).remove(party))
            .flatten();
        self.len -= usize::from(old.is_some());
        old
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Party, &Account)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn shard(&self, party: &Party) -> usize {
        let hash = self.hasher.hash_one(party) % 256;
        usize::try_from(hash).unwrap_or_default()
    }
}
