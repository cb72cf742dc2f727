//! The shared record of one actor: what its guard, its references and the root know of it.
//!
//! Everything here is small and never held while an actor's code runs, so a stuck actor cannot
//! take anyone else with it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::task::AtomicWaker;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Cause, Fault, FaultReport, lock};
use crate::types::{Clock, Origin};

/// Orders waiting for a guard: one restart, one stop and one stall verdict are all that differ.
const MAX_ORDERS: usize = 4;

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It handles messages.
    Running,
    /// It waits before a restart.
    Backoff,
    /// A new value is being made and started.
    Building,
    /// Its restart budget is spent; it answers nothing any more.
    Down,
    /// It was stopped in order.
    Stopped,
}

impl RunState {
    /// A stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Building => "building",
            Self::Down => "down",
            Self::Stopped => "stopped",
        }
    }

    /// Whether it will never answer again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Down | Self::Stopped)
    }
}

/// One actor as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSnapshot {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: RunState,
    /// Which incarnation is running (or ran last), counted from 1.
    pub generation: u64,
    /// Restarts so far.
    pub restarts: u64,
    /// Restarts so far by cause.
    pub restarts_by_cause: BTreeMap<Cause, u64>,
    /// The last fault.
    pub last_fault: Option<FaultReport>,
    /// Messages waiting.
    pub mailbox: usize,
    /// Messages that may wait.
    pub mailbox_capacity: usize,
    /// How long the running incarnation has been running.
    pub uptime: Duration,
}

/// What the root or an operator wants of a guard.
#[derive(Debug)]
pub(super) enum Order {
    /// Restart, for this reason.
    Restart {
        /// Why, in words.
        detail: String,
        /// A sibling whose next incarnation must run first; `None` when an operator asked.
        after: Option<watch::Receiver<u64>>,
    },
    /// This incarnation makes no progress: replace it.
    Stalled {
        /// The incarnation meant.
        generation: u64,
        /// How long it made none.
        idle: Duration,
    },
    /// Stop in order.
    Stop,
}

impl Order {
    fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A fault an actor declared itself, and whose input it was handling then.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) fault: Fault,
    pub(super) origin: Option<Origin>,
}

#[derive(Debug, Default)]
struct Stats {
    by_cause: BTreeMap<Cause, u64>,
    last_fault: Option<FaultReport>,
    running_since: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: &'static str,
    pub(super) stall: Duration,
    clock: Arc<dyn Clock>,
    state: watch::Sender<RunState>,
    /// The incarnation that runs, 0 before the first.
    running: watch::Sender<u64>,
    /// The incarnation made last.
    generation: AtomicU64,
    /// Set when no message is taken any more; read before each send.
    closed: AtomicBool,
    given_up: AtomicBool,
    stats: Mutex<Stats>,
    waker: AtomicWaker,
    ordered: AtomicBool,
    orders: Mutex<VecDeque<Order>>,
    failed: AtomicBool,
    declared: Mutex<Option<Declared>>,
    handling: Mutex<Option<Origin>>,
    /// Moves whenever the actor gets something done.
    progress: AtomicU64,
    /// Moves whenever the guard is polled.
    beats: AtomicU64,
    /// Whether the guard is being polled at this moment.
    polling: AtomicBool,
}

/// What the stall watch reads of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulse {
    pub(super) state: RunState,
    pub(super) generation: u64,
    pub(super) progress: u64,
    pub(super) beats: u64,
    pub(super) polling: bool,
}

impl Slot {
    pub(super) fn new(name: &'static str, stall: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            stall,
            clock,
            state: watch::Sender::new(RunState::Building),
            running: watch::Sender::new(0),
            generation: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            stats: Mutex::default(),
            waker: AtomicWaker::new(),
            ordered: AtomicBool::new(false),
            orders: Mutex::default(),
            failed: AtomicBool::new(false),
            declared: Mutex::default(),
            handling: Mutex::default(),
            progress: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            polling: AtomicBool::new(false),
        }
    }

    // Used by actor references.

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> RunState {
        *self.state.borrow()
    }

    pub(super) fn states(&self) -> watch::Receiver<RunState> {
        self.state.subscribe()
    }

    pub(super) fn running(&self) -> watch::Receiver<u64> {
        self.running.subscribe()
    }

    pub(super) fn snapshot(&self, mailbox: usize, mailbox_capacity: usize) -> ActorSnapshot {
        let state = self.state();
        let stats = lock(&self.stats);
        let since = stats.running_since.filter(|_| state == RunState::Running);
        ActorSnapshot {
            name: self.name.to_owned(),
            state,
            generation: *self.running.borrow(),
            restarts: stats.by_cause.values().sum(),
            restarts_by_cause: stats.by_cause.clone(),
            last_fault: stats.last_fault.clone(),
            mailbox,
            mailbox_capacity,
            uptime: since.map_or(Duration::ZERO, |since| {
                self.clock.elapsed().saturating_sub(since)
            }),
        }
    }

    // Used by the root and by operators.

    /// Leaves an order for the guard; one of the same kind that still waits is replaced.
    pub(super) fn order(&self, order: Order) {
        {
            let mut orders = lock(&self.orders);
            orders.retain(|waiting| !waiting.same_kind(&order));
            if orders.len() < MAX_ORDERS {
                orders.push_back(order);
            }
            self.ordered.store(true, Ordering::Release);
        }
        self.poke();
    }

    /// Wakes the guard.
    pub(super) fn poke(&self) {
        self.waker.wake();
    }

    pub(super) fn pulse(&self) -> Pulse {
        Pulse {
            state: self.state(),
            generation: self.generation.load(Ordering::Acquire),
            progress: self.progress.load(Ordering::Acquire),
            beats: self.beats.load(Ordering::Acquire),
            polling: self.polling.load(Ordering::Acquire),
        }
    }

    // Used by the incarnation.

    pub(super) fn advance(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }

    /// Declares a fault of incarnation `generation`; the first one counts.
    pub(super) fn declare(&self, generation: u64, fault: Fault) {
        if self.generation.load(Ordering::Acquire) != generation {
            return;
        }
        let origin = *lock(&self.handling);
        lock(&self.declared).get_or_insert(Declared { fault, origin });
        self.failed.store(true, Ordering::Release);
        self.poke();
    }

    pub(super) fn set_handling(&self, origin: Option<Origin>) -> Option<Origin> {
        std::mem::replace(&mut *lock(&self.handling), origin)
    }

    // Used by the guard.

    /// Marks the guard as being polled until the returned scope ends.
    pub(super) fn enter(&self) -> Polling<'_> {
        self.polling.store(true, Ordering::Release);
        self.beats.fetch_add(1, Ordering::AcqRel);
        Polling(self)
    }

    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(super) fn take_order(&self) -> Option<Order> {
        if !self.ordered.load(Ordering::Acquire) {
            return None;
        }
        let mut orders = lock(&self.orders);
        let order = orders.pop_front();
        self.ordered.store(!orders.is_empty(), Ordering::Release);
        order
    }

    /// Whether this incarnation has come to its end and takes no further message.
    pub(super) fn is_over(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.is_given_up()
    }

    /// Whether the actor is down, perhaps because the root said so while its thread was stuck.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(super) fn take_declared(&self) -> Option<Declared> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        self.failed.store(false, Ordering::Release);
        lock(&self.declared).take()
    }

    pub(super) fn begin_build(&self) -> u64 {
        self.set_state(RunState::Building);
        self.advance();
        // What an earlier incarnation declared too late says nothing about this one.
        lock(&self.declared).take();
        self.failed.store(false, Ordering::Release);
        self.generation
            .fetch_add(1, Ordering::AcqRel)
            .wrapping_add(1)
    }

    pub(super) fn current(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The incarnation `generation` is ready for messages.
    pub(super) fn started(&self, generation: u64) {
        lock(&self.stats).running_since = Some(self.clock.elapsed());
        self.set_state(RunState::Running);
        self.running.send_replace(generation);
    }

    pub(super) fn note_fault(&self, report: &FaultReport, restart: bool) {
        let mut stats = lock(&self.stats);
        stats.last_fault = Some(report.clone());
        if restart {
            let count = stats.by_cause.entry(report.cause).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Changes the state; a final one is never left again.
    pub(super) fn set_state(&self, state: RunState) {
        if state.is_final() {
            self.closed.store(true, Ordering::Release);
        }
        if state == RunState::Down {
            self.given_up.store(true, Ordering::Release);
        }
        self.state.send_if_modified(|current| {
            let change = !current.is_final() && *current != state;
            if change {
                *current = state;
            }
            change
        });
    }

    pub(super) fn refuse_messages(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// See [`Slot::enter`].
#[derive(Debug)]
pub(super) struct Polling<'a>(&'a Slot);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.store(false, Ordering::Release);
    }
}
