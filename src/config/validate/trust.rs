//! `[reputation]` and `[policy]`: scores, bans, who may do what.

use super::check::Check;
use crate::{
    config::{Config, clip},
    types::{Topic, TrustScore},
};

pub(super) fn reputation(check: &mut Check, config: &Config) {
    let rep = &config.reputation;
    check.span("reputation.half_life", rep.half_life);
    check.span(
        "reputation.good_connection_interval",
        rep.good_connection_interval,
    );
    check.span("reputation.ban", rep.ban);
    check.span("reputation.probation", rep.probation);
    let above = |check: &mut Check, key: &str, value: TrustScore, why: &str| {
        check.relation(
            value > rep.ban_below,
            &[key, "reputation.ban_below"],
            why,
            &format!(
                "write a score above reputation.ban_below ({})",
                rep.ban_below.get()
            ),
        );
    };
    above(
        check,
        "reputation.probation_score",
        rep.probation_score,
        "is not above reputation.ban_below: a ban would never end",
    );
    above(
        check,
        "reputation.neutral",
        rep.neutral,
        "is not above reputation.ban_below: everyone would be banned from the start",
    );
    for (key, value) in [
        ("reputation.bad_credential", rep.bad_credential),
        ("reputation.handshake_abuse", rep.handshake_abuse),
        ("reputation.invalid_message", rep.invalid_message),
    ] {
        check.that(
            value > TrustScore::ZERO,
            key,
            "is 0: the misdeed would cost nothing",
            "write a score above 0",
        );
    }
    check.number(
        "reputation.banned_peers_per_address",
        rep.banned_peers_per_address,
        1,
        u64::from(u32::MAX),
    );
    check.table("reputation.tracked_parties", rep.tracked_parties);
}

pub(super) fn policy(check: &mut Check, config: &Config) {
    let policy = &config.policy;
    check.list("policy.member_topics", policy.member_topics.len());
    check.list("policy.unverified_topics", policy.unverified_topics.len());
    check.list("policy.restricted_topics", policy.restricted_topics.len());
    check.list("policy.topics", policy.topics.len());
    check.span("policy.quarantine", policy.quarantine);
    patterns(check, "policy.member_topics", &policy.member_topics);
    patterns(check, "policy.restricted_topics", &policy.restricted_topics);
    for (index, rule) in policy.topics.iter().enumerate() {
        pattern(check, &format!("policy.topics[{index}]"), &rule.pattern);
    }
    if !policy.shadow_dir.as_os_str().is_empty() && policy.shadow_dir == policy.dir {
        check.fail(
            "policy.shadow_dir",
            "is the folder of policy.dir",
            "name the folder of the policies to try, or leave it empty",
        );
    }
    if policy.connect_min_score > policy.messages_min_score {
        check.fail(
            "policy.connect_min_score",
            format!(
                "{} is above policy.messages_min_score, which is {}",
                policy.connect_min_score.get(),
                policy.messages_min_score.get()
            ),
            "lower it: between the two a peer is quarantined",
        );
        check.related(["policy.messages_min_score"]);
    }
    check.relation(
        policy.messages_min_score <= config.reputation.neutral,
        &["policy.messages_min_score", "reputation.neutral"],
        "is above reputation.neutral: no new peer could send anything",
        "lower it to reputation.neutral or below",
    );
}

fn patterns(check: &mut Check, key: &str, patterns: &[String]) {
    for (index, one) in patterns.iter().enumerate() {
        pattern(check, &format!("{key}[{index}]"), one);
    }
}

fn pattern(check: &mut Check, key: &str, pattern: &str) {
    let plain = pattern.strip_suffix("/*").unwrap_or(pattern);
    if pattern != "*" && Topic::try_new(plain).is_err() {
        check.fail(
            key,
            format!("`{}` is no pattern of topics", clip(pattern)),
            "write \"*\", a prefix such as \"acme/*\", or a topic of A-Z a-z 0-9 . _ - /",
        );
    }
}
