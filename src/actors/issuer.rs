//! Issuer: on a node that has an issuer's folder, gives credentials to peers and makes invitations.
//!
//! A thin shell over [`crate::identity`]. On other nodes it refuses everything (`not_issuer`).
//! Whoever asks was authenticated by the gate; what it is renewed as is what the gate verified,
//! never what it says. A credential is on record, durably, before it is handed out; an invitation
//! is written down as used together with what was issued for it, before the answer: a crash in
//! between costs a number of the status list and nothing else.
//!
//! A node that changes its keys gets a credential for the new ones on its old connection
//! (`rotation`).
//!
//! Owner of: the tree `invites`, `View<Invites>`, which the gate reads. It fails closed: without
//! disk or log there is no credential. Full mailbox: the peer is told to come again.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

mod invitations;
mod present;
mod rotation;

use actix::{
    Actor, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt},
};
use serde::Serialize;

use self::present::Present;

use crate::{
    actors::{audit::AuditHandle, reputation::ReputationActor, revocation::RevocationActor},
    audit::AuditEvent,
    config::IssuerConfig,
    identity::{
        CLOCK_SKEW, Chain, IssuerFolder, Name, OwnIdentity, SigningRequest, StatusView, Tier,
        enrolment::{RefusalCode, Refused, Response},
        invites::{Invite, Invites},
    },
    messages::{
        enrolment::{AskCredential, RenewOwn},
        reputation::{Charge, Severity},
    },
    store::{Store, Tree},
    supervised,
    supervision::{ActorRef, Fault, Incarnation, Supervise},
    telemetry::Metrics,
    trust::reputation,
    types::{Clock, Origin, Party, PeerId, Publisher, SubjectId, Timestamp, View},
};

/// Oldest signing request that is served here: it is made for the asking.
const FRESH: Duration = Duration::from_mins(10);
/// Renewals remembered, so that one whose answer was lost is not issued twice; about 8 KiB each.
const MAX_RECENT: usize = 1_024;

/// What each incarnation is made of.
#[derive(Clone)]
pub struct IssuerSetup {
    /// The rules.
    pub config: IssuerConfig,
    /// How long a credential is renewed after its end.
    pub grace: Duration,
    /// The issuer; `None`: this node issues nothing.
    pub folder: Option<Arc<IssuerFolder>>,
    /// What this node is.
    pub own: View<OwnIdentity>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where invitations are kept.
    pub store: Store,
    /// Where they are published.
    pub invites: Publisher<Invites>,
    /// What issuers took back.
    pub statuses: View<StatusView>,
    /// Puts this issuer's lists in force and tells all others.
    pub revocation: ActorRef<RevocationActor>,
    /// Told of misdeeds.
    pub reputation: ActorRef<ReputationActor>,
    /// Told of everything.
    pub audit: AuditHandle,
    /// Counts.
    pub metrics: Metrics,
}

impl fmt::Debug for IssuerSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerSetup").finish_non_exhaustive()
    }
}

/// A renewal that was issued lately.
#[derive(Debug)]
struct Recent {
    /// The credential it renews.
    of: [u8; 32],
    chain: Chain,
}

/// See the module.
pub struct IssuerActor {
    incarnation: Incarnation,
    setup: IssuerSetup,
    tree: Option<Tree<Invite>>,
    invites: Invites,
    recent: HashMap<PeerId, Recent>,
    rotations: rotation::Rotations,
    issued: u64,
    refused: u64,
}

impl fmt::Debug for IssuerActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerActor").finish_non_exhaustive()
    }
}

/// What an operator sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuerState {
    /// The issuer, when this node is one of its.
    pub issuer: Option<Name>,
    /// Invitations remembered.
    pub invitations: usize,
    /// Those that can still be used.
    pub open: usize,
    /// Nodes whose old credentials are still to be taken back.
    pub rotating: usize,
    /// Credentials handed out by this incarnation.
    pub issued: u64,
    /// Requests refused by this incarnation.
    pub refused: u64,
}

/// A credential about to be handed out, and how it is written down.
struct Ready {
    chain: Vec<u8>,
    anchor: Option<Vec<u8>>,
    /// Of a rotation: when the old credential is taken back at the latest.
    until: Option<Timestamp>,
    event: AuditEvent,
}

type No = Box<Refused>;

fn no(code: RefusalCode, detail: impl fmt::Display) -> No {
    Box::new(Refused::new(code, &detail.to_string()))
}

fn label(chain: &Chain) -> String {
    let claims = chain.credential().claims();
    format!("{}/{}", claims.issuer, claims.subject)
}

impl IssuerActor {
    /// An incarnation that has not started yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, setup: IssuerSetup) -> Self {
        Self {
            incarnation,
            setup,
            tree: None,
            invites: Invites::default(),
            recent: HashMap::new(),
            rotations: rotation::Rotations::default(),
            issued: 0,
            refused: 0,
        }
    }

    fn folder(&self) -> Result<Arc<IssuerFolder>, No> {
        let folder = self.setup.folder.clone();
        folder.ok_or_else(|| no(RefusalCode::NotIssuer, "this node issues nothing"))
    }

    /// The request, when it is one, fresh, and made by `peer` with its own keys.
    fn open(
        &self,
        (peer, subject): (PeerId, Option<&SubjectId>),
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<SigningRequest, No> {
        let request = SigningRequest::open(bytes).map_err(|error| {
            self.charge(peer, subject, Severity::InvalidMessage, &error);
            no(RefusalCode::Invalid, error)
        })?;
        if request.peer != peer {
            let what = "a signing request of another node";
            self.charge(peer, subject, Severity::BadCredential, &what);
            return Err(no(RefusalCode::Invalid, what));
        }
        if now.since(request.created) > FRESH || request.created > now.after(CLOCK_SKEW) {
            let what = "the signing request is not of now: compare the clocks";
            return Err(no(RefusalCode::Invalid, what));
        }
        Ok(request)
    }

    fn charge(
        &self,
        peer: PeerId,
        subject: Option<&SubjectId>,
        severity: Severity,
        evidence: &dyn fmt::Display,
    ) {
        let charge = Charge {
            party: Party::Peer(peer),
            subject: subject.cloned(),
            address: None,
            severity,
            evidence: format!("asking for a credential: {evidence}"),
            summed: false,
        };
        let told = self.setup.reputation.tell_for(Origin::peer(peer), charge);
        if told.is_err() {
            tracing::warn!(%peer, "a charge was lost: Reputation is busy");
        }
    }

    fn may_have(&self, subject: &Name) -> Result<(), No> {
        if self.setup.config.deny.contains(subject) {
            return Err(no(RefusalCode::Denied, "issuer.deny"));
        }
        Ok(())
    }

    fn decide(&mut self, ask: &AskCredential, now: Timestamp) -> Result<Ready, No> {
        let folder = self.folder()?;
        let subject = reputation::answers(ask.identity.as_deref(), now);
        let request = self.open((ask.peer, subject.as_ref()), &ask.request, now)?;
        if let (Tier::Invited, Some(id)) = (ask.tier, &ask.invitation) {
            return self.invited(&folder, id, &request, now);
        }
        let identity = ask.identity.as_deref();
        let identity = identity.filter(|_| matches!(ask.tier, Tier::Member | Tier::RenewalOnly));
        let Some(identity) = identity.filter(|i| i.issuer == *folder.key().name()) else {
            let what = "renewal.other_issuer: this node renews credentials of its issuer alone";
            return Err(no(RefusalCode::Denied, what));
        };
        let rule = match ask.tier {
            Tier::RenewalOnly => "enrol.renewal_only",
            _ => "enrol.member",
        };
        let present = Present::of(identity).ok_or_else(|| {
            no(
                RefusalCode::Denied,
                "renewal.claims: they cannot be renewed",
            )
        })?;
        self.renew(&folder, present, &request, rule, now)
    }

    fn renew(
        &mut self,
        folder: &IssuerFolder,
        present: Present<'_>,
        request: &SigningRequest,
        rule: &str,
        now: Timestamp,
    ) -> Result<Ready, No> {
        if !self.setup.config.renew {
            return Err(no(RefusalCode::Denied, "issuer.renew is off"));
        }
        self.may_have(&present.subject)?;
        if present.keys != Some(&request.keys) {
            return Err(no(RefusalCode::Denied, "renewal.other_keys"));
        }
        if let Some(denied) = self.gave_up(folder, &present, request.peer)? {
            return Err(denied);
        }
        if now >= present.expires.after(self.setup.grace) {
            return Err(no(RefusalCode::Denied, "renewal.expired"));
        }
        let (peer, of) = (request.peer, present.hash);
        let half = present
            .issued
            .map_or(Duration::ZERO, |issued| present.expires.since(issued) / 2);
        let from = present.issued.unwrap_or_default().after(half);
        if now < from {
            let early = no(RefusalCode::TooEarly, "half of its time is not over yet");
            return Err(Box::new(early.after(from.since(now))));
        }
        let recent = self.recent.get(&peer).filter(|recent| recent.of == of);
        let chain = match recent {
            Some(recent) => recent.chain.clone(),
            None => {
                let grant = present.grant(self.setup.config.lifetime.0);
                let issued = folder.issue(request, grant, now);
                let chain = issued.map_err(|error| not_issued(&error))?;
                if self.recent.len() >= MAX_RECENT {
                    self.recent.clear();
                }
                let chain_kept = chain.clone();
                self.recent.insert(
                    peer,
                    Recent {
                        of,
                        chain: chain_kept,
                    },
                );
                chain
            }
        };
        Ok(Ready {
            event: AuditEvent::CredentialRenewed {
                peer,
                identity: label(&chain),
                credential_hash: chain.credential().hash(),
                expires: Timestamp::from_secs(chain.credential().claims().validity.expires()),
                rule: rule.to_owned(),
            },
            chain: chain.encode(),
            anchor: None,
            until: None,
        })
    }

    /// Writes down what was decided, and only then answers.
    fn answer(
        &mut self,
        peer: PeerId,
        decided: Result<Ready, No>,
    ) -> ResponseActFuture<Self, Response> {
        let Ready {
            chain,
            anchor,
            until,
            event,
        } = match decided {
            Ok(ready) => ready,
            Err(refused) => {
                self.refused = self.refused.saturating_add(1);
                let code = refused.code.name();
                tracing::info!(%peer, code, detail = refused.detail, "no credential");
                self.setup.metrics.enrolment(code);
                self.setup.audit.note(AuditEvent::RenewalRefused {
                    peer,
                    code: code.to_owned(),
                    detail: refused.detail.clone(),
                });
                return Box::pin(fut::ready(Response::Refused(*refused)));
            }
        };
        let audit = self.setup.audit.clone();
        let recorded = async move { audit.record(event).await };
        Box::pin(recorded.into_actor(self).map(move |recorded, act, _| {
            if recorded.is_err() {
                return Response::refuse(RefusalCode::Unavailable, "the log does not answer");
            }
            act.issued = act.issued.saturating_add(1);
            act.setup.metrics.enrolment("issued");
            tracing::info!(%peer, "a credential was handed out");
            match until {
                Some(until) => Response::Rotated { chain, until },
                None => Response::Issued { chain, anchor },
            }
        }))
    }

    fn own(&mut self, bytes: &[u8], now: Timestamp) -> Result<Ready, No> {
        let folder = self.folder()?;
        let own = self.setup.own.load();
        let request = self.open((own.peer, None), bytes, now)?;
        let chain = own.chain.as_ref().filter(|chain| {
            let credential = chain.credential();
            credential.claims().issuer == *folder.key().name()
                && credential.verify_signatures(folder.key().public()).is_ok()
        });
        let chain = chain.ok_or_else(|| no(RefusalCode::Denied, "renewal.other_issuer"))?;
        self.renew(
            &folder,
            Present::of_chain(chain),
            &request,
            "enrol.own",
            now,
        )
    }
}

fn not_issued(error: &crate::identity::FolderError) -> No {
    tracing::error!(%error, "nothing was issued");
    match error {
        crate::identity::FolderError::Issue(why) => no(RefusalCode::Denied, why),
        _ => no(
            RefusalCode::Unavailable,
            "the issuer's folder cannot be used",
        ),
    }
}

impl Actor for IssuerActor {
    type Context = Context<Self>;
}

supervised!(IssuerActor);

impl Supervise for IssuerActor {
    const NAME: &'static str = "issuer";
    /// It blocks on the disk.
    const EXCLUSIVE: bool = true;
    type Observable = IssuerState;

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if let Some(folder) = self.setup.folder.clone() {
            self.restore().map_err(Fault::build)?;
            self.restore_rotations(&folder).map_err(Fault::build)?;
            ctx.run_interval(rotation::TICK, Self::take_back_due);
        }
        Ok(())
    }

    fn observe(&self) -> IssuerState {
        let (invitations, open) = self.invites.counts(self.setup.clock.now());
        let folder = self.setup.folder.as_ref();
        IssuerState {
            issuer: folder.map(|folder| folder.key().name().clone()),
            invitations,
            open,
            rotating: self.rotations.len(),
            issued: self.issued,
            refused: self.refused,
        }
    }
}

impl Handler<AskCredential> for IssuerActor {
    type Result = ResponseActFuture<Self, Response>;

    fn handle(&mut self, ask: AskCredential, _: &mut Context<Self>) -> Self::Result {
        let _scope = self.incarnation.handling(Origin::peer(ask.peer));
        let decided = self.decide(&ask, self.setup.clock.now());
        self.answer(ask.peer, decided)
    }
}

impl Handler<RenewOwn> for IssuerActor {
    type Result = ResponseActFuture<Self, Response>;

    fn handle(&mut self, ask: RenewOwn, _: &mut Context<Self>) -> Self::Result {
        let decided = self.own(&ask.request, self.setup.clock.now());
        let peer = self.setup.own.load().peer;
        self.answer(peer, decided)
    }
}
