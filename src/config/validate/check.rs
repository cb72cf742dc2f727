//! How complaints are made: one helper for each kind of bound.

use std::time::Duration;

use crate::types::Span;

/// Most messages that may wait in one mailbox or queue: what waits longer than this many
/// messages is late anyway, and each may hold a payload.
const MAX_QUEUE: usize = 1 << 20;

/// Most entries of a table that is kept in memory: about 1 GB at 100 bytes each.
const MAX_TABLE: usize = 10_000_000;

/// Longest span that means anything here; longer ones overflow sums of deadlines.
const MAX_SPAN: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Most entries of a list of addresses, networks or topics.
const MAX_LIST: usize = 1_024;

/// A problem before its place is known.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Complaint {
    /// The key.
    pub(in crate::config) key: String,
    /// What is wrong.
    pub(in crate::config) wrong: String,
    /// What would be right.
    pub(in crate::config) remedy: String,
    /// Other keys that take part: when the key itself has its default, the first of these that
    /// somebody set is where to look.
    pub(in crate::config) related: Vec<String>,
}

/// Collects complaints.
#[derive(Default)]
pub(super) struct Check(pub(super) Vec<Complaint>);

impl Check {
    pub(super) fn fail(&mut self, key: &str, wrong: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Complaint {
            key: key.to_owned(),
            wrong: wrong.into(),
            remedy: remedy.into(),
            related: Vec::new(),
        });
    }

    /// Names other keys that take part in the complaint just made.
    pub(super) fn related<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        if let Some(last) = self.0.last_mut() {
            last.related.extend(keys.into_iter().map(str::to_owned));
        }
    }

    pub(super) fn that(&mut self, good: bool, key: &str, wrong: &str, remedy: &str) {
        if !good {
            self.fail(key, wrong, remedy);
        }
    }

    /// As [`Check::that`], for what depends on other keys too.
    pub(super) fn relation(&mut self, good: bool, keys: &[&str], wrong: &str, remedy: &str) {
        if let Some((key, related)) = keys.split_first()
            && !good
        {
            self.fail(key, wrong, remedy);
            self.related(related.iter().copied());
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&mut self, key: &str, value: impl TryInto<u64>, least: u64, most: u64) {
        let value = value.try_into().unwrap_or(u64::MAX);
        if !(least..=most).contains(&value) {
            self.fail(
                key,
                format!("{value} is out of bounds"),
                format!("write a number from {least} to {most}"),
            );
        }
    }

    pub(super) fn queue(&mut self, key: &str, value: usize) {
        self.number(key, value, 1, MAX_QUEUE as u64);
    }

    pub(super) fn table(&mut self, key: &str, value: usize) {
        self.number(key, value, 1, MAX_TABLE as u64);
    }

    /// A span that is not zero and not absurd.
    pub(super) fn span(&mut self, key: &str, value: Span) {
        if value.0.is_zero() {
            self.fail(key, "must not be zero", "write for example \"5s\"");
        } else if value.0 > MAX_SPAN {
            self.fail(
                key,
                format!("{value} is too long"),
                "write at most \"10years\"",
            );
        }
    }

    /// `less` must not be above `more`.
    pub(super) fn ordered<T: PartialOrd + std::fmt::Display>(
        &mut self,
        (key, less): (&str, T),
        (other, more): (&str, T),
    ) {
        if less > more {
            self.fail(
                key,
                format!("{less} is above {other}, which is {more}"),
                format!("lower it, or raise {other}"),
            );
            self.related([other]);
        }
    }

    pub(super) fn list(&mut self, key: &str, len: usize) {
        if len > MAX_LIST {
            self.fail(
                key,
                format!("{len} entries"),
                format!("write at most {MAX_LIST}"),
            );
        }
    }
}
