//! Members: a key and a subject, charged together, barred by either.

use std::collections::BTreeMap;

use super::*;
use crate::identity::{Tier, VerifiedIdentity};

pub(super) fn member(n: u8) -> SubjectId {
    format!("acme/node-{n}").parse().unwrap()
}

fn ban_of(book: &Reputation, who: &SubjectId) -> Option<Timestamp> {
    let party = Party::Subject(who.clone());
    book.standing(&party, book.latest()).banned_until
}

/// Charges what the member does by a key until the member is banned; how often that took.
fn offend_by(book: &mut Reputation, by: u8, who: &SubjectId) -> u32 {
    let now = book.latest();
    (1..50)
        .find(|_| {
            book.apply(misdeed(by, who, Severity::BadCredential), now);
            ban_of(book, who).is_some()
        })
        .unwrap()
}

fn score(book: &Reputation, by: u8, who: Option<&SubjectId>) -> f64 {
    let standing = book.standing_of(&peer(by), who, book.latest());
    standing.score.get()
}

#[test]
fn a_ban_follows_a_member_to_its_next_key() {
    let mut book = empty(&rules(|_| {}));
    let (who, other) = (member(1), member(2));
    assert_eq!(offend_by(&mut book, 1, &who), 5);
    let until = Some(later(HOUR));
    // Both stand in one charge.
    let key = Party::Peer(peer(1));
    assert_eq!(book.standing(&key, START).banned_until, until);
    let seen = |by, who| {
        let standing = book.standing_of(&peer(by), who, START);
        standing.banned_until
    };
    assert_eq!(seen(2, Some(&who)), until);
    assert_eq!(seen(2, None), None);
    assert_eq!(seen(2, Some(&other)), None);
    // The old key is barred as whatever it comes.
    assert_eq!(seen(1, None), until);
    assert_eq!(seen(1, Some(&other)), until);
}

#[test]
fn a_score_follows_too_and_good_deeds_are_not_lost() {
    let mut book = empty(&rules(|_| {}));
    let who = member(1);
    for n in 0..10 {
        book.apply(good(1, Some(&who)), later(n * HOUR));
    }
    let earned = score(&book, 1, Some(&who));
    assert!(earned > 0.55);
    assert!((score(&book, 2, Some(&who)) - earned).abs() < 1e-9);
    // A deed by the new key moves its score from there.
    let better = book.latest().after(HOUR);
    book.apply(good(2, Some(&who)), better);
    assert!(score(&book, 2, Some(&who)) > earned);
    book.apply(misdeed(3, &who, Severity::InvalidMessage), better);
    let worse = score(&book, 3, Some(&who));
    assert!(worse < earned && worse > 0.5);
    assert!((score(&book, 4, Some(&who)) - worse).abs() < 1e-9);
}

#[test]
fn what_a_key_does_without_a_credential_is_its_own() {
    let mut book = empty(&rules(|_| {}));
    let who = member(1);
    offend(
        &mut book,
        &Party::Peer(peer(1)),
        None,
        Severity::BadCredential,
    );
    assert_eq!(ban_of(&book, &who), None);
    assert!(book.account(&Party::Subject(who.clone())).is_none());
    assert!((score(&book, 2, Some(&who)) - 0.5).abs() < 1e-9);
    // Nor is a member charged without a key that did it.
    let named = Party::Subject(who.clone());
    assert_eq!(
        book.apply(charge(&named, None, Severity::InvalidMessage), START),
        []
    );
    // A charge against an address names no member, whatever it says.
    book.apply(
        Input::Charge {
            party: Party::Address(address(1)),
            subject: Some(who.clone()),
            address: None,
            severity: Severity::HandshakeAbuse,
            evidence: "test".to_owned(),
            summed: false,
        },
        START,
    );
    assert!(book.account(&Party::Subject(who)).is_none());
}

#[test]
fn probation_is_the_members_by_a_new_key_as_well() {
    let mut book = empty(&rules(|_| {}));
    let who = member(1);
    offend_by(&mut book, 1, &who);
    book.apply(Input::Tick, later(HOUR));
    let standing = book.standing_of(&peer(2), Some(&who), later(HOUR));
    assert!(standing.probation && standing.banned_until.is_none());
    book.apply(misdeed(2, &who, Severity::InvalidMessage), later(2 * HOUR));
    assert_eq!(ban_of(&book, &who), Some(later(3 * HOUR)));
    let key = book.standing(&Party::Peer(peer(2)), later(2 * HOUR));
    assert_eq!(key.banned_until, Some(later(3 * HOUR)));
}

#[test]
fn a_key_that_comes_during_a_ban_is_not_worse_off_after_it() {
    let rules = rules(|_| {});
    let mut book = empty(&rules);
    let who = member(1);
    offend_by(&mut book, 1, &who);
    book.apply(misdeed(2, &who, Severity::InvalidMessage), START);
    let end = later(HOUR);
    book.apply(Input::Tick, end);
    let standing = book.standing_of(&peer(2), Some(&who), end);
    assert_eq!(standing.banned_until, None);
    assert!(standing.score > rules.ban_below);
}

#[test]
fn an_operator_bans_and_releases_either_name() {
    let mut book = empty(&rules(|_| {}));
    let who = member(1);
    let subject = Party::Subject(who.clone());
    let (info, effects) = book.ban(subject.clone(), HOUR, "x", START).unwrap();
    assert_eq!(info.party.to_string(), "acme/node-1");
    assert!(effects.contains(&Effect::Persist {
        party: subject.clone(),
        durable: true
    }));
    let barred = |book: &Reputation, by| {
        let standing = book.standing_of(&peer(by), Some(&who), START);
        standing.banned_until.is_some()
    };
    assert!(barred(&book, 1) && barred(&book, 2));
    assert!(book.lift(subject, START).0);
    assert!(!barred(&book, 1));
    book.ban(Party::Peer(peer(1)), HOUR, "x", START).unwrap();
    assert!(barred(&book, 1) && !barred(&book, 2));
    // One of two bans lifted is one ban left.
    offend_by(&mut book, 2, &who);
    assert!(book.lift(Party::Peer(peer(1)), START).0);
    assert!(barred(&book, 1));
}

#[test]
fn one_offender_counts_once_behind_an_address() {
    let mut book = empty(&rules(|r| r.banned_peers_per_address = 2));
    let (who, from) = (member(1), address(1));
    for _ in 0..9 {
        book.apply(
            Input::Charge {
                party: Party::Peer(peer(1)),
                subject: Some(who.clone()),
                address: Some(from),
                severity: Severity::BadCredential,
                evidence: "test".to_owned(),
                summed: false,
            },
            START,
        );
    }
    assert!(ban_of(&book, &who).is_some());
    assert_eq!(book.standings().address_banned(from, START), None);
    book.check_invariants();
}

#[test]
fn keys_push_no_member_out_and_members_no_keys() {
    let mut book = empty(&rules(|r| r.tracked_parties = 2));
    let (first, second) = (member(1), member(2));
    book.apply(misdeed(1, &first, Severity::InvalidMessage), START);
    offend_by(&mut book, 1, &second);
    for n in 3..20 {
        let who = Party::Peer(peer(n));
        offend(&mut book, &who, None, Severity::BadCredential);
        book.check_invariants();
    }
    assert!(book.account(&Party::Subject(first)).is_some());
    assert!(ban_of(&book, &second).is_some());
    let banned = Party::Peer(peer(19));
    assert!(book.standing(&banned, START).banned_until.is_some());
    for n in 3..20 {
        // Whatever members do, by a key that has a place already.
        offend_by(&mut book, 19, &member(n));
        book.check_invariants();
    }
    assert!(book.standing(&banned, START).banned_until.is_some());
}

#[test]
fn the_text_of_a_party_is_read_as_it_is_written() {
    for text in ["acme/node-3", "acme.eu/3", "10.0.0.1/x"] {
        let party: Party = text.parse().unwrap();
        assert!(matches!(party, Party::Subject(_)), "{text}");
        assert_eq!(party.to_string(), text);
        let json = serde_json::to_string(&party).unwrap();
        assert_eq!(json, format!(r#"{{"subject":"{text}"}}"#));
        assert_eq!(serde_json::from_str::<Party>(&json).unwrap(), party);
    }
    for text in [
        "acme/",
        "/node",
        "acme/a/b",
        "Acme/x",
        "acme /x",
        "self/x",
        "self.0a/0a",
        "acme",
        "",
    ] {
        assert!(text.parse::<Party>().is_err(), "{text}");
        let json = format!(r#"{{"subject":"{text}"}}"#);
        assert!(serde_json::from_str::<Party>(&json).is_err(), "{text}");
    }
}

fn identity(by: u8, tier: Tier, issuer: &str, name: &str) -> VerifiedIdentity {
    VerifiedIdentity {
        peer: peer(by),
        tier,
        issuer: issuer.parse().unwrap(),
        anchor: issuer.parse().unwrap(),
        subject: name.parse().unwrap(),
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        expires: later(HOUR),
        credential_hash: [0; 32],
        statuses: Vec::new(),
        pq_auth: false,
        keys: None,
    }
}

#[test]
fn only_a_members_credential_that_stands_makes_its_subject_answer() {
    let of = |tier| identity(1, tier, "acme", "node-1");
    let lasting = |one: &VerifiedIdentity| answers(Some(one), START);
    assert_eq!(lasting(&of(Tier::Member)), Some(member(1)));
    assert_eq!(answers(Some(&of(Tier::Member)), later(HOUR)), None);
    assert_eq!(answers(None, START), None);
    // Whose credential lapsed answers for nothing in its name, and is barred by it.
    assert_eq!(lasting(&of(Tier::RenewalOnly)), None);
    assert_eq!(subject_of(&of(Tier::RenewalOnly)), Some(member(1)));
    for tier in [Tier::Unverified, Tier::Invited, Tier::SelfSigned] {
        assert_eq!(subject_of(&of(tier)), None, "{tier}");
        assert_eq!(lasting(&of(tier)), None, "{tier}");
    }
    // No tier makes a name of those who sign for themselves a subject.
    let own = identity(1, Tier::Member, "self.0a0a", "0a0a");
    assert_eq!(subject_of(&own), None);
}

#[test]
fn the_view_says_where_a_member_stands_and_by_which_name_it_is_barred() {
    let mut book = empty(&rules(|_| {}));
    let by_new_key = identity(2, Tier::Member, "acme", "node-1");
    let other = identity(3, Tier::Member, "acme", "node-2");
    offend_by(&mut book, 1, &member(1));
    let view = book.standings();
    let until = later(HOUR);
    let standing = view.standing_of(&peer(2), Some(&by_new_key), START);
    assert_eq!(standing.unwrap().banned_until, Some(until));
    assert_eq!(
        view.subject_barred(&by_new_key, START),
        Some((member(1), Barred::Until(until)))
    );
    assert_eq!(view.subject_barred(&other, START), None);
    // It ends by itself although nobody publishes then.
    let ended = view.standing_of(&peer(2), Some(&by_new_key), until);
    assert_eq!(ended.unwrap().banned_until, None);
    let unknown = Standings::unknown(rules(|_| {}));
    assert_eq!(
        unknown.standing_of(&peer(2), Some(&by_new_key), START),
        None
    );
}
