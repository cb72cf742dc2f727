//! Calls to other nodes: how fast, how often again, and when not at all.
//!
//! A node that calls others without measure is banned by them, and one that goes on calling a
//! destination that does not answer wastes both. So every request of this node passes
//! [`Outward::admit`], which keeps for each destination
//!
//! - a [`Breaker`]: after a few failures in a row nothing is sent for a while; then a few probes
//!   decide whether it closes again;
//! - a [`Pace`]: no more requests a second and under way than configured, fewer when the
//!   destination pushes back;
//!
//! and over all of them a ceiling of requests under way. [`Outward::watch`] is the watchdog: a
//! call whose end was never told gives its place back, so nothing that is forgotten can silence
//! the node. [`retry`] says when a call that failed is made again: [`Outward::again`] has a budget
//! for each destination, so that one of them cannot spend everybody's. [`owed`] remembers whom
//! something was not told.
//!
//! Pure: time is an argument (the clock's `elapsed`), randomness is seeded. Bounded by
//! [`MAX_DESTINATIONS`] and by the ceiling of calls.

mod breaker;
pub mod owed;
mod pace;
pub mod retry;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, hash::Hash, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use retry::RetryBudget;
use serde::Serialize;

pub use breaker::{Breaker, BreakerConfig, Change, State};
pub use pace::{Pace, PaceConfig};

/// Most calls under way that can be configured.
pub const MAX_CALLS: usize = 4_096;
/// Destinations that are remembered, about 200 bytes each. Beyond it the one that is of least
/// interest is forgotten: idle ones first, then the one whose breaker opens its doors soonest.
/// Twice [`MAX_CALLS`]: there is always one that nothing is under way to.
pub const MAX_DESTINATIONS: usize = 8_192;

/// Limits of calls to others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Of each destination's breaker.
    pub breaker: BreakerConfig,
    /// Of each destination's pace.
    pub pace: PaceConfig,
    /// Calls under way to all destinations together.
    pub under_way: usize,
    /// A call of which nothing was heard for this long is taken for lost: longer than every
    /// request's own deadline.
    pub lost_after: Duration,
    /// Calls to one destination that may be made again at once; then one for ten first ones.
    pub retries: u32,
}

/// A destination that pushed back so often in a row is not called again for the same reason: it may
/// mean that for good.
const MAX_PUSHED_BACK: u32 = 2;

/// Why a call is not made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// The destination failed too often.
    BreakerOpen,
    /// The destination was called as often as it may be.
    Pace,
    /// As many calls to the destination are under way as may be.
    DestinationBusy,
    /// As many calls are under way in total as may be.
    NodeBusy,
}

impl HeldBy {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::BreakerOpen,
        Self::Pace,
        Self::DestinationBusy,
        Self::NodeBusy,
    ];

    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Pace => "pace",
            Self::DestinationBusy => "destination_busy",
            Self::NodeBusy => "node_busy",
        }
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BreakerOpen => "the peer did not answer the calls before this one",
            Self::Pace => "the peer was called as often as it may be (`outward.requests_per_second`, or fewer at its own wish)",
            Self::DestinationBusy => "too many calls to the peer are under way (`outward.requests_per_peer`)",
            Self::NodeBusy => "too many calls are under way (`outward.requests`)",
        })
    }
}

/// A call is not made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Why.
    pub by: HeldBy,
    /// When to ask again, from now.
    pub retry_after: Duration,
}

/// Leave to make one call; handed back with what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

impl Outcome {
    /// Stable, bounded names of all of them.
    pub const NAMES: [&'static str; 5] = ["answered", "pushed_back", "failed", "cut", "abandoned"];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::PushedBack(_) => "pushed_back",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer, whatever it said.
    Answered,
    /// The destination asked to be called less, or not before this span is over. It is alive.
    PushedBack(Option<Duration>),
    /// No answer, or none that could be read.
    Failed,
    /// The connection ended under it. One connection takes all its calls with it, so what is cut
    /// off at one moment counts as one failure.
    Cut,
    /// The caller lost interest before anything was known.
    Abandoned,
}

#[derive(Debug)]
struct Call<K> {
    to: K,
    since: Duration,
    permit: breaker::Permit,
}

#[derive(Debug)]
struct Destination {
    breaker: Breaker,
    pace: Pace,
    budget: RetryBudget,
    /// Times it pushed back since it last answered.
    pushed_back: u32,
}

impl Destination {
    fn new(config: &Limits) -> Self {
        Self {
            breaker: Breaker::default(),
            pace: Pace::new(&config.pace),
            budget: RetryBudget::new(config.retries),
            pushed_back: 0,
        }
    }

    /// Whether a fresh one would do the same.
    fn is_idle(&self, config: &Limits, now: Duration) -> bool {
        self.breaker.is_new()
            && self.pace.is_idle(&config.pace, now)
            && self.budget.is_full()
            && self.pushed_back == 0
    }

    fn standing<K>(&self, to: K, now: Duration) -> Standing<K> {
        Standing {
            to,
            state: self.breaker.state(now),
            failures: self.breaker.failures(),
            under_way: self.pace.under_way(),
            pace: self.pace.per_second(),
            open_for: self.breaker.open_for(now),
        }
    }
}

/// How one destination stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing<K> {
    /// Whom it is about.
    pub to: K,
    /// Of its breaker.
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// Calls under way.
    pub under_way: usize,
    /// Requests a second it is called with at most.
    pub pace: f64,
    /// How long its breaker stays open from now.
    pub open_for: Option<Duration>,
}

/// Calls of one node to all others.
#[derive(Debug)]
pub struct Outward<K> {
    config: Limits,
    destinations: HashMap<K, Destination>,
    calls: HashMap<Ticket, Call<K>>,
    next: u64,
    rng: StdRng,
}

impl<K: Copy + Eq + Hash + Ord> Outward<K> {
    /// Nobody was called yet; `seed` is the jitter's.
    #[must_use]
    pub fn new(config: Limits, seed: u64) -> Self {
        Self {
            config,
            destinations: HashMap::new(),
            calls: HashMap::new(),
            next: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Other limits from now on; what is under way stays so.
    pub fn configure(&mut self, config: Limits) {
        self.config = config;
    }

    /// Leave to call `to` now.
    ///
    /// # Errors
    /// [`Held`] says why not, and when to ask again.
    pub fn admit(&mut self, to: K, now: Duration) -> Result<Ticket, Held> {
        if self.calls.len() >= self.config.under_way {
            return Err(Held {
                by: HeldBy::NodeBusy,
                retry_after: self.config.pace.interval(),
            });
        }
        self.make_room(to, now);
        let config = self.config;
        let new = || Destination::new(&config);
        let destination = self.destinations.entry(to).or_insert_with(new);
        // Asked first, because a probe is taken only when the pace lets it go out.
        destination.pace.check(&config.pace, now)?;
        let permit = destination
            .breaker
            .admit(&config.breaker, now)
            .map_err(|retry_after| Held {
                by: HeldBy::BreakerOpen,
                retry_after,
            })?;
        destination.pace.take(now);
        self.next = self.next.wrapping_add(1);
        let ticket = Ticket(self.next);
        let call = Call {
            to,
            since: now,
            permit,
        };
        self.calls.insert(ticket, call);
        Ok(ticket)
    }

    /// What became of a call, and whether that changed the breaker. A ticket counts once.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, now: Duration) -> Option<(K, Change)> {
        let call = self.calls.remove(&ticket)?;
        self.settle(&call, outcome, now)
    }

    /// Something is about to be said to `to` for the first time.
    pub fn first(&mut self, to: K, now: Duration) {
        self.make_room(to, now);
        let config = self.config;
        let new = || Destination::new(&config);
        self.destinations
            .entry(to)
            .or_insert_with(new)
            .budget
            .first();
    }

    /// Whether it may be said to `to` again; if so, that is paid.
    #[must_use]
    pub fn again(&mut self, to: &K) -> bool {
        let destination = self.destinations.get_mut(to);
        destination.is_some_and(|one| one.pushed_back < MAX_PUSHED_BACK && one.budget.again())
    }

    /// The watchdog: calls that nobody told the end of have failed. Returns whose they were, and
    /// what that changed.
    pub fn watch(&mut self, now: Duration) -> Vec<(K, Option<Change>)> {
        let lost_after = self.config.lost_after;
        let mut lost: Vec<Ticket> = self
            .calls
            .iter()
            .filter(|(_, call)| now.saturating_sub(call.since) >= lost_after)
            .map(|(ticket, _)| *ticket)
            .collect();
        lost.sort_unstable_by_key(|ticket| ticket.0);
        lost.into_iter()
            .filter_map(|ticket| self.calls.remove(&ticket))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|call| {
                let change = self.settle(&call, Outcome::Failed, now);
                (call.to, change.map(|(_, change)| change))
            })
            .collect()
    }

    /// Whether the end of this call is still to be told.
    #[must_use]
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.calls.contains_key(&ticket)
    }

    /// Calls under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.calls.len()
    }

    /// How one destination stands; `None`: nothing is remembered of it.
    #[must_use]
    pub fn standing(&self, to: &K, now: Duration) -> Option<Standing<K>> {
        let found = self.destinations.get(to)?;
        Some(found.standing(*to, now))
    }

    /// Every destination of which something is remembered, in order.
    #[must_use]
    pub fn standings(&self, now: Duration) -> Vec<Standing<K>> {
        let mut all: Vec<_> = self
            .destinations
            .iter()
            .map(|(to, destination)| destination.standing(*to, now))
            .collect();
        all.sort_by_key(|standing| standing.to);
        all
    }

    fn settle(&mut self, call: &Call<K>, outcome: Outcome, now: Duration) -> Option<(K, Change)> {
        let destination = self.destinations.get_mut(&call.to)?;
        destination.pace.ended(&self.config.pace, outcome, now);
        match outcome {
            Outcome::PushedBack(_) => {
                destination.pushed_back = destination.pushed_back.saturating_add(1);
            }
            Outcome::Answered => destination.pushed_back = 0,
            Outcome::Failed | Outcome::Cut | Outcome::Abandoned => {}
        }
        let config = &self.config.breaker;
        let breaker = &mut destination.breaker;
        let change = match outcome {
            // It answers: that is what the breaker wants to know.
            Outcome::Answered | Outcome::PushedBack(_) => breaker.succeeded(config, call.permit),
            Outcome::Cut if breaker.failed_lately(now) => {
                breaker.abandoned(call.permit);
                None
            }
            Outcome::Failed | Outcome::Cut => {
                breaker.failed(config, call.permit, now, &mut self.rng)
            }
            Outcome::Abandoned => {
                breaker.abandoned(call.permit);
                None
            }
        };
        change.map(|change| (call.to, change))
    }

    /// Forgets whom it costs least to forget, when one more would be too many.
    fn make_room(&mut self, to: K, now: Duration) {
        if self.destinations.len() < MAX_DESTINATIONS || self.destinations.contains_key(&to) {
            return;
        }
        let config = self.config;
        self.destinations
            .retain(|_, one| !one.is_idle(&config, now));
        if self.destinations.len() < MAX_DESTINATIONS {
            return;
        }
        // All have failed lately or are being called: those with nothing under way go first.
        let least = self
            .destinations
            .iter()
            .min_by_key(|(who, one)| {
                (
                    one.pace.under_way() > 0,
                    one.breaker.open_for(now).unwrap_or_default(),
                    **who,
                )
            })
            .map(|(who, _)| *who);
        if let Some(least) = least {
            self.destinations.remove(&least);
        }
    }
}
