//! Messages whose authors' credentials are not known here, while those are fetched.
//!
//! The neighbour that forwarded a message accepted it, so it knows its author's credential and is
//! asked for it: once for all messages that wait for the same one. What does not come in time is
//! let go, and a neighbour that could not vouch is not asked for the same credential again for a
//! while. Bounded in messages and bytes, of each neighbour and in all.
//!
//! Pure: knows no libp2p, and time is the monotonic time since the start. Owner: the Swarm actor.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::types::PeerId;

/// Messages that may wait. With [`MAX_BYTES`] this bounds the memory.
pub const MAX_PARKED: usize = 1_024;
/// Bytes of messages that may wait: one message of the longest kind fits.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Messages of one neighbour that may wait: a quarter, so that one that forwards nonsense leaves
/// room for others.
pub const MAX_PER_NEIGHBOUR: usize = MAX_PARKED / 4;
/// The same in bytes.
pub const MAX_NEIGHBOUR_BYTES: usize = MAX_BYTES / 2;
/// How long a neighbour that could not vouch for a credential is not asked for it again.
const BARREN_FOR: Duration = Duration::from_secs(30);
/// Such pairs remembered; beyond, a neighbour may be asked once more.
const MAX_BARREN: usize = 4_096;

/// The name of a credential: its SHA-256.
pub type CredentialHash = [u8; 32];

/// What became of a message that was to be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It waits.
    Waits,
    /// There is no room.
    Full,
    /// This neighbour could not vouch for the author a moment ago.
    Barren,
}

#[derive(Debug)]
struct Waiting<M> {
    message: M,
    neighbour: PeerId,
    bytes: usize,
    deadline: Duration,
}

/// What one neighbour forwarded under one credential: each vouches for its own, so that nobody can
/// silence an author by naming its credential and keeping the answer.
#[derive(Debug)]
struct Slot<M> {
    asked: bool,
    messages: Vec<Waiting<M>>,
}

/// See the module.
#[derive(Debug)]
pub struct Parking<M> {
    slots: BTreeMap<(CredentialHash, PeerId), Slot<M>>,
    held: HashMap<PeerId, (usize, usize)>,
    count: usize,
    bytes: usize,
    barren: HashMap<(PeerId, CredentialHash), Duration>,
    patience: Duration,
}

impl<M> Parking<M> {
    /// An empty table in which a message waits at most so long.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            slots: BTreeMap::new(),
            held: HashMap::new(),
            count: 0,
            bytes: 0,
            barren: HashMap::new(),
            patience,
        }
    }

    /// Takes a message of `bytes` bytes, forwarded by `neighbour`, that waits for a credential.
    pub fn park(
        &mut self,
        credential: CredentialHash,
        neighbour: PeerId,
        (message, bytes): (M, usize),
        now: Duration,
    ) -> Parked {
        if self.is_barren(neighbour, credential, now) {
            return Parked::Barren;
        }
        let (count, held) = self.held.get(&neighbour).copied().unwrap_or_default();
        if self.count >= MAX_PARKED
            || self.bytes.saturating_add(bytes) > MAX_BYTES
            || count >= MAX_PER_NEIGHBOUR
            || held.saturating_add(bytes) > MAX_NEIGHBOUR_BYTES
        {
            return Parked::Full;
        }
        let slot = self.slots.entry((credential, neighbour));
        let slot = slot.or_insert_with(|| Slot {
            asked: false,
            messages: Vec::new(),
        });
        slot.messages.push(Waiting {
            message,
            neighbour,
            bytes,
            deadline: now.saturating_add(self.patience),
        });
        self.held.insert(neighbour, (count + 1, held + bytes));
        self.count += 1;
        self.bytes += bytes;
        Parked::Waits
    }

    /// Whom to ask for what: each neighbour once for each credential, at most `most` in one request.
    pub fn requests(&mut self, most: usize) -> Vec<(PeerId, Vec<CredentialHash>)> {
        let mut asks: BTreeMap<PeerId, Vec<CredentialHash>> = BTreeMap::new();
        let new = self.slots.iter_mut().filter(|(_, slot)| !slot.asked);
        for ((credential, neighbour), slot) in new {
            let ask = asks.entry(*neighbour).or_default();
            if ask.len() < most {
                ask.push(*credential);
                slot.asked = true;
            }
        }
        asks.into_iter().collect()
    }

    /// The credential came: what waited for it, whoever forwarded it.
    pub fn take(&mut self, credential: &CredentialHash) -> Vec<M> {
        let slots = self.slots.extract_if(.., |(name, _), _| name == credential);
        let waiting: Vec<_> = slots.flat_map(|(_, slot)| slot.messages).collect();
        self.let_go(waiting)
    }

    fn let_go(&mut self, waiting: Vec<Waiting<M>>) -> Vec<M> {
        for one in &waiting {
            self.free(one.neighbour, one.bytes);
        }
        waiting.into_iter().map(|one| one.message).collect()
    }

    /// The neighbour that was asked could not vouch for it: what it forwarded. `remember`: it said so.
    pub fn failed(
        &mut self,
        neighbour: PeerId,
        credential: CredentialHash,
        remember: bool,
        now: Duration,
    ) -> Vec<M> {
        let key = (credential, neighbour);
        if self.slots.get(&key).is_none_or(|slot| !slot.asked) {
            return Vec::new();
        }
        if remember {
            if self.barren.len() >= MAX_BARREN {
                self.barren.retain(|_, until| *until > now);
            }
            if self.barren.len() < MAX_BARREN {
                let until = now.saturating_add(BARREN_FOR);
                self.barren.insert((neighbour, credential), until);
            }
        }
        let slot = self.slots.remove(&key);
        self.let_go(slot.map(|slot| slot.messages).unwrap_or_default())
    }

    /// What waited too long.
    pub fn expired(&mut self, now: Duration) -> Vec<M> {
        let mut gone = Vec::new();
        for slot in self.slots.values_mut() {
            gone.extend(
                slot.messages
                    .extract_if(.., |waiting| waiting.deadline <= now),
            );
        }
        self.slots.retain(|_, slot| !slot.messages.is_empty());
        gone.iter()
            .for_each(|waiting| self.free(waiting.neighbour, waiting.bytes));
        gone.into_iter().map(|waiting| waiting.message).collect()
    }

    /// Messages and bytes that wait.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn is_barren(&mut self, who: PeerId, credential: CredentialHash, now: Duration) -> bool {
        match self.barren.get(&(who, credential)) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.barren.remove(&(who, credential));
                false
            }
            None => false,
        }
    }

    fn free(&mut self, neighbour: PeerId, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some((count, held)) = self.held.get_mut(&neighbour) {
            *count = count.saturating_sub(1);
            *held = held.saturating_sub(bytes);
            if *count == 0 {
                self.held.remove(&neighbour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn peer(n: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key())
    }

    fn table() -> Parking<u32> {
        Parking::new(PATIENCE)
    }

    fn park(table: &mut Parking<u32>, credential: u8, who: u8, message: u32) -> Parked {
        table.park([credential; 32], peer(who), (message, 10), Duration::ZERO)
    }

    #[test]
    fn a_neighbour_is_asked_once_for_all_that_wait() {
        let mut table = table();
        for message in 0..10 {
            assert_eq!(park(&mut table, 1, 1, message), Parked::Waits);
        }
        park(&mut table, 1, 2, 10);
        park(&mut table, 2, 1, 11);
        let mut asked = table.requests(16);
        asked.sort_by_key(|(_, credentials)| credentials.len());
        assert_eq!(asked[0], (peer(2), vec![[1; 32]]));
        assert_eq!(asked[1], (peer(1), vec![[1; 32], [2; 32]]));
        assert!(table.requests(16).is_empty());
        let mut taken = table.take(&[1; 32]);
        taken.sort_unstable();
        assert_eq!(taken, (0..=10).collect::<Vec<_>>());
        assert_eq!(table.len(), (1, 10));
        assert!(table.take(&[1; 32]).is_empty());
    }

    #[test]
    fn a_request_is_bounded_and_the_rest_is_asked_next() {
        let mut table = table();
        for credential in 0..20 {
            park(&mut table, credential, 1, 0);
        }
        assert_eq!(table.requests(16)[0].1.len(), 16);
        assert_eq!(table.requests(16)[0].1.len(), 4);
    }

    #[test]
    fn who_cannot_vouch_is_not_asked_again_for_a_while_and_others_are() {
        let mut table = table();
        park(&mut table, 1, 1, 7);
        assert!(
            table
                .failed(peer(1), [1; 32], true, Duration::ZERO)
                .is_empty()
        );
        table.requests(16);
        // Only the one that was asked can fail.
        assert!(
            table
                .failed(peer(2), [1; 32], true, Duration::ZERO)
                .is_empty()
        );
        assert_eq!(table.failed(peer(1), [1; 32], true, Duration::ZERO), [7]);
        assert_eq!(park(&mut table, 1, 1, 8), Parked::Barren);
        assert_eq!(park(&mut table, 1, 2, 9), Parked::Waits);
        assert_eq!(table.requests(16), [(peer(2), vec![[1; 32]])]);
        assert_eq!(table.failed(peer(2), [1; 32], false, Duration::ZERO), [9]);
        let later = table.park([1; 32], peer(1), (10, 1), BARREN_FOR);
        assert_eq!(later, Parked::Waits);
    }

    #[test]
    fn what_does_not_come_in_time_is_let_go() {
        let mut table = table();
        park(&mut table, 1, 1, 1);
        let second = Duration::from_secs(1);
        table.park([1; 32], peer(1), (2, 10), second);
        assert!(table.expired(second).is_empty());
        assert_eq!(table.expired(PATIENCE), [1]);
        assert_eq!(table.expired(PATIENCE + second), [2]);
        assert!(table.is_empty() && table.len() == (0, 0));
    }

    #[test]
    fn one_neighbour_leaves_room_for_others() {
        let mut table = table();
        let mut message = 0;
        while park(&mut table, 1, 1, message) == Parked::Waits {
            message += 1;
        }
        assert_eq!(table.len().0, MAX_PER_NEIGHBOUR);
        assert_eq!(park(&mut table, 1, 2, 0), Parked::Waits);
        let big = table.park(
            [2; 32],
            peer(3),
            (0, MAX_NEIGHBOUR_BYTES + 1),
            Duration::ZERO,
        );
        assert_eq!(big, Parked::Full);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_parked_and_not_yet_given_back(
            steps in proptest::collection::vec((0_u8..6, 0_u8..4, 1_u8..4, 0_u64..5), 1..200),
        ) {
            let mut table = table();
            let (mut held, mut now) = (0_usize, Duration::ZERO);
            for (step, credential, who, wait) in steps {
                now += Duration::from_millis(wait * 300);
                let hash = [credential; 32];
                match step {
                    0..=2 => {
                        let parked = table.park(hash, peer(who), (1, 7), now);
                        held += usize::from(parked == Parked::Waits);
                    }
                    3 => held -= table.take(&hash).len(),
                    4 => {
                        table.requests(2);
                        held -= table.failed(peer(who), hash, wait == 1, now).len();
                    }
                    _ => held -= table.expired(now).len(),
                }
                prop_assert_eq!(table.len(), (held, held * 7));
                let own: usize = table.held.values().map(|(count, _)| count).sum();
                prop_assert_eq!(own, held);
            }
        }
    }
}
