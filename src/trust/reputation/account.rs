//! One party's account, and how it changes when only time passes.

use std::{cmp::Ordering, net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::ReputationConfig,
    messages::reputation::Standing,
    types::{Timestamp, TrustScore},
};

/// Longest ban, an operator's included: ten years. Whoever wants more repeats it.
pub const MAX_BAN: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRecord {
    /// Since when.
    pub since: Timestamp,
    /// Until when, exclusive.
    pub until: Timestamp,
    /// The rule, or the operator's words.
    pub reason: Arc<str>,
    /// Whether an operator imposed it.
    pub by_operator: bool,
    /// The address the last misdeed came from: several such bans ban the address.
    pub address: Option<IpAddr>,
}

/// What is remembered of a party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The score at `at`.
    pub score: TrustScore,
    /// When this was last changed.
    pub at: Timestamp,
    /// The ban, when there is one; it may be over and not settled yet.
    pub ban: Option<BanRecord>,
    /// The end of probation.
    pub probation_until: Option<Timestamp>,
    /// When a good connection was last credited.
    pub credited: Option<Timestamp>,
}

impl Account {
    pub(super) fn new(rules: &ReputationConfig, now: Timestamp) -> Self {
        Self {
            score: rules.neutral,
            at: now,
            ban: None,
            probation_until: None,
            credited: None,
        }
    }

    /// The account of a key that `subject` brings for the first time: a new key pays no debts and
    /// loses no merits. What a ban still punishes is the subject's to pay.
    pub(super) fn of_new_key(subject: &Self, now: Timestamp, rules: &ReputationConfig) -> Self {
        let subject = subject.at(now, rules);
        let score = match subject.ban {
            Some(_) => rules.probation_score,
            None => subject.score,
        };
        Self {
            score,
            ban: None,
            credited: None,
            ..subject
        }
    }

    /// The end of the ban, when there is one at `now`.
    #[must_use]
    pub fn banned_until(&self, now: Timestamp) -> Option<Timestamp> {
        let ban = self.ban.as_ref()?;
        (now < ban.until).then_some(ban.until)
    }

    /// The same account at `now`: the score decayed, an ended ban turned into probation.
    pub(super) fn at(&self, now: Timestamp, rules: &ReputationConfig) -> Self {
        let mut next = self.clone();
        if let Some(ban) = self.ban.as_ref().filter(|ban| ban.until <= now) {
            next.ban = None;
            next.score = rules.probation_score;
            next.at = ban.until;
            next.probation_until = Some(ban.until.after(rules.probation.0));
        }
        next.score = decayed(next.score, now.since(next.at), rules);
        next.at = next.at.max(now);
        next.probation_until = next.probation_until.filter(|until| now < *until);
        next
    }

    /// Where the party stands at `now`.
    pub(super) fn standing(&self, now: Timestamp, rules: &ReputationConfig) -> Standing {
        let settled = self.at(now, rules);
        Standing {
            score: settled.score,
            banned_until: settled.banned_until(now),
            probation: settled.probation_until.is_some(),
        }
    }

    /// Moves everything `shift` into the past: the wall clock went back by as much.
    pub(super) fn shift_back(&mut self, shift: Duration) {
        let back = |time: Timestamp| {
            let shift = u64::try_from(shift.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(time.millis().saturating_sub(shift))
        };
        self.at = back(self.at);
        self.probation_until = self.probation_until.map(back);
        self.credited = self.credited.map(back);
        if let Some(ban) = &mut self.ban {
            ban.since = back(ban.since);
            ban.until = back(ban.until);
        }
    }

    /// How far from being forgotten the account is; see [`Rank`].
    pub(super) fn rank(&self, rules: &ReputationConfig) -> Rank {
        let distance = (self.score.get() - rules.neutral.get()).abs();
        let at = Duration::from_millis(self.at.millis()).as_secs_f64();
        Rank {
            probation: self.probation_until.is_some(),
            distance: distance.log2() + at / half_life(rules),
        }
    }
}

/// The order in which accounts are forgotten.
///
/// All distances from neutral halve in the same time, so their order never changes while nothing
/// but time passes: `log2(distance) + at / half_life` is the same number at any later moment.
/// So one sorted set stays right without being touched. Probation is remembered longest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank {
    probation: bool,
    distance: f64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.probation
            .cmp(&other.probation)
            .then(self.distance.total_cmp(&other.distance))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

/// Seconds, never zero: a half-life of nothing would divide by it.
fn half_life(rules: &ReputationConfig) -> f64 {
    rules.half_life.0.as_secs_f64().max(0.001)
}

fn decayed(score: TrustScore, passed: Duration, rules: &ReputationConfig) -> TrustScore {
    if passed.is_zero() {
        return score;
    }
    let left = (-passed.as_secs_f64() / half_life(rules)).exp2();
    let neutral = rules.neutral.get();
    TrustScore::saturating(neutral + (score.get() - neutral) * left)
}
