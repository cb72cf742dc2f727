//! Who is held, for how long, and what releases.

use proptest::prelude::*;

use super::*;
use crate::identity::{
    StatusEntry, Tier,
    testing::{mallory, name, node},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn later(span: Duration) -> Timestamp {
    NOW.after(span)
}

fn identity(role: &str, issued: Timestamp) -> VerifiedIdentity {
    VerifiedIdentity {
        peer: node().peer(),
        tier: Tier::Member,
        issuer: name("acme"),
        anchor: name("acme"),
        statuses: vec![StatusEntry {
            issuer: name("acme"),
            index: 1,
            issued,
            signer: [1; 32],
        }],
        pq_auth: false,
        keys: None,
        subject: name("node-1"),
        groups: Vec::new(),
        attributes: BTreeMap::from([("role".to_owned(), role.to_owned())]),
        expires: later(HOUR * 24),
        credential_hash: [0; 32],
    }
}

fn by_policy(span: Duration, grant: Option<[u8; 32]>) -> Entry {
    Entry {
        since: NOW,
        caused: NOW,
        until: later(span),
        reason: "deny.anomaly".to_owned(),
        rule: Some("deny.anomaly".to_owned()),
        released: false,
        by_operator: false,
        grant,
    }
}

fn party() -> Party {
    Party::Peer(node().peer())
}

#[test]
fn it_ends_with_its_time() {
    let mut all = Quarantines::default();
    assert_eq!(all.begin(party(), by_policy(HOUR, None)), Begun::New(None));
    let held = |all: &Quarantines, at| all.holding(&node().peer(), None, at).is_some();
    assert!(held(&all, later(HOUR - Duration::from_millis(1))));
    assert!(!held(&all, later(HOUR)), "to the millisecond, swept or not");
    assert!(all.holding(&mallory().peer(), None, NOW).is_none());
    assert_eq!(all.sweep(later(HOUR)).len(), 1);
    assert!(all.is_empty());
}

#[test]
fn while_the_cause_lasts_it_is_prolonged_and_never_shortened() {
    let mut all = Quarantines::default();
    all.begin(party(), by_policy(HOUR, None));
    assert_eq!(all.begin(party(), by_policy(HOUR / 2, None)), Begun::Known);
    let mut again = by_policy(HOUR, None);
    again.since = later(HOUR / 2);
    again.caused = later(HOUR / 2);
    again.until = later(HOUR * 2);
    assert_eq!(all.begin(party(), again), Begun::Prolonged);
    let entry = all.get(&party()).unwrap();
    assert_eq!((entry.since, entry.until), (NOW, later(HOUR * 2)));
}

#[test]
fn what_was_granted_before_the_last_cause_releases_nobody() {
    let worker = identity("worker", NOW);
    let auditor = identity("auditor", later(HOUR / 4));
    let mut all = Quarantines::default();
    all.begin(party(), by_policy(HOUR, Some(grant_of(&auditor))));
    // It came again as an auditor later: its credential as a worker, issued between the first
    // cause and the last, was in a drawer.
    let mut again = by_policy(HOUR, Some(grant_of(&auditor)));
    again.caused = later(HOUR / 2);
    again.until = later(HOUR * 3 / 2);
    assert_eq!(all.begin(party(), again), Begun::Prolonged);
    let held = |identity: &VerifiedIdentity| {
        let at = later(HOUR / 2);
        all.holding(&identity.peer, Some(identity), at).is_some()
    };
    let between = identity("worker", later(HOUR / 3));
    assert!(held(&worker) && held(&between) && held(&auditor));
    assert!(all.released(&between.peer, &between).is_empty());
    let after = identity("worker", later(HOUR * 2 / 3));
    assert!(!held(&after));
}

#[test]
fn a_renewal_releases_nobody_and_a_new_grant_does() {
    let held_as = identity("worker", NOW);
    let mut all = Quarantines::default();
    all.begin(party(), by_policy(HOUR, Some(grant_of(&held_as))));
    let held = |identity: &VerifiedIdentity| all.holding(&identity.peer, Some(identity), NOW);
    assert!(held(&held_as).is_some());
    let renewed = identity("worker", later(HOUR / 2));
    assert!(held(&renewed).is_some(), "its issuer renews by itself");
    let older = identity("auditor", NOW);
    assert!(held(&older).is_some(), "it was in a drawer");
    let granted = identity("auditor", later(HOUR / 2));
    assert!(held(&granted).is_none());
    assert_eq!(all.released(&granted.peer, &granted), [party()]);
    // A member is held by its name: another key that comes with it is, too.
    let mut all = Quarantines::default();
    let mut moved = held_as.clone();
    moved.peer = mallory().peer();
    let name = party_of(&held_as.peer, Some(&held_as));
    all.begin(name.clone(), by_policy(HOUR, Some(grant_of(&held_as))));
    assert_eq!(name.to_string(), "acme/node-1");
    assert!(all.holding(&moved.peer, Some(&moved), NOW).is_some());
    assert!(all.holding(&moved.peer, None, NOW).is_none());
    // Nothing that a peer shows ends what the operator decided.
    let mut all = Quarantines::default();
    let mut entry = by_policy(HOUR, Some(grant_of(&held_as)));
    entry.by_operator = true;
    all.begin(party(), entry);
    assert!(all.holding(&granted.peer, Some(&granted), NOW).is_some());
}

#[test]
fn an_operators_stays_the_operators() {
    let mut all = Quarantines::default();
    let mut hand = by_policy(HOUR, None);
    hand.by_operator = true;
    all.begin(party(), hand);
    all.begin(party(), by_policy(HOUR * 3, Some([1; 32])));
    let entry = all.get(&party()).unwrap();
    assert!(entry.by_operator && entry.until == later(HOUR * 3));
    assert!(all.release(&party()).is_some() && all.release(&party()).is_none());
}

#[test]
fn what_the_operator_releases_the_same_policy_does_not_take_back() {
    let mut all = Quarantines::default();
    let lifts = |all: &Quarantines, rules: &[&str], at| {
        all.lifts(&node().peer(), None, rules.iter().copied(), at)
    };
    all.begin(party(), by_policy(HOUR, None));
    assert!(!lifts(&all, &["deny.anomaly"], NOW), "it is held");
    assert!(all.lift(&party(), NOW, HOUR * 2) && !all.lift(&party(), NOW, HOUR));
    assert_eq!((all.held(), all.list().len()), (0, 0));
    assert!(all.holding(&node().peer(), None, NOW).is_none());
    assert!(lifts(&all, &["deny.anomaly"], NOW));
    assert!(!lifts(&all, &["deny.anomaly", "other"], NOW), "all of them");
    assert!(!all.lifts(&mallory().peer(), None, ["deny.anomaly"].into_iter(), NOW));
    // Its cause lasts: nothing comes of it until the release has ended.
    let again = |after, rule: &str| {
        let mut entry = by_policy(HOUR, None);
        (entry.since, entry.caused) = (later(after), later(after));
        (entry.until, entry.rule) = (later(after + HOUR), Some(rule.to_owned()));
        entry
    };
    assert_eq!(
        all.begin(party(), again(HOUR, "deny.anomaly")),
        Begun::Known
    );
    let mut later_on = all.clone();
    assert!(!lifts(&later_on, &["deny.anomaly"], later(HOUR * 2)));
    let late = again(HOUR * 2, "deny.anomaly");
    assert_eq!(later_on.begin(party(), late), Begun::New(None));
    // Another policy, or the operator, puts it there at once.
    let mut other = all.clone();
    assert_eq!(other.begin(party(), again(HOUR, "other")), Begun::New(None));
    assert!(other.holding(&node().peer(), None, later(HOUR)).is_some());
    let mut hand = again(HOUR, "deny.anomaly");
    (hand.by_operator, hand.rule) = (true, None);
    assert_eq!(all.begin(party(), hand), Begun::New(None));
    assert_eq!(all.held(), 1);
}

#[test]
fn an_operators_quarantine_remembers_the_policy_beneath_it() {
    let mut all = Quarantines::default();
    let mut hand = by_policy(HOUR, None);
    (hand.by_operator, hand.rule) = (true, None);
    all.begin(party(), hand.clone());
    assert!(all.lift(&party(), NOW, HOUR));
    assert!(all.is_empty(), "no policy to be released from");
    all.begin(party(), by_policy(HOUR, None));
    all.begin(party(), hand);
    assert!(all.lift(&party(), NOW, HOUR));
    let rules = ["deny.anomaly"].into_iter();
    assert!(all.lifts(&node().peer(), None, rules, NOW));
}

#[test]
fn a_full_table_lets_go_of_what_ends_first() {
    let key = |n: u16| {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        Party::Address(std::net::IpAddr::from(
            <[u8; 16]>::try_from(&seed[..16]).unwrap(),
        ))
    };
    let mut all = Quarantines::default();
    let mut hand = by_policy(Duration::from_secs(1), None);
    hand.by_operator = true;
    all.begin(key(0), hand);
    for n in 1..=u16::MAX {
        let span = HOUR + Duration::from_secs(u64::from(n));
        assert_eq!(all.begin(key(n), by_policy(span, None)), Begun::New(None));
    }
    assert_eq!(all.held(), MAX_ENTRIES);
    assert_eq!(
        all.begin(party(), by_policy(HOUR, None)),
        Begun::New(Some(key(1)))
    );
    assert!(all.get(&key(0)).is_some());
}

proptest! {
    #[test]
    fn nothing_lasts_longer_than_it_may(spans in proptest::collection::vec(0_u64..1 << 40, 1..8)) {
        let mut all = Quarantines::default();
        for span in spans {
            all.begin(party(), by_policy(Duration::from_secs(span), None));
        }
        let end = all.get(&party()).unwrap().until;
        prop_assert!(end <= NOW.after(MAX_SPAN));
    }
}
