//! Why: the policies that decided, where they are written, and for a default deny which condition
//! of which permit was not met.
//!
//! A condition is taken apart at its top `&&`s, and each part evaluated as a policy of its own. Too
//! costly for each denial of a flood; for operators, tests, and denials that are looked into.

use std::sync::Arc;

use cedar_policy::{Authorizer, Policy, PolicyId};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Decision, Facts, PolicySet, Rule,
    build::{Question, question},
    error::clean,
    evaluate,
};

/// Most parts of one policy's conditions that are looked at.
const MAX_CLAUSES: usize = 32;
/// Most failed parts that are told of one policy.
const MAX_FAILED: usize = 8;

/// A decision, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// The policies that determined it.
    pub determining: Vec<Determining>,
    /// For a default deny: the permits of this action, and what each lacked.
    pub missed: Vec<Missed>,
}

/// A policy that determined a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Determining {
    /// Its name.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Where it is written: `file:line:column`.
    pub place: String,
}

/// A permit that did not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missed {
    /// Its name.
    pub id: String,
    /// Where it is written: `file:line:column`.
    pub place: String,
    /// The parts that were not met.
    pub failed: Vec<Failed>,
}

/// A part of a policy that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The part, as Cedar writes it.
    pub condition: String,
    /// What it erred at, when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Decides as [`evaluate`] does, and says why.
#[must_use]
pub fn explain(set: &PolicySet, facts: &Facts) -> Explanation {
    let decision = evaluate(set, facts);
    let determining = decision.policies.iter().filter_map(|rule| {
        let known = set.0.known.get(rule)?;
        Some(Determining {
            id: rule.to_string(),
            effect: if known.permit { "permit" } else { "forbid" },
            place: known.place.to_string(),
        })
    });
    let determining = determining.collect();
    let missed = Arc::clone(&decision.missed);
    let asked = question(set.0.names, facts, set.0.mentions);
    let missed = missed.iter().filter_map(|rule| {
        let failed = match &asked {
            Ok(question) => failed(set, facts, rule, question),
            Err(_) => Vec::new(),
        };
        Some(Missed {
            id: rule.to_string(),
            place: set.place(rule)?.to_string(),
            failed,
        })
    });
    Explanation {
        missed: missed.collect(),
        determining,
        decision,
    }
}

fn failed(set: &PolicySet, facts: &Facts, rule: &Rule, question: &Question) -> Vec<Failed> {
    let policy = set
        .scope(facts.action)
        .and_then(|scope| scope.permits.policy(&PolicyId::new(rule.as_str())));
    let Some(json) = policy.and_then(|policy| policy.to_json().ok()) else {
        return Vec::new();
    };
    let mut failed: Vec<Failed> = Vec::new();
    for part in parts(&json).into_iter().take(MAX_CLAUSES) {
        let Some((condition, met)) = check(&part, question) else {
            continue;
        };
        match met {
            Ok(true) => {}
            Ok(false) => failed.push(Failed {
                condition,
                error: None,
            }),
            // `&&` had stopped before it: that it errs alone says nothing.
            Err(_) if !failed.is_empty() => {}
            Err(error) => failed.push(Failed {
                condition,
                error: Some(error),
            }),
        }
    }
    failed.truncate(MAX_FAILED);
    failed
}

/// The policy's parts, each as a policy in Cedar's JSON: scope first.
fn parts(policy: &Value) -> Vec<Value> {
    let all = json!({"op": "All"});
    let make = |principal: &Value, resource: &Value, conditions: Value| {
        json!({
            "effect": "permit", "principal": principal, "action": all,
            "resource": resource, "conditions": conditions,
        })
    };
    let field = |name: &str| policy.get(name).unwrap_or(&all);
    let mut parts = vec![
        make(field("principal"), &all, json!([])),
        make(&all, field("resource"), json!([])),
    ];
    let none = Vec::new();
    let conditions = policy.get("conditions").and_then(Value::as_array);
    for condition in conditions.unwrap_or(&none) {
        let kind = condition.get("kind").and_then(Value::as_str);
        let Some(body) = condition.get("body") else {
            continue;
        };
        if kind == Some("when") {
            let mut clauses = Vec::new();
            split(body, &mut clauses);
            for clause in clauses {
                parts.push(make(&all, &all, json!([{"kind": "when", "body": clause}])));
            }
        } else {
            parts.push(make(&all, &all, json!([condition])));
        }
    }
    parts
}

/// The operands of the top `&&`s, from left to right; without recursion, and bounded.
fn split<'a>(body: &'a Value, clauses: &mut Vec<&'a Value>) {
    let mut waiting = vec![body];
    while let Some(next) = waiting.pop() {
        let both = next.get("&&");
        let sides = both.and_then(|both| Some((both.get("left")?, both.get("right")?)));
        match sides {
            Some((left, right)) if waiting.len() < MAX_CLAUSES => waiting.extend([right, left]),
            _ => clauses.push(next),
        }
        if clauses.len() >= MAX_CLAUSES {
            return;
        }
    }
}

/// The part's text, and whether it is met. `None` for one that says nothing.
fn check(part: &Value, question: &Question) -> Option<(String, Result<bool, String>)> {
    let policy = Policy::from_json(Some(PolicyId::new("part")), part.clone()).ok()?;
    // As it was written; `to_cedar` would write `>=` as `!(<)`.
    let text = text_of(&policy.to_string());
    let set = cedar_policy::PolicySet::from_policies([policy]).ok()?;
    let response = Authorizer::new().is_authorized(&question.request, &set, &question.entities);
    let met = match response.diagnostics().errors().next() {
        Some(error) => Err(clean(&error.to_string())),
        None => Ok(response.decision() == cedar_policy::Decision::Allow),
    };
    Some((text, met))
}

/// What is said between the braces, or in the scope.
fn text_of(policy: &str) -> String {
    let flat = policy.split_whitespace().collect::<Vec<_>>().join(" ");
    let inside = |open: &str, close: &str| {
        let (_, rest) = flat.split_once(open)?;
        let (text, _) = rest.rsplit_once(close)?;
        Some(text.trim().to_owned())
    };
    let unless = || Some(format!("unless {{ {} }}", inside("unless {", "}")?));
    let when = || inside("when {", "}");
    let scope = || {
        let parts = inside("(", ")")?;
        let named = parts.split(", ").filter(|part| part.contains(' '));
        Some(named.collect::<Vec<_>>().join(", "))
    };
    let text = when().or_else(unless).or_else(scope);
    clean(&text.unwrap_or_default())
}
