//! The table: action x tier x identity x standing, every cell.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    identity::{Name, status::Why},
    types::{ChannelKind, Cipher, Group, TrustScore},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

const SECURITY: SecurityInfo = SecurityInfo {
    kind: ChannelKind::Noise,
    group: Group::X25519,
    cipher: Cipher::ChaCha20Poly1305,
};

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn identity(tier: Tier, peer: PeerId, expires: Timestamp) -> VerifiedIdentity {
    let acme = Name::try_new("acme").unwrap();
    VerifiedIdentity {
        peer,
        tier,
        issuer: acme.clone(),
        anchor: acme,
        statuses: Vec::new(),
        pq_auth: false,
        keys: None,
        subject: Name::try_new("node-1").unwrap(),
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        expires,
        credential_hash: [0; 32],
    }
}

fn standing(score: f64, banned_until: Option<Timestamp>) -> Option<Standing> {
    Some(Standing {
        score: TrustScore::try_new(score).unwrap(),
        banned_until,
        probation: false,
    })
}

fn later(secs: u64) -> Timestamp {
    Timestamp::from_secs(NOW.secs() + secs)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Id {
    None,
    Good,
    Other,
    OtherTier,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum St {
    Unknown,
    Banned,
    Low,
    Quarantined,
    Good,
}

fn expected(
    action: Action,
    tier: Tier,
    id: Id,
    st: St,
    own_topic: bool,
) -> (Verdict, &'static str) {
    let deny = |reason, rule| (Verdict::Deny(reason), rule);
    match st {
        St::Unknown => return deny(DenyReason::StandingUnknown, "standing.unknown"),
        St::Banned => return deny(DenyReason::Banned, "reputation.banned"),
        St::Low | St::Quarantined | St::Good => {}
    }
    match (tier, id) {
        (Tier::Unverified, Id::None) | (Tier::Member | Tier::SelfSigned, Id::Good) => {}
        (Tier::Unverified, _) | (_, Id::OtherTier) => {
            return deny(DenyReason::Identity, "identity.contradicts_tier");
        }
        (Tier::Invited | Tier::RenewalOnly, _) => unreachable!("their own table is below"),
        (_, Id::None) => return deny(DenyReason::Identity, "identity.missing"),
        (_, Id::Other) => return deny(DenyReason::Identity, "identity.other_peer"),
        (_, Id::Expired) => return deny(DenyReason::Expired, "identity.expired"),
    }
    if st == St::Low {
        return deny(DenyReason::Score, "reputation.connect_min_score");
    }
    if action != Action::Connect && !own_topic {
        return deny(DenyReason::Topic, "default.deny");
    }
    if st == St::Quarantined {
        return (Verdict::Quarantine, "reputation.messages_min_score");
    }
    (
        Verdict::Allow,
        match (action, tier) {
            (Action::Connect, Tier::Member) => "connect.member",
            (Action::Connect, Tier::SelfSigned) => "connect.self_signed",
            (Action::Connect, Tier::Unverified) => "connect.unverified",
            (_, Tier::SelfSigned) => "topic.self_signed",
            (_, Tier::Member) => "topic.member",
            (_, Tier::Unverified) => "topic.unverified",
            (_, Tier::Invited | Tier::RenewalOnly) => unreachable!("their own table is below"),
        },
    )
}

#[test]
fn every_cell_of_the_table() {
    let policy = PolicyConfig {
        member_topics: vec!["acme/*".to_owned(), "open".to_owned()],
        unverified_topics: vec![Topic::try_new("open").unwrap()],
        ..PolicyConfig::default()
    };
    let (me, other) = (peer(1), peer(2));
    let (shared, foreign_topic) = (
        Topic::try_new("open").unwrap(),
        Topic::try_new("x").unwrap(),
    );
    let mut cells = 0;
    for action in [Action::Connect, Action::Publish, Action::Subscribe] {
        for tier in [Tier::Unverified, Tier::SelfSigned, Tier::Member] {
            let good = identity(tier, me, later(1));
            let foreign = identity(tier, other, later(1));
            let another = match tier {
                Tier::Member => Tier::SelfSigned,
                _ => Tier::Member,
            };
            let contradicting = identity(another, me, later(1));
            // Exclusive: at the very moment it says, it is over.
            let expired = identity(tier, me, NOW);
            for id in [Id::None, Id::Good, Id::Other, Id::OtherTier, Id::Expired] {
                for st in [St::Unknown, St::Banned, St::Low, St::Quarantined, St::Good] {
                    for own_topic in [true, false] {
                        let request = Request {
                            action,
                            subject: Subject {
                                peer: me,
                                tier,
                                identity: match id {
                                    Id::None => None,
                                    Id::Good => Some(&good),
                                    Id::Other => Some(&foreign),
                                    Id::OtherTier => Some(&contradicting),
                                    Id::Expired => Some(&expired),
                                },
                                standing: match st {
                                    St::Unknown => None,
                                    St::Banned => standing(0.9, Some(later(1))),
                                    St::Low => standing(0.09, None),
                                    St::Quarantined => standing(0.1, None),
                                    St::Good => standing(0.2, Some(NOW)),
                                },
                                status: Status::Good,
                            },
                            topic: Some(if own_topic { &shared } else { &foreign_topic }),
                            security: Some(SECURITY),
                            now: NOW,
                            policy: &policy,
                        };
                        let decision = evaluate(&request);
                        let wanted = expected(action, tier, id, st, own_topic);
                        assert_eq!((decision.verdict, decision.rule), wanted, "{request:?}");
                        let may = match decision.verdict {
                            Verdict::Allow => true,
                            Verdict::Quarantine => action == Action::Connect,
                            Verdict::Deny(_) => false,
                        };
                        assert_eq!(decision.permits(action), may);
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, 450);
}

#[test]
fn a_question_without_its_topic_is_denied() {
    let policy = PolicyConfig::default();
    let me = peer(1);
    let good = identity(Tier::Member, me, later(1));
    for action in [Action::Publish, Action::Subscribe] {
        let decision = evaluate(&Request {
            action,
            subject: Subject {
                peer: me,
                tier: Tier::Member,
                identity: Some(&good),
                standing: standing(1.0, None),
                status: Status::Good,
            },
            topic: None,
            security: Some(SECURITY),
            now: NOW,
            policy: &policy,
        });
        assert_eq!(decision.verdict, Verdict::Deny(DenyReason::Malformed));
    }
}

#[test]
fn who_signs_for_itself_runs_nothing_whatever_the_policy_says() {
    let policy = PolicyConfig {
        members_run_jobs: true,
        ..PolicyConfig::default()
    };
    let me = peer(1);
    for (tier, rule) in [
        (Tier::SelfSigned, "default.deny"),
        (Tier::Member, "run_job.member"),
    ] {
        let identity = identity(tier, me, later(1));
        let decision = evaluate(&Request {
            action: Action::RunJob,
            subject: Subject {
                peer: me,
                tier,
                identity: Some(&identity),
                standing: standing(1.0, None),
                status: Status::Good,
            },
            topic: None,
            security: Some(SECURITY),
            now: NOW,
            policy: &policy,
        });
        assert_eq!(decision.rule, rule, "{tier}");
    }
}

#[test]
fn revocation_denies_everything_and_a_stale_list_denies_jobs() {
    let policy = PolicyConfig {
        members_run_jobs: true,
        member_topics: vec!["*".to_owned()],
        ..PolicyConfig::default()
    };
    let (me, topic) = (peer(1), Topic::try_new("x").unwrap());
    let good = identity(Tier::Member, me, later(1));
    let revoked = [Why::Listed, Why::IssuedBefore].map(Status::Revoked);
    for action in [
        Action::Connect,
        Action::Publish,
        Action::Subscribe,
        Action::RunJob,
    ] {
        let decide = |status| {
            evaluate(&Request {
                action,
                subject: Subject {
                    peer: me,
                    tier: Tier::Member,
                    identity: Some(&good),
                    standing: standing(1.0, None),
                    status,
                },
                topic: Some(&topic),
                security: Some(SECURITY),
                now: NOW,
                policy: &policy,
            })
        };
        for status in revoked {
            assert_eq!(decide(status).rule, "identity.revoked", "{action:?}");
            assert_eq!(decide(status).verdict, Verdict::Deny(DenyReason::Revoked));
            assert!(!decide(status.for_running()).permits(action));
        }
        for status in [Status::Good, Status::Unlisted, Status::Stale.for_running()] {
            assert_eq!(decide(status).verdict, Verdict::Allow, "{action:?}");
        }
        let stale = decide(Status::Stale);
        assert_eq!(stale.permits(action), action != Action::RunJob);
        if action == Action::RunJob {
            assert_eq!(stale.rule, "identity.status_stale");
        }
    }
}

#[test]
fn who_is_limited_may_connect_and_ask_for_a_credential_and_nothing_else() {
    let open = Topic::try_new("open").unwrap();
    let policy = PolicyConfig {
        member_topics: vec!["*".to_owned()],
        unverified_topics: vec![open.clone()],
        ..PolicyConfig::default()
    };
    let me = peer(1);
    // It ended a moment ago.
    let lapsed = identity(Tier::RenewalOnly, me, NOW);
    let current = identity(Tier::Member, me, later(1));
    let ask = |action, tier, identity, score| {
        let decision = evaluate(&Request {
            action,
            subject: Subject {
                peer: me,
                tier,
                identity,
                standing: standing(score, None),
                status: Status::Good,
            },
            topic: Some(&open),
            security: Some(SECURITY),
            now: NOW,
            policy: &policy,
        });
        (decision.verdict, decision.rule)
    };
    let no = Verdict::Deny(DenyReason::Enrolment);
    for (tier, identity, connect, enrol) in [
        (Tier::Invited, None, "connect.invited", "enrol.invited"),
        (
            Tier::RenewalOnly,
            Some(&lapsed),
            "connect.renewal_only",
            "enrol.renewal_only",
        ),
    ] {
        let ask = |action, score| ask(action, tier, identity, score);
        assert_eq!(ask(Action::Connect, 0.5), (Verdict::Allow, connect));
        assert_eq!(ask(Action::Enrol, 0.5), (Verdict::Allow, enrol));
        assert_eq!(ask(Action::Enrol, 0.15).0, Verdict::Quarantine);
        for action in [Action::Publish, Action::Subscribe, Action::RunJob] {
            assert_eq!(ask(action, 1.0), (no, "tier.limited"), "{tier} {action:?}");
        }
    }
    let member = ask(Action::Enrol, Tier::Member, Some(&current), 0.5);
    assert_eq!(member, (Verdict::Allow, "enrol.member"));
    assert_eq!(ask(Action::Enrol, Tier::Unverified, None, 1.0).0, no);
    // A tier is never believed against its credential.
    let contradicts = Verdict::Deny(DenyReason::Identity);
    for (tier, identity) in [
        (Tier::Member, Some(&lapsed)),
        (Tier::RenewalOnly, Some(&current)),
        (Tier::Invited, Some(&current)),
        (Tier::RenewalOnly, None),
    ] {
        assert_eq!(ask(Action::Connect, tier, identity, 1.0).0, contradicts);
    }
}

#[test]
fn patterns_match_whole_segments_only() {
    let topic = |t| Topic::try_new(t).unwrap();
    for (pattern, name, wanted) in [
        ("*", "anything/at.all", true),
        ("acme/*", "acme/orders", true),
        ("acme/*", "acme/", false),
        ("acme/*", "acme", false),
        ("acme/*", "acmevil/orders", false),
        ("acme*", "acmevil", false),
        ("a*e", "acme", false),
        ("acme/orders", "acme/orders", true),
        ("acme/orders", "acme/orders/x", false),
        ("", "x", false),
    ] {
        assert_eq!(matches(pattern, &topic(name)), wanted, "{pattern} {name}");
    }
}

#[test]
fn a_connection_without_a_proof_of_its_encryption_is_denied() {
    let (me, policy) = (peer(1), PolicyConfig::default());
    let good = identity(Tier::Member, me, later(100));
    let request = |security| Request {
        action: Action::Connect,
        subject: Subject {
            peer: me,
            tier: Tier::Member,
            identity: Some(&good),
            standing: standing(1.0, None),
            status: Status::Good,
        },
        topic: None,
        security,
        now: NOW,
        policy: &policy,
    };
    assert_eq!(evaluate(&request(Some(SECURITY))).verdict, Verdict::Allow);
    let denied = evaluate(&request(None));
    assert_eq!(denied.verdict, Verdict::Deny(DenyReason::Security));
    assert_eq!(denied.rule, "connect.security_unknown");
}
