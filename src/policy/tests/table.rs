//! The decision table: action x condition, every cell, verdict and rule.

use super::*;
use crate::identity::status::Why;

use Verdict::{Allow, Deny, Quarantine};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Unknown,
    SelfSigned,
    Verified,
    Expired,
    Revoked,
    Banned,
    Quarantined,
    StaleList,
    Classical,
}

impl Condition {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::SelfSigned,
        Self::Verified,
        Self::Expired,
        Self::Revoked,
        Self::Banned,
        Self::Quarantined,
        Self::StaleList,
        Self::Classical,
    ];

    /// `Classical` is a member on a channel without ML-KEM; all others have one with it.
    fn case(self, action: Action) -> Case {
        let tier = match self {
            Self::Unknown => Tier::Unverified,
            Self::SelfSigned => Tier::SelfSigned,
            _ => Tier::Member,
        };
        let mut case = Case::new(action, tier);
        case.security = Some(HYBRID);
        match self {
            Self::Unknown | Self::SelfSigned | Self::Verified => {}
            Self::Expired => {
                if let Some(identity) = &mut case.identity {
                    identity.expires = NOW;
                }
            }
            Self::Revoked => case.status = Status::Revoked(Why::Listed),
            Self::Banned => {
                case.standing = Some(Standing {
                    banned_until: Some(Timestamp::from_secs(NOW.secs() + 1)),
                    ..standing(0.5)
                });
            }
            Self::Quarantined => case.quarantined = true,
            Self::StaleList => case.status = Status::Stale,
            Self::Classical => case.security = Some(CLASSICAL),
        }
        case
    }
}

/// What the built-in policies say, spelled out.
fn expected(action: Action, condition: Condition) -> (Verdict, &'static str) {
    use Action as A;
    use Condition as C;
    match (condition, action) {
        (C::Expired, _) => (Deny(DenyReason::Expired), "identity.expired"),
        (C::Revoked, _) => (Deny(DenyReason::Revoked), "identity.revoked"),
        (C::Banned, _) => (Deny(DenyReason::Banned), "reputation.banned"),
        (C::StaleList, A::RunJob | A::Administer) => {
            (Deny(DenyReason::StatusStale), "identity.status_stale")
        }
        (C::Quarantined, A::Publish | A::Subscribe) => {
            (Deny(DenyReason::Quarantined), "quarantine.topics")
        }
        (C::Quarantined, A::RunJob) => (Deny(DenyReason::Quarantined), "quarantine.jobs"),
        (C::Quarantined, A::Administer) => (Deny(DenyReason::Quarantined), "quarantine.administer"),
        (_, A::Administer) => (Deny(DenyReason::Administration), "default.deny"),
        (C::Unknown, A::Connect) => (Allow, "connect.unverified"),
        (C::SelfSigned, A::Connect) => (Allow, "connect.self_signed"),
        (_, A::Connect) => (Allow, "connect.member"),
        (C::Unknown, A::Publish | A::Subscribe) => (Allow, "topic.unverified"),
        (C::SelfSigned, A::Publish | A::Subscribe) => (Allow, "topic.self_signed"),
        (_, A::Publish | A::Subscribe) => (Allow, "topic.member"),
        (C::Unknown | C::SelfSigned, A::RunJob) => (Deny(DenyReason::Jobs), "default.deny"),
        (_, A::RunJob) => (Allow, "run_job.member"),
        (C::Unknown | C::SelfSigned, A::Enrol) => (Deny(DenyReason::Enrolment), "default.deny"),
        (_, A::Enrol) => (Allow, "enrol.member"),
    }
}

const ACTIONS: [Action; 6] = [
    Action::Connect,
    Action::Publish,
    Action::Subscribe,
    Action::RunJob,
    Action::Administer,
    Action::Enrol,
];

#[test]
fn every_action_under_every_condition() {
    let built_in = PolicySet::built_in().unwrap();
    for action in ACTIONS {
        for condition in Condition::ALL {
            let decision = condition.case(action).judge(&built_in);
            let (verdict, rule) = expected(action, condition);
            let cell = format!("{} x {condition:?}", action.name());
            assert_eq!(decision.verdict, verdict, "{cell}");
            assert_eq!(decision.rule.as_str(), rule, "{cell}");
            assert!(decision.errors.is_empty(), "{cell}");
        }
    }
}

/// By default nobody administers, so that line of the table again with a policy that permits it.
#[test]
fn who_may_administer_where_a_policy_permits_it() {
    use Condition as C;
    let set = built_in_and(
        r#"@id("ops") permit(principal is Qb::Peer, action == Qb::Action::"administer",
             resource is Qb::Node) when { principal.verified };
           @id("ops.pq") @obligation("step_up") @step_up("post_quantum")
           forbid(principal is Qb::Peer, action == Qb::Action::"administer",
             resource is Qb::Node) when { !context.post_quantum };"#,
    );
    for condition in C::ALL {
        let decision = condition.case(Action::Administer).judge(&set);
        let (verdict, rule) = match condition {
            C::Unknown | C::SelfSigned => (Deny(DenyReason::Administration), "default.deny"),
            C::Verified => (Allow, "ops"),
            C::Classical => (Verdict::StepUp(StepUp::PostQuantum), "ops.pq"),
            other => expected(Action::Administer, other),
        };
        assert_eq!(decision.verdict, verdict, "{condition:?}");
        assert_eq!(decision.rule.as_str(), rule, "{condition:?}");
    }
}

#[test]
fn a_sensitive_topic_asks_a_classical_connection_for_more() {
    let built_in = PolicySet::built_in().unwrap();
    let sensitive = |case: &mut Case| {
        case.config.topics = vec![crate::config::TopicRule {
            pattern: "acme/*".to_owned(),
            min_trust: TrustScore::ZERO,
            sensitive: true,
        }];
    };
    for action in [Action::Publish, Action::Subscribe] {
        let mut case = Condition::Classical.case(action);
        sensitive(&mut case);
        let decision = case.judge(&built_in);
        assert_eq!(decision.verdict, Verdict::StepUp(StepUp::PostQuantum));
        assert_eq!(decision.rule, "topic.sensitive");
        assert!(!decision.permits());
        assert_eq!(decision.advice.len(), 1);
        let mut case = Condition::Verified.case(action);
        sensitive(&mut case);
        assert_eq!(case.judge(&built_in).verdict, Allow);
        // Nothing to be had by stepping up where nothing would be permitted.
        let mut case = Condition::Classical.case(action);
        sensitive(&mut case);
        case.config.member_topics = Vec::new();
        assert_eq!(case.judge(&built_in).rule, "default.deny");
    }
}

#[test]
fn a_topic_may_ask_for_a_higher_score() {
    let built_in = PolicySet::built_in().unwrap();
    let mut case = Case::new(Action::Publish, Tier::Member);
    case.config.topics = vec![crate::config::TopicRule {
        pattern: "acme/orders".to_owned(),
        min_trust: TrustScore::try_new(0.6).unwrap(),
        sensitive: false,
    }];
    assert_eq!(case.judge(&built_in).rule, "topic.min_trust");
    case.standing = Some(standing(0.6));
    assert_eq!(case.judge(&built_in).rule, "topic.member");
}

#[test]
fn in_quarantine_one_talks_on_restricted_topics_alone() {
    let built_in = PolicySet::built_in().unwrap();
    // By the book, with a good score; and by a low score, which says quarantine each time.
    for (score, quarantined) in [(0.5, true), (0.15, false), (0.15, true)] {
        for action in Action::JUDGED {
            for restricted in [false, true] {
                let mut case = Case::new(action, Tier::Member);
                case.standing = Some(standing(score));
                case.quarantined = quarantined;
                if restricted {
                    case.config.restricted_topics = vec!["acme/*".to_owned()];
                }
                let decision = case.judge(&built_in);
                let may = match action {
                    Action::Connect => true,
                    Action::Publish | Action::Subscribe => restricted,
                    _ => false,
                };
                let cell = format!("{action:?} {score} {quarantined} {restricted}");
                assert_eq!(decision.permits(), may, "{cell}: {decision:?}");
                if score < 0.2 && action == Action::Connect {
                    assert_eq!(decision.verdict, Quarantine { permitted: true }, "{cell}");
                    assert_eq!(decision.rule, "reputation.messages_min_score", "{cell}");
                }
            }
        }
    }
}

#[test]
fn the_limited_tiers_connect_and_enrol_and_no_policy_lifts_it() {
    let all = set("@id(\"all\") permit(principal, action, resource);");
    for tier in [Tier::Invited, Tier::RenewalOnly] {
        for action in ACTIONS {
            let decision = Case::new(action, tier).judge(&all);
            let may = matches!(action, Action::Connect | Action::Enrol);
            assert_eq!(decision.permits(), may, "{tier} {action:?}");
            if !may {
                assert_eq!(decision.rule, "tier.limited", "{tier} {action:?}");
            }
        }
    }
}

/// The floor, against the most generous of policies.
#[test]
fn no_policy_lifts_the_floor() {
    let all = set("@id(\"all\") permit(principal, action, resource);");
    for action in Action::JUDGED {
        for condition in [Condition::Expired, Condition::Revoked, Condition::Banned] {
            let decision = condition.case(action).judge(&all);
            assert!(!decision.permits(), "{action:?} {condition:?}");
            assert_eq!(decision.policy_hash, PolicyHash::NONE);
        }
        let mut unknown = Case::new(action, Tier::Member);
        unknown.standing = None;
        assert_eq!(unknown.judge(&all).rule, "standing.unknown");
        let mut no_credential = Case::new(action, Tier::Member);
        no_credential.identity = None;
        assert_eq!(no_credential.judge(&all).rule, "identity.missing");
        let mut too_much = Case::new(action, Tier::Unverified);
        too_much.identity = Some(identity(Tier::Member));
        assert_eq!(too_much.judge(&all).rule, "identity.contradicts_tier");
        let mut another = Case::new(action, Tier::Member);
        another.identity.as_mut().unwrap().peer = peer(2);
        assert_eq!(another.judge(&all).rule, "identity.other_peer");
    }
    let mut bare = Case::new(Action::Connect, Tier::Member);
    bare.security = None;
    assert_eq!(bare.judge(&all).rule, "connect.security_unknown");
    let mut nowhere = Case::new(Action::Publish, Tier::Member);
    nowhere.topic = None;
    assert_eq!(nowhere.judge(&all).rule, "topic.missing");
    for action in [Action::RunJob, Action::Administer] {
        let decision = Condition::StaleList.case(action).judge(&all);
        assert_eq!(decision.rule, "identity.status_stale");
    }
}
