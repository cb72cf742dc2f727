//! Credentials given, renewed and refused, keys that changed, invitations.

use super::{
    super::{
        ocsf::{Api, Class, Named, Outcome, Record, Severity},
        text::Cutter,
    },
    NAME, PRODUCT, TEXT, actor, decision, exact, of, outcome,
};
use crate::audit::AuditEvent;

pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Low};
    let line = |activity, severity, name, operation: &str| {
        let mut record = of(Class::ApiActivity, activity, severity, name);
        record.api = Some(Api {
            operation: operation.to_owned(),
        });
        record
    };
    let granted = |event: &AuditEvent, cut: &mut Cutter| match event {
        AuditEvent::CredentialIssued {
            peer,
            identity,
            credential_hash,
            expires,
            rule,
        }
        | AuditEvent::CredentialRenewed {
            peer,
            identity,
            credential_hash,
            expires,
            rule,
        } => {
            let (activity, name, operation) = match event {
                AuditEvent::CredentialIssued { .. } => (1, "credential_issued", "issue"),
                _ => (3, "credential_renewed", "renew"),
            };
            let mut record = line(activity, Informational, name, operation);
            record.actor = Some(actor(Some(peer.to_string()), "peer"));
            outcome(&mut record, Outcome::Allowed);
            record.authorizations = Some(decision("allow", rule, cut));
            record.unmapped.identity = Some(cut.text(identity, NAME));
            record.unmapped.credential_hash = Some(hex::encode(credential_hash));
            record.unmapped.until = Some(exact(expires.millis()));
            record
        }
        _ => line(99, Informational, "other", ""),
    };
    match event {
        AuditEvent::RenewalRefused { peer, code, detail } => {
            let mut record = line(3, Low, "renewal_refused", "renew");
            record.actor = Some(actor(Some(peer.to_string()), "peer"));
            outcome(&mut record, Outcome::Blocked);
            record.status_code = Some(cut.text(code, NAME));
            record.status_detail = Some(cut.text(detail, TEXT));
            record
        }
        AuditEvent::KeyRotated { .. } => rotated(event, cut),
        AuditEvent::InvitationMade {
            invitation,
            identity,
            expires,
        } => {
            let mut record = line(1, Informational, "invitation_made", "invite");
            record.actor = Some(actor(None, PRODUCT));
            record.resources = Some([Named {
                name: cut.text(invitation, NAME),
            }]);
            record.unmapped.identity = Some(cut.text(identity, NAME));
            record.unmapped.until = Some(exact(expires.millis()));
            record
        }
        event => granted(event, cut),
    }
}

fn rotated(event: &AuditEvent, cut: &mut Cutter) -> Record {
    let mut record = of(
        Class::ApiActivity,
        3,
        Severity::Informational,
        "key_rotated",
    );
    record.api = Some(Api {
        operation: "rotate".to_owned(),
    });
    if let AuditEvent::KeyRotated {
        peer,
        former,
        identity,
        sequence,
        rule,
    } = event
    {
        record.actor = Some(actor(Some(peer.to_string()), "peer"));
        outcome(&mut record, Outcome::Allowed);
        record.authorizations = Some(decision("allow", rule, cut));
        record.unmapped.identity = Some(cut.text(identity, NAME));
        record.unmapped.former = Some(former.to_string());
        record.unmapped.rotation_sequence = Some(exact(*sequence));
    }
    record
}
