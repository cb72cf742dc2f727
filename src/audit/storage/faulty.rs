//! A storage for tests: in memory, seeded, faulty from below.
//!
//! It models what matters of a disk under Linux: reads see the page cache; only a successful
//! sync makes bytes survive a crash; after a failed sync the pages count as clean, so that those
//! bytes stay lost even if a later sync succeeds; a directory entry survives only once the
//! directory was synced. Every call is written down, in order.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Cursor},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{Storage, StoredFile};

/// A call that reached the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Append(usize),
    Sync,
    Truncate,
    SyncDirectory,
    Replace,
    /// Written down by a test: an answer was seen.
    Answer,
}

/// What goes wrong, by chance (percent) or at an exact call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) append_fails: u32,
    pub(crate) append_short: u32,
    pub(crate) sync_fails: u32,
    pub(crate) create_fails: u32,
    pub(crate) truncate_fails: u32,
    pub(crate) remove_fails: u32,
    pub(crate) directory_fails: u32,
    /// Bytes that still fit on the disk.
    pub(crate) space: Option<usize>,
    /// The faulty call among appends, syncs, creates, truncates and directory syncs, from 0.
    pub(crate) at: Option<usize>,
}

#[derive(Debug, Default, Clone)]
struct Node {
    /// What reads see.
    cached: Vec<u8>,
    /// What a crash leaves at least.
    durable: Vec<u8>,
    /// Ranges of `cached` that a failed sync lost.
    lost: Vec<(usize, usize)>,
    /// Whether the name survives a crash.
    named: bool,
}

#[derive(Debug)]
struct Disk {
    nodes: BTreeMap<String, Node>,
    calls: Vec<Call>,
    faults: Faults,
    faulty_calls: usize,
    random: SmallRng,
    locked: bool,
    lockable: bool,
    hanging: bool,
    /// Syncs that wait because of it.
    waiting: usize,
    detached: BTreeSet<String>,
    /// Removed files whose removal is not durable yet.
    graves: Vec<(String, Node)>,
}

/// The storage; clones share the disk.
#[derive(Debug, Clone)]
pub(crate) struct Faulty(Arc<(Mutex<Disk>, Condvar)>);

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Disk {
            nodes: BTreeMap::new(),
            calls: Vec::new(),
            faults: Faults::default(),
            faulty_calls: 0,
            random: SmallRng::seed_from_u64(seed),
            locked: false,
            lockable: true,
            hanging: false,
            waiting: 0,
            detached: BTreeSet::new(),
            graves: Vec::new(),
        };
        Self(Arc::new((Mutex::new(disk), Condvar::new())))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.0.lock().unwrap()
    }

    pub(crate) fn set(&self, faults: Faults) {
        let mut disk = self.disk();
        disk.faults = faults;
        disk.faulty_calls = 0;
    }

    /// Calls that could have been made to fail since the last `set`.
    pub(crate) fn faulty_calls(&self) -> usize {
        self.disk().faulty_calls
    }

    pub(crate) fn note(&self, call: Call) {
        self.disk().calls.push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.disk().calls.clone()
    }

    /// Lets two writers in at once, to show what fencing does by itself.
    pub(crate) fn without_lock(&self) {
        self.disk().lockable = false;
    }

    /// While set, every sync waits.
    pub(crate) fn hang(&self, hanging: bool) {
        self.disk().hanging = hanging;
        self.0.1.notify_all();
    }

    /// Syncs that wait at this moment.
    pub(crate) fn waiting(&self) -> usize {
        self.disk().waiting
    }

    /// Someone removes the file under the writer.
    pub(crate) fn detach(&self, name: &str) {
        let mut disk = self.disk();
        disk.nodes.remove(name);
        disk.detached.insert(name.to_owned());
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.disk().nodes[name].cached.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let node = Node {
            cached: bytes.to_vec(),
            durable: bytes.to_vec(),
            lost: Vec::new(),
            named: true,
        };
        self.disk().nodes.insert(name.to_owned(), node);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.disk().nodes.keys().cloned().collect()
    }

    /// The power fails: unsynced bytes survive in part, by chance; so do unsynced names.
    pub(crate) fn crash(&self) {
        let mut disk = self.disk();
        disk.locked = false;
        let mut random = disk.random.clone();
        for (name, node) in std::mem::take(&mut disk.graves) {
            if random.random_bool(0.5) {
                disk.nodes.entry(name).or_insert(node);
            }
        }
        disk.nodes
            .retain(|_, node| node.named || random.random_bool(0.5));
        for node in disk.nodes.values_mut() {
            let undone = random.random_bool(0.5);
            if !undone && node.cached.starts_with(&node.durable) {
                let extra = node.cached.len() - node.durable.len();
                let keep = node.durable.len() + random.random_range(0..=extra);
                // Bytes that a failed sync lost never come back: the file ends before them.
                let lost = node.lost.iter().map(|(from, _)| *from).min();
                let keep = keep.min(lost.unwrap_or(usize::MAX)).max(node.durable.len());
                node.durable = node.cached[..keep].to_vec();
            }
            node.cached = node.durable.clone();
            node.lost.clear();
            node.named = true;
        }
        disk.random = random;
    }
}

impl Disk {
    fn fails(&mut self, percent: u32) -> bool {
        let exact = self.faults.at == Some(self.faulty_calls);
        self.faulty_calls += 1;
        exact || self.random.random_ratio(percent.min(100), 100)
    }

    fn node(&mut self, name: &str) -> io::Result<&mut Node> {
        self.nodes
            .get_mut(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Storage for Faulty {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let mut disk = self.disk();
        disk.calls.push(Call::Create);
        let percent = disk.faults.create_fails;
        if disk.fails(percent) {
            return Err(broken());
        }
        if disk.nodes.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.nodes.insert(name.to_owned(), Node::default());
        disk.detached.remove(name);
        drop(disk);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        self.disk().node(name)?;
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            name: name.to_owned(),
        }))
    }

    fn read(&self, name: &str, offset: u64) -> io::Result<Box<dyn BufRead + Send>> {
        let mut bytes = self.disk().node(name)?.cached.clone();
        bytes.drain(..usize::try_from(offset).unwrap().min(bytes.len()));
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.disk().node(name)?.cached.len() as u64)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.calls.push(Call::Replace);
        let percent = disk.faults.append_fails.max(disk.faults.sync_fails);
        let fails = disk.fails(percent);
        let full = disk.faults.space.is_some_and(|left| left < bytes.len());
        // The directory's sync may be what failed: the new file is there all the same.
        if !(full || fails && disk.random.random_bool(0.5)) {
            let node = Node {
                cached: bytes.to_vec(),
                durable: bytes.to_vec(),
                lost: Vec::new(),
                named: true,
            };
            disk.nodes.insert(name.to_owned(), node);
        }
        match (full, fails) {
            (true, _) => Err(io::ErrorKind::StorageFull.into()),
            (false, true) => Err(broken()),
            (false, false) => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let percent = disk.faults.remove_fails;
        if disk.random.random_ratio(percent, 100) {
            return Err(broken());
        }
        let node = disk
            .nodes
            .remove(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        disk.graves.push((name.to_owned(), node));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.calls.push(Call::SyncDirectory);
        let percent = disk.faults.directory_fails;
        if disk.fails(percent) {
            return Err(broken());
        }
        disk.nodes.values_mut().for_each(|node| node.named = true);
        disk.graves.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let mut disk = self.disk();
        if disk.lockable && disk.locked {
            return Ok(None);
        }
        disk.locked = true;
        Ok(Some(Box::new(Lock(self.clone()))))
    }
}

struct Lock(Faulty);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

struct FaultyFile {
    disk: Faulty,
    name: String,
}

impl StoredFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        let disk = &mut *disk;
        disk.calls.push(Call::Append(bytes.len()));
        let (failing, short) = (disk.faults.append_fails, disk.faults.append_short);
        if disk.fails(failing) {
            return Err(broken());
        }
        let mut take = bytes.len();
        if take > 1 && disk.random.random_ratio(short, 100) {
            take = disk.random.random_range(1..take);
        }
        if let Some(space) = &mut disk.faults.space {
            take = take.min(*space);
            if take == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *space -= take;
        }
        // A removed file takes writes and keeps nothing, as under Unix.
        if let Some(node) = disk.nodes.get_mut(&self.name) {
            node.cached.extend_from_slice(&bytes[..take]);
        }
        Ok(take)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.disk.disk();
        guard.waiting += 1;
        while guard.hanging {
            guard = self.disk.0.1.wait(guard).unwrap();
        }
        guard.waiting -= 1;
        let disk = &mut *guard;
        disk.calls.push(Call::Sync);
        let percent = disk.faults.sync_fails;
        let failed = disk.fails(percent);
        let Some(node) = disk.nodes.get_mut(&self.name) else {
            return Ok(());
        };
        if !failed {
            node.durable = node.cached.clone();
            for (from, to) in &node.lost {
                // The pages were clean: nothing wrote them, whatever this sync says.
                let to = (*to).min(node.durable.len());
                if let Some(range) = node.durable.get_mut(*from..to) {
                    range.fill(0);
                }
            }
            return Ok(());
        }
        if node.cached.starts_with(&node.durable) {
            let (from, to) = (node.durable.len(), node.cached.len());
            // Some of it may have reached the disk all the same.
            let kept = from + disk.random.random_range(0..=to - from);
            node.durable = node.cached[..kept].to_vec();
            node.lost.push((kept, to));
        }
        Err(broken())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.calls.push(Call::Truncate);
        let percent = disk.faults.truncate_fails;
        if disk.fails(percent) {
            return Err(broken());
        }
        if let Some(node) = disk.nodes.get_mut(&self.name) {
            let size = usize::try_from(size).unwrap();
            node.cached.truncate(size);
            node.lost.retain_mut(|(from, to)| {
                *to = (*to).min(size);
                from < to
            });
        }
        Ok(())
    }

    fn attached(&self) -> io::Result<bool> {
        Ok(!self.disk.disk().detached.contains(&self.name))
    }
}
