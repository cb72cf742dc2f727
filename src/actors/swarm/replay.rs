//! The replay windows between incarnations and over restarts of the node.
//!
//! `docs/decisions/0014-replay-over-restarts.md` says why it is done so. Each incarnation writes the
//! mark before it takes anything, then moves it on from time to time on a thread that may wait for
//! the disk. An orderly stop writes what was taken of each author and takes the mark back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::SwarmActor;
use crate::{
    network::replay::{Floors, ReplayWindows, Who, Writing},
    store::{Batch, Store, StoreError, Tree},
    types::{PeerId, Timestamp},
};

const TREE: &str = "replay";
const TREE_VERSION: u8 = 2;
/// Most records taken from the store: more than ever are written.
const MAX_RECORDS: usize = 200_000;
/// Floors in one atomic write. Bounds the memory of a save, not what is saved.
const CHUNK: usize = 4_096;

/// Whose floor a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Everybody's: the mark, or what is left of it after an orderly stop.
    All,
    /// Of members, or (`true`) of those without a credential, of whom nothing else is known.
    Others(bool),
    /// One author's.
    Author(Who),
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::All => b"*".to_vec(),
            Self::Others(false) => b"m".to_vec(),
            Self::Others(true) => b"s".to_vec(),
            Self::Author((author, stranger)) => {
                let kind = if stranger { b"s" } else { b"m" };
                [kind, author.to_bytes().as_slice()].concat()
            }
        }
    }

    /// A key that is none of ours counts for everybody.
    fn read(bytes: &[u8]) -> Self {
        let Some((kind, rest)) = bytes.split_first() else {
            return Self::All;
        };
        let stranger = match kind {
            b'm' => false,
            b's' => true,
            _ => return Self::All,
        };
        if rest.is_empty() {
            return Self::Others(stranger);
        }
        PeerId::from_bytes(rest).map_or(Self::All, |author| Self::Author((author, stranger)))
    }
}

/// Who writes, and what for everybody. Held over each write.
#[derive(Debug)]
struct Disk {
    /// The incarnation whose marks are written. What one before it still had under way is not: it
    /// would take back what this one relies on.
    turn: u64,
    /// Everybody's mark: it never goes back but with an orderly stop.
    all: Timestamp,
}

/// What was taken of whom, in memory and on the disk. Made once by the node.
#[derive(Debug)]
pub struct ReplayMemory {
    store: Store,
    tree: Tree<Timestamp>,
    disk: Mutex<Disk>,
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
            match Key::read(&key) {
                Key::All => floors.raise_all(floor),
                Key::Others(stranger) => floors.raise_others(stranger, floor),
                Key::Author(who) => floors.raise(who, floor),
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
        let all = floors.all();
        Ok(Self {
            store: store.clone(),
            tree,
            disk: Mutex::new(Disk { turn: 0, all }),
            windows: Mutex::new(ReplayWindows::after(floors)),
        })
    }

    /// The windows. Nobody but the Swarm actor of the moment asks.
    pub(super) fn windows(&self) -> MutexGuard<'_, ReplayWindows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the marks of another incarnation are written, and of no other.
    fn next_turn(&self) -> u64 {
        let mut disk = self.disk();
        disk.turn = disk.turn.saturating_add(1);
        disk.turn
    }

    /// Makes marks durable, together, if it is still `turn`.
    fn write_marks(&self, turn: u64, writing: &Writing) -> Result<(), StoreError> {
        let mut disk = self.disk();
        if disk.turn != turn {
            return Ok(());
        }
        let all = writing.until.max(disk.all);
        let mut batch = Batch::default();
        batch.put(&Key::All.bytes(), all);
        for (who, until) in &writing.own {
            batch.put(&Key::Author(*who).bytes(), *until);
        }
        for who in &writing.gone {
            batch.remove(&Key::Author(*who).bytes());
        }
        self.tree.apply(&batch)?;
        self.store.flush_durable()?;
        disk.all = all;
        Ok(())
    }

    /// Removes the records that everybody's mark makes superfluous: what earlier incarnations and
    /// processes left.
    fn tidy(&self) -> Result<(), StoreError> {
        let disk = self.disk();
        let records = self.tree.scan(MAX_RECORDS)?.into_iter();
        let covered = records.filter(|(key, floor)| {
            *floor <= disk.all && matches!(Key::read(key), Key::Author(_) | Key::Others(_))
        });
        self.remove(covered.map(|(key, _)| key))
    }

    fn remove(&self, keys: impl Iterator<Item = Vec<u8>>) -> Result<(), StoreError> {
        let keys: Vec<_> = keys.collect();
        for chunk in keys.chunks(CHUNK) {
            let mut batch = Batch::default();
            chunk.iter().for_each(|key| batch.remove(key));
            self.tree.apply(&batch)?;
        }
        Ok(())
    }

    /// Makes the floors durable, then takes the marks back: a crash in between leaves both.
    fn write_floors(&self, floors: &Floors) -> Result<(), StoreError> {
        let mut disk = self.disk();
        // Nobody's marks are written any more.
        disk.turn = disk.turn.saturating_add(1);
        let others = [false, true].map(|side| (Key::Others(side), floors.others(side)));
        let authors = floors
            .authors()
            .map(|(who, floor)| (Key::Author(who), floor));
        let kept: BTreeMap<Vec<u8>, Timestamp> = authors
            .chain(others)
            .map(|(key, floor)| (key.bytes(), floor))
            .collect();
        let mut batch = Batch::default();
        for (key, floor) in &kept {
            batch.put(key, *floor);
            if batch.len() >= CHUNK {
                self.tree.apply(&std::mem::take(&mut batch))?;
            }
        }
        self.tree.apply(&batch)?;
        self.store.flush_durable()?;
        let records = self.tree.scan(MAX_RECORDS)?.into_iter().map(|(key, _)| key);
        let stale = records
            .filter(|key| matches!(Key::read(key), Key::Author(_)) && !kept.contains_key(key));
        self.remove(stale)?;
        let mut batch = Batch::default();
        batch.put(&Key::All.bytes(), floors.all());
        self.tree.apply(&batch)?;
        self.store.flush_durable()?;
        disk.all = floors.all();
        Ok(())
    }
}

impl SwarmActor {
    /// Before anything is taken.
    pub(super) fn first_mark(&mut self) -> Result<(), StoreError> {
        let (now, elapsed) = (self.tools.clock.now(), self.tools.clock.elapsed());
        if let Some(writing) = self.mark.due(now, elapsed) {
            self.marking = self.tools.replay.next_turn();
            self.tools.replay.write_marks(self.marking, &writing)?;
            self.mark.written(true);
        }
        self.tools.replay.tidy()
    }

    /// Moves the mark on when it is time, elsewhere: the disk may take a while.
    pub(super) fn move_mark(&mut self, ctx: &mut Context<Self>) {
        let (now, elapsed) = (self.tools.clock.now(), self.tools.clock.elapsed());
        let Some(marks) = self.mark.due(now, elapsed) else {
            return;
        };
        let (memory, turn) = (Arc::clone(&self.tools.replay), self.marking);
        let writing = tokio::task::spawn_blocking(move || memory.write_marks(turn, &marks));
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

#[cfg(test)]
mod tests;
