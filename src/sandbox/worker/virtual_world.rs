//! Deterministic mode's time, chance and waiting: the same on every machine, every time.
//!
//! Time begins at one fixed moment and moves by a microsecond at each look, and by as much as a
//! guest waits. Chance is SHA-256 over the seed and a counter. Both are part of what a job's
//! output depends on and must never change for a given version of the receipt's format.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::TryRng;
use sha2::{Digest, Sha256};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// When time begins: 2026-01-01T00:00:00Z, nanoseconds since 1970.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;
/// How far time moves at each look, nanoseconds; also the clocks' resolution.
const STEP_NS: u64 = 1_000;
/// Most subscriptions of one `poll_oneoff`.
const MAX_SUBSCRIPTIONS: u32 = 4_096;

/// Time since the guest began. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    fn look(&self) -> u64 {
        self.0
            .fetch_add(STEP_NS, Ordering::Relaxed)
            .saturating_add(STEP_NS)
    }

    fn advance(&self, span: u64) {
        let later = self.0.load(Ordering::Relaxed).saturating_add(span);
        self.0.store(later, Ordering::Relaxed);
    }
}

impl HostWallClock for VirtualClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(STEP_NS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(EPOCH_NS.saturating_add(self.look()))
    }
}

impl HostMonotonicClock for VirtualClock {
    fn resolution(&self) -> u64 {
        STEP_NS
    }

    fn now(&self) -> u64 {
        self.look()
    }
}

/// Bytes that look random and are not.
#[derive(Debug)]
pub(crate) struct SeededRng {
    seed: u64,
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl SeededRng {
    /// The stream of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            counter: 0,
            block: [0; 32],
            used: 32,
        }
    }

    fn next(&mut self) -> u8 {
        if self.used >= self.block.len() {
            let digest = Sha256::new()
                .chain_update(b"quantraband deterministic randomness 1\0")
                .chain_update(self.seed.to_be_bytes())
                .chain_update(self.counter.to_be_bytes());
            self.block = digest.finalize().into();
            self.counter = self.counter.wrapping_add(1);
            self.used = 0;
        }
        let byte = self.block.get(self.used).copied().unwrap_or_default();
        self.used = self.used.saturating_add(1);
        byte
    }
}

impl TryRng for SeededRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| self.next());
        Ok(())
    }
}

/// WASI's error numbers, as far as they are needed here.
mod errno {
    pub(super) const SUCCESS: i32 = 0;
    pub(super) const BADF: i32 = 8;
    pub(super) const FAULT: i32 = 21;
    pub(super) const INVAL: i32 = 28;
}

/// What one subscription of `poll_oneoff` waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// Nothing: stdin, stdout and stderr are always ready.
    Ready {
        /// The kind of event.
        kind: u8,
    },
    /// A moment of the guest's time, nanoseconds.
    Until(u64),
}

/// `poll_oneoff` of preview 1, in virtual time: nothing sleeps. Answers with an error number.
pub(crate) fn poll_oneoff(
    memory: &mut [u8],
    clock: &VirtualClock,
    [subscriptions, events, count, ready]: [u32; 4],
) -> i32 {
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return errno::INVAL;
    }
    let now = clock.look();
    let mut waits = Vec::new();
    for index in 0..count {
        match subscription(memory, subscriptions, index, now) {
            Ok(wait) => waits.push(wait),
            Err(number) => return number,
        }
    }
    let earliest = waits.iter().map(|(_, wait)| match wait {
        Wait::Ready { .. } => now,
        Wait::Until(moment) => *moment,
    });
    let until = earliest.min().unwrap_or(now).max(now);
    clock.advance(until.saturating_sub(now));
    let mut written: u32 = 0;
    for (userdata, wait) in waits {
        let (kind, available) = match wait {
            Wait::Ready { kind } => (kind, 1),
            Wait::Until(moment) if moment <= until => (0, 0),
            Wait::Until(_) => continue,
        };
        let mut event = [0; 32];
        let (head, tail) = event.split_at_mut(8);
        head.copy_from_slice(&userdata);
        // After the user data: an error of two bytes (none), the kind, and at 8 the bytes that
        // can be read or written.
        if let [_, _, of_kind, _, _, _, _, _, bytes, ..] = tail {
            (*of_kind, *bytes) = (kind, available);
        }
        if put(memory, events, written, &event).is_none() {
            return errno::FAULT;
        }
        written = written.saturating_add(1);
    }
    match put(memory, ready, 0, &written.to_le_bytes()) {
        Some(()) => errno::SUCCESS,
        None => errno::FAULT,
    }
}

/// Reads subscription `index`: its user data and what it waits for.
fn subscription(memory: &[u8], base: u32, index: u32, now: u64) -> Result<([u8; 8], Wait), i32> {
    let bytes: [u8; 48] = take(memory, base, index).ok_or(errno::FAULT)?;
    let number = |at| {
        take(&bytes, at, 0)
            .map(u64::from_le_bytes)
            .unwrap_or_default()
    };
    let word = |at| {
        take(&bytes, at, 0)
            .map(u32::from_le_bytes)
            .unwrap_or_default()
    };
    let userdata = take(&bytes, 0, 0).unwrap_or_default();
    let [kind] = take(&bytes, 8, 0).unwrap_or_default();
    let wait = match (kind, word(16)) {
        (0, clock) => {
            let (timeout, absolute) = (number(24), word(40) & 1 == 1);
            Wait::Until(match (clock, absolute) {
                (0 | 1, false) => now.saturating_add(timeout),
                (0, true) => timeout.saturating_sub(EPOCH_NS),
                (1, true) => timeout,
                _ => return Err(errno::INVAL),
            })
        }
        (1, 0) | (2, 1 | 2) => Wait::Ready { kind },
        (1 | 2, _) => return Err(errno::BADF),
        _ => return Err(errno::INVAL),
    };
    Ok((userdata, wait))
}

/// Element `index` of an array at `base`.
fn take<const N: usize>(memory: &[u8], base: u32, index: u32) -> Option<[u8; N]> {
    let start = usize::try_from(base)
        .ok()?
        .checked_add(usize::try_from(index).ok()?.checked_mul(N)?)?;
    memory.get(start..)?.first_chunk().copied()
}

fn put<const N: usize>(memory: &mut [u8], base: u32, index: u32, bytes: &[u8; N]) -> Option<()> {
    let start = usize::try_from(base)
        .ok()?
        .checked_add(usize::try_from(index).ok()?.checked_mul(N)?)?;
    *memory.get_mut(start..)?.first_chunk_mut()? = *bytes;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;

    fn clock_subscription(userdata: u64, timeout: u64) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[..8].copy_from_slice(&userdata.to_le_bytes());
        bytes[16] = 1;
        bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
        bytes
    }

    #[test]
    fn waiting_moves_time_and_takes_none() {
        let mut memory = vec![0; 256];
        let day = 86_400 * 1_000_000_000;
        memory[..48].copy_from_slice(&clock_subscription(7, day));
        memory[48..96].copy_from_slice(&clock_subscription(8, day - 1));
        let clock = VirtualClock::default();
        assert_eq!(poll_oneoff(&mut memory, &clock, [0, 128, 2, 120]), 0);
        assert_eq!(memory[120..124], 1u32.to_le_bytes());
        assert_eq!(memory[128..136], 8u64.to_le_bytes());
        assert_eq!(HostMonotonicClock::now(&clock), STEP_NS + day - 1 + STEP_NS);
    }

    #[test]
    fn streams_are_ready_at_once() {
        let mut memory = vec![0; 256];
        memory[8] = 2;
        memory[16] = 1;
        memory[48..96].copy_from_slice(&clock_subscription(8, 5));
        let clock = VirtualClock::default();
        assert_eq!(poll_oneoff(&mut memory, &clock, [0, 128, 2, 120]), 0);
        assert_eq!(memory[120..124], 1u32.to_le_bytes());
        assert_eq!(memory[138], 2);
        memory[16] = 9;
        assert_eq!(
            poll_oneoff(&mut memory, &clock, [0, 128, 2, 120]),
            errno::BADF
        );
    }

    #[test]
    fn randomness_is_frozen() {
        let mut bytes = [0; 40];
        SeededRng::new(1).fill_bytes(&mut bytes);
        let again: Vec<u8> = {
            let mut rng = SeededRng::new(1);
            (0..40).map(|_| rng.next()).collect()
        };
        assert_eq!(bytes[..], again[..]);
        assert_eq!(hex::encode(&bytes[..8]), "5bcb6b6580c9c18a");
    }

    proptest! {
        #[test]
        fn any_pointers_are_survived(
            mut memory in prop::collection::vec(any::<u8>(), 0..300),
            a in 0u32..400, b in any::<u32>(), n in 0u32..5, d in 0u32..400,
        ) {
            let _ = poll_oneoff(&mut memory, &VirtualClock::default(), [a, b, n, d]);
            let _ = poll_oneoff(&mut memory, &VirtualClock::default(), [b, a, n, d]);
        }
    }
}
