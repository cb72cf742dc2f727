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
        assert_eq!(plan.due(now, 0).len(), 1);
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
    let due = plan.due(Duration::ZERO, 0);
    assert_eq!(
        due,
        [Due {
            peer,
            addresses: vec![address(1)]
        }]
    );
    assert!(plan.due(Duration::from_secs(1), 0).is_empty());
    // A dial that is never heard of again does not hang the plan.
    assert_eq!(plan.due(LOST, 0).len(), 1);
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
    assert_eq!(
        plan.due(Duration::ZERO, 0)[0].addresses.len(),
        MAX_ADDRESSES
    );
}

#[test]
fn a_stable_connection_clears_the_failures_and_a_short_one_does_not() {
    let (mut plan, peer) = plan(1);
    waits(&mut plan, &peer, 6, Duration::ZERO);
    let mut now = plan.next_due().unwrap();

    plan.due(now, 0);
    plan.connected(&peer, now);
    assert_eq!((plan.next_due(), plan.missing().count()), (None, 0));
    now += Duration::from_secs(1);
    plan.disconnected(&peer, now);
    // Seventh failure: half of 32 s at least.
    assert!(plan.next_due().unwrap() - now >= Duration::from_secs(16));

    now = plan.next_due().unwrap();
    plan.due(now, 0);
    plan.connected(&peer, now);
    now += STABLE;
    plan.disconnected(&peer, now);
    assert!(plan.next_due().unwrap() - now <= INITIAL);
    assert_eq!(plan.missing().collect::<Vec<_>>(), [peer]);
}

#[test]
fn a_failed_dial_beside_a_standing_connection_changes_nothing() {
    let (mut plan, peer) = plan(1);
    plan.due(Duration::ZERO, 0);
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

#[test]
fn found_peers_are_dialled_while_there_is_room_and_forgotten_when_they_do_not_answer() {
    let mut plan = DialPlan::new(INITIAL, MAX, 1);
    for n in 1..=40 {
        assert!(plan.hint(&address(n)));
        assert!(!plan.hint(&address(n)));
    }
    let kept = plan.add(&address(1)).unwrap();
    assert!(!plan.hint(&address(1)));
    let mut now = Duration::ZERO;
    let first = plan.due(now, 0);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].peer, kept);
    // Three at once, and no more while they are under way; never more than a handful.
    let due = plan.due(now, 3);
    assert_eq!(due.len(), 3);
    assert!(plan.due(now, 3).is_empty());
    assert_eq!(plan.due(now, 1_000).len(), MAX_FOUND_DIALS - 3);
    for one in due {
        plan.failed(&one.peer, now);
    }
    // Everybody else fails too: nobody is left but who is kept.
    for _ in 0..1_000 {
        now += MAX;
        for one in plan.due(now, 1_000) {
            plan.failed(&one.peer, now);
        }
    }
    assert_eq!(plan.found(), 0);
    assert_eq!(plan.knows(&kept), Some(Class::Kept));
}

#[test]
fn found_peers_are_bounded_and_what_is_known_is_not_displaced() {
    let mut plan = DialPlan::new(INITIAL, MAX, 1);
    let mut taken = 0;
    for n in 0..u32::try_from(MAX_FOUND).unwrap() + 100 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        let peer = PeerId::from(&SigningKey::from_bytes(&seed).verifying_key());
        let address = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}").parse().unwrap();
        taken += usize::from(plan.hint(&address));
    }
    assert_eq!((taken, plan.found()), (MAX_FOUND, MAX_FOUND));
    let mut plan = DialPlan::new(INITIAL, MAX, 1);
    let (_, peer) = convert::split_p2p(&address(1));
    for port in 1..100u16 {
        let text = format!("/ip4/10.0.0.1/tcp/{port}/p2p/{}", peer.unwrap());
        let taken = plan.hint(&text.parse().unwrap());
        assert_eq!(taken, usize::from(port) <= MAX_ADDRESSES);
    }
    assert!(!plan.hint(&"/ip4/10.0.0.1/tcp/1".parse().unwrap()));
}
