//! What the guest's store holds, and how far its memory and tables may grow.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use wasmtime::ResourceLimiter;
use wasmtime_wasi::p1::WasiP1Ctx;

use super::{Stop, clocks::Steps};
use crate::sandbox::{LimitName, Limits};

/// The store's data.
pub(super) struct Guest {
    pub(super) wasi: WasiP1Ctx,
    pub(super) ceiling: Ceiling,
    /// The clock of the deterministic mode.
    pub(super) steps: Option<Steps>,
}

/// Most linear memory so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Peak(Arc<AtomicU64>);

impl Peak {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Ends the guest at its limits. Growth beyond what the module itself declares is refused in the
/// guest's own terms (-1), as the specification says; only the node's limits end it.
#[derive(Debug)]
pub(super) struct Ceiling {
    memory: u64,
    table: u64,
    /// Elements of all tables so far.
    elements: u64,
    peak: Peak,
}

impl Ceiling {
    pub(super) fn new(limits: Limits, peak: Peak) -> Self {
        Self {
            memory: limits.memory,
            table: limits.table,
            elements: 0,
            peak,
        }
    }
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let desired = u64::try_from(desired).unwrap_or(u64::MAX);
        if desired > self.memory {
            return Err(Stop::Limit(LimitName::Memory).into());
        }
        self.peak.0.fetch_max(desired, Ordering::SeqCst);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX);
        let elements = self.elements.saturating_add(more);
        if elements > self.table {
            return Err(Stop::Limit(LimitName::Table).into());
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        1
    }
}
