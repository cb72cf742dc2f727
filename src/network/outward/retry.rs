//! When a call that failed is made again.
//!
//! Exponential backoff with full jitter (M. Brooker, *Exponential Backoff And Jitter*, 2015)
//! inside a deadline that covers all attempts; a destination's own "not before" is kept to. A
//! [`RetryBudget`] over all calls bounds what retries add when everything fails at once (Google,
//! *Site Reliability Engineering*, 21; Finagle's `RetryBudget`).

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// Doublings beyond which any sensible wait has passed any sensible cap.
const MAX_DOUBLINGS: u32 = 20;

/// How often and how long a call is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// Longest wait before the second attempt; doubles for each one more.
    pub initial: Duration,
    /// Longest wait before any attempt.
    pub max: Duration,
    /// From the first attempt to the last answer: no attempt begins after it.
    pub deadline: Duration,
}

/// The attempts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    policy: RetryPolicy,
    began: Duration,
    made: u32,
}

impl Attempts {
    /// The first attempt begins now.
    #[must_use]
    pub fn begin(policy: RetryPolicy, now: Duration) -> Self {
        Self {
            policy,
            began: now,
            made: 1,
        }
    }

    /// Attempts so far.
    #[must_use]
    pub fn made(&self) -> u32 {
        self.made
    }

    /// What is left of the deadline.
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        let spent = now.saturating_sub(self.began);
        self.policy.deadline.saturating_sub(spent)
    }

    /// The last attempt failed: how long to wait before the next; `None`: give up. `not_before`
    /// is the destination's wish.
    pub fn again(
        &mut self,
        now: Duration,
        not_before: Option<Duration>,
        rng: &mut StdRng,
    ) -> Option<Duration> {
        if self.made >= self.policy.attempts.max(1) {
            return None;
        }
        let doublings = self.made.saturating_sub(1).min(MAX_DOUBLINGS);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let full = self
            .policy
            .initial
            .saturating_mul(factor)
            .min(self.policy.max);
        let jittered = full.mul_f64(rng.random_range(0.0..=1.0));
        let wait = jittered.saturating_add(not_before.unwrap_or_default());
        if wait >= self.left(now) {
            return None;
        }
        self.made = self.made.saturating_add(1);
        Some(wait)
    }
}

/// What retries may add to the calls of a node, in tenths of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    tenths: u32,
    most: u32,
}

/// What a call costs that is made again.
const RETRY: u32 = 10;
/// What a first call adds: a tenth of a retry.
const FIRST: u32 = 1;

impl RetryBudget {
    /// As many retries at once as `reserve`; then one for ten first calls.
    #[must_use]
    pub fn new(reserve: u32) -> Self {
        let most = reserve.saturating_mul(RETRY);
        Self { tenths: most, most }
    }

    /// Whether a fresh one would allow no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.tenths >= self.most
    }

    /// A call is made for the first time.
    pub fn first(&mut self) {
        self.tenths = self.tenths.saturating_add(FIRST).min(self.most);
    }

    /// Whether one may be made again; if so, it is paid.
    #[must_use]
    pub fn again(&mut self) -> bool {
        if self.tenths < RETRY {
            return false;
        }
        self.tenths = self.tenths.saturating_sub(RETRY);
        true
    }
}
