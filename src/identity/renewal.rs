//! Renewal: when a node asks for its next credential, and whether what it got is one.
//!
//! A pure core: time is an argument, randomness is seeded. The renewal actor asks [`Plan::due`],
//! asks an issuer's node, and tells the plan what came of it. It begins when two thirds of a
//! credential's time are over, a little later by chance so that nodes enrolled together do not come
//! together, and goes on, with longer and longer pauses, until there is a new one: also when the
//! old one has ended meanwhile, for the issuer hears it for a while.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use thiserror::Error;

use super::{
    Chain, Continuity, Malformed, NodePublic, Refusal, TrustAnchors, claims::Validity, verify_chain,
};
use crate::types::Timestamp;

/// Shortest pause after a try that failed.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause: an issuer that is back is found within this.
const LONGEST: Duration = Duration::from_hours(1);
/// The first pause is this part of the lifetime (20 minutes of 90 days), but within the bounds
/// above.
const FIRST: u32 = 6_480;
/// No pause is longer than this part of the lifetime, so that a short-lived credential is tried
/// for often enough.
const SLOWEST: u32 = 24;
/// Doublings beyond which any pause has passed its bound.
const MAX_DOUBLINGS: u32 = 20;

/// When to renew.
#[derive(Debug)]
pub struct Plan {
    rng: StdRng,
    /// The credential it is about.
    of: Option<([u8; 32], Validity)>,
    due: Timestamp,
    failures: u32,
}

impl Plan {
    /// A plan without a credential; `seed` is of the jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            of: None,
            due: Timestamp::default(),
            failures: 0,
        }
    }

    /// This is the credential now: another one than before is planned for anew.
    pub fn follow(&mut self, chain: Option<&Chain>) {
        let of = chain.map(|chain| {
            let credential = chain.credential();
            (credential.hash(), credential.claims().validity)
        });
        if of == self.of {
            return;
        }
        self.of = of;
        self.failures = 0;
        if let Some((_, validity)) = self.of {
            let lifetime = Duration::from_secs(validity.lifetime());
            // From two thirds to eleven fifteenths of its time.
            let jitter = lifetime.mul_f64(self.rng.random_range(0.0..=1.0) / 15.0);
            let start = Timestamp::from_secs(validity.not_before());
            self.due = start.after(lifetime * 2 / 3).after(jitter);
        }
    }

    /// Whether to ask now.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.of.is_some() && now >= self.due
    }

    /// When it will be; `None` without a credential.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.of.is_some().then_some(self.due)
    }

    /// Tries that failed since the credential came.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Nobody renewed it. The next try is after a pause, not before `again` has passed.
    pub fn failed(&mut self, now: Timestamp, again: Option<Duration>) {
        let Some((_, validity)) = self.of else { return };
        let lifetime = Duration::from_secs(validity.lifetime());
        let bound = (lifetime / SLOWEST).clamp(SHORTEST, LONGEST);
        let doublings = self.failures.min(MAX_DOUBLINGS);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let first = (lifetime / FIRST).clamp(SHORTEST, bound);
        let full = first.saturating_mul(factor).min(bound);
        let pause = full.mul_f64(self.rng.random_range(0.5..=1.0));
        self.failures = self.failures.saturating_add(1);
        // An issuer's word is taken, but not for ever.
        let again = again.unwrap_or_default().min(bound);
        self.due = now.after(pause.max(again));
    }
}

/// Why an answer is no renewal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotRenewed {
    /// No chain.
    #[error("the answer is no credential: {0}")]
    Malformed(#[from] Malformed),
    /// Bound to other keys.
    #[error("it is bound to other keys than this node's")]
    Keys,
    /// Of another issuer or for another subject.
    #[error("it is of another issuer, or for another subject")]
    Other,
    /// It ends no later than the old one.
    #[error("it ends no later than the one that is there")]
    NoLater,
    /// This node's own anchors do not verify it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Whether `answer` renews `old` for the node with these keys, by its own anchors.
///
/// # Errors
/// [`NotRenewed`].
pub fn accept(
    old: &Chain,
    answer: &[u8],
    keys: &NodePublic,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<Chain, NotRenewed> {
    let chain = Chain::decode(answer)?;
    let (before, after) = (old.credential().claims(), chain.credential().claims());
    if after.keys != *keys {
        return Err(NotRenewed::Keys);
    }
    if after.issuer != before.issuer || after.subject != before.subject {
        return Err(NotRenewed::Other);
    }
    if after.validity.expires() <= before.validity.expires() {
        return Err(NotRenewed::NoLater);
    }
    verify_chain(&chain, keys.peer, anchors, now)?;
    Ok(chain)
}

/// Whether `answer` goes on with `old` for the new keys of the node's statement, by its own anchors.
/// How long it holds is the issuer's affair.
///
/// # Errors
/// [`NotRenewed`].
pub fn accept_rotated(
    old: &Chain,
    answer: &[u8],
    statement: &Continuity,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<Chain, NotRenewed> {
    let chain = Chain::decode(answer)?;
    let (before, after) = (old.credential().claims(), chain.credential().claims());
    let keys = statement.new_keys();
    if after.keys != *keys {
        return Err(NotRenewed::Keys);
    }
    if after.issuer != before.issuer || after.subject != before.subject {
        return Err(NotRenewed::Other);
    }
    verify_chain(&chain, keys.peer, anchors, now)?;
    Ok(chain)
}

/// When an issuer is asked for the credential of new keys.
#[derive(Debug, Default)]
pub struct Tries {
    of: Option<[u8; 32]>,
    due: Timestamp,
    failures: u32,
}

impl Tries {
    /// Whether to ask now for what has this hash; another one than before is asked for at once.
    pub fn is_due(&mut self, of: [u8; 32], now: Timestamp) -> bool {
        if self.of != Some(of) {
            *self = Self {
                of: Some(of),
                ..Self::default()
            };
        }
        now >= self.due
    }

    /// Nobody gave it: the pause doubles, and is at most an hour; not before `again` has passed.
    pub fn failed(&mut self, now: Timestamp, again: Option<Duration>) {
        let doublings = self.failures.min(MAX_DOUBLINGS);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let pause = SHORTEST
            .saturating_mul(factor)
            .max(again.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        self.due = now.after(pause.min(LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{
        Grant, NodeKey, SigningRequest, issue,
        testing::{HOUR, NOW, acme, anchors, globex, grant, mallory, name, node, serial},
    };

    fn issued(
        key: &NodeKey,
        issuer: &crate::identity::IssuerKey,
        grant: &Grant,
        at: Timestamp,
    ) -> Chain {
        let bytes = SigningRequest::seal(key, &name("node-1"), &Default::default(), at);
        let request = SigningRequest::open(&bytes).unwrap();
        Chain::of(issue(issuer, &request, grant, serial(1), at).unwrap())
    }

    #[test]
    fn what_is_no_renewal_is_refused_and_named() {
        let old = issued(&node(), &acme(), &grant(), NOW);
        let later = NOW.after(HOUR / 2);
        let judge = |chain: &Chain, now| {
            accept(&old, &chain.encode(), node().public(), &anchors(), now).map(drop)
        };
        let good = issued(&node(), &acme(), &grant(), later);
        assert_eq!(judge(&good, later), Ok(()));
        assert_eq!(judge(&old, later), Err(NotRenewed::NoLater));
        let stolen = issued(&mallory(), &acme(), &grant(), later);
        assert_eq!(judge(&stolen, later), Err(NotRenewed::Keys));
        let foreign = issued(&node(), &globex(), &grant(), later);
        assert_eq!(judge(&foreign, later), Err(NotRenewed::Other));
        let other = Grant {
            subject: Some(name("node-2")),
            ..grant()
        };
        let other = issued(&node(), &acme(), &other, later);
        assert_eq!(judge(&other, later), Err(NotRenewed::Other));
        assert!(matches!(
            judge(&good, later.after(HOUR)),
            Err(NotRenewed::Refused(Refusal::Expired(_)))
        ));
        let mut forged = good.encode();
        *forged.last_mut().unwrap() ^= 1;
        let judged = accept(&old, &forged, node().public(), &anchors(), later);
        assert!(judged.is_err());
        assert!(matches!(
            accept(&old, b"junk", node().public(), &anchors(), later),
            Err(NotRenewed::Malformed(_))
        ));
    }

    #[test]
    fn without_a_credential_nothing_is_due_and_a_new_one_begins_anew() {
        let mut plan = Plan::new(1);
        assert!(!plan.is_due(Timestamp::from_secs(u64::MAX)));
        plan.failed(NOW, None);
        assert_eq!(plan.due(), None);
        let old = issued(&node(), &acme(), &grant(), NOW);
        plan.follow(Some(&old));
        let due = plan.due().unwrap();
        plan.failed(due, None);
        assert_eq!(plan.failures(), 1);
        // The same again changes nothing.
        plan.follow(Some(&old));
        assert_eq!(plan.failures(), 1);
        let new = issued(&node(), &acme(), &grant(), NOW.after(HOUR / 2));
        plan.follow(Some(&new));
        assert_eq!(plan.failures(), 0);
        assert!(!plan.is_due(due));
        plan.follow(None);
        assert_eq!(plan.due(), None);
    }

    proptest! {
        #[test]
        fn it_begins_after_two_thirds_and_leaves_a_quarter_of_the_time(
            seed in any::<u64>(), seconds in 15_u64..31_536_000,
        ) {
            let grant = Grant { lifetime: Duration::from_secs(seconds), ..Grant::default() };
            let chain = issued(&node(), &acme(), &grant, NOW);
            let mut plan = Plan::new(seed);
            plan.follow(Some(&chain));
            let due = plan.due().unwrap().since(NOW);
            prop_assert!(due >= grant.lifetime * 2 / 3);
            prop_assert!(due <= grant.lifetime * 3 / 4);
            prop_assert!(!plan.is_due(NOW));
        }

        #[test]
        fn pauses_are_bounded_and_several_tries_fit_before_the_end(
            seed in any::<u64>(), seconds in 60_u64..31_536_000, again in 0_u64..1_000_000,
        ) {
            let grant = Grant { lifetime: Duration::from_secs(seconds), ..Grant::default() };
            let chain = issued(&node(), &acme(), &grant, NOW);
            let mut plan = Plan::new(seed);
            plan.follow(Some(&chain));
            let mut now = plan.due().unwrap();
            let end = NOW.after(grant.lifetime);
            let mut tries = 0;
            while now < end {
                plan.failed(now, Some(Duration::from_secs(again)));
                let pause = plan.due().unwrap().since(now);
                prop_assert!(pause >= SHORTEST / 2 && pause <= LONGEST);
                now = plan.due().unwrap();
                tries += 1;
            }
            prop_assert!(tries >= 6, "{tries}");
        }
    }
}
