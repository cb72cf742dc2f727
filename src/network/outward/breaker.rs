//! A circuit breaker for one destination.
//!
//! *Closed*: calls go out; [`BreakerConfig::failures`] in a row within [`BreakerConfig::window`]
//! open it. *Open*: nothing goes out for a span that doubles with each time it fails to close,
//! with jitter, so that many nodes do not come back in step. *Half-open*: at most
//! [`BreakerConfig::probes`] calls at once; so many successes close it, one failure opens it
//! again.
//!
//! A call counts only for the state in which it began: a failure that comes late, from before the
//! breaker opened, does not open it again, and a late success does not close it.
//! (M. Nygard, *Release It!*, 2nd ed., 5.2; the states are those of Hystrix and Polly.)

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// What is cut off within this span was cut off at once.
const MOMENT: Duration = Duration::from_secs(1);
/// Doublings beyond which any sensible span has passed any sensible cap.
const MAX_DOUBLINGS: u32 = 20;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// The row begins anew when the failure before is longer ago than this.
    pub window: Duration,
    /// For how long it opens the first time.
    pub open: Duration,
    /// For how long at most.
    pub open_max: Duration,
    /// Probes under way at once while it is half open; at least 1.
    pub probes: u32,
    /// Probes that must succeed before it closes; at least 1.
    pub successes: u32,
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Lets everything out.
    #[default]
    Closed,
    /// Lets nothing out.
    Open,
    /// Lets probes out.
    HalfOpen,
}

impl State {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker went from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened, for this long.
    Opened(Duration),
    /// It closed.
    Closed,
}

/// The state in which a call began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Inner {
    #[default]
    Closed,
    /// Half open from `until` on.
    Open {
        until: Duration,
    },
    HalfOpen {
        under_way: u32,
        succeeded: u32,
    },
}

/// One destination's breaker.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    inner: Inner,
    /// Failures in a row, while closed.
    failures: u32,
    last_failure: Option<Duration>,
    /// Times it opened since it was last closed.
    opened: u32,
    /// Changes with the state.
    epoch: u64,
}

impl Breaker {
    /// Leave for a call.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn admit(&mut self, config: &BreakerConfig, now: Duration) -> Result<Permit, Duration> {
        if let Inner::Open { until } = self.inner {
            if now < until {
                return Err(until.saturating_sub(now));
            }
            self.turn(Inner::HalfOpen {
                under_way: 0,
                succeeded: 0,
            });
        }
        if let Inner::HalfOpen { under_way, .. } = &mut self.inner {
            if *under_way >= config.probes.max(1) {
                return Err(config.open);
            }
            *under_way = under_way.saturating_add(1);
        }
        Ok(Permit(self.epoch))
    }

    /// A call was answered.
    pub fn succeeded(&mut self, config: &BreakerConfig, permit: Permit) -> Option<Change> {
        if permit.0 != self.epoch {
            return None;
        }
        match &mut self.inner {
            Inner::Closed => {
                self.failures = 0;
                self.last_failure = None;
                None
            }
            Inner::Open { .. } => None,
            Inner::HalfOpen {
                under_way,
                succeeded,
            } => {
                *under_way = under_way.saturating_sub(1);
                *succeeded = succeeded.saturating_add(1);
                if *succeeded < config.successes.max(1) {
                    return None;
                }
                self.turn(Inner::Closed);
                self.failures = 0;
                self.last_failure = None;
                self.opened = 0;
                Some(Change::Closed)
            }
        }
    }

    /// A call was not answered.
    pub fn failed(
        &mut self,
        config: &BreakerConfig,
        permit: Permit,
        now: Duration,
        rng: &mut StdRng,
    ) -> Option<Change> {
        if permit.0 != self.epoch {
            return None;
        }
        match self.inner {
            Inner::Open { .. } => None,
            Inner::HalfOpen { .. } => Some(self.open(config, now, rng)),
            Inner::Closed => {
                let stale = self
                    .last_failure
                    .is_some_and(|last| now.saturating_sub(last) > config.window);
                self.failures = if stale {
                    1
                } else {
                    self.failures.saturating_add(1)
                };
                self.last_failure = Some(now);
                (self.failures >= config.failures.max(1)).then(|| self.open(config, now, rng))
            }
        }
    }

    /// Whether a failure counted at this very moment, in a closed breaker.
    #[must_use]
    pub fn failed_lately(&self, now: Duration) -> bool {
        let just = |last: Duration| now.saturating_sub(last) < MOMENT;
        self.inner == Inner::Closed && self.last_failure.is_some_and(just)
    }

    /// A call ended without saying anything about the destination.
    pub fn abandoned(&mut self, permit: Permit) {
        if permit.0 == self.epoch
            && let Inner::HalfOpen { under_way, .. } = &mut self.inner
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    /// What it does now.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        match self.inner {
            Inner::Closed => State::Closed,
            Inner::Open { until } if now < until => State::Open,
            Inner::Open { .. } | Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// How long it stays open.
    #[must_use]
    pub fn open_for(&self, now: Duration) -> Option<Duration> {
        match self.inner {
            Inner::Open { until } if now < until => Some(until.saturating_sub(now)),
            _ => None,
        }
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether a fresh one would do the same.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.inner == Inner::Closed && self.failures == 0
    }

    fn open(&mut self, config: &BreakerConfig, now: Duration, rng: &mut StdRng) -> Change {
        let factor = 1_u32
            .checked_shl(self.opened.min(MAX_DOUBLINGS))
            .unwrap_or(u32::MAX);
        let full = config.open.saturating_mul(factor).min(config.open_max);
        let span = full.mul_f64(rng.random_range(0.5..=1.0));
        self.opened = self.opened.saturating_add(1);
        self.turn(Inner::Open {
            until: now.saturating_add(span),
        });
        Change::Opened(span)
    }

    fn turn(&mut self, inner: Inner) {
        self.inner = inner;
        self.epoch = self.epoch.wrapping_add(1);
    }
}
