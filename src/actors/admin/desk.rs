//! Carries out commands: each is a question or two to the actor that owns the matter.

mod parties;
mod refusals;
mod reports;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;

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
        protocol::{Failure, FailureCode, Request, Response, StatusReport, millis},
        remote::{MAX_TAIL, batch, instead_of, is_taken},
    },
    audit::{AuditEvent, record},
    messages::{
        audit::{CheckpointLog, RotateLog, Tail},
        enrolment::MakeInvitation,
        identity::{DescribeIdentity, ReloadIdentity},
        policy::{DescribePolicies, ListQuarantines},
        reputation::{LiftBan, ListBans},
        revocation::{ImportStatusList, ListStatusLists},
        settings::ReloadSettings,
        swarm::{
            Delivered, DescribeLimits, DescribeSwarm, GetSealingKey, ListPeers, Publish,
            PublishMany, PublishedMany, SealingKey, SendCommand, SendFault, Subscribe,
        },
    },
    sandbox::JobId,
    supervision::{ActorControl, ActorRef, Root},
    telemetry::Health,
    types::{Clock, PeerId, Timestamp, Topic},
};

pub(super) use refusals::{no_answer, not_published};

use super::{jobs::Follow, limits::LimitFacts};
use refusals::{not_done, not_recorded};
use reports::{checkpoint, detail, fault, report};

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
                trace,
            } => {
                let publish = Publish {
                    topic,
                    payload,
                    seal_to,
                    trace,
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
            Request::AuditCheckpoint {} => {
                let answer = tools.audit.ask(CheckpointLog, DEADLINE).await;
                let signed = answer
                    .map_err(no_answer)?
                    .map_err(|fault| not_recorded(&fault))?;
                Ok(checkpoint(&signed))
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
            Request::Remote { node, request, .. } => self.send(node, *request).await,
            Request::Policies {} => {
                let report = tools.policy.ask(DescribePolicies, DEADLINE).await;
                report.map(Response::Policies).map_err(no_answer)
            }
            Request::Quarantine {
                party,
                span,
                reason,
            } => self.quarantine(party, span, reason).await,
            Request::Release { party } => self.release(party).await,
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
            // From afar; on the socket these stream, and are not asked of this.
            Request::AuditTail { count, after } => self.tail_far(count, after).await,
            Request::JobFollow {
                job,
                stdout,
                stderr,
                ..
            } => self.follow_far(job, (stdout, stderr)).await,
            Request::Subscribe { .. } | Request::PublishStream { .. } => {
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

    /// Has another node carry out a command.
    async fn send(&self, node: PeerId, command: Request) -> Result<Response, Failure> {
        if !is_taken(&command) {
            let (name, instead) = (command.name(), instead_of(&command));
            let why = format!("`{name}` cannot be sent to another node: {instead}");
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
                SendFault::Broken | SendFault::Busy | SendFault::Held { .. } => FailureCode::Again,
            };
            Failure::new(code, format!("{node}: {fault}"))
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
            reachability: swarm.reachability,
            external: swarm.external,
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

    pub(super) async fn tail(
        &self,
        count: usize,
        after: Option<u64>,
    ) -> Result<Vec<String>, Failure> {
        let tail = Tail {
            count: count.min(Tail::MAX),
        };
        let answer = self.0.audit.ask(tail, DEADLINE).await.map_err(no_answer)?;
        let mut lines = answer.map_err(|fault| not_recorded(&fault))?;
        if let Some(after) = after {
            // What cannot be read is shown: it is for `audit verify` to say what it is.
            let is_later = |line: &String| {
                record::read(line.as_bytes()).map_or(true, |entry| entry.sequence > after)
            };
            lines.retain(is_later);
        }
        Ok(lines)
    }

    async fn tail_far(&self, count: usize, after: Option<u64>) -> Result<Response, Failure> {
        if count > MAX_TAIL {
            let why = format!("at most {MAX_TAIL} records at once from afar");
            return Err(Failure::new(FailureCode::Invalid, why));
        }
        let lines = self.tail(count, after).await?.into_iter();
        let lines = lines.map(|line| Response::AuditRecord { line });
        Ok(batch(lines.chain([Response::Done {}]).collect()))
    }

    async fn follow_far(&self, job: JobId, cursor: (u64, u64)) -> Result<Response, Failure> {
        let mut lines = self.news(&mut Follow::new(job, cursor, false)).await;
        match lines.pop() {
            Some(Response::Error(failure)) => Err(failure),
            last => {
                lines.extend(last);
                Ok(batch(lines))
            }
        }
    }

    /// Publishes a group of messages.
    pub(super) async fn publish_many(
        &self,
        publish: PublishMany,
    ) -> Result<PublishedMany, Failure> {
        self.0.swarm.ask(publish, DEADLINE).await.map_err(no_answer)
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
