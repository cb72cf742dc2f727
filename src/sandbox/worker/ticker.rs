//! The worker's clock: a thread that looks at everything a hundred times a second.
//!
//! It is also the thread that drives the timers of guests that wait for several things at once.

use std::{fs::File, io, os::unix::fs::FileExt, sync::mpsc::sync_channel, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    time::{MissedTickBehavior, interval},
};

use super::{protocol::CompileOrder, voice::Voice};
use crate::sandbox::{LimitName, Limits};

/// Between two looks: a limit of time is named this late at most.
const TICK: Duration = Duration::from_millis(10);

/// What to look at.
pub(super) struct Watch {
    wall: (Duration, LimitName),
    cpu: Option<Duration>,
    memory: Option<Memory>,
}

impl Watch {
    /// A guest's limits.
    pub(super) fn guest(limits: &Limits) -> Self {
        Self {
            wall: (limits.wall_clock(), LimitName::WallClock),
            cpu: Some(limits.cpu_time()),
            memory: None,
        }
    }

    /// A compilation's limits.
    pub(super) fn compiler(order: &CompileOrder) -> Self {
        Self {
            wall: (Duration::from_millis(order.time_ms), LimitName::CompileTime),
            cpu: None,
            memory: Memory::open(order.memory),
        }
    }

    fn look(&self, voice: &Voice) {
        voice.flush_if_idle();
        let Some(wall) = voice.wall() else {
            return;
        };
        let (most, name) = self.wall;
        if wall >= most {
            voice.try_stop(name);
        }
        if self.cpu.is_some_and(|most| voice.cpu() >= most) {
            voice.try_stop(LimitName::CpuTime);
        }
        if self.memory.as_ref().is_some_and(Memory::is_used_up) {
            voice.try_stop(LimitName::CompileMemory);
        }
    }
}

/// Starts the ticker; answers with the handle to its timers.
pub(super) fn spawn(voice: Voice, watch: Watch) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let handle = runtime.handle().clone();
    let (up, is_up) = sync_channel(1);
    thread::Builder::new()
        .name("ticker".into())
        .spawn(move || {
            let _ = up.send(());
            runtime.block_on(async {
                let mut ticks = interval(TICK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    watch.look(&voice);
                }
            });
        })?;
    super::wait_for(&is_up)?;
    Ok(handle)
}

/// This process's memory, as the kernel counts it. `getrusage` will not do: its peak is
/// inherited from whoever started the process.
struct Memory {
    status: File,
    most: u64,
}

impl Memory {
    fn open(allowed: u64) -> Option<Self> {
        // Opened now because no file can be opened later. Without /proc the kernel's ceiling on
        // writable memory remains.
        let status = File::open("/proc/self/status").ok()?;
        let mut memory = Self { status, most: 0 };
        memory.most = memory.peak()?.saturating_add(allowed);
        Some(memory)
    }

    fn peak(&self) -> Option<u64> {
        let mut buffer = [0; 4096];
        let length = self.status.read_at(&mut buffer, 0).ok()?;
        peak_of(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }

    fn is_used_up(&self) -> bool {
        self.peak().is_some_and(|peak| peak >= self.most)
    }
}

/// The largest resident size in a `/proc/PID/status`, bytes.
fn peak_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read() {
        let text = "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t   5120 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_of(text), Some(5120 * 1024));
        assert_eq!(peak_of("Name:\tx\n"), None);
        assert!(Memory::open(1 << 30).is_none_or(|memory| !memory.is_used_up()));
    }
}
