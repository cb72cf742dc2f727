//! What the configuration says of topics, jobs and scores, ready to become facts.

use std::time::Duration;

use super::facts::TopicFacts;
use crate::{
    config::PolicyConfig,
    types::{Topic, TrustScore},
};

/// Hundredths in a whole score.
const HUNDREDTHS: f64 = 100.0;
/// So that 0.29, which no binary fraction is, counts as 29 hundredths from below and from above.
const SLACK: f64 = 1e-9;

/// `[policy]` of the configuration, and the limit of jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    member_topics: Vec<String>,
    unverified_topics: Vec<Topic>,
    restricted_topics: Vec<String>,
    topics: Vec<(String, u8, bool)>,
    pub(super) members_run_jobs: bool,
    pub(super) max_cpu_s: u64,
    pub(super) connect_min_trust: u8,
    pub(super) messages_min_trust: u8,
}

impl Settings {
    /// Those of a configuration; `max_cpu` is `sandbox.max_cpu_time`.
    #[must_use]
    pub fn new(policy: &PolicyConfig, max_cpu: Duration) -> Self {
        let topics = policy.topics.iter();
        Self {
            member_topics: policy.member_topics.clone(),
            unverified_topics: policy.unverified_topics.clone(),
            restricted_topics: policy.restricted_topics.clone(),
            topics: topics
                .map(|rule| {
                    let least = rounded_up(rule.min_trust);
                    (rule.pattern.clone(), least, rule.sensitive)
                })
                .collect(),
            members_run_jobs: policy.members_run_jobs,
            max_cpu_s: max_cpu.as_secs(),
            connect_min_trust: rounded_up(policy.connect_min_score),
            messages_min_trust: rounded_up(policy.messages_min_score),
        }
    }

    /// What is known of a topic.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> TopicFacts {
        let any = |patterns: &[String]| patterns.iter().any(|one| matches(one, topic));
        let rule = self.topics.iter().find(|rule| matches(&rule.0, topic));
        TopicFacts {
            name: topic.clone(),
            members: any(&self.member_topics),
            open: self.unverified_topics.contains(topic),
            restricted: any(&self.restricted_topics),
            min_trust: rule.map_or(0, |rule| rule.1),
            sensitive: rule.is_some_and(|rule| rule.2),
        }
    }
}

/// A score in hundredths, rounded down: 0 to 100. A score is never NaN.
#[must_use]
pub(super) fn rounded_down(score: TrustScore) -> u8 {
    whole((score.get() * HUNDREDTHS + SLACK).floor())
}

/// What is asked for, in hundredths, rounded up: never less than what was asked.
fn rounded_up(score: TrustScore) -> u8 {
    whole((score.get() * HUNDREDTHS - SLACK).ceil())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 just before; NaN, which cannot come here, would become 0"
)]
fn whole(hundredths: f64) -> u8 {
    hundredths.clamp(0.0, HUNDREDTHS) as u8
}

/// `*` matches all, `acme/*` what begins with `acme/`, anything else itself. A `*` elsewhere
/// matches nothing, since no topic contains one.
fn matches(pattern: &str, topic: &Topic) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) if prefix.ends_with('/') => topic
            .as_str()
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty()),
        _ => pattern == topic.as_str(),
    }
}
