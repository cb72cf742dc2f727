//! From what happened to its OCSF class: which activity, how severe, which attributes.

mod api;
mod connection;
mod credential;
mod finding;
mod job;
mod lifecycle;
mod policy;

use std::{net::IpAddr, time::Duration};

use super::{
    SegmentHead,
    ocsf::{
        Actor, Api, Authorization, Class, Endpoint, Named, Outcome, Policy, Product, Record,
        Severity, Unmapped, User,
    },
    text::Cutter,
};
use crate::{
    audit::AuditEvent,
    types::{Party, PeerId, Timestamp},
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

/// The record of a checkpoint. Its text is whole or it is none: the node's own note has some 5 kB,
/// far within a line.
pub(super) fn checkpoint(note: &str) -> Record {
    let mut record = of(
        Class::ApplicationLifecycle,
        99,
        Severity::Informational,
        "log_checkpoint",
    );
    record.activity_name = Some("Checkpoint");
    record.app = Some(product());
    record.unmapped.checkpoint = Some(note.to_owned());
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
        | AuditEvent::LogRecovered { .. } => lifecycle::record(event, cut),
        AuditEvent::ConnectionAccepted { .. }
        | AuditEvent::ConnectionClosed { .. }
        | AuditEvent::ConnectionsRefused { .. }
        | AuditEvent::CallsChanged { .. }
        | AuditEvent::AuthenticationFailed { .. } => connection::record(event, cut),
        AuditEvent::Decided { .. }
        | AuditEvent::MessagesRefused { .. }
        | AuditEvent::Administration { .. } => api::record(event, cut),
        AuditEvent::JobAccepted { .. }
        | AuditEvent::JobRefused { .. }
        | AuditEvent::JobFinished { .. }
        | AuditEvent::JobSent { .. }
        | AuditEvent::JobResult { .. } => job::record(event, cut),
        AuditEvent::CredentialIssued { .. }
        | AuditEvent::CredentialRenewed { .. }
        | AuditEvent::KeyRotated { .. }
        | AuditEvent::RenewalRefused { .. }
        | AuditEvent::InvitationMade { .. } => credential::record(event, cut),
        AuditEvent::Charged { .. }
        | AuditEvent::BanStarted { .. }
        | AuditEvent::BanEnded { .. } => finding::record(event, cut),
        AuditEvent::QuarantineStarted { .. }
        | AuditEvent::QuarantineEnded { .. }
        | AuditEvent::PolicyLoaded { .. }
        | AuditEvent::PolicyRefused { .. }
        | AuditEvent::PolicyErred { .. }
        | AuditEvent::ShadowDiffered { .. }
        | AuditEvent::SettingsChanged { .. }
        | AuditEvent::SettingsTaken { .. }
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
