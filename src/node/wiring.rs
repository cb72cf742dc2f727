//! Starts every actor and hands each the views and references it needs.

mod site;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc};

use super::{StartError, health::NodeHealth, sockets::Sockets};
use crate::{
    actors::{
        admin::{AdminActor, Desk, DeskTools, LimitFacts},
        audit::{AuditActor, AuditHandle, AuditTools},
        gatekeeper::{Gatekeeper, Tools},
        jobs::JobsActor,
        policy::{self},
        rate_limit::RateLimitActor,
        reputation::ReputationActor,
        revocation::SwarmSlot,
        sandbox::SandboxActor,
        settings::SettingsActor,
        swarm::SwarmActor,
    },
    admin::protocol::SOCKET,
    audit::{AuditEvent, OpenError},
    config::{self, Config, Loaded, Lowered},
    identity::{Continuity, IssuerFolder, NodeKey, StatusView, invites::Invites},
    store::{SetAside, Store},
    supervision::{ActorRef, Placement, Root, Supervise},
    telemetry::{LogFilter, Metrics},
    types::{Clock, PeerId, Publisher, View},
};

/// How long an actor may take to come up: opening a large log reads its tail.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one actor may take to answer the gate. The gate's own deadline is longer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Where jobs lie in the data directory: what this node runs, and what it gave away.
const JOBS: &str = "jobs";
/// This program, also when the file it was started from is replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Commands that can be served however many subscriptions there are.
const RESERVED: usize = 4;

/// The store's tree of what was done once for it.
const MARKS: &str = "node";
/// The mark that the bans in the log were taken over.
const BANS_RECOVERED: &[u8] = b"bans_recovered";

/// Admin, which starts after Swarm does.
type AdminSlot = Arc<OnceLock<ActorRef<AdminActor>>>;

/// What `node.rs` made before any actor runs.
pub(super) struct Parts {
    pub(super) root: Root,
    pub(super) config: Arc<Config>,
    pub(super) loaded: Loaded,
    pub(super) lowered: Vec<Lowered>,
    pub(super) log: LogFilter,
    pub(super) policies: policy::Loaded,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) key: NodeKey,
    /// The rotation that led to this key, when the log was not told of it yet.
    pub(super) rotated: Option<Continuity>,
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
    pub(super) sandbox: ActorRef<SandboxActor>,
    pub(super) jobs: ActorRef<JobsActor>,
    pub(super) settings: ActorRef<SettingsActor>,
    pub(super) rate_limit: ActorRef<RateLimitActor>,
    pub(super) reputation: ActorRef<ReputationActor>,
    pub(super) audit_actor: ActorRef<AuditActor>,
    pub(super) audit: AuditHandle,
    pub(super) store: Store,
    pub(super) socket: PathBuf,
    pub(super) health: Arc<NodeHealth>,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
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

/// What the steps of the start share.
struct Site {
    root: Root,
    /// As the node started.
    config: Arc<Config>,
    /// What is in force: an actor that begins anew takes its settings from here.
    live: View<Config>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    data_dir: PathBuf,
    peer: PeerId,
    audit: AuditHandle,
    note: Arc<dyn Fn(AuditEvent) + Send + Sync>,
}

/// Starts every actor, each once what it needs is up.
#[expect(
    clippy::too_many_lines,
    reason = "one step a statement: here all parts meet"
)]
pub(super) async fn start(parts: Parts) -> Result<Running, StartError> {
    let Parts {
        root,
        config,
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
    } = parts;
    let data_dir = loaded.data_dir.clone();
    let audit_tools = AuditTools::new(
        data_dir.join("audit"),
        config.audit.clone(),
        Arc::clone(&clock),
        Some(key.clone()),
    );
    let audit_actor = start_audit(&root, &audit_tools).await?;
    let timeout = config.audit.timeout.0;
    let audit = AuditHandle::new(
        audit_actor.clone(),
        Arc::clone(&clock),
        timeout,
        metrics.clone(),
    );
    let note = {
        let audit = audit.clone();
        Arc::new(move |event| audit.note(event))
    };
    let peer = key.peer();
    let live = Publisher::new(Config::clone(&config));
    let site = Site {
        root,
        config,
        live: live.view(),
        clock,
        metrics,
        data_dir,
        peer,
        audit,
        note,
    };
    if let Some(statement) = rotated {
        site.record_rotation(&statement).await?;
    }
    site.record(AuditEvent::NodeStarted {
        version: crate::VERSION.to_owned(),
        peer,
        config_hash: config::hash(&site.config),
    })
    .await?;
    let required = site.config.identity.require_status_lists;
    let statuses = Publisher::new(StatusView::empty(required));
    let folder = issuer_folder(&site.config, &loaded)?;
    let (identity, own, trust) = site
        .start_identity(folder.as_deref(), statuses.view())
        .await?;
    let (rate_limit, limiter) = site.start_rate_limit(&store).await?;
    let (reputation, standings) = site.start_reputation(&store).await?;
    site.recover_bans(&store, set_aside.as_ref(), &reputation, &audit_tools)
        .await?;
    let bench = site
        .start_policy(policies, loaded.beside(Path::new("")), &store)
        .await?;
    let slot = SwarmSlot::default();
    let revocation = site
        .start_revocation(&store, &trust, &reputation, (&slot, &statuses))
        .await?;
    let invites = Publisher::new(Invites::default());
    let issuer = site
        .start_issuer(
            (folder.clone(), &invites),
            &store,
            (&reputation, &revocation),
            (&own, &statuses),
        )
        .await?;
    let health = Arc::new(NodeHealth {
        root: site.root.clone(),
        own: own.clone(),
        standings: standings.clone(),
        clock: Arc::clone(&site.clock),
        stopping: false.into(),
    });
    let gatekeeper = Gatekeeper::new(Tools {
        own,
        key: key.clone(),
        trust,
        statuses: statuses.view(),
        standings,
        limiter,
        invites: invites.view(),
        cooldowns: site.root.cooldowns(),
        identity: identity.clone(),
        revocation: revocation.clone(),
        reputation: reputation.clone(),
        audit: site.audit.clone(),
        judge: Arc::new(bench.judge()),
        metrics: site.metrics.clone(),
        clock: Arc::clone(&site.clock),
        deadline: ASK_DEADLINE,
        pending: Arc::new(Semaphore::new(site.config.limits.pending_decisions)),
    });
    let admin_slot = AdminSlot::default();
    let sandbox = site
        .start_sandbox(&gatekeeper, &key, (&store, &bench))
        .await?;
    let swarm = site
        .start_swarm(
            &gatekeeper,
            &key,
            &store,
            (&sandbox, &issuer, &bench, &admin_slot),
        )
        .await?;
    // Nothing else fills it.
    let _ = slot.set(swarm.clone());
    site.start_renewal(&gatekeeper, folder.as_deref(), (&swarm, &issuer))
        .await?;
    let jobs = site
        .start_jobs(&gatekeeper, &store, (&swarm, &sandbox))
        .await?;
    let settings = site
        .start_settings(Arc::new(loaded.clone()), (live, log), &bench)
        .await?;
    let desk = Desk::new(DeskTools {
        policy: bench.policy.clone(),
        settings: settings.clone(),
        facts: site.facts(&loaded, sockets.http()),
        limits: LimitFacts::new(&loaded, &lowered, site.live.clone()),
        clock: Arc::clone(&site.clock),
        health: health.clone(),
        root: site.root.clone(),
        swarm: swarm.clone(),
        identity,
        revocation,
        issuer,
        reputation: reputation.clone(),
        sandbox: sandbox.clone(),
        jobs: jobs.clone(),
        audit: audit_actor.clone(),
        record: site.audit.clone(),
        stop,
    });
    let admin = site.start_admin(desk, sockets, health.clone()).await?;
    // Nothing else fills it.
    let _ = admin_slot.set(admin);
    Ok(Running {
        swarm,
        sandbox,
        jobs,
        settings,
        rate_limit,
        reputation,
        audit_actor,
        store,
        socket: site.data_dir.join(SOCKET),
        health,
        audit_tools,
        clock: site.clock,
        root: site.root,
        config: site.config,
        audit: site.audit,
        metrics: site.metrics,
    })
}

/// The issuer of which this node is one, when the configuration names its folder.
fn issuer_folder(
    config: &Config,
    loaded: &Loaded,
) -> Result<Option<Arc<IssuerFolder>>, StartError> {
    if !config.issuer.is_set() {
        return Ok(None);
    }
    let home = loaded.path.parent().unwrap_or(Path::new("."));
    let folder = IssuerFolder::open(&home.join(&config.issuer.dir))?;
    tracing::info!(issuer = %folder.key().name(), "this node issues credentials");
    Ok(Some(Arc::new(folder)))
}

async fn start_audit(root: &Root, tools: &AuditTools) -> Result<ActorRef<AuditActor>, StartError> {
    // Opened once here, so that damage is an error of the start and not of an actor.
    drop(tools.open().map_err(|error| match error {
        OpenError::Damaged(finding) => {
            StartError::LogDamaged(format!("{}: {finding}", tools.directory.display()))
        }
        other => StartError::Log(other.to_string()),
    })?);
    let own = tools.clone();
    let actor = root.spawn(Placement::Own, move |life| {
        Ok(AuditActor::new(life, own.clone()))
    });
    ready(root, &actor).await?;
    Ok(actor)
}
