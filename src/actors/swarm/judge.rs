//! How a gossip message is judged: the fast path, from published views alone.
//!
//! Cheap checks first, signatures last (gossipsub has checked the author's before). A message
//! that breaks a rule of form is rejected and its author charged; one that is over a budget,
//! unknown or not permitted is ignored, so that honest neighbours who forward it are not punished.

use std::sync::Arc;

use crate::{
    identity::{Tier, VerifiedIdentity},
    network::envelope::Envelope,
    trust::{
        decision::{self, Action, Request, Subject, Verdict},
        rate::Limiter,
        reputation::Standings,
    },
    config::PolicyConfig,
    types::{PeerId, Timestamp, Topic},
};

/// What is done with a message.
#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    /// Forward and deliver.
    Accept(Envelope),
    /// Neither forward nor deliver; nobody is punished.
    Ignore(&'static str),
    /// Neither; the forwarder's gossip score falls and the author is charged.
    Reject(&'static str),
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    /// The neighbour that forwarded it.
    pub neighbour: PeerId,
    /// Who signed it.
    pub author: PeerId,
    /// Its topic.
    pub topic: &'a Topic,
    /// The envelope's bytes.
    pub data: &'a [u8],
}

/// How the author is known: its tier and, for members, its verified identity.
pub(super) type Known = Option<(Tier, Option<Arc<VerifiedIdentity>>)>;

/// The views a judgement is made from.
#[derive(Debug)]
pub(super) struct Views<'a> {
    pub limiter: &'a Limiter,
    pub standings: &'a Standings,
    pub policy: &'a PolicyConfig,
    pub max_payload: usize,
    pub now: Timestamp,
}

/// Judges one message.
pub(super) fn judge(message: &Incoming<'_>, author: &Known, views: &Views<'_>) -> Judgement {
    let Incoming { neighbour, author: who, topic, data } = message;
    if views.limiter.charge_neighbour(neighbour, data.len()).is_err() {
        return Judgement::Ignore("neighbour_bytes");
    }
    if views.standings.banned_until(who, views.now).is_some() {
        return Judgement::Ignore("author_banned");
    }
    if views.limiter.charge_author(who, 1).is_err() {
        return Judgement::Ignore("author_rate");
    }
    let Ok(envelope) = Envelope::decode(data, views.max_payload) else {
        return Judgement::Reject("envelope");
    };
    let Some((tier, identity)) = author else {
        return Judgement::Ignore("author_unknown");
    };
    // An author whose credential changed is known again from its next connection.
    if envelope.credential_hash != identity.as_ref().map(|i| i.credential_hash) {
        return Judgement::Ignore("credential_unknown");
    }
    let decision = decision::evaluate(
        &Request {
            action: Action::Publish,
            subject: Subject {
                peer: *who,
                tier: *tier,
                identity: identity.as_deref(),
                standing: Some(views.standings.standing(who, views.now)),
            },
            topic: Some(topic),
            now: views.now,
        },
        views.policy,
    );
    match decision.verdict {
        Verdict::Allow => Judgement::Accept(envelope),
        Verdict::Deny(_) => Judgement::Ignore("policy"),
        Verdict::Quarantine => Judgement::Ignore("quarantine"),
    }
}
