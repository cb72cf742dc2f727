//! Policy tests: files `*.test.toml` beside the policies, which say what shall become of what.
//!
//! They run over the policies alone, with the settings that the file gives and else the defaults:
//! what a node's own configuration says does not make them pass or fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Decision, Place, PolicyError, PolicySet, Settings, Sketch,
    error::{MAX_FAULTS, clean},
    evaluate,
};
use crate::{
    config::{PolicyConfig, TopicRule},
    types::{Topic, TrustScore},
};

/// Most tests of a set.
const MAX_TESTS: usize = 10_000;
/// `sandbox.max_cpu_time` in tests, seconds: its default.
const MAX_CPU: u64 = 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    settings: Given,
    #[serde(default)]
    test: Vec<toml::Spanned<Test>>,
}

/// What the file says of `[policy]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    member_topics: Option<Vec<String>>,
    unverified_topics: Option<Vec<Topic>>,
    restricted_topics: Option<Vec<String>>,
    topics: Option<Vec<TopicRule>>,
    members_run_jobs: Option<bool>,
    connect_min_score: Option<TrustScore>,
    messages_min_score: Option<TrustScore>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    action: String,
    topic: Option<Topic>,
    #[serde(default)]
    principal: super::SketchPrincipal,
    #[serde(default)]
    context: super::SketchContext,
    expect: Expect,
    rule: Option<String>,
    /// Whether it goes ahead; of use with `quarantine`.
    permitted: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Allow,
    Deny,
    Quarantine,
    StepUp,
}

impl Expect {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Quarantine => "quarantine",
            Self::StepUp => "step_up",
        }
    }
}

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// Its place: `file:line:column`.
    pub place: String,
    /// Its name.
    pub name: String,
    /// Why it failed; `None` when it passed.
    pub failure: Option<String>,
}

/// Runs the tests of these files, by name and text.
///
/// # Errors
/// [`PolicyError`] for a file that is no test file; a test that fails is a result.
pub fn run_tests(
    set: &PolicySet,
    files: &[(String, String)],
) -> Result<Vec<TestResult>, PolicyError> {
    let mut faults = Vec::new();
    let mut results = Vec::new();
    for (name, text) in files {
        match toml::from_str::<File>(text) {
            Ok(file) => {
                let settings = file.settings.settings();
                results.extend(file.test.iter().map(|test| {
                    let place = Place::at(name, text, test.span().start).to_string();
                    run(set, &settings, test.get_ref(), place)
                }));
            }
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                faults.push(super::Fault::new(
                    Some(Place::at(name, text, offset)),
                    clean(error.message()),
                    "see docs/reference/policy.md for the form of tests",
                ));
            }
        }
    }
    if results.len() > MAX_TESTS {
        let wrong = format!("{} tests", results.len());
        let remedy = format!("at most {MAX_TESTS} are run");
        return Err(PolicyError::one(None, wrong, remedy));
    }
    if faults.is_empty() {
        Ok(results)
    } else {
        faults.truncate(MAX_FAULTS);
        Err(PolicyError(faults))
    }
}

fn run(set: &PolicySet, settings: &Settings, test: &Test, place: String) -> TestResult {
    let sketch = Sketch {
        action: test.action.clone(),
        principal: test.principal.clone(),
        topic: test.topic.clone(),
        context: test.context.clone(),
    };
    let failure = match sketch.facts(settings) {
        Err(wrong) => Some(wrong),
        Ok(facts) => differs(test, &evaluate(set, &facts)),
    };
    TestResult {
        place,
        name: clean(&test.name),
        failure: failure.map(|text| clean(&text)),
    }
}

fn differs(test: &Test, decision: &Decision) -> Option<String> {
    let (verdict, rule) = (decision.verdict, &decision.rule);
    let errors = decision.errors.first();
    let error = errors.map(|error| format!(": {error}")).unwrap_or_default();
    if verdict.name() != test.expect.name() {
        let wanted = test.expect.name();
        return Some(format!("{verdict} by {rule}, not {wanted}{error}"));
    }
    if let Some(wanted) = test.rule.as_ref().filter(|wanted| rule != wanted.as_str()) {
        return Some(format!("{verdict} by {rule}, not by {wanted}{error}"));
    }
    let other = test
        .permitted
        .filter(|wanted| *wanted != decision.permits());
    other.map(|wanted| format!("permitted is {}, not {wanted}", !wanted))
}

impl Given {
    fn settings(&self) -> Settings {
        let mut policy = PolicyConfig::default();
        set(&mut policy.member_topics, self.member_topics.as_ref());
        set(
            &mut policy.unverified_topics,
            self.unverified_topics.as_ref(),
        );
        set(
            &mut policy.restricted_topics,
            self.restricted_topics.as_ref(),
        );
        set(&mut policy.topics, self.topics.as_ref());
        set(&mut policy.members_run_jobs, self.members_run_jobs.as_ref());
        set(
            &mut policy.connect_min_score,
            self.connect_min_score.as_ref(),
        );
        set(
            &mut policy.messages_min_score,
            self.messages_min_score.as_ref(),
        );
        Settings::new(&policy, Duration::from_secs(MAX_CPU))
    }
}

fn set<T: Clone>(value: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        value.clone_from(given);
    }
}
