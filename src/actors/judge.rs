//! A judge: answers "may it?" at once, from published views.
//!
//! Whoever enforces decisions (the gate, Swarm, Sandbox, Admin) holds one, with a cache of its
//! own. It asks nobody: policies, settings and quarantines are in Policy's view, the rest its
//! holder brings. What follows from a decision besides its enforcement is told to Policy: that a
//! peer belongs in quarantine, that a credential ended one, that a policy erred or the shadow set
//! disagrees. These are told, not asked: the verdict holds whether or not Policy hears of it.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::policy::{PolicyActor, PolicyView};
use crate::{
    identity::{Status, Tier, VerifiedIdentity},
    messages::{
        policy::{Oddity, Quarantined, ReleasedByCredential, SawOddity},
        reputation::Standing,
    },
    policy::{Action, Cache, Decision, Request, Rule, Subject, Verdict, judge},
    supervision::ActorRef,
    telemetry::Metrics,
    types::{Clock, Footing, PeerId, Timestamp, Topic, View},
};

/// Oddities told once in each [`TELL_AGAIN`]; all are counted in the metrics.
const MAX_TOLD: usize = 64;
/// How long the same oddity is not told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What a judge is made of. Cheap to clone.
#[derive(Clone)]
pub struct Bench {
    /// Policies, settings, quarantines.
    pub view: View<PolicyView>,
    /// Who hears what follows.
    pub policy: ActorRef<PolicyActor>,
    /// This node.
    pub node: PeerId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").finish_non_exhaustive()
    }
}

impl Bench {
    /// A judge with an empty memory.
    #[must_use]
    pub fn judge(&self) -> Judge {
        Judge {
            bench: self.clone(),
            memory: Mutex::default(),
        }
    }
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What is wanted.
    pub action: Action,
    /// By whom.
    pub peer: PeerId,
    /// What its identity is worth.
    pub tier: Tier,
    /// Its verified credential.
    pub identity: Option<&'a Arc<VerifiedIdentity>>,
    /// Where it stands; `None` denies.
    pub standing: Option<Standing>,
    /// How its credential stands by the status lists.
    pub status: Status,
    /// On which topic.
    pub topic: Option<&'a Topic>,
    /// By which command, to administer.
    pub command: Option<&'static str>,
    /// How it is connected; `None` for an author who is not.
    pub footing: Option<Footing>,
    /// When.
    pub now: Timestamp,
}

/// See the module.
pub struct Judge {
    bench: Bench,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    cache: Cache,
    /// Verdicts and bytes as the metrics have them.
    shown: (usize, usize),
    told: HashSet<Oddity>,
    told_since: Duration,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let memory = self.memory.get_mut();
        let shown = memory.unwrap_or_else(PoisonError::into_inner).shown;
        self.bench.metrics.policy().remembered(shown, (0, 0));
    }
}

impl Judge {
    /// Decides what a peer asks for, and counts it.
    pub fn decide(&self, question: &Question<'_>) -> Arc<Decision> {
        let decision = self.review(question);
        let Question { action, .. } = *question;
        self.bench.metrics.decided(action, decision.verdict);
        decision
    }

    /// Decides what nobody asked just now: whether what was granted still holds.
    pub fn review(&self, question: &Question<'_>) -> Arc<Decision> {
        let view = self.bench.view.load();
        let Question {
            action, peer, now, ..
        } = *question;
        let identity = question.identity.map(|identity| &**identity);
        let held = view.quarantines.holding(&peer, identity, now);
        let request = Request {
            action,
            subject: Subject {
                peer,
                tier: question.tier,
                identity,
                standing: question.standing,
                status: question.status,
                anomaly: 0,
                quarantined: held.is_some(),
            },
            topic: question.topic,
            command: question.command,
            security: question.footing.map(|one| one.security),
            pq_auth: question.footing.is_some_and(|one| one.pq_auth),
            ip: question.footing.and_then(|one| one.ip),
            now,
            node: self.bench.node,
            settings: &view.settings,
        };
        let decision = {
            // A panic in an evaluation leaves at worst a verdict out of the cache.
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let decision = judge(&view.loaded.rules, &mut memory.cache, &request);
            self.show(&mut memory);
            decision
        };
        let decision = lifted(decision, &view, question);
        let until = held.map(|(_, entry)| entry.until);
        self.follow(question, &decision, &view, until);
        decision
    }

    /// What follows from a decision besides its enforcement.
    fn follow(
        &self,
        question: &Question<'_>,
        decision: &Decision,
        view: &PolicyView,
        until: Option<Timestamp>,
    ) {
        let Question { peer, now, .. } = *question;
        if matches!(decision.verdict, Verdict::Quarantine { .. }) && !question.tier.is_limited() {
            // As long as its cause lasts it is prolonged, in its second half.
            let lasts = until.is_some_and(|until| until.since(now) > view.span / 2);
            if !lasts {
                let message = Quarantined {
                    peer,
                    identity: question.identity.cloned(),
                    rule: decision.rule.as_str().into(),
                };
                // Told again with the next decision. Not in the peer's name: if it fails, that is
                // the disk's fault, for which no peer is blamed.
                let _ = self.bench.policy.tell(message);
            }
        }
        if until.is_none()
            && let Some(identity) = question.identity
            && !view.quarantines.is_empty()
            && !view.quarantines.released(&peer, identity).is_empty()
        {
            let message = ReleasedByCredential {
                peer,
                identity: Arc::clone(identity),
            };
            let _ = self.bench.policy.tell(message);
        }
        self.tell_oddities(question.action, decision);
    }

    fn show(&self, memory: &mut Memory) {
        let now = (memory.cache.len(), memory.cache.bytes());
        if memory.shown != now {
            self.bench.metrics.policy().remembered(memory.shown, now);
            memory.shown = now;
        }
    }

    fn tell_oddities(&self, action: Action, decision: &Decision) {
        if let Some(shadow) = &decision.shadow {
            self.bench.metrics.policy().differed(action);
            self.tell(Oddity::Differs {
                action: action.name(),
                active: format!("{} {}", decision.verdict, decision.rule),
                shadow: format!("{} {}", shadow.verdict, shadow.rule),
            });
        }
        if let Some(error) = decision.errors.first() {
            self.bench.metrics.policy().erred(action);
            self.tell(Oddity::Erred {
                what: error.clone(),
                action: action.name(),
            });
        }
    }

    fn tell(&self, oddity: Oddity) {
        let elapsed = self.bench.clock.elapsed();
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if elapsed.saturating_sub(memory.told_since) >= TELL_AGAIN {
                memory.told_since = elapsed;
                memory.told.clear();
            }
            if memory.told.len() >= MAX_TOLD || !memory.told.insert(oddity.clone()) {
                return;
            }
        }
        // Lost when Policy is busy; the metrics have counted it.
        let _ = self.bench.policy.tell(SawOddity(oddity));
    }
}

/// What the operator released a peer from does not count: the request would be permitted without it.
fn lifted(decision: Arc<Decision>, view: &PolicyView, question: &Question<'_>) -> Arc<Decision> {
    if !matches!(decision.verdict, Verdict::Quarantine { .. }) {
        return decision;
    }
    let identity = question.identity.map(|identity| &**identity);
    let rules = decision.policies.iter().map(Rule::as_str);
    let all = &view.quarantines;
    if !decision.policies.is_empty() && all.lifts(&question.peer, identity, rules, question.now) {
        Arc::new(decision.lifted())
    } else {
        decision
    }
}
