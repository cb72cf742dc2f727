//! A job's life, on both sides.

use super::{
    super::{
        ocsf::{Api, Class, Named, Outcome, Record, Severity},
        text::Cutter,
    },
    NAME, PRODUCT, TEXT, actor, decision, endpoint, millis, of, outcome,
};
use crate::{audit::AuditEvent, types::PeerId};

/// A job's life, on both sides: the actor is who submitted it, the resource is the job.
#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Low};
    let line = |activity, severity, name, id: &str| {
        let mut record = of(Class::ApiActivity, activity, severity, name);
        if activity == 99 {
            record.activity_name = Some("Finish");
        }
        record.api = Some(Api {
            operation: "run_job".to_owned(),
        });
        record.resources = (!id.is_empty()).then(|| {
            [Named {
                name: id.to_owned(),
            }]
        });
        record
    };
    let of_peer = |record: &mut Record, peer: &PeerId| {
        record.actor = Some(actor(Some(peer.to_string()), "peer"));
        record.src_endpoint = Some(endpoint(Some(peer), None));
    };
    let of_us = |record: &mut Record, executor: &PeerId| {
        record.actor = Some(actor(None, PRODUCT));
        record.dst_endpoint = Some(endpoint(Some(executor), None));
    };
    match event {
        AuditEvent::JobAccepted {
            job,
            submitter,
            identity,
            module,
            rule,
        } => {
            let mut record = line(1, Informational, "job_accepted", job);
            of_peer(&mut record, submitter);
            outcome(&mut record, Outcome::Allowed);
            record.authorizations = Some(decision("allow", rule, cut));
            record.unmapped.identity = identity.as_ref().map(|one| cut.text(one, NAME));
            record.unmapped.module = Some(hex::encode(module));
            record
        }
        AuditEvent::JobRefused {
            submitter,
            code,
            detail,
        } => {
            let mut record = line(1, Low, "job_refused", "");
            of_peer(&mut record, submitter);
            outcome(&mut record, Outcome::Blocked);
            record.status_code = Some(cut.text(code, NAME));
            record.status_detail = Some(cut.text(detail, TEXT));
            record
        }
        AuditEvent::JobFinished {
            job,
            submitter,
            outcome,
            receipt,
            cpu,
        } => {
            let mut record = line(99, Informational, "job_finished", job);
            of_peer(&mut record, submitter);
            record.status_detail = Some(cut.text(outcome, NAME));
            record.unmapped.receipt = Some(hex::encode(receipt));
            record.unmapped.cpu_ms = Some(millis(*cpu));
            record
        }
        AuditEvent::JobSent {
            job,
            executor,
            module,
        } => {
            let mut record = line(1, Informational, "job_sent", job);
            of_us(&mut record, executor);
            record.unmapped.module = Some(hex::encode(module));
            record
        }
        AuditEvent::JobResult {
            job,
            executor,
            outcome,
            receipt,
        } => {
            let mut record = line(99, Informational, "job_result", job);
            of_us(&mut record, executor);
            record.status_detail = Some(cut.text(outcome, NAME));
            record.unmapped.receipt = receipt.map(hex::encode);
            record
        }
        _ => line(99, Informational, "other", ""),
    }
}
