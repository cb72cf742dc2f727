//! How fast one destination is called: the node limits itself, so that others need not.
//!
//! Requests a second by virtual scheduling (GCRA, ITU-T I.371): each call moves a time forward by
//! the interval between two; a call is early when that time is further ahead than the burst
//! allows. The pace follows the destination by additive increase and multiplicative decrease
//! (Chiu and Jain 1989): it halves when the destination pushes back, and grows back by a tenth of
//! the configured pace when it answers, either at most once in [`PaceConfig::settle`]. And so many
//! calls at most are under way at once.

use std::time::Duration;

use super::{Held, HeldBy, Outcome};

/// The slowest pace, as a part of the configured one: even a destination that always pushes back
/// is asked now and then, or nobody would learn that it recovered.
const SLOWEST: f64 = 1.0 / 64.0;
/// What an answer regains, as a part of the configured pace.
const REGAINED: f64 = 0.1;
/// The longest pause that a destination can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Limits of the calls to one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceConfig {
    /// Calls a second; above 0.
    pub per_second: f64,
    /// Calls at once after a pause; at least 1.
    pub burst: u32,
    /// Calls under way at once; at least 1.
    pub under_way: usize,
    /// How long a change of pace is given to show.
    pub settle: Duration,
}

impl PaceConfig {
    /// Time between two calls at full pace.
    #[must_use]
    pub fn interval(&self) -> Duration {
        interval(self.per_second)
    }
}

fn interval(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(LONGEST_PAUSE)
}

/// One destination's pace.
#[derive(Debug, Clone)]
pub struct Pace {
    per_second: f64,
    /// When the calls so far would be over at an even pace: GCRA's theoretical arrival time.
    until: Duration,
    /// Nothing goes out before: the destination said so.
    paused_until: Duration,
    /// The last change of pace.
    changed: Duration,
    under_way: usize,
}

impl Pace {
    /// The full pace.
    #[must_use]
    pub fn new(config: &PaceConfig) -> Self {
        Self {
            per_second: config.per_second,
            until: Duration::ZERO,
            paused_until: Duration::ZERO,
            changed: Duration::ZERO,
            under_way: 0,
        }
    }

    /// Whether a call may go out now; takes nothing.
    ///
    /// # Errors
    /// [`Held`] says why not, and when to ask again.
    pub fn check(&mut self, config: &PaceConfig, now: Duration) -> Result<(), Held> {
        if self.under_way >= config.under_way.max(1) {
            return Err(Held {
                by: HeldBy::DestinationBusy,
                retry_after: self.interval(),
            });
        }
        // The configuration may have changed.
        self.per_second = self.per_second.min(config.per_second);
        let ahead = self
            .interval()
            .saturating_mul(config.burst.max(1).saturating_sub(1));
        let free = self.until.saturating_sub(ahead).max(self.paused_until);
        if now < free {
            return Err(Held {
                by: HeldBy::Pace,
                retry_after: free.saturating_sub(now),
            });
        }
        Ok(())
    }

    /// A call goes out; [`Pace::check`] was asked.
    pub fn take(&mut self, now: Duration) {
        self.until = self.until.max(now).saturating_add(self.interval());
        self.under_way = self.under_way.saturating_add(1);
    }

    /// A call has its end.
    pub fn ended(&mut self, config: &PaceConfig, outcome: Outcome, now: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        // What happens at once happened for one reason: it counts once.
        let settled = now.saturating_sub(self.changed) >= config.settle;
        let full = config.per_second;
        match outcome {
            Outcome::PushedBack(pause) => {
                if settled || self.per_second >= full {
                    self.per_second = (self.per_second / 2.0).max(full * SLOWEST);
                    self.changed = now;
                }
                let pause = pause.unwrap_or_default().min(LONGEST_PAUSE);
                self.paused_until = self.paused_until.max(now.saturating_add(pause));
            }
            Outcome::Answered if settled && self.per_second < full => {
                self.per_second = (self.per_second + full * REGAINED).min(full);
                self.changed = now;
            }
            Outcome::Answered | Outcome::Failed | Outcome::Cut | Outcome::Abandoned => {}
        }
    }

    /// Calls under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Calls a second at most, as of the last call.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Whether a fresh one would do the same.
    #[must_use]
    pub fn is_idle(&self, config: &PaceConfig, now: Duration) -> bool {
        self.under_way == 0
            && now >= self.until
            && now >= self.paused_until
            && self.per_second >= config.per_second
    }

    fn interval(&self) -> Duration {
        interval(self.per_second)
    }
}
