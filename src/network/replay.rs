//! Replayed messages: gossipsub remembers message ids for seconds, a signed message is valid for
//! ever. A window over each author's sequence numbers, and a bound on a message's age, close the
//! gap.
//!
//! The window is that of RFC 6479 (and IPsec, WireGuard): the highest number seen and a bit map
//! of those just below it. Numbers ascend over an author's restarts, since they begin at its
//! clock. What a restart of this node forgets is bounded by [`MAX_AGE`]. Pure: time is an
//! argument; owned by the Swarm actor.

use std::{collections::HashMap, time::Duration};

use crate::types::{PeerId, Timestamp};

/// Numbers below the highest that are told apart: more messages of one author than this are
/// hardly ever under way at once (its budget is tens a second).
const WINDOW: u64 = 128;
/// How far a message's own time may be from this node's clock, in either direction: clocks of
/// organisations differ, and a message may have waited on its way.
pub const MAX_AGE: Duration = Duration::from_secs(300);
/// Authors remembered; about 64 bytes each. When full, the one that was quiet longest is
/// forgotten, whose messages [`MAX_AGE`] then bounds alone.
const MAX_AUTHORS: usize = 16_384;

/// Why a message is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Its author's clock, or the message, is too far from now.
    Time,
    /// Its number was seen, or is too old to tell.
    Replayed,
}

impl Stale {
    /// A stable, bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "stale",
            Self::Replayed => "replayed",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u128,
    last: Timestamp,
}

impl Window {
    fn admit(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let shift = sequence - self.highest;
            let shifted = u32::try_from(shift)
                .ok()
                .and_then(|n| self.seen.checked_shl(n));
            self.seen = shifted.unwrap_or(0) | 1;
            self.highest = sequence;
            return true;
        }
        let back = self.highest - sequence;
        if back >= WINDOW {
            return false;
        }
        let bit = 1_u128 << back;
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

/// The windows of all authors.
#[derive(Debug, Clone, Default)]
pub struct ReplayWindows {
    authors: HashMap<PeerId, Window>,
}

impl ReplayWindows {
    /// Takes note of a message; call it for messages whose signature was checked.
    ///
    /// # Errors
    /// [`Stale`] when it must not be taken (again).
    pub fn admit(
        &mut self,
        author: PeerId,
        sequence: u64,
        sent: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stale> {
        if now.since(sent) > MAX_AGE || sent.since(now) > MAX_AGE {
            return Err(Stale::Time);
        }
        if let Some(window) = self.authors.get_mut(&author) {
            window.last = now;
            return if window.admit(sequence) {
                Ok(())
            } else {
                Err(Stale::Replayed)
            };
        }
        self.make_room(now);
        self.authors.insert(
            author,
            Window {
                highest: sequence,
                seen: 1,
                last: now,
            },
        );
        Ok(())
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.authors.len() < MAX_AUTHORS {
            return;
        }
        // Whoever is older than the bound on age needs no window.
        self.authors
            .retain(|_, window| now.since(window.last) <= MAX_AGE.saturating_mul(2));
        if self.authors.len() >= MAX_AUTHORS
            && let Some(quiet) = self
                .authors
                .iter()
                .min_by_key(|(_, w)| w.last)
                .map(|(a, _)| *a)
        {
            self.authors.remove(&quiet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn author(n: u8) -> PeerId {
        PeerId::from(&SigningKey::from_bytes(&[n; 32]).verifying_key())
    }

    #[test]
    fn what_is_too_old_or_from_the_future_is_stale() {
        let mut windows = ReplayWindows::default();
        for secs in [1_800_000_000 - 301, 1_800_000_000 + 301] {
            let sent = Timestamp::from_secs(secs);
            assert_eq!(windows.admit(author(1), 1, sent, NOW), Err(Stale::Time));
        }
        let sent = Timestamp::from_secs(1_800_000_000 - 299);
        assert_eq!(windows.admit(author(1), 1, sent, NOW), Ok(()));
        assert_eq!(windows.admit(author(1), 1, sent, NOW), Err(Stale::Replayed));
        assert_eq!(
            windows.admit(author(2), 1, sent, NOW),
            Ok(()),
            "authors are apart"
        );
    }

    proptest! {
        /// No number is admitted twice; one within the window of the highest is admitted once.
        #[test]
        fn each_number_at_most_once(numbers in proptest::collection::vec(1000u64..1400, 1..400)) {
            let mut windows = ReplayWindows::default();
            let mut admitted = HashSet::new();
            let mut highest = 0;
            for number in numbers {
                let fresh = windows.admit(author(1), number, NOW, NOW).is_ok();
                let expected = !admitted.contains(&number)
                    && (highest == 0 || number + WINDOW > highest);
                prop_assert_eq!(fresh, expected, "{} after {}", number, highest);
                if fresh {
                    admitted.insert(number);
                }
                highest = highest.max(number);
            }
        }
    }
}
