//! Authors who are nobody's neighbours here: their messages wait while the neighbour that
//! forwarded them shows their credentials.
//!
//! Gossip forwards nothing meanwhile. What does not come within [`patience`], well below the time
//! after which gossipsub forgets a message, is ignored.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use libp2p::gossipsub::{MessageAcceptance, MessageId};

use super::{
    SwarmActor, TICK,
    judge::{Author, Judgement, judge_known},
    peers::Peer,
};
use crate::{
    identity::{
        Tier, VerifiedIdentity,
        wire::{MAX_CHAINS, Request, Response},
    },
    messages::{
        identity::{ChainsOf, VerifyAuthors},
        swarm::SendFault,
    },
    network::{
        Envelope,
        exchange::Identity,
        parking::{CredentialHash, Parked},
    },
    types::{Origin, PeerId, Topic},
};

/// Longest a message waits, whatever gossip would allow: two round trips on a slow line.
const LONGEST: Duration = Duration::from_secs(2);
/// How long Identity may take for the chains of one answer.
const VERIFY_DEADLINE: Duration = Duration::from_secs(2);
/// What a neighbour pays for each author it cannot vouch for, in bytes of its budget: an honest
/// one that has just restarted pays it a few times and is not banned for it.
const UNVOUCHED_BYTES: u64 = 16 * 1024;

/// What an entry takes in memory beside its payload, bytes: thousands of empty ones are no small thing.
const ENTRY_BYTES: usize = 64;

/// A message that waits.
#[derive(Debug)]
pub(super) struct ParkedMessage {
    pub(super) id: MessageId,
    pub(super) neighbour: libp2p::PeerId,
    pub(super) author: PeerId,
    pub(super) topic: Topic,
    pub(super) envelope: Envelope,
    /// Whether its numbers were taken when it came.
    pub(super) taken: bool,
}

/// How long a message may wait. Gossipsub drops it at the heartbeat after the last of its history,
/// and the first may come at once: it keeps it for one less at least. Another one, less a tick, is for the
/// answer: the deadline is looked at when an answer comes, and each tick.
pub(super) fn patience(heartbeat: Duration, history: usize) -> Duration {
    let beats = u32::try_from(history.saturating_sub(1)).unwrap_or(u32::MAX);
    let kept = heartbeat.saturating_mul(beats);
    kept.saturating_sub(heartbeat.max(TICK)).min(LONGEST)
}

impl SwarmActor {
    pub(super) fn park(
        &mut self,
        forwarder: PeerId,
        credential: CredentialHash,
        message: ParkedMessage,
    ) {
        let entries = message.envelope.entries.len().saturating_mul(ENTRY_BYTES);
        let bytes = message.envelope.payload_bytes().saturating_add(entries);
        let (id, neighbour, author) = (message.id.clone(), message.neighbour, message.author);
        let now = self.tools.clock.elapsed();
        let parked = (message, bytes);
        let reason = match self.parking.park(credential, forwarder, parked, now) {
            Parked::Waits => return,
            Parked::Full => "parking_full",
            Parked::Barren => "author_unknown",
        };
        self.answer(&id, &neighbour, MessageAcceptance::Ignore);
        self.refuse_message(reason, author);
    }

    /// Asks for what is waited for, and lets go of what waited too long.
    pub(super) fn tend_parking(&mut self) {
        if self.parking.is_empty() {
            return;
        }
        let now = self.tools.clock.elapsed();
        let late = self.parking.expired(now);
        self.let_go(late);
        for (peer, credentials) in self.parking.requests(MAX_CHAINS) {
            let request = Request::GetChains {
                credentials: credentials.clone(),
            };
            let asked = self.ask_for_chains(peer, credentials.clone(), request);
            if asked.is_err() {
                self.not_vouched(peer, &credentials, false);
            }
        }
    }

    fn let_go(&mut self, messages: Vec<ParkedMessage>) {
        for message in messages {
            self.answer(&message.id, &message.neighbour, MessageAcceptance::Ignore);
            self.refuse_message("author_unknown", message.author);
        }
    }

    /// A neighbour did not show these. `said`: it answered, so that it pays, and is not asked again
    /// for a while.
    fn not_vouched(&mut self, peer: PeerId, credentials: &[CredentialHash], said: bool) {
        let now = self.tools.clock.elapsed();
        for credential in credentials {
            let gone = self.parking.failed(peer, *credential, said, now);
            if said && !gone.is_empty() {
                let limiter = self.tools.limiter.load();
                // Over its budget already: then its messages are ignored as it is.
                let _ = limiter.charge_neighbour(peer, UNVOUCHED_BYTES);
            }
            self.let_go(gone);
        }
    }

    pub(super) fn on_chains(
        &mut self,
        peer: PeerId,
        asked: Vec<CredentialHash>,
        answer: Result<Response, SendFault>,
        ctx: &mut Context<Self>,
    ) {
        let chains = match answer {
            Ok(Response::Chains(chains)) => chains,
            Ok(Response::Later) | Err(_) => return self.not_vouched(peer, &asked, false),
            Ok(_) => {
                self.charge_malformed::<Identity>(
                    peer,
                    "response",
                    &"an answer to another question",
                );
                return self.not_vouched(peer, &asked, true);
            }
        };
        let epoch = self.tools.trust.load().epoch;
        let identity = self.tools.identity.clone();
        let verify = VerifyAuthors { peer, chains };
        let verified = async move {
            let origin = Origin::peer(peer);
            identity.ask_for(origin, verify, VERIFY_DEADLINE).await
        };
        ctx.spawn(verified.into_actor(self).map(move |answer, act, _| {
            let Ok(verified) = answer else {
                // Not the neighbour's fault.
                return act.not_vouched(peer, &asked, false);
            };
            act.on_verified(peer, &asked, epoch, verified);
        }));
    }

    fn on_verified(
        &mut self,
        peer: PeerId,
        asked: &[CredentialHash],
        epoch: u64,
        verified: Result<Vec<Arc<VerifiedIdentity>>, &'static str>,
    ) {
        let identities = match verified {
            Ok(identities) => identities,
            Err(malformed) => {
                self.charge_malformed::<Identity>(peer, "response", &malformed);
                return self.not_vouched(peer, asked, true);
            }
        };
        // What waited too long is forwarded nowhere any more, so it is not delivered here alone.
        let late = self.parking.expired(self.tools.clock.elapsed());
        self.let_go(late);
        let now = self.tools.clock.now();
        for identity in identities {
            let hash = identity.credential_hash;
            if !asked.contains(&hash) {
                self.charge_malformed::<Identity>(peer, "response", &"a chain nobody asked for");
                continue;
            }
            if !self.tools.trust.load().covers(&identity.anchor, epoch) {
                continue;
            }
            self.peers.remember(Arc::clone(&identity), epoch, now);
            for message in self.parking.take(&hash) {
                self.judge_parked(message, &identity);
            }
        }
        // What is left was not among them, or does not verify here.
        self.not_vouched(peer, asked, true);
    }

    fn judge_parked(&mut self, message: ParkedMessage, identity: &Arc<VerifiedIdentity>) {
        let ParkedMessage {
            id,
            neighbour,
            author,
            topic,
            envelope,
            taken,
        } = message;
        let judgement = if identity.peer == author && identity.tier > Tier::Unverified {
            let (limiter, standings) = (self.tools.limiter.load(), self.tools.standings.load());
            let statuses = self.tools.statuses.load();
            let peer = self.peers.get(&author);
            let known = Author {
                tier: identity.tier,
                identity: Some(Arc::clone(identity)),
                footing: peer.map(Peer::footing),
            };
            let mut mark = std::mem::take(&mut self.mark);
            let views = self.views(&limiter, &standings, &statuses);
            let mut windows = self.tools.replay.windows();
            let judged = judge_known(
                (author, &known),
                &topic,
                (envelope, taken),
                (&mut windows, &mut mark),
                &views,
            );
            drop(windows);
            self.mark = mark;
            judged
        } else {
            // It names another's credential.
            Judgement::Ignore("credential_unknown")
        };
        self.settle(&id, &neighbour, (author, topic), judgement);
    }

    /// The chains a peer asks for, of those that were verified here.
    pub(super) fn serve_chains(
        &mut self,
        who: PeerId,
        credentials: Vec<CredentialHash>,
        ctx: &mut Context<Self>,
        respond: impl FnOnce(&mut Self, Response) + 'static,
    ) {
        let identity = self.tools.identity.clone();
        let ask = ChainsOf { credentials };
        let asked = async move {
            identity
                .ask_for(Origin::peer(who), ask, VERIFY_DEADLINE)
                .await
        };
        ctx.spawn(asked.into_actor(self).map(move |answer, act, _| {
            respond(act, answer.map_or(Response::Later, Response::Chains));
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_waits_less_than_gossip_keeps_it() {
        let ms = Duration::from_millis;
        for (heartbeat, history) in [(1_000, 5), (200, 5), (200, 4), (100, 5), (100, 4), (60, 5)] {
            let least = ms(heartbeat) * (history - 1);
            let waits = patience(ms(heartbeat), usize::try_from(history).unwrap());
            // It is let go of at the tick after that.
            assert!(waits + TICK <= least, "{heartbeat} {history}");
            assert!(waits > Duration::ZERO, "{heartbeat} {history}");
        }
        assert_eq!(patience(ms(5_000), 5), LONGEST);
        assert_eq!(patience(ms(1_000), 1), Duration::ZERO);
    }
}
