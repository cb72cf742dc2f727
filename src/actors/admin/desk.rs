//! Carries out commands: each is a question or two to the actor that owns the matter.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::limits::LimitFacts;

use crate::{
    actors::{
        audit::{AuditActor, AuditHandle},
        identity::IdentityActor,
        issuer::IssuerActor,
        jobs::JobsActor,
        policy::PolicyActor,
        reputation::ReputationActor,
        revocation::RevocationActor,
        sandbox::SandboxActor,
        settings::SettingsActor,
        swarm::SwarmActor,
    },
    admin::{
        protocol::{
            ActorFault, ActorReport, Failure, FailureCode, FaultKind, MAX_TEXT, Request, Response,
            StatusReport, millis,
        },
        remote::is_taken,
    },
    audit::AuditEvent,
    messages::{
        audit::{AuditFault, RotateLog, Tail},
        enrolment::{InviteFault, MakeInvitation},
        identity::{DescribeIdentity, ReloadIdentity},
        policy::{DescribePolicies, ListQuarantines, PutInQuarantine, Release},
        reputation::{Ban, LiftBan, ListBans},
        revocation::{ImportStatusList, ListStatusLists},
        settings::ReloadSettings,
        swarm::{
            Delivered, DescribeLimits, DescribeSwarm, GetSealingKey, ListPeers, Publish,
            PublishFault, SealingKey, SendCommand, SendFault, Subscribe,
        },
    },
    supervision::{ActorControl, ActorRef, ActorSnapshot, AskError, ControlError, Inject, Root},
    telemetry::Health,
    types::{Clock, Party, PeerId, Span, Timestamp, Topic},
};

/// How long one actor may take to answer a command.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How long a reload may take: policies are tried before they are used.
pub(super) const RELOAD_DEADLINE: Duration = Duration::from_secs(60);
/// How long an actor may take to show its state.
const OBSERVE_DEADLINE: Duration = Duration::from_secs(2);

/// What does not change while the node runs.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node's peer id.
    pub peer_id: PeerId,
    /// Version of the program.
    pub version: String,
    /// When the node started.
    pub started: Timestamp,
    /// Where `/live`, `/ready` and `/metrics` are.
    pub http: Option<std::net::SocketAddr>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// Whether faults may be injected.
    pub fault_injection: bool,
    /// Most messages waiting for one subscriber.
    pub subscriber_queue: usize,
}

/// Whom the desk asks.
pub struct DeskTools {
    /// See [`NodeFacts`].
    pub facts: NodeFacts,
    /// What the limits are.
    pub limits: LimitFacts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the node does its job.
    pub health: Arc<dyn Health>,
    /// Lists, restarts and injects.
    pub root: Root,
    /// The network.
    pub swarm: ActorRef<SwarmActor>,
    /// Who this node is.
    pub identity: ActorRef<IdentityActor>,
    /// What issuers took back.
    pub revocation: ActorRef<RevocationActor>,
    /// Makes invitations.
    pub issuer: ActorRef<IssuerActor>,
    /// Policies and quarantines.
    pub policy: ActorRef<PolicyActor>,
    /// The configuration in force.
    pub settings: ActorRef<SettingsActor>,
    /// Scores and bans.
    pub reputation: ActorRef<ReputationActor>,
    /// Jobs of others.
    pub sandbox: ActorRef<SandboxActor>,
    /// Jobs given to others.
    pub jobs: ActorRef<JobsActor>,
    /// The log.
    pub audit: ActorRef<AuditActor>,
    /// Records commands.
    pub record: AuditHandle,
    /// Stops the node; the text says why. One is enough, more are dropped.
    pub stop: mpsc::Sender<String>,
}

/// Whose command it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// A local user, by id, when known: who may open the socket.
    User(Option<u32>),
    /// A peer that a policy lets administer this node.
    Peer(PeerId),
}

/// Carries out commands. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<DeskTools>);

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

pub(super) fn no_answer(error: AskError) -> Failure {
    let code = match error {
        AskError::Down => FailureCode::Unavailable,
        AskError::Restarted | AskError::Timeout | AskError::Overloaded => FailureCode::Again,
    };
    Failure::new(
        code,
        format!("{error}; try again, or look at `quantraband actors`"),
    )
}

fn not_published(fault: &PublishFault) -> Failure {
    let code = match fault {
        PublishFault::Denied(_) => FailureCode::Denied,
        PublishFault::TooLarge { .. } => FailureCode::TooLarge,
        PublishFault::Backpressure | PublishFault::OverRate(_) => FailureCode::Again,
        PublishFault::Failed(_) => FailureCode::Failed,
    };
    Failure::new(code, fault.to_string())
}

fn not_recorded(fault: &AuditFault) -> Failure {
    let code = match fault {
        AuditFault::QueueFull | AuditFault::Stopped => FailureCode::Again,
        AuditFault::DiskFull | AuditFault::Io(_) => FailureCode::Io,
    };
    Failure::new(code, fault.to_string())
}

impl Desk {
    /// A desk with these tools.
    #[must_use]
    pub fn new(tools: DeskTools) -> Self {
        Self(Arc::new(tools))
    }

    pub(super) fn tools(&self) -> &DeskTools {
        &self.0
    }

    pub(super) fn subscriber_queue(&self) -> usize {
        self.0.facts.subscriber_queue
    }

    /// Answers anything but the requests that stream.
    pub(super) async fn answer(&self, request: Request, by: By) -> Response {
        let note = request
            .changes_something()
            .then(|| (request.name(), detail(&request)));
        let answer = self.carry_out(request).await;
        if let Some((command, detail)) = note {
            // Local administration is never refused for want of a record: it must be possible to
            // repair a node whose disk is full.
            let (uid, peer) = match by {
                By::User(uid) => (uid, None),
                By::Peer(peer) => (None, Some(peer)),
            };
            self.0.record.note(AuditEvent::Administration {
                command: command.to_owned(),
                detail,
                uid,
                peer,
                success: answer.is_ok(),
            });
        }
        answer.unwrap_or_else(Response::Error)
    }

    #[expect(clippy::too_many_lines, reason = "one short arm for each command")]
    async fn carry_out(&self, request: Request) -> Result<Response, Failure> {
        let tools = &self.0;
        match request {
            Request::Status {} => self.status().await,
            Request::Peers {} => {
                let peers = tools
                    .swarm
                    .ask(ListPeers, DEADLINE)
                    .await
                    .map_err(no_answer)?;
                Ok(Response::Peers { peers })
            }
            Request::Limits {} => {
                let used = tools.swarm.ask(DescribeLimits, DEADLINE).await;
                let limits = tools.limits.report(&used.map_err(no_answer)?);
                Ok(Response::Limits { limits })
            }
            Request::Publish {
                topic,
                payload,
                seal_to,
            } => {
                let publish = Publish {
                    topic,
                    payload,
                    seal_to,
                };
                let answer = tools
                    .swarm
                    .ask(publish, DEADLINE)
                    .await
                    .map_err(no_answer)?;
                answer
                    .map(Response::Published)
                    .map_err(|fault| not_published(&fault))
            }
            Request::SealingKey { peer } => {
                let ask = GetSealingKey { peer };
                let answer = tools.swarm.ask(ask, DEADLINE).await.map_err(no_answer)?;
                let SealingKey { sender, peer, key } =
                    answer.map_err(|fault| not_published(&fault))?;
                Ok(Response::SealingKey {
                    sender,
                    peer,
                    key: key.as_bytes().to_vec(),
                })
            }
            Request::AuditRotate {} => {
                let answer = tools
                    .audit
                    .ask(RotateLog, DEADLINE)
                    .await
                    .map_err(no_answer)?;
                let segment = answer.map_err(|fault| not_recorded(&fault))?;
                Ok(Response::Rotated { segment })
            }
            Request::IdentityReload {} => {
                let answer = tools.identity.ask(ReloadIdentity, DEADLINE).await;
                let report = answer.map_err(no_answer)?;
                report
                    .map(Response::IdentityReloaded)
                    .map_err(|why| Failure::new(FailureCode::Invalid, why))
            }
            Request::Actors {} => {
                let actors = tools.root.actors().into_iter().map(report).collect();
                Ok(Response::Actors { actors })
            }
            Request::Observe { actor } => self.observe(actor).await,
            Request::Restart { actor } => {
                self.control(&actor)?
                    .restart("an operator asked for it")
                    .map_err(not_done)?;
                Ok(Response::Restarted { actor })
            }
            Request::Inject { actor, kind } => {
                self.control(&actor)?
                    .inject(fault(kind))
                    .map_err(not_done)?;
                Ok(Response::Injected { actor })
            }
            Request::Ban {
                party,
                span,
                reason,
            } => self.ban(party, span, reason).await,
            Request::Unban { party } => {
                let lift = LiftBan {
                    party: party.clone(),
                };
                let answer = tools
                    .reputation
                    .ask(lift, DEADLINE)
                    .await
                    .map_err(no_answer)?;
                let lifted = answer.map_err(|why| Failure::new(FailureCode::Failed, why))?;
                Ok(Response::Unbanned { party, lifted })
            }
            Request::ConfigReload {} => {
                let reload = tools.settings.ask(ReloadSettings, RELOAD_DEADLINE).await;
                let report = reload.map_err(no_answer)?;
                report
                    .map(Response::ConfigReloaded)
                    .map_err(|why| Failure::new(FailureCode::Invalid, why))
            }
            Request::Remote { node, request } => self.send(node, *request).await,
            Request::Policies {} => {
                let report = tools.policy.ask(DescribePolicies, DEADLINE).await;
                report.map(Response::Policies).map_err(no_answer)
            }
            Request::Quarantine {
                party,
                span,
                reason,
            } => self.quarantine(party, span, reason).await,
            Request::Release { party } => {
                let release = Release {
                    party: party.clone(),
                };
                let answer = tools.policy.ask(release, DEADLINE).await;
                let answer = answer.map_err(no_answer)?;
                let released = answer.map_err(|why| Failure::new(FailureCode::Failed, why))?;
                Ok(Response::Released { party, released })
            }
            Request::Quarantines {} => {
                let all = tools.policy.ask(ListQuarantines, DEADLINE).await;
                let quarantines = all.map_err(no_answer)?;
                Ok(Response::Quarantines { quarantines })
            }
            Request::Bans {} => {
                let bans = tools
                    .reputation
                    .ask(ListBans, DEADLINE)
                    .await
                    .map_err(no_answer)?;
                Ok(Response::Bans { bans })
            }
            Request::Invite {
                subject,
                groups,
                open_for,
                addresses,
            } => {
                let wish = MakeInvitation {
                    subject,
                    groups,
                    open_for: open_for.0,
                    addresses,
                };
                self.invite(wish).await
            }
            Request::JobUpload {
                blob,
                size,
                offset,
                bytes,
            } => self.upload(blob, size, offset, bytes).await,
            Request::JobSubmit { executor, spec } => self.submit(executor, *spec).await,
            Request::Jobs {} => self.jobs().await,
            Request::JobShow { job } => self.job(job).await,
            Request::JobCancel { job } => self.cancel(job).await,
            Request::StatusLists {} => {
                let lists = tools.revocation.ask(ListStatusLists, DEADLINE).await;
                let lists = lists.map_err(no_answer)?;
                Ok(Response::StatusLists { lists })
            }
            Request::StatusImport { bytes } => {
                let import = ImportStatusList { bytes };
                let answer = tools.revocation.ask(import, DEADLINE).await;
                let list = answer.map_err(no_answer)?;
                list.map(Response::StatusImported)
                    .map_err(|why| Failure::new(FailureCode::Invalid, why))
            }
            Request::Shutdown {} => {
                // Full: it was asked to stop before.
                let _ = tools.stop.try_send("the command `stop`".to_owned());
                Ok(Response::ShuttingDown {})
            }
            Request::Subscribe { .. } | Request::AuditTail { .. } | Request::JobFollow { .. } => {
                Err(Failure::new(FailureCode::Invalid, "this command streams"))
            }
        }
    }

    async fn observe(&self, actor: String) -> Result<Response, Failure> {
        let observed = self.control(&actor)?.observe(OBSERVE_DEADLINE).await;
        let state = serde_json::to_value(observed)
            .map_err(|error| Failure::new(FailureCode::Failed, error.to_string()))?;
        Ok(Response::Observed { actor, state })
    }

    async fn ban(&self, party: Party, span: Span, reason: String) -> Result<Response, Failure> {
        if reason.chars().count() > MAX_TEXT {
            let why = format!("a reason has at most {MAX_TEXT} characters");
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let ban = Ban {
            party,
            span: span.0,
            reason,
        };
        let answer = self
            .0
            .reputation
            .ask(ban, DEADLINE)
            .await
            .map_err(no_answer)?;
        answer
            .map(Response::Banned)
            .map_err(|why| Failure::new(FailureCode::Failed, why))
    }

    /// Has another node carry out a command.
    async fn send(&self, node: PeerId, command: Request) -> Result<Response, Failure> {
        if !is_taken(&command) {
            let why = format!("`{}` cannot be sent to another node", command.name());
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let send = SendCommand {
            peer: node,
            command,
        };
        let sent = self.0.swarm.ask(send, RELOAD_DEADLINE).await;
        sent.map_err(no_answer)?.map_err(|fault| {
            let code = match fault {
                SendFault::NotConnected | SendFault::Unsupported => FailureCode::Unavailable,
                SendFault::Broken | SendFault::Busy => FailureCode::Again,
            };
            Failure::new(code, format!("{node}: {fault}"))
        })
    }

    async fn quarantine(
        &self,
        party: Party,
        span: Span,
        reason: String,
    ) -> Result<Response, Failure> {
        if reason.chars().count() > MAX_TEXT {
            let why = format!("a reason has at most {MAX_TEXT} characters");
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let put = PutInQuarantine {
            party,
            span: span.0,
            reason,
        };
        let answer = self.0.policy.ask(put, DEADLINE).await.map_err(no_answer)?;
        answer
            .map(Response::Quarantined)
            .map_err(|why| Failure::new(FailureCode::Invalid, why))
    }

    /// Without addresses, where this node listens: loopback only when there is nothing else.
    async fn invite(&self, mut wish: MakeInvitation) -> Result<Response, Failure> {
        let tools = &self.0;
        if wish.addresses.is_empty() {
            let swarm = tools.swarm.ask(DescribeSwarm, DEADLINE).await;
            let listen = swarm.map_err(no_answer)?.listen;
            let bare = |address: String| match address.rsplit_once("/p2p/") {
                Some((bare, _)) => bare.to_owned(),
                None => address,
            };
            let all: Vec<String> = listen.into_iter().map(bare).collect();
            let local = |address: &String| {
                address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
            };
            let far: Vec<String> = all.iter().filter(|a| !local(a)).cloned().collect();
            wish.addresses = if far.is_empty() { all } else { far };
        }
        let answer = tools.issuer.ask(wish, DEADLINE).await.map_err(no_answer)?;
        answer.map(Response::Invited).map_err(|fault| {
            let code = match fault {
                InviteFault::NotIssuer => FailureCode::Denied,
                InviteFault::Invalid(_) => FailureCode::Invalid,
                InviteFault::Again(_) => FailureCode::Again,
            };
            Failure::new(code, fault.to_string())
        })
    }

    async fn status(&self) -> Result<Response, Failure> {
        let tools = &self.0;
        let (swarm, identity) = tokio::join!(
            tools.swarm.ask(DescribeSwarm, DEADLINE),
            tools.identity.ask(DescribeIdentity, DEADLINE),
        );
        let (swarm, identity) = (swarm.map_err(no_answer)?, identity.map_err(no_answer)?);
        let readiness = tools.health.readiness();
        let facts = &tools.facts;
        Ok(Response::Status(Box::new(StatusReport {
            version: facts.version.clone(),
            pid: std::process::id(),
            peer_id: facts.peer_id,
            started: facts.started,
            uptime_ms: millis(tools.clock.elapsed()),
            ready: readiness.is_ready(),
            reasons: readiness
                .reasons
                .into_iter()
                .chain(readiness.notes)
                .collect(),
            listen: swarm.listen,
            connected: swarm.connected,
            missing_bootstrap: swarm.missing_bootstrap,
            topics: swarm.topics,
            credential: identity.credential,
            credential_expires: identity.expires,
            trusted_issuers: identity.trusted_issuers,
            http: facts.http,
            data_dir: facts.data_dir.clone(),
            config: Some(facts.config.clone()),
            fault_injection: facts.fault_injection,
        })))
    }

    fn control(&self, actor: &str) -> Result<Arc<dyn ActorControl>, Failure> {
        self.0.root.control(actor).ok_or_else(|| {
            let names: Vec<_> = self.0.root.controls().iter().map(|c| c.name()).collect();
            let why = format!(
                "there is no actor `{}`; there are: {}",
                actor.escape_debug(),
                names.join(", ")
            );
            Failure::new(FailureCode::UnknownActor, why)
        })
    }

    pub(super) async fn tail(&self, count: usize) -> Result<Vec<String>, Failure> {
        let tail = Tail {
            count: count.min(Tail::MAX),
        };
        let answer = self.0.audit.ask(tail, DEADLINE).await.map_err(no_answer)?;
        answer.map_err(|fault| not_recorded(&fault))
    }

    pub(super) async fn subscribe(
        &self,
        topic: Topic,
        sink: mpsc::Sender<Delivered>,
    ) -> Result<(), Failure> {
        let subscribe = Subscribe { topic, sink };
        let answer = self
            .0
            .swarm
            .ask(subscribe, DEADLINE)
            .await
            .map_err(no_answer)?;
        answer.map_err(|fault| not_published(&fault))
    }
}

fn not_done(error: ControlError) -> Failure {
    let code = match error {
        ControlError::Down => FailureCode::Unavailable,
        ControlError::Busy => FailureCode::Again,
        ControlError::InjectionForbidden => FailureCode::Denied,
    };
    Failure::new(code, error.to_string())
}

fn fault(kind: FaultKind) -> Inject {
    match kind {
        FaultKind::Panic => Inject::Panic,
        FaultKind::Error => Inject::Error,
        FaultKind::Hang => Inject::Hang,
        FaultKind::Block => Inject::Block,
    }
}

/// What a command is about, for the log.
fn detail(request: &Request) -> String {
    match request {
        Request::Restart { actor } => actor.clone(),
        Request::Inject { actor, kind } => format!("{actor}: {}", fault(*kind)),
        Request::Ban {
            party,
            span,
            reason,
        } => format!("{party} for {span}: {reason}"),
        Request::Quarantine {
            party,
            span,
            reason,
        } => format!("{party} for {span}: {reason}"),
        Request::Unban { party } | Request::Release { party } => party.to_string(),
        Request::JobCancel { job } => job.to_string(),
        Request::Remote { node, request } => {
            format!("{} at {node} {}", request.name(), detail(request))
        }
        Request::StatusImport { bytes } => format!("{} bytes", bytes.len()),
        Request::Invite { subject, .. } => subject.to_string(),
        _ => String::new(),
    }
}

fn report(actor: ActorSnapshot) -> ActorReport {
    let by_cause: BTreeMap<String, u64> = actor
        .restarts_by_cause
        .iter()
        .map(|(cause, n)| (cause.to_string(), *n))
        .collect();
    ActorReport {
        name: actor.name,
        state: actor.state.name().to_owned(),
        generation: actor.generation,
        restarts: actor.restarts,
        restarts_by_cause: by_cause,
        last_fault: actor.last_fault.map(|fault| ActorFault {
            cause: fault.cause.to_string(),
            detail: fault.detail,
            at: fault.at,
            blamed: fault.blamed,
        }),
        mailbox: actor.mailbox,
        mailbox_capacity: actor.mailbox_capacity,
        uptime_ms: millis(actor.uptime),
    }
}
