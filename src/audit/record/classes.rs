//! From what happened to its OCSF class: which activity, how severe, which attributes.

mod policy;

use std::{net::IpAddr, time::Duration};

use super::{
    SegmentHead,
    ocsf::{
        Actor, Api, Authorization, Class, ConnectionInfo, Endpoint, Evidence, FindingInfo, Named,
        Outcome, Policy, Product, Record, Severity, Unmapped, User,
    },
    text::Cutter,
};
use crate::{
    audit::{AuditEvent, Direction},
    types::{ChannelKind, Party, PeerId, Timestamp},
};

/// Name of the product in every record.
pub(super) const PRODUCT: &str = "quantraband";
/// Longest name (rules, tiers, codes), bytes of JSON.
const NAME: usize = 256;
/// Longest free text (details, evidence), bytes of JSON.
const TEXT: usize = 2_048;
/// Most issuers listed in one record; with [`ISSUER`] at most 16 KiB.
const ISSUERS: usize = 128;
/// Longest issuer's name in a list, bytes of JSON; a valid name has at most 64.
const ISSUER: usize = 128;
/// Greatest integer that JSON numbers carry exactly everywhere (RFC 8785 writes doubles).
const EXACT: u64 = (1 << 53) - 1;

/// The record of a segment's first line.
pub(super) fn segment(head: SegmentHead) -> Record {
    let mut record = of(
        Class::ApplicationLifecycle,
        99,
        Severity::Informational,
        "segment_opened",
    );
    record.activity_name = Some("Segment Opened");
    record.app = Some(product());
    record.unmapped.segment = Some(head);
    record
}

/// The record of an event; `metadata` and the chain are filled in by the caller.
pub(super) fn record(event: &AuditEvent, cut: &mut Cutter) -> Record {
    match event {
        AuditEvent::NodeStarted { .. }
        | AuditEvent::NodeStopping { .. }
        | AuditEvent::ActorRestarted { .. }
        | AuditEvent::ActorEscalated { .. }
        | AuditEvent::IdentityLoaded { .. }
        | AuditEvent::StatusListAccepted { .. }
        | AuditEvent::StatusListForked { .. }
        | AuditEvent::StatusListRefused { .. }
        | AuditEvent::StoreSetAside { .. }
        | AuditEvent::LogRecovered { .. } => lifecycle(event, cut),
        AuditEvent::ConnectionAccepted { .. }
        | AuditEvent::ConnectionClosed { .. }
        | AuditEvent::ConnectionsRefused { .. }
        | AuditEvent::AuthenticationFailed { .. } => connection(event, cut),
        AuditEvent::Decided { .. }
        | AuditEvent::MessagesRefused { .. }
        | AuditEvent::Administration { .. } => api(event, cut),
        AuditEvent::JobAccepted { .. }
        | AuditEvent::JobRefused { .. }
        | AuditEvent::JobFinished { .. }
        | AuditEvent::JobSent { .. }
        | AuditEvent::JobResult { .. } => job(event, cut),
        AuditEvent::CredentialIssued { .. }
        | AuditEvent::CredentialRenewed { .. }
        | AuditEvent::KeyRotated { .. }
        | AuditEvent::RenewalRefused { .. }
        | AuditEvent::InvitationMade { .. } => credential(event, cut),
        AuditEvent::Charged { .. }
        | AuditEvent::BanStarted { .. }
        | AuditEvent::BanEnded { .. } => finding(event, cut),
        AuditEvent::QuarantineStarted { .. }
        | AuditEvent::QuarantineEnded { .. }
        | AuditEvent::PolicyLoaded { .. }
        | AuditEvent::PolicyRefused { .. }
        | AuditEvent::PolicyErred { .. }
        | AuditEvent::ShadowDiffered { .. }
        | AuditEvent::SettingsChanged { .. }
        | AuditEvent::SettingsRefused { .. } => policy::record(event, cut),
    }
}

fn of(class: Class, activity: u32, severity: Severity, event: &'static str) -> Record {
    Record {
        activity_id: activity,
        category_uid: class.uid() / 1000,
        class_uid: class.uid(),
        type_uid: class.uid() * 100 + activity,
        severity_id: severity as u8,
        unmapped: Unmapped {
            event,
            ..Unmapped::default()
        },
        ..Record::default()
    }
}

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
fn lifecycle(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
fn connection(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
fn api(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

/// A job's life, on both sides: the actor is who submitted it, the resource is the job.
#[expect(clippy::too_many_lines, reason = "one short arm for each event")]
fn job(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

fn credential(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

fn finding(event: &AuditEvent, cut: &mut Cutter) -> Record {
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

fn product() -> Product {
    Product {
        name: PRODUCT,
        ..Product::default()
    }
}

fn feature(name: &str, cut: &mut Cutter) -> Product {
    Product {
        feature: Some(Named {
            name: cut.text(name, NAME),
        }),
        ..product()
    }
}

fn outcome(record: &mut Record, outcome: Outcome) {
    let (action, disposition) = outcome.ids();
    record.action_id = Some(action);
    record.disposition_id = Some(disposition);
}

fn decision(verdict: &str, rule: &str, cut: &mut Cutter) -> [Authorization; 1] {
    [Authorization {
        decision: cut.text(verdict, NAME),
        policy: Policy {
            uid: cut.text(rule, NAME),
        },
    }]
}

fn operation(name: &str, cut: &mut Cutter) -> Api {
    Api {
        operation: cut.text(name, NAME),
    }
}

/// The acting user, or who it is when no user is known.
fn actor(user: Option<String>, otherwise: &'static str) -> Actor {
    Actor {
        app_name: user.is_none().then_some(otherwise),
        user: user.map(|uid| User { uid }),
    }
}

fn endpoint(peer: Option<&PeerId>, ip: Option<IpAddr>) -> Endpoint {
    Endpoint {
        ip: ip.map(|ip| ip.to_canonical().to_string()),
        name: (peer.is_none() && ip.is_none()).then_some("several"),
        uid: peer.map(PeerId::to_string),
    }
}

fn endpoint_of(party: &Party) -> Endpoint {
    match party {
        Party::Peer(peer) => endpoint(Some(peer), None),
        Party::Address(ip) => endpoint(None, Some(*ip)),
        // Whatever keys and addresses it comes by.
        Party::Subject(_) => endpoint(None, None),
    }
}

fn aggregate(record: &mut Record, count: u64, first: Timestamp, last: Timestamp) {
    record.count = Some(exact(count));
    record.start_time = Some(exact(first.millis()));
    record.end_time = Some(exact(last.millis()));
    record.duration = Some(millis(last.since(first)));
}

fn millis(span: Duration) -> u64 {
    exact(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// The nearest number that JSON carries exactly.
pub(super) fn exact(number: u64) -> u64 {
    number.min(EXACT)
}

/// A score as an integer, 0 to 1000; NaN is 0.
fn thousandths(score: f64) -> u64 {
    let scaled = (score.clamp(0.0, 1.0) * 1000.0).round();
    // The cast saturates and sends NaN to 0; the value lies in 0..=1000.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1000 above"
    )]
    let whole = scaled as u64;
    whole
}
