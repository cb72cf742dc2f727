//! Replayed messages: gossipsub remembers message ids for seconds, a signed message is valid for
//! ever. What was taken of each author's sequences, and a bound on a message's age, close the gap.
//!
//! An envelope takes the range of sequences of its entries, all or nothing: when one of them was
//! taken before, the whole is refused, or its author could have a part of it delivered twice.
//! Ranges that touch become one, so that an author whose envelopes arrive in order costs one;
//! everything below the lowest that is remembered counts as taken. Sequences ascend over an
//! author's restarts, since they begin at its clock.
//!
//! # Over restarts
//! Ranges are memory. What outlives this process is a *mark*: a time, durable before any message
//! sent up to it is taken (`replay/mark.rs`). After a restart everything sent before the mark is
//! stale, so that nothing taken before can be taken again.
//!
//! Pure: time is an argument; owned by the Swarm actor.

mod mark;

use std::{collections::HashMap, time::Duration};

use crate::types::{PeerId, Timestamp};

pub use mark::{Floors, MARK_EVERY, Mark, RESERVE, Who, Writing};

/// Ranges of one member told apart: envelopes that overtook each other, or of topics that this node
/// does not hear. The lowest is closed when there are more. Enough that one which is fetched some
/// heartbeats later still counts, of a publisher with several topics.
const MAX_RANGES: usize = 256;
/// The same of those without a credential.
const MAX_STRANGERS_RANGES: usize = 64;
/// How far a message's own time may be from this node's clock, in either direction: clocks of
/// organisations differ, and a message may have waited on its way.
pub const MAX_AGE: Duration = Duration::from_secs(300);
/// Authors remembered, of about 150 bytes each and at most 4.3 KB. When full, the one that was
/// quiet longest is forgotten, and what was sent before by authors without a window is stale.
const MAX_MEMBERS: usize = 16_384;
/// The same of those without a credential.
const MAX_STRANGERS: usize = 4_096;

/// Why a message is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Its author's clock, or the message, is too far from now.
    Time,
    /// One of its numbers was taken, or is too old to tell.
    Replayed,
    /// It was sent before this node's last start, which may have taken it then.
    BeforeStart,
    /// Its author's clock is ahead, further than this node could promise its disk yet.
    Ahead,
}

impl Stale {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "stale",
            Self::Replayed => "replayed",
            Self::BeforeStart => "before_start",
            Self::Ahead => "clock_ahead",
        }
    }
}

/// What was taken of one author.
#[derive(Debug, Clone)]
struct Window {
    /// What was sent up to this time counts as taken: it may have been, before this window began.
    after: Timestamp,
    /// Numbers below count as taken.
    floor: u64,
    /// Taken ranges, half open, ascending, none touching another or the floor.
    ranges: Vec<(u64, u64)>,
    /// When it was heard last.
    last: Timestamp,
    /// The latest time it said it sent something.
    latest: Timestamp,
}

impl Window {
    fn take(&mut self, numbers: Numbers, most: usize) -> bool {
        let (first, count) = (numbers.first, u64::from(numbers.count));
        if numbers.sent <= self.after {
            return false;
        }
        let Some(end) = first.checked_add(count).filter(|end| *end > first) else {
            return false;
        };
        if first < self.floor {
            return false;
        }
        // The first range that ends at or behind the new one's begin: all before lie below it.
        let at = self.ranges.partition_point(|(_, until)| *until < first);
        let overlaps = |(from, until): &(u64, u64)| *from < end && first < *until;
        // A range that only touches at `first` may be followed by one that overlaps.
        if self.ranges.iter().skip(at).take(2).any(overlaps) {
            return false;
        }
        self.put(at, first, end);
        if self.ranges.len() > most {
            let (_, until) = self.ranges.remove(0);
            self.floor = until;
        }
        true
    }

    /// Puts a range in its place and joins it with those it touches.
    fn put(&mut self, at: usize, mut first: u64, mut end: u64) {
        let mut gone = at..at;
        if let Some((from, _)) = self.ranges.get(at).filter(|(_, until)| *until == first) {
            first = *from;
            gone.end += 1;
        }
        if let Some((_, until)) = self.ranges.get(gone.end).filter(|(from, _)| *from == end) {
            end = *until;
            gone.end += 1;
        }
        self.ranges.splice(gone, [(first, end)]);
    }
}

/// The windows of one kind of authors.
#[derive(Debug, Clone)]
struct Table {
    authors: HashMap<PeerId, Window>,
    most: usize,
    ranges: usize,
    /// The latest time that was given up with an author that is remembered no more.
    forgotten: Timestamp,
}

impl Table {
    fn of(most: usize, ranges: usize, forgotten: Timestamp) -> Self {
        Self {
            authors: HashMap::new(),
            most,
            ranges,
            forgotten,
        }
    }

    fn take(&mut self, author: PeerId, numbers: Numbers, now: Timestamp) -> Result<(), Stale> {
        if let Some(window) = self.authors.get_mut(&author) {
            window.last = now;
            if !window.take(numbers, self.ranges) {
                return Err(Stale::Replayed);
            }
            window.latest = window.latest.max(numbers.sent);
            return Ok(());
        }
        let mut window = Window {
            after: self.forgotten,
            floor: 0,
            ranges: Vec::new(),
            last: now,
            latest: numbers.sent,
        };
        if !window.take(numbers, self.ranges) {
            return Err(Stale::Replayed);
        }
        self.make_room(now);
        self.authors.insert(author, window);
        Ok(())
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.authors.len() < self.most {
            return;
        }
        // Whatever was sent before the bound on age needs no window, until the clock steps back.
        let forgotten = &mut self.forgotten;
        self.authors.retain(|_, window| {
            let kept = now.since(window.latest) <= MAX_AGE;
            if !kept {
                *forgotten = (*forgotten).max(window.latest);
            }
            kept
        });
        if self.authors.len() >= self.most
            && let Some(quiet) = self
                .authors
                .iter()
                .min_by_key(|(_, w)| w.last)
                .map(|(a, _)| *a)
            && let Some(window) = self.authors.remove(&quiet)
        {
            self.forgotten = self.forgotten.max(window.latest);
        }
    }
}

/// The numbers an envelope takes, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// When its author says it was sent.
    pub sent: Timestamp,
}

/// What was taken of all authors.
#[derive(Debug, Clone)]
pub struct ReplayWindows {
    /// Apart, so that strangers, whose keys cost nothing, crowd out strangers alone.
    members: Table,
    strangers: Table,
    floors: Floors,
}

impl Default for ReplayWindows {
    fn default() -> Self {
        Self::after(Floors::default())
    }
}

impl ReplayWindows {
    /// Windows of a process that knows this of those before it.
    #[must_use]
    pub fn after(floors: Floors) -> Self {
        Self {
            members: Table::of(MAX_MEMBERS, MAX_RANGES, floors.others(false)),
            strangers: Table::of(MAX_STRANGERS, MAX_STRANGERS_RANGES, floors.others(true)),
            floors,
        }
    }

    /// Judges an envelope whose signature was checked, before it is known who its author is. Of an
    /// author that has a window the numbers are taken at once, so that whoever plays a message again
    /// is refused cheaply; `Ok(false)`: it has none yet, and [`ReplayWindows::take`] is to be called
    /// once it is known to be one whose messages are taken. `now` and
    /// `elapsed`: both clocks; `mark`: see [`Mark`].
    ///
    /// # Errors
    /// [`Stale`] when it must not be taken (again); then nothing was.
    pub fn admit(
        &mut self,
        author: PeerId,
        numbers: Numbers,
        (now, elapsed): (Timestamp, Duration),
        mark: &mut Mark,
    ) -> Result<bool, Stale> {
        let sent = numbers.sent;
        if now.since(sent) > MAX_AGE || sent.since(now) > MAX_AGE {
            return Err(Stale::Time);
        }
        if sent <= self.floors.of(&author) {
            return Err(Stale::BeforeStart);
        }
        for (table, stranger) in [(&mut self.members, false), (&mut self.strangers, true)] {
            if table.authors.contains_key(&author) {
                if !mark.covers((author, stranger), sent, (now, elapsed)) {
                    return Err(Stale::Ahead);
                }
                return table.take(author, numbers, now).map(|()| true);
            }
        }
        Ok(false)
    }

    /// Takes the numbers of an author that had no window when its envelope was admitted, now that it
    /// is known to be one whose messages are taken. `now` and `elapsed`: both clocks.
    ///
    /// # Errors
    /// As [`ReplayWindows::admit`].
    pub fn take(
        &mut self,
        (author, stranger): Who,
        numbers: Numbers,
        (now, elapsed): (Timestamp, Duration),
        mark: &mut Mark,
    ) -> Result<(), Stale> {
        // It may have changed sides while a message waited.
        let has = |table: &Table| table.authors.contains_key(&author);
        let stranger = has(&self.strangers) || stranger && !has(&self.members);
        if !mark.covers((author, stranger), numbers.sent, (now, elapsed)) {
            return Err(Stale::Ahead);
        }
        let table = if stranger {
            &mut self.strangers
        } else {
            &mut self.members
        };
        table.take(author, numbers, now)
    }

    /// What the next process must know when this one ends in order: of each author the latest time
    /// of which something was taken.
    #[must_use]
    pub fn floors(&self, now: Timestamp) -> Floors {
        let mut floors = self.floors.clone();
        for (table, stranger) in [(&self.members, false), (&self.strangers, true)] {
            floors.raise_others(stranger, table.forgotten);
            for (author, window) in &table.authors {
                floors.raise((*author, stranger), window.latest);
            }
        }
        floors.forget(now);
        floors
    }

    /// The same with room for so many authors of each kind.
    #[cfg(test)]
    pub(crate) fn with_room(mut self, most: usize) -> Self {
        (self.members.most, self.strangers.most) = (most, most);
        self
    }
}

#[cfg(test)]
mod tests;
