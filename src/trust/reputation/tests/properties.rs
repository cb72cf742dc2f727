//! Invariants under any sequence of inputs and clocks.

use proptest::prelude::*;

use super::{subjects::member, *};

#[derive(Debug, Clone)]
enum Step {
    Apply(Input),
    Ban(Party, Duration),
    Lift(Party),
    Restart { saved: bool },
}

fn party() -> impl Strategy<Value = Party> {
    prop_oneof![
        3 => (0_u8..8).prop_map(|n| Party::Peer(peer(n))),
        1 => (0_u8..4).prop_map(|n| Party::Address(address(n))),
        1 => (0_u8..4).prop_map(|n| Party::Subject(member(n))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let severity = prop_oneof![
        Just(Severity::BadCredential),
        Just(Severity::HandshakeAbuse),
        Just(Severity::InvalidMessage),
    ];
    prop_oneof![
        8 => (party(), prop::option::of((0_u8..4).prop_map(address)), severity.clone())
            .prop_map(|(who, from, severity)| Step::Apply(charge(&who, from, severity))),
        2 => (0_u8..8).prop_map(|n| Step::Apply(good(n, None))),
        2 => (0_u8..8, 0_u8..4).prop_map(|(n, who)| Step::Apply(good(n, Some(&member(who))))),
        5 => (0_u8..8, 0_u8..4, severity.clone())
            .prop_map(|(n, who, severity)| Step::Apply(misdeed(n, &member(who), severity))),
        2 => Just(Step::Apply(Input::Tick)),
        1 => (party(), 0_u64..100_000).prop_map(|(who, s)| Step::Ban(who, Duration::from_secs(s))),
        1 => party().prop_map(Step::Lift),
        1 => any::<bool>().prop_map(|saved| Step::Restart { saved }),
    ]
}

/// Mostly small steps forward, sometimes far, sometimes back.
fn clock_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0_i64..600_000,
        2 => 0_i64..90_000_000,
        1 => -100_000_000_i64..0,
        1 => -2_000_i64..2_000,
    ]
}

proptest! {
    /// Any inputs, any clock: scores stay in range, indexes in step, the table bounded; every
    /// ban ends and leaves its party able to connect; a restart changes nothing.
    #[test]
    fn invariants_hold(
        steps in prop::collection::vec((step(), clock_step()), 1..120),
        tracked in 1_usize..12,
    ) {
        let rules = rules(|r| {
            r.tracked_parties = tracked;
            r.banned_peers_per_address = 2;
        });
        let mut book = empty(&rules);
        let mut now = START;
        for (step, clock) in steps {
            now = Timestamp::from_millis(now.millis().saturating_add_signed(clock));
            match step {
                Step::Apply(input) => drop(book.apply(input, now)),
                Step::Ban(who, span) => drop(book.ban(who, span, "test", now)),
                Step::Lift(who) => drop(book.lift(who, now)),
                Step::Restart { saved } => {
                    book.apply(Input::Tick, now);
                    let next = restart(&book, &rules, now, saved);
                    let all = (0..8).map(|n| Party::Peer(peer(n)));
                    let all = all.chain((0..4).map(|n| Party::Subject(member(n))));
                    for who in all.chain((0..4).map(|n| Party::Address(address(n)))) {
                        prop_assert_eq!(book.standing(&who, now), next.standing(&who, now));
                    }
                    book = next;
                }
            }
            book.check_invariants();
            let view = book.standings();
            for n in 0..8 {
                let standing = book.standing(&Party::Peer(peer(n)), now);
                prop_assert!((0.0..=1.0).contains(&standing.score.get()));
                // The view says the same as its owner.
                let seen = view.standing(&peer(n), book.latest());
                prop_assert_eq!(seen, Some(book.standing(&Party::Peer(peer(n)), book.latest())));
            }
        }
        let end = book.latest().after(Duration::from_secs(100_001)).after(HOUR);
        book.apply(Input::Tick, end);
        prop_assert!(book.standings().bans(end).is_empty(), "somebody is banned forever");
        for n in 0..8 {
            let standing = book.standing_of(&peer(n), Some(&member(n % 4)), end);
            prop_assert!(standing.score > rules.ban_below, "banned again for the same");
        }
    }

    /// A new key changes nothing: whatever a member did by one key, it stands by a key that nobody
    /// has seen where it stood, and no better by the old one. Nothing that others do, or that
    /// anybody does without its credential, changes where it stands by the new key.
    #[test]
    fn a_member_stands_where_it_stood(
        steps in prop::collection::vec((step(), clock_step()), 1..60),
        rest in prop::collection::vec(step(), 0..20),
    ) {
        let rules = rules(|_| {});
        let (mut book, who, mut now) = (empty(&rules), member(0), START);
        for (step, clock) in steps {
            now = Timestamp::from_millis(now.millis().saturating_add_signed(clock));
            match step {
                Step::Apply(input) => drop(book.apply(input, now)),
                Step::Ban(who, span) => drop(book.ban(who, span, "test", now)),
                Step::Lift(who) => drop(book.lift(who, now)),
                Step::Restart { .. } => {}
            }
        }
        book.apply(Input::Tick, now);
        let own = |book: &Reputation| book.standing(&Party::Subject(who.clone()), now);
        let before = own(&book);
        for n in 0..8 {
            let old = book.standing_of(&peer(n), Some(&who), now);
            prop_assert!(old.score <= before.score && old.banned_until >= before.banned_until);
        }
        prop_assert_eq!(book.standing_of(&peer(15), Some(&who), now), before);
        // Nothing that names other parties touches it.
        let named = |party: &Party| *party == Party::Subject(who.clone());
        for step in rest {
            match step {
                Step::Apply(Input::Charge { subject: Some(one), .. }) if one == who => {}
                Step::Apply(Input::Credit { subject: Some(one), .. }) if one == who => {}
                Step::Apply(input) => drop(book.apply(input, now)),
                Step::Ban(party, span) if !named(&party) => drop(book.ban(party, span, "x", now)),
                Step::Lift(party) if !named(&party) => drop(book.lift(party, now)),
                _ => {}
            }
        }
        prop_assert_eq!(own(&book), before, "others moved it");
    }

    /// Decay is monotone toward neutral, never crosses it, and halves in a half-life.
    #[test]
    fn decay_goes_to_neutral(
        score in 0.0_f64..=1.0,
        waits in prop::collection::vec(0_u64..200_000_000, 1..20),
    ) {
        let rules = rules(|_| {});
        let neutral = rules.neutral.get();
        let account = Account {
            score: TrustScore::try_new(score).unwrap(),
            at: START,
            ban: None,
            probation_until: None,
            credited: None,
        };
        let mut waits = waits;
        waits.sort_unstable();
        let mut before = (score - neutral).abs();
        for wait in waits {
            let now = START.after(Duration::from_millis(wait));
            let seen = account.standing(now, &rules).score.get();
            let distance = (seen - neutral).abs();
            prop_assert!(distance <= before + 1e-12);
            prop_assert!((seen - neutral) * (score - neutral) >= 0.0, "crossed neutral");
            before = distance;
        }
        let half = account.standing(later(rules.half_life.0), &rules).score.get();
        prop_assert!(((half - neutral) - (score - neutral) / 2.0).abs() < 1e-9);
        // A clock that went back changes nothing.
        let back = Timestamp::from_secs(START.secs() - 1_000_000);
        prop_assert!((account.standing(back, &rules).score.get() - score).abs() < 1e-12);
    }

    /// The order of forgetting is the order of distances, whenever it is asked.
    #[test]
    fn ranks_order_as_distances(
        a in 0.0_f64..=1.0,
        b in 0.0_f64..=1.0,
        gap in 0_u64..400_000_000,
        wait in 0_u64..400_000_000,
    ) {
        let rules = rules(|_| {});
        let made = |score, at| Account {
            score: TrustScore::try_new(score).unwrap(),
            at,
            ban: None,
            probation_until: None,
            credited: None,
        };
        let (a, b) = (made(a, START), made(b, START.after(Duration::from_millis(gap))));
        let now = b.at.after(Duration::from_millis(wait));
        let distance = |x: &Account| {
            (x.standing(now, &rules).score.get() - rules.neutral.get()).abs()
        };
        let (da, db) = (distance(&a), distance(&b));
        if (da - db).abs() > 1e-9 {
            prop_assert_eq!(a.rank(&rules) < b.rank(&rules), da < db);
        }
    }
}
