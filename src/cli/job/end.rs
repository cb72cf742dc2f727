//! How a job ended, as an exit code and in words.

use super::super::{
    exit::{CliError, Exit},
    output::{Format, Out},
    render,
};
use crate::{
    admin::protocol::Response,
    messages::sandbox::JobReport,
    sandbox::{JobFault, Outcome, sent::SentFault},
    telemetry::printable,
};

/// Ends as the job ended.
pub(super) fn end(report: &JobReport, out: &Out) -> Result<(), CliError> {
    if out.format() == Format::Json {
        render::answer(&Response::Job(Box::new(report.clone())), out)?;
    }
    match exit(report) {
        Exit::Guest(0) => Ok(()),
        exit @ Exit::Guest(_) => Err(CliError::new(exit, "")),
        exit => Err(CliError::new(exit, why(report))),
    }
}

/// The exit code of a job's end.
#[must_use]
pub fn exit(report: &JobReport) -> Exit {
    match (&report.outcome, &report.fault) {
        (Some(outcome), None) => match outcome {
            // More than a process can say: the shells' "out of range".
            Outcome::Exited { status } => Exit::Guest(u8::try_from(*status).unwrap_or(255)),
            Outcome::Trapped { .. } => Exit::Trap,
            Outcome::Stopped { .. } => Exit::Limit,
            Outcome::Cancelled { .. } => Exit::Cancelled,
            Outcome::Failed { fault } => match fault {
                JobFault::InvalidModule | JobFault::Link | JobFault::SealedInput => Exit::Data,
                JobFault::WorkerDied
                | JobFault::Interrupted
                | JobFault::InputMissing
                | JobFault::Executor => Exit::TryAgain,
            },
        },
        (_, Some(fault)) => match fault {
            SentFault::Refused { code, .. } if code == "denied" || code == "disabled" => {
                Exit::NoPermission
            }
            SentFault::Refused { code, .. }
                if ["invalid", "limit_above_ceiling", "key_reused", "too_large"]
                    .contains(&code.as_str()) =>
            {
                Exit::Data
            }
            SentFault::Refused { .. } | SentFault::Forgotten | SentFault::Overdue => Exit::TryAgain,
            SentFault::Unreachable => Exit::Unavailable,
            SentFault::BadResult { .. } => Exit::Data,
            SentFault::TooMuchOutput => Exit::Limit,
            SentFault::Disk { .. } => Exit::Io,
            SentFault::Cancelled => Exit::Cancelled,
        },
        (None, None) => Exit::TryAgain,
    }
}

fn why(report: &JobReport) -> String {
    let text = match (&report.outcome, &report.fault) {
        (_, Some(fault)) => fault.to_string(),
        (Some(Outcome::Stopped { limit }), None) => {
            format!("the guest was stopped by limit {limit}")
        }
        (Some(Outcome::Trapped { trap }), None) => format!("the guest trapped: {trap}"),
        (Some(Outcome::Cancelled { by }), None) => {
            format!("the job was cancelled by the {}", by.name())
        }
        (Some(Outcome::Failed { fault }), None) => fault.to_string(),
        (Some(Outcome::Exited { .. }), None) => String::new(),
        (None, None) => format!("job {} has not ended", report.job),
    };
    printable(&text).into_owned()
}
