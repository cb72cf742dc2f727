//! Jobs, for people.

use crate::{
    cli::output::Out,
    messages::sandbox::JobReport,
    types::{ByteSize, Span},
};
use std::time::Duration;

/// How a job stands, in a word or a few.
fn standing(job: &JobReport) -> String {
    match (&job.fault, &job.outcome) {
        (Some(fault), _) => format!("no result: {}", fault.name()),
        (None, Some(outcome)) => outcome.to_string(),
        (None, None) => job.state.name().to_owned(),
    }
}

pub(super) fn table(jobs: &[JobReport], out: &Out) -> String {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            [
                job.job.to_string(),
                job.role.name().to_owned(),
                job.identity.clone().unwrap_or_else(|| job.peer.to_string()),
                job.arguments.first().cloned().unwrap_or_default(),
                standing(job),
                job.submitted.to_string(),
                job.usage.map(|usage| cpu(usage.cpu_us)).unwrap_or_default(),
            ]
        })
        .collect();
    let head = [
        "job",
        "here as",
        "other side",
        "program",
        "state",
        "submitted",
        "cpu",
    ];
    out.table(head, &rows)
}

fn cpu(micros: u64) -> String {
    format!("{} ms", micros.div_ceil(1_000))
}

pub(super) fn one(job: &JobReport, out: &Out) -> String {
    let span = |ms| Span(Duration::from_millis(ms)).to_string();
    let mut items = vec![
        ("job", job.job.to_string()),
        ("here as", job.role.name().to_owned()),
        ("other side", job.peer.to_string()),
        ("identity", job.identity.clone().unwrap_or_default()),
        ("module", job.module.to_string()),
        ("arguments", job.arguments.join(" ")),
        ("state", standing(job)),
        ("attempt", job.attempt.to_string()),
        ("submitted", job.submitted.to_string()),
        (
            "finished",
            job.finished.map(|at| at.to_string()).unwrap_or_default(),
        ),
        (
            "output",
            format!("{} bytes, {} on stderr", job.stdout, job.stderr),
        ),
    ];
    if let Some(limits) = job.limits {
        let fuel = limits.fuel.map(|fuel| format!(", fuel {fuel}"));
        items.push((
            "limits",
            format!(
                "wall clock {}, cpu time {}, memory {}, output {}{}",
                span(limits.wall_clock_ms),
                span(limits.cpu_time_ms),
                ByteSize(limits.memory),
                ByteSize(limits.output),
                fuel.unwrap_or_default()
            ),
        ));
    }
    if let Some(usage) = job.usage {
        items.push((
            "used",
            format!(
                "wall clock {} ms, cpu {}, memory {}",
                usage.wall_ms,
                cpu(usage.cpu_us),
                ByteSize(usage.memory_peak)
            ),
        ));
    }
    if let Some(fault) = &job.fault {
        items.push(("why", fault.to_string()));
    }
    if let Some(receipt) = &job.receipt {
        let hash = crate::sandbox::ContentHash::of(receipt);
        items.push(("receipt", hash.to_string()));
    }
    out.list(&items)
}
