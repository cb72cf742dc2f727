//! Renewal: has this node's own credential renewed before it ends, and after.
//!
//! A thin shell over [`crate::identity::renewal`]. When the plan says so it asks the nodes of its
//! issuer to which this node is connected, one after another, with a fresh signing request; takes
//! what is verified by its own anchors; replaces the credential as a whole; has Identity read it,
//! and shows it to every peer over the connections that stand. A node that issues asks itself.
//! While the node changes its keys it asks for the credential of the new ones too, and erases the old
//! ones in the end (`rotation`).
//!
//! Owner of: nothing but its plan. When it fails: the plan begins anew, the old credential stays.
//! It is sent nothing, so its mailbox cannot fill.

mod rotation;

use std::{fmt, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use serde::Serialize;

use crate::{
    actors::{audit::AuditHandle, identity::IdentityActor, issuer::IssuerActor, swarm::SwarmActor},
    audit::AuditEvent,
    identity::{
        Attributes, Chain, IdentityPaths, Name, NodeKey, OwnIdentity, Refusal, SigningRequest,
        TrustView,
        enrolment::{RefusalCode, Refused, Request, Response},
        make_dir,
        renewal::{Plan, accept},
        write_atomic,
    },
    messages::{
        enrolment::{RenewOwn, RotateOwn},
        identity::ReloadIdentity,
        swarm::{HangUp, ListPeers, PresentRenewed, SendEnrolment, SendFault},
    },
    supervised,
    supervision::{ActorRef, Fault, Incarnation, Supervise},
    telemetry::Metrics,
    types::{Clock, PeerId, Timestamp, View},
};

/// How often the plan is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Longest wait for one issuer's answer: longer than its own patience.
const PATIENCE: Duration = Duration::from_secs(35);
/// Most peers asked in one try.
const MAX_ASKED: usize = 8;
/// Mode of the credential's file.
const MODE: u32 = 0o600;

/// What each incarnation is made of.
#[derive(Clone)]
pub struct RenewalSetup {
    /// Whether it does anything (`identity.renew`).
    pub enabled: bool,
    /// This node's keys, which sign the requests.
    pub key: NodeKey,
    /// Where the credential lies.
    pub paths: IdentityPaths,
    /// What this node is.
    pub own: View<OwnIdentity>,
    /// Whom it trusts.
    pub trust: View<TrustView>,
    /// The issuer of which this node is one.
    pub issues: Option<Name>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Reads what was written.
    pub identity: ActorRef<IdentityActor>,
    /// Reaches issuers.
    pub swarm: ActorRef<SwarmActor>,
    /// This node's own issuer.
    pub issuer: ActorRef<IssuerActor>,
    /// Told of renewals.
    pub audit: AuditHandle,
    /// Counts.
    pub metrics: Metrics,
}

impl fmt::Debug for RenewalSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalSetup").finish_non_exhaustive()
    }
}

/// The actor.
#[derive(Debug)]
pub struct RenewalActor {
    incarnation: Incarnation,
    setup: RenewalSetup,
    plan: Plan,
    /// Who renewed it the last time: asked first.
    last: Option<PeerId>,
    busy: bool,
    rotation: rotation::Rotation,
    renewed: u64,
    last_error: Option<String>,
}

/// What an operator sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenewalState {
    /// When an issuer is asked the next time.
    pub due: Option<Timestamp>,
    /// Tries that failed since the credential came.
    pub failures: u32,
    /// Credentials got by this incarnation.
    pub renewed: u64,
    /// Why the last try failed, until one succeeds.
    pub last_error: Option<String>,
}

/// Why nobody renewed it.
struct Failed {
    by: Option<PeerId>,
    code: &'static str,
    detail: String,
    again: Option<Duration>,
}

impl Failed {
    fn of(by: PeerId, refused: Refused) -> Self {
        let again = refused.retry_after_ms;
        Self {
            by: Some(by),
            code: refused.code.name(),
            detail: refused.detail,
            again: again.map(|ms| Duration::from_millis(u64::from(ms))),
        }
    }

    fn alone(detail: &str) -> Self {
        Self {
            by: None,
            code: "unreachable",
            detail: detail.to_owned(),
            again: None,
        }
    }
}

impl RenewalActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: RenewalSetup) -> Self {
        Self {
            incarnation,
            setup,
            plan: Plan::new(rand::random()),
            last: None,
            busy: false,
            rotation: rotation::Rotation::default(),
            renewed: 0,
            last_error: None,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let own = self.setup.own.load();
        let chain = own.chain.as_ref();
        let chain = chain.filter(|c| !c.credential().claims().issuer.is_self_signed());
        self.plan.follow(chain.map(|chain| &**chain));
        let now = self.setup.clock.now();
        let (Some(chain), false) = (chain, self.busy) else {
            return;
        };
        if !self.plan.is_due(now) {
            return;
        }
        self.busy = true;
        let claims = chain.credential().claims();
        let none = Attributes::default();
        let request = SigningRequest::seal(&self.setup.key, &claims.subject, &none, now);
        let asking = ask(
            self.setup.clone(),
            claims.issuer.clone(),
            self.last,
            Request::Enrol { request },
        );
        let old = Arc::clone(chain);
        ctx.spawn(asking.into_actor(self).map(move |answer, act, ctx| {
            act.busy = false;
            match answer {
                Ok(Given { by, chain, .. }) => act.take(&old, by, &chain, ctx),
                Err(failed) => act.failed(failed),
            }
        }));
    }

    fn failed(&mut self, failed: Failed) {
        let again = failed.again;
        self.last_error = Some(self.told(failed, ("renewal", "renewal_failed")));
        self.plan.failed(self.setup.clock.now(), again);
    }

    /// Says aloud that no credential came of a `(try, metric)`, and has the log told of refusals;
    /// what an operator is shown.
    fn told(&self, failed: Failed, (tried, metric): (&str, &'static str)) -> String {
        let Failed {
            by, code, detail, ..
        } = failed;
        tracing::warn!(code, detail, "no credential by {tried} yet");
        let shown = format!("{code}: {detail}");
        if let Some(peer) = by {
            self.setup.audit.note(AuditEvent::RenewalRefused {
                peer,
                code: code.to_owned(),
                detail,
            });
        }
        self.setup.metrics.enrolment(metric);
        shown
    }

    /// Makes the answer this node's credential, when it is a renewal of the old one.
    fn take(&mut self, old: &Chain, by: PeerId, answer: &[u8], ctx: &mut Context<Self>) {
        let (own, trust) = (self.setup.own.load(), self.setup.trust.load());
        if own.chain.as_deref() != Some(old) {
            // The operator was faster.
            return;
        }
        let now = self.setup.clock.now();
        let keys = self.setup.key.public();
        let wrong = |detail: String| Failed {
            by: Some(by),
            code: "not_renewed",
            detail,
            again: None,
        };
        let chain = match accept(old, answer, keys, &trust.anchors, now) {
            Ok(chain) => chain,
            Err(error) => return self.failed(wrong(error.to_string())),
        };
        let path = self.setup.paths.credential();
        let written = path
            .parent()
            .map_or(Ok(()), make_dir)
            .and_then(|()| write_atomic(&path, &chain.encode(), MODE));
        if let Err(error) = written {
            return self.failed(wrong(error.to_string()));
        }
        let expires = Timestamp::from_secs(chain.credential().claims().validity.expires());
        tracing::info!(%by, %expires, "this node's credential was renewed");
        self.last = Some(by);
        self.renewed = self.renewed.saturating_add(1);
        self.last_error = None;
        self.setup.metrics.enrolment("renewed");
        let claims = chain.credential().claims();
        self.setup.audit.note(AuditEvent::CredentialRenewed {
            peer: keys.peer,
            identity: format!("{}/{}", claims.issuer, claims.subject),
            credential_hash: chain.credential().hash(),
            expires,
            rule: format!("by {by}"),
        });
        // Whoever let this node in for renewal alone shall see it as the member it is now.
        let lapsed = matches!(own.problem, Some(Refusal::Expired(_))) && by != keys.peer;
        let (identity, swarm) = (self.setup.identity.clone(), self.setup.swarm.clone());
        let incarnation = self.incarnation.clone();
        let bytes = chain.encode();
        let telling = async move {
            match identity.ask(ReloadIdentity, PATIENCE).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => tracing::error!(why, "the renewed credential is not in force"),
                // Its next incarnation reads the file.
                Err(error) => tracing::warn!(%error, "Identity reads it later"),
            }
            let told = match lapsed {
                true => swarm.tell(HangUp {
                    peer: by,
                    why: "renewed: connecting as a member",
                }),
                false => swarm.tell(PresentRenewed { chain: bytes }),
            };
            if told.is_err() {
                tracing::warn!("peers learn of the renewed credential when they connect anew");
            }
            incarnation.progress();
        };
        ctx.spawn(telling.into_actor(self));
    }
}

/// What an issuer gave.
struct Given {
    by: PeerId,
    chain: Vec<u8>,
    /// Of a rotation: when the old credential is taken back, at the latest.
    until: Option<Timestamp>,
}

impl Given {
    fn of(by: PeerId, answer: Response) -> Result<Self, Failed> {
        let (chain, until) = match answer {
            Response::Issued { chain, .. } => (chain, None),
            Response::Rotated { chain, until } => (chain, Some(until)),
            Response::Refused(refused) => return Err(Failed::of(by, refused)),
            Response::Noted => return Err(Failed::alone("a strange answer")),
        };
        Ok(Self { by, chain, until })
    }
}

/// This node's own issuer.
async fn ask_self(setup: &RenewalSetup, request: Request) -> Result<Given, Failed> {
    let answer = match request {
        Request::Rotate { statement } => setup.issuer.ask(RotateOwn { statement }, PATIENCE).await,
        Request::Enrol { request } => setup.issuer.ask(RenewOwn { request }, PATIENCE).await,
        Request::Present { .. } => return Err(Failed::alone("nothing is presented to oneself")),
    };
    let answer = answer.map_err(|error| Failed::alone(error.code()))?;
    Given::of(setup.key.peer(), answer)
}

/// Asks one after another; the first good answer.
async fn ask(
    setup: RenewalSetup,
    issuer: Name,
    last: Option<PeerId>,
    request: Request,
) -> Result<Given, Failed> {
    if setup.issues.as_ref() == Some(&issuer) {
        return ask_self(&setup, request).await;
    }
    let peers = setup.swarm.ask(ListPeers, PATIENCE).await;
    let peers = peers.map_err(|error| Failed::alone(error.code()))?;
    let prefix = format!("{issuer}/");
    let mut candidates: Vec<_> = peers
        .iter()
        .filter_map(|peer| {
            let identity = peer.identity.as_ref()?;
            let rank = match (last == Some(peer.peer_id), identity.starts_with(&prefix)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            Some((rank, rand::random::<u32>(), peer.peer_id))
        })
        .collect();
    candidates.sort_unstable();
    let mut failed = Failed::alone("no node of the issuer is connected");
    for (_, _, peer) in candidates.into_iter().take(MAX_ASKED) {
        let request = request.clone();
        let sent = setup.swarm.ask(SendEnrolment { peer, request }, PATIENCE);
        match sent.await {
            Ok(Ok(Response::Refused(refused))) if refused.code == RefusalCode::NotIssuer => {}
            Ok(Ok(answer)) => match Given::of(peer, answer) {
                Ok(given) => return Ok(given),
                Err(why) => failed = why,
            },
            Ok(Err(SendFault::Held { by, retry_after })) => {
                failed = Failed {
                    by: None,
                    code: by.name(),
                    detail: by.to_string(),
                    again: Some(retry_after),
                };
            }
            Ok(Err(fault)) => tracing::debug!(%peer, %fault, "not asked for renewal"),
            Err(error) => return Err(Failed::alone(error.code())),
        }
    }
    Err(failed)
}

impl Actor for RenewalActor {
    type Context = Context<Self>;
}

supervised!(RenewalActor);

impl Supervise for RenewalActor {
    const NAME: &'static str = "renewal";
    /// It writes to the disk, which may hang.
    const EXCLUSIVE: bool = true;
    type Observable = RenewalState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if self.setup.enabled {
            ctx.run_interval(TICK, Self::tick);
        }
        // Also where credentials are not renewed: an operator asked for it.
        ctx.run_interval(TICK, Self::tick_rotation);
        Ok(())
    }

    fn observe(&self) -> RenewalState {
        RenewalState {
            due: self.plan.due(),
            failures: self.plan.failures(),
            renewed: self.renewed,
            last_error: self.last_error.clone(),
        }
    }
}
