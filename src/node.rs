//! The node: the only place that knows every actor. Order of start, order of shutdown, wiring.
//!
//! Start: checks that need no actor (data directory, key, ports), store, then Audit, Identity,
//! RateLimit, Reputation, Policy, Revocation, Sandbox, Swarm, Jobs, Settings, Admin. Shutdown: nothing new is accepted, connections close,
//! debts and scores are saved, the log is flushed last. Both are bounded in time.

mod data_dir;
mod error;
mod health;
mod local;
mod rebuild;
mod shutdown;
mod sockets;
mod wiring;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::mpsc;

pub use data_dir::{DataDir, DataDirError, create as create_data_dir};
pub use error::StartError;
pub use local::Local;
pub use shutdown::Ending;

use crate::{
    actors::policy::load as load_policies,
    audit::AuditEvent,
    config::{Loaded, Lowered, Machine, derive},
    identity::{
        IdentityPaths, NodeKey,
        rotation::{self, Started},
        state,
    },
    sandbox::{Protection, forbid_writable_executable},
    store::Store,
    supervision::{Root, SupervisionEvent},
    telemetry::{LogFilter, Metrics},
    types::{Clock, SystemClock},
};
use sockets::Sockets;
use wiring::{Parts, Running};

/// Runs a node until it is told to stop, or cannot go on. Must be called inside an actix
/// `System`.
///
/// # Errors
/// [`StartError`] when it could not start; nothing was changed then that a second try would
/// trip over.
pub async fn run(
    loaded: Loaded,
    log: LogFilter,
    until_stdin_closes: bool,
) -> Result<Ending, StartError> {
    run_with(loaded, log, until_stdin_closes, drop).await
}

/// As [`run`], within a program that has a use for the node: `started` is given what it may ask of
/// it, once everything is up.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    loaded: Loaded,
    log: LogFilter,
    until_stdin_closes: bool,
    started: impl FnOnce(Local),
) -> Result<Ending, StartError> {
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        return Err(StartError::KeyLog);
    }
    // Before the key is read: a crash must not write it to a disk, nor another program read it.
    match forbid_core_dumps() {
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "core dumps of this process cannot be forbidden"),
    }
    // Signals first: one that comes during the start is not lost.
    let signals = shutdown::Signals::install(until_stdin_closes).map_err(StartError::Signals)?;
    let hangup = shutdown::hangup().map_err(StartError::Signals)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (config, lowered) = derive(&loaded.config, Machine::claim());
    let data = DataDir::open(&loaded.data_dir)?;
    let paths = IdentityPaths::new(data.path());
    let Started { key, rotated } = load_key(&paths)?;
    // Read once here, so that what is wrong is an error of the start and not of an actor.
    let anchors = state::load_anchors(&paths)?;
    state::load_own(&paths, key.peer(), &anchors, clock.now())?;
    let home = loaded.beside(Path::new(""));
    let policies = load_policies(&config.policy, &home).map_err(StartError::Policy)?;
    for warning in &policies.report.warnings {
        tracing::warn!(warning, "policies");
    }
    let sockets = Sockets::bind(&config, data.path())?;
    let (store, set_aside) = Store::open(&data.path().join("state"), clock.now())?;
    greet(&loaded, &config, &key, &lowered, sockets.http());
    // Nothing here compiles: workers do, in processes of their own.
    match forbid_writable_executable() {
        Protection::Enforced => {
            tracing::info!("no memory of this process is both writable and executable");
        }
        Protection::Unsupported => tracing::warn!(
            "this kernel cannot forbid writable and executable memory (Linux 6.6 can)"
        ),
    }

    let peer = key.peer();
    let (stop, stopped) = mpsc::channel(1);
    let metrics = Metrics::new();
    let (root, events) = Root::new(
        &config.supervision,
        Arc::clone(&clock),
        config.testing.fault_injection,
    );
    let running = wiring::start(Parts {
        root,
        config: Arc::new(config),
        loaded,
        lowered,
        log,
        policies,
        clock,
        key,
        rotated,
        store,
        set_aside,
        sockets,
        metrics,
        stop,
    })
    .await?;
    started(Local {
        peer,
        swarm: running.swarm.clone(),
    });
    actix::spawn(publish_events(events, running.clone()));
    actix::spawn(shutdown::reload_on_hangup(running.clone(), hangup));
    let ending = shutdown::wait(&running, signals, stopped).await;
    running.health.stopping.store(true, Ordering::Release);
    // Held to the very end: no second node may begin while this one still writes.
    drop(data);
    Ok(ending)
}

/// No core file, and nobody but root attaches to this process or reads its memory.
fn forbid_core_dumps() -> Result<(), nix::Error> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Loads the node key, or makes one where there is none yet; a rotation that is ready happens here.
fn load_key(paths: &IdentityPaths) -> Result<Started, StartError> {
    let path = paths.node_key();
    if path.exists() {
        return Ok(rotation::start(paths)?);
    }
    // A new key would be a new node, with another's log, bans and credential.
    let used = path
        .parent()
        .is_some_and(|data| data.join("audit").exists());
    if used || paths.credential().exists() {
        return Err(StartError::KeyMissing(path));
    }
    let key = NodeKey::create(&path)?;
    tracing::info!(path = %path.display(), "no node key was there: made a new one");
    Ok(Started { key, rotated: None })
}

/// What an operator wants to see first.
fn greet(
    loaded: &Loaded,
    config: &crate::config::Config,
    key: &NodeKey,
    notes: &[Lowered],
    http: Option<std::net::SocketAddr>,
) {
    tracing::info!(
        peer_id = %key.peer(),
        version = crate::VERSION,
        config = %loaded.path.display(),
        data_dir = %loaded.data_dir.display(),
        http = http.map(|address| address.to_string()),
        "quantraband starts"
    );
    let limits = &config.limits;
    tracing::info!(
        connections = limits.connections,
        inbound_connections = limits.inbound_connections,
        outbound_connections = limits.outbound_connections,
        memory = %limits.memory,
        connections_per_minute_per_address = limits.connections_per_minute_per_address,
        pending_connections = limits.pending_connections,
        messages_per_second = limits.messages_per_second,
        max_message_size = %limits.max_message_size,
        "limits in force"
    );
    for note in notes {
        tracing::info!("{note}");
    }
    if config.testing.fault_injection {
        tracing::warn!("testing.fault_injection is set: never run this node in production");
    }
}

/// Writes down and counts what happens among the actors.
async fn publish_events(mut events: mpsc::Receiver<SupervisionEvent>, running: Running) {
    while let Some(event) = events.recv().await {
        match event {
            SupervisionEvent::Fault { actor, report } => {
                running.metrics.actor_restarted(actor, report.cause.name());
                tracing::warn!(
                    actor, cause = %report.cause, detail = report.detail, "an actor is restarted"
                );
                running.audit.note(AuditEvent::ActorRestarted {
                    actor: actor.to_owned(),
                    cause: report.cause.to_string(),
                    detail: report.detail,
                    blamed: report.blamed,
                });
            }
            SupervisionEvent::Escalated { actor, report } => {
                running.audit.note(AuditEvent::ActorEscalated {
                    actor: actor.to_owned(),
                    detail: report.detail,
                });
            }
            SupervisionEvent::Started { actor, generation } => {
                tracing::debug!(actor, generation, "an actor is ready");
            }
            SupervisionEvent::Stalled { actor, thread } => {
                tracing::error!(actor, thread, "an actor makes no progress");
            }
        }
    }
}
