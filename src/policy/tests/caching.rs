//! The cache is exact: whatever changes, the answer is the one that evaluation gives.

use super::*;
use std::sync::Arc;

fn rules(active: PolicySet) -> Rules {
    Rules {
        active,
        shadow: None,
    }
}

#[test]
fn every_fact_is_part_of_the_key() {
    let rules = rules(PolicySet::built_in().unwrap());
    let base = Case::new(Action::Publish, Tier::Member).facts();
    let changes: [fn(&mut Facts); 15] = [
        |f| f.action = Action::Subscribe,
        |f| f.principal.peer = peer(3),
        |f| f.principal.tier = Tier::Unverified,
        |f| f.principal.issuer = "other".to_owned(),
        |f| f.principal.subject = "other".to_owned(),
        |f| f.principal.groups.clear(),
        |f| f.principal.attributes.clear(),
        |f| f.principal.trust = 11,
        |f| f.principal.anomaly = 1,
        |f| f.principal.probation = true,
        |f| f.principal.quarantined = true,
        |f| f.principal.expires = None,
        |f| f.context.post_quantum = true,
        |f| f.context.messages_min_trust = 90,
        |f| {
            if let Resource::Topic(topic) = &mut f.resource {
                topic.members = false;
            }
        },
    ];
    let mut cache = Cache::default();
    let first = cache.decide(&rules, &base);
    for (index, change) in changes.into_iter().enumerate() {
        let mut facts = base.clone();
        change(&mut facts);
        let misses = cache.counts().1;
        assert_eq!(
            *cache.decide(&rules, &facts),
            rules.decide(&facts),
            "{index}"
        );
        assert_eq!(cache.counts().1, misses + 1, "change {index} was not seen");
    }
    let again = cache.decide(&rules, &base);
    assert!(Arc::ptr_eq(&first, &again));
}

#[test]
fn peers_with_long_credentials_leave_fewer_verdicts_not_more_memory() {
    use super::cache::{MAX_VERDICT_BYTES, MAX_VERDICTS};
    let rules = rules(PolicySet::built_in().unwrap());
    let mut facts = Case::new(Action::Publish, Tier::Member).facts();
    facts.principal.groups = (0..32).map(|n| format!("acme/{n:0>250}")).collect();
    let mut cache = Cache::default();
    for n in 0..2_500_u64 {
        facts.principal.expires = Some(n);
        cache.decide(&rules, &facts);
        assert!(cache.bytes() <= MAX_VERDICT_BYTES);
    }
    assert!((1_000..2_500).contains(&cache.len()), "{}", cache.len());
    // The newest are there; another set leaves nothing.
    let hits = cache.counts().0;
    cache.decide(&rules, &facts);
    assert_eq!(cache.counts().0, hits + 1);
    let long = cache.len();
    facts.principal.groups.clear();
    for n in 0..u64::try_from(MAX_VERDICTS).unwrap() {
        facts.principal.expires = Some(n);
        cache.decide(&rules, &facts);
    }
    assert_eq!(cache.len(), MAX_VERDICTS, "after {long} long ones");
    assert!(
        cache.bytes() <= MAX_VERDICTS * 2_048,
        "no long one is counted"
    );
    facts.principal.expires = None;
    cache.decide(
        &self::rules(set("@id(\"a\") permit(principal, action, resource);")),
        &facts,
    );
    assert_eq!((cache.len(), cache.bytes() < 4_096), (1, true));
}

#[test]
fn time_is_part_of_the_key_only_where_a_policy_reads_it() {
    let still = rules(PolicySet::built_in().unwrap());
    let timed = rules(built_in_and(
        r#"@id("night") forbid(principal, action == Qb::Action::"connect", resource)
           when { context.now >= 1800000001 };"#,
    ));
    assert!(!still.active.reads_time() && timed.active.reads_time());
    let mut facts = Case::new(Action::Connect, Tier::Member).facts();
    let mut cache = Cache::default();
    assert_eq!(cache.decide(&still, &facts).valid_until, None);
    facts.now += 1;
    assert_eq!(cache.decide(&still, &facts).valid_until, None);
    assert_eq!(cache.counts(), (1, 1));
    // Another set: nothing of the old one is left.
    facts.now -= 1;
    let open = cache.decide(&timed, &facts);
    assert_eq!(cache.len(), 1);
    assert!(open.permits());
    assert_eq!(open.valid_until, Some(Timestamp::from_secs(facts.now + 1)));
    facts.now += 1;
    assert_eq!(cache.decide(&timed, &facts).rule, "night");
}

#[test]
fn what_reads_the_context_as_a_whole_reads_time() {
    for (text, reads) in [
        ("context.has_connection", false),
        ("context.settings.connect_min_trust > 1", false),
        ("context has ip", false),
        ("context.now > 1", true),
        ("context == context", true),
        (
            "(if principal.verified then context else context).now > 1",
            true,
        ),
    ] {
        let text = format!(
            "@id(\"a\") permit(principal is Qb::Peer, action == Qb::Action::\"connect\", \
             resource) when {{ {text} }};"
        );
        assert_eq!(set(&text).reads_time(), reads, "{text}");
    }
}

#[test]
fn a_shadow_is_told_of_only_where_it_differs_and_decides_nothing() {
    let active = PolicySet::built_in().unwrap();
    let shadow = built_in_and(
        r#"@id("no.orders") forbid(principal, action == Qb::Action::"publish", resource);"#,
    );
    let both = Rules {
        active,
        shadow: Some(shadow.clone()),
    };
    let decision = both.decide(&Case::new(Action::Publish, Tier::Member).facts());
    assert!(decision.permits());
    let other = decision.shadow.unwrap();
    assert_eq!(other.rule, "no.orders");
    assert_eq!(other.hash, shadow.hash());
    let decision = both.decide(&Case::new(Action::Subscribe, Tier::Member).facts());
    assert_eq!(decision.shadow, None);
}

#[test]
fn the_floor_is_not_remembered() {
    let rules = rules(PolicySet::built_in().unwrap());
    let mut cache = Cache::default();
    let mut case = Case::new(Action::Connect, Tier::Member);
    assert!(case.with(|request| judge(&rules, &mut cache, request).permits()));
    case.now = Timestamp::from_secs(NOW.secs() + 3_600);
    let late = case.with(|request| judge(&rules, &mut cache, request));
    assert_eq!(late.rule, "identity.expired");
    assert_eq!(cache.len(), 1);
}
