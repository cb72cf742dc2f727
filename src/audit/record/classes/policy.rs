//! What happens to policies, quarantines and settings.

use super::{
    super::{
        ocsf::{Class, Evidence, FindingInfo, Outcome, Record, Severity},
        text::Cutter,
    },
    NAME, TEXT, endpoint_of, exact, feature, of, operation, outcome, product,
};
use crate::{
    audit::AuditEvent,
    types::{Party, Timestamp},
};

/// Most keys listed in one record; there are about 150.
const KEYS: usize = 256;
/// Longest key, bytes of JSON.
const KEY: usize = 128;
/// Most actors listed in one record; a node has about fifteen.
const ACTORS: usize = 32;

pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::Informational;
    match event {
        AuditEvent::QuarantineStarted {
            party,
            until,
            reason,
        } => started(party, *until, reason, cut),
        AuditEvent::QuarantineEnded { party, cause } => {
            let mut record = finding("quarantine_ended", 3, Informational, party);
            record.status_id = Some(4);
            record.status_code = Some(cut.text(cause, NAME));
            record
        }
        AuditEvent::PolicyErred {
            action,
            what,
            count,
        } => {
            let mut record = of(Class::ApiActivity, 99, Severity::High, "policy_erred");
            record.activity_name = Some("Evaluate");
            outcome(&mut record, Outcome::Blocked);
            record.api = Some(operation(action, cut));
            record.status_id = Some(2);
            record.status_detail = Some(cut.text(what, TEXT));
            record.count = Some(exact(*count));
            record
        }
        AuditEvent::ShadowDiffered {
            action,
            active,
            shadow,
            count,
        } => {
            let mut record = of(Class::ApiActivity, 99, Informational, "shadow_differed");
            record.activity_name = Some("Evaluate");
            record.api = Some(operation(action, cut));
            record.status_detail = Some(cut.text(active, TEXT));
            record.unmapped.shadow = Some(cut.text(shadow, NAME));
            record.count = Some(exact(*count));
            record
        }
        other => changed(other, cut),
    }
}

fn changed(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Medium};
    let line = |severity, name, part, cut: &mut Cutter| {
        let mut record = of(Class::ApplicationLifecycle, 8, severity, name);
        record.app = Some(feature(part, cut));
        record
    };
    match event {
        AuditEvent::PolicyLoaded {
            dir,
            policies,
            hash,
            shadow,
        } => {
            let mut record = line(Informational, "policy_loaded", "policy", cut);
            record.unmapped.file = dir.as_ref().map(|dir| cut.text(dir, TEXT));
            record.unmapped.policies = Some(exact(*policies as u64));
            record.unmapped.policy_hash = Some(cut.text(hash, NAME));
            record.unmapped.shadow = shadow.as_ref().map(|hash| cut.text(hash, NAME));
            record
        }
        AuditEvent::PolicyRefused { why } => {
            let mut record = line(Medium, "policy_refused", "policy", cut);
            record.status_id = Some(2);
            record.status_detail = Some(cut.text(why, TEXT));
            record
        }
        AuditEvent::SettingsChanged {
            config_hash,
            applied,
            waiting,
        } => {
            let mut record = line(Informational, "settings_changed", "settings", cut);
            record.unmapped.config_hash = Some(cut.text(config_hash, NAME));
            record.unmapped.applied = Some(list(applied, KEYS, KEY, cut));
            record.unmapped.waiting = Some(list(waiting, KEYS, KEY, cut));
            record
        }
        AuditEvent::SettingsTaken {
            config_hash,
            restarted,
            failed,
        } => {
            let severity = if failed.is_empty() {
                Informational
            } else {
                Medium
            };
            let mut record = line(severity, "settings_taken", "settings", cut);
            record.status_id = Some(if failed.is_empty() { 1 } else { 2 });
            record.unmapped.config_hash = Some(cut.text(config_hash, NAME));
            record.unmapped.restarted = Some(list(restarted, ACTORS, NAME, cut));
            record.unmapped.failed = Some(list(failed, ACTORS, NAME, cut));
            record
        }
        AuditEvent::SettingsRefused { why } => {
            let mut record = line(Medium, "settings_refused", "settings", cut);
            record.status_id = Some(2);
            record.status_detail = Some(cut.text(why, TEXT));
            record
        }
        _ => {
            let mut record = of(Class::ApplicationLifecycle, 99, Informational, "other");
            record.app = Some(product());
            record
        }
    }
}

/// The first `most` of `all`, each of at most `length` bytes of JSON.
fn list(all: &[String], most: usize, length: usize, cut: &mut Cutter) -> Vec<String> {
    if all.len() > most {
        cut.note_cut();
    }
    all.iter()
        .take(most)
        .map(|one| cut.text(one, length))
        .collect()
}

fn started(party: &Party, until: Timestamp, reason: &str, cut: &mut Cutter) -> Record {
    let mut record = finding("quarantine_started", 1, Severity::Medium, party);
    outcome(&mut record, Outcome::Quarantined);
    if let Some(info) = &mut record.finding_info {
        info.desc = Some(cut.text(reason, TEXT));
    }
    record.unmapped.until = Some(exact(until.millis()));
    record
}

fn finding(name: &'static str, activity: u32, severity: Severity, party: &Party) -> Record {
    let mut record = of(Class::DetectionFinding, activity, severity, name);
    record.evidences = Some([Evidence {
        src_endpoint: endpoint_of(party),
    }]);
    record.finding_info = Some(FindingInfo {
        desc: None,
        title: "quarantine".to_owned(),
        uid: format!("quarantine:{party}"),
    });
    record
}
