//! What of the replay windows outlives a process.
//!
//! A message is taken only when the disk knows a time at or behind the one it was sent at: the mark,
//! which therefore runs ahead of the clock. After a crash everything sent up to the mark is stale,
//! whoever sent it: all that was taken, and at most [`RESERVE`] more. An author whose clock is
//! further ahead has a mark of its own, as far ahead as its clock. An orderly end writes exactly what
//! was taken of each author instead, and costs nothing.

use std::{collections::HashMap, time::Duration};

use super::MAX_AGE;
use crate::types::{PeerId, Timestamp};

/// How far a mark runs ahead of the clock: what is refused after a crash. Twice [`MARK_EVERY`] and a
/// slow disk.
pub const RESERVE: Duration = Duration::from_secs(5);
/// How often the marks are moved on: one `fsync`.
pub const MARK_EVERY: Duration = Duration::from_secs(2);
/// Authors whose clocks are ahead and who have marks of their own. More are refused until one of them
/// was quiet for [`FORGET`].
const MAX_AHEAD: usize = 1_024;
/// How long a mark of an author's own is moved on after its last message. Longer than [`MAX_AGE`]:
/// then everybody's mark has overtaken what was taken under it.
const FORGET: Duration = Duration::from_secs(600);
/// Authors whose floors are kept over a restart: all that have windows, twice.
const MAX_FLOORS: usize = 40_000;

/// An author whose clock is ahead.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    by: Duration,
    heard: Duration,
    /// What the disk knows.
    until: Timestamp,
}

/// What is to be written, all of it before [`Mark::written`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writing {
    /// Everybody's mark.
    pub until: Timestamp,
    /// Those of single authors.
    pub own: Vec<(PeerId, Timestamp)>,
    /// Authors that need none of their own any more.
    pub gone: Vec<PeerId>,
}

/// Up to which time of sending the disk knows.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    until: Timestamp,
    ahead: HashMap<PeerId, Ahead>,
    writing: Option<Writing>,
    next: Duration,
    closed: bool,
}

impl Mark {
    /// Whether what an author sent at this time may be taken. If not, its clock is ahead, and it
    /// gets a mark of its own with the next write.
    pub fn covers(
        &mut self,
        author: &PeerId,
        sent: Timestamp,
        (now, elapsed): (Timestamp, Duration),
    ) -> bool {
        if self.closed {
            return false;
        }
        if sent <= self.until {
            return true;
        }
        let by = sent.since(now);
        if let Some(own) = self.ahead.get_mut(author) {
            own.by = own.by.max(by);
            own.heard = elapsed;
            return sent <= own.until;
        }
        if self.ahead.len() < MAX_AHEAD {
            let own = Ahead {
                by,
                heard: elapsed,
                until: Timestamp::default(),
            };
            self.ahead.insert(*author, own);
        }
        false
    }

    /// What to write now, if it is time; then [`Mark::written`] is to be called. `now` and `elapsed`:
    /// both clocks.
    pub fn due(&mut self, now: Timestamp, elapsed: Duration) -> Option<Writing> {
        if self.closed || self.writing.is_some() || elapsed < self.next {
            return None;
        }
        self.next = elapsed.saturating_add(MARK_EVERY);
        // When the clock stepped back the disk knows more than is needed.
        let until = now.after(RESERVE).max(self.until);
        let quiet = |own: &Ahead| elapsed.saturating_sub(own.heard) > FORGET;
        let gone = self.ahead.extract_if(|_, own| quiet(own));
        let gone = gone.map(|(author, _)| author).collect();
        let own = self.ahead.iter();
        let own = own.map(|(author, own)| (*author, until.after(own.by).max(own.until)));
        let writing = Writing {
            until,
            own: own.collect(),
            gone,
        };
        self.writing = Some(writing.clone());
        Some(writing)
    }

    /// The write ended. One that failed is tried again when the next is due, and meanwhile the marks
    /// stay: messages sent behind them are not taken.
    pub fn written(&mut self, durable: bool) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        if !durable {
            return;
        }
        self.until = self.until.max(writing.until);
        for (author, until) in writing.own {
            if let Some(own) = self.ahead.get_mut(&author) {
                own.until = own.until.max(until);
            }
        }
    }

    /// Nothing is taken any more: what was is written as floors.
    pub fn close(&mut self) {
        self.closed = true;
    }
}

/// What was taken before this process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors {
    all: Timestamp,
    authors: HashMap<PeerId, Timestamp>,
}

impl Floors {
    /// Everything an author sent up to this time is stale.
    #[must_use]
    pub fn of(&self, author: &PeerId) -> Timestamp {
        let own = self.authors.get(author).copied().unwrap_or_default();
        own.max(self.all)
    }

    /// That for everybody.
    #[must_use]
    pub fn all(&self) -> Timestamp {
        self.all
    }

    /// Those of single authors.
    pub fn authors(&self) -> impl Iterator<Item = (&PeerId, Timestamp)> {
        self.authors.iter().map(|(author, floor)| (author, *floor))
    }

    /// Raises an author's floor; when there are too many, everybody's.
    pub fn raise(&mut self, author: PeerId, floor: Timestamp) {
        if self.authors.len() >= MAX_FLOORS && !self.authors.contains_key(&author) {
            return self.raise_all(floor);
        }
        let own = self.authors.entry(author).or_default();
        *own = floor.max(*own);
    }

    /// Raises everybody's floor.
    pub fn raise_all(&mut self, floor: Timestamp) {
        self.all = self.all.max(floor);
    }

    /// Lowers every floor to the latest time of which something can be taken within [`RESERVE`]:
    /// one behind it was written by a clock that was far ahead, and would make this node deaf until
    /// then. `true`: there was such a one.
    pub fn cap(&mut self, now: Timestamp) -> bool {
        let latest = now.after(MAX_AGE).after(RESERVE);
        let mut capped = self.all > latest;
        self.all = self.all.min(latest);
        for floor in self.authors.values_mut() {
            capped |= *floor > latest;
            *floor = (*floor).min(latest);
        }
        capped
    }

    /// Forgets the floors that the bound on age makes superfluous.
    pub fn forget(&mut self, now: Timestamp) {
        let all = self.all;
        // Twice: a clock that steps back a little does not open anything.
        self.authors
            .retain(|_, floor| *floor > all && now.since(*floor) <= MAX_AGE.saturating_mul(2));
    }
}
