//! `[supervision]`: the restart policies and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sections::{millis, secs};
use crate::types::Span;

/// `[supervision]`: the defaults, and per actor what differs (`[supervision.actors.swarm]`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisionConfig {
    /// For every actor.
    pub default: RestartConfig,
    /// What differs, by actor name; keys left out come from `default`.
    pub actors: BTreeMap<String, RestartOverride>,
    /// How a peer is treated whose input was being handled at a fault.
    pub cool_down: CoolDownConfig,
    /// The root counts as stuck after this long without progress; the process then ends.
    pub root_stall: RootStall,
}

/// Newtype so that the default is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootStall(pub Span);

impl Default for RootStall {
    fn default() -> Self {
        Self(secs(60))
    }
}

/// Restart policy of an actor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartConfig {
    /// Faults tolerated within `window`; one more escalates.
    pub faults: u32,
    /// The sliding window.
    pub window: Span,
    /// First wait before a restart.
    pub backoff_initial: Span,
    /// Longest wait before a restart.
    pub backoff_max: Span,
    /// Messages that may wait in the mailbox.
    pub mailbox: usize,
    /// Without progress for this long the actor counts as hung.
    pub stall: Span,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self {
            faults: 5,
            window: secs(60),
            backoff_initial: millis(20),
            backoff_max: secs(2),
            mailbox: 1_024,
            stall: secs(10),
        }
    }
}

/// What differs from [`SupervisionConfig::default`] for one actor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartOverride {
    /// As [`RestartConfig::faults`].
    pub faults: Option<u32>,
    /// As [`RestartConfig::window`].
    pub window: Option<Span>,
    /// As [`RestartConfig::backoff_initial`].
    pub backoff_initial: Option<Span>,
    /// As [`RestartConfig::backoff_max`].
    pub backoff_max: Option<Span>,
    /// As [`RestartConfig::mailbox`].
    pub mailbox: Option<usize>,
    /// As [`RestartConfig::stall`].
    pub stall: Option<Span>,
}

impl SupervisionConfig {
    /// The policy of the actor called `name`.
    #[must_use]
    pub fn for_actor(&self, name: &str) -> RestartConfig {
        let Some(own) = self.actors.get(name) else {
            return self.default.clone();
        };
        let base = &self.default;
        RestartConfig {
            faults: own.faults.unwrap_or(base.faults),
            window: own.window.unwrap_or(base.window),
            backoff_initial: own.backoff_initial.unwrap_or(base.backoff_initial),
            backoff_max: own.backoff_max.unwrap_or(base.backoff_max),
            mailbox: own.mailbox.unwrap_or(base.mailbox),
            stall: own.stall.unwrap_or(base.stall),
        }
    }
}

/// `[supervision.cool_down]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoolDownConfig {
    /// First refusal after a fault; doubles with each further one.
    pub initial: Span,
    /// Longest refusal.
    pub max: Span,
    /// Parties remembered; the oldest is forgotten first.
    pub tracked: usize,
}

impl Default for CoolDownConfig {
    fn default() -> Self {
        Self {
            initial: secs(5),
            max: secs(3600),
            tracked: 4_096,
        }
    }
}
