//! The replay windows between incarnations and over restarts of the node.
//!
//! `docs/decisions/0014-replay-over-restarts.md` says why it is done so. Each incarnation writes the
//! mark before it takes anything, then moves it on from time to time on a thread that may wait for
//! the disk. An orderly stop writes what was taken of each author and takes the mark back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::SwarmActor;
use crate::{
    network::replay::{Floors, ReplayWindows, Writing},
    store::{Batch, Store, StoreError, Tree},
    types::{PeerId, Timestamp},
};

const TREE: &str = "replay";
const TREE_VERSION: u8 = 1;
/// The mark's key, or everybody's floor after an orderly stop; the others are peers.
const ALL: &[u8] = b"*";
/// Most records taken from the store: more than ever are written.
const MAX_RECORDS: usize = 100_000;
/// Floors in one atomic write. Bounds the memory of a save, not what is saved.
const CHUNK: usize = 4_096;

/// What was taken of whom, in memory and on the disk. Made once by the node.
#[derive(Debug)]
pub struct ReplayMemory {
    store: Store,
    tree: Tree<Timestamp>,
    /// Of the incarnation that runs: the next one goes on with it.
    windows: Mutex<ReplayWindows>,
}

impl ReplayMemory {
    /// Reads what the processes before this one left.
    ///
    /// # Errors
    /// As [`Store::tree`] and [`Tree::scan`]: without it nothing could be told from a replay.
    pub fn open(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let tree: Tree<Timestamp> = store.tree(TREE, TREE_VERSION)?;
        let mut floors = Floors::default();
        for (key, floor) in tree.scan(MAX_RECORDS)? {
            match PeerId::from_bytes(&key) {
                Ok(author) if key != ALL => floors.raise(author, floor),
                // A key that is neither is none of ours: it counts for everybody.
                _ => floors.raise_all(floor),
            }
        }
        if floors.cap(now) {
            // In memory alone: should the clock have been right then and be wrong now, the disk
            // still knows it until the next mark is written.
            tracing::error!(
                "the replay marks lie far in the future: this node's clock was ahead once, or is \
                 behind now; messages are refused for some minutes"
            );
        }
        floors.forget(now);
        Ok(Self {
            store: store.clone(),
            tree,
            windows: Mutex::new(ReplayWindows::after(floors)),
        })
    }

    /// The windows. Nobody but the Swarm actor of the moment asks.
    pub(super) fn windows(&self) -> MutexGuard<'_, ReplayWindows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes marks durable, together.
    fn write_marks(&self, writing: &Writing) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(ALL, writing.until);
        for (author, until) in &writing.own {
            batch.put(&author.to_bytes(), *until);
        }
        for author in &writing.gone {
            batch.remove(&author.to_bytes());
        }
        self.tree.apply(&batch)?;
        self.store.flush_durable()
    }

    /// Makes the floors durable, then takes the mark back: a crash in between leaves both.
    fn write_floors(&self, floors: &Floors) -> Result<(), StoreError> {
        let mut stale: Vec<Vec<u8>> = self
            .tree
            .scan(MAX_RECORDS)?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        stale.retain(|key| key != ALL);
        let kept: Vec<(Vec<u8>, Timestamp)> = floors
            .authors()
            .map(|(author, floor)| (author.to_bytes().to_vec(), floor))
            .collect();
        for chunk in stale.chunks(CHUNK) {
            let mut batch = Batch::default();
            chunk.iter().for_each(|key| batch.remove(key));
            self.tree.apply(&batch)?;
        }
        for chunk in kept.chunks(CHUNK) {
            let mut batch = Batch::default();
            chunk.iter().for_each(|(key, floor)| batch.put(key, *floor));
            self.tree.apply(&batch)?;
        }
        self.store.flush_durable()?;
        self.write_marks(&Writing {
            until: floors.all(),
            ..Writing::default()
        })
    }
}

impl SwarmActor {
    /// Before anything is taken.
    pub(super) fn first_mark(&mut self) -> Result<(), StoreError> {
        let (now, elapsed) = (self.tools.clock.now(), self.tools.clock.elapsed());
        if let Some(writing) = self.mark.due(now, elapsed) {
            self.tools.replay.write_marks(&writing)?;
            self.mark.written(true);
        }
        Ok(())
    }

    /// Moves the mark on when it is time, elsewhere: the disk may take a while.
    pub(super) fn move_mark(&mut self, ctx: &mut Context<Self>) {
        let (now, elapsed) = (self.tools.clock.now(), self.tools.clock.elapsed());
        let Some(marks) = self.mark.due(now, elapsed) else {
            return;
        };
        let memory = Arc::clone(&self.tools.replay);
        let writing = tokio::task::spawn_blocking(move || memory.write_marks(&marks));
        ctx.spawn(writing.into_actor(self).map(|written, act, _| {
            let failed = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            act.mark.written(failed.is_none());
            if let Some(error) = failed {
                // Nothing is taken that the disk would not know: it fails closed, and aloud.
                act.incarnation.fail(format!("the replay mark: {error}"));
            }
        }));
    }

    /// Nothing is taken any more; the next process goes on exactly where this one stops.
    pub(super) fn leave_floors(&mut self) {
        self.mark.close();
        let floors = self.tools.replay.windows().floors(self.tools.clock.now());
        if let Err(error) = self.tools.replay.write_floors(&floors) {
            tracing::warn!(%error, "messages sent up to now are refused for some seconds after the next start");
        }
    }
}
