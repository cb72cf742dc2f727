//! The root: owns the guards, knows every actor's policy, publishes faults, escalates, stops.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use actix::{Arbiter, ArbiterHandle};
use rand::{SeedableRng, rngs::StdRng};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::{
    ActorControl, ActorRef, ActorSnapshot, CoolDowns, Escalation, Fault, Incarnation, Intensity,
    LastResort, OnLastResort, RestartPolicy, Strategy, Supervise, SupervisionEvent,
    actor_ref::Door,
    control::Control,
    guard::Guard,
    hub::{Child, EVENTS, Hub},
    lock,
    mailbox::{Desk, JOBS},
    slot::{RunState, Slot},
    watch::{Deadline, exit_process, make_rounds, watch_root},
};
use crate::{config::SupervisionConfig, types::Clock};

/// Name of the arbiter (and its thread) that actors share.
const SHARED: &str = "shared";

/// Where an actor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// On an arbiter, and so a thread, of its own.
    Own,
    /// On the arbiter shared with others, unless the actor is [`Supervise::EXCLUSIVE`].
    Shared,
}

/// What a root may be told beyond its configuration.
#[derive(Clone)]
pub struct RootOptions {
    /// Whether faults may be injected.
    pub allow_injection: bool,
    /// Who is restarted along with an actor that had a fault.
    pub strategy: Strategy,
    /// Seed of the backoff's jitter; `None` takes one from the operating system.
    pub seed: Option<u64>,
    /// What happens when nothing else helps; ends the process unless replaced by a test.
    pub on_last_resort: OnLastResort,
}

impl Default for RootOptions {
    fn default() -> Self {
        Self {
            allow_injection: false,
            strategy: Strategy::default(),
            seed: None,
            on_last_resort: Arc::new(|why: LastResort| exit_process(why)),
        }
    }
}

impl fmt::Debug for RootOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootOptions")
            .field("allow_injection", &self.allow_injection)
            .field("strategy", &self.strategy)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Actors that did not stop within the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("did not stop in time: {}", .stuck.join(", "))]
pub struct StopError {
    /// Their names.
    pub stuck: Vec<&'static str>,
}

/// The root of supervision. Cheap to clone; when the last clone is gone the stall watch ends,
/// while guards go on restarting their actors.
#[derive(Clone)]
pub struct Root(Arc<Inner>);

struct Inner {
    hub: Arc<Hub>,
    config: SupervisionConfig,
    seed: u64,
    shared: Mutex<Option<ArbiterHandle>>,
    deadline: Deadline,
    /// Disconnected when the root is dropped, which ends its threads.
    _threads: [SyncSender<()>; 2],
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

impl Root {
    /// A root without actors, and the events it publishes. When the events are not received they
    /// are counted ([`dropped_events`](Self::dropped_events)) and dropped.
    #[must_use]
    pub fn new(
        config: &SupervisionConfig,
        clock: Arc<dyn Clock>,
        allow_injection: bool,
    ) -> (Self, mpsc::Receiver<SupervisionEvent>) {
        let options = RootOptions {
            allow_injection,
            ..RootOptions::default()
        };
        Self::with_options(config, clock, options)
    }

    /// As [`new`](Self::new), with more to choose.
    #[must_use]
    pub fn with_options(
        config: &SupervisionConfig,
        clock: Arc<dyn Clock>,
        options: RootOptions,
    ) -> (Self, mpsc::Receiver<SupervisionEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        let hub = Arc::new(Hub {
            cooldowns: Arc::new(CoolDowns::new(&config.cool_down, clock.clone())),
            clock,
            allow_injection: options.allow_injection,
            strategy: options.strategy,
            events,
            dropped_events: AtomicU64::new(0),
            escalation: watch::Sender::new(None),
            acknowledged: AtomicBool::new(false),
            children: Mutex::default(),
            heartbeat: AtomicU64::new(0),
        });
        let deadline = Deadline::default();
        let limit = config.root_stall.0.0;
        let rounds = {
            let hub = hub.clone();
            start_thread("root", move |stop| make_rounds(&hub, stop))
        };
        let watch = {
            let (hub, deadline) = (hub.clone(), deadline.clone());
            let act = options.on_last_resort;
            start_thread("root-watch", move |stop| {
                watch_root(&hub, stop, limit, &deadline, &act);
            })
        };
        let root = Self(Arc::new(Inner {
            hub,
            config: config.clone(),
            seed: options.seed.unwrap_or_else(rand::random),
            shared: Mutex::default(),
            deadline,
            _threads: [rounds, watch],
        }));
        (root, received)
    }

    /// Starts an actor under its own guard. The factory makes a value for each incarnation.
    ///
    /// Must be called inside an actix `System`. An actor whose arbiter cannot be started is down
    /// from the beginning, and escalates.
    pub fn spawn<A, F>(&self, placement: Placement, factory: F) -> ActorRef<A>
    where
        A: Supervise,
        F: FnMut(Incarnation) -> Result<A, Fault> + Send + 'static,
    {
        let policy = self.policy(A::NAME);
        let hub = self.0.hub.clone();
        let slot = Arc::new(Slot::new(A::NAME, policy.stall(), hub.clock.clone()));
        let (letters, letters_in) = mpsc::channel(policy.mailbox());
        let (jobs, jobs_in) = mpsc::channel(JOBS);
        let door = Arc::new(Door {
            slot: slot.clone(),
            hub: hub.clone(),
            letters,
            jobs,
            last_seen: Mutex::default(),
        });
        let own = placement == Placement::Own || A::EXCLUSIVE;
        let arbiter = if own {
            new_arbiter(A::NAME)
        } else {
            self.shared_arbiter()
        };
        let rng = StdRng::seed_from_u64(self.seed_for(A::NAME));
        let started = arbiter.as_ref().is_some_and(|arbiter| {
            let (slot, hub) = (slot.clone(), hub.clone());
            arbiter.spawn_fn(move || {
                let desk = Desk::new(slot, hub, letters_in, jobs_in);
                actix::spawn(Guard::new(desk, factory, Intensity::new(policy), rng));
            })
        });
        if !started {
            let fault = Fault::Build("its arbiter could not be started".to_owned());
            hub.escalate(&slot, hub.report(&fault, None));
        }
        lock(&hub.children).push(Child {
            control: Arc::new(Control(door.clone())),
            slot,
            arbiter: arbiter.filter(|_| own),
        });
        ActorRef(door)
    }

    #[cfg(test)]
    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    fn policy(&self, name: &str) -> RestartPolicy {
        let config = self.0.config.for_actor(name);
        RestartPolicy::try_new(&config).unwrap_or_else(|error| {
            let nearest = RestartPolicy::nearest(&config);
            tracing::error!(actor = name, %error, ?nearest, "invalid restart policy");
            nearest
        })
    }

    /// A seed of the actor's own, so that actors that fail together do not restart together.
    fn seed_for(&self, name: &str) -> u64 {
        name.bytes().fold(self.0.seed, |seed, byte| {
            seed.rotate_left(8).wrapping_mul(31) ^ u64::from(byte)
        })
    }

    fn shared_arbiter(&self) -> Option<ArbiterHandle> {
        let mut shared = lock(&self.0.shared);
        if shared.is_none() {
            *shared = new_arbiter(SHARED);
        }
        shared.clone()
    }

    /// Every actor, in the order they were spawned.
    #[must_use]
    pub fn actors(&self) -> Vec<ActorSnapshot> {
        let children = lock(&self.0.hub.children);
        children
            .iter()
            .map(|child| child.control.snapshot())
            .collect()
    }

    /// What an operator may do with each actor, in the order they were spawned.
    #[must_use]
    pub fn controls(&self) -> Vec<Arc<dyn ActorControl>> {
        let children = lock(&self.0.hub.children);
        children.iter().map(|child| child.control.clone()).collect()
    }

    /// What an operator may do with the actor called `name`.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<Arc<dyn ActorControl>> {
        self.controls()
            .into_iter()
            .find(|control| control.name() == name)
    }

    /// Who is refused because its input was being handled at a fault.
    #[must_use]
    pub fn cooldowns(&self) -> Arc<CoolDowns> {
        self.0.hub.cooldowns.clone()
    }

    /// Events dropped because nobody received them in time.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.0.hub.dropped_events.load(Ordering::Relaxed)
    }

    /// Resolves when an actor cannot be kept running. Whoever awaits it must stop the node: when
    /// nobody does for `supervision.root_stall`, the process is ended.
    pub async fn escalated(&self) -> Escalation {
        let mut escalation = self.0.hub.escalation.subscribe();
        loop {
            let first = escalation.borrow_and_update().clone();
            if let Some(first) = first {
                self.0.hub.acknowledged.store(true, Ordering::Release);
                return first;
            }
            // The sender lives in the hub: never closed.
            let _ = escalation.changed().await;
        }
    }

    /// Has the process end with `code` unless it ended by itself within `span`, whatever is
    /// stuck by then. Called at the beginning of a shutdown; of two deadlines the nearer counts.
    pub fn end_within(&self, span: Duration, code: u8) {
        let mut deadline = lock(&self.0.deadline);
        if deadline.as_ref().is_none_or(|(left, _)| span < *left) {
            *deadline = Some((span, code));
        }
    }

    /// Stops one actor in order: its queue is emptied, then `on_stop` runs. Nothing happens when
    /// there is none of that name.
    ///
    /// # Errors
    /// [`StopError`] when it does not stop within `deadline`.
    pub async fn stop(&self, name: &str, deadline: Duration) -> Result<(), StopError> {
        let found: Vec<_> = {
            let children = lock(&self.0.hub.children);
            let wanted = children.iter().filter(|child| child.slot.name == name);
            wanted.map(Stoppable::of).collect()
        };
        let mut stuck = Vec::new();
        for child in found {
            child.stop(deadline, &mut stuck).await;
        }
        finish(stuck)
    }

    /// Stops every actor, the last spawned first, each within its share of what is left of
    /// `deadline`, so that one that is stuck does not keep the others from stopping in order.
    ///
    /// # Errors
    /// [`StopError`] names those that did not stop.
    pub async fn stop_all(&self, deadline: Duration) -> Result<(), StopError> {
        let clock = self.0.hub.clock.clone();
        let end = clock.elapsed().saturating_add(deadline);
        let children: Vec<_> = {
            let children = lock(&self.0.hub.children);
            children.iter().rev().map(Stoppable::of).collect()
        };
        let mut stuck = Vec::new();
        let mut left = u32::try_from(children.len()).unwrap_or(u32::MAX);
        for child in children {
            let share = end.saturating_sub(clock.elapsed()) / left.max(1);
            left = left.saturating_sub(1);
            child.stop(share, &mut stuck).await;
        }
        if stuck.is_empty()
            && let Some(shared) = lock(&self.0.shared).take()
        {
            shared.stop();
        }
        finish(stuck)
    }
}

fn finish(stuck: Vec<&'static str>) -> Result<(), StopError> {
    if stuck.is_empty() {
        Ok(())
    } else {
        Err(StopError { stuck })
    }
}

/// What is needed to stop a child without holding the list of children.
struct Stoppable {
    control: Arc<dyn ActorControl>,
    slot: Arc<Slot>,
    arbiter: Option<ArbiterHandle>,
}

impl Stoppable {
    fn of(child: &Child) -> Self {
        Self {
            control: child.control.clone(),
            slot: child.slot.clone(),
            arbiter: child.arbiter.clone(),
        }
    }

    async fn stop(self, deadline: Duration, stuck: &mut Vec<&'static str>) {
        if self.slot.state() != RunState::Down
            && tokio::time::timeout(deadline, self.control.stop())
                .await
                .is_err()
        {
            tracing::error!(
                actor = self.slot.name,
                ?deadline,
                "an actor did not stop in time"
            );
            stuck.push(self.slot.name);
            return;
        }
        if let Some(arbiter) = self.arbiter {
            arbiter.stop();
        }
    }
}

/// Starts one of the root's threads.
#[expect(
    clippy::expect_used,
    reason = "at start, before anything is at stake; without its watch no node may run"
)]
fn start_thread(
    name: &str,
    body: impl FnOnce(&std::sync::mpsc::Receiver<()>) + Send + 'static,
) -> SyncSender<()> {
    let (alive, stop) = sync_channel(0);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || body(&stop))
        .expect("the operating system refuses a thread");
    alive
}

/// A new arbiter whose thread bears `name`; `None` when there are no threads left.
fn new_arbiter(name: &'static str) -> Option<ArbiterHandle> {
    let arbiter = Arbiter::try_new()
        .inspect_err(|error| tracing::error!(name, %error, "no thread for an arbiter"))
        .ok()?;
    let handle = arbiter.handle();
    // actix names its threads itself. Only for operators (`top -H`): where there is no /proc, or
    // it cannot be written, nothing is lost.
    handle.spawn_fn(move || {
        let _ = std::fs::write("/proc/thread-self/comm", name);
    });
    Some(handle)
}
