//! Verdicts remembered, and the sets in force.
//!
//! The key of a verdict is the question itself: every fact that a policy can read, compared in
//! full. So nothing has to be told when a score, a group, a topic's setting or the encryption of
//! a connection changes: the next question is another one. Facts that no policy of the sets in
//! force reads (time and address, mostly) are left out, else nothing would ever be asked twice.
//! Another set empties the cache. What the floor judges is not remembered.
//!
//! One holder, no sharing. Pure.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use super::{
    Decision, Facts, Floor, PolicyHash, PolicySet, Request, ShadowVerdict, evaluate, floor,
    set::Mentions,
};
use crate::types::Lru;

/// Verdicts remembered: a thousand peers on four topics each.
pub(super) const MAX_VERDICTS: usize = 4_096;
/// Most memory for them, bytes. One takes about 1 KB, so that all fit; at most 16 KiB (the groups and
/// attributes of a credential of 8 KiB), so that peers with the longest credentials leave a thousand.
pub(super) const MAX_VERDICT_BYTES: usize = 16 << 20;
/// What a verdict takes beside its texts, bytes: the facts, the decision, and its places in the maps.
const VERDICT_BYTES: usize = 1_024;
/// What each text takes beside its characters, bytes: its place and what the allocator adds.
const TEXT_BYTES: usize = 48;

/// The sets in force.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The set that decides.
    pub active: PolicySet,
    /// A set that is evaluated beside and decides nothing.
    pub shadow: Option<PolicySet>,
}

impl Rules {
    /// The active set decides; where the shadow says otherwise, the decision says so.
    #[must_use]
    pub fn decide(&self, facts: &Facts) -> Decision {
        let mut decision = evaluate(&self.active, facts);
        if let Some(shadow) = &self.shadow {
            let other = evaluate(shadow, facts);
            // A shadow that errs where the active set does not is a difference, too.
            if other.verdict != decision.verdict {
                decision.shadow = Some(Box::new(ShadowVerdict {
                    verdict: other.verdict,
                    rule: other.rule,
                    hash: shadow.hash(),
                }));
            }
            decision.valid_until = decision.valid_until.or(other.valid_until);
        }
        decision
    }

    fn mentions(&self) -> Mentions {
        let shadow = self.shadow.as_ref().map(|set| set.0.mentions);
        self.active.0.mentions.or(shadow.unwrap_or_default())
    }

    fn hashes(&self) -> (PolicyHash, Option<PolicyHash>) {
        (
            self.active.hash(),
            self.shadow.as_ref().map(PolicySet::hash),
        )
    }
}

/// A verdict, what was asked, and what both weigh, bytes.
type Known = (Facts, Arc<Decision>, usize);

/// See the module.
#[derive(Debug)]
pub struct Cache {
    verdicts: Lru<u64, Known>,
    /// Sum of what they weigh.
    bytes: usize,
    /// Of which sets.
    of: Option<(PolicyHash, Option<PolicyHash>)>,
    /// Keyed at random: nobody can choose facts that collide.
    hasher: RandomState,
    hits: u64,
    misses: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            verdicts: Lru::new(MAX_VERDICTS),
            bytes: 0,
            of: None,
            hasher: RandomState::new(),
            hits: 0,
            misses: 0,
        }
    }
}

impl Cache {
    /// The decision, remembered or new. Exactly what [`Rules::decide`] gives.
    pub fn decide(&mut self, rules: &Rules, facts: &Facts) -> Arc<Decision> {
        let hashes = rules.hashes();
        if self.of != Some(hashes) {
            self.verdicts.clear();
            self.bytes = 0;
            self.of = Some(hashes);
        }
        let mentions = rules.mentions();
        let key = key(&self.hasher, facts, mentions);
        if let Some((known, decision, _)) = self.verdicts.get(&key, Duration::ZERO)
            && same(known, facts, mentions)
        {
            self.hits = self.hits.saturating_add(1);
            return Arc::clone(decision);
        }
        self.misses = self.misses.saturating_add(1);
        let decision = Arc::new(rules.decide(facts));
        self.keep(key, facts.clone(), Arc::clone(&decision));
        decision
    }

    fn keep(&mut self, key: u64, facts: Facts, decision: Arc<Decision>) {
        let weight = weight(&facts, &decision);
        if weight > MAX_VERDICT_BYTES {
            return;
        }
        let same = self.verdicts.remove(&key);
        let before = same.map_or(0, |(_, _, weight)| weight);
        self.bytes = self.bytes.saturating_sub(before);
        while self.verdicts.len() >= MAX_VERDICTS
            || self.bytes.saturating_add(weight) > MAX_VERDICT_BYTES
        {
            let Some((_, _, oldest)) = self.verdicts.pop() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(oldest);
        }
        self.bytes = self.bytes.saturating_add(weight);
        // No time to live: a verdict of these facts by these sets is never another.
        self.verdicts
            .put(key, (facts, decision, weight), Duration::MAX);
    }

    /// What the verdicts weigh, bytes: an estimate that is never far below.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Questions answered from memory, and by evaluation, since the start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Verdicts remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The whole way: the floor, then the policies through the cache.
pub fn judge(rules: &Rules, cache: &mut Cache, request: &Request<'_>) -> Arc<Decision> {
    match floor(request) {
        Floor::Decided(decision) => Arc::new(decision),
        Floor::Ask(facts) => cache.decide(rules, &facts),
    }
}

/// What a verdict takes, bytes. What decisions share with the set is not counted.
fn weight(facts: &Facts, decision: &Decision) -> usize {
    let Facts {
        principal, context, ..
    } = facts;
    let texts = principal.groups.iter().map(String::len);
    let attributes = &principal.attributes;
    let texts = texts.chain(attributes.iter().flat_map(|(k, v)| [k.len(), v.len()]));
    let texts = texts.chain(decision.errors.iter().map(String::len));
    let texts = texts.chain(context.command.iter().map(String::len));
    let rules = decision.policies.iter().map(|_| 0);
    let all = texts.chain(rules).chain(decision.advice.iter().map(|_| 0));
    all.fold(VERDICT_BYTES, |sum, length| {
        sum.saturating_add(length).saturating_add(TEXT_BYTES)
    })
}

fn key(hasher: &RandomState, facts: &Facts, mentions: Mentions) -> u64 {
    let mut state = hasher.build_hasher();
    let Facts {
        action,
        principal,
        resource,
        context,
        ip,
        now,
    } = facts;
    (action, principal, resource, context).hash(&mut state);
    mentions.ip.then_some(ip).hash(&mut state);
    mentions.now.then_some(now).hash(&mut state);
    state.finish()
}

fn same(one: &Facts, other: &Facts, mentions: Mentions) -> bool {
    let Facts {
        action,
        principal,
        resource,
        context,
        ip,
        now,
    } = one;
    *action == other.action
        && *principal == other.principal
        && *resource == other.resource
        && *context == other.context
        && (!mentions.ip || *ip == other.ip)
        && (!mentions.now || *now == other.now)
}
