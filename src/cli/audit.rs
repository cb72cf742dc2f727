//! `audit verify`: judges a log as it lies on disk; needs no running node.

use std::path::Path;

use serde::Serialize;

use super::{
    exit::{CliError, Exit},
    output::Out,
};
use crate::audit::{Report, storage::Directory, verify};

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
pub fn command(dir: &Path, out: &Out) -> Result<(), CliError> {
    let nothing = || {
        CliError::new(
            Exit::Data,
            format!("there is no audit log in {}", dir.display()),
        )
    };
    let report = verify(&Directory::at(dir)).map_err(|error| {
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
    lines.push(
        "(that the newest records were cut off cannot be seen from the log alone)".to_owned(),
    );
    lines.join("\n")
}
