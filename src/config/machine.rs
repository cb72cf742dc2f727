//! Limits derived downwards: never more than this machine's memory and file descriptors carry.
//!
//! A limit that the machine cannot keep is none: at the first flood the node would die of
//! `EMFILE` or of the kernel's memory killer instead of refusing a connection.

use std::{fmt, fs};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Config, LimitsConfig};
use crate::types::ByteSize;

/// What the machine gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// Memory in bytes, when known.
    pub memory: Option<u64>,
    /// What this process's control group (version 2) may take of it, when it is bounded.
    pub group_memory: Option<u64>,
    /// Files this process may hold open, when known and limited.
    pub open_files: Option<u64>,
}

/// File descriptors kept for everything but peers: log, store, sockets, runtime, subscribers.
const OWN_FILES: u64 = 128;
/// Memory a stranger's connection may cost at its worst beside a message it sends in part: a full
/// window (2 MiB), the frame that passes it (1 MiB), and gossip's state. What members' requests
/// take beyond it is bounded by number and size, and by closing connections over `limits.memory`.
const MEMORY_PER_CONNECTION: u64 = 7 << 19;
/// The share of the memory that this process, and so its connections, may take: one half. The
/// other is for workers, the page cache and everything else.
const MEMORY_SHARE: u64 = 2;
/// What is kept for this node's own dials: a tenth of all connections.
const DIAL_SHARE: u32 = 10;
/// The least a node can work with; below it says so and tries.
const FEWEST: u32 = 4;
/// Folders of control groups looked at upwards from this process's.
const MAX_GROUPS: usize = 32;

/// A limit that the machine cannot keep, and what it became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// `section.key`.
    pub key: &'static str,
    /// As configured.
    pub configured: String,
    /// As it is in force.
    pub effective: String,
    /// What it was derived from.
    pub because: String,
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            configured,
            effective,
            because,
        } = self;
        write!(
            f,
            "{key} lowered from {configured} to {effective}: {because}"
        )
    }
}

impl Machine {
    /// Reads this machine's from `/proc` and `/sys/fs/cgroup`; what cannot be read is unknown and
    /// derives nothing.
    #[must_use]
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            memory: total_memory(&text("/proc/meminfo")),
            group_memory: group_memory(&text("/proc/self/cgroup"), |path| {
                fs::read_to_string(path).ok()
            }),
            open_files: soft_open_files(&text("/proc/self/limits")),
        }
    }

    /// The same, after the soft limit of open files was raised to the hard one: shells give a
    /// soft limit of 1,024 whatever the machine could do.
    #[must_use]
    pub fn claim() -> Self {
        let raised = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
        Self::read()
    }

    /// The least of what is known, and where it comes from.
    fn least_memory(self) -> Option<(u64, &'static str)> {
        let machine = self.memory.map(|bytes| (bytes, "memory"));
        let group = self
            .group_memory
            .map(|bytes| (bytes, "memory in the control group (memory.max)"));
        [machine, group]
            .into_iter()
            .flatten()
            .min_by_key(|(bytes, _)| *bytes)
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest `memory.max` of this process's control group and those above it.
fn group_memory(cgroup: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut group = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut least: Option<u64> = None;
    for _ in 0..MAX_GROUPS {
        let below = group.trim_end_matches('/');
        let max = read(&format!("/sys/fs/cgroup{below}/memory.max"));
        // "max": unlimited, and no number.
        if let Some(max) = max.and_then(|text| text.trim().parse().ok()) {
            least = Some(least.map_or(max, |known| known.min(max)));
        }
        let Some((parent, _)) = below.rsplit_once('/') else {
            break;
        };
        group = parent;
    }
    least
}

/// The soft limit of `Max open files` in `/proc/self/limits`; `None` when unlimited.
fn soft_open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The configuration as it can be kept on this machine, and each limit that was lowered.
#[must_use]
pub fn derive(config: &Config, machine: Machine) -> (Config, Vec<Lowered>) {
    let mut effective = config.clone();
    let mut notes = Vec::new();
    let limits = &mut effective.limits;
    if let Some(files) = machine.open_files {
        by_files(limits, files, &mut notes);
    }
    if let Some((memory, of)) = machine.least_memory() {
        let worst = MEMORY_PER_CONNECTION.saturating_add(limits.max_message_size.0);
        let fit = (memory / MEMORY_SHARE).checked_div(worst).unwrap_or(0);
        let source = format!("{} MiB of {of}", memory >> 20);
        let limit = &mut limits.connections;
        lower("limits.connections", limit, fit, &source, &mut notes);
        let most = ByteSize(memory / MEMORY_SHARE);
        if limits.memory > most {
            notes.push(Lowered {
                key: "limits.memory",
                configured: limits.memory.to_string(),
                effective: most.to_string(),
                because: format!("half of {source}"),
            });
            limits.memory = most;
        }
    }
    within_total(limits, &mut notes);
    relayed(&mut effective, &mut notes);
    (effective, notes)
}

fn by_files(limits: &mut LimitsConfig, files: u64, notes: &mut Vec<Lowered>) {
    let peers = files.saturating_sub(OWN_FILES);
    let source = format!("{files} open files (ulimit -n), {OWN_FILES} of them kept");
    // A handshake holds a descriptor too: a fifth of them, the rest for connections.
    let pending = &mut limits.pending_connections;
    lower(
        "limits.pending_connections",
        pending,
        peers / 5,
        &source,
        notes,
    );
    let rest = peers.saturating_sub(u64::from(*pending));
    lower(
        "limits.connections",
        &mut limits.connections,
        rest,
        &source,
        notes,
    );
}

/// Narrower limits follow the wider ones down. Others never get the last tenth of the total.
fn within_total(limits: &mut LimitsConfig, notes: &mut Vec<Lowered>) {
    let total = limits.connections;
    let source = format!("limits.connections ({total})");
    let mut follow = |key, limit: &mut u32, most: u32, source: &str| {
        at_most(key, limit, most, source, notes);
    };
    let inbound = total.saturating_sub(total / DIAL_SHARE);
    let tenth = format!("nine tenths of {source}");
    follow(
        "limits.inbound_connections",
        &mut limits.inbound_connections,
        inbound,
        &tenth,
    );
    follow(
        "limits.outbound_connections",
        &mut limits.outbound_connections,
        total,
        &source,
    );
    follow(
        "limits.connections_per_peer",
        &mut limits.connections_per_peer,
        total,
        &source,
    );
    // Handshakes count as inbound connections: silent ones must leave room for the others. And no
    // host and no subnet gets all.
    let inbound = limits.inbound_connections;
    let half = (inbound / 2).max(FEWEST);
    let source = format!("half of limits.inbound_connections ({inbound})");
    follow(
        "limits.pending_connections",
        &mut limits.pending_connections,
        half,
        &source,
    );
    follow(
        "limits.connections_per_address",
        &mut limits.connections_per_address,
        half,
        &source,
    );
    follow(
        "limits.connections_per_subnet",
        &mut limits.connections_per_subnet,
        inbound.saturating_sub(inbound / 4).max(FEWEST),
        &format!("three quarters of limits.inbound_connections ({inbound})"),
    );
    let pending = limits.pending_connections;
    let source = format!("limits.pending_connections ({pending})");
    follow(
        "limits.pending_per_address",
        &mut limits.pending_per_address,
        pending,
        &source,
    );
    follow(
        "limits.pending_per_subnet",
        &mut limits.pending_per_subnet,
        pending,
        &source,
    );
}

/// Each place of a relay takes a connection, and each circuit joins two.
fn relayed(config: &mut Config, notes: &mut Vec<Lowered>) {
    let (relay, limits) = (&mut config.relay, &config.limits);
    if !relay.server {
        return;
    }
    let fit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    for (key, limit, most, source) in [
        (
            "relay.reservations",
            &mut relay.reservations,
            fit(limits.inbound_connections),
            "limits.inbound_connections: each place takes one",
        ),
        (
            "relay.circuits",
            &mut relay.circuits,
            fit(limits.connections / 2),
            "limits.connections: each circuit joins two",
        ),
    ] {
        if *limit > most {
            notes.push(Lowered {
                key,
                configured: limit.to_string(),
                effective: most.to_string(),
                because: source.to_owned(),
            });
            *limit = most;
        }
    }
    relay.reservations_per_peer = relay.reservations_per_peer.min(relay.reservations);
    relay.circuits_per_peer = relay.circuits_per_peer.min(relay.circuits);
}

fn lower(key: &'static str, limit: &mut u32, most: u64, source: &str, notes: &mut Vec<Lowered>) {
    let most = u32::try_from(most).unwrap_or(u32::MAX).max(FEWEST);
    at_most(key, limit, most, source, notes);
}

fn at_most(key: &'static str, limit: &mut u32, most: u32, source: &str, notes: &mut Vec<Lowered>) {
    if *limit > most {
        notes.push(Lowered {
            key,
            configured: limit.to_string(),
            effective: most.to_string(),
            because: source.to_owned(),
        });
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
            ..Machine::default()
        };
        let (effective, notes) = derive(&Config::default(), small);
        let limits = effective.limits;
        // 256 MiB; each may take 3.5 MiB and a message of 10 MB.
        assert_eq!((limits.connections, limits.inbound_connections), (19, 18));
        assert_eq!(
            (limits.pending_connections, limits.connections_per_address),
            (9, 9)
        );
        assert_eq!(limits.connections_per_subnet, 14);
        assert_eq!(limits.memory, ByteSize(256 << 20));
        let keys: Vec<_> = notes.iter().map(|note| note.key).collect();
        let lowered = "pending_connections connections connections memory inbound_connections \
                       outbound_connections pending_connections connections_per_address \
                       connections_per_subnet pending_per_address pending_per_subnet";
        let lowered = lowered
            .split_whitespace()
            .map(|key| format!("limits.{key}"));
        assert_eq!(keys, lowered.collect::<Vec<_>>());
        // Smaller messages, more connections.
        let mut config = Config::default();
        config.limits.max_message_size = ByteSize(100_000);
        assert_eq!(derive(&config, small).0.limits.connections, 71);
        assert!(
            notes[3].to_string().contains("half of 512 MiB"),
            "{}",
            notes[3]
        );
    }

    #[test]
    fn a_relay_gives_no_more_than_there_are_connections() {
        let small = Machine {
            memory: Some(256 << 20),
            ..Machine::default()
        };
        let mut config = Config::default();
        assert_eq!(derive(&config, small).0.relay, config.relay);
        config.relay.server = true;
        let (effective, notes) = derive(&config, small);
        let (relay, limits) = (&effective.relay, &effective.limits);
        let fit = |limit: u32| usize::try_from(limit).unwrap();
        assert!(fit(limits.connections) < config.relay.circuits);
        assert_eq!(relay.reservations, fit(limits.inbound_connections));
        assert_eq!(relay.circuits, fit(limits.connections / 2));
        let keys: Vec<_> = notes.iter().map(|note| note.key).collect();
        assert!(keys.ends_with(&["relay.reservations", "relay.circuits"]));
        // The keys may say what no machine carries.
        config.relay.circuits = 65_536;
        let effective = derive(&config, Machine::default()).0;
        let most = usize::try_from(effective.limits.connections / 2).unwrap();
        assert_eq!(effective.relay.circuits, most);
    }

    #[test]
    fn an_unknown_machine_changes_nothing() {
        let (effective, notes) = derive(&Config::default(), Machine::default());
        assert_eq!(effective, Config::default());
        assert!(notes.is_empty());
    }

    #[test]
    fn the_control_group_counts_where_it_has_less_than_the_machine() {
        let read = |path: &str| match path {
            "/sys/fs/cgroup/a/b/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/a/memory.max" => Some("104857600\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_memory("0::/a/b\n", read), Some(100 << 20));
        assert_eq!(group_memory("0::/\n", read), None);
        assert_eq!(group_memory("12:memory:/x\n", read), None);
        let boxed = Machine {
            memory: Some(64 << 30),
            group_memory: Some(100 << 20),
            open_files: None,
        };
        let (effective, notes) = derive(&Config::default(), boxed);
        assert_eq!(effective.limits.memory, ByteSize(50 << 20));
        assert!(notes[0].because.contains("memory.max"), "{notes:?}");
    }

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let claimed = Machine::claim();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
        assert!(claimed.open_files.is_none_or(|files| files == soft));
    }

    proptest! {
        #[test]
        fn limits_are_never_raised_and_never_zero(memory: u64, open_files: u64) {
            let machine = Machine {
                memory: Some(memory),
                open_files: Some(open_files),
                group_memory: None,
            };
            let before = Config::default().limits;
            let after = derive(&Config::default(), machine).0.limits;
            prop_assert!(after.connections <= before.connections && after.connections > 0);
            prop_assert!(after.pending_connections <= before.pending_connections);
            prop_assert!(after.connections_per_peer <= after.connections);
            prop_assert!(after.inbound_connections <= after.connections);
            prop_assert!(
                after.pending_connections <= FEWEST.max(after.inbound_connections / 2)
            );
            prop_assert!(after.inbound_connections > 0 && after.outbound_connections > 0);
            prop_assert!(after.pending_per_address <= after.pending_connections);
            prop_assert!(after.connections_per_address <= FEWEST.max(after.inbound_connections / 2));
        }
    }
}
