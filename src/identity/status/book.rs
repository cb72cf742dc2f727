//! The book: the newest list of each issuer, which only ever goes forward.
//!
//! Two steps, so that nothing is in force before it is on the disk: a document is *weighed*, which
//! changes nothing and answers what would have to be written ([`Record`]); once that is durable,
//! the record is *enacted*.
//!
//! # Invariants
//! - For one pair of keys the sequence of an issuer never falls.
//! - Two statements under one sequence are a fork: it is reported, and the first stays.
//! - A list under other keys takes the place of another only when that is not in force: its anchor
//!   is gone, or the delegation it rests on was revoked. (A stolen, then revoked delegate could
//!   otherwise block its name for ever with the greatest sequence.)
//! - What is not trusted at the moment is kept and does not count, so that taking an anchor away
//!   and entering it again does not let old lists in.
//!
//! Owner: the Revocation actor. It fails with [`Rejected`], which says who is charged.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    list::{StatusHead, StatusList},
    record::{ListReport, Record},
    rejected::Rejected,
    view::{InForce, StatusView},
};
use crate::{
    identity::{
        CLOCK_SKEW, Delegation, Name, Refusal, StatusEntry, Thumbprint, TrustAnchors,
        anchor::MAX_ANCHORS, cose::BadSignature, verify::issuer_keys,
    },
    types::Timestamp,
};

/// Most issuers in the book: every anchor, and as many delegated ones. Each takes 40 KiB at most.
pub const MAX_ISSUERS: usize = 2 * MAX_ANCHORS;
/// Most delegated issuers of one anchor, so that none can fill the book with names of its own.
pub const MAX_UNDER_ANCHOR: usize = 64;

/// Two statements under one sequence: the issuer's key is in two hands, or its folder was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The issuer.
    pub issuer: Name,
    /// The sequence.
    pub sequence: u64,
    /// SHA-256 of the list in force.
    pub known: [u8; 32],
    /// SHA-256 of the other.
    pub other: [u8; 32],
}

/// What a document that is no nuisance comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weighed {
    /// It is news: write this, then enact it.
    Newer(Box<Record>),
    /// It is known.
    Known,
    /// A head whose keys are not known here without its list: ask for that.
    Unproved,
    /// Something else is known under this sequence.
    Forked(Fork),
}

struct Entry {
    record: Record,
    /// The anchors of today know its keys.
    trusted: bool,
}

/// See the module.
pub struct Book {
    anchors: Arc<TrustAnchors>,
    entries: BTreeMap<Name, Entry>,
    required: bool,
    view: StatusView,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book")
            .field("issuers", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Book {
    /// An empty book. `required`: an issuer without a list counts as one whose list is stale.
    #[must_use]
    pub fn new(anchors: Arc<TrustAnchors>, required: bool) -> Self {
        Self {
            anchors,
            entries: BTreeMap::new(),
            required,
            view: StatusView::empty(required),
        }
    }

    /// What others read.
    #[must_use]
    pub fn view(&self) -> StatusView {
        self.view.clone()
    }

    /// Judges all lists anew by other anchors.
    pub fn trust(&mut self, anchors: Arc<TrustAnchors>) {
        self.anchors = anchors;
        for entry in self.entries.values_mut() {
            entry.trusted = is_trusted(&entry.record, &self.anchors);
        }
        self.show();
    }

    /// Puts in force what was weighed and written, or what was found on the disk. When the book
    /// was full, the issuer whose untrusted entry had to go.
    pub fn enact(&mut self, record: Record) -> Option<Name> {
        let issuer = record.issuer().clone();
        let gone = self.makes_room_for(&issuer);
        gone.as_ref().map(|name| self.entries.remove(name));
        let trusted = is_trusted(&record, &self.anchors);
        self.entries.insert(issuer, Entry { record, trusted });
        self.show();
        gone
    }

    /// Which entry has to go when one of `issuer` is enacted.
    #[must_use]
    pub fn makes_room_for(&self, issuer: &Name) -> Option<Name> {
        let full = !self.entries.contains_key(issuer) && self.entries.len() >= MAX_ISSUERS;
        full.then(|| self.untrusted()).flatten()
    }

    /// Weighs a list.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn weigh_list(&self, list: &StatusList, now: Timestamp) -> Result<Weighed, Rejected> {
        let issuer = list.statement().issuer.clone();
        let (key, used) = issuer_keys(&issuer, list.delegations(), &self.anchors)
            .map_err(|why| refused(why, &issuer))?;
        list.head()
            .verify(key)
            .map_err(|why| refused(why, &issuer))?;
        check_date(list.head(), now)?;
        if is_cut(used, &self.view, now) {
            return Err(Rejected::Revoked(issuer));
        }
        let key = key.thumbprint();
        let newest = |head| {
            Ok(Weighed::Newer(Box::new(Record {
                key,
                list: Some(Arc::new(list.clone())),
                head,
            })))
        };
        let offered = Arc::new(list.head().clone());
        let Some(known) = self.comparable(&issuer, key)? else {
            return newest(offered);
        };
        let sequence = list.statement().sequence;
        let listed = known.sequence();
        // Against the newest head first: a list that is not the one it promised is a fork.
        match compare(&offered, &known.head) {
            Compared::Newer => newest(offered),
            Compared::Forked(fork) => Ok(Weighed::Forked(fork)),
            // The same list, and another delegation in place of one that was revoked.
            Compared::Same if !self.view.is_in_force(&issuer) => newest(offered),
            Compared::Same if known.is_behind() => newest(offered),
            Compared::Same => Ok(Weighed::Known),
            Compared::Older if sequence > listed => newest(Arc::clone(&known.head)),
            Compared::Older => Err(Rejected::Older {
                offered: sequence,
                known: known.head.statement().sequence,
            }),
        }
    }

    /// Weighs a head without its list.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn weigh_head(&self, head: StatusHead, now: Timestamp) -> Result<Weighed, Rejected> {
        let issuer = head.statement().issuer.clone();
        if self.anchors.nearest(&issuer).is_none() {
            return Err(Rejected::Unknown(issuer));
        }
        let entry = self.entries.get(&issuer);
        let delegations = match entry {
            Some(entry) if entry.trusted => entry.record.delegations(),
            _ if self.anchors.get(&issuer).is_some() => &[],
            _ => return Ok(Weighed::Unproved),
        };
        let (key, used) = issuer_keys(&issuer, delegations, &self.anchors)
            .map_err(|why| refused(why, &issuer))?;
        if head.signed_by() != Some(key.thumbprint()) && !used.is_empty() {
            // By other keys, perhaps those of a later delegation.
            return Ok(Weighed::Unproved);
        }
        head.verify(key).map_err(|why| refused(why, &issuer))?;
        check_date(&head, now)?;
        if is_cut(used, &self.view, now) {
            // Perhaps under a later delegation, which comes with the list.
            return Ok(Weighed::Unproved);
        }
        let (key, head) = (key.thumbprint(), Arc::new(head));
        let Some(known) = self.comparable(&issuer, key)? else {
            let list = None;
            return Ok(Weighed::Newer(Box::new(Record { key, list, head })));
        };
        match compare(&head, &known.head) {
            Compared::Newer => Ok(Weighed::Newer(Box::new(Record {
                key,
                list: known.list.clone(),
                head,
            }))),
            Compared::Forked(fork) => Ok(Weighed::Forked(fork)),
            Compared::Same => Ok(Weighed::Known),
            Compared::Older => Err(Rejected::Older {
                offered: head.statement().sequence,
                known: known.head.statement().sequence,
            }),
        }
    }

    /// Issuers whose list is behind its head, and the sequence of what is there.
    #[must_use]
    pub fn behind(&self) -> Vec<(Name, u64)> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| entry.trusted && entry.record.is_behind())
            .map(|(issuer, entry)| (issuer.clone(), entry.record.sequence()))
            .collect()
    }

    /// The sequence of the list in force of an issuer; 0: there is none.
    #[must_use]
    pub fn sequence(&self, issuer: &Name) -> u64 {
        let counts = self.view.is_in_force(issuer);
        let entry = self.entries.get(issuer).filter(|_| counts);
        entry.map_or(0, |entry| entry.record.sequence())
    }

    /// What is known, by issuer.
    #[must_use]
    pub fn reports(&self, now: Timestamp) -> Vec<ListReport> {
        let entries = self.entries.iter();
        entries
            .map(|(issuer, entry)| {
                let in_force = self.view.issuers.get(issuer);
                let state = match in_force {
                    None => "untrusted",
                    Some(shown) if shown.cut => "cut",
                    Some(_) if entry.record.is_behind() => "behind",
                    Some(shown) if shown.is_stale(now) => "stale",
                    Some(_) => "in_force",
                };
                ListReport::of(&entry.record, state)
            })
            .collect()
    }

    /// The entry that a statement by `key` continues; none when it begins anew.
    fn comparable(&self, issuer: &Name, key: Thumbprint) -> Result<Option<&Record>, Rejected> {
        match self.entries.get(issuer) {
            Some(entry) if entry.record.key == key => Ok(Some(&entry.record)),
            Some(_) if self.view.is_in_force(issuer) => Err(Rejected::OtherKey(issuer.clone())),
            Some(_) => Ok(None),
            None => self.check_room(issuer).map(|()| None),
        }
    }

    fn check_room(&self, issuer: &Name) -> Result<(), Rejected> {
        if self.entries.len() >= MAX_ISSUERS && self.untrusted().is_none() {
            return Err(Rejected::Full);
        }
        let anchor = self.anchors.nearest(issuer).map(|anchor| &anchor.issuer);
        if anchor == Some(issuer) {
            return Ok(());
        }
        let under = |name: &&Name| {
            Some(*name) != anchor && self.anchors.nearest(name).map(|a| &a.issuer) == anchor
        };
        if self.entries.keys().filter(under).count() >= MAX_UNDER_ANCHOR {
            return Err(Rejected::Full);
        }
        Ok(())
    }

    fn untrusted(&self) -> Option<Name> {
        let mut entries = self.entries.iter();
        entries
            .find(|(_, entry)| !entry.trusted)
            .map(|(name, _)| name.clone())
    }

    /// Makes the view anew. A name sorts before those under it, so that what revokes a delegation
    /// is in force before what rests on it.
    fn show(&mut self) {
        let mut view = StatusView::of(BTreeMap::new(), self.required);
        for (issuer, entry) in self.entries.iter().filter(|(_, entry)| entry.trusted) {
            let used = issuer_used(issuer, entry.record.delegations(), &self.anchors);
            // Whether something is revoked does not depend on the time. What a list took back stays
            // so when the delegation it rests on is: another of the same keys may take its place,
            // and must not bring back who was let go under the first.
            let shown = InForce {
                list: entry.record.list.clone(),
                head: Arc::clone(&entry.record.head),
                key: entry.record.key,
                cut: is_cut(used, &view, Timestamp::from_secs(0)),
            };
            view.issuers.insert(issuer.clone(), shown);
        }
        self.view = view;
    }
}

fn is_trusted(record: &Record, anchors: &TrustAnchors) -> bool {
    let issuer = record.issuer();
    let Ok((key, _)) = issuer_keys(issuer, record.delegations(), anchors) else {
        return false;
    };
    let list = record.list.as_ref();
    key.thumbprint() == record.key
        && record.head.verify(key).is_ok()
        && list.is_none_or(|list| list.head().verify(key).is_ok())
}

/// The delegations that stand between an issuer and its anchor.
fn issuer_used<'a>(
    issuer: &Name,
    delegations: &'a [Delegation],
    anchors: &TrustAnchors,
) -> &'a [Delegation] {
    if anchors.get(issuer).is_some() {
        return &[];
    }
    let mut above = delegations.iter();
    let depth = above.position(|link| anchors.get(&link.mandate().issuer).is_some());
    let count = depth.map_or(0, |depth| depth.saturating_add(1));
    delegations.get(..count).unwrap_or_default()
}

/// Whether one of these delegations was revoked.
fn is_cut(used: &[Delegation], view: &StatusView, now: Timestamp) -> bool {
    let places = StatusEntry::of_delegations(used);
    view.of_entries(&places, now).is_revoked()
}

fn check_date(head: &StatusHead, now: Timestamp) -> Result<(), Rejected> {
    let issued = head.statement().issued;
    if issued > now.after(CLOCK_SKEW) {
        return Err(Rejected::Future(issued));
    }
    Ok(())
}

fn refused(why: Refusal, issuer: &Name) -> Rejected {
    match why {
        Refusal::UnknownIssuer(_) | Refusal::Denied(_) => Rejected::Unknown(issuer.clone()),
        Refusal::Signature(why) if why == BadSignature::OtherKey.why() => {
            Rejected::OtherKey(issuer.clone())
        }
        other => Rejected::Forged(other),
    }
}

enum Compared {
    Newer,
    Same,
    Older,
    Forked(Fork),
}

fn compare(offered: &StatusHead, known: &StatusHead) -> Compared {
    let (offered, known) = (offered.statement(), known.statement());
    if offered == known {
        return Compared::Same;
    }
    match offered.sequence.cmp(&known.sequence) {
        std::cmp::Ordering::Greater => Compared::Newer,
        std::cmp::Ordering::Less => Compared::Older,
        std::cmp::Ordering::Equal => Compared::Forked(Fork {
            issuer: known.issuer.clone(),
            sequence: known.sequence,
            known: known.hash,
            other: offered.hash,
        }),
    }
}
