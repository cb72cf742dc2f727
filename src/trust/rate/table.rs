//! One bounded table of budgets: governor's state store over our own memory.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use governor::{
    InsufficientCapacity, Quota, RateLimiter, clock, middleware::NoOpMiddleware, nanos::Nanos,
    state::StateStore,
};

use crate::types::Clock;

/// Paid debts looked at for each new key: more than one, so that the table shrinks faster than
/// it grows, and few, so that no caller pays for everybody.
const EVICTIONS_PER_INSERT: usize = 4;

/// Something budgets are kept for.
pub(super) trait Key: Clone + Eq + Hash + Ord + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Ord + Send + Sync + 'static> Key for K {}

/// What a full table does with a key it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// All such keys share one budget of the table's quota.
    Share,
    /// Passes: the caller charges a wider budget that holds for them all.
    PassOn,
}

/// governor's clock, fed by ours. `RateLimiter::new` reads it once for its start: until it is
/// armed it reads zero, so that all limiters count from the start of the injected clock and
/// states can be moved between them.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    clock: Arc<dyn Clock>,
    armed: Arc<AtomicBool>,
}

impl Timeline {
    fn nanos(&self) -> u64 {
        nanos(self.clock.elapsed())
    }
}

impl clock::Clock for Timeline {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        if self.armed.load(Ordering::Acquire) {
            Nanos::new(self.nanos())
        } else {
            Nanos::new(0)
        }
    }
}

/// Nanoseconds, capped at 292 years so that sums of two never overflow.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) & (u64::MAX >> 1)
}

/// Theoretical arrival times: until then a key is in debt.
#[derive(Debug)]
struct Slots<K> {
    debts: HashMap<K, u64>,
    /// One entry for each key, never later than its debt; moved on when it comes up.
    expiry: BinaryHeap<Reverse<(u64, K)>>,
    /// Shared by the keys that found the table full.
    overflow: Option<u64>,
    /// Changed or forgotten since they were last taken: at most twice the capacity. What does
    /// not fit is a paid debt that stays in the store until the next start.
    dirty: HashSet<K>,
    overflow_dirty: bool,
}

impl<K: Key> Slots<K> {
    /// Forgets up to `most` keys whose debt is paid; how many it looked at.
    fn evict(&mut self, now: u64, most: usize, capacity: usize) -> usize {
        let mut seen = 0;
        while seen < most {
            match self.expiry.peek() {
                Some(Reverse((due, _))) if *due <= now => {}
                _ => break,
            }
            let Some(Reverse((_, key))) = self.expiry.pop() else {
                break;
            };
            seen += 1;
            match self.debts.get(&key) {
                Some(debt) if *debt > now => self.expiry.push(Reverse((*debt, key))),
                _ => {
                    self.debts.remove(&key);
                    if self.dirty.len() < capacity.saturating_mul(2) {
                        self.dirty.insert(key);
                    }
                }
            }
        }
        seen
    }

    fn set(&mut self, key: K, debt: u64) {
        if self.debts.insert(key.clone(), debt).is_none() {
            self.expiry.push(Reverse((debt, key.clone())));
        }
        self.dirty.insert(key);
    }
}

#[derive(Debug)]
struct Table<K> {
    slots: Mutex<Slots<K>>,
    capacity: usize,
    when_full: WhenFull,
    timeline: Timeline,
}

impl<K: Key> Table<K> {
    /// The lock is held for one lookup. What it guards is changed key by key, so a panic of
    /// another holder leaves it usable.
    fn slots(&self) -> MutexGuard<'_, Slots<K>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// governor wants to own its store; this handle lets the budget keep one too.
#[derive(Debug, Clone)]
struct Shared<K>(Arc<Table<K>>);

impl<K: Key> StateStore for Shared<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let table = &self.0;
        let mut slots = table.slots();
        if let Some(debt) = slots.debts.get(key).copied() {
            let (outcome, next) = f(Some(Nanos::new(debt)))?;
            slots.set(key.clone(), next.as_u64());
            return Ok(outcome);
        }
        slots.evict(table.timeline.nanos(), EVICTIONS_PER_INSERT, table.capacity);
        if slots.debts.len() < table.capacity {
            let (outcome, next) = f(None)?;
            slots.set(key.clone(), next.as_u64());
            return Ok(outcome);
        }
        match table.when_full {
            WhenFull::PassOn => f(None).map(|(outcome, _)| outcome),
            WhenFull::Share => {
                let (outcome, next) = f(slots.overflow.map(Nanos::new))?;
                slots.overflow = Some(next.as_u64());
                slots.overflow_dirty = true;
                Ok(outcome)
            }
        }
    }
}

/// Which debts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// All.
    Debts,
    /// Those that changed since this was last asked.
    Changes,
}

/// Why a budget said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Try again after this long.
    For(Duration),
    /// More than the whole budget: never.
    Always,
}

/// A quota for each key.
#[derive(Debug)]
pub(super) struct Budget<K: Key> {
    limiter: RateLimiter<K, Shared<K>, Timeline, NoOpMiddleware<Nanos>>,
    table: Arc<Table<K>>,
    /// Time in which one unit is replenished.
    interval: Duration,
    /// Most units taken on credit at once; see [`Budget::charge_on_credit`].
    credit: u32,
    /// Time in which the longest debt is paid: a whole budget, or all that is lent at once.
    window: Duration,
}

impl<K: Key> Budget<K> {
    pub(super) fn new(
        quota: Quota,
        capacity: usize,
        when_full: WhenFull,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let armed = Arc::new(AtomicBool::new(false));
        let timeline = Timeline { clock, armed };
        let table = Arc::new(Table {
            slots: Mutex::new(Slots {
                debts: HashMap::new(),
                expiry: BinaryHeap::new(),
                overflow: None,
                dirty: HashSet::new(),
                overflow_dirty: false,
            }),
            capacity,
            when_full,
            timeline: timeline.clone(),
        });
        let limiter = RateLimiter::new(quota, Shared(Arc::clone(&table)), timeline.clone());
        timeline.armed.store(true, Ordering::Release);
        Self {
            limiter,
            table,
            interval: quota.replenish_interval(),
            credit: 0,
            window: quota.burst_size_replenished_in(),
        }
    }

    /// The same, of which up to `most` units can be had on credit at once.
    pub(super) fn lending(mut self, most: u32) -> Self {
        self.credit = most;
        self.window = self.window.max(self.interval.saturating_mul(most));
        self
    }

    /// As [`Budget::charge`]; but what costs more than the whole budget, and no more than is lent,
    /// passes when the budget is full. All of it is owed then: nothing passes until it is paid off
    /// as far as the burst.
    pub(super) fn charge_on_credit(&self, key: &K, cost: NonZeroU32) -> Result<(), Empty> {
        let own = self.charge(key, cost);
        if own != Err(Empty::Always) || cost.get() > self.credit {
            return own;
        }
        let now = self.table.timeline.nanos();
        let owed = nanos(self.interval.saturating_mul(cost.get()));
        Shared(Arc::clone(&self.table)).measure_and_replace(key, |debt| {
            match debt.map_or(0, Nanos::as_u64) {
                debt if debt <= now => Ok(((), Nanos::new(now.saturating_add(owed)))),
                debt => Err(Empty::For(Duration::from_nanos(debt.saturating_sub(now)))),
            }
        })
    }

    /// Takes `cost` from the budget of `key`, or nothing.
    pub(super) fn charge(&self, key: &K, cost: NonZeroU32) -> Result<(), Empty> {
        match self.limiter.check_key_n(key, cost) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let now = clock::Clock::now(self.limiter.clock());
                Err(Empty::For(not_until.wait_time_from(now)))
            }
            Err(InsufficientCapacity(_)) => Err(Empty::Always),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.slots().debts.len()
    }

    /// Forgets paid debts, at most `most` of them.
    pub(super) fn sweep(&self, most: usize) {
        let now = self.table.timeline.nanos();
        self.table.slots().evict(now, most, self.table.capacity);
    }

    /// Debts by key, `None` being the overflow budget: what is left, `None` when it is paid.
    pub(super) fn read(&self, what: Read) -> Vec<(Option<K>, Option<Duration>)> {
        let now = self.table.timeline.nanos();
        let left = |debt: u64| (debt > now).then(|| Duration::from_nanos(debt - now));
        let mut slots = self.table.slots();
        if what == Read::Debts {
            let own = slots
                .debts
                .iter()
                .map(|(key, debt)| (Some(key.clone()), left(*debt)));
            let shared = slots.overflow.map(|debt| (None, left(debt)));
            return own.chain(shared).collect();
        }
        let dirty = std::mem::take(&mut slots.dirty);
        let mut changes: Vec<_> = dirty
            .into_iter()
            .map(|key| {
                let debt = slots.debts.get(&key).copied();
                (Some(key), debt.and_then(left))
            })
            .collect();
        if std::mem::take(&mut slots.overflow_dirty) {
            changes.push((None, slots.overflow.and_then(left)));
        }
        changes
    }

    /// Takes over a debt of `left`, unless a longer one is known. Clamped to the window: no
    /// record, however broken, makes an endless debt.
    pub(super) fn restore(&self, key: Option<K>, left: Duration) {
        let now = self.table.timeline.nanos();
        let left = left.min(self.window);
        if left.is_zero() {
            return;
        }
        let debt = now.saturating_add(nanos(left));
        let mut slots = self.table.slots();
        let known = key.as_ref().and_then(|key| slots.debts.get(key).copied());
        match key {
            Some(key) if known.is_some() || slots.debts.len() < self.table.capacity => {
                slots.set(key, known.unwrap_or_default().max(debt));
            }
            // Without a place of its own it weighs on what the placeless share.
            _ if self.table.when_full == WhenFull::Share => {
                slots.overflow = slots.overflow.max(Some(debt));
                slots.overflow_dirty = true;
            }
            _ => {}
        }
    }
}
