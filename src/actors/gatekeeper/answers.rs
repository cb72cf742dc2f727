//! What the network asks the gatekeeper, and what it is told at once: bans, cool-downs and budgets
//! are looked up; whatever takes an actor's answer is begun here and awaited there.

use std::{net::IpAddr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

use super::{Gatekeeper, Way};
use crate::{
    audit::{AuditEvent, Direction},
    identity::{Channel, Refusal, Role, Tier},
    messages::reputation::Severity,
    network::{Admission, Admitted, GateKeeper, Presented, Refused, secure::Breach},
    trust::reputation::Barred,
    types::{Origin, Party, PeerId, SecurityInfo, Source},
};

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
        // What the other side decided, and what broke on the way, is its own affair: no record
        // here says that this node refused somebody.
        let theirs = matches!(
            why,
            Refusal::ByPeer(_) | Refusal::Interrupted(_) | Refusal::Late
        );
        if theirs {
            tracing::debug!(%peer, ?direction, code = why.code(), "not let in: {why}");
            return;
        }
        let single = self.2.is_single(why.code(), ip, self.0.clock.now());
        if why.charged() {
            self.charge(*peer, ip, why, single);
        }
        if !single {
            return;
        }
        tracing::info!(%peer, ?direction, code = why.code(), "refused at the gate: {why}");
        self.0.audit.note(AuditEvent::AuthenticationFailed {
            peer: *peer,
            address: ip,
            code: why.code().to_owned(),
            detail: why.to_string(),
        });
    }

    fn breached(&self, peer: &PeerId, ip: Option<IpAddr>, breach: Breach) {
        self.0.metrics.denied(breach.code());
        let single = self.2.is_single(breach.code(), ip, self.0.clock.now());
        if single {
            tracing::warn!(%peer, code = breach.code(), "a connection is cut off: {breach}");
        }
        let (abuse, evidence) = (Severity::HandshakeAbuse, breach.to_string());
        self.charge_for(*peer, ip, abuse, evidence, single);
    }

    fn request_rates(&self) -> (u32, u32) {
        self.0.limiter.load().request_rates()
    }
}

impl Admission for Gatekeeper {
    fn admit_pending(&self, source: Source, known: bool) -> Result<(), &'static str> {
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
            .admit_from(source, known)
            .map_err(|denial| denial.reason.code())
    }

    fn is_exempt(&self, source: Source) -> bool {
        self.0.limiter.load().is_exempt(source)
    }

    fn denied(&self, reason: &'static str) {
        self.0.metrics.denied(reason);
    }

    fn take_refused(&self) -> Vec<Refused> {
        self.2.take()
    }
}
