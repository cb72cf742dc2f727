//! `policy check | test | explain | show | schema`: policies as they lie on disk; needs no node.
//!
//! The folder is the one named, else `policy.dir` of the configuration, else the policies that come
//! with the program. Without any configuration its defaults hold.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    args::{ExplainArgs, Global, PolicyCommand},
    exit::{CliError, Exit},
    output::Out,
};
use crate::{
    config::{Config, ConfigError, Loaded, process_env},
    policy::{
        Determining, Explanation, Missed, Obligation, PolicyError, SCHEMA, Settings, Sketch,
        SketchContext, SketchPrincipal, Stock, TestResult, explain,
    },
};

#[derive(Serialize)]
struct CheckReport {
    source: String,
    hash: String,
    files: usize,
    policies: usize,
    tests: usize,
    /// Verdicts hold for a second only, since a policy reads the time.
    reads_time: bool,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct TestReport {
    source: String,
    hash: String,
    passed: usize,
    failed: usize,
    tests: Vec<TestResult>,
}

#[derive(Serialize)]
struct ExplainReport {
    source: String,
    hash: String,
    verdict: String,
    permitted: bool,
    rule: String,
    determining: Vec<Determining>,
    missed: Vec<Missed>,
    obligations: Vec<String>,
    advice: Vec<String>,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct ShowReport<'a> {
    source: String,
    hash: String,
    files: Vec<FileReport<'a>>,
}

#[derive(Serialize)]
struct FileReport<'a> {
    name: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct SchemaReport {
    text: &'static str,
}

impl From<PolicyError> for CliError {
    fn from(error: PolicyError) -> Self {
        Self::new(Exit::Data, error.to_string())
    }
}

/// `policy …`
///
/// # Errors
/// Exit code 65 for policies that do not validate or whose tests fail, 74 or 77 for a folder that
/// cannot be read, 78 for a wrong configuration.
pub(super) fn command(command: &PolicyCommand, global: &Global, out: &Out) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check { dir } => check(&Source::of(dir.as_deref(), global)?, out),
        PolicyCommand::Test { dir } => test(&Source::of(dir.as_deref(), global)?, out),
        PolicyCommand::Explain(args) => why(&Source::of(args.dir.as_deref(), global)?, args, out),
        PolicyCommand::Show { dir } => show(&Source::of(dir.as_deref(), global)?, out),
        // Asked of the running node.
        PolicyCommand::Status => Ok(()),
        PolicyCommand::Schema => {
            let report = SchemaReport { text: SCHEMA };
            out.answer("quantraband.policy-schema/1", &report, || SCHEMA.to_owned())
        }
    }
}

/// Where policies and settings come from.
struct Source {
    dir: Option<PathBuf>,
    config: Config,
}

impl Source {
    fn of(named: Option<&Path>, global: &Global) -> Result<Self, CliError> {
        let loaded = crate::config::load(global.config.as_deref(), &global.set, &process_env());
        let (config, own) = match loaded {
            Ok(loaded) => {
                let own = configured(&loaded);
                (loaded.config, own)
            }
            // Policies are checked on other machines than those that use them.
            Err(ConfigError::NotFound { .. }) if global.set.is_empty() => (Config::default(), None),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            dir: named.map(Path::to_owned).or(own),
            config,
        })
    }

    fn name(&self) -> String {
        match &self.dir {
            Some(dir) => dir.display().to_string(),
            None => "built-in policies".to_owned(),
        }
    }

    fn load(&self) -> Result<Stock, CliError> {
        if let Some(dir) = &self.dir {
            fs::read_dir(dir).map_err(|error| CliError::io(&dir.display().to_string(), &error))?;
        }
        Ok(Stock::load(self.dir.as_deref())?)
    }
}

fn configured(loaded: &Loaded) -> Option<PathBuf> {
    let dir = &loaded.config.policy.dir;
    let folder = loaded.path.parent().unwrap_or(Path::new("/"));
    (!dir.as_os_str().is_empty()).then(|| folder.join(dir))
}

fn check(source: &Source, out: &Out) -> Result<(), CliError> {
    let stock = source.load()?;
    let tests = stock.test()?;
    failures(&tests)?;
    let report = CheckReport {
        source: source.name(),
        hash: stock.set.hash().to_string(),
        files: stock.set.files().len(),
        policies: stock.set.len(),
        tests: tests.len(),
        reads_time: stock.set.reads_time(),
        warnings: stock.set.warnings().to_vec(),
    };
    out.answer("quantraband.policy-check/1", &report, || {
        let mut text = format!(
            "{}: good\nhash      {}\npolicies  {} in {} file(s)\ntests     {} passed",
            report.source, report.hash, report.policies, report.files, report.tests
        );
        if report.reads_time {
            text.push_str("\nnote: a policy reads context.now: verdicts hold for one second");
        }
        for warning in &report.warnings {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text
    })
}

fn failures(tests: &[TestResult]) -> Result<(), CliError> {
    let failed = tests.iter().filter_map(|test| {
        let failure = test.failure.as_ref()?;
        Some(format!("{}: {}: {failure}", test.place, test.name))
    });
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(CliError::new(Exit::Data, failed.join("\n")))
    }
}

fn test(source: &Source, out: &Out) -> Result<(), CliError> {
    let stock = source.load()?;
    let tests = stock.test()?;
    let failed = tests.iter().filter(|test| test.failure.is_some()).count();
    let report = TestReport {
        source: source.name(),
        hash: stock.set.hash().to_string(),
        passed: tests.len().saturating_sub(failed),
        failed,
        tests,
    };
    out.answer("quantraband.policy-test/1", &report, || {
        let lines = report.tests.iter().map(|test| match &test.failure {
            None => format!("ok      {}\n", test.name),
            Some(why) => format!("FAILED  {} ({}): {why}\n", test.name, test.place),
        });
        let lines: String = lines.collect();
        format!("{lines}{} passed, {failed} failed", report.passed)
    })?;
    if failed > 0 {
        let text = format!("{failed} test(s) of policies failed");
        return Err(CliError::new(Exit::Data, text));
    }
    Ok(())
}

fn why(source: &Source, args: &ExplainArgs, out: &Out) -> Result<(), CliError> {
    let stock = source.load()?;
    let max_cpu = source.config.sandbox.max_cpu_time.0;
    let settings = Settings::new(&source.config.policy, max_cpu);
    let facts = sketch(args).facts(&settings).map_err(CliError::usage)?;
    let Explanation {
        decision,
        determining,
        missed,
    } = explain(&stock.set, &facts);
    let obligations = decision.obligations.iter().map(|one| match one {
        Obligation::Quarantine => "quarantine".to_owned(),
        Obligation::StepUp(what) => format!("step_up: {}", what.name()),
    });
    let report = ExplainReport {
        source: source.name(),
        hash: decision.policy_hash.to_string(),
        verdict: decision.verdict.to_string(),
        permitted: decision.permits(),
        rule: decision.rule.to_string(),
        determining,
        missed,
        obligations: obligations.collect(),
        advice: decision.advice.iter().map(ToString::to_string).collect(),
        errors: decision.errors.clone(),
    };
    out.answer("quantraband.policy-explain/1", &report, || text(&report))
}

fn text(report: &ExplainReport) -> String {
    let permitted = if report.permitted {
        "goes ahead"
    } else {
        "does not go ahead"
    };
    let mut text = format!(
        "verdict   {}: it {permitted}\nrule      {}\npolicies  {} ({})",
        report.verdict, report.rule, report.source, report.hash
    );
    for one in &report.determining {
        text.push_str(&format!("\n{:<9} {} at {}", one.effect, one.id, one.place));
    }
    for one in &report.obligations {
        text.push_str(&format!("\nasks for  {one}"));
    }
    for one in &report.advice {
        text.push_str(&format!("\nadvice    {one}"));
    }
    for one in &report.errors {
        text.push_str(&format!("\nerror     {one}"));
    }
    for one in &report.missed {
        text.push_str(&format!("\nmissed    {} at {}", one.id, one.place));
        for part in &one.failed {
            text.push_str(&format!("\n          not met: {}", part.condition));
            if let Some(error) = &part.error {
                text.push_str(&format!(" (error: {error})"));
            }
        }
    }
    text
}

fn sketch(args: &ExplainArgs) -> Sketch {
    Sketch {
        action: args.action.clone(),
        topic: args.topic.clone(),
        principal: SketchPrincipal {
            peer: args.peer,
            tier: args.tier.into(),
            issuer: args.issuer.clone(),
            subject: args.subject.clone(),
            groups: args.groups.clone(),
            attributes: args.attributes.iter().cloned().collect(),
            trust: args.trust,
            anomaly: args.anomaly,
            probation: args.probation,
            quarantined: args.quarantined,
            cred_expires: args.cred_expires,
        },
        context: SketchContext {
            transport: args.transport.clone(),
            post_quantum: args.post_quantum,
            pq_auth: args.pq_auth,
            command: args.command.clone(),
            ip: args.ip,
            now: args.now,
        },
    }
}

fn show(source: &Source, out: &Out) -> Result<(), CliError> {
    let stock = source.load()?;
    let files = stock.set.files().iter();
    let files = files.map(|(name, text)| FileReport { name, text });
    let report = ShowReport {
        source: source.name(),
        hash: stock.set.hash().to_string(),
        files: files.collect(),
    };
    out.answer("quantraband.policy/1", &report, || {
        let head = format!("// {} ({})\n", report.source, report.hash);
        let files = report.files.iter();
        let files = files.map(|file| format!("// ---- {}\n{}", file.name, file.text));
        head + &files.collect::<Vec<_>>().join("\n")
    })
}
