//! Budgets against a reference model; debts across export, eviction and restart; rotation.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use governor::Quota;
use proptest::prelude::*;

use super::{
    table::{Budget, Empty, WhenFull},
    *,
};
use crate::{
    config::LimitsConfig,
    types::{Clock, ManualClock, PeerId, Source, SubjectId, Timestamp},
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn peer(n: u8) -> PeerId {
    PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
}

fn subject(n: u8) -> SubjectId {
    format!("acme/node-{n}").parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn clock() -> ManualClock {
    ManualClock::at(START)
}

fn limiter(limits: &LimitsConfig, clock: &ManualClock) -> Limiter {
    Limiter::new(limits, Arc::new(clock.clone())).unwrap()
}

/// How many of `tries` connections from `from` pass.
fn passed(limiter: &Limiter, tries: u32, mut from: impl FnMut(u32) -> IpAddr) -> u32 {
    (0..tries)
        .map(|n| u32::from(limiter.admit_connection(from(n)).is_ok()))
        .sum()
}

/// A token bucket in exact integers: what GCRA promises, said plainly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Nanoseconds until it is full again.
    debt: u64,
    at: u64,
}

fn model_charge(
    model: &mut HashMap<u8, Bucket>,
    key: u8,
    cost: u32,
    now: u64,
    (period, burst): (u64, u32),
) -> bool {
    let bucket = model.entry(key).or_insert(Bucket { debt: 0, at: now });
    bucket.debt = bucket.debt.saturating_sub(now - bucket.at);
    bucket.at = now;
    let cost = period * u64::from(cost);
    if bucket.debt + cost > period * u64::from(burst) {
        return false;
    }
    bucket.debt += cost;
    true
}

proptest! {
    /// With room for all keys, each key is a token bucket, whatever is evicted and however
    /// often the debts move to a fresh table meanwhile.
    #[test]
    fn each_key_is_a_token_bucket(
        rate in 1_u32..50,
        burst in 1_u32..30,
        steps in prop::collection::vec((0_u8..5, 1_u32..12, 0_u64..400, 0_u8..10), 1..200),
    ) {
        let clock = clock();
        let quota = Quota::per_second(NonZeroU32::new(rate).unwrap())
            .allow_burst(NonZeroU32::new(burst).unwrap());
        let period = u64::try_from(quota.replenish_interval().as_nanos()).unwrap();
        let fresh = || Budget::new(quota, 5, WhenFull::Share, Arc::new(clock.clone()));
        let mut budget = fresh();
        let mut model = HashMap::new();
        for (key, cost, wait, kind) in steps {
            clock.advance(Duration::from_millis(wait));
            match kind {
                0 => {
                    let next = fresh();
                    for (key, left) in budget.read(table::Read::Debts) {
                        next.restore(key, left.unwrap_or_default());
                    }
                    budget = next;
                }
                1 => budget.sweep(100),
                _ => {}
            }
            let now = u64::try_from(clock.elapsed().as_nanos()).unwrap();
            let cost_nonzero = NonZeroU32::new(cost).unwrap();
            let outcome = budget.charge(&key, cost_nonzero);
            if cost > burst {
                prop_assert_eq!(outcome, Err(Empty::Always));
            } else {
                let wanted = model_charge(&mut model, key, cost, now, (period, burst));
                prop_assert_eq!(outcome.is_ok(), wanted);
                if let Err(Empty::For(wait)) = outcome {
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert!(wait <= quota.burst_size_replenished_in());
                }
            }
            prop_assert!(budget.len() <= 5);
        }
    }

    /// However many keys come, and in whatever order, nobody gets more than its budget plus the
    /// shared one, and the table never holds more than its capacity.
    #[test]
    fn a_small_table_gives_nothing_away(
        keys in prop::collection::vec((0_u8..40, 0_u64..30), 1..400),
    ) {
        let clock = clock();
        let (burst, capacity) = (3_u32, 4_usize);
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(NonZeroU32::new(burst).unwrap());
        let budget = Budget::new(quota, capacity, WhenFull::Share, Arc::new(clock.clone()));
        let mut granted = 0_u64;
        for (key, wait) in keys {
            clock.advance(Duration::from_millis(wait));
            granted += u64::from(budget.charge(&key, NonZeroU32::MIN).is_ok());
            prop_assert!(budget.len() <= capacity);
        }
        // Every place and the shared budget: its burst, and one a second; a place is handed on
        // only when its holder's debt is paid.
        let places = u64::try_from(capacity).unwrap() + 1;
        let bound = places * (u64::from(burst) + clock.elapsed().as_secs() + 1);
        prop_assert!(granted <= bound, "{granted} > {bound}");
    }

    /// A debt written down is read back as long or up to a millisecond longer, whatever the
    /// clock did; never longer than it was, and never beyond the window.
    #[test]
    fn debts_are_clamped(left in 0_u64..600_000, step in -1_000_000_i64..1_000_000) {
        let debt = Debt::new(Duration::from_millis(left), START);
        let now = Timestamp::from_millis(START.millis().checked_add_signed(step).unwrap());
        let read = debt.left(now);
        prop_assert!(read <= Duration::from_millis(left));
        if step <= 0 {
            prop_assert_eq!(read, Duration::from_millis(left), "a step back must not erase it");
        } else {
            let passed = Duration::from_millis(step.unsigned_abs());
            prop_assert_eq!(read, Duration::from_millis(left).saturating_sub(passed));
        }
    }

    #[test]
    fn debt_keys_round_trip(octets: [u8; 16], v4: [u8; 4], prefix in 0_u8..=64, n in 1_u8..9) {
        for key in [
            DebtKey::Address(Some(IpAddr::from(octets))),
            DebtKey::Address(Some(IpAddr::from(v4))),
            DebtKey::Address(None),
            DebtKey::Subnet(networks::around(IpAddr::from(octets), prefix).unwrap()),
            DebtKey::SubnetOverflow(prefix),
            DebtKey::Relay(peer(n)),
            DebtKey::RelayOverflow,
            DebtKey::Connections,
            DebtKey::Author(peer(n)),
            DebtKey::AuthorOverflow,
            DebtKey::Neighbour(peer(n)),
            DebtKey::NeighbourOverflow,
            DebtKey::Requester(peer(n)),
            DebtKey::RequesterOverflow,
            DebtKey::Member(subject(n)),
            DebtKey::MemberOverflow,
            DebtKey::MemberRequester(subject(n)),
            DebtKey::MemberRequesterOverflow,
        ] {
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
}

#[test]
fn defaults_are_the_documented_figures() {
    let clock = clock();
    let limiter = limiter(&LimitsConfig::default(), &clock);
    assert_eq!(passed(&limiter, 500, |_| ip("198.51.100.7")), 100);
    let denial = limiter.admit_connection(ip("198.51.100.7")).unwrap_err();
    assert_eq!(denial.reason, DenialReason::AddressRate);
    let wait = denial.retry_after.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_millis(600),
        "{wait:?}"
    );
    clock.advance(Duration::from_secs(6));
    assert_eq!(passed(&limiter, 500, |_| ip("198.51.100.7")), 10);

    let author = (0..100).filter(|_| limiter.charge_author(peer(1), 1).is_ok());
    assert_eq!(author.count(), 20);
    clock.advance(Duration::from_secs(1));
    assert!(limiter.charge_author(peer(1), 10).is_ok());
    assert_eq!(
        limiter.charge_author(peer(1), 1).unwrap_err().reason,
        DenialReason::AuthorRate
    );
    assert_eq!(
        limiter.charge_author(peer(2), 21).unwrap_err(),
        Denial {
            reason: DenialReason::TooMuchAtOnce,
            retry_after: None
        }
    );

    assert!((0..4).all(|_| limiter.charge_neighbour(peer(1), 10_000_000).is_ok()));
    assert!(limiter.charge_neighbour(peer(1), 10_000_000).is_ok());
    assert_eq!(
        limiter
            .charge_neighbour(peer(1), 10_000_000)
            .unwrap_err()
            .reason,
        DenialReason::NeighbourBytes
    );
}

#[test]
fn the_largest_message_passes_however_slow_the_neighbour() {
    let limits = LimitsConfig {
        bytes_per_second: crate::types::ByteSize(1_000),
        ..LimitsConfig::default()
    };
    let limiter = limiter(&limits, &clock());
    assert!(
        limiter
            .charge_neighbour(peer(1), limits.max_message_size.0 + 1_000)
            .is_ok()
    );
    assert!(limiter.charge_neighbour(peer(1), 100_000).is_err());
}

#[test]
fn subnets_share_and_ipv4_in_ipv6_is_ipv4() {
    let limiter = limiter(&LimitsConfig::default(), &clock());
    let v4 = |n: u32| IpAddr::from([203, 0, 113, u8::try_from(n % 256).unwrap()]);
    assert_eq!(passed(&limiter, 2_000, v4), 400);
    assert_eq!(
        limiter
            .admit_connection(ip("203.0.113.9"))
            .unwrap_err()
            .reason,
        DenialReason::SubnetRate
    );
    assert!(limiter.admit_connection(ip("::ffff:203.0.113.9")).is_err());
    assert!(limiter.admit_connection(ip("203.0.114.9")).is_ok());

    // Rotating within a /64, over the /64s of a /56, over the /56s of a /48.
    let within = |n: u32| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::try_from(n).unwrap()]);
    assert_eq!(passed(&limiter, 2_000, within), 400);
    let over = |n: u32| {
        IpAddr::from([
            0x2001,
            0xdb8,
            1,
            u16::try_from(n % 256).unwrap(),
            0,
            0,
            0,
            1,
        ])
    };
    assert_eq!(passed(&limiter, 4_000, over), 800);
    let wide = |n: u32| IpAddr::from([0x2001, 0xdb8, 2, u16::try_from(n).unwrap(), 0, 0, 0, 1]);
    assert_eq!(passed(&limiter, 4_000, wide), 1_600);
}

#[test]
fn everybody_together_has_a_budget() {
    let limits = LimitsConfig {
        connections_per_minute: 50,
        ..LimitsConfig::default()
    };
    let limiter = limiter(&limits, &clock());
    let anyone = |n: u32| IpAddr::from([10, u8::try_from(n).unwrap(), 0, 1]);
    // A quarter is kept for hosts that members came from lately.
    assert_eq!(passed(&limiter, 200, anyone), 38);
    assert_eq!(
        limiter.admit_connection(None).unwrap_err().reason,
        DenialReason::ConnectionRate
    );
    let member = |n: u8| limiter.admit_from(IpAddr::from([10, n, 0, 1]).into(), true);
    let known = (0..200).filter(|n| member(*n).is_ok());
    assert_eq!(known.count(), 12);
}

#[test]
fn forged_addresses_of_quic_spend_nothing_of_their_victims() {
    let limits = LimitsConfig {
        connections_per_minute_per_address: 5,
        connections_per_minute_per_subnet: 400,
        connections_per_minute: 40,
        exempt_networks: vec!["198.51.100.7/32".to_owned()],
        ..LimitsConfig::default()
    };
    let limiter = limiter(&limits, &clock());
    let forged = |tries: u32, from: fn(u32) -> IpAddr| {
        let mut reasons = (0..tries).filter_map(|n| {
            let source = Source::Unvalidated(from(n));
            limiter.admit_connection(source).err()
        });
        let denied = reasons.next().map(|denial| denial.reason);
        (denied, reasons.count())
    };
    let victim = |_| IpAddr::from([203, 0, 113, 7]);
    let spent = Some(DenialReason::UnvalidatedRate);
    assert_eq!(forged(20, victim), (spent, 14));
    // Nothing of it is the victim's, and a forged address is not exempt.
    assert_eq!(passed(&limiter, 20, victim), 5);
    let exempt = |_| IpAddr::from([198, 51, 100, 7]);
    assert_eq!(forged(20, exempt), (spent, 14));
    // All forged ones together get half of what there is.
    let many = |n: u32| IpAddr::from([10, 0, u8::try_from(n).unwrap(), 1]);
    assert_eq!(forged(200, many), (spent, 200 - 10 - 1));
    let others = |n: u32| IpAddr::from([10, 1, u8::try_from(n).unwrap(), 1]);
    assert_eq!(passed(&limiter, 200, others), 5);
}

#[test]
fn circuits_pay_for_their_relay_and_not_for_its_address() {
    let limits = LimitsConfig {
        connections_per_minute_per_relay: 5,
        ..LimitsConfig::default()
    };
    let (clock, relay) = (clock(), |n| Source::Relay(peer(n)));
    let limiter = limiter(&limits, &clock);
    let passed = |source: Source| {
        let tries = (0..20).map(|_| limiter.admit_connection(source));
        tries.filter(Result::is_ok).count()
    };
    assert_eq!(passed(relay(1)), 5);
    let denial = limiter.admit_connection(relay(1)).unwrap_err();
    assert_eq!(denial.reason, DenialReason::RelayRate);
    // Another relay, and connections of which nothing is known.
    assert_eq!(passed(relay(2)), 5);
    assert_eq!(passed(Source::Unknown), 20);
    assert_eq!(limiter.usage().relays, 2);

    // The debt is kept over a restart.
    let after = Limiter::new(&limits, Arc::new(clock.clone())).unwrap();
    after.restore(limiter.debts());
    assert!(after.admit_connection(relay(1)).is_err());
}

#[test]
fn rotating_addresses_through_a_full_table_gains_nothing() {
    let limits = LimitsConfig {
        tracked_keys: 16,
        connections_per_minute: 1_000_000,
        ..LimitsConfig::default()
    };
    let clock = clock();
    let limiter = limiter(&limits, &clock);
    // An old acquaintance that spent its budget before the flood.
    assert_eq!(passed(&limiter, 200, |_| ip("192.0.2.1")), 100);
    // One connection from each of 60,000 addresses in as many subnets.
    let mut flood = |n: u32| {
        IpAddr::from([
            10,
            u8::try_from(n >> 8).unwrap(),
            u8::try_from(n & 255).unwrap(),
            1,
        ])
    };
    let got = passed(&limiter, 60_000, &mut flood);
    assert!(got <= 16 + 400, "{got} passed");
    assert!(
        limiter.admit_connection(ip("192.0.2.1")).is_err(),
        "its debt was forgotten"
    );
    let usage = limiter.usage();
    assert!(usage.addresses <= 16 && usage.authors <= 16);
    // Keys are cheap to make, too.
    let peers = (0..=255_u8).filter(|n| limiter.charge_author(peer(*n), 20).is_ok());
    assert_eq!(
        peers.count(),
        17,
        "one budget for each place, one for all the others"
    );
    // When the debts are paid there is room again.
    clock.advance(Duration::from_secs(61));
    limiter.sweep();
    assert_eq!(limiter.usage().addresses, 0);
    assert_eq!(passed(&limiter, 200, |_| ip("192.0.2.9")), 100);
}

#[test]
fn exempt_networks_pay_nothing() {
    let limits = LimitsConfig {
        exempt_networks: vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()],
        ..LimitsConfig::default()
    };
    let limiter = limiter(&limits, &clock());
    for exempt in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"] {
        assert_eq!(passed(&limiter, 10_000, |_| ip(exempt)), 10_000);
    }
    assert_eq!(limiter.usage().addresses, 0);
    assert_eq!(passed(&limiter, 1_000, |_| ip("11.0.0.1")), 100);
}

#[test]
fn networks_are_read_strictly() {
    let parse = |text: &str| ExemptNetworks::parse(&[text]);
    let own = parse("192.0.2.7").unwrap();
    assert!(own.contains(ip("192.0.2.7")) && !own.contains(ip("192.0.2.8")));
    assert!(parse("::/0").unwrap().contains(ip("2001:db8::1")));
    assert!(!parse("::/0").unwrap().contains(ip("192.0.2.7")));
    for bad in [
        "",
        "10.0.0.0/33",
        "10.0.0/8",
        "acme",
        "10.0.0.0/",
        "fe80::1%eth0/64",
    ] {
        assert!(matches!(parse(bad), Err(NetworkError::Syntax(_))), "{bad}");
    }
    assert_eq!(
        parse("10.1.2.3/8").unwrap_err(),
        NetworkError::HostBits {
            given: "10.1.2.3/8".to_owned(),
            meant: "10.0.0.0/8".to_owned()
        }
    );
    assert!(matches!(
        parse("::ffff:10.0.0.0/104"),
        Err(NetworkError::Mapped(_))
    ));
    assert!(matches!(
        ExemptNetworks::parse(&vec!["10.0.0.0/8"; 257]),
        Err(NetworkError::TooMany(257))
    ));
}

#[test]
fn debts_move_to_the_next_limiter_and_the_longer_counts() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let old = limiter(&limits, &clock);
    passed(&old, 100, |_| ip("192.0.2.1"));
    old.charge_author(peer(1), 20).unwrap();
    old.charge_neighbour(peer(2), 50_000_000).unwrap();
    let saved = old.debts();
    clock.advance(Duration::from_millis(500));
    // Spent after the save: only the published view knows it.
    old.charge_author(peer(1), 5).unwrap();
    old.charge_author(peer(3), 20).unwrap();

    let next = limiter(&limits, &clock);
    next.restore(saved);
    next.restore(old.debts());
    assert_eq!(
        passed(&next, 10, |_| ip("192.0.2.1")),
        0,
        "500 ms are not enough for one"
    );
    assert!(next.charge_author(peer(1), 1).is_err());
    assert!(next.charge_author(peer(3), 1).is_err());
    assert!(next.charge_neighbour(peer(2), 30_000_000).is_err());
    // An older record never shortens a debt.
    next.restore([(
        DebtKey::Author(peer(3)),
        Debt::new(Duration::from_millis(1), clock.now()),
    )]);
    assert!(next.charge_author(peer(3), 1).is_err());
}

#[test]
fn a_step_of_the_wall_clock_makes_no_endless_debt() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let old = limiter(&limits, &clock);
    passed(&old, 100, |_| ip("192.0.2.1"));
    let saved = old.debts();
    let forever = Debt {
        until: Timestamp::from_millis(u64::MAX),
        at: Timestamp::from_millis(0),
    };
    let other = (DebtKey::Address(Some(ip("192.0.2.2"))), forever);
    // Ten years back.
    clock.step_wall(Timestamp::from_secs(START.secs() - 315_360_000));
    let next = limiter(&limits, &clock);
    next.restore(saved.into_iter().chain([other]));
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert!(
            next.admit_connection(ip(address)).is_err(),
            "{address}: erased"
        );
    }
    // While it runs, steps change nothing at all.
    clock.step_wall(Timestamp::from_secs(START.secs() + 315_360_000));
    assert!(next.admit_connection(ip("192.0.2.1")).is_err());
    clock.advance(Duration::from_secs(60));
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(
            passed(&next, 500, |_| ip(address)),
            100,
            "{address}: endless"
        );
    }
}

#[test]
fn changes_are_told_once_and_paid_debts_as_paid() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let limiter = limiter(&limits, &clock);
    limiter.charge_author(peer(1), 1).unwrap();
    let changes = limiter.take_changes();
    assert_eq!(changes.len(), 1);
    assert!(matches!(changes[0], (DebtKey::Author(p), Some(_)) if p == peer(1)));
    assert!(limiter.take_changes().is_empty());
    clock.advance(Duration::from_secs(1));
    limiter.sweep();
    assert_eq!(
        limiter.take_changes(),
        vec![(DebtKey::Author(peer(1)), None)]
    );
}

#[test]
fn closed_until_its_owner_opens_it() {
    let clock: Arc<dyn Clock> = Arc::new(clock());
    let closed = Limiter::closed(&LimitsConfig::default(), clock).unwrap();
    for denied in [
        closed.admit_connection(ip("192.0.2.1")),
        closed.charge_author(peer(1), 1),
        closed.charge_neighbour(peer(1), 1),
    ] {
        assert_eq!(denied.unwrap_err().reason, DenialReason::NotReady);
    }
}

#[test]
fn a_budget_of_nothing_is_named() {
    let default = LimitsConfig::default;
    for (limits, key) in [
        (
            LimitsConfig {
                messages_per_second: 0,
                ..default()
            },
            "messages_per_second",
        ),
        (
            LimitsConfig {
                tracked_keys: 0,
                ..default()
            },
            "tracked_keys",
        ),
        (
            LimitsConfig {
                message_burst: 0,
                ..default()
            },
            "message_burst",
        ),
        (
            LimitsConfig {
                connections_per_minute: 0,
                ..default()
            },
            "connections_per_minute",
        ),
    ] {
        let error = Limiter::new(&limits, Arc::new(clock())).unwrap_err();
        assert_eq!(error, LimitError::Zero(key));
    }
}

#[test]
fn a_new_key_brings_a_member_no_new_budget() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let old = limiter(&limits, &clock);
    let sent = |limiter: &Limiter, n| {
        (0..1_000)
            .filter(|_| limiter.charge_member(&subject(n), 1).is_ok())
            .count()
    };
    let asked = |limiter: &Limiter, n| {
        (0..1_000)
            .filter(|_| limiter.charge_member_request(&subject(n)).is_ok())
            .count()
    };
    // As much as one key may.
    assert_eq!(
        sent(&old, 1),
        usize::try_from(limits.message_burst).unwrap()
    );
    let burst = usize::try_from(limits.job_request_burst).unwrap();
    assert_eq!(asked(&old, 1), burst);
    // Others have their own, and a restart pays nothing.
    assert!(sent(&old, 2) > 0);
    let next = limiter(&limits, &clock);
    next.restore(old.debts());
    assert_eq!((sent(&next, 1), asked(&next, 1)), (0, 0));
    assert_eq!(asked(&next, 2), burst);
    assert_eq!(
        (next.usage().members, next.usage().member_requesters),
        (2, 2)
    );
}

#[test]
fn a_batch_above_the_burst_passes_now_and_then_and_is_paid_for_as_a_whole() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let own = limiter(&limits, &clock);
    let (rate, burst) = (limits.messages_per_second, limits.message_burst);
    let large = burst * 10;
    // Not while anything is owed.
    own.charge_batch(peer(1), 1).unwrap();
    let denied = own.charge_batch(peer(1), large).unwrap_err();
    assert_eq!(denied.reason, DenialReason::AuthorRate);
    clock.advance(denied.retry_after.unwrap());
    own.charge_batch(peer(1), large).unwrap();
    // Nothing passes until it is paid down to the burst, over a restart, too.
    let next = limiter(&limits, &clock);
    next.restore(own.debts());
    for limiter in [&own, &next] {
        let clock = clock.elapsed();
        assert!(limiter.charge_batch(peer(1), 1).is_err(), "{clock:?}");
    }
    clock.advance(Duration::from_secs(u64::from((large - burst) / rate)));
    assert!(next.charge_batch(peer(1), 1).is_err());
    clock.advance(Duration::from_secs(1));
    next.charge_batch(peer(1), rate).unwrap();
    // Never more than an envelope holds, and nothing on credit where none is given.
    let denied = next.charge_batch(peer(2), 1_025).unwrap_err();
    assert_eq!(denied.reason, DenialReason::TooMuchAtOnce);
    assert!(next.charge_author(peer(2), burst + 1).is_err());
    next.charge_batch(peer(2), 1_024).unwrap();
}

/// Over any stretch, whoever batches gets no more than whoever does not, but one batch.
#[test]
fn credit_brings_no_more_messages_a_second() {
    let (clock, limits) = (clock(), LimitsConfig::default());
    let limiter = limiter(&limits, &clock);
    let mut taken = 0;
    for step in 0..4_000_u32 {
        clock.advance(Duration::from_millis(100));
        for count in [1_024, step % 300 + 1] {
            if limiter.charge_member(&subject(1), count).is_ok() {
                taken += count;
            }
        }
    }
    let fair = limits.messages_per_second * 400;
    assert!(
        (fair / 2..=fair + 1_024).contains(&taken),
        "{taken} of {fair}"
    );
}
