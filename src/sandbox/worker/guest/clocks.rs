//! The deterministic mode: time that is counted, and randomness from a seed.
//!
//! Each look at a clock brings it a microsecond further, and a sleep brings it to its end at once.
//! So a program's run depends on its module, arguments, input and seed, and on nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{SeedableRng, rngs::ChaCha12Rng};
use wasmtime::{Caller, Extern, Linker};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use super::store::Guest;

/// Where the clocks begin: 2000-01-01T00:00:00Z, in nanoseconds since 1970.
const BEGIN: u64 = 946_684_800_000_000_000;
/// What one look costs, nanoseconds.
const LOOK: u64 = 1_000;

/// Nanoseconds that have passed for the guest.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps(Arc<AtomicU64>);

impl Steps {
    fn look(&self) -> u64 {
        self.0.fetch_add(LOOK, Ordering::SeqCst)
    }

    fn pass(&self, nanos: u64) {
        // Saturating, or a guest could turn time back by sleeping for ever twice.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                Some(now.saturating_add(nanos))
            });
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Wall(Steps);
struct Monotonic(Steps);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(LOOK)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(BEGIN.saturating_add(self.0.look()))
    }
}

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        LOOK
    }

    fn now(&self) -> u64 {
        self.0.look()
    }
}

/// Fixed clocks and seeded randomness.
pub(super) fn make_deterministic(wasi: &mut WasiCtxBuilder, steps: &Steps, seed: u64) {
    wasi.wall_clock(Wall(steps.clone()))
        .monotonic_clock(Monotonic(steps.clone()))
        .secure_random(ChaCha12Rng::seed_from_u64(seed))
        .insecure_random(ChaCha12Rng::seed_from_u64(seed.wrapping_add(1)))
        .insecure_random_seed(u128::from(seed));
}

/// Size of a subscription and of an event, and where their fields lie (WASI preview 1, witx).
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
/// Subscriptions of one call; more is no program that means it.
const MAX_SUBSCRIPTIONS: u32 = 1_024;
const ERRNO_INVAL: i32 = 28;
const ERRNO_FAULT: i32 = 21;

/// Replaces `poll_oneoff`: a clock is waited for by turning it on, everything else is ready.
pub(super) fn sleep_without_waiting(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "poll_oneoff",
        |mut caller: Caller<'_, Guest>, from: u32, to: u32, count: u32, told: u32| -> i32 {
            if count == 0 || count > MAX_SUBSCRIPTIONS {
                return ERRNO_INVAL;
            }
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                return ERRNO_FAULT;
            };
            let (bytes, guest) = memory.data_and_store_mut(&mut caller);
            let Some(steps) = guest.steps.clone() else {
                return ERRNO_INVAL;
            };
            poll(bytes, &steps, (from, to, count, told)).unwrap_or(ERRNO_FAULT)
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// One subscription: what the guest calls it, and what it waits for.
struct Subscription {
    userdata: [u8; 8],
    tag: u8,
    /// Nanoseconds until a clock's subscription is due.
    due: Option<u64>,
}

fn poll(
    bytes: &mut [u8],
    steps: &Steps,
    (from, to, count, told): (u32, u32, u32, u32),
) -> Option<i32> {
    let at = |base: u32, index: usize, size: usize| {
        usize::try_from(base)
            .ok()?
            .checked_add(index.checked_mul(size)?)
    };
    let mut subscriptions = Vec::new();
    for index in 0..usize::try_from(count).ok()? {
        let begin = at(from, index, SUBSCRIPTION)?;
        let raw = bytes.get(begin..begin.checked_add(SUBSCRIPTION)?)?;
        subscriptions.push(subscription(raw, steps)?);
    }
    let ready = |one: &Subscription| one.due.is_none_or(|due| due == 0);
    if !subscriptions.iter().any(ready) {
        let soonest = subscriptions.iter().filter_map(|one| one.due).min()?;
        steps.pass(soonest);
        for one in &mut subscriptions {
            one.due = one.due.map(|due| due.saturating_sub(soonest));
        }
    }
    let mut events = 0_usize;
    for one in subscriptions.iter().filter(|one| ready(one)) {
        let begin = at(to, events, EVENT)?;
        let event = bytes.get_mut(begin..begin.checked_add(EVENT)?)?;
        event.fill(0);
        event.get_mut(..8)?.copy_from_slice(&one.userdata);
        *event.get_mut(10)? = one.tag;
        events = events.checked_add(1)?;
    }
    let begin = usize::try_from(told).ok()?;
    let told = bytes.get_mut(begin..begin.checked_add(4)?)?;
    told.copy_from_slice(&u32::try_from(events).ok()?.to_le_bytes());
    Some(0)
}

fn subscription(raw: &[u8], steps: &Steps) -> Option<Subscription> {
    let number = |from: usize| {
        Some(u64::from_le_bytes(
            raw.get(from..from + 8)?.try_into().ok()?,
        ))
    };
    let tag = *raw.get(8)?;
    let due = if tag == 0 {
        let (clock, timeout) = (*raw.get(16)?, number(24)?);
        let absolute = *raw.get(40)? & 1 == 1;
        let now = if clock == 0 {
            BEGIN.saturating_add(steps.now())
        } else {
            steps.now()
        };
        Some(if absolute {
            timeout.saturating_sub(now)
        } else {
            timeout
        })
    } else {
        None
    };
    Some(Subscription {
        userdata: raw.get(..8)?.try_into().ok()?,
        tag,
        due,
    })
}
