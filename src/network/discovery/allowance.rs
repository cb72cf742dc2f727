//! [`Allowance`]: how many dials peers may cause, and [`Buckets`], by which that is counted.
//!
//! Pure: time is the clock's `elapsed`. What a peer used up stays used up when it connects anew; it
//! is forgotten when the time has given it back.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use libp2p::swarm::ConnectionId;

use super::Purpose;

/// Dials under way at once that peers caused, all together. Each may go to several addresses.
const MAX_UNDER_WAY: usize = 16;
/// Peers whose use is remembered, of each purpose; beyond it nobody who is not among them may cause
/// a dial. Only members can get here.
const MAX_REMEMBERED: usize = 4_096;

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Time after which it may happen once more.
    pub refill: Duration,
}

/// How often something happened lately, for each of so many.
#[derive(Debug)]
pub struct Buckets<K>(HashMap<K, Duration>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Whether it may happen once more now; if so, it counts. When as many are remembered as can be,
    /// it may not.
    pub fn take(&mut self, key: K, rate: Rate, now: Duration) -> bool {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&key) {
            self.0.retain(|_, until| *until > now);
            if self.0.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        let ahead = rate.refill.saturating_mul(rate.burst.saturating_sub(1));
        // When all of it would be over at an even pace.
        let until = self.0.entry(key).or_default();
        if until.saturating_sub(ahead) > now {
            return false;
        }
        *until = (*until).max(now).saturating_add(rate.refill);
        true
    }
}

impl Rate {
    fn of(purpose: Purpose) -> Self {
        match purpose {
            // One round of hole punching tries three times.
            Purpose::Punch => Self {
                burst: 3,
                refill: Duration::from_secs(20),
            },
            // A peer has a few addresses to be tried, once in a long while.
            Purpose::Probe => Self {
                burst: 4,
                refill: Duration::from_secs(15),
            },
            // Counted by relay: who asked is not known.
            Purpose::Relay => Self {
                burst: 4,
                refill: Duration::from_secs(15),
            },
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Allowance {
    made: Buckets<(libp2p::PeerId, Purpose)>,
    /// At most [`MAX_UNDER_WAY`].
    under_way: HashSet<ConnectionId>,
}

impl Allowance {
    /// Whether `peer` may cause one more dial now; if so, it is under way until [`Allowance::ended`].
    pub fn take(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        purpose: Purpose,
        now: Duration,
    ) -> bool {
        if self.under_way.len() >= MAX_UNDER_WAY {
            return false;
        }
        let good = self.made.take((peer, purpose), Rate::of(purpose), now);
        if good {
            self.under_way.insert(id);
        }
        good
    }

    /// A dial has its end.
    pub fn ended(&mut self, id: ConnectionId) {
        self.under_way.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn a_peer_causes_a_few_dials_a_minute_whatever_it_does() {
        for purpose in [Purpose::Punch, Purpose::Probe, Purpose::Relay] {
            let (peer, other) = (libp2p::PeerId::random(), libp2p::PeerId::random());
            let mut allowance = Allowance::default();
            let mut made = 0;
            // Ten minutes, ten tries a second, each over at once.
            for n in 0..6_000_u32 {
                let now = Duration::from_millis(u64::from(n) * 100);
                let id = id(usize::try_from(n).unwrap());
                made += u32::from(allowance.take(id, peer, purpose, now));
                allowance.ended(id);
            }
            let Rate { burst, refill } = Rate::of(purpose);
            let per_minute = u32::try_from(60 / refill.as_secs()).unwrap();
            assert_eq!(made, burst - 1 + per_minute * 10);
            assert!(allowance.take(id(1), other, purpose, Duration::ZERO));
        }
    }

    #[test]
    fn all_peers_together_have_so_many_under_way() {
        let mut allowance = Allowance::default();
        let take = |allowance: &mut Allowance, n| {
            allowance.take(
                id(n),
                libp2p::PeerId::random(),
                Purpose::Punch,
                Duration::ZERO,
            )
        };
        let taken = (0..100).filter(|n| take(&mut allowance, *n)).count();
        assert_eq!(taken, MAX_UNDER_WAY);
        allowance.ended(id(0));
        assert!(take(&mut allowance, 100));
        assert!(!take(&mut allowance, 101));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_given_back_by_time() {
        let mut allowance = Allowance::default();
        let mut take = |n: usize, now| {
            let peer = libp2p::PeerId::random();
            let taken = allowance.take(id(n), peer, Purpose::Probe, now);
            allowance.ended(id(n));
            taken
        };
        for n in 0..MAX_REMEMBERED {
            assert!(take(n, Duration::ZERO));
        }
        assert!(!take(1, Duration::ZERO));
        assert!(take(1, Duration::from_secs(15)));
    }
}
