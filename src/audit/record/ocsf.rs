//! The parts of OCSF 1.9 this log uses, as it writes them.
//!
//! One flat record serves every class: a class fills the attributes it has. Absent attributes
//! are left out. Numbers are integers within 2^53, so that RFC 8785 writes them exactly.
//!
//! Every struct declares its attributes in sorted order: written as they stand, they are
//! canonical (`super::write` asserts it, the tests for every event).

use serde::Serialize;

use crate::types::EventId;

/// Version of the schema the attributes are taken from.
pub(super) const VERSION: &str = "1.9.0";

/// OCSF event classes, each with its category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Authentication,
    NetworkActivity,
    ApplicationLifecycle,
    ApiActivity,
    DetectionFinding,
}

impl Class {
    /// `class_uid`; its thousands are the category.
    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Authentication => 3002,
            Self::NetworkActivity => 4001,
            Self::ApplicationLifecycle => 6002,
            Self::ApiActivity => 6003,
            Self::DetectionFinding => 2004,
        }
    }
}

/// `severity_id`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
    Critical = 5,
}

/// `action_id` and `disposition_id`, which belong together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Allowed,
    Blocked,
    Quarantined,
}

impl Outcome {
    pub(super) fn ids(self) -> (u8, u8) {
        match self {
            Self::Allowed => (1, 1),
            Self::Blocked => (2, 2),
            Self::Quarantined => (2, 3),
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action_id: Option<u8>,
    pub(super) activity_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activity_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api: Option<Api>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app: Option<Product>,
    pub(super) attestation_list: [Attestation; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorizations: Option<[Authorization; 1]>,
    pub(super) category_uid: u32,
    pub(super) class_uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_info: Option<ConnectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disposition_id: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evidences: Option<[Evidence; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finding_info: Option<FindingInfo>,
    pub(super) metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resources: Option<[Named; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Named>,
    pub(super) severity_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_id: Option<u8>,
    pub(super) time: u64,
    pub(super) type_uid: u32,
    pub(super) unmapped: Unmapped,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User>,
}

/// What OCSF has no attribute for.
#[derive(Debug, Default, Serialize)]
pub(super) struct Unmapped {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blamed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential_hash: Option<String>,
    /// The event's stable name.
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) former: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lasted_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) list_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policies: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pq_auth: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restarted: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rotation_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) security: Option<crate::types::SecurityInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<super::SegmentHead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shadow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_list: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Attestation {
    // `fingerprint` is inserted into the text, see `super::seal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_event: Option<PrevEvent>,
}

#[derive(Debug, Serialize)]
pub(super) struct PrevEvent {
    pub(super) fingerprint: FingerprintObject,
    pub(super) uid: EventId,
}

#[derive(Debug, Serialize)]
pub(super) struct FingerprintObject {
    pub(super) algorithm_id: u8,
    pub(super) value: super::Fingerprint,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_truncated: Option<bool>,
    pub(super) product: Product,
    pub(super) profiles: [&'static str; 2],
    pub(super) sequence: u64,
    pub(super) uid: String,
    pub(super) version: &'static str,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Product {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feature: Option<Named>,
    pub(super) name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Endpoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct User {
    pub(super) uid: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Actor {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User>,
}

#[derive(Debug, Serialize)]
pub(super) struct Api {
    pub(super) operation: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Authorization {
    pub(super) decision: String,
    pub(super) policy: Policy,
}

#[derive(Debug, Serialize)]
pub(super) struct Policy {
    pub(super) uid: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectionInfo {
    pub(super) direction_id: u8,
    pub(super) protocol_name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    pub(super) src_endpoint: Endpoint,
}

#[derive(Debug, Serialize)]
pub(super) struct FindingInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) desc: Option<String>,
    pub(super) title: String,
    pub(super) uid: String,
}
