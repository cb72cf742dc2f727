//! The node's answer to the network's questions: who may begin a handshake, who is let in.
//!
//! Not an actor: it runs on connection tasks and asks the actors with deadlines. Whatever does
//! not answer in time is a refusal. An *Allow* takes effect only after its record is durable.

mod answers;
mod refusals;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
        Continuity, Frame, NodeKey, OwnIdentity, Refusal, Status, StatusView, Tier, TrustView,
        VerifiedIdentity, continuity::Seen, invites::Invites,
    },
    messages::{
        identity::{VerifyPeer, VerifyRenewed},
        reputation::{Charge, GetStanding, Severity},
        revocation::ShownHeads,
    },
    network::{Admitted, Presented},
    policy::{Action, Decision, DenyReason, Verdict},
    supervision::{ActorRef, AskError, CoolDowns},
    telemetry::Metrics,
    trust::{
        rate::Limiter,
        reputation::{Barred, Standings, subject_of},
    },
    types::{Clock, Footing, Origin, Party, PeerId, SecurityInfo, Timestamp, View},
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
        // Trust that was withdrawn meanwhile is withdrawn.
        match &admitted.identity {
            Some(identity) if !tools.trust.load().covers(&identity.anchor, before) => {
                Err(Refusal::UnknownIssuer(identity.anchor.to_string()))
            }
            // What was taken back meanwhile is taken back.
            Some(identity) if tools.status_of(Some(identity)).is_revoked() => Err(Refusal::Revoked),
            // And keys that were given up meanwhile are given up.
            Some(identity) => {
                self.admit(identity, goes_on.as_ref())?;
                Ok(admitted)
            }
            None => Ok(admitted),
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
        seen.check(identity, statement.as_ref(), self.0.clock.now())?;
        Ok(statement)
    }

    /// The last check of a peer that is let in; remembers the statement it shows in the same step,
    /// and has the log told the first time.
    fn admit(
        &self,
        identity: &VerifiedIdentity,
        statement: Option<&Continuity>,
    ) -> Result<(), Refusal> {
        let mut seen = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let news = seen.admit(identity, statement, self.0.clock.now())?;
        drop(seen);
        if let Some(statement) = statement.filter(|_| news) {
            self.0.audit.note(AuditEvent::KeyRotated {
                peer: statement.new_keys().peer,
                former: statement.former(),
                identity: statement.label(),
                sequence: statement.sequence(),
                rule: "gate".to_owned(),
            });
        }
        Ok(())
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
    fn charge(&self, peer: PeerId, ip: Option<IpAddr>, refusal: &Refusal, single: bool) {
        let severity = match refusal {
            Refusal::Violation(_) => Severity::HandshakeAbuse,
            _ => Severity::BadCredential,
        };
        self.charge_for(peer, ip, severity, refusal.to_string(), single);
    }

    /// `single`: it is on record by itself, and not in a sum of refusals alone.
    fn charge_for(
        &self,
        peer: PeerId,
        ip: Option<IpAddr>,
        severity: Severity,
        evidence: String,
        single: bool,
    ) {
        let charge = Charge {
            party: Party::Peer(peer),
            subject: None,
            address: ip,
            severity,
            evidence,
            summed: !single,
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
