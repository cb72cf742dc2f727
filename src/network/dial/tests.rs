use super::*;
use ed25519_dalek::SigningKey;
use libp2p::multiaddr::Protocol;
use proptest::prelude::*;

const INITIAL: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(60);

fn address(n: u8) -> Multiaddr {
    let peer = PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key());
    format!("/ip4/10.0.0.{n}/tcp/4001/p2p/{peer}")
        .parse()
        .unwrap()
}

fn plan(seed: u64) -> (DialPlan, PeerId) {
    let mut plan = DialPlan::new(INITIAL, MAX, seed);
    let peer = plan.add(&address(1)).unwrap();
    (plan, peer)
}

/// The wait that follows each of `failures` failures in a row.
fn waits(plan: &mut DialPlan, peer: &PeerId, failures: usize, mut now: Duration) -> Vec<Duration> {
    let mut waits = Vec::new();
    for _ in 0..failures {
        assert_eq!(plan.due(now).len(), 1);
        plan.failed(peer, now);
        let next = plan.next_due().unwrap();
        waits.push(next - now);
        now = next;
    }
    waits
}

#[test]
fn a_new_peer_is_due_at_once_and_only_once() {
    let (mut plan, peer) = plan(1);
    let due = plan.due(Duration::ZERO);
    assert_eq!(
        due,
        [Due {
            peer,
            addresses: vec![address(1)]
        }]
    );
    assert!(plan.due(Duration::from_secs(1)).is_empty());
    // A dial that is never heard of again does not hang the plan.
    assert_eq!(plan.due(LOST).len(), 1);
}

#[test]
fn an_address_names_its_peer() {
    let mut plan = DialPlan::new(INITIAL, MAX, 1);
    let bare: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
    assert_eq!(plan.add(&bare), Err(PlanError::NoPeer(bare)));
    for port in 1..100u16 {
        let (head, peer) = convert::split_p2p(&address(1));
        let head = head.with(Protocol::Udp(port));
        plan.add(&convert::with_p2p(&head, peer.unwrap())).unwrap();
    }
    assert_eq!(plan.due(Duration::ZERO)[0].addresses.len(), MAX_ADDRESSES);
}

#[test]
fn a_stable_connection_clears_the_failures_and_a_short_one_does_not() {
    let (mut plan, peer) = plan(1);
    waits(&mut plan, &peer, 6, Duration::ZERO);
    let mut now = plan.next_due().unwrap();

    plan.due(now);
    plan.connected(&peer, now);
    assert_eq!((plan.next_due(), plan.missing().count()), (None, 0));
    now += Duration::from_secs(1);
    plan.disconnected(&peer, now);
    // Seventh failure: half of 32 s at least.
    assert!(plan.next_due().unwrap() - now >= Duration::from_secs(16));

    now = plan.next_due().unwrap();
    plan.due(now);
    plan.connected(&peer, now);
    now += STABLE;
    plan.disconnected(&peer, now);
    assert!(plan.next_due().unwrap() - now <= INITIAL);
    assert_eq!(plan.missing().collect::<Vec<_>>(), [peer]);
}

#[test]
fn a_failed_dial_beside_a_standing_connection_changes_nothing() {
    let (mut plan, peer) = plan(1);
    plan.due(Duration::ZERO);
    plan.connected(&peer, Duration::ZERO);
    plan.failed(&peer, Duration::ZERO);
    assert_eq!(plan.next_due(), None);
    // A second report of the connection does not make it younger.
    plan.connected(&peer, STABLE);
    plan.disconnected(&peer, STABLE);
    assert!(plan.next_due().unwrap() - STABLE <= INITIAL);
}

proptest! {
    #[test]
    fn waits_double_with_jitter_up_to_the_cap(seed: u64, failures in 1usize..40) {
        let (mut plan, peer) = plan(seed);
        for (n, wait) in waits(&mut plan, &peer, failures, Duration::ZERO).iter().enumerate() {
            let full = INITIAL.saturating_mul(1 << n.min(20)).min(MAX);
            prop_assert!(*wait <= full && *wait >= full / 2, "{n}: {wait:?}");
        }
    }

    #[test]
    fn the_same_seed_plans_the_same(seed: u64) {
        let run = || {
            let (mut plan, peer) = plan(seed);
            waits(&mut plan, &peer, 8, Duration::ZERO)
        };
        prop_assert_eq!(run(), run());
    }
}
