//! The steps of the start: one actor each, with the views and references it needs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::sync::Semaphore;

use super::{
    super::{StartError, health::NodeHealth, rebuild, sockets::Sockets},
    ASK_DEADLINE, AdminSlot, BANS_RECOVERED, JOBS, MARKS, RESERVED, Site, THIS_PROGRAM, ready,
};
use crate::{
    actors::{
        admin::{AdminActor, AdminTools, Desk, NodeFacts},
        audit::AuditTools,
        gatekeeper::Gatekeeper,
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
    audit::AuditEvent,
    config::{Config, Loaded},
    identity::{
        Continuity, IdentityPaths, IssuerFolder, Leniency, NodeKey, OwnIdentity, StatusView,
        TrustView,
        invites::Invites,
        rotation::{self, RotationError},
    },
    messages::reputation::Ban,
    store::{SetAside, Store},
    supervision::{ActorRef, Placement},
    telemetry::{self, LogFilter},
    trust::{rate::Limiter, reputation::Standings},
    types::{EventId, Publisher, View},
};

impl Site {
    pub(super) async fn record(&self, event: AuditEvent) -> Result<(), StartError> {
        let recorded = self.audit.record(event).await;
        recorded
            .map(drop)
            .map_err(|error| StartError::Log(error.to_string()))
    }

    /// The log is told under which name it goes on, once, before anything else is recorded.
    pub(super) async fn record_rotation(&self, statement: &Continuity) -> Result<(), StartError> {
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

    pub(super) async fn start_identity(
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

    pub(super) async fn start_rate_limit(
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

    pub(super) async fn start_reputation(
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

    pub(super) async fn start_policy(
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

    pub(super) async fn start_settings(
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

    pub(super) async fn start_revocation(
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

    pub(super) async fn start_swarm(
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
            settings: self.live.clone(),
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

    pub(super) async fn start_issuer(
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

    pub(super) async fn start_renewal(
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

    pub(super) async fn start_sandbox(
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

    pub(super) async fn start_jobs(
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

    pub(super) async fn start_admin(
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

    pub(super) fn facts(&self, loaded: &Loaded, http: Option<SocketAddr>) -> NodeFacts {
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
    pub(super) async fn recover_bans(
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
