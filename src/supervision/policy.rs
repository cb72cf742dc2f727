//! Restart policy, pure: how many faults are tolerated in which time, and how long to wait.
//!
//! Invariant: the window is at least twice the summed backoff. Were it shorter, a crash loop
//! would wait its budget back before it could spend it, and would never escalate.

use std::{collections::VecDeque, time::Duration};

use thiserror::Error;

use crate::config::RestartConfig;

/// Least part of a backoff that jitter leaves, so that a restart is never immediate by chance.
const JITTER_FLOOR: f64 = 0.5;
/// Most faults a window may tolerate: each is remembered with its time.
const MAX_FAULTS: u32 = 10_000;

/// A valid restart policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    faults: u32,
    window: Duration,
    initial: Duration,
    max: Duration,
    mailbox: usize,
    stall: Duration,
}

/// Why a configuration is no restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The budget could never be spent.
    #[error(
        "the window of {window:?} is too short: {faults} restarts wait up to {backoff:?}, so a \
         crash loop would never escalate; set `window` to at least {least:?} or less backoff"
    )]
    WindowTooShort {
        /// The configured window.
        window: Duration,
        /// The configured number of faults.
        faults: u32,
        /// The summed backoff.
        backoff: Duration,
        /// The shortest window that works.
        least: Duration,
    },
    /// More faults than are remembered.
    #[error("`faults` is at most {MAX_FAULTS}")]
    TooManyFaults,
    /// A mailbox that holds nothing.
    #[error("`mailbox` must be at least 1")]
    NoMailbox,
    /// A stall limit of nothing.
    #[error("`stall` must be longer than zero (10s or more, or a busy machine gives false alarms)")]
    NoStall,
    /// The cap lies below the first backoff.
    #[error("`backoff_max` must not be shorter than `backoff_initial`")]
    CapBelowInitial,
}

impl RestartPolicy {
    /// Checks a configured policy.
    ///
    /// # Errors
    /// As [`PolicyError`] says.
    pub fn try_new(config: &RestartConfig) -> Result<Self, PolicyError> {
        let policy = Self::unchecked(config);
        if config.faults > MAX_FAULTS {
            return Err(PolicyError::TooManyFaults);
        }
        if config.mailbox == 0 {
            return Err(PolicyError::NoMailbox);
        }
        if config.stall.0.is_zero() {
            return Err(PolicyError::NoStall);
        }
        if policy.max < policy.initial {
            return Err(PolicyError::CapBelowInitial);
        }
        let backoff = policy.summed_backoff();
        let least = backoff.saturating_mul(2);
        if policy.window < least || policy.window.is_zero() {
            return Err(PolicyError::WindowTooShort {
                window: policy.window,
                faults: policy.faults,
                backoff,
                least: least.max(Duration::from_secs(1)),
            });
        }
        Ok(policy)
    }

    /// The nearest valid policy: what a node falls back to when a configuration reached it
    /// unchecked. A longer window escalates sooner, so this errs toward stopping.
    #[must_use]
    pub fn nearest(config: &RestartConfig) -> Self {
        let mut policy = Self::unchecked(config);
        policy.faults = policy.faults.min(MAX_FAULTS);
        policy.mailbox = policy.mailbox.max(1);
        if policy.stall.is_zero() {
            policy.stall = RestartConfig::default().stall.0;
        }
        policy.max = policy.max.max(policy.initial);
        let least = policy.summed_backoff().saturating_mul(2);
        policy.window = policy.window.max(least).max(Duration::from_secs(1));
        policy
    }

    fn unchecked(config: &RestartConfig) -> Self {
        Self {
            faults: config.faults,
            window: config.window.0,
            initial: config.backoff_initial.0,
            max: config.backoff_max.0,
            mailbox: config.mailbox,
            stall: config.stall.0,
        }
    }

    /// Messages that may wait in the mailbox.
    #[must_use]
    pub fn mailbox(&self) -> usize {
        self.mailbox
    }

    /// Without progress for this long the actor counts as hung.
    #[must_use]
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// The wait before the restart after the `nth` fault in the window, counted from 1, before
    /// jitter.
    #[must_use]
    pub fn backoff(&self, nth: u32) -> Duration {
        let doublings = nth.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }

    /// The longest a crash loop waits in total before it escalates.
    fn summed_backoff(&self) -> Duration {
        (1..=self.faults.min(MAX_FAULTS))
            .map(|nth| self.backoff(nth))
            .fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Restart after this wait.
    Restart(Duration),
    /// The budget is spent.
    Escalate,
}

/// The faults of one actor within the sliding window.
#[derive(Debug, Clone)]
pub struct Intensity {
    policy: RestartPolicy,
    recent: VecDeque<Duration>,
}

impl Intensity {
    /// No fault so far.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            recent: VecDeque::new(),
        }
    }

    /// Counts a fault at `now` (monotonic) and judges it. `jitter` is a number from 0 to 1.
    pub fn record(&mut self, now: Duration, jitter: f64) -> Verdict {
        self.forget_before(now);
        self.recent.push_back(now);
        let count = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if count > self.policy.faults {
            return Verdict::Escalate;
        }
        let share = JITTER_FLOOR + (1.0 - JITTER_FLOOR) * jitter.clamp(0.0, 1.0);
        Verdict::Restart(self.policy.backoff(count).mul_f64(share))
    }

    fn forget_before(&mut self, now: Duration) {
        while let Some(first) = self.recent.front() {
            if now.saturating_sub(*first) < self.policy.window {
                break;
            }
            self.recent.pop_front();
        }
    }
}

/// Who is restarted along with an actor that had a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// Every actor spawned after it, in order, each once its predecessor runs again.
    RestForOne,
}
