//! Connections: accepted, closed, refused, and who could not prove who it is.

use super::{
    super::{
        ocsf::{Class, ConnectionInfo, Named, Outcome, Record, Severity, User},
        text::Cutter,
    },
    NAME, PRODUCT, TEXT, aggregate, decision, endpoint, millis, of, outcome,
};
use crate::{
    audit::{AuditEvent, Direction},
    types::ChannelKind,
};

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    use Severity::{Informational, Low, Medium};
    let line = |activity, severity, name| of(Class::NetworkActivity, activity, severity, name);
    match event {
        AuditEvent::ConnectionAccepted {
            peer,
            address,
            direction,
            tier,
            rule,
            identity,
            credential_hash,
            security,
            pq_auth,
        } => {
            let mut record = line(1, Informational, "connection_accepted");
            outcome(&mut record, Outcome::Allowed);
            record.authorizations = Some(decision("allow", rule, cut));
            let remote = endpoint(Some(peer), *address);
            let direction_id = match direction {
                Direction::Inbound => 1,
                Direction::Outbound => 2,
            };
            match direction {
                Direction::Inbound => record.src_endpoint = Some(remote),
                Direction::Outbound => record.dst_endpoint = Some(remote),
            }
            record.connection_info = Some(ConnectionInfo {
                direction_id,
                protocol_name: match security.kind {
                    ChannelKind::Quic => "udp",
                    ChannelKind::Noise | ChannelKind::Tls | ChannelKind::Stacked => "tcp",
                },
            });
            record.unmapped.security = Some(*security);
            record.unmapped.pq_auth = Some(*pq_auth);
            record.unmapped.tier = Some(cut.text(tier, NAME));
            record.unmapped.identity = identity.as_ref().map(|one| cut.text(one, NAME));
            record.unmapped.credential_hash = credential_hash.map(hex::encode);
            record
        }
        AuditEvent::ConnectionClosed {
            peer,
            lasted,
            cause,
        } => {
            let mut record = line(2, Informational, "connection_closed");
            record.src_endpoint = Some(endpoint(Some(peer), None));
            record.status_detail = Some(cut.text(cause, TEXT));
            record.unmapped.lasted_ms = Some(millis(*lasted));
            record
        }
        AuditEvent::ConnectionsRefused {
            reason,
            address,
            count,
            first,
            last,
        } => {
            let mut record = line(5, Low, "connections_refused");
            outcome(&mut record, Outcome::Blocked);
            record.src_endpoint = Some(endpoint(None, *address));
            record.status_code = Some(cut.text(reason, NAME));
            aggregate(&mut record, *count, *first, *last);
            record
        }
        AuditEvent::CallsChanged {
            peer,
            state,
            count,
            first,
            last,
        } => {
            let mut record = line(99, Low, "calls_changed");
            record.dst_endpoint = peer.as_ref().map(|peer| endpoint(Some(peer), None));
            record.status_code = Some(cut.text(state, NAME));
            aggregate(&mut record, *count, *first, *last);
            record
        }
        AuditEvent::AuthenticationFailed {
            peer,
            address,
            code,
            detail,
        } => {
            let mut record = of(Class::Authentication, 1, Medium, "authentication_failed");
            outcome(&mut record, Outcome::Blocked);
            record.status_id = Some(2);
            record.status_code = Some(cut.text(code, NAME));
            record.status_detail = Some(cut.text(detail, TEXT));
            record.user = Some(User {
                uid: peer.to_string(),
            });
            record.service = Some(Named {
                name: PRODUCT.to_owned(),
            });
            record.src_endpoint = Some(endpoint(Some(peer), *address));
            record
        }
        _ => line(99, Informational, "other"),
    }
}
