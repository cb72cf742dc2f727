use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    messages::swarm::Published,
    types::{Party, PeerId, Span, Timestamp, Topic},
};

fn peer() -> PeerId {
    PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key())
}

fn requests() -> Vec<Request> {
    let topic: Topic = "acme/orders".parse().unwrap();
    let party = Party::Peer(peer());
    let actor = "audit".to_owned();
    vec![
        Request::Status {},
        Request::Peers {},
        Request::Limits {},
        Request::Actors {},
        Request::Observe {
            actor: actor.clone(),
        },
        Request::Restart {
            actor: actor.clone(),
        },
        Request::Inject {
            actor,
            kind: FaultKind::Hang,
        },
        Request::Publish {
            topic: topic.clone(),
            payload: vec![0, 255, 10],
            seal_to: vec!["acme/workers".parse().unwrap()],
            trace: None,
        },
        Request::Subscribe { topic },
        Request::AuditTail {
            count: 7,
            after: None,
        },
        Request::AuditTail {
            count: 7,
            after: Some(3),
        },
        Request::AuditRotate {},
        Request::AuditCheckpoint {},
        Request::IdentityReload {},
        Request::Ban {
            party: party.clone(),
            span: Span(Duration::from_secs(60)),
            reason: "noise".to_owned(),
        },
        Request::Unban { party },
        Request::Ban {
            party: "acme/node-3".parse().unwrap(),
            span: Span(Duration::from_secs(60)),
            reason: "noise".to_owned(),
        },
        Request::Bans {},
        Request::Invite {
            subject: "node-9".parse().unwrap(),
            groups: vec!["workers".parse().unwrap()],
            open_for: Span(Duration::from_secs(60)),
            addresses: Vec::new(),
        },
        Request::Shutdown {},
    ]
}

#[test]
fn requests_round_trip_on_one_line_under_their_names() {
    for request in requests() {
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["command"], request.name());
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
}

#[test]
fn the_reference_lists_every_command_and_the_bound() {
    let reference = include_str!("../../../docs/reference/admin-socket.md");
    for request in requests() {
        let command = format!("\"command\":\"{}\"", request.name());
        assert!(reference.contains(&command), "{command} is not documented");
    }
    assert_eq!(MAX_LINE, 33_619_968, "the bound in the reference");
}

#[test]
fn the_wire_form_is_frozen() {
    assert_eq!(
        serde_json::to_string(&Request::Status {}).unwrap(),
        r#"{"command":"status"}"#
    );
    let publish = Request::Publish {
        topic: "t".parse().unwrap(),
        payload: b"hi\n".to_vec(),
        seal_to: Vec::new(),
        trace: None,
    };
    assert_eq!(
        serde_json::to_string(&publish).unwrap(),
        r#"{"command":"publish","topic":"t","payload":"68690a"}"#
    );
    let error = Response::Error(Failure::new(FailureCode::Again, "busy"));
    assert_eq!(
        serde_json::to_string(&error).unwrap(),
        r#"{"answer":"error","code":"again","message":"busy"}"#
    );
}

#[test]
fn what_is_not_in_the_protocol_is_refused() {
    for bad in [
        r#"{}"#,
        r#"{"command":"explode"}"#,
        r#"{"command":"status","extra":1}"#,
        r#"{"command":"restart"}"#,
        r#"{"command":"publish","topic":"a b","payload":""}"#,
        r#"{"command":"publish","topic":"t","payload":"abc"}"#,
        r#"{"command":"ban","party":{"address":"no"},"span":"1h","reason":""}"#,
    ] {
        assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_largest_payload_fits_a_line() {
    let request = Request::Publish {
        topic: "t".repeat(Topic::MAX_LEN).parse().unwrap(),
        payload: vec![0xff; MAX_PAYLOAD],
        seal_to: Vec::new(),
        trace: None,
    };
    assert!(serde_json::to_vec(&request).unwrap().len() <= MAX_LINE);
    let message = Response::Message(MessageReport {
        topic: "t".repeat(Topic::MAX_LEN).parse().unwrap(),
        author: peer(),
        sent: Timestamp::from_millis(u64::MAX),
        payload: vec![0xff; MAX_PAYLOAD],
        sealed: false,
        trace: None,
    });
    assert!(serde_json::to_vec(&message).unwrap().len() <= MAX_LINE);
}

#[test]
fn responses_round_trip() {
    let responses = [
        Response::Actors {
            actors: vec![ActorReport {
                name: "audit".to_owned(),
                state: "running".to_owned(),
                generation: 2,
                restarts: 1,
                restarts_by_cause: BTreeMap::from([("panic".to_owned(), 1)]),
                last_fault: Some(ActorFault {
                    cause: "panic".to_owned(),
                    detail: "boom".to_owned(),
                    at: Timestamp::from_secs(1),
                    blamed: Some(Party::Peer(peer())),
                }),
                mailbox: 0,
                mailbox_capacity: 1024,
                uptime_ms: u64::MAX,
            }],
        },
        Response::Published(Published {
            message_id: None,
            listeners: 0,
        }),
        Response::Lagged { dropped: u64::MAX },
        Response::AuditRecord {
            line: r#"{"a":"\n"}"#.to_owned(),
        },
        Response::Done {},
        Response::Unbanned {
            party: "::1".parse().unwrap(),
            lifted: false,
        },
    ];
    for response in responses {
        let line = serde_json::to_string(&response).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Response>(&line).unwrap(), response);
    }
}

proptest! {
    #[test]
    fn any_payload_survives(payload: Vec<u8>) {
        let request = Request::Publish { topic: "t".parse().unwrap(), payload, seal_to: Vec::new(), trace: None };
        let line = serde_json::to_string(&request).unwrap();
        prop_assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn no_line_panics(line: Vec<u8>) {
        let _ = serde_json::from_slice::<Request>(&line);
        let _ = serde_json::from_slice::<Response>(&line);
    }
}
