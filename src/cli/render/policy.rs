//! What is said of policies, quarantines and settings.

use serde::Serialize;

use super::{CliError, Out, printable};
use crate::{
    admin::protocol::Response,
    cli::exit::Exit,
    config::Change,
    messages::{policy::PolicyReport, settings::SettingsReport},
    trust::quarantine::QuarantineInfo,
};

/// The answers of this file; `None`: it is none of them.
pub(super) fn answer(answer: &Response, out: &Out) -> Option<Result<(), CliError>> {
    #[derive(Serialize)]
    struct All<'a> {
        quarantines: &'a [QuarantineInfo],
    }
    Some(match answer {
        Response::Quarantines { quarantines } => {
            out.answer("quantraband.quarantines/1", &All { quarantines }, || {
                table(quarantines, out)
            })
        }
        Response::Quarantined { quarantines } => {
            out.answer("quantraband.quarantined/1", &All { quarantines }, || {
                let line = |one: &QuarantineInfo| {
                    format!("{} is in quarantine until {}", one.party, one.until)
                };
                quarantines.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Response::Policies(report) => {
            out.answer("quantraband.policies/1", report, || policies(report))
        }
        Response::ConfigReloaded(report) => {
            let said = out.answer("quantraband.config-reload/1", report, || settings(report));
            said.and_then(|()| all_began_anew(report))
        }
        _ => return None,
    })
}

fn table(all: &[QuarantineInfo], out: &Out) -> String {
    if all.is_empty() {
        return "nobody is in quarantine".to_owned();
    }
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            [
                one.party.to_string(),
                one.since.to_string(),
                one.until.to_string(),
                printable(&one.reason).into_owned(),
            ]
        })
        .collect();
    out.table(["PARTY", "SINCE", "UNTIL", "REASON"], &rows)
}

fn policies(report: &PolicyReport) -> String {
    let from = report.dir.as_ref().map_or_else(
        || "that come with the program".to_owned(),
        |dir| format!("of {}", printable(&dir.display().to_string())),
    );
    let mut text = format!("{} policies {from}, {}", report.policies, report.hash);
    if report.tests > 0 {
        text.push_str(&format!("\n{} policy tests passed", report.tests));
    }
    if let Some(shadow) = &report.shadow {
        text.push_str(&format!("\nshadow set {shadow}"));
    }
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {}", printable(warning)));
    }
    text
}

/// A reload of which a part is still to be done is no success, for a script either.
fn all_began_anew(report: &SettingsReport) -> Result<(), CliError> {
    if report.failed.is_empty() {
        return Ok(());
    }
    let why = format!(
        "the configuration is in force, but not everywhere: {}; reload again",
        printable(&report.failed.join("; "))
    );
    Err(CliError::new(Exit::Unavailable, why))
}

fn settings(report: &SettingsReport) -> String {
    let file = printable(&report.config.display().to_string()).into_owned();
    let mut text = if report.changes.is_empty() {
        format!("{file}: nothing changed")
    } else {
        file
    };
    for Change {
        key,
        from,
        to,
        applied,
    } in &report.changes
    {
        let how = if *applied {
            "applied"
        } else {
            "waits for the node's next start"
        };
        let (key, from, to) = (printable(key), printable(from), printable(to));
        text.push_str(&format!("\n{key}: {from} -> {to}: {how}"));
    }
    if !report.restarted.is_empty() {
        let actors = report.restarted.join(", ");
        text.push_str(&format!("\nbegan anew with it: {actors}"));
    }
    for why in &report.failed {
        text.push_str(&format!(
            "\nstill with its former settings: {}",
            printable(why)
        ));
    }
    text.push('\n');
    text.push_str(&policies(&report.policy));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_is_not_everywhere_is_no_success() {
        let mut report = SettingsReport {
            config: "node.toml".into(),
            hash: String::new(),
            changes: Vec::new(),
            restarted: Vec::new(),
            failed: Vec::new(),
            policy: PolicyReport {
                dir: None,
                policies: 1,
                hash: String::new(),
                shadow: None,
                tests: 0,
                warnings: Vec::new(),
            },
        };
        assert!(all_began_anew(&report).is_ok());
        report.failed.push("swarm: it is down".to_owned());
        let error = all_began_anew(&report).unwrap_err();
        assert_eq!(error.exit, Exit::Unavailable);
        assert!(error.message.contains("swarm: it is down"));
        assert!(settings(&report).contains("swarm: it is down"));
    }
}
