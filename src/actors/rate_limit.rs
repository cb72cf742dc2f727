//! RateLimit: owns the budgets' debts. The checks run in the callers, on the published handle.
//!
//! Before its first message an incarnation restores what is in the store and what the former
//! one's view, which callers charge meanwhile, still knows; of each debt the longer counts. Then
//! it publishes its own limiter.
//!
//! # Invariants
//! - A restart of the actor loses no debt; `kill -9` at most the last second's.
//! - Debts are written in wall-clock time; when that steps, all are written anew.
//!
//! # When it fails
//! Callers go on with the last view. A failing store is a fault: the restart budget decides.
//! Runs on an arbiter of its own, since the store blocks.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, MessageResult};
use serde::Serialize;

use crate::{
    config::LimitsConfig,
    messages::rate_limit::{BudgetUsage, DescribeBudgets, SaveBudgets},
    store::{Batch, Store, StoreError, Tree},
    supervised,
    supervision::{Fault, Incarnation, Supervise},
    trust::rate::{Debt, DebtKey, Limiter},
    types::{Clock, Publisher, Timestamp},
};

/// How often changed debts are written: what `kill -9` can lose.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The wall clock counts as stepped when it disagrees with the other by more in one interval.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Debts in one atomic write. Bounds the memory of a save, not what is saved.
const CHUNK: usize = 4_096;
/// Most records taken from the store; several times what full tables of the default size leave.
const MAX_RECORDS: usize = 1_000_000;
const TREE: &str = "budgets";
const TREE_VERSION: u8 = 1;

/// What an incarnation is made of.
#[derive(Debug, Clone)]
pub struct RateLimitSetup {
    /// The budgets.
    pub limits: LimitsConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where debts are kept.
    pub store: Store,
    /// Where the limiter is published. Its first value should be [`Limiter::closed`].
    pub publisher: Publisher<Limiter>,
}

/// See the module.
pub struct RateLimitActor {
    incarnation: Incarnation,
    setup: RateLimitSetup,
    /// Set by `on_start`.
    running: Option<Running>,
    saved: u64,
    rounds: u64,
}

struct Running {
    limiter: Arc<Limiter>,
    tree: Tree<Debt>,
    /// Both clocks when they were last compared.
    clocks: (Timestamp, Duration),
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct RateLimitState {
    /// How full the tables are.
    pub usage: BudgetUsage,
    /// Changed debts written since this incarnation began.
    pub saved: u64,
    /// How often it looked for changed debts and wrote them.
    pub rounds: u64,
}

impl RateLimitActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: RateLimitSetup) -> Self {
        Self {
            incarnation,
            setup,
            running: None,
            saved: 0,
            rounds: 0,
        }
    }

    fn clocks(&self) -> (Timestamp, Duration) {
        (self.setup.clock.now(), self.setup.clock.elapsed())
    }

    fn restore(&self) -> Result<Running, Fault> {
        let setup = &self.setup;
        let limiter =
            Limiter::new(&setup.limits, Arc::clone(&setup.clock)).map_err(Fault::build)?;
        let tree: Tree<Debt> = setup.store.tree(TREE, TREE_VERSION).map_err(Fault::build)?;
        let records = tree.scan(MAX_RECORDS).map_err(Fault::build)?;
        let now = setup.clock.now();
        let mut stale = Vec::new();
        for (key, debt) in records {
            let name = std::str::from_utf8(&key).ok().and_then(|n| n.parse().ok());
            match name {
                Some(name) if !debt.left(now).is_zero() => limiter.restore([(name, debt)]),
                _ => stale.push(key),
            }
        }
        for chunk in stale.chunks(CHUNK) {
            let mut batch = Batch::default();
            chunk.iter().for_each(|key| batch.remove(key));
            tree.apply(&batch).map_err(Fault::build)?;
            self.incarnation.progress();
        }
        let former = setup.publisher.view().load();
        limiter.restore(former.debts());
        setup.publisher.publish(limiter);
        let limiter = setup.publisher.view().load();
        // What callers charged to the former view between the two lines above.
        limiter.restore(former.debts());
        Ok(Running {
            limiter,
            tree,
            clocks: self.clocks(),
        })
    }

    fn tick(&mut self) {
        if let Some(running) = &self.running {
            running.limiter.sweep();
        }
        if let Err(error) = self.save(false) {
            self.incarnation.fail(error);
        }
    }

    /// Writes what changed, or all of it when the wall clock stepped.
    fn save(&mut self, durable: bool) -> Result<(), StoreError> {
        let (wall, mono) = self.clocks();
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let (wall_before, mono_before) = running.clocks;
        let passed = mono.saturating_sub(mono_before);
        let expected = wall_before.after(passed);
        let stepped = expected.since(wall).max(wall.since(expected)) > CLOCK_STEP;
        running.clocks = (wall, mono);
        let mut changes = running.limiter.take_changes();
        if stepped {
            tracing::warn!(from = %expected, to = %wall, "the clock stepped: saving all debts");
            let all = running.limiter.debts().into_iter();
            changes.extend(all.map(|(key, debt)| (key, Some(debt))));
        }
        for chunk in changes.chunks(CHUNK) {
            write(&running.tree, chunk)?;
            self.incarnation.progress();
        }
        let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        self.saved = self.saved.saturating_add(count);
        self.rounds = self.rounds.saturating_add(1);
        if durable {
            self.setup.store.flush_durable()
        } else if changes.is_empty() {
            Ok(())
        } else {
            self.setup.store.flush()
        }
    }
}

fn write(tree: &Tree<Debt>, changes: &[(DebtKey, Option<Debt>)]) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for (key, debt) in changes {
        let key = key.to_string();
        match debt {
            Some(debt) => batch.put(key.as_bytes(), *debt),
            None => batch.remove(key.as_bytes()),
        }
    }
    tree.apply(&batch)
}

impl Actor for RateLimitActor {
    type Context = Context<Self>;
}

supervised!(RateLimitActor);

impl Supervise for RateLimitActor {
    const NAME: &'static str = "rate_limit";
    type Observable = RateLimitState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.running = Some(self.restore()?);
        ctx.run_interval(SAVE_EVERY, |act, _| act.tick());
        Ok(())
    }

    fn observe(&self) -> RateLimitState {
        RateLimitState {
            usage: self.usage(),
            saved: self.saved,
            rounds: self.rounds,
        }
    }

    fn on_stop(&mut self, _: &mut Context<Self>) {
        if let Err(error) = self.save(true) {
            tracing::error!(%error, "debts of the last second are lost");
        }
    }
}

impl RateLimitActor {
    fn usage(&self) -> BudgetUsage {
        let running = self.running.as_ref();
        running.map_or_else(BudgetUsage::default, |running| running.limiter.usage())
    }
}

impl Handler<SaveBudgets> for RateLimitActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: SaveBudgets, _: &mut Context<Self>) -> Self::Result {
        self.save(true).map_err(|error| {
            // What was taken from the limiter and not written is known to the view alone now:
            // the next incarnation takes it from there.
            self.incarnation.fail(&error);
            error.to_string()
        })
    }
}

impl Handler<DescribeBudgets> for RateLimitActor {
    type Result = MessageResult<DescribeBudgets>;

    fn handle(&mut self, _: DescribeBudgets, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.usage())
    }
}
