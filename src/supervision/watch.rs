//! The two watching threads: the root's rounds, and the thread that watches the root.
//!
//! Both are plain threads that depend on no runtime, so nothing an actor does can stop them. Time
//! is counted in rounds, not read from a clock: a process that was suspended, or a machine that
//! was too busy to run these threads, makes nobody look hung.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use super::{
    EXIT_ESCALATED, Fault, SupervisionEvent,
    hub::{Child, Hub},
    lock,
    slot::{Order, Pulse, RunState},
};

/// Rounds within a stall limit: a hang is noticed at most an eighth later than its limit.
const ROUNDS: u32 = 8;
/// Shortest and longest round: a round wakes every actor once.
const ROUND: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(500);

/// Why the last resort acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastResort {
    /// The root itself stood still.
    RootStuck,
    /// An actor escalated and nobody took notice.
    EscalationIgnored,
    /// The deadline set by [`Root::end_within`](super::Root::end_within) passed.
    DeadlinePassed {
        /// What the process should exit with.
        code: u8,
    },
}

impl LastResort {
    /// What the process should exit with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::RootStuck | Self::EscalationIgnored => EXIT_ESCALATED,
            Self::DeadlinePassed { code } => code,
        }
    }
}

impl fmt::Display for LastResort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootStuck => "the root of supervision stands still",
            Self::EscalationIgnored => "an actor escalated and nobody stopped the node",
            Self::DeadlinePassed { .. } => "the node did not end within its deadline",
        })
    }
}

/// What the last resort does; by default the process exits with the code it is given.
pub type OnLastResort = Arc<dyn Fn(LastResort) + Send + Sync>;

/// Ends the process.
#[expect(
    clippy::disallowed_methods,
    reason = "the last resort: whoever could return an exit code is stuck"
)]
pub(super) fn exit_process(why: LastResort) {
    tracing::error!(%why, code = why.code(), "ending the process");
    std::process::exit(i32::from(why.code()))
}

/// How one actor looks to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Fine,
    /// Its guard runs, its context waits for something that does not come.
    Hung(Duration),
    /// Its thread does not return from its code.
    Stuck(Duration),
    /// Its thread is held by something that is no actor.
    ThreadGone(Duration),
}

/// What the root remembers of an actor from round to round.
#[derive(Debug, Default)]
pub(super) struct Observation {
    last: Option<Pulse>,
    /// Without progress for so long.
    idle: Duration,
    /// The guard's beats when progress was last seen.
    beats: u64,
    /// Within one and the same poll for so long.
    inside: Duration,
    /// Whether a hang of this incarnation was already acted on.
    told: bool,
}

impl Observation {
    /// Judges what is seen one round after the last. However long the round was, an actor is
    /// looked at [`ROUNDS`] times before it is called hung.
    pub(super) fn judge(&mut self, now: Pulse, round: Duration, limit: Duration) -> Judgement {
        let round = round.min(limit / ROUNDS);
        let Some(last) = self.last.replace(now) else {
            self.beats = now.beats;
            return Judgement::Fine;
        };
        let inside = now.polling && last.polling && now.beats == last.beats;
        self.inside = if inside {
            self.inside.saturating_add(round)
        } else {
            Duration::ZERO
        };
        let waits = now.state.is_final() || (now.state == RunState::Backoff && !now.polling);
        if waits || now.progress != last.progress || now.generation != last.generation {
            *self = Self {
                last: self.last,
                beats: now.beats,
                ..Self::default()
            };
            return Judgement::Fine;
        }
        self.idle = self.idle.saturating_add(round);
        if self.idle < limit {
            return Judgement::Fine;
        }
        if self.inside >= limit {
            return Judgement::Stuck(self.inside);
        }
        if now.beats != self.beats && !now.polling {
            let first = !std::mem::replace(&mut self.told, true);
            return if first {
                Judgement::Hung(self.idle)
            } else {
                Judgement::Fine
            };
        }
        // The thread may be busy with a neighbour, who is judged himself: wait once more.
        if now.beats == self.beats && !now.polling && self.idle >= limit.saturating_mul(2) {
            return Judgement::ThreadGone(self.idle);
        }
        Judgement::Fine
    }
}

/// The root's rounds: wakes every guard, judges what came of it, and acts. Ends when `stop` is
/// disconnected.
pub(super) fn make_rounds(hub: &Hub, stop: &Receiver<()>) {
    let mut seen: Vec<Observation> = Vec::new();
    loop {
        let round = {
            let children = lock(&hub.children);
            let limits = children.iter().map(|child| child.slot.stall);
            round_for(limits.min())
        };
        if !sleep(stop, round) {
            return;
        }
        hub.heartbeat.fetch_add(1, Ordering::AcqRel);
        let children = lock(&hub.children);
        seen.resize_with(children.len(), Observation::default);
        for (child, observation) in children.iter().zip(&mut seen) {
            let slot = &child.slot;
            act_on(
                hub,
                child,
                observation.judge(slot.pulse(), round, slot.stall),
            );
            slot.poke();
        }
    }
}

/// The length of a round, for the shortest stall limit there is.
fn round_for(limit: Option<Duration>) -> Duration {
    // Before the first actor is there, be soon back to see it.
    let wanted = limit.map_or(*ROUND.start(), |limit| limit / ROUNDS);
    wanted.clamp(*ROUND.start(), *ROUND.end())
}

/// `false` when the root is gone.
fn sleep(stop: &Receiver<()>, span: Duration) -> bool {
    matches!(stop.recv_timeout(span), Err(RecvTimeoutError::Timeout))
}

fn act_on(hub: &Hub, child: &Child, judgement: Judgement) {
    let slot = &child.slot;
    let (thread, detail) = match judgement {
        Judgement::Fine => return,
        Judgement::Hung(idle) => {
            hub.emit(SupervisionEvent::Stalled {
                actor: slot.name,
                thread: false,
            });
            slot.order(Order::Stalled {
                generation: slot.current(),
                idle,
            });
            return;
        }
        Judgement::Stuck(span) => ("its own code", span),
        Judgement::ThreadGone(span) => ("something that is no actor", span),
    };
    // A stuck thread cannot be killed, and whatever holds it may yet write: never replaced.
    hub.emit(SupervisionEvent::Stalled {
        actor: slot.name,
        thread: true,
    });
    let fault = Fault::Stall(format!("its thread is stuck in {thread} for {detail:?}"));
    let origin = slot.set_handling(None);
    let report = hub.report(&fault, origin);
    hub.escalate(slot, report);
}

/// A deadline for the end of the process: what is left of it, and the exit code.
pub(super) type Deadline = Arc<Mutex<Option<(Duration, u8)>>>;

/// Watches the root. Ends when `stop` is disconnected, or after it acted.
pub(super) fn watch_root(
    hub: &Hub,
    stop: &Receiver<()>,
    limit: Duration,
    deadline: &Deadline,
    on_last_resort: &OnLastResort,
) {
    let round = round_for(Some(limit));
    let mut beat = hub.heartbeat.load(Ordering::Acquire);
    let mut still = Duration::ZERO;
    let mut ignored = Duration::ZERO;
    loop {
        if !sleep(stop, round) {
            return;
        }
        let now = hub.heartbeat.load(Ordering::Acquire);
        still = if now == beat {
            still.saturating_add(round)
        } else {
            Duration::ZERO
        };
        beat = now;
        if hub.escalation.borrow().is_some() && !hub.acknowledged.load(Ordering::Acquire) {
            ignored = ignored.saturating_add(round);
        }
        let why = if still >= limit {
            LastResort::RootStuck
        } else if ignored >= limit {
            LastResort::EscalationIgnored
        } else if let Some(code) = passed(deadline, round) {
            LastResort::DeadlinePassed { code }
        } else {
            continue;
        };
        on_last_resort(why);
        return;
    }
}

/// Counts `round` off the deadline; the exit code when nothing is left of it.
fn passed(deadline: &Deadline, round: Duration) -> Option<u8> {
    let mut deadline = lock(deadline);
    let (left, code) = deadline.as_mut()?;
    if left.is_zero() {
        return Some(*code);
    }
    *left = left.saturating_sub(round);
    None
}
