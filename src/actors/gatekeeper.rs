//! The node's answer to the network's questions: who may begin a handshake, who is let in.
//!
//! Not an actor: it runs on connection tasks and asks the actors with deadlines. Whatever does
//! not answer in time is a refusal. An *Allow* takes effect only after its record is durable.

mod refusals;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Semaphore;

use refusals::Refusals;

use super::{
    audit::AuditHandle,
    identity::IdentityActor,
    judge::{Judge, Question},
    reputation::ReputationActor,
    revocation::RevocationActor,
};
use crate::{
    audit::{AuditEvent, Direction},
    identity::{
        Channel, Continuity, Frame, NodeKey, OwnIdentity, Refusal, Role, Status, StatusView, Tier,
        TrustView, VerifiedIdentity, continuity::Seen, invites::Invites,
    },
    messages::{
        identity::{VerifyPeer, VerifyRenewed},
        reputation::{Charge, GetStanding, Severity},
        revocation::ShownHeads,
    },
    network::{Admission, Admitted, GateKeeper, Presented, Refused, secure::Breach},
    policy::{Action, Decision, DenyReason, Verdict},
    supervision::{ActorRef, AskError, CoolDowns},
    telemetry::Metrics,
    trust::{
        rate::Limiter,
        reputation::{Barred, Standings, subject_of},
    },
    types::{Clock, Footing, Origin, Party, PeerId, SecurityInfo, Source, Timestamp, View},
};

/// What the gatekeeper judges from and whom it asks.
#[derive(Clone)]
pub struct Tools {
    /// What this node presents.
    pub own: View<OwnIdentity>,
    /// What it proves possession with.
    pub key: NodeKey,
    /// Whom it trusts.
    pub trust: View<TrustView>,
    /// What issuers took back.
    pub statuses: View<StatusView>,
    /// Scores and bans.
    pub standings: View<Standings>,
    /// Rate budgets.
    pub limiter: View<Limiter>,
    /// Who cools down after a fault.
    pub cooldowns: Arc<CoolDowns>,
    /// Who was invited; empty where this node issues nothing.
    pub invites: View<Invites>,
    /// Verifies credentials.
    pub identity: ActorRef<IdentityActor>,
    /// Takes the heads of status lists that peers show.
    pub revocation: ActorRef<RevocationActor>,
    /// Knows where peers stand, and is told of misdeeds.
    pub reputation: ActorRef<ReputationActor>,
    /// Makes grants durable.
    pub audit: AuditHandle,
    /// The access decision.
    pub judge: Arc<Judge>,
    /// Counts.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long one actor may take to answer.
    pub deadline: Duration,
    /// Judgements under way at once (`limits.pending_decisions`); more wait, and so do their
    /// sockets.
    pub pending: Arc<Semaphore>,
}

impl Tools {
    fn status_of(&self, identity: Option<&VerifiedIdentity>) -> Status {
        self.statuses.load().of_peer(identity, self.clock.now())
    }
}

/// See the module.
#[derive(Clone)]
pub struct Gatekeeper(Arc<Tools>, Arc<Mutex<Seen>>, Arc<Refusals>);

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").finish_non_exhaustive()
    }
}

/// A connection under judgement.
#[derive(Clone, Copy)]
struct Way {
    peer: PeerId,
    ip: Option<IpAddr>,
    direction: Direction,
    security: SecurityInfo,
}

fn unavailable(error: AskError) -> Refusal {
    Refusal::Unavailable(error.code())
}

impl Gatekeeper {
    /// A gatekeeper with these tools.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        Self(Arc::new(tools), Arc::default(), Arc::default())
    }

    /// What it judges from.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.0
    }

    async fn judge_member(self, presented: Presented) -> Result<Admitted, Refusal> {
        let Presented {
            peer,
            ip,
            direction,
            frame,
            security,
            channel,
            role,
        } = presented;
        let way = Way {
            peer,
            ip,
            direction,
            security,
        };
        let tools = &self.0;
        let origin = Origin {
            peer: Some(peer),
            address: ip,
        };
        let _turn = tools
            .pending
            .acquire()
            .await
            .map_err(|_| Refusal::Unavailable("stopping"))?;
        let before = tools.trust.load().epoch;
        let shown = Frame::decode(&frame)?;
        if let Some(proof) = shown.invitation() {
            let from = (&channel, role.other());
            let invites = tools.invites.load();
            invites.check(proof, peer, from, tools.clock.now())?;
            let mut admitted = self.grant(way, (Tier::Invited, None), before).await?;
            admitted.invitation = Some(proof.id);
            return Ok(admitted);
        }
        let heads = shown.heads().to_vec();
        let ask = VerifyPeer {
            peer,
            frame,
            channel,
            role: role.other(),
        };
        let identity = tools
            .identity
            .ask_for(origin, ask, tools.deadline)
            .await
            .map_err(unavailable)??;
        let goes_on = self.goes_on(&shown, &identity)?;
        self.take_heads(peer, ip, heads).await?;
        let known = (identity.tier, Some(identity));
        let mut admitted = self.grant(way, known, before).await?;
        admitted.formerly = goes_on.as_ref().map(Continuity::former);
        if let Some(statement) = goes_on {
            self.seen(&statement);
        }
        // Trust that was withdrawn meanwhile is withdrawn.
        match &admitted.identity {
            Some(identity) if !tools.trust.load().covers(&identity.anchor, before) => {
                Err(Refusal::UnknownIssuer(identity.anchor.to_string()))
            }
            // What was taken back meanwhile is taken back.
            Some(identity) if tools.status_of(Some(identity)).is_revoked() => Err(Refusal::Revoked),
            _ => Ok(admitted),
        }
    }

    /// The continuity statement that a verified peer shows, when it holds and is the newest of its
    /// subject; and whether the peer's keys are the subject's still.
    fn goes_on(
        &self,
        shown: &Frame,
        identity: &VerifiedIdentity,
    ) -> Result<Option<Continuity>, Refusal> {
        let names = (&identity.issuer, &identity.subject);
        let statement = shown.continuity().map(Continuity::open).transpose()?;
        if let Some(statement) = &statement {
            statement.leads_to(identity.keys.as_ref(), names)?;
        }
        let seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        seen.check(names, identity.peer, statement.as_ref())?;
        Ok(statement)
    }

    /// Remembers a statement of a peer that was let in, and has the log told the first time.
    fn seen(&self, statement: &Continuity) {
        let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.take(statement) {
            self.0.audit.note(AuditEvent::KeyRotated {
                peer: statement.new_keys().peer,
                former: statement.former(),
                identity: statement.label(),
                sequence: statement.sequence(),
                rule: "gate".to_owned(),
            });
        }
    }

    /// Puts what is news in the heads a proved peer showed in force, before it is judged.
    async fn take_heads(
        &self,
        peer: PeerId,
        ip: Option<IpAddr>,
        heads: Vec<u8>,
    ) -> Result<(), Refusal> {
        if heads.is_empty() {
            return Ok(());
        }
        let tools = &self.0;
        let origin = Origin {
            peer: Some(peer),
            address: ip,
        };
        let shown = ShownHeads { peer, heads };
        match tools
            .revocation
            .ask_for(origin, shown, tools.deadline)
            .await
        {
            Ok(taken) => taken,
            // The peer is judged by the lists in force: its heads are news about others.
            Err(error) => {
                tracing::debug!(%peer, code = error.code(), "heads of status lists were not read");
                Ok(())
            }
        }
    }

    /// The access decision, then the durable record, then the admission.
    async fn grant(
        &self,
        way: Way,
        (tier, identity): (Tier, Option<VerifiedIdentity>),
        epoch: u64,
    ) -> Result<Admitted, Refusal> {
        let Way {
            peer,
            ip,
            direction,
            security,
        } = way;
        let tools = &self.0;
        let origin = Origin {
            peer: Some(peer),
            address: ip,
        };
        let subject = identity.as_ref().and_then(subject_of);
        let ask = GetStanding { peer, subject };
        let asked = tools.reputation.ask_for(origin, ask, tools.deadline);
        let standing = asked.await.map_err(unavailable)?;
        tools.metrics.trust_score(standing.score);
        let now = tools.clock.now();
        let identity = identity.map(Arc::new);
        let decision = tools.judge.decide(&Question {
            action: Action::Connect,
            peer,
            tier,
            identity: identity.as_ref(),
            standing: Some(standing),
            status: tools.status_of(identity.as_deref()),
            topic: None,
            command: None,
            footing: Some(Footing {
                security,
                pq_auth: identity.as_ref().is_some_and(|one| one.pq_auth),
                ip,
            }),
            now,
        });
        let rule = &decision.rule;
        if !decision.permits() {
            return Err(self.denied(&decision, identity.as_deref(), standing.banned_until));
        }
        let label = identity
            .as_ref()
            .map(|i| format!("{}/{}", i.issuer, i.subject));
        let event = AuditEvent::ConnectionAccepted {
            peer,
            address: ip,
            direction,
            tier: tier.to_string(),
            rule: rule.to_string(),
            identity: label,
            credential_hash: identity.as_ref().map(|i| i.credential_hash),
            security,
            pq_auth: identity.as_ref().is_some_and(|i| i.pq_auth),
        };
        tools
            .audit
            .record(event)
            .await
            .map_err(|_| Refusal::Unavailable("audit"))?;
        Ok(Admitted {
            peer,
            tier,
            identity,
            invitation: None,
            formerly: None,
            rule: rule.to_string(),
            security,
            epoch,
        })
    }

    /// What a peer is told that is not let in.
    fn denied(
        &self,
        decision: &Decision,
        identity: Option<&VerifiedIdentity>,
        banned: Option<Timestamp>,
    ) -> Refusal {
        let rule = &decision.rule;
        match (decision.verdict, banned, decision.hint()) {
            (Verdict::Deny(DenyReason::Revoked), ..) => Refusal::Revoked,
            (_, Some(until), _) => self.banned(identity, until, self.0.clock.now()),
            (_, None, Some(hint)) => Refusal::Denied(format!("{rule}: {hint}")),
            (_, None, None) => Refusal::Denied(rule.to_string()),
        }
    }

    /// A renewed credential over a connection that stands.
    async fn renewed(
        self,
        known: Arc<Admitted>,
        ip: Option<IpAddr>,
        chain: Vec<u8>,
    ) -> Result<Admitted, Refusal> {
        let tools = &self.0;
        let old = known
            .identity
            .as_ref()
            .filter(|_| known.tier == Tier::Member);
        let old = old.ok_or_else(|| Refusal::Denied("renewal.no_member".into()))?;
        let before = tools.trust.load().epoch;
        let ask = VerifyRenewed {
            peer: known.peer,
            chain,
        };
        let origin = Origin::peer(known.peer);
        let answer = tools.identity.ask_for(origin, ask, tools.deadline).await;
        let mut new = answer.map_err(unavailable)??;
        // Possession was proved of these keys; of others nothing is known.
        if new.keys.is_none() || new.keys != old.keys {
            return Err(Refusal::WrongKey);
        }
        if (&new.issuer, &new.subject) != (&old.issuer, &old.subject) || new.expires < old.expires {
            return Err(Refusal::Denied("renewal.other".into()));
        }
        new.pq_auth = old.pq_auth;
        let way = Way {
            peer: known.peer,
            ip,
            direction: Direction::Inbound,
            security: known.security,
        };
        let mut admitted = self.grant(way, (Tier::Member, Some(new)), before).await?;
        admitted.formerly = known.formerly;
        match &admitted.identity {
            Some(identity) if !tools.trust.load().covers(&identity.anchor, before) => {
                Err(Refusal::UnknownIssuer(identity.anchor.to_string()))
            }
            _ => Ok(admitted),
        }
    }

    /// The refusal names the member when it is the member that is banned: by its new key nobody
    /// would find the ban.
    fn banned(
        &self,
        identity: Option<&VerifiedIdentity>,
        until: Timestamp,
        now: Timestamp,
    ) -> Refusal {
        let standings = self.0.standings.load();
        match identity.and_then(|one| standings.subject_barred(one, now)) {
            Some((subject, Barred::Until(until))) => Refusal::BannedSubject(subject, until),
            _ => Refusal::Banned(until),
        }
    }

    /// Charges the key alone: a document that was refused says nothing of whose it is, and who
    /// presents another's must not harm the other.
    fn charge(&self, peer: PeerId, ip: Option<IpAddr>, refusal: &Refusal) {
        let severity = match refusal {
            Refusal::Violation(_) => Severity::HandshakeAbuse,
            _ => Severity::BadCredential,
        };
        self.charge_for(peer, ip, severity, refusal.to_string());
    }

    fn charge_for(&self, peer: PeerId, ip: Option<IpAddr>, severity: Severity, evidence: String) {
        let charge = Charge {
            party: Party::Peer(peer),
            subject: None,
            address: ip,
            severity,
            evidence,
        };
        let origin = Origin {
            peer: Some(peer),
            address: ip,
        };
        if self.0.reputation.tell_for(origin, charge).is_err() {
            tracing::warn!(%peer, "a charge was lost: Reputation is busy");
        }
    }
}

impl GateKeeper for Gatekeeper {
    fn own_frame(&self, channel: &Channel, role: Role) -> Arc<[u8]> {
        let own = self.0.own.load();
        let heads = self.0.statuses.load().heads_of(own.issuers());
        own.frame(&self.0.key, channel, role, heads).into()
    }

    fn precheck(&self, peer: &PeerId, ip: Option<IpAddr>) -> Result<(), Refusal> {
        let origin = Origin {
            peer: Some(*peer),
            address: ip,
        };
        if self.0.cooldowns.is_cooling(&origin).is_some() {
            return Err(Refusal::CoolingDown);
        }
        let (standings, now) = (self.0.standings.load(), self.0.clock.now());
        let barred = standings
            .barred(&Party::Peer(*peer), now)
            .or_else(|| ip.and_then(|ip| standings.address_banned(ip, now)));
        match barred {
            None => Ok(()),
            Some(Barred::Until(until)) => Err(Refusal::Banned(until)),
            Some(Barred::Unknown) => Err(Refusal::Unavailable("reputation")),
        }
    }

    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.clone().judge_member(presented).boxed()
    }

    fn judge_open(
        &self,
        peer: PeerId,
        ip: Option<IpAddr>,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let keeper = self.clone();
        let way = Way {
            peer,
            ip,
            direction: Direction::Inbound,
            security,
        };
        async move {
            let pending = Arc::clone(&keeper.0.pending);
            let _turn = pending
                .acquire()
                .await
                .map_err(|_| Refusal::Unavailable("stopping"))?;
            keeper.grant(way, (Tier::Unverified, None), 0).await
        }
        .boxed()
    }

    fn judge_renewed(
        &self,
        known: Arc<Admitted>,
        ip: Option<IpAddr>,
        chain: Vec<u8>,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.clone().renewed(known, ip, chain).boxed()
    }

    fn refused(&self, peer: &PeerId, ip: Option<IpAddr>, direction: Direction, why: &Refusal) {
        self.0.metrics.denied(why.code());
        // What the other side decided, and what broke on the way, is its own affair.
        let ours = !matches!(
            why,
            Refusal::ByPeer(_) | Refusal::Interrupted(_) | Refusal::Late
        );
        if ours && why.charged() {
            self.charge(*peer, ip, why);
        }
        if !self.2.is_single(why.code(), ip, ours, self.0.clock.now()) {
            return;
        }
        tracing::info!(%peer, ?direction, code = why.code(), "refused at the gate: {why}");
        if ours {
            self.0.audit.note(AuditEvent::AuthenticationFailed {
                peer: *peer,
                address: ip,
                code: why.code().to_owned(),
                detail: why.to_string(),
            });
        }
    }

    fn breached(&self, peer: &PeerId, ip: Option<IpAddr>, breach: Breach) {
        self.0.metrics.denied(breach.code());
        tracing::warn!(%peer, code = breach.code(), "a connection is cut off: {breach}");
        self.charge_for(*peer, ip, Severity::HandshakeAbuse, breach.to_string());
    }
}

impl Admission for Gatekeeper {
    fn admit_pending(&self, source: Source) -> Result<(), &'static str> {
        let tools = &self.0;
        if let Some(ip) = source.ip() {
            let origin = Origin {
                peer: None,
                address: Some(ip),
            };
            if tools.cooldowns.is_cooling(&origin).is_some() {
                return Err("cooling_down");
            }
            match tools.standings.load().address_banned(ip, tools.clock.now()) {
                None => {}
                Some(Barred::Until(_)) => return Err("address_banned"),
                Some(Barred::Unknown) => return Err("reputation_unknown"),
            }
        }
        tools
            .limiter
            .load()
            .admit_connection(source)
            .map_err(|denial| denial.reason.code())
    }

    fn take_refused(&self) -> Vec<Refused> {
        self.2.take()
    }
}
