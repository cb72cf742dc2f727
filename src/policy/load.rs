//! From texts to a [`PolicySet`]: all or nothing.
//!
//! Refused: what does not parse; what the schema does not allow (strictly); a policy without a
//! name of its own; an annotation that means nothing here; an obligation on a permit; templates;
//! more than the bounds. What Cedar only warns of is kept as a warning.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use cedar_policy::{
    ActionConstraint, Effect, Policy, PolicyId, ValidationMode, Validator, ffi::DetailedError,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Action, Fault, Obligation, Place, PolicyError, PolicyHash, PolicySet, Rule, StepUp,
    error::{MAX_FAULTS, clean},
    floor::is_reserved,
    names::Names,
    set::{Inner, Known, Mentions, Scope},
};

/// Most policies of a set: a decision looks at each of its action, about 1 microsecond apiece.
pub(super) const MAX_POLICIES: usize = 10_000;
/// Most bytes of a set: ten thousand policies of common length.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Most files of a set.
pub(super) const MAX_FILES: usize = 256;
/// Longest file's name, in bytes.
const MAX_FILE_NAME: usize = 255;
/// Longest name of a policy, in bytes: it stands in every record of the log.
const MAX_ID: usize = 64;
/// Longest `@advice`, in characters: it is told to who is denied.
const MAX_ADVICE: usize = 200;
/// Most warnings kept.
const MAX_WARNINGS: usize = 100;
/// Most permits that a default deny names.
const MAX_MISSED: usize = 16;
/// Deepest expression that is searched for what it reads; Cedar's own parser allows less.
const MAX_DEPTH: usize = 512;

const REMEDY_CEDAR: &str = "see docs/reference/policy.md and `quantraband policy show`";

/// See the module.
pub(super) fn load(files: &[(String, String)]) -> Result<PolicySet, PolicyError> {
    let names = Names::get().map_err(|error| {
        PolicyError::one(None, format!("the schema: {error}"), "this is a defect")
    })?;
    let mut files = files.to_vec();
    files.sort();
    bounds(&files)?;
    let mut faults = Vec::new();
    let mut found: Vec<(Policy, Known)> = Vec::new();
    let mut ids: HashMap<Rule, Place> = HashMap::new();
    for (name, text) in &files {
        for policy in parse(name, text, &mut faults) {
            let place = place_of(&policy, name, text);
            match examine(&policy, &place) {
                Err(wrong) => faults.extend(wrong),
                Ok((id, known)) => {
                    if let Some(first) = ids.get(&id) {
                        faults.push(Fault::new(
                            Some(place),
                            format!("a second policy @id(\"{id}\"); the first is at {first}"),
                            "give each policy a name of its own",
                        ));
                    } else {
                        found.push((policy.new_id(PolicyId::new(id.as_str())), known));
                        ids.insert(id, place);
                    }
                }
            }
        }
    }
    too_many(found.len(), &mut faults);
    stop(&mut faults)?;
    let (warnings, mut faults) = validate(names, &found, &files);
    stop(&mut faults)?;
    sort(names, found, files, warnings)
}

fn stop(faults: &mut Vec<Fault>) -> Result<(), PolicyError> {
    if faults.is_empty() {
        return Ok(());
    }
    faults.truncate(MAX_FAULTS);
    Err(PolicyError(std::mem::take(faults)))
}

fn too_many(count: usize, faults: &mut Vec<Fault>) {
    if count > MAX_POLICIES {
        faults.push(Fault::new(
            None,
            format!("{count} policies"),
            format!("at most {MAX_POLICIES} are allowed"),
        ));
    }
}

fn bounds(files: &[(String, String)]) -> Result<(), PolicyError> {
    if files.len() > MAX_FILES {
        let wrong = format!("{} files", files.len());
        return Err(PolicyError::one(
            None,
            wrong,
            format!("at most {MAX_FILES} are read"),
        ));
    }
    let bytes = files
        .iter()
        .fold(0_usize, |sum, (_, text)| sum.saturating_add(text.len()));
    if bytes > MAX_BYTES {
        let remedy = format!("at most {MAX_BYTES} are allowed");
        return Err(PolicyError::one(
            None,
            format!("{bytes} bytes of policies"),
            remedy,
        ));
    }
    let mut seen = BTreeSet::new();
    for (name, _) in files {
        let printable = !name.chars().any(char::is_control);
        if name.is_empty() || name.len() > MAX_FILE_NAME || !printable || !seen.insert(name) {
            let wrong = format!("`{}` is no good name of a file", clean(name));
            let remedy = "a name is printable, of 1 to 255 bytes, and given once";
            return Err(PolicyError::one(None, wrong, remedy));
        }
    }
    Ok(())
}

fn parse(name: &str, text: &str, faults: &mut Vec<Fault>) -> Vec<Policy> {
    let set: cedar_policy::PolicySet = match text.parse() {
        Ok(set) => set,
        Err(error) => {
            let error: DetailedError = (&error).into();
            let related = error.related.clone();
            let all = std::iter::once(error).chain(related).take(MAX_FAULTS);
            faults.extend(all.map(|one| fault_of(&one, name, text)));
            return Vec::new();
        }
    };
    if set.templates().next().is_some() {
        faults.push(Fault::new(
            Some(Place::start(name)),
            "a policy with slots (?principal, ?resource)",
            "write the peer, group or topic itself: templates are not used here",
        ));
    }
    let mut policies: Vec<Policy> = set.policies().cloned().collect();
    policies.sort_by_key(offset_of);
    policies
}

fn fault_of(error: &DetailedError, name: &str, text: &str) -> Fault {
    let offset = error.source_locations.first().map_or(0, |at| at.loc.start);
    let remedy = error.help.as_deref().map_or(REMEDY_CEDAR.into(), clean);
    Fault::new(
        Some(Place::at(name, text, offset)),
        clean(&error.message),
        remedy,
    )
}

fn offset_of(policy: &Policy) -> usize {
    // The type of the place has no name outside of Cedar.
    match policy.as_ref().loc() {
        Some(loc) => loc.start(),
        None => 0,
    }
}

fn place_of(policy: &Policy, name: &str, text: &str) -> Place {
    Place::at(name, text, offset_of(policy))
}

/// The name of a policy and its annotations, or all that is wrong with them.
fn examine(policy: &Policy, place: &Place) -> Result<(Rule, Known), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut wrong = |what: String, remedy: &str| {
        faults.push(Fault::new(Some(place.clone()), what, remedy));
    };
    let id = policy.annotation("id").unwrap_or_default();
    if !is_id(id) {
        wrong(
            format!("`{}` is no name of a policy", clean(id)),
            "write @id(\"what.why\") above it: 1 to 64 of A-Z a-z 0-9 . _ -",
        );
    } else if is_reserved(id) {
        wrong(
            format!("@id(\"{id}\") is a name of the program's own"),
            "choose another: default.deny, identity.*, enrol.*, policy.* and the like are taken",
        );
    }
    for (name, _) in policy.annotations() {
        if !["id", "obligation", "step_up", "advice"].contains(&name) {
            wrong(
                format!("@{} means nothing here", clean(name)),
                "known are @id, @obligation, @step_up and @advice",
            );
        }
    }
    let permit = policy.effect() == Effect::Permit;
    let step_up = policy.annotation("step_up");
    let obligation = match (policy.annotation("obligation"), step_up) {
        (None, None) => None,
        (Some("quarantine"), None) => Some(Obligation::Quarantine),
        (Some("step_up"), Some(what)) => StepUp::of_name(what).map(Obligation::StepUp),
        _ => None,
    };
    let annotated = policy.annotation("obligation").is_some() || step_up.is_some();
    if annotated && obligation.is_none() {
        wrong(
            "an obligation that is not known".to_owned(),
            "write @obligation(\"quarantine\"), or @obligation(\"step_up\") with \
             @step_up(\"post_quantum\")",
        );
    } else if annotated && permit {
        wrong(
            "an obligation on a permit".to_owned(),
            "put it on a forbid: it says what a denial asks for instead",
        );
    }
    let advice = policy.annotation("advice");
    if advice.is_some_and(|text| !is_advice(text)) {
        wrong(
            "an @advice that is empty, too long or not printable".to_owned(),
            "write one line of at most 200 characters",
        );
    }
    if faults.is_empty() {
        let known = Known {
            permit,
            obligation,
            advice: advice.map(Arc::from),
            place: place.clone(),
        };
        Ok((Rule::new(id), known))
    } else {
        Err(faults)
    }
}

fn is_id(id: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !id.is_empty() && id.len() <= MAX_ID && id.chars().all(good)
}

fn is_advice(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_ADVICE && !text.chars().any(char::is_control)
}

/// Warnings, and faults, of the strict validation.
fn validate(
    names: &Names,
    found: &[(Policy, Known)],
    files: &[(String, String)],
) -> (Vec<String>, Vec<Fault>) {
    let policies = found.iter().map(|(policy, _)| policy.clone());
    let set = match cedar_policy::PolicySet::from_policies(policies) {
        Ok(set) => set,
        Err(error) => {
            let wrong = clean(&error.to_string());
            return (Vec::new(), vec![Fault::new(None, wrong, REMEDY_CEDAR)]);
        }
    };
    let result = Validator::new(names.schema.clone()).validate(&set, ValidationMode::Strict);
    let places: HashMap<&PolicyId, &Place> = found
        .iter()
        .map(|(policy, known)| (policy.id(), &known.place))
        .collect();
    // Cedar names the place inside the policy; the file is that of the policy.
    let exact = |id: &PolicyId, error: DetailedError| {
        let Some(place) = places.get(id) else {
            return fault_of(&error, "", "");
        };
        let text = files.iter().find(|(name, _)| *name == place.file);
        let mut fault = fault_of(&error, &place.file, text.map_or("", |(_, text)| text));
        if error.source_locations.is_empty() {
            fault.place = Some((*place).clone());
        }
        fault
    };
    let faults = result
        .validation_errors()
        .take(MAX_FAULTS)
        .map(|error| exact(error.policy_id(), error.into()));
    let faults: Vec<Fault> = faults.collect();
    let warnings = result
        .validation_warnings()
        .take(MAX_WARNINGS)
        .map(|warning| exact(warning.policy_id(), warning.into()));
    let shown = warnings.map(|fault| match fault.place {
        Some(place) => format!("{place}: {}", fault.wrong),
        None => fault.wrong,
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    (shown, faults)
}

fn sort(
    names: &'static Names,
    found: Vec<(Policy, Known)>,
    files: Vec<(String, String)>,
    warnings: Vec<String>,
) -> Result<PolicySet, PolicyError> {
    let mut mentions = Mentions::default();
    for (policy, known) in &found {
        let json = policy.to_json().map_err(|error| {
            let wrong = clean(&error.to_string());
            PolicyError::one(Some(known.place.clone()), wrong, REMEDY_CEDAR)
        })?;
        mentions = mentions.or(Mentions {
            now: reads(&json, "now", MAX_DEPTH),
            ip: reads(&json, "ip", MAX_DEPTH),
        });
    }
    let scopes = Action::JUDGED
        .iter()
        .map(|action| scope(names, *action, &found));
    let scopes = scopes.collect::<Result<_, _>>()?;
    let known = found.into_iter();
    let known = known.map(|(policy, known)| (Rule::new(policy.id().as_ref()), known));
    Ok(PolicySet(Arc::new(Inner {
        names,
        hash: hash(&files),
        scopes,
        known: known.collect(),
        mentions,
        warnings,
        files,
    })))
}

/// The policies whose scope lets the action in.
fn scope(names: &Names, action: Action, found: &[(Policy, Known)]) -> Result<Scope, PolicyError> {
    let uid = names.action(action);
    let fits = |policy: &Policy| match policy.action_constraint() {
        ActionConstraint::Any => true,
        // The schema has no groups of actions: `in` means one of these.
        ActionConstraint::In(some) => some.iter().any(|one| Some(one) == uid),
        ActionConstraint::Eq(one) => Some(&one) == uid,
    };
    let all: Vec<&Policy> = found
        .iter()
        .map(|(policy, _)| policy)
        .filter(|policy| fits(policy))
        .collect();
    let permits = |policy: &&&Policy| policy.effect() == Effect::Permit;
    let build = |policies: Vec<Policy>| {
        cedar_policy::PolicySet::from_policies(policies)
            .map_err(|error| PolicyError::one(None, clean(&error.to_string()), REMEDY_CEDAR))
    };
    let permitting = all.iter().filter(permits);
    let mut permit_names: Vec<Rule> = permitting
        .clone()
        .map(|policy| Rule::new(policy.id().as_ref()))
        .collect();
    permit_names.sort();
    permit_names.truncate(MAX_MISSED);
    Ok(Scope {
        permits: build(permitting.map(|policy| (*policy).clone()).collect())?,
        all: build(all.into_iter().cloned().collect())?,
        permit_names: permit_names.into(),
    })
}

fn hash(files: &[(String, String)]) -> PolicyHash {
    let mut hash = Sha256::new();
    hash.update(b"quantraband policies 1");
    for part in files.iter().flat_map(|(name, text)| [name, text]) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    PolicyHash(hash.finalize().into())
}

/// Whether an expression may read this attribute of the context. An attribute of this name
/// anywhere counts, and so does the context as a whole: rather once too often.
fn reads(node: &Value, attribute: &str, depth: usize) -> bool {
    let Some(less) = depth.checked_sub(1) else {
        return true;
    };
    match node {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let here = match key.as_str() {
                "attr" => value.as_str() == Some(attribute),
                "." | "has" => return reads_access(value, attribute, less),
                "Var" => value.as_str() == Some("context"),
                _ => false,
            };
            here || reads(value, attribute, less)
        }),
        Value::Array(items) => items.iter().any(|one| reads(one, attribute, less)),
        _ => false,
    }
}

/// `left.attr` or `left has attr`, where `left` may be the context itself.
fn reads_access(access: &Value, attribute: &str, depth: usize) -> bool {
    let named = access.get("attr").and_then(Value::as_str);
    let left = access.get("left");
    let of_context = left.and_then(|left| left.get("Var")).is_some();
    match (named, left) {
        (Some(name), _) if name == attribute => true,
        (Some(_), Some(_)) if of_context => false,
        (Some(_), Some(left)) => reads(left, attribute, depth),
        // A form that is not known here.
        _ => true,
    }
}
