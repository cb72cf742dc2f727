//! Properties over generated requests and policies.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::identity::status::Why;

static BUILT: LazyLock<PolicySet> = LazyLock::new(|| PolicySet::built_in().unwrap());

fn tiers() -> impl Strategy<Value = Tier> {
    prop::sample::select(vec![
        Tier::Member,
        Tier::SelfSigned,
        Tier::Unverified,
        Tier::Invited,
        Tier::RenewalOnly,
    ])
}

fn cases() -> impl Strategy<Value = Case> {
    let actions = prop::sample::select(vec![
        Action::Connect,
        Action::Publish,
        Action::Subscribe,
        Action::RunJob,
        Action::Administer,
        Action::Enrol,
    ]);
    let topics = prop::sample::select(vec!["acme/orders", "acme/eu/x", "other", "lobby"]);
    let patterns = prop::sample::subsequence(vec!["*", "acme/*", "other", "acme/eu/*"], 0..=3);
    let statuses = prop::sample::select(vec![
        Status::Good,
        Status::Unlisted,
        Status::Stale,
        Status::Revoked(Why::Listed),
    ]);
    let securities = prop::sample::select(vec![None, Some(CLASSICAL), Some(HYBRID)]);
    // Mostly what belongs together, sometimes not.
    let credential = (0_u8..10, tiers(), prop::bool::weighted(0.9), -2_i64..20);
    let score = (0_u32..=1_000, prop::bool::weighted(0.1), any::<bool>());
    let least = (0_u32..=40, 0_u32..=40);
    let who = (
        tiers(),
        credential,
        score,
        statuses,
        0_u8..=110,
        any::<bool>(),
    );
    let what = (actions, topics, securities, prop::bool::weighted(0.95));
    let rules = (patterns, any::<bool>(), least, any::<bool>(), any::<bool>());
    (who, what, rules).prop_map(|(who, what, rules)| {
        let (tier, credential, (score, banned, probation), status, anomaly, quarantined) = who;
        let (action, name, security, has_topic) = what;
        let (patterns, members_run_jobs, (low, high), open, restricted) = rules;
        let mut case = Case::new(action, tier);
        let (odd, other_tier, own, age) = credential;
        match odd {
            0 => case.identity = None,
            1 => case.identity = Some(identity(other_tier)),
            _ => {}
        }
        if let Some(identity) = &mut case.identity {
            identity.expires = Timestamp::from_secs(NOW.secs().saturating_add_signed(age));
            if !own {
                identity.peer = peer(2);
            }
            // Neither revoked nor stale without a credential.
            case.status = status;
        }
        case.standing = (odd != 2).then(|| Standing {
            banned_until: banned.then(|| Timestamp::from_secs(NOW.secs() + 1)),
            probation,
            ..standing(f64::from(score) / 1_000.0)
        });
        case.anomaly = anomaly;
        case.quarantined = quarantined;
        case.topic = (action.on_topic() && has_topic).then(|| topic(name));
        case.security = security;
        let hundredths = |n: u32| TrustScore::try_new(f64::from(n) / 100.0).unwrap();
        case.config = PolicyConfig {
            member_topics: patterns.iter().map(|one| (*one).to_owned()).collect(),
            unverified_topics: if open {
                vec![topic("lobby")]
            } else {
                Vec::new()
            },
            members_run_jobs,
            connect_min_score: hundredths(low.min(high)),
            messages_min_score: hundredths(low.max(high)),
            restricted_topics: if restricted {
                vec!["acme/*".to_owned()]
            } else {
                Vec::new()
            },
            ..PolicyConfig::default()
        };
        case
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_built_in_policy_errs(case in cases()) {
        let decision = case.judge(&BUILT);
        prop_assert!(decision.errors.is_empty(), "{:?}", decision.errors);
    }
}

/// Conditions that cannot err.
fn conditions() -> impl Strategy<Value = String> {
    let atoms = prop::sample::select(vec![
        "principal.verified",
        "principal.quarantined",
        "principal.probation",
        "principal.trust < 30",
        "principal.trust >= 15",
        "principal.anomaly > 50",
        "principal.tier == \"unverified\"",
        "principal.issuer == \"acme\"",
        "context.post_quantum",
        "context.has_connection",
        "principal in Qb::Group::\"acme/workers\"",
        "principal has cred_expires",
        "resource in Qb::TopicTree::\"acme/\"",
    ]);
    let atom = (atoms, any::<bool>()).prop_map(|(text, not)| {
        if not {
            format!("!({text})")
        } else {
            format!("({text})")
        }
    });
    prop::collection::vec((atom, any::<bool>()), 1..4).prop_map(|parts| {
        let mut text = String::from("true");
        for (part, and) in parts {
            text = format!("({text}) {} {part}", if and { "&&" } else { "||" });
        }
        text
    })
}

fn actions() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "action",
        "action == Qb::Action::\"publish\"",
        "action in [Qb::Action::\"publish\", Qb::Action::\"subscribe\"]",
    ])
}

fn forbids() -> impl Strategy<Value = String> {
    let obligations = prop::sample::select(vec![
        "",
        "@obligation(\"quarantine\")",
        "@obligation(\"step_up\") @step_up(\"post_quantum\")",
    ]);
    (obligations, actions(), conditions()).prop_map(|(obligation, action, when)| {
        format!("{obligation} forbid(principal is Qb::Peer, {action}, resource) when {{ {when} }};")
    })
}

fn permits() -> impl Strategy<Value = String> {
    (actions(), conditions()).prop_map(|(action, when)| {
        format!("permit(principal is Qb::Peer, {action}, resource) when {{ {when} }};")
    })
}

fn text(policies: &[String]) -> String {
    let named = policies.iter().enumerate();
    named
        .map(|(n, policy)| format!("@id(\"p{n}\") {policy}\n"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Adding a forbid, of whatever obligation, never lets anybody do more.
    #[test]
    fn adding_a_forbid_never_widens_access(
        mut policies in prop::collection::vec(prop_oneof![permits(), forbids()], 1..6),
        forbid in forbids(),
        cases in prop::collection::vec(cases(), 12),
    ) {
        let without = set(&text(&policies));
        policies.push(forbid);
        let with = set(&text(&policies));
        for case in &cases {
            let (less, more) = (case.judge(&with), case.judge(&without));
            prop_assert!(!less.permits() || more.permits(), "{:?} {:?}", less, more);
        }
    }

    /// Nor does taking a permit away. (One that errs denies; none of these errs.)
    #[test]
    fn removing_a_permit_never_widens_access(
        policies in prop::collection::vec(prop_oneof![permits(), forbids()], 0..5),
        permit in permits(),
        cases in prop::collection::vec(cases(), 12),
    ) {
        let without = set(&text(&policies));
        let mut all = policies;
        all.push(permit);
        let with = set(&text(&all));
        for case in &cases {
            let (less, more) = (case.judge(&without), case.judge(&with));
            prop_assert!(!less.permits() || more.permits(), "{:?} {:?}", less, more);
        }
    }

    /// The cache says what evaluation says, whatever was asked before.
    #[test]
    fn the_cache_is_exact(
        policies in prop::collection::vec(prop_oneof![permits(), forbids()], 1..6),
        cases in prop::collection::vec(cases(), 12),
        order in prop::collection::vec(0_usize..12, 24),
    ) {
        let rules = Rules { active: set(&text(&policies)), shadow: None };
        let mut cache = Cache::default();
        for index in order {
            let case = &cases[index];
            let remembered = case.with(|request| judge(&rules, &mut cache, request));
            prop_assert_eq!(&*remembered, &case.judge(&rules.active));
        }
    }
}
