//! Each rule of bans and probation; what holds under any inputs is in `properties`.

mod properties;
mod subjects;

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    audit::AuditEvent,
    config::ReputationConfig,
    messages::reputation::Severity,
    types::{Party, PeerId, SubjectId, Timestamp, TrustScore},
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

/// Made once: curve arithmetic in a debug build is slow.
fn peer(n: u8) -> PeerId {
    static PEERS: LazyLock<Vec<PeerId>> = LazyLock::new(|| {
        let key = |n| SigningKey::from_bytes(&[n; 32]).verifying_key();
        (0..20).map(|n| PeerId::from(&key(n))).collect()
    });
    PEERS[usize::from(n)]
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn rules(change: impl FnOnce(&mut ReputationConfig)) -> Arc<ReputationConfig> {
    let mut rules = ReputationConfig::default();
    change(&mut rules);
    Arc::new(rules)
}

fn empty(rules: &Arc<ReputationConfig>) -> Reputation {
    let view = Standings::unknown(Arc::clone(rules));
    Reputation::restore(Arc::clone(rules), [], &view, START, START).0
}

fn charge(who: &Party, from: Option<IpAddr>, severity: Severity) -> Input {
    Input::Charge {
        party: who.clone(),
        subject: None,
        address: from,
        severity,
        evidence: "test".to_owned(),
        summed: false,
    }
}

/// What a member does by a key.
fn misdeed(by: u8, who: &SubjectId, severity: Severity) -> Input {
    Input::Charge {
        party: Party::Peer(peer(by)),
        subject: Some(who.clone()),
        address: None,
        severity,
        evidence: "test".to_owned(),
        summed: false,
    }
}

fn good(by: u8, who: Option<&SubjectId>) -> Input {
    Input::Credit {
        peer: peer(by),
        subject: who.cloned(),
    }
}

/// Charges until the party is banned; how often that took.
fn offend(book: &mut Reputation, who: &Party, from: Option<IpAddr>, severity: Severity) -> u32 {
    let now = book.latest();
    for n in 1..=50 {
        book.apply(charge(who, from, severity), now);
        if book.standing(who, now).banned_until.is_some() {
            return n;
        }
    }
    0
}

fn later(span: Duration) -> Timestamp {
    START.after(span)
}

fn restart(
    book: &Reputation,
    rules: &Arc<ReputationConfig>,
    now: Timestamp,
    saved: bool,
) -> Reputation {
    let view = book.standings();
    let on_disk: Vec<_> = if saved {
        view.accounts()
            .map(|(p, a)| (p.clone(), a.clone()))
            .collect()
    } else {
        Vec::new()
    };
    let published = if saved {
        Standings::unknown(Arc::clone(rules))
    } else {
        view
    };
    Reputation::restore(Arc::clone(rules), on_disk, &published, book.latest(), now).0
}

#[test]
fn the_documented_figures_ban_unknown_peers_as_well() {
    for (severity, times) in [
        (Severity::BadCredential, 5),
        (Severity::HandshakeAbuse, 5),
        (Severity::InvalidMessage, 9),
    ] {
        let mut book = empty(&rules(|_| {}));
        let who = Party::Peer(peer(1));
        assert_eq!(
            offend(&mut book, &who, None, severity),
            times,
            "{severity:?}"
        );
        let until = book.standing(&who, START).banned_until.unwrap();
        assert_eq!(until, later(HOUR));
    }
}

#[test]
fn a_ban_ends_in_probation_and_a_misdeed_there_bans_again() {
    let mut book = empty(&rules(|_| {}));
    let who = Party::Peer(peer(1));
    offend(&mut book, &who, None, Severity::BadCredential);
    // More of the same on its way makes the ban no longer.
    book.apply(charge(&who, None, Severity::BadCredential), later(HOUR / 2));
    assert_eq!(
        book.standing(&who, later(HOUR / 2)).banned_until,
        Some(later(HOUR))
    );

    let effects = book.apply(Input::Tick, later(HOUR));
    let ended = AuditEvent::BanEnded {
        party: who.clone(),
        cause: "expired".to_owned(),
    };
    assert!(effects.contains(&Effect::Audit(ended)));
    assert!(effects.contains(&Effect::Publish));
    let free = book.standing(&who, later(HOUR));
    assert_eq!((free.banned_until, free.probation), (None, true));
    assert!((free.score.get() - 0.3).abs() < 1e-9);

    let effects = book.apply(
        charge(&who, None, Severity::InvalidMessage),
        later(2 * HOUR),
    );
    assert!(effects.contains(&Effect::Persist {
        party: who.clone(),
        durable: true
    }));
    assert_eq!(
        book.standing(&who, later(2 * HOUR)).banned_until,
        Some(later(3 * HOUR))
    );
    // Probation served in good conduct is over.
    book.apply(Input::Tick, later(3 * HOUR));
    let done = later(28 * HOUR);
    assert!(!book.standing(&who, done).probation);
    book.apply(charge(&who, None, Severity::InvalidMessage), done);
    assert_eq!(book.standing(&who, done).banned_until, None);
}

#[test]
fn good_connections_count_once_an_hour_and_not_for_the_banned() {
    let mut book = empty(&rules(|_| {}));
    let who = Party::Peer(peer(1));
    let score = |book: &Reputation, now| book.standing(&who, now).score.get();
    for _ in 0..100 {
        book.apply(good(1, None), START);
    }
    assert!((score(&book, START) - 0.51).abs() < 1e-9);
    book.apply(good(1, None), later(HOUR));
    let twice = score(&book, later(HOUR));
    assert!(twice > 0.519 && twice < 0.52, "{twice}");
    offend(&mut book, &who, None, Severity::BadCredential);
    let effects = book.apply(good(1, None), later(HOUR + HOUR / 2));
    assert!(
        effects.is_empty(),
        "a banned peer gains nothing: {effects:?}"
    );
}

#[test]
fn one_peer_never_bans_its_address_but_several_do() {
    let mut book = empty(&rules(|_| {}));
    let ip = address(1);
    for n in 1..=4 {
        offend(
            &mut book,
            &Party::Peer(peer(n)),
            Some(ip),
            Severity::BadCredential,
        );
    }
    assert_eq!(book.standings().address_banned(ip, START), None);
    // What a key did is never charged to an address directly.
    for severity in [Severity::BadCredential, Severity::InvalidMessage] {
        for _ in 0..50 {
            book.apply(charge(&Party::Address(ip), Some(ip), severity), START);
        }
    }
    assert_eq!(book.standings().address_banned(ip, START), None);
    // The fifth, seen through an IPv4-mapped address.
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
    offend(
        &mut book,
        &Party::Peer(peer(5)),
        Some(mapped),
        Severity::BadCredential,
    );
    let barred = Some(Barred::Until(later(HOUR)));
    assert_eq!(book.standings().address_banned(mapped, START), barred);
    assert_eq!(book.standings().address_banned(address(2), START), None);
    assert_eq!(book.standings().address_banned(ip, later(HOUR)), None);
}

#[test]
fn abuse_before_authentication_bans_the_address() {
    let mut book = empty(&rules(|_| {}));
    let who = Party::Address(address(1));
    assert_eq!(offend(&mut book, &who, None, Severity::HandshakeAbuse), 5);
}

#[test]
fn operators_ban_and_lift() {
    let mut book = empty(&rules(|_| {}));
    let who = Party::Peer(peer(1));
    for span in [Duration::ZERO, MAX_BAN + Duration::from_secs(1)] {
        assert!(matches!(
            book.ban(who.clone(), span, "x", START),
            Err(BanError::Span(_))
        ));
    }
    let (info, effects) = book
        .ban(who.clone(), 5 * HOUR, &"long ".repeat(1_000), START)
        .unwrap();
    assert_eq!(info.until, later(5 * HOUR));
    assert!(info.reason.len() <= 256);
    assert!(effects.contains(&Effect::Persist {
        party: who.clone(),
        durable: true
    }));
    assert_eq!(book.standings().bans(START), vec![info]);
    assert_eq!(book.standings().bans_active(START), 1);
    let (info, _) = book.ban(who.clone(), HOUR, "shorter", START).unwrap();
    assert_eq!(info.until, later(HOUR));
    let (lifted, effects) = book.lift(who.clone(), START);
    assert!(lifted);
    assert!(effects.contains(&Effect::Persist {
        party: who.clone(),
        durable: true
    }));
    assert!(!book.lift(who.clone(), START).0);
    let standing = book.standing(&who, START);
    assert_eq!((standing.banned_until, standing.probation), (None, false));
    // Lifting the ban of a real offender leaves a score that does not ban at once.
    offend(&mut book, &who, None, Severity::BadCredential);
    book.lift(who.clone(), START);
    book.apply(charge(&who, None, Severity::InvalidMessage), START);
    assert_eq!(book.standing(&who, START).banned_until, None);
}

#[test]
fn a_full_table_forgets_the_nearest_to_neutral_and_never_the_banned() {
    let mut book = empty(&rules(|r| r.tracked_parties = 3));
    let all: Vec<_> = (0..20).map(|n| Party::Peer(peer(n))).collect();
    offend(&mut book, &all[0], None, Severity::BadCredential);
    book.apply(charge(&all[1], None, Severity::BadCredential), START);
    book.apply(charge(&all[1], None, Severity::BadCredential), START);
    book.apply(charge(&all[2], None, Severity::InvalidMessage), START);
    // A good word pushes nobody out who is farther from neutral.
    book.apply(good(3, None), START);
    assert!(book.account(&all[3]).is_none() && book.account(&all[2]).is_some());
    // A misdeed does: the nearest goes, the banned stays.
    book.apply(charge(&all[4], None, Severity::InvalidMessage), START);
    assert!(book.account(&all[2]).is_none() && book.account(&all[4]).is_some());
    assert!(book.account(&all[0]).is_some() && book.account(&all[1]).is_some());
    for who in &all[5..] {
        book.apply(charge(who, None, Severity::InvalidMessage), START);
        assert!(book.standing(&all[0], START).banned_until.is_some());
        assert!(book.account(&all[1]).is_some());
        book.check_invariants();
    }
}

#[test]
fn in_a_table_of_bans_the_soonest_to_end_yields_and_operators_never() {
    let mut book = empty(&rules(|r| r.tracked_parties = 2));
    let all: Vec<_> = (0..6).map(|n| Party::Peer(peer(n))).collect();
    offend(&mut book, &all[0], None, Severity::BadCredential);
    book.apply(Input::Tick, later(HOUR / 2));
    offend(&mut book, &all[1], None, Severity::BadCredential);
    let effects = book.apply(
        charge(&all[2], None, Severity::BadCredential),
        later(HOUR / 2),
    );
    let displaced = AuditEvent::BanEnded {
        party: all[0].clone(),
        cause: "displaced".to_owned(),
    };
    assert!(effects.contains(&Effect::Audit(displaced)));
    assert!(
        book.standing(&all[1], later(HOUR / 2))
            .banned_until
            .is_some()
    );
    book.ban(all[3].clone(), HOUR, "x", later(HOUR / 2))
        .unwrap();
    book.ban(all[4].clone(), HOUR, "x", later(HOUR / 2))
        .unwrap();
    // Only operators' bans are left: misdeeds are audited and not remembered, bans refused.
    let effects = book.apply(
        charge(&all[5], None, Severity::BadCredential),
        later(HOUR / 2),
    );
    assert!(matches!(
        effects.as_slice(),
        [Effect::Audit(AuditEvent::Charged { .. })]
    ));
    assert_eq!(
        book.ban(all[5].clone(), HOUR, "x", later(HOUR / 2))
            .unwrap_err(),
        BanError::Full(2)
    );
    assert_eq!(book.standings().bans(later(HOUR / 2)).len(), 2);
}

#[test]
fn a_charge_that_is_in_a_sum_costs_as_much_and_has_no_record() {
    let who = Party::Peer(peer(1));
    let charged = |summed: bool| {
        let mut book = empty(&rules(|_| {}));
        let mut records = 0;
        for _ in 0..3 {
            let mut deed = charge(&who, None, Severity::HandshakeAbuse);
            if let Input::Charge { summed: told, .. } = &mut deed {
                *told = summed;
            }
            let effects = book.apply(deed, START);
            let on_record =
                |effect: &&Effect| matches!(effect, Effect::Audit(AuditEvent::Charged { .. }));
            records += effects.iter().filter(on_record).count();
        }
        (book.standing(&who, START).score, records)
    };
    let ((one_by_one, records), (in_sums, none)) = (charged(false), charged(true));
    assert_eq!((one_by_one, records, none), (in_sums, 3, 0));
}

#[test]
fn a_clock_that_goes_back_makes_time_stand_still() {
    let mut book = empty(&rules(|_| {}));
    let who = Party::Peer(peer(1));
    // The clock was ten years ahead when the ban began.
    let ahead = later(Duration::from_secs(315_360_000));
    book.apply(Input::Tick, ahead);
    offend(&mut book, &who, None, Severity::BadCredential);
    book.apply(Input::Tick, ahead.after(HOUR / 2));
    let effects = book.apply(Input::Tick, START);
    assert!(effects.contains(&Effect::Persist {
        party: who.clone(),
        durable: true
    }));
    assert_eq!(
        book.standing(&who, START).banned_until,
        Some(later(HOUR / 2))
    );
    // The same when it happens while the node is down.
    let mut book = empty(&rules(|_| {}));
    book.apply(Input::Tick, ahead);
    offend(&mut book, &who, None, Severity::BadCredential);
    let rules = rules(|_| {});
    let next = restart(&book, &rules, START, true);
    assert_eq!(next.standing(&who, START).banned_until, Some(later(HOUR)));
}

#[test]
fn what_was_published_and_not_saved_survives_a_restart() {
    let rules = rules(|_| {});
    let mut book = empty(&rules);
    let (old, new) = (Party::Peer(peer(1)), Party::Peer(peer(2)));
    book.ban(old.clone(), HOUR, "x", START).unwrap();
    let disk: Vec<_> = book
        .standings()
        .accounts()
        .map(|(p, a)| (p.clone(), a.clone()))
        .collect();
    offend(&mut book, &new, None, Severity::BadCredential);
    book.lift(old.clone(), later(Duration::from_secs(1)));
    let view = book.standings();
    let (next, effects) =
        Reputation::restore(Arc::clone(&rules), disk, &view, START, book.latest());
    assert!(next.standing(&new, START).banned_until.is_some());
    assert!(next.standing(&old, START).banned_until.is_none());
    assert!(effects.contains(&Effect::Persist {
        party: new.clone(),
        durable: true
    }));
    assert!(effects.contains(&Effect::Publish));
}

#[test]
fn before_the_owner_published_nobody_stands_anywhere() {
    let view = Standings::unknown(rules(|_| {}));
    assert_eq!(view.standing(&peer(1), START), None);
    assert_eq!(
        view.address_banned(address(1), START),
        Some(Barred::Unknown)
    );
    let known = empty(&rules(|_| {})).standings();
    assert_eq!(
        known.standing(&peer(1), START).unwrap().score,
        TrustScore::NEUTRAL
    );
    assert_eq!(known.address_banned(address(1), START), None);
}

#[test]
fn what_says_nothing_any_more_is_forgotten() {
    let mut book = empty(&rules(|_| {}));
    book.apply(
        charge(&Party::Peer(peer(1)), None, Severity::InvalidMessage),
        START,
    );
    let effects = book.apply(Input::Tick, later(24 * 10 * HOUR));
    let gone = Effect::Persist {
        party: Party::Peer(peer(1)),
        durable: false,
    };
    assert!(effects.contains(&gone));
    assert_eq!(book.counts(), (0, 0));
}

#[test]
fn the_saved_form_of_an_account_is_frozen() {
    let account = Account {
        score: TrustScore::try_new(0.25).unwrap(),
        at: START,
        ban: Some(BanRecord {
            since: START,
            until: later(HOUR),
            reason: "test".into(),
            by_operator: true,
            address: Some(address(1)),
        }),
        probation_until: None,
        credited: Some(START),
    };
    let frozen = concat!(
        r#"{"score":0.25,"at":1800000000000,"#,
        r#""ban":{"since":1800000000000,"until":1800003600000,"reason":"test","#,
        r#""by_operator":true,"address":"192.0.2.1"},"#,
        r#""probation_until":null,"credited":1800000000000}"#,
    );
    assert_eq!(serde_json::to_string(&account).unwrap(), frozen);
    assert_eq!(serde_json::from_str::<Account>(frozen).unwrap(), account);
}
