//! Limits derived downwards: never more than this machine's memory and file descriptors carry.
//!
//! A limit that the machine cannot keep is none: at the first flood the node would die of
//! `EMFILE` or of the kernel's memory killer instead of refusing a connection.

use std::fs;

use super::Config;

/// What the machine gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// Memory in bytes, when known.
    pub memory: Option<u64>,
    /// Files this process may hold open, when known and limited.
    pub open_files: Option<u64>,
}

/// File descriptors kept for everything but peers: log, store, sockets, runtime, subscribers.
const OWN_FILES: u64 = 128;
/// Memory a connection may cost at its worst: yamux windows, noise buffers, gossip state.
const MEMORY_PER_CONNECTION: u64 = 1 << 20;
/// The share of the memory that connections may take: one half.
const MEMORY_SHARE: u64 = 2;
/// The least a node can work with; below it says so and tries.
const FEWEST: u32 = 4;

impl Machine {
    /// Reads this machine's from `/proc`; what cannot be read is unknown and derives nothing.
    #[must_use]
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            memory: total_memory(&text("/proc/meminfo")),
            open_files: soft_open_files(&text("/proc/self/limits")),
        }
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit of `Max open files` in `/proc/self/limits`; `None` when unlimited.
fn soft_open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The configuration as it can be kept on this machine, and a note for each limit lowered.
#[must_use]
pub fn derive(config: &Config, machine: Machine) -> (Config, Vec<String>) {
    let mut effective = config.clone();
    let mut notes = Vec::new();
    let limits = &mut effective.limits;
    if let Some(files) = machine.open_files {
        let peers = files.saturating_sub(OWN_FILES);
        let source = format!("{files} open files (ulimit -n), {OWN_FILES} of them kept");
        // A handshake holds a descriptor too: a fifth of them, the rest for connections.
        lower(
            "pending_connections",
            &mut limits.pending_connections,
            peers / 5,
            &source,
            &mut notes,
        );
        let rest = peers.saturating_sub(u64::from(limits.pending_connections));
        lower(
            "connections",
            &mut limits.connections,
            rest,
            &source,
            &mut notes,
        );
    }
    if let Some(memory) = machine.memory {
        let fit = memory / MEMORY_SHARE / MEMORY_PER_CONNECTION;
        let source = format!("{} MiB of memory", memory >> 20);
        lower(
            "connections",
            &mut limits.connections,
            fit,
            &source,
            &mut notes,
        );
    }
    limits.connections_per_peer = limits.connections_per_peer.min(limits.connections);
    limits.pending_per_address = limits.pending_per_address.min(limits.pending_connections);
    (effective, notes)
}

fn lower(key: &str, limit: &mut u32, most: u64, source: &str, notes: &mut Vec<String>) {
    let most = u32::try_from(most).unwrap_or(u32::MAX).max(FEWEST);
    if *limit > most {
        notes.push(format!(
            "limits.{key} lowered from {limit} to {most}: {source}"
        ));
        *limit = most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(
            total_memory("MemTotal:  2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(total_memory(""), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288    files\n";
        assert_eq!(soft_open_files(limits), Some(1024));
        assert_eq!(
            soft_open_files("Max open files  unlimited unlimited files"),
            None
        );
    }

    #[test]
    fn a_small_machine_lowers_limits_and_says_so() {
        let small = Machine {
            memory: Some(512 << 20),
            open_files: Some(1024),
        };
        let (effective, notes) = derive(&Config::default(), small);
        assert_eq!(effective.limits.pending_connections, 179);
        assert_eq!(effective.limits.connections, 256);
        assert_eq!(notes.len(), 3, "{notes:?}");
    }

    #[test]
    fn an_unknown_machine_changes_nothing() {
        let (effective, notes) = derive(&Config::default(), Machine::default());
        assert_eq!(effective, Config::default());
        assert!(notes.is_empty());
    }

    proptest! {
        #[test]
        fn limits_are_never_raised_and_never_zero(memory: u64, open_files: u64) {
            let machine = Machine { memory: Some(memory), open_files: Some(open_files) };
            let before = Config::default().limits;
            let after = derive(&Config::default(), machine).0.limits;
            prop_assert!(after.connections <= before.connections && after.connections > 0);
            prop_assert!(after.pending_connections <= before.pending_connections);
            prop_assert!(after.connections_per_peer <= after.connections);
            prop_assert!(after.pending_per_address <= after.pending_connections);
        }
    }
}
