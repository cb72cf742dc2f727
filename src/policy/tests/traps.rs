//! What Cedar leaves to its user, and numbers, each shown to bite without its defence.

use super::*;

const ALL: &str = "@id(\"all\") permit(principal, action, resource);";

/// Overflows for whoever is trusted at all, and only for the action named.
const ERRS: &str = r#"@id("overflows") forbid(principal is Qb::Peer,
    action == Qb::Action::"publish", resource)
    when { principal.trust * 9223372036854775807 < 0 };"#;

#[test]
fn a_forbid_that_errs_is_a_denial_and_not_skipped() {
    let set = set(&format!("{ALL}{ERRS}"));
    let case = Case::new(Action::Publish, Tier::Member);
    let decision = case.judge(&set);
    assert_eq!(decision.verdict, Verdict::Deny(DenyReason::PolicyError));
    assert_eq!(decision.rule, "policy.error");
    assert!(decision.errors[0].contains("overflows"), "{decision:?}");
    // Bare Cedar: the forbid is skipped, and the request allowed.
    let facts = case.facts();
    let question = build::question(set.0.names, &facts, set.0.mentions).unwrap();
    let scope = set.scope(Action::Publish).unwrap();
    let bare = cedar_policy::Authorizer::new().is_authorized(
        &question.request,
        &scope.all,
        &question.entities,
    );
    assert_eq!(bare.decision(), cedar_policy::Decision::Allow);
    // It is not asked about what it does not name.
    let other = Case::new(Action::Subscribe, Tier::Member).judge(&set);
    assert_eq!(other.verdict, Verdict::Allow);
}

#[test]
fn a_permit_that_errs_is_a_denial_too_and_so_is_a_tag_that_is_missing() {
    let set = set(&format!(
        "{ALL}{}",
        r#"@id("role") permit(principal is Qb::Peer, action, resource)
           when { principal.hasTag("role") && principal.getTag("role") == "operator" &&
                  principal.trust + 9223372036854775807 > 0 };"#
    ));
    let mut case = Case::new(Action::Connect, Tier::Member);
    assert_eq!(case.judge(&set).rule, "policy.error");
    // No role: `&&` stops before the overflow.
    case.identity.as_mut().unwrap().attributes.clear();
    assert_eq!(case.judge(&set).verdict, Verdict::Allow);
}

#[test]
fn an_error_in_the_second_look_is_a_denial() {
    // Errs only for a peer in quarantine: the first look does not see it.
    let set = set(&format!(
        "{ALL}{}",
        r#"@id("odd") @obligation("quarantine") forbid(principal is Qb::Peer, action, resource)
           when { principal.anomaly >= 90 };
           @id("late") forbid(principal is Qb::Peer, action, resource)
           when { principal.quarantined && principal.anomaly * 9223372036854775807 > 0 };"#
    ));
    let mut case = Case::new(Action::Connect, Tier::Member);
    assert_eq!(case.judge(&set).verdict, Verdict::Allow);
    case.anomaly = 95;
    assert_eq!(case.judge(&set).rule, "policy.error");
}

#[test]
fn a_default_deny_names_the_permits_it_missed() {
    let built_in = PolicySet::built_in().unwrap();
    let decision = Case::new(Action::RunJob, Tier::Unverified).judge(&built_in);
    assert_eq!(decision.rule, "default.deny");
    let missed: Vec<&str> = decision.missed.iter().map(Rule::as_str).collect();
    assert_eq!(missed, ["run_job.member"]);
    let decision = Case::new(Action::Administer, Tier::Member).judge(&built_in);
    assert!(decision.missed.is_empty());
}

const ODD: &str = r#"@id("odd") @obligation("quarantine")
    forbid(principal is Qb::Peer, action, resource) when { principal.anomaly >= 90 };"#;

#[test]
fn quarantine_lets_nobody_in_who_would_not_be_let_in_without_it() {
    let set = built_in_and(ODD);
    let mut stranger = Case::new(Action::RunJob, Tier::Unverified);
    stranger.anomaly = 95;
    let decision = stranger.judge(&set);
    assert_eq!(decision.verdict, Verdict::Deny(DenyReason::Jobs));
    assert_eq!(decision.rule, "default.deny");
    assert!(decision.obligations.is_empty());
    let mut member = Case::new(Action::Connect, Tier::Member);
    member.anomaly = 95;
    let decision = member.judge(&set);
    assert_eq!(decision.verdict, Verdict::Quarantine { permitted: true });
    assert_eq!(decision.rule, "odd");
    assert_eq!(decision.obligations, [Obligation::Quarantine]);
    // What is not done in quarantine is not done by whom it is just meant for.
    member.action = Action::RunJob;
    let decision = member.judge(&set);
    assert_eq!(decision.verdict, Verdict::Quarantine { permitted: false });
}

#[test]
fn a_plain_forbid_beside_an_obligation_is_a_plain_denial() {
    let set = built_in_and(&format!(
        "{ODD}{}",
        r#"@id("not.acme") forbid(principal is Qb::Peer, action, resource)
           when { principal.issuer == "acme" };"#
    ));
    let mut case = Case::new(Action::Connect, Tier::Member);
    case.anomaly = 95;
    let decision = case.judge(&set);
    assert_eq!(decision.verdict, Verdict::Deny(DenyReason::Forbidden));
    assert_eq!(decision.rule, "not.acme");
    assert_eq!(decision.policies.len(), 2);
}

#[test]
fn a_step_up_comes_before_a_quarantine_for_it_permits_nothing() {
    let set = built_in_and(&format!(
        "{ODD}{}",
        r#"@id("pq") @obligation("step_up") @step_up("post_quantum")
           forbid(principal is Qb::Peer, action == Qb::Action::"connect", resource)
           when { !context.post_quantum };"#
    ));
    let mut case = Case::new(Action::Connect, Tier::Member);
    case.anomaly = 95;
    let decision = case.judge(&set);
    assert_eq!(decision.verdict, Verdict::StepUp(StepUp::PostQuantum));
    assert_eq!(decision.rule, "pq");
    assert_eq!(decision.obligations.len(), 2);
    assert!(!decision.permits());
    case.security = Some(HYBRID);
    assert_eq!(
        case.judge(&set).verdict,
        Verdict::Quarantine { permitted: true }
    );
}

#[test]
fn numbers_are_bounded_and_thresholds_are_never_lowered_by_rounding() {
    for (score, hundredths) in [(0.0, 0), (0.29, 29), (0.57, 57), (0.299, 29), (1.0, 100)] {
        let mut case = Case::new(Action::Connect, Tier::Member);
        case.config.connect_min_score = TrustScore::ZERO;
        case.config.messages_min_score = TrustScore::ZERO;
        case.standing = Some(standing(score));
        assert_eq!(case.facts().principal.trust, hundredths, "{score}");
    }
    for (least, hundredths) in [(0.29, 29), (0.57, 57), (0.291, 30), (1.0, 100)] {
        let mut case = Case::new(Action::Connect, Tier::Member);
        case.config.connect_min_score = TrustScore::try_new(least).unwrap();
        assert_eq!(
            case.facts().context.connect_min_trust,
            hundredths,
            "{least}"
        );
    }
    for no_score in [f64::NAN, f64::INFINITY, -0.01, 1.01] {
        assert!(TrustScore::try_new(no_score).is_err(), "{no_score}");
    }
    let mut case = Case::new(Action::Connect, Tier::Member);
    case.anomaly = u8::MAX;
    assert_eq!(case.facts().principal.anomaly, 100);
    case.identity.as_mut().unwrap().expires = Timestamp::from_millis(u64::MAX);
    case.now = Timestamp::from_millis(u64::MAX - 1_000);
    let facts = case.facts();
    assert_eq!(facts.now, 253_402_300_799);
    assert_eq!(facts.principal.expires, Some(253_402_300_799));
}

#[test]
fn a_group_is_its_issuers_and_a_tree_holds_what_is_below_it() {
    let set = set(
        r#"@id("workers") permit(principal in Qb::Group::"acme/workers",
               action == Qb::Action::"run_job", resource is Qb::Sandbox);
           @id("below") permit(principal is Qb::Peer, action == Qb::Action::"publish",
               resource in Qb::TopicTree::"acme/eu/");"#,
    );
    let mut case = Case::new(Action::RunJob, Tier::Member);
    assert_eq!(case.judge(&set).rule, "workers");
    case.identity.as_mut().unwrap().groups = vec!["evil/workers".to_owned()];
    assert_eq!(case.judge(&set).rule, "default.deny");
    let mut case = Case::new(Action::Publish, Tier::Member);
    for (name, may) in [
        ("acme/eu/a", true),
        ("acme/eu/a/b", true),
        ("acme/eu", false),
        ("acme/eu/", false),
        ("acme/europe/a", false),
        ("x/acme/eu/a", false),
    ] {
        case.topic = Some(topic(name));
        assert_eq!(case.judge(&set).permits(), may, "{name}");
    }
    // As deep as a name can be: a forbid must not miss a tree.
    case.topic = Some(topic(&format!("acme/eu{}", "/a".repeat(60))));
    assert!(case.judge(&set).permits());
}

#[test]
fn the_address_is_read_where_there_is_one() {
    let set = set(&format!(
        "{ALL}{}",
        r#"@id("net") forbid(principal is Qb::Peer, action, resource)
           when { context has ip && !context.ip.isInRange(ip("10.0.0.0/8")) };"#
    ));
    let mut facts = Case::new(Action::Connect, Tier::Member).facts();
    assert!(evaluate(&set, &facts).permits());
    for (ip, may) in [("10.1.2.3", true), ("192.0.2.1", false), ("::1", false)] {
        facts.ip = Some(ip.parse().unwrap());
        assert_eq!(evaluate(&set, &facts).permits(), may, "{ip}");
    }
}

#[test]
fn no_policy_can_bear_a_name_under_which_the_floor_judges() {
    let set = PolicySet::built_in().unwrap();
    for tier in [Tier::Invited, Tier::RenewalOnly] {
        for action in Action::JUDGED {
            for score in [0.05, 0.15, 0.5] {
                let mut case = Case::new(action, tier);
                case.standing = Some(standing(score));
                let decision = case.judge(&set);
                let rule = &decision.rule;
                let named = format!("@id(\"{rule}\") permit(principal, action, resource);");
                let cell = format!("{tier:?} {action:?} {score}: {rule}");
                assert!(set_or(&named).is_err(), "{cell}");
            }
        }
    }
}
