//! Which connections are closed while the process takes too much memory.
//!
//! Refusing new ones takes nothing back: who is in may go on filling buffers. So some of those
//! that stand are closed, in rounds: strangers first, this node's own dials last, and the newest
//! first, for a crowd that came to fill the memory came lately.
//!
//! What is freed need not go back to the system. Strangers are closed while memory is over the
//! limit; others only while it also still grows, or an allocator that keeps what it has would
//! cost the node all its peers.

use std::time::Duration;

use libp2p::swarm::ConnectionId;

use crate::{audit::Direction, identity::Tier};

/// Between two rounds: a connection that is closed is gone after a quarter of a second at most,
/// and what it held is seen in the next look.
const ROUND: Duration = Duration::from_secs(1);
/// The share of those it may be that goes in one round: an eighth, at least one. All of a crowd
/// are gone within half a minute, and of a few most stay when one was enough.
const SHARE: usize = 8;

/// What a connection is weighed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weighed {
    pub(super) id: ConnectionId,
    pub(super) tier: Tier,
    pub(super) direction: Direction,
    /// Larger: established later.
    pub(super) number: u64,
}

impl Weighed {
    /// Lowest goes first.
    fn rank(&self) -> u8 {
        match (self.tier, self.direction) {
            (Tier::Unverified, Direction::Inbound) => 0,
            (Tier::Invited | Tier::RenewalOnly | Tier::SelfSigned, Direction::Inbound) => 1,
            (Tier::Member, Direction::Inbound) => 2,
            (_, Direction::Outbound) => 3,
        }
    }
}

/// When the last round was, and what it met.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    next: Duration,
    /// Memory at the last round, while it is over the limit.
    before: Option<u64>,
}

impl Rounds {
    /// Those that go now, when `used` bytes are taken and `limit` may be.
    pub(super) fn round(
        &mut self,
        now: Duration,
        (used, limit): (u64, u64),
        mut standing: Vec<Weighed>,
    ) -> Vec<ConnectionId> {
        if used < limit {
            self.before = None;
            return Vec::new();
        }
        if now < self.next {
            return Vec::new();
        }
        self.next = now.saturating_add(ROUND);
        let grows = self.before.is_none_or(|before| used > before);
        self.before = Some(used);
        standing.sort_by_key(|one| (one.rank(), std::cmp::Reverse(one.number)));
        let Some(lowest) = standing.first().map(Weighed::rank) else {
            return Vec::new();
        };
        if lowest > 0 && !grows {
            return Vec::new();
        }
        let those: Vec<_> = standing.iter().filter(|one| one.rank() == lowest).collect();
        let most = those.len().div_ceil(SHARE);
        those.into_iter().take(most).map(|one| one.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(n: usize, tier: Tier, direction: Direction) -> Weighed {
        Weighed {
            id: ConnectionId::new_unchecked(n),
            tier,
            direction,
            number: u64::try_from(n).unwrap(),
        }
    }

    fn round(rounds: &mut Rounds, at: u64, used: u64, all: &[Weighed]) -> Vec<usize> {
        let gone = rounds.round(Duration::from_secs(at), (used, 100), all.to_vec());
        let number = |id| all.iter().position(|one| one.id == id).unwrap();
        gone.into_iter().map(number).collect()
    }

    #[test]
    fn strangers_go_first_and_the_newest_of_them() {
        let mut all = vec![weighed(0, Tier::Member, Direction::Inbound)];
        all.extend((1..=16).map(|n| weighed(n, Tier::Unverified, Direction::Inbound)));
        all.push(weighed(17, Tier::Member, Direction::Outbound));
        let mut rounds = Rounds::default();
        assert!(round(&mut rounds, 0, 99, &all).is_empty());
        assert_eq!(round(&mut rounds, 0, 100, &all), [16, 15]);
        // What was closed had no time to go yet.
        assert!(
            rounds
                .round(Duration::from_millis(999), (200, 100), all.clone())
                .is_empty()
        );
        // Freed or not: strangers go on going.
        assert_eq!(round(&mut rounds, 1, 100, &all), [16, 15]);
        all.drain(1..=16);
        // Members only while it grows, dials last.
        assert!(round(&mut rounds, 2, 100, &all).is_empty());
        assert_eq!(round(&mut rounds, 3, 101, &all), [0]);
        all.remove(0);
        assert!(round(&mut rounds, 4, 101, &all).is_empty());
        assert_eq!(round(&mut rounds, 5, 102, &all), [0]);
        assert!(round(&mut rounds, 6, 200, &[]).is_empty());
    }
}
