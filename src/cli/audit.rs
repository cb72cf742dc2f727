//! `audit verify | prove | key`: judges a log as it lies on disk, or a proof of one of its records;
//! needs no running node.

use std::path::Path;

use serde::Serialize;

use super::{
    args::AuditVerifyArgs,
    enrol::EnrolError,
    exit::{CliError, Exit},
    output::Out,
};
use crate::{
    audit::{
        Expected, NoProof, Report, Which,
        checkpoint::{InclusionProof, MAX_BUNDLE, SignedCheckpoint, log_keys, origin_of},
        note::{Kind, MAX_NOTE, VerifierKey, keys_of_text},
        prove,
        storage::Directory,
        verify_against,
    },
    identity::{IdentityPaths, NodeKey, create_new, read_bounded},
    types::PeerId,
};

/// Longest file of keys: 64 of ML-DSA-65, and comments.
const MAX_KEY_FILE: usize = 256 << 10;
/// Mode of a proof: it shows one record, which the log shows its owner only.
const PROOF_MODE: u32 = 0o600;

/// Findings printed as text; all that were kept are in the JSON answer.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct Verified<'a> {
    dir: &'a Path,
    intact: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Verifies the log in `dir`.
///
/// # Errors
/// Exit code 65 when it is damaged or there is none, 74 or 77 when it cannot be read.
pub fn verify_log(dir: &Path, args: &AuditVerifyArgs, out: &Out) -> Result<(), CliError> {
    let keys = read_keys(&args.keys)?;
    let kept = args
        .checkpoint
        .as_deref()
        .map(read_checkpoint)
        .transpose()?;
    if let Some((path, signed)) = args.checkpoint.as_deref().zip(kept.as_ref())
        && !keys.is_empty()
    {
        // Somebody else's word about this log would prove nothing.
        signed.verify(&keys).map_err(|why| wrong(path, &why))?;
    }
    let expected = Expected {
        keys: &keys,
        checkpoint: kept.as_ref(),
    };
    let nothing = || {
        CliError::new(
            Exit::Data,
            format!("there is no audit log in {}", dir.display()),
        )
    };
    let report = verify_against(&Directory::at(dir), &expected).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return nothing();
        }
        CliError::io(&format!("cannot read the log in {}", dir.display()), &error)
    })?;
    if report.segments == 0 {
        return Err(nothing());
    }
    let verified = Verified {
        dir,
        intact: report.is_intact(),
        report: &report,
    };
    out.answer("quantraband.audit_verify/1", &verified, || {
        text(dir, &report)
    })?;
    if report.is_intact() {
        Ok(())
    } else {
        Err(CliError::new(
            Exit::Data,
            format!("the log in {} is damaged", dir.display()),
        ))
    }
}

fn text(dir: &Path, report: &Report) -> String {
    let Report {
        segments, records, ..
    } = report;
    let mut lines = Vec::new();
    for finding in report.findings.iter().take(SHOWN) {
        lines.push(finding.to_string());
    }
    let shown = u64::try_from(report.findings.len().min(SHOWN)).unwrap_or(u64::MAX);
    if report.damaged > shown {
        lines.push(format!(
            "… and {} more",
            report.damaged.saturating_sub(shown)
        ));
    }
    if report.torn_bytes > 0 {
        lines.push(format!(
            "a torn last line of {} bytes, as a crash leaves it; the next start sets it aside",
            report.torn_bytes
        ));
    }
    if report.set_aside > 0 {
        lines.push(format!(
            "{} lines set aside after write faults",
            report.set_aside
        ));
    }
    let verdict = if report.is_intact() {
        "intact"
    } else {
        "DAMAGED"
    };
    lines.push(format!(
        "{}: {verdict}: {records} records in {segments} segments, head {}",
        dir.display(),
        report.head.as_deref().unwrap_or("none"),
    ));
    lines.push(vouched(report));
    lines.join("\n")
}

/// What the checkpoints show, and what they cannot.
fn vouched(report: &Report) -> String {
    let signed = match (report.vouched, report.keys_given) {
        (None, _) => "no checkpoint vouches for any record".to_owned(),
        (Some(size), true) => format!(
            "{} checkpoints signed with the keys given; the newest vouches for the first {size} of \
             {} records",
            report.checkpoints, report.records
        ),
        (Some(size), false) => format!(
            "checkpoints agree up to record {size}; whose they are was not judged: give --key"
        ),
    };
    let others = match report.other_keys {
        0 => String::new(),
        count => format!("\n{count} checkpoints are signed with other keys"),
    };
    format!(
        "{signed}{others}\n(that newer records were cut off, or an older copy put back, shows only \
         by a checkpoint that was kept elsewhere: --checkpoint)"
    )
}

/// Prints the keys of the node in this data directory.
///
/// # Errors
/// When its key file cannot be opened.
pub(super) fn key(data_dir: &Path, out: &Out) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Keys {
        origin: String,
        keys: Vec<String>,
    }
    let key = NodeKey::load(&IdentityPaths::new(data_dir).node_key()).map_err(EnrolError::from)?;
    let keys = Keys {
        origin: origin_of(&key.peer()),
        keys: log_keys(key.public())
            .iter()
            .map(VerifierKey::to_string)
            .collect(),
    };
    out.answer("quantraband.audit_key/1", &keys, || keys.keys.join("\n"))
}

/// Proves that a record is in the log in `dir`; the proof goes to `to`, or to standard output.
///
/// # Errors
/// Exit code 65 when the log is damaged or has no such record, 75 when no checkpoint covers it yet.
pub(super) fn prove_record(
    which: Which,
    dir: &Path,
    to: Option<&Path>,
    out: &Out,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Proved<'a> {
        record: u64,
        size: u64,
        file: Option<&'a Path>,
        #[serde(skip_serializing_if = "Option::is_none")]
        proof: Option<&'a str>,
    }
    let proof = prove(&Directory::at(dir), which).map_err(|why| match why {
        NoProof::Io(error) => {
            CliError::io(&format!("cannot read the log in {}", dir.display()), &error)
        }
        NoProof::NoCheckpoint | NoProof::NotCovered { .. } => {
            CliError::new(Exit::TryAgain, why.to_string())
        }
        NoProof::NotFound | NoProof::Damaged => wrong(dir, &why),
    })?;
    let text = proof.encode();
    if let Some(path) = to {
        create_new(path, text.as_bytes(), PROOF_MODE).map_err(EnrolError::from)?;
    }
    let proved = Proved {
        record: proof.index,
        size: proof.checkpoint.checkpoint().size,
        file: to,
        proof: to.is_none().then_some(text.as_str()),
    };
    out.answer("quantraband.audit_proof/1", &proved, || match to {
        None => text.clone(),
        Some(path) => format!(
            "{}: record {} is in the log of {} records",
            path.display(),
            proved.record,
            proved.size
        ),
    })
}

/// Verifies a proof with nothing but keys.
///
/// # Errors
/// Exit code 65 when it proves nothing, 74 or 77 when a file cannot be read.
pub(super) fn verify_proof(path: &Path, keys: &[String], out: &Out) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Proved<'a> {
        file: &'a Path,
        origin: &'a str,
        record: u64,
        size: u64,
        line: String,
    }
    let keys = read_keys(keys)?;
    let bytes = read_bounded(path, MAX_BUNDLE).map_err(EnrolError::from)?;
    let proof = InclusionProof::read(&bytes).map_err(|why| wrong(path, &why))?;
    proof.verify(&keys).map_err(|why| wrong(path, &why))?;
    let tree = proof.checkpoint.checkpoint();
    let proved = Proved {
        file: path,
        origin: &tree.origin,
        record: proof.index,
        size: tree.size,
        line: String::from_utf8_lossy(&proof.line).into_owned(),
    };
    out.answer("quantraband.audit_proof_verify/1", &proved, || {
        format!(
            "{}\n{}: proved: this is record {} of {}, in its first {} records",
            proved.line,
            path.display(),
            proved.record,
            proved.origin,
            proved.size
        )
    })
}

fn read_checkpoint(path: &Path) -> Result<SignedCheckpoint, CliError> {
    let bytes = read_bounded(path, MAX_NOTE).map_err(EnrolError::from)?;
    SignedCheckpoint::read(&bytes).map_err(|why| wrong(path, &why))
}

/// Keys as they were given: peer ids, keys, files of keys.
fn read_keys(given: &[String]) -> Result<Vec<VerifierKey>, CliError> {
    let mut keys = Vec::new();
    for text in given {
        if let Ok(peer) = text.parse::<PeerId>() {
            keys.extend(VerifierKey::of_peer(&origin_of(&peer), Kind::Log, &peer));
        } else if text.contains('+') && !Path::new(text).exists() {
            let key = VerifierKey::read(text)
                .map_err(|why| CliError::new(Exit::Usage, format!("--key: {why}")))?;
            keys.push(key);
        } else {
            let path = Path::new(text);
            let bytes = read_bounded(path, MAX_KEY_FILE).map_err(EnrolError::from)?;
            let text = String::from_utf8_lossy(&bytes);
            let read = keys_of_text(&text)
                .map_err(|(line, why)| wrong(path, &format!("line {line}: {why}")))?;
            if read.is_empty() {
                return Err(wrong(path, &"there is no key in it"));
            }
            keys.extend(read);
        }
    }
    Ok(keys)
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Data, format!("{}: {why}", path.display()))
}
