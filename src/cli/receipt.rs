//! `receipt verify | show`: judges a receipt as it lies on disk; needs no node and no configuration.
//!
//! What was compared is said, and what was not, so that nobody reads more into a good answer than
//! is in it: everything else is the executor's word.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    args::{ReceiptCommand, ReceiptVerifyArgs},
    enrol::EnrolError,
    exit::{CliError, Exit},
    identity::{alone, read_chain},
    output::Out,
};
use crate::{
    identity::{read_bounded, verify_chain},
    sandbox::{
        Content, ContentHash, Hasher, JobId, Receipt, ReceiptBody,
        receipt::{Expectation, MAX_RECEIPT_BYTES, limit_words},
    },
};

/// Bytes of a file hashed at once.
const BLOCK: usize = 64 << 10;

/// What a receipt says, and what of it was checked.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    /// SHA-256 of the receipt: its name in the audit logs.
    receipt: ContentHash,
    job: JobId,
    /// Whether the executor it names has signed it.
    signed: bool,
    /// What was compared and is as expected.
    checked: Vec<&'static str>,
    /// What could have been compared and was not.
    not_checked: Vec<&'static str>,
    /// Who the executor's credential, verified by the anchor, says it is.
    executor_identity: Option<String>,
    body: &'a ReceiptBody,
}

/// `receipt …`
///
/// # Errors
/// Exit code 65 when the receipt is bad or not as expected, 74 or 77 when a file cannot be read.
pub(super) fn command(command: &ReceiptCommand, out: &Out) -> Result<(), CliError> {
    match command {
        ReceiptCommand::Verify(args) => verify(args, out),
        ReceiptCommand::Show { file } => show(file, out),
    }
}

fn show(file: &Path, out: &Out) -> Result<(), CliError> {
    let receipt = read(file)?;
    let body = receipt.unverified();
    let report = Report {
        file,
        receipt: receipt.hash(),
        job: body.job(),
        signed: receipt.verify().is_ok(),
        checked: Vec::new(),
        not_checked: Vec::new(),
        executor_identity: None,
        body,
    };
    out.answer("quantraband.receipt/1", &report, || {
        let verdict = if report.signed {
            "signed by the executor"
        } else {
            "NOT SIGNED by the executor: it was changed or forged"
        };
        let verdict = out.list(&[("signature", verdict.to_owned())]);
        format!("{}{verdict}", content(&report, out))
    })
}

fn verify(args: &ReceiptVerifyArgs, out: &Out) -> Result<(), CliError> {
    let receipt = read(&args.file)?;
    let body = receipt
        .verify()
        .map_err(|error| refuse(&args.file, &error))?;
    let given = |path: &Option<PathBuf>| path.as_deref().map(hash).transpose();
    let expected = Expectation {
        executor: args.executor,
        submitter: args.submitter,
        module: given(&args.module)?,
        input: given(&args.stdin)?,
        stdout: given(&args.stdout)?,
        stderr: given(&args.stderr)?,
        ..Expectation::default()
    };
    body.matches(&expected)
        .map_err(|mismatch| refuse(&args.file, &mismatch))?;
    let executor_identity = match &args.credential {
        Some(path) => executor(body, path, args)?,
        None => None,
    };
    let (checked, not_checked) = [
        ("signature", true),
        ("executor", args.executor.is_some()),
        ("submitter", args.submitter.is_some()),
        ("module", args.module.is_some()),
        ("stdin", args.stdin.is_some()),
        ("stdout", args.stdout.is_some()),
        ("stderr", args.stderr.is_some()),
        ("credential", args.credential.is_some()),
        ("anchor", args.anchor.is_some()),
    ]
    .into_iter()
    .partition::<Vec<_>, _>(|(_, done)| *done);
    let names = |list: Vec<(&'static str, bool)>| list.into_iter().map(|(name, _)| name).collect();
    let report = Report {
        file: &args.file,
        receipt: receipt.hash(),
        job: body.job(),
        signed: true,
        checked: names(checked),
        not_checked: names(not_checked),
        executor_identity,
        body,
    };
    out.answer("quantraband.receipt-verify/1", &report, || {
        let identity = report.executor_identity.clone().unwrap_or_default();
        let verdict = out.list(&[
            ("executor is", identity),
            ("checked", report.checked.join(" ")),
            ("not checked", report.not_checked.join(" ")),
        ]);
        format!(
            "{}{verdict}{}: good\n(arguments, outcome, usage and times are the executor's word)",
            content(&report, out),
            args.file.display()
        )
    })
}

/// Compares the executor's credential with the one named; who it is, when there is an anchor.
fn executor(
    body: &ReceiptBody,
    path: &Path,
    args: &ReceiptVerifyArgs,
) -> Result<Option<String>, CliError> {
    let chain = read_chain(path)?;
    let hash = ContentHash(chain.credential().hash());
    if body.executor_credential != Some(hash) {
        let found = body.executor_credential.map(|hash| hash.to_string());
        let found = found.unwrap_or_else(|| "none".to_owned());
        let why = format!("the receipt's executor_credential is {found}, not {hash}");
        return Err(refuse(&args.file, &why));
    }
    let Some(anchor_path) = &args.anchor else {
        return Ok(None);
    };
    let anchors = alone(anchor_path)?;
    verify_chain(&chain, body.executor, &anchors, body.finished)
        .map(|identity| Some(format!("{}/{}", identity.issuer, identity.subject)))
        .map_err(|refusal| {
            let path = path.to_owned();
            EnrolError::Refused { path, refusal }.into()
        })
}

fn read(file: &Path) -> Result<Receipt, CliError> {
    let bytes = read_bounded(file, MAX_RECEIPT_BYTES).map_err(EnrolError::from)?;
    Receipt::decode(&bytes).map_err(|error| refuse(file, &error))
}

fn refuse(file: &Path, why: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Data, format!("{}: {why}", file.display()))
}

/// The name and the size of a file of any length.
fn hash(path: &Path) -> Result<Content, CliError> {
    let failed = |error| CliError::io(&format!("cannot read {}", path.display()), &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Hasher::default();
    let mut block = vec![0; BLOCK];
    let mut size = 0_u64;
    loop {
        let length = file.read(&mut block).map_err(failed)?;
        if length == 0 {
            let hash = hasher.finish();
            return Ok(Content { hash, size });
        }
        hasher.update(block.get(..length).unwrap_or_default());
        size = size.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

fn content(report: &Report<'_>, out: &Out) -> String {
    let body = report.body;
    let optional = |text: Option<String>| text.unwrap_or_default();
    let usage = &body.usage;
    let used = format!(
        "{} ms, {} ms of processor{}, {} bytes of memory",
        usage.wall_ms,
        usage.cpu_us / 1_000,
        optional(usage.fuel.map(|fuel| format!(", {fuel} of fuel"))),
        usage.memory_peak
    );
    out.list(&[
        ("receipt", report.receipt.to_string()),
        ("job", report.job.to_string()),
        ("executor", body.executor.to_string()),
        ("submitter", body.submitter.to_string()),
        (
            "submitter is",
            optional(body.submitter_identity.as_ref().map(ToString::to_string)),
        ),
        ("key", hex::encode(body.key.0)),
        ("module", body.module.to_string()),
        ("arguments", body.arguments.to_string()),
        ("stdin", body.input.to_string()),
        ("stdout", body.stdout.to_string()),
        ("stderr", body.stderr.to_string()),
        ("limits", limit_words(&body.limits)),
        (
            "deterministic",
            optional(body.deterministic.map(|seed| format!("seed {seed}"))),
        ),
        ("outcome", body.outcome.to_string()),
        ("used", used),
        ("attempts", body.attempts.to_string()),
        ("submitted", body.submitted.to_string()),
        ("started", optional(body.started.map(|at| at.to_string()))),
        ("finished", body.finished.to_string()),
        (
            "credential",
            optional(body.executor_credential.map(|hash| hash.to_string())),
        ),
    ])
}

#[cfg(test)]
mod tests;
