//! From facts to a decision: what Cedar says, and the four things it leaves to its user.

use std::{collections::BTreeSet, sync::Arc};

use cedar_policy::{Authorizer, Response};

use super::{
    Action, Decision, DenyReason, Facts, Obligation, PolicySet, Rule, StepUp, Verdict,
    build::question, error::clean, set::Scope,
};
use crate::types::Timestamp;

/// Most errors that a decision tells; one is enough to deny.
const MAX_ERRORS: usize = 8;

/// Judges facts by policies. The floor comes before: see [`super::judge`].
#[must_use]
pub fn evaluate(set: &PolicySet, facts: &Facts) -> Decision {
    let mut decision = match decide(set, facts) {
        Ok(decision) => decision,
        Err(errors) => Decision {
            errors,
            ..Decision::deny(DenyReason::PolicyError, Rule::ERROR)
        },
    };
    decision.policy_hash = set.hash();
    // The rest is the facts' own: another fact is another question.
    decision.valid_until = set
        .reads_time()
        .then(|| Timestamp::from_secs(facts.now.saturating_add(1)));
    decision
}

/// What one run of Cedar said.
struct Said {
    allowed: bool,
    /// By name.
    reasons: BTreeSet<Rule>,
}

/// Which of a scope's policies are asked.
#[derive(Clone, Copy)]
enum Which {
    All,
    Permits,
}

fn decide(set: &PolicySet, facts: &Facts) -> Result<Decision, Vec<String>> {
    let Some(scope) = set.scope(facts.action) else {
        return Err(vec!["an action that policies do not judge".to_owned()]);
    };
    let said = ask(set, scope, facts, Which::All)?;
    let Some(first) = said.reasons.first().cloned() else {
        return Ok(default_deny(facts.action, scope));
    };
    if said.allowed {
        return Ok(Decision {
            policies: said.reasons.into_iter().collect(),
            ..Decision::new(Verdict::Allow, first)
        });
    }
    let obliged = |rule: &Rule| set.0.known.get(rule).and_then(|known| known.obligation);
    if let Some(plain) = said.reasons.iter().find(|rule| obliged(rule).is_none()) {
        let denied = Verdict::Deny(reason_of(plain));
        let decision = Decision::new(denied, plain.clone());
        return Ok(told(set, decision, &said.reasons));
    }
    // Obligations count only where the request would be permitted without them: else a stranger
    // whom nothing permits would be let in as "quarantined".
    if !ask(set, scope, facts, Which::Permits)?.allowed {
        return Ok(default_deny(facts.action, scope));
    }
    let mut obligations: Vec<Obligation> = said.reasons.iter().filter_map(obliged).collect();
    obligations.sort_unstable();
    obligations.dedup();
    let (verdict, rule) = match step_up(&obligations) {
        // It permits nothing, so it comes first.
        Some(what) => {
            let asks = |rule: &&Rule| obliged(rule) == Some(Obligation::StepUp(what));
            (Verdict::StepUp(what), said.reasons.iter().find(asks))
        }
        None => {
            let permitted = in_quarantine(set, scope, facts, &said.reasons)?;
            (Verdict::Quarantine { permitted }, said.reasons.first())
        }
    };
    let decision = Decision {
        obligations,
        ..Decision::new(verdict, rule.cloned().unwrap_or(first))
    };
    Ok(told(set, decision, &said.reasons))
}

fn step_up(obligations: &[Obligation]) -> Option<StepUp> {
    obligations.iter().find_map(|one| match one {
        Obligation::StepUp(what) => Some(*what),
        Obligation::Quarantine => None,
    })
}

/// Whether the request would be permitted to a peer in quarantine, were it not for the forbids
/// that put it there.
fn in_quarantine(
    set: &PolicySet,
    scope: &Scope,
    facts: &Facts,
    lifted: &BTreeSet<Rule>,
) -> Result<bool, Vec<String>> {
    let mut facts = facts.clone();
    facts.principal.quarantined = true;
    let said = ask(set, scope, &facts, Which::All)?;
    if said.allowed {
        return Ok(true);
    }
    let free = !said.reasons.is_empty() && said.reasons.is_subset(lifted);
    Ok(free && ask(set, scope, &facts, Which::Permits)?.allowed)
}

/// One run of Cedar. A policy that errs is skipped there, even a forbid: so an error is a denial.
fn ask(set: &PolicySet, scope: &Scope, facts: &Facts, which: Which) -> Result<Said, Vec<String>> {
    let question = question(set.0.names, facts, set.0.mentions).map_err(|error| vec![error])?;
    let policies = match which {
        Which::All => &scope.all,
        Which::Permits => &scope.permits,
    };
    let response = Authorizer::new().is_authorized(&question.request, policies, &question.entities);
    let errors = errors_of(&response);
    if !errors.is_empty() {
        return Err(errors);
    }
    let reasons = response.diagnostics().reason();
    Ok(Said {
        allowed: response.decision() == cedar_policy::Decision::Allow,
        reasons: reasons.map(|id| Rule::new(id.as_ref())).collect(),
    })
}

fn errors_of(response: &Response) -> Vec<String> {
    let errors = response.diagnostics().errors();
    let mut errors: Vec<String> = errors.map(|error| clean(&error.to_string())).collect();
    errors.sort();
    errors.truncate(MAX_ERRORS);
    errors
}

fn default_deny(action: Action, scope: &Scope) -> Decision {
    let reason = match action {
        Action::Connect => DenyReason::Connection,
        Action::Publish | Action::Subscribe => DenyReason::Topic,
        Action::RunJob => DenyReason::Jobs,
        Action::Administer => DenyReason::Administration,
        Action::Enrol => DenyReason::Enrolment,
    };
    Decision {
        missed: Arc::clone(&scope.permit_names),
        ..Decision::deny(reason, Rule::DEFAULT_DENY)
    }
}

/// With the determining policies, and what they say to who is denied.
fn told(set: &PolicySet, decision: Decision, reasons: &BTreeSet<Rule>) -> Decision {
    let advice = |rule: &Rule| set.0.known.get(rule)?.advice.clone();
    Decision {
        policies: reasons.iter().cloned().collect(),
        advice: reasons.iter().filter_map(advice).collect(),
        ..decision
    }
}

/// The kind of a plain denial, by the first word of the policy's name; for metrics and codes.
fn reason_of(rule: &Rule) -> DenyReason {
    match rule.as_str().split('.').next() {
        Some("reputation") => DenyReason::Score,
        Some("quarantine") => DenyReason::Quarantined,
        _ => DenyReason::Forbidden,
    }
}
