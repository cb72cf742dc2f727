//! How a gossip message is judged: the fast path, from published views alone.
//!
//! Gossipsub has checked the author's signature before, and its neighbour has paid for the frame.
//! Budgets come first, so that a flood is
//! cheap to refuse. A message that breaks a rule of form is rejected and its author charged; one
//! that is over a budget, unknown or not permitted is ignored, so that honest neighbours who
//! forward it are not punished.

use std::{sync::Arc, time::Duration};

use crate::{
    actors::judge::{Judge, Question},
    identity::{StatusView, Tier, VerifiedIdentity},
    network::{
        Envelope, EnvelopeError,
        replay::{Mark, Numbers, ReplayWindows},
    },
    policy::{Action, Decision, DenyReason, Verdict},
    trust::{
        rate::Limiter,
        reputation::{Standings, answers},
    },
    types::{Footing, PeerId, Timestamp, Topic},
};

/// What is done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Forward and deliver.
    Accept(Envelope, Arc<Decision>),
    /// Whoever forwarded it shall show the credential it names; then it is judged further.
    /// Whether its numbers were taken is the last.
    Park(Envelope, [u8; 32], bool),
    /// Neither forward nor deliver; nobody is punished.
    Ignore(&'static str),
    /// The same, because a rule says so.
    Deny(&'static str, Arc<Decision>),
    /// Neither; the author alone is charged.
    Blame(&'static str),
    /// Neither; the forwarder's gossip score falls and the author is charged.
    Reject(&'static str),
}

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// Who signed it.
    pub(super) author: PeerId,
    /// Its topic.
    pub(super) topic: &'a Topic,
    /// The envelope's bytes.
    pub(super) data: &'a [u8],
}

/// How an author is known.
#[derive(Debug, Clone)]
pub(super) struct Author {
    pub(super) tier: Tier,
    /// Its verified identity, unless it has none.
    pub(super) identity: Option<Arc<VerifiedIdentity>>,
    /// How it is connected, when it is a neighbour. A message may come over any number of other
    /// connections; that does not matter.
    pub(super) footing: Option<Footing>,
}

/// The views a judgement is made from.
#[derive(Debug)]
pub(super) struct Views<'a> {
    pub(super) limiter: &'a Limiter,
    pub(super) standings: &'a Standings,
    pub(super) statuses: &'a StatusView,
    pub(super) judge: &'a Judge,
    /// Monotonic time since the start.
    pub(super) elapsed: Duration,
    pub(super) max_payload: usize,
    pub(super) now: Timestamp,
}

/// Judges one message.
pub(super) fn judge(
    message: &Incoming<'_>,
    authors: &dyn Fn(Option<&[u8; 32]>) -> Option<Author>,
    (windows, mark): (&mut ReplayWindows, &mut Mark),
    views: &Views<'_>,
) -> Judgement {
    // By the key, before anything is decoded; by the subject once it is known whose the key is.
    let Some(standing) = views.standings.standing(&message.author, views.now) else {
        return Judgement::Ignore("standing_unknown");
    };
    if standing.banned_until.is_some() {
        return Judgement::Ignore("author_banned");
    }
    let envelope = match Envelope::decode(message.data, views.max_payload) {
        Ok(envelope) => envelope,
        Err(error) => return unreadable(error),
    };
    // Before the author pays: whoever plays an old message again must not spend its budget.
    let clocks = (views.now, views.elapsed);
    let admitted = windows.admit(message.author, numbers(&envelope), clocks, mark);
    let taken = match admitted {
        Ok(taken) => taken,
        Err(stale) => return Judgement::Ignore(stale.name()),
    };
    if !pays(views.limiter, message.author, &envelope) {
        return Judgement::Ignore("author_rate");
    }
    let known = authors(envelope.credential.as_ref());
    let identity = known.as_ref().and_then(|author| author.identity.as_ref());
    let hash = identity.map(|identity| identity.credential_hash);
    match (known, envelope.credential) {
        (Some(author), named) if named == hash => {
            let who = (message.author, &author);
            let memory = (windows, mark);
            judge_known(who, message.topic, (envelope, taken), memory, views)
        }
        // It signed itself in as nobody; what it claims in a message changes nothing.
        (Some(author), _) if author.tier == Tier::Unverified => {
            Judgement::Ignore("credential_unknown")
        }
        (Some(_), None) => Judgement::Ignore("credential_unknown"),
        (None, None) => Judgement::Ignore("author_unknown"),
        (_, Some(credential)) => Judgement::Park(envelope, credential, taken),
    }
}

/// One signature, and a charge for each message it serves: all of them or none. Credit for those alone
/// who name a credential, which they have to show before anything of theirs is delivered: other keys
/// cost nothing, and each would bring a batch of the largest size.
fn pays(limiter: &Limiter, author: PeerId, envelope: &Envelope) -> bool {
    let count = envelope.count();
    let charged = match envelope.credential {
        Some(_) => limiter.charge_batch(author, count),
        None => limiter.charge_author(author, count),
    };
    charged.is_ok()
}

/// What is done with bytes that are no envelope here. Gossip remembers a rejected message by its
/// name, and punishes whoever forwards another one of that name: so what does not go into the name
/// must not have it rejected. Nor must what another node, configured or built otherwise, may take.
fn unreadable(error: EnvelopeError) -> Judgement {
    match error {
        EnvelopeError::Malformed => Judgement::Reject("envelope"),
        EnvelopeError::Trace => Judgement::Blame("envelope"),
        EnvelopeError::Version(_) => Judgement::Ignore("envelope_version"),
        EnvelopeError::TooLarge { .. } => Judgement::Ignore("too_large"),
    }
}

fn numbers(envelope: &Envelope) -> Numbers {
    Numbers {
        first: envelope.first,
        count: envelope.count(),
        sent: envelope.sent,
    }
}

/// Judges a message that paid its budgets and was not played again, once its author is known.
pub(super) fn judge_known(
    (peer, author): (PeerId, &Author),
    topic: &Topic,
    (envelope, taken): (Envelope, bool),
    (windows, mark): (&mut ReplayWindows, &mut Mark),
    views: &Views<'_>,
) -> Judgement {
    let Author {
        tier,
        identity,
        footing,
    } = author;
    let known = identity.as_deref();
    let decision = views.judge.review(&Question {
        action: Action::Publish,
        peer,
        tier: *tier,
        identity: identity.as_ref(),
        standing: views.standings.standing_of(&peer, known, views.now),
        status: views.statuses.of_peer(known, views.now),
        topic: Some(topic),
        command: None,
        footing: *footing,
        now: views.now,
    });
    // Beside its key's, which was charged before anybody knew whose it is: a new key brings no new
    // budget.
    if decision.permits()
        && let Some(member) = answers(known, views.now)
        && views
            .limiter
            .charge_member(&member, envelope.count())
            .is_err()
    {
        return Judgement::Ignore("author_rate");
    }
    if decision.permits() {
        // Of an author that is here for the first time; a window costs memory, and those whose
        // messages nobody takes get none.
        if !taken {
            let who = (peer, *tier == Tier::Unverified);
            let clocks = (views.now, views.elapsed);
            if let Err(stale) = windows.take(who, numbers(&envelope), clocks, mark) {
                return Judgement::Ignore(stale.name());
            }
        }
        return Judgement::Accept(envelope, decision);
    }
    let reason = match decision.verdict {
        Verdict::Deny(DenyReason::Banned) => return Judgement::Ignore("author_banned"),
        Verdict::Deny(DenyReason::Quarantined) | Verdict::Quarantine { .. } => "quarantine",
        _ => "policy",
    };
    Judgement::Deny(reason, decision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::LimitsConfig,
        network::Entry,
        types::{ManualClock, Timestamp},
    };

    fn envelope(credential: Option<[u8; 32]>, count: u32) -> Envelope {
        Envelope {
            sent: Timestamp::from_secs(1),
            first: 1,
            credential,
            entries: (0..count).map(|_| Entry::plain(*b"x")).collect(),
        }
    }

    #[test]
    fn each_message_of_a_batch_is_charged_and_only_a_credential_has_credit() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_800_000_000)));
        let limits = LimitsConfig::default();
        let limiter = Limiter::new(&limits, clock).unwrap();
        let burst = limits.message_burst;
        let peer = |n| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]);
            PeerId::from(&key.verifying_key())
        };
        for (n, credential) in [(1, None), (2, Some([7; 32]))] {
            assert!(pays(&limiter, peer(n), &envelope(credential, burst - 5)));
            assert!(!pays(&limiter, peer(n), &envelope(credential, 6)), "whole");
            assert!(pays(&limiter, peer(n), &envelope(credential, 5)));
            assert!(!pays(&limiter, peer(n), &envelope(credential, 1)));
        }
        assert!(!pays(&limiter, peer(3), &envelope(None, burst + 1)));
        assert!(pays(&limiter, peer(3), &envelope(Some([7; 32]), burst + 1)));
        assert!(!pays(&limiter, peer(3), &envelope(Some([7; 32]), 1)));
    }

    #[test]
    fn nothing_outside_a_messages_name_has_its_forwarders_punished() {
        let refused = |error| unreadable(error);
        assert_eq!(refused(EnvelopeError::Trace), Judgement::Blame("envelope"));
        for error in [
            EnvelopeError::Version(9),
            EnvelopeError::TooLarge { limit: 1 },
        ] {
            assert!(matches!(refused(error), Judgement::Ignore(_)));
        }
        assert!(matches!(
            refused(EnvelopeError::Malformed),
            Judgement::Reject(_)
        ));
    }
}
