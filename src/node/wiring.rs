//! Starts every actor and hands each the views and references it needs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};

use super::{StartError, health::NodeHealth, rebuild, sockets::Sockets};
use crate::{
    actors::{
        admin::{AdminActor, AdminTools, Desk, DeskTools, NodeFacts},
        audit::{AuditActor, AuditHandle, AuditTools},
        gatekeeper::{Gatekeeper, Tools},
        identity::{IdentityActor, IdentityPublishers, IdentitySetup},
        rate_limit::{RateLimitActor, RateLimitSetup},
        reputation::{ReputationActor, ReputationSetup},
        swarm::{SwarmActor, SwarmMemory, SwarmTools},
    },
    admin::protocol::SOCKET,
    audit::{AuditEvent, OpenError},
    config::{Config, Loaded},
    identity::{IdentityPaths, NodeKey},
    messages::reputation::Ban,
    store::{SetAside, Store},
    supervision::{ActorRef, Placement, Root, Supervise},
    telemetry::{self, Metrics},
    trust::{rate::Limiter, reputation::Standings},
    types::{Clock, Publisher, Timestamp},
};

/// How long an actor may take to come up: opening a large log reads its tail.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one actor may take to answer the gate. The gate's own deadline is longer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What `node.rs` made before any actor runs.
pub(super) struct Parts {
    pub(super) root: Root,
    pub(super) config: Arc<Config>,
    pub(super) loaded: Loaded,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) key: NodeKey,
    pub(super) store: Store,
    pub(super) set_aside: Option<SetAside>,
    pub(super) sockets: Sockets,
    pub(super) metrics: Metrics,
    pub(super) stop: mpsc::Sender<String>,
}

/// A node whose actors are up.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) root: Root,
    pub(super) config: Arc<Config>,
    pub(super) swarm: ActorRef<SwarmActor>,
    pub(super) rate_limit: ActorRef<RateLimitActor>,
    pub(super) reputation: ActorRef<ReputationActor>,
    pub(super) audit_actor: ActorRef<AuditActor>,
    pub(super) audit: AuditHandle,
    pub(super) store: Store,
    pub(super) socket: PathBuf,
    pub(super) health: Arc<NodeHealth>,
    pub(super) metrics: Metrics,
    audit_tools: AuditTools,
}

impl Running {
    /// Resolves when the log's disk has not answered for too long.
    pub(super) async fn log_stalled(&self) {
        self.audit_tools.disk_stalled().await;
    }
}

/// Waits until an actor's first incarnation runs.
async fn ready<A: Supervise>(root: &Root, actor: &ActorRef<A>) -> Result<(), StartError> {
    let mut generation = actor.generation();
    let failed = |why: String| StartError::Actor {
        actor: A::NAME,
        why,
    };
    tokio::select! {
        up = generation.wait_for(|generation| *generation > 0) => {
            up.map(drop).map_err(|_| failed("its guard is gone".to_owned()))
        }
        escalation = root.escalated() => {
            Err(StartError::Actor { actor: escalation.actor, why: escalation.report.detail })
        }
        () = tokio::time::sleep(START_DEADLINE) => {
            Err(failed(format!("not within {START_DEADLINE:?}")))
        }
    }
}

/// Starts every actor, each once what it needs is up.
pub(super) async fn start(parts: Parts) -> Result<Running, StartError> {
    let Parts {
        root,
        config,
        loaded,
        clock,
        key,
        store,
        set_aside,
        sockets,
        metrics,
        stop,
    } = parts;
    let data_dir = loaded.data_dir.clone();
    let peer = key.peer();

    let audit_tools = AuditTools::new(
        data_dir.join("audit"),
        config.audit.clone(),
        Arc::clone(&clock),
    );
    drop(audit_tools.open().map_err(|error| match error {
        OpenError::Damaged(finding) => {
            StartError::LogDamaged(format!("{}: {finding}", audit_tools.directory.display()))
        }
        other => StartError::Log(other.to_string()),
    })?);
    let tools = audit_tools.clone();
    let audit_actor = root.spawn(Placement::Own, move |life| {
        Ok(AuditActor::new(life, tools.clone()))
    });
    ready(&root, &audit_actor).await?;
    let timeout = config.audit.timeout.0;
    let audit = AuditHandle::new(
        audit_actor.clone(),
        Arc::clone(&clock),
        timeout,
        metrics.clone(),
    );
    let started = AuditEvent::NodeStarted {
        version: crate::VERSION.to_owned(),
        peer,
        config_hash: config_hash(&config),
    };
    audit
        .record(started)
        .await
        .map_err(|error| StartError::Log(error.to_string()))?;
    let note: Arc<dyn Fn(AuditEvent) + Send + Sync> = {
        let audit = audit.clone();
        Arc::new(move |event| audit.note(event))
    };

    let publishers = IdentityPublishers::new(peer);
    let identity = {
        let setup = IdentitySetup {
            peer,
            paths: IdentityPaths::new(&data_dir),
            clock: Arc::clone(&clock),
            publishers: publishers.clone(),
            note: Arc::clone(&note),
        };
        root.spawn(Placement::Own, move |life| {
            Ok(IdentityActor::new(life, setup.clone()))
        })
    };
    ready(&root, &identity).await?;

    let limiter = Publisher::new(
        Limiter::closed(&config.limits, Arc::clone(&clock))
            .map_err(|error| StartError::Config(error.to_string()))?,
    );
    let rate_limit = {
        let setup = RateLimitSetup {
            limits: config.limits.clone(),
            clock: Arc::clone(&clock),
            store: store.clone(),
            publisher: limiter.clone(),
        };
        root.spawn(Placement::Own, move |life| {
            Ok(RateLimitActor::new(life, setup.clone()))
        })
    };
    ready(&root, &rate_limit).await?;

    let rules = Arc::new(config.reputation.clone());
    let standings = Publisher::new(Standings::unknown(Arc::clone(&rules)));
    let reputation = {
        let setup = ReputationSetup {
            rules,
            clock: Arc::clone(&clock),
            store: store.clone(),
            publisher: standings.clone(),
            note: Arc::clone(&note),
        };
        root.spawn(Placement::Own, move |life| {
            Ok(ReputationActor::new(life, setup.clone()))
        })
    };
    ready(&root, &reputation).await?;
    if let Some(set_aside) = set_aside {
        recover_bans(&set_aside, &audit, &reputation, &audit_tools, clock.now()).await?;
    }

    let gatekeeper = Gatekeeper::new(Tools {
        own: publishers.own.view(),
        trust: publishers.trust.view(),
        standings: standings.view(),
        limiter: limiter.view(),
        cooldowns: root.cooldowns(),
        identity: identity.clone(),
        reputation: reputation.clone(),
        audit: audit.clone(),
        policy: config.policy.clone(),
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
        deadline: ASK_DEADLINE,
        pending: Arc::new(Semaphore::new(config.limits.pending_decisions)),
    });
    let swarm = {
        let tools = SwarmTools {
            config: Arc::clone(&config),
            seed: Arc::new(key.seed()),
            clock: Arc::clone(&clock),
            keeper: Arc::new(gatekeeper.clone()),
            admission: Arc::new(gatekeeper),
            limiter: limiter.view(),
            standings: standings.view(),
            trust: publishers.trust.view(),
            own: publishers.own.view(),
            reputation: reputation.clone(),
            audit: audit.clone(),
            cooldowns: root.cooldowns(),
            metrics: metrics.clone(),
            memory: Publisher::new(SwarmMemory::default()),
        };
        root.spawn(Placement::Own, move |life| {
            Ok(SwarmActor::new(life, tools.clone()))
        })
    };
    ready(&root, &swarm).await?;

    let health = Arc::new(NodeHealth {
        root: root.clone(),
        own: publishers.own.view(),
        standings: standings.view(),
        clock: Arc::clone(&clock),
        stopping: false.into(),
    });
    let facts = NodeFacts {
        peer_id: peer,
        version: crate::REVISION.map_or_else(
            || crate::VERSION.to_owned(),
            |rev| format!("{} ({rev})", crate::VERSION),
        ),
        started: clock.now(),
        http: sockets.http(),
        data_dir: data_dir.clone(),
        config: loaded.path.clone(),
        fault_injection: config.testing.fault_injection,
        subscriber_queue: config.gossip.subscriber_queue,
    };
    let desk = Desk::new(DeskTools {
        facts,
        clock: Arc::clone(&clock),
        health: health.clone(),
        root: root.clone(),
        swarm: swarm.clone(),
        identity,
        reputation: reputation.clone(),
        audit: audit_actor.clone(),
        record: audit.clone(),
        stop,
    });
    let tools = AdminTools {
        desk,
        slots: Arc::new(Semaphore::new(config.admin.connections)),
        served: Arc::default(),
        listener: Arc::new(sockets.admin),
    };
    let admin = root.spawn(Placement::Own, move |life| {
        Ok(AdminActor::new(life, tools.clone()))
    });
    ready(&root, &admin).await?;
    if let Some(listener) = sockets.http_listener {
        telemetry::http::serve(listener, health.clone(), metrics.clone()).map_err(|error| {
            StartError::Actor {
                actor: "http",
                why: error.to_string(),
            }
        })?;
    }
    Ok(Running {
        root,
        config,
        swarm,
        rate_limit,
        reputation,
        audit_actor,
        audit,
        store,
        socket: data_dir.join(SOCKET),
        health,
        metrics,
        audit_tools,
    })
}

/// SHA-256 of the effective configuration's canonical JSON, hex.
fn config_hash(config: &Config) -> String {
    let text = serde_json_canonicalizer::to_vec(config).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

/// Says aloud that the store was set aside, and takes its bans over from the log.
async fn recover_bans(
    set_aside: &SetAside,
    audit: &AuditHandle,
    reputation: &ActorRef<ReputationActor>,
    log: &AuditTools,
    now: Timestamp,
) -> Result<(), StartError> {
    let SetAside { path, reason } = set_aside;
    tracing::error!(
        path = %path.display(), reason,
        "the store was corrupt: it was set aside and a new one begun; bans are taken from the log"
    );
    let event = AuditEvent::StoreSetAside {
        path: path.display().to_string(),
        reason: reason.clone(),
    };
    audit
        .record(event)
        .await
        .map_err(|error| StartError::Log(error.to_string()))?;
    let bans = rebuild::bans(&log.directory, now)
        .map_err(|error| StartError::Log(format!("reading bans: {error}")))?;
    for ban in bans {
        let again = Ban {
            party: ban.party,
            span: ban.until.since(now),
            reason: ban.reason,
        };
        let banned = reputation.ask(again, ASK_DEADLINE).await;
        let failed = |why: String| StartError::Actor {
            actor: "reputation",
            why,
        };
        banned
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)?;
    }
    Ok(())
}
