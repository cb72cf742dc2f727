//! Starts every actor and hands each the views and references it needs.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc};

use super::{StartError, health::NodeHealth, rebuild, sockets::Sockets};
use crate::{
    actors::{
        admin::{AdminActor, AdminTools, Desk, DeskTools, NodeFacts},
        audit::{AuditActor, AuditHandle, AuditTools},
        gatekeeper::{Gatekeeper, Tools},
        identity::{IdentityActor, IdentityPublishers, IdentitySetup},
        issuer::{IssuerActor, IssuerSetup},
        jobs::{JobsActor, JobsSetup},
        judge::Bench,
        policy::{self, PolicyActor, PolicySetup, PolicyView},
        rate_limit::{RateLimitActor, RateLimitSetup},
        renewal::{RenewalActor, RenewalSetup},
        reputation::{ReputationActor, ReputationSetup},
        revocation::{RevocationActor, RevocationSetup, SwarmSlot},
        sandbox::{SandboxActor, SandboxSetup},
        settings::{Pending, SettingsActor, SettingsSetup},
        swarm::{SwarmActor, SwarmMemory, SwarmTools},
    },
    admin::protocol::SOCKET,
    audit::{AuditEvent, OpenError},
    config::{self, Config, Loaded},
    identity::{
        Continuity, IdentityPaths, IssuerFolder, Leniency, NodeKey, OwnIdentity, StatusView,
        TrustView,
        invites::Invites,
        rotation::{self, RotationError},
    },
    messages::reputation::Ban,
    store::{SetAside, Store},
    supervision::{ActorRef, Placement, Root, Supervise},
    telemetry::{self, LogFilter, Metrics},
    trust::{rate::Limiter, reputation::Standings},
    types::{Clock, EventId, PeerId, Publisher, View},
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
        .start_swarm(&gatekeeper, &key, (&sandbox, &issuer, &bench, &admin_slot))
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

impl Site {
    async fn record(&self, event: AuditEvent) -> Result<(), StartError> {
        let recorded = self.audit.record(event).await;
        recorded
            .map(drop)
            .map_err(|error| StartError::Log(error.to_string()))
    }

    /// The log is told under which name it goes on, once, before anything else is recorded.
    async fn record_rotation(&self, statement: &Continuity) -> Result<(), StartError> {
        let hash = statement.hash();
        let id = hash.first_chunk().copied().unwrap_or_default();
        let event = AuditEvent::KeyRotated {
            peer: self.peer,
            former: statement.former(),
            identity: statement.label(),
            sequence: statement.sequence(),
            rule: "own".to_owned(),
        };
        let recorded = self.audit.record_once(EventId(id), event).await;
        recorded.map_err(|error| StartError::Log(error.to_string()))?;
        rotation::finish(&IdentityPaths::new(&self.data_dir)).map_err(RotationError::from)?;
        tracing::info!(
            peer = %self.peer, former = %statement.former(),
            "this node goes on with new keys; the old ones are erased when a member is met"
        );
        Ok(())
    }

    async fn start_identity(
        &self,
        folder: Option<&IssuerFolder>,
        statuses: View<StatusView>,
    ) -> Result<(ActorRef<IdentityActor>, View<OwnIdentity>, View<TrustView>), StartError> {
        let publishers = IdentityPublishers::new(self.peer);
        let setup = IdentitySetup {
            peer: self.peer,
            paths: IdentityPaths::new(&self.data_dir),
            self_signed: self.config.identity.self_signed,
            leniency: folder.map(|folder| Leniency {
                issuer: folder.key().name().clone(),
                grace: self.config.identity.renewal_grace.0,
            }),
            clock: Arc::clone(&self.clock),
            statuses,
            metrics: self.metrics.clone(),
            publishers: publishers.clone(),
            note: Arc::clone(&self.note),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let (mut setup, rules) = (setup.clone(), &live.load().identity);
            setup.self_signed = rules.self_signed;
            if let Some(leniency) = &mut setup.leniency {
                leniency.grace = rules.renewal_grace.0;
            }
            Ok(IdentityActor::new(life, setup))
        });
        ready(&self.root, &actor).await?;
        Ok((actor, publishers.own.view(), publishers.trust.view()))
    }

    async fn start_rate_limit(
        &self,
        store: &Store,
    ) -> Result<(ActorRef<RateLimitActor>, View<Limiter>), StartError> {
        let limits = &self.config.limits;
        let closed = Limiter::closed(limits, Arc::clone(&self.clock))
            .map_err(|error| StartError::Config(error.to_string()))?;
        let publisher = Publisher::new(closed);
        let setup = RateLimitSetup {
            limits: limits.clone(),
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            publisher: publisher.clone(),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let mut setup = setup.clone();
            setup.limits = live.load().limits.clone();
            Ok(RateLimitActor::new(life, setup))
        });
        ready(&self.root, &actor).await?;
        Ok((actor, publisher.view()))
    }

    async fn start_reputation(
        &self,
        store: &Store,
    ) -> Result<(ActorRef<ReputationActor>, View<Standings>), StartError> {
        let rules = Arc::new(self.config.reputation.clone());
        let publisher = Publisher::new(Standings::unknown(Arc::clone(&rules)));
        let setup = ReputationSetup {
            rules,
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            publisher: publisher.clone(),
            note: Arc::clone(&self.note),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let mut setup = setup.clone();
            setup.rules = Arc::new(live.load().reputation.clone());
            Ok(ReputationActor::new(life, setup))
        });
        ready(&self.root, &actor).await?;
        Ok((actor, publisher.view()))
    }

    async fn start_policy(
        &self,
        policies: policy::Loaded,
        home: PathBuf,
        store: &Store,
    ) -> Result<Bench, StartError> {
        let max_cpu = self.config.sandbox.max_cpu_time.0;
        let first = PolicyView::new(policies, &self.config.policy, max_cpu);
        let publisher = Publisher::new(first);
        let view = publisher.view();
        let setup = PolicySetup {
            home,
            max_cpu,
            aggregate: self.config.audit.aggregate.0,
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            publisher,
            note: Arc::clone(&self.note),
            metrics: self.metrics.clone(),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(PolicyActor::new(life, setup.clone()))
        });
        ready(&self.root, &actor).await?;
        Ok(Bench {
            view,
            policy: actor,
            node: self.peer,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
        })
    }

    async fn start_settings(
        &self,
        loaded: Arc<Loaded>,
        (live, log): (Publisher<Config>, LogFilter),
        bench: &Bench,
    ) -> Result<ActorRef<SettingsActor>, StartError> {
        let setup = SettingsSetup {
            loaded,
            live,
            root: self.root.clone(),
            log,
            policy: bench.policy.clone(),
            note: Arc::clone(&self.note),
            pending: Pending::default(),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(SettingsActor::new(life, setup.clone()))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_revocation(
        &self,
        store: &Store,
        trust: &View<TrustView>,
        reputation: &ActorRef<ReputationActor>,
        (swarm, publisher): (&SwarmSlot, &Publisher<StatusView>),
    ) -> Result<ActorRef<RevocationActor>, StartError> {
        let setup = RevocationSetup {
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            trust: trust.clone(),
            required: self.config.identity.require_status_lists,
            publisher: publisher.clone(),
            swarm: Arc::clone(swarm),
            reputation: reputation.clone(),
            note: Arc::clone(&self.note),
            metrics: self.metrics.clone(),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let mut setup = setup.clone();
            setup.required = live.load().identity.require_status_lists;
            Ok(RevocationActor::new(life, setup))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_swarm(
        &self,
        gatekeeper: &Gatekeeper,
        key: &NodeKey,
        (sandbox, issuer, bench, admin): (
            &ActorRef<SandboxActor>,
            &ActorRef<IssuerActor>,
            &Bench,
            &AdminSlot,
        ),
    ) -> Result<ActorRef<SwarmActor>, StartError> {
        let views = gatekeeper.tools();
        let tools = SwarmTools {
            config: Arc::clone(&self.config),
            seed: Arc::new(key.seed()),
            key: key.clone(),
            clock: Arc::clone(&self.clock),
            keeper: Arc::new(gatekeeper.clone()),
            admission: Arc::new(gatekeeper.clone()),
            bench: bench.clone(),
            limiter: views.limiter.clone(),
            standings: views.standings.clone(),
            trust: views.trust.clone(),
            statuses: views.statuses.clone(),
            own: views.own.clone(),
            reputation: views.reputation.clone(),
            identity: views.identity.clone(),
            revocation: views.revocation.clone(),
            sandbox: sandbox.clone(),
            issuer: issuer.clone(),
            admin: Arc::clone(admin),
            audit: self.audit.clone(),
            cooldowns: self.root.cooldowns(),
            metrics: self.metrics.clone(),
            memory: Publisher::new(SwarmMemory::default()),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(SwarmActor::new(life, tools.clone()))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_issuer(
        &self,
        (folder, invites): (Option<Arc<IssuerFolder>>, &Publisher<Invites>),
        store: &Store,
        (reputation, revocation): (&ActorRef<ReputationActor>, &ActorRef<RevocationActor>),
        (own, statuses): (&View<OwnIdentity>, &Publisher<StatusView>),
    ) -> Result<ActorRef<IssuerActor>, StartError> {
        let setup = IssuerSetup {
            config: self.config.issuer.clone(),
            grace: self.config.identity.renewal_grace.0,
            folder,
            own: own.clone(),
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            invites: invites.clone(),
            statuses: statuses.view(),
            revocation: revocation.clone(),
            reputation: reputation.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let (mut setup, config) = (setup.clone(), live.load());
            setup.config = config.issuer.clone();
            setup.grace = config.identity.renewal_grace.0;
            Ok(IssuerActor::new(life, setup))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_renewal(
        &self,
        gatekeeper: &Gatekeeper,
        folder: Option<&IssuerFolder>,
        (swarm, issuer): (&ActorRef<SwarmActor>, &ActorRef<IssuerActor>),
    ) -> Result<(), StartError> {
        let views = gatekeeper.tools();
        let setup = RenewalSetup {
            enabled: self.config.identity.renew,
            key: views.key.clone(),
            paths: IdentityPaths::new(&self.data_dir),
            own: views.own.clone(),
            trust: views.trust.clone(),
            issues: folder.map(|folder| folder.key().name().clone()),
            clock: Arc::clone(&self.clock),
            identity: views.identity.clone(),
            swarm: swarm.clone(),
            issuer: issuer.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
        };
        let live = self.live.clone();
        let actor = self.root.spawn(Placement::Own, move |life| {
            let mut setup = setup.clone();
            setup.enabled = live.load().identity.renew;
            Ok(RenewalActor::new(life, setup))
        });
        ready(&self.root, &actor).await
    }

    async fn start_sandbox(
        &self,
        gatekeeper: &Gatekeeper,
        key: &NodeKey,
        (store, bench): (&Store, &Bench),
    ) -> Result<ActorRef<SandboxActor>, StartError> {
        let views = gatekeeper.tools();
        let setup = SandboxSetup {
            key: key.clone(),
            config: Arc::clone(&self.config),
            dir: self.data_dir.join(JOBS).join("run"),
            program: PathBuf::from(THIS_PROGRAM),
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            bench: bench.clone(),
            standings: views.standings.clone(),
            trust: views.trust.clone(),
            statuses: views.statuses.clone(),
            own: views.own.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(SandboxActor::new(life, setup.clone()))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_jobs(
        &self,
        gatekeeper: &Gatekeeper,
        store: &Store,
        (swarm, sandbox): (&ActorRef<SwarmActor>, &ActorRef<SandboxActor>),
    ) -> Result<ActorRef<JobsActor>, StartError> {
        let setup = JobsSetup {
            me: self.peer,
            config: self.config.jobs.clone(),
            dir: self.data_dir.join(JOBS).join("sent"),
            clock: Arc::clone(&self.clock),
            store: store.clone(),
            swarm: swarm.clone(),
            sandbox: sandbox.clone(),
            own: gatekeeper.tools().own.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(JobsActor::new(life, setup.clone()))
        });
        ready(&self.root, &actor).await?;
        Ok(actor)
    }

    async fn start_admin(
        &self,
        desk: Desk,
        sockets: Sockets,
        health: Arc<NodeHealth>,
    ) -> Result<ActorRef<AdminActor>, StartError> {
        let connections = self.config.admin.connections;
        let tools = AdminTools {
            desk,
            slots: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(connections.saturating_sub(RESERVED).max(1))),
            served: Arc::default(),
            listener: Arc::new(sockets.admin),
        };
        let actor = self.root.spawn(Placement::Own, move |life| {
            Ok(AdminActor::new(life, tools.clone()))
        });
        ready(&self.root, &actor).await?;
        if let Some(listener) = sockets.http_listener {
            telemetry::http::serve(listener, health, self.metrics.clone()).map_err(|error| {
                StartError::Actor {
                    actor: "http",
                    why: error.to_string(),
                }
            })?;
        }
        Ok(actor)
    }

    fn facts(&self, loaded: &Loaded, http: Option<SocketAddr>) -> NodeFacts {
        let version = crate::REVISION.map_or_else(
            || crate::VERSION.to_owned(),
            |revision| format!("{} ({revision})", crate::VERSION),
        );
        NodeFacts {
            peer_id: self.peer,
            version,
            started: self.clock.now(),
            http,
            data_dir: self.data_dir.clone(),
            config: loaded.path.clone(),
            fault_injection: self.config.testing.fault_injection,
            subscriber_queue: self.config.gossip.subscriber_queue,
        }
    }

    /// Takes the bans over from the log wherever the store does not say that this was done: when
    /// it is new, was set aside, or the node died before it was done.
    async fn recover_bans(
        &self,
        store: &Store,
        set_aside: Option<&SetAside>,
        reputation: &ActorRef<ReputationActor>,
        log: &AuditTools,
    ) -> Result<(), StartError> {
        if let Some(SetAside { path, reason }) = set_aside {
            let path = path.display().to_string();
            tracing::error!(
                path,
                reason,
                "the store was corrupt: it was set aside and a new one begun; bans come from the log"
            );
            self.record(AuditEvent::StoreSetAside {
                path,
                reason: reason.clone(),
            })
            .await?;
        }
        let marks = store.tree::<bool>(MARKS, 1)?;
        if marks.get(BANS_RECOVERED)?.is_some() {
            return Ok(());
        }
        let now = self.clock.now();
        let bans = rebuild::bans(&log.directory, now)
            .map_err(|error| StartError::Log(format!("reading bans: {error}")))?;
        for rebuild::Remembered {
            party,
            until,
            reason,
        } in bans
        {
            let again = Ban {
                party,
                span: until.since(now),
                reason,
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
        marks.put(BANS_RECOVERED, &true)?;
        Ok(store.flush_durable()?)
    }
}
