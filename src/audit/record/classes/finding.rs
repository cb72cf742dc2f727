//! What was charged to whom, and bans.

use super::{
    super::{
        ocsf::{Class, Evidence, FindingInfo, Outcome, Record, Severity},
        text::Cutter,
    },
    NAME, TEXT, endpoint_of, exact, of, outcome, thousandths,
};
use crate::{audit::AuditEvent, types::Party};

pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Medium};
    let line = |activity, severity, name, party: &Party| {
        let mut record = of(Class::DetectionFinding, activity, severity, name);
        record.evidences = Some([Evidence {
            src_endpoint: endpoint_of(party),
        }]);
        if let Party::Subject(subject) = party {
            record.unmapped.identity = Some(subject.to_string());
        }
        record
    };
    match event {
        AuditEvent::Charged {
            party,
            severity,
            evidence,
            before,
            after,
        } => {
            let mut record = line(1, Medium, "charged", party);
            record.finding_info = Some(FindingInfo {
                desc: Some(cut.text(evidence, TEXT)),
                title: cut.text(severity, NAME),
                uid: format!("charge:{party}"),
            });
            record.unmapped.score_before = Some(thousandths(*before));
            record.unmapped.score_after = Some(thousandths(*after));
            record
        }
        AuditEvent::BanStarted {
            party,
            until,
            reason,
        } => {
            let mut record = line(1, Medium, "ban_started", party);
            outcome(&mut record, Outcome::Blocked);
            record.finding_info = Some(FindingInfo {
                desc: Some(cut.text(reason, TEXT)),
                title: "ban".to_owned(),
                uid: format!("ban:{party}"),
            });
            record.unmapped.until = Some(exact(until.millis()));
            record
        }
        AuditEvent::BanEnded { party, cause } => {
            let mut record = line(3, Informational, "ban_ended", party);
            record.status_id = Some(4);
            record.status_code = Some(cut.text(cause, NAME));
            record.finding_info = Some(FindingInfo {
                desc: None,
                title: "ban".to_owned(),
                uid: format!("ban:{party}"),
            });
            record
        }
        _ => of(Class::DetectionFinding, 99, Informational, "other"),
    }
}
