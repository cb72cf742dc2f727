//! How much memory the process takes, looked at seldom, and whether that is too much.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often it is looked at: a flood cannot make a look per connection of it, and what can be
/// allocated meanwhile is bounded by the handshakes under way.
const EVERY: Duration = Duration::from_millis(100);
/// `/proc/self/status` has about 1.5 KB, and what is read of it stands in the middle.
const STATUS_BYTES: usize = 4_096;

/// Tells how much memory the process takes.
pub trait Memory: Send + Sync {
    /// Bytes that are resident now; `None` when it cannot be told.
    fn used(&self) -> Option<u64>;
}

/// This process's, from `/proc/self/status`. The file stays open: without a free descriptor it
/// could not be opened in the flood it is needed in.
#[derive(Debug)]
pub struct ProcessMemory(Mutex<Option<File>>);

impl Default for ProcessMemory {
    fn default() -> Self {
        let memory = Self(Mutex::new(open()));
        if memory.used().is_none() {
            tracing::error!("this process's memory cannot be told: no connection is let in");
        }
        memory
    }
}

fn open() -> Option<File> {
    File::open("/proc/self/status").ok()
}

impl Memory for ProcessMemory {
    fn used(&self) -> Option<u64> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = open();
        }
        let mut text = [0; STATUS_BYTES];
        let read = file.as_ref()?.read_at(&mut text, 0).ok()?;
        resident(std::str::from_utf8(text.get(..read)?).ok()?)
    }
}

/// `VmRSS` of `/proc/self/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1_024)
}

/// The limit and the last look.
pub(super) struct Gauge {
    memory: Arc<dyn Memory>,
    limit: u64,
    next: Duration,
    used: Option<u64>,
}

impl Gauge {
    pub(super) fn new(memory: Arc<dyn Memory>, limit: u64) -> Self {
        Self {
            memory,
            limit,
            next: Duration::ZERO,
            used: Some(0),
        }
    }

    /// Whether there is memory for another connection. What cannot be told counts as too much.
    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        self.look(now);
        self.used.is_some_and(|used| used < self.limit)
    }

    /// Bytes in use and their limit; `None` when the first cannot be told.
    pub(super) fn levels(&mut self, now: Duration) -> Option<(u64, u64)> {
        self.look(now);
        Some((self.used?, self.limit))
    }

    /// Bytes in use at the last look.
    pub(super) fn used(&self) -> u64 {
        self.used.unwrap_or(u64::MAX)
    }

    pub(super) fn look(&mut self, now: Duration) {
        if now >= self.next {
            self.next = now.saturating_add(EVERY);
            self.used = self.memory.used();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_part_is_read() {
        assert_eq!(
            resident("VmPeak:\t 9 kB\nVmRSS:\t  2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(resident("Name: x"), None);
        let own = ProcessMemory::default().used().unwrap();
        assert!((1 << 20..1 << 40).contains(&own), "{own}");
    }
}
