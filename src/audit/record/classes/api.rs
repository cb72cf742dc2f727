//! What was asked of the node and decided: messages, access, administration.

use super::{
    super::{
        ocsf::{Class, Endpoint, Named, Outcome, Record, Severity},
        text::Cutter,
    },
    NAME, TEXT, actor, aggregate, decision, endpoint, of, operation, outcome,
};
use crate::audit::AuditEvent;

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Low};
    let line = |activity, severity, name| of(Class::ApiActivity, activity, severity, name);
    match event {
        AuditEvent::Decided {
            action,
            peer,
            topic,
            verdict,
            rule,
        } => {
            let allowed = verdict == "allow";
            let severity = if allowed { Informational } else { Low };
            let (activity, name) = match action.as_str() {
                "publish" => (1, None),
                "subscribe" => (2, None),
                "run_job" => (99, Some("Run Job")),
                _ => (99, Some("Connect")),
            };
            let mut record = line(activity, severity, "decided");
            record.activity_name = name;
            let result = match verdict.as_str() {
                "allow" => Outcome::Allowed,
                "quarantine" => Outcome::Quarantined,
                _ => Outcome::Blocked,
            };
            outcome(&mut record, result);
            record.actor = Some(actor(Some(peer.to_string()), "peer"));
            record.api = Some(operation(action, cut));
            record.authorizations = Some(decision(verdict, rule, cut));
            record.src_endpoint = Some(endpoint(Some(peer), None));
            record.resources = topic.as_ref().map(|topic| {
                [Named {
                    name: topic.to_string(),
                }]
            });
            record
        }
        AuditEvent::MessagesRefused {
            author,
            reason,
            count,
            first,
            last,
        } => {
            let mut record = line(1, Low, "messages_refused");
            outcome(&mut record, Outcome::Blocked);
            record.actor = Some(actor(author.map(|peer| peer.to_string()), "unknown author"));
            record.api = Some(operation("publish", cut));
            record.src_endpoint = Some(endpoint(author.as_ref(), None));
            record.status_code = Some(cut.text(reason, NAME));
            aggregate(&mut record, *count, *first, *last);
            record
        }
        AuditEvent::Administration {
            command,
            detail,
            uid,
            peer,
            success,
        } => {
            let mut record = line(3, Informational, "administration");
            record.api = Some(operation(command, cut));
            if let Some(peer) = peer {
                record.actor = Some(actor(Some(peer.to_string()), "peer"));
                record.src_endpoint = Some(endpoint(Some(peer), None));
            } else {
                record.actor = Some(actor(uid.map(|uid| uid.to_string()), "local user"));
                record.src_endpoint = Some(Endpoint {
                    name: Some("local"),
                    ..Endpoint::default()
                });
            }
            record.status_id = Some(if *success { 1 } else { 2 });
            record.status_detail = Some(cut.text(detail, TEXT));
            record
        }
        _ => line(99, Informational, "other"),
    }
}
