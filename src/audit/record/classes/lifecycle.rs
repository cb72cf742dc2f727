//! The life of the node: its actors, its identity, status lists, store and log.

use super::{
    super::{
        ocsf::{Class, Product, Record, Severity},
        text::Cutter,
    },
    ISSUER, ISSUERS, NAME, TEXT, endpoint, exact, feature, of, product,
};
use crate::{audit::AuditEvent, types::Party};

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Critical, High, Informational, Medium};
    let line = |activity, severity, name| {
        let mut record = of(Class::ApplicationLifecycle, activity, severity, name);
        record.app = Some(product());
        record
    };
    match event {
        AuditEvent::NodeStarted {
            version,
            peer,
            config_hash,
        } => {
            let mut record = line(3, Informational, "node_started");
            record.app = Some(Product {
                uid: Some(peer.to_string()),
                version: Some(cut.text(version, NAME)),
                ..product()
            });
            record.unmapped.config_hash = Some(cut.text(config_hash, NAME));
            record
        }
        AuditEvent::NodeStopping { reason } => {
            let mut record = line(4, Informational, "node_stopping");
            record.status_detail = Some(cut.text(reason, TEXT));
            record
        }
        AuditEvent::ActorRestarted {
            actor,
            cause,
            detail,
            blamed,
        } => {
            let mut record = line(5, Medium, "actor_restarted");
            record.app = Some(feature(actor, cut));
            record.status_code = Some(cut.text(cause, NAME));
            record.status_detail = Some(cut.text(detail, TEXT));
            record.unmapped.blamed = blamed.as_ref().map(Party::to_string);
            record
        }
        AuditEvent::ActorEscalated { actor, detail } => {
            let mut record = line(4, Critical, "actor_escalated");
            record.app = Some(feature(actor, cut));
            record.status_id = Some(2);
            record.status_detail = Some(cut.text(detail, TEXT));
            record
        }
        AuditEvent::IdentityLoaded { own, issuers } => {
            let mut record = line(8, Informational, "identity_loaded");
            record.unmapped.identity = own.as_ref().map(|own| cut.text(own, NAME));
            if issuers.len() > ISSUERS {
                cut.note_cut();
            }
            let listed = issuers.iter().take(ISSUERS);
            record.unmapped.issuers = Some(listed.map(|one| cut.text(one, ISSUER)).collect());
            record.count = Some(exact(issuers.len() as u64));
            record
        }
        AuditEvent::StatusListAccepted {
            issuer,
            sequence,
            list,
            revoked,
            hash,
            from,
        } => {
            let mut record = line(8, Informational, "status_list_accepted");
            record.unmapped.issuers = Some(vec![cut.text(issuer, ISSUER)]);
            record.unmapped.status_sequence = Some(exact(*sequence));
            record.unmapped.status_list = list.map(exact);
            record.unmapped.revoked = Some(*revoked);
            record.unmapped.list_hash = Some(cut.text(hash, NAME));
            record.src_endpoint = Some(endpoint(from.as_ref(), None));
            record
        }
        AuditEvent::StatusListForked {
            issuer,
            sequence,
            known,
            other,
            from,
        } => {
            let mut record = line(8, High, "status_list_forked");
            record.unmapped.issuers = Some(vec![cut.text(issuer, ISSUER)]);
            record.unmapped.status_sequence = Some(exact(*sequence));
            record.unmapped.list_hash = Some(cut.text(known, NAME));
            record.unmapped.other_hash = Some(cut.text(other, NAME));
            record.src_endpoint = Some(endpoint(from.as_ref(), None));
            record
        }
        AuditEvent::StatusListRefused { from, code, detail } => {
            let mut record = line(8, Medium, "status_list_refused");
            record.status_id = Some(2);
            record.status_code = Some(cut.text(code, NAME));
            record.status_detail = Some(cut.text(detail, TEXT));
            record.src_endpoint = Some(endpoint(from.as_ref(), None));
            record
        }
        AuditEvent::StoreSetAside { path, reason } => {
            let mut record = line(8, High, "store_set_aside");
            record.unmapped.file = Some(cut.text(path, TEXT));
            record.status_detail = Some(cut.text(reason, TEXT));
            record
        }
        AuditEvent::LogRecovered { segment, bytes } => {
            let mut record = line(8, Medium, "log_recovered");
            record.unmapped.file = Some(cut.text(segment, NAME));
            record.unmapped.bytes = Some(exact(*bytes));
            record
        }
        _ => line(99, Informational, "other"),
    }
}
