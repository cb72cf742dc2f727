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
/// Members whose clocks are ahead and who have marks of their own. More are refused until one of them
/// was quiet for [`FORGET`].
const MAX_AHEAD: usize = 1_024;
/// The same of those without a credential: their keys cost nothing, and they take no member's place.
const MAX_AHEAD_STRANGERS: usize = 256;
/// How long a mark of an author's own is moved on after its last message. Longer than [`MAX_AGE`]:
/// then everybody's mark has overtaken what was taken under it.
const FORGET: Duration = Duration::from_secs(600);
/// Authors of one kind whose floors are kept over a restart: all that have windows, twice.
const MAX_FLOORS: usize = 40_000;

/// An author, and whether it is one without a credential.
pub type Who = (PeerId, bool);

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
    pub own: Vec<(Who, Timestamp)>,
    /// Authors that need none of their own any more.
    pub gone: Vec<Who>,
}

/// Up to which time of sending the disk knows.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    until: Timestamp,
    members: HashMap<PeerId, Ahead>,
    strangers: HashMap<PeerId, Ahead>,
    writing: Option<Writing>,
    next: Duration,
    closed: bool,
}

impl Mark {
    /// Whether what an author sent at this time may be taken. If not, its clock is ahead, and it
    /// gets a mark of its own with the next write: to be asked only of authors whose messages are
    /// taken, or made-up ones would take all there are.
    pub fn covers(
        &mut self,
        (author, stranger): Who,
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
        let (ahead, most) = if stranger {
            (&mut self.strangers, MAX_AHEAD_STRANGERS)
        } else {
            (&mut self.members, MAX_AHEAD)
        };
        if let Some(own) = ahead.get_mut(&author) {
            own.by = own.by.max(by);
            own.heard = elapsed;
            return sent <= own.until;
        }
        if ahead.len() < most {
            let own = Ahead {
                by,
                heard: elapsed,
                until: Timestamp::default(),
            };
            ahead.insert(author, own);
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
        let everybody = self.until;
        let quiet = |own: &Ahead| elapsed.saturating_sub(own.heard) > FORGET;
        let mut writing = Writing {
            until,
            ..Writing::default()
        };
        for (ahead, stranger) in [(&mut self.members, false), (&mut self.strangers, true)] {
            // What everybody's mark has not overtaken, because the clock stepped back, stays.
            let gone = ahead.extract_if(|_, own| quiet(own) && own.until <= everybody);
            let gone = gone.map(|(author, _)| (author, stranger));
            writing.gone.extend(gone);
            for (author, own) in ahead.iter().filter(|(_, own)| !quiet(own)) {
                let until = until.after(own.by).max(own.until);
                writing.own.push(((*author, stranger), until));
            }
        }
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
        for ((author, stranger), until) in writing.own {
            let ahead = if stranger {
                &mut self.strangers
            } else {
                &mut self.members
            };
            if let Some(own) = ahead.get_mut(&author) {
                own.until = own.until.max(until);
            }
        }
    }

    /// Nothing is taken any more: what was is written as floors.
    pub fn close(&mut self) {
        self.closed = true;
    }
}

/// What was taken before this process began of one kind of authors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Side {
    /// Of authors that are not among these, everything sent up to this time is stale.
    others: Timestamp,
    authors: HashMap<PeerId, Timestamp>,
}

/// What was taken before this process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors {
    all: Timestamp,
    members: Side,
    /// Apart: what is given up of those whose keys cost nothing closes nobody else's messages.
    strangers: Side,
}

impl Floors {
    fn side(&self, stranger: bool) -> &Side {
        if stranger {
            &self.strangers
        } else {
            &self.members
        }
    }

    fn side_mut(&mut self, stranger: bool) -> &mut Side {
        if stranger {
            &mut self.strangers
        } else {
            &mut self.members
        }
    }

    /// Everything an author sent up to this time is stale.
    #[must_use]
    pub fn of(&self, author: &PeerId) -> Timestamp {
        let sides = [&self.members, &self.strangers].into_iter();
        let own = sides.filter_map(|side| side.authors.get(author).copied());
        own.max().unwrap_or_default().max(self.all)
    }

    /// That for everybody.
    #[must_use]
    pub fn all(&self) -> Timestamp {
        self.all
    }

    /// That for authors of one kind of whom nothing else is known.
    #[must_use]
    pub fn others(&self, stranger: bool) -> Timestamp {
        self.side(stranger).others
    }

    /// Those of single authors.
    pub fn authors(&self) -> impl Iterator<Item = (Who, Timestamp)> {
        let sides = [(&self.members, false), (&self.strangers, true)];
        sides.into_iter().flat_map(|(side, stranger)| {
            let authors = side.authors.iter();
            authors.map(move |(author, floor)| ((*author, stranger), *floor))
        })
    }

    /// Raises an author's floor; when there are too many, that of all others of its kind.
    pub fn raise(&mut self, (author, stranger): Who, floor: Timestamp) {
        let side = self.side_mut(stranger);
        if side.authors.len() >= MAX_FLOORS && !side.authors.contains_key(&author) {
            side.others = side.others.max(floor);
            return;
        }
        let own = side.authors.entry(author).or_default();
        *own = floor.max(*own);
    }

    /// Raises everybody's floor.
    pub fn raise_all(&mut self, floor: Timestamp) {
        self.all = self.all.max(floor);
    }

    /// Raises the floor of authors of one kind of whom nothing else is known.
    pub fn raise_others(&mut self, stranger: bool, floor: Timestamp) {
        let side = self.side_mut(stranger);
        side.others = side.others.max(floor);
    }

    /// Lowers every floor to the latest time of which something can be taken within [`RESERVE`]:
    /// one behind it was written by a clock that was far ahead, and would make this node deaf until
    /// then. `true`: there was such a one.
    pub fn cap(&mut self, now: Timestamp) -> bool {
        let latest = now.after(MAX_AGE).after(RESERVE);
        let mut capped = false;
        let mut lower = |floor: &mut Timestamp| {
            capped |= *floor > latest;
            *floor = (*floor).min(latest);
        };
        lower(&mut self.all);
        for side in [&mut self.members, &mut self.strangers] {
            lower(&mut side.others);
            side.authors.values_mut().for_each(&mut lower);
        }
        capped
    }

    /// Forgets the floors that the bound on age makes superfluous. They count for all others of their
    /// kind from now on, or a clock that is ahead now and steps back later would open them.
    pub fn forget(&mut self, now: Timestamp) {
        let all = self.all;
        for side in [&mut self.members, &mut self.strangers] {
            let others = &mut side.others;
            side.authors.retain(|_, floor| {
                // Twice: what is dropped closes nothing that could be taken now.
                let kept = *floor > all && now.since(*floor) <= MAX_AGE.saturating_mul(2);
                if !kept {
                    *others = (*others).max(*floor);
                }
                kept
            });
        }
    }
}
