//! Settings: takes over a changed configuration while the node runs.
//!
//! The file and the policies are read again, checked as at the start, and merged with what is in
//! force ([`crate::config::merge`]). Only when all of it is good is anything changed: the policies
//! are read and tried first and taken last, for they can be refused; then the configuration in
//! force is published; then the actors whose settings changed begin anew with it. The rest is said
//! to wait for a start.
//!
//! # Invariants
//! - On any error everything stays as it is.
//! - Once the configuration is published, that is on record, with each key that was applied or waits.
//!   A second record, and the report, name the actors that then began anew and those that did not.
//!   The latter are remembered, also beyond this incarnation: the next reload
//!   has them begin anew, though no key of theirs differs any more.
//! - One reload at a time.
//!
//! # When it fails
//! The configuration in force is in the view, which outlives this actor; a reload that was under
//! way may have applied the policies and not the rest, and can be repeated. Runs on an arbiter of
//! its own, since reading files blocks.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::{
    Actor, Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use serde::Serialize;

use super::policy::PolicyActor;
use crate::{
    audit::AuditEvent,
    config::{Config, Loaded, Machine, Merged, derive, hash, merge},
    messages::{
        policy::{PolicyReport, PreparePolicies, PreparedPolicies, TakePolicies},
        settings::{ReloadSettings, SettingsReport},
    },
    supervised,
    supervision::{ActorRef, Incarnation, Root, Supervise},
    telemetry::LogFilter,
    types::Publisher,
};

/// How long Policy may take to read and try its policies: a thousand take a second or two.
const POLICY_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take to put them in force: a pointer is changed.
const TAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an actor may take to begin anew.
const RESTART_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Where the actor tells the audit log what happened.
pub type Note = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// Actors that have not begun anew yet with settings that are in force. Clones share it, so that it
/// outlives an incarnation and a reload that was cut off.
#[derive(Debug, Clone, Default)]
pub struct Pending(Arc<Mutex<BTreeSet<&'static str>>>);

impl Pending {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        // A set of names is whole whatever panicked.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, actors: &[&'static str]) {
        self.with(|all| all.extend(actors));
    }

    fn done(&self, actor: &str) {
        self.with(|all| all.remove(actor));
    }

    fn all(&self) -> Vec<&'static str> {
        self.with(|all| all.iter().copied().collect())
    }
}

/// What an incarnation is made of.
#[derive(Clone)]
pub struct SettingsSetup {
    /// The configuration as the node started, and how to load it again.
    pub loaded: Arc<Loaded>,
    /// Where the configuration in force is published.
    pub live: Publisher<Config>,
    /// Restarts actors.
    pub root: Root,
    /// The filter of the log's lines.
    pub log: LogFilter,
    /// Loads policies.
    pub policy: ActorRef<PolicyActor>,
    /// Usually `AuditHandle::note`.
    pub note: Note,
    /// Actors still to begin anew; empty at the start.
    pub pending: Pending,
}

impl fmt::Debug for SettingsSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsSetup").finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub struct SettingsActor {
    setup: SettingsSetup,
    busy: bool,
    reloads: u64,
    last: Option<Result<SettingsReport, String>>,
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct SettingsState {
    /// Reloads carried out by this incarnation.
    pub reloads: u64,
    /// What the last one did.
    pub last: Option<Result<SettingsReport, String>>,
}

impl SettingsActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(_: Incarnation, setup: SettingsSetup) -> Self {
        Self {
            setup,
            busy: false,
            reloads: 0,
            last: None,
        }
    }
}

impl SettingsSetup {
    /// Reads the file, and merges it with what is in force.
    fn read(&self) -> Result<(Merged, Config), String> {
        let wanted = self.loaded.again().map_err(|error| error.to_string())?;
        let (wanted, _) = derive(&wanted.config, Machine::read());
        let in_force = self.live.view().load();
        Ok((merge(&in_force, &wanted)?, wanted))
    }

    async fn reload(self) -> Result<SettingsReport, String> {
        let (merged, _) = self.read()?;
        let Merged {
            config,
            changes,
            actors,
        } = merged;
        let ticket = self.prepare(&config).await?;
        let policy = self.take(&config, ticket).await?;
        let hash = hash(&config);
        self.pending.add(&actors);
        self.live.publish(config);
        let keys = |applied: bool| {
            let of = changes.iter().filter(move |one| one.applied == applied);
            of.map(|change| change.key.clone()).collect()
        };
        (self.note)(AuditEvent::SettingsChanged {
            config_hash: hash.clone(),
            applied: keys(true),
            waiting: keys(false),
        });
        let (restarted, failed) = self.begin_all_anew().await;
        if !(restarted.is_empty() && failed.is_empty()) {
            (self.note)(AuditEvent::SettingsTaken {
                config_hash: hash.clone(),
                restarted: restarted.clone(),
                failed: failed.clone(),
            });
        }
        Ok(SettingsReport {
            config: self.loaded.path.clone(),
            hash,
            changes,
            restarted,
            failed,
            policy,
        })
    }

    /// Has the policies read and tried; names them, to take them.
    async fn prepare(&self, config: &Config) -> Result<u64, String> {
        let prepare = PreparePolicies {
            config: config.policy.clone(),
        };
        let prepared = self.policy.ask(prepare, POLICY_DEADLINE).await;
        let prepared = prepared.map_err(|error| format!("the policies were not read: {error}"))?;
        prepared.map(|PreparedPolicies { ticket, .. }| ticket)
    }

    /// The level of the log, then the policies: the last steps that can be refused.
    async fn take(&self, config: &Config, ticket: u64) -> Result<PolicyReport, String> {
        self.log
            .set(&config.log.level)
            .map_err(|error| error.to_string())?;
        let taken = self
            .policy
            .ask(TakePolicies { ticket }, TAKE_DEADLINE)
            .await;
        let taken = taken.unwrap_or_else(|error| {
            Err(format!(
                "it is not known whether the policies were taken, reload again: {error}"
            ))
        });
        if taken.is_err() {
            // The former level was good.
            let _ = self.log.set(&self.live.view().load().log.level);
        }
        taken
    }

    /// Has every actor begin anew that has to: those that did, and what kept the others.
    async fn begin_all_anew(&self) -> (Vec<String>, Vec<String>) {
        let (mut restarted, mut failed) = (Vec::new(), Vec::new());
        for actor in self.pending.all() {
            match self.begin_anew(actor).await {
                Ok(()) => {
                    self.pending.done(actor);
                    restarted.push(actor.to_owned());
                }
                Err(why) => {
                    tracing::error!(actor, why, "an actor has not taken over its settings");
                    failed.push(why);
                }
            }
        }
        (restarted, failed)
    }

    /// Has an actor begin anew, and waits until it runs.
    async fn begin_anew(&self, name: &str) -> Result<(), String> {
        let Some(control) = self.root.control(name) else {
            return Err(format!("there is no actor `{name}`"));
        };
        let before = control.snapshot().generation;
        control
            .restart("its settings changed")
            .map_err(|error| format!("{name}: {error}"))?;
        let up = async {
            while control.snapshot().generation <= before {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(RESTART_DEADLINE, up)
            .await
            .map_err(|_| format!("{name} did not begin anew within {RESTART_DEADLINE:?}"))
    }
}

impl Actor for SettingsActor {
    type Context = Context<Self>;
}

supervised!(SettingsActor);

impl Supervise for SettingsActor {
    const NAME: &'static str = "settings";
    type Observable = SettingsState;

    fn observe(&self) -> SettingsState {
        SettingsState {
            reloads: self.reloads,
            last: self.last.clone(),
        }
    }
}

impl Handler<ReloadSettings> for SettingsActor {
    type Result = ResponseActFuture<Self, Result<SettingsReport, String>>;

    fn handle(&mut self, _: ReloadSettings, _: &mut Context<Self>) -> Self::Result {
        if self.busy {
            let why = "another reload is under way: try again".to_owned();
            return Box::pin(fut::ready(Err(why)));
        }
        self.busy = true;
        let reload = self.setup.clone().reload().into_actor(self);
        Box::pin(reload.map(|done, act, _| {
            act.busy = false;
            act.reloads = act.reloads.saturating_add(1);
            match &done {
                Ok(report) => {
                    tracing::info!(
                        hash = report.hash,
                        changes = report.changes.len(),
                        "settings"
                    );
                }
                Err(why) => {
                    tracing::error!(why, "the configuration was not taken: all stays as it is");
                    (act.setup.note)(AuditEvent::SettingsRefused { why: why.clone() });
                }
            }
            act.last = Some(done.clone());
            done
        }))
    }
}
