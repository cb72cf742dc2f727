#![cfg(test)]

use std::{fs, path::PathBuf};

use ed25519_dalek::SigningKey;
use proptest::{option, prelude::*};

use super::*;
use crate::sandbox::{CancelledBy, JobFault, LimitName, LimitsWanted};

fn executor() -> NodeKey {
    NodeKey::from_seed(&[0x45; 32])
}

fn submitter() -> PeerId {
    NodeKey::from_seed(&[0x53; 32]).peer()
}

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

fn spec() -> JobSpec {
    JobSpec {
        key: IdempotencyKey::of_text("nightly report"),
        module: ContentHash::of(b"module"),
        module_size: 6,
        arguments: vec!["wc.wasm".to_owned()],
        environment: Vec::new(),
        input: ContentHash::of(b"input\n"),
        input_size: 6,
        limits: LimitsWanted::default(),
        deterministic: Some(42),
        sealed: false,
    }
}

/// A body in which every field that may be there is there.
pub(crate) fn full() -> ReceiptBody {
    let spec = spec();
    ReceiptBody {
        executor: executor().peer(),
        submitter: submitter(),
        submitter_identity: Some(Label {
            issuer: name("acme"),
            subject: name("node-1.berlin"),
        }),
        key: spec.key,
        module: Content::of(b"module"),
        arguments: spec.arguments_hash(),
        input: Content::of(b"input\n"),
        stdout: Content::of(b"1\n"),
        stderr: Content::of(b""),
        limits: crate::sandbox::wire::tests::limits(),
        deterministic: Some(42),
        outcome: Outcome::Exited { status: 0 },
        usage: Usage {
            wall_ms: 12,
            cpu_us: 11_500,
            fuel: Some(123_456),
            memory_peak: 1 << 20,
            stdout: 2,
            stderr: 0,
        },
        attempts: 1,
        submitted: Timestamp::from_millis(1_795_478_400_000),
        started: Some(Timestamp::from_millis(1_795_478_400_100)),
        finished: Timestamp::from_millis(1_795_478_400_112),
        executor_credential: Some(ContentHash::of(b"credential")),
    }
}

/// A body with as little as possible.
pub(crate) fn least() -> ReceiptBody {
    ReceiptBody {
        submitter_identity: None,
        deterministic: None,
        outcome: Outcome::Failed {
            fault: JobFault::InputMissing,
        },
        usage: Usage::default(),
        attempts: 0,
        started: None,
        executor_credential: None,
        ..full()
    }
}

pub(crate) fn signed(body: ReceiptBody) -> Receipt {
    Receipt::sign(body, &executor())
}

#[test]
fn the_bytes_are_frozen() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sandbox/receipt.cose");
    let made = signed(full());
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        fs::write(&path, made.bytes()).unwrap();
    }
    let kept = fs::read(&path).unwrap();
    assert_eq!(
        hex::encode(&kept),
        hex::encode(made.bytes()),
        "the format changed; receipts of old nodes will not be read"
    );
    let read = Receipt::decode(&kept).unwrap();
    assert_eq!(read.verify(), Ok(&full()));
    assert_eq!(read.hash(), ContentHash::of(&kept));
}

#[test]
fn any_bit_that_changes_is_seen() {
    for body in [full(), least()] {
        let good = signed(body);
        for at in 0..good.bytes().len() {
            for bit in 0..8 {
                let mut bytes = good.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let seen = match Receipt::decode(&bytes) {
                    Err(_) => true,
                    Ok(read) => read.verify() == Err(ReceiptError::Signature),
                };
                assert!(seen, "bit {bit} of byte {at}");
            }
            assert!(Receipt::decode(&good.bytes()[..at]).is_err(), "cut at {at}");
        }
        let mut longer = good.bytes().to_vec();
        longer.push(0);
        assert!(Receipt::decode(&longer).is_err());
    }
}

/// Seals any payload with a key of the forger's choice.
fn seal(key: &SigningKey, payload: &Value) -> Vec<u8> {
    cose::sign1_seal(key, Domain::Receipt, cbor::encode(payload))
}

fn payload(body: &ReceiptBody) -> Value {
    cbor::decode(&body.encode(), MAX_RECEIPT_BYTES).unwrap()
}

#[test]
fn only_the_executor_it_names_can_sign_it() {
    let mallory = NodeKey::from_seed(&[0x4d; 32]);
    // The body still names the honest executor.
    let forged = seal(mallory.signing(), &payload(&full()));
    let read = Receipt::decode(&forged).unwrap();
    assert_eq!(read.verify(), Err(ReceiptError::Signature));
    // `sign` names who signs.
    let own = Receipt::sign(full(), &mallory);
    assert_eq!(own.verify().unwrap().executor, mallory.peer());
}

#[test]
fn a_signature_of_another_domain_is_none() {
    for domain in [Domain::Request, Domain::Anchor, Domain::Credential] {
        let bytes = cose::sign1_seal(executor().signing(), domain, full().encode());
        let read = Receipt::decode(&bytes).unwrap();
        assert_eq!(read.verify(), Err(ReceiptError::Signature));
    }
}

/// The payload with one field replaced, or removed.
fn with(key: i64, value: Option<Value>) -> Result<Receipt, ReceiptError> {
    let entries = payload(&full()).into_map().unwrap().into_iter();
    let entries = entries.filter(|entry| entry.0 != Value::from(key));
    let entries = entries.chain(value.map(|value| (Value::from(key), value)));
    Receipt::decode(&seal(executor().signing(), &cbor::map(entries)))
}

#[test]
fn a_field_that_breaks_its_rule_is_refused_though_it_is_signed() {
    assert_eq!(with(1, number(2_u64)), Err(ReceiptError::Version(2)));
    for (key, value) in [
        (2, bytes(&[0; 16])),
        (3, bytes(&[0; 38])),
        (4, bytes(&submitter().key_bytes())),
        (5, text("acme")),
        (5, text("acme/Node")),
        (5, text("acme/a/b")),
        (18, Some(Value::Array(vec!["exited".into()]))),
        (18, Some(Value::Array(vec!["trapped".into(), "X".into()]))),
        (18, Some(Value::Array(vec!["stopped".into(), "x".into()]))),
        (18, Some(Value::Array(vec!["vanished".into(), 0.into()]))),
        (20, number(1_u64 << 32)),
        (21, number(LAST.millis() + 1)),
        (25, number(0_u64)),
    ] {
        let said = with(key, value);
        assert!(
            matches!(said, Err(ReceiptError::Malformed(_))),
            "{key}: {said:?}"
        );
    }
    for key in 1..=24 {
        let optional = [5, 17, 22, 24].contains(&key);
        assert_eq!(with(key, None).is_ok(), optional, "{key}");
        assert!(with(key, Some(Value::Null)).is_err(), "{key}");
    }
}

#[test]
fn a_second_encoding_is_refused() {
    let good = full().encode();
    // The version in two bytes instead of one.
    assert_eq!(good[..4], [0xb8, 0x18, 0x01, 0x01]);
    let mut padded = good.clone();
    padded.splice(3..4, [0x18, 0x01]);
    let sealed = cose::sign1_seal(executor().signing(), Domain::Receipt, padded);
    let refused = ReceiptError::Malformed(Malformed("not the canonical encoding"));
    assert_eq!(Receipt::decode(&sealed), Err(refused));
    // Keys in another order.
    let mut entries = payload(&full()).into_map().unwrap();
    entries.swap(5, 6);
    let sealed = seal(executor().signing(), &Value::Map(entries));
    assert_eq!(Receipt::decode(&sealed), Err(refused));
}

#[test]
fn what_a_worker_or_a_wild_clock_says_still_makes_a_receipt() {
    let body = ReceiptBody {
        outcome: Outcome::Trapped {
            trap: "Out Of Bounds\x1b".repeat(99),
        },
        submitted: Timestamp::from_millis(u64::MAX),
        started: Some(Timestamp::from_millis(u64::MAX)),
        finished: Timestamp::from_millis(u64::MAX),
        ..full()
    };
    let made = signed(body);
    assert_eq!(Receipt::decode(made.bytes()).as_ref(), Ok(&made));
    assert_eq!(made.verify().unwrap().finished, LAST);
}

#[test]
fn the_longest_receipt_is_far_below_the_bound() {
    let long = "n".repeat(Name::MAX_LEN);
    let body = ReceiptBody {
        submitter_identity: Some(Label {
            issuer: name(&long),
            subject: name(&long),
        }),
        module: Content {
            size: u64::MAX,
            ..full().module
        },
        outcome: Outcome::Trapped {
            trap: "x".repeat(64),
        },
        usage: Usage {
            wall_ms: u64::MAX,
            cpu_us: u64::MAX,
            fuel: Some(u64::MAX),
            memory_peak: u64::MAX,
            stdout: u64::MAX,
            stderr: u64::MAX,
        },
        ..full()
    };
    let made = signed(body);
    assert!(made.bytes().len() < 1_024, "{}", made.bytes().len());
    assert!(Receipt::decode(made.bytes()).is_ok());
}

#[test]
fn the_first_field_that_differs_is_named() {
    let expected = Expectation {
        limits: Some(full().limits),
        stdout: Some(full().stdout),
        stderr: Some(full().stderr),
        ..Expectation::of(executor().peer(), submitter(), &spec())
    };
    assert_eq!(full().matches(&expected), Ok(()));
    assert_eq!(least().matches(&Expectation::default()), Ok(()));
    let other = Content::of(b"other");
    let peer = NodeKey::from_seed(&[0x4d; 32]).peer();
    type Change = fn(&mut ReceiptBody, PeerId, Content);
    let changes: [(&str, Change); 9] = [
        ("executor", |body, peer, _| body.executor = peer),
        ("submitter", |body, peer, _| body.submitter = peer),
        ("job", |body, _, _| body.key = IdempotencyKey([0; 16])),
        ("module", |body, _, other| body.module = other),
        ("arguments", |body, _, other| body.arguments = other.hash),
        ("input", |body, _, other| body.input.size = other.size),
        ("deterministic", |body, _, _| body.deterministic = None),
        ("limits", |body, _, _| body.limits.fuel = None),
        ("stdout", |body, _, other| body.stdout = other),
    ];
    for (field, change) in changes {
        let mut body = full();
        // A later field differs as well: the first is named.
        body.stderr = other;
        change(&mut body, peer, other);
        assert_eq!(body.matches(&expected).unwrap_err().field, field);
    }
    let key_alone = Expectation {
        key: Some(IdempotencyKey([0; 16])),
        ..Expectation::default()
    };
    assert_eq!(full().matches(&key_alone).unwrap_err().field, "key");
    let mut body = full();
    body.stderr = other;
    let said = body.matches(&expected).unwrap_err();
    assert_eq!(
        said.to_string(),
        format!("the receipt's stderr is {other}, not {}", full().stderr)
    );
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let faults = vec![JobFault::Link, JobFault::WorkerDied, JobFault::Executor];
    let by = vec![
        CancelledBy::Submitter,
        CancelledBy::Operator,
        CancelledBy::Policy,
    ];
    prop_oneof![
        any::<u32>().prop_map(|status| Outcome::Exited { status }),
        "[a-z0-9_]{1,64}".prop_map(|trap| Outcome::Trapped { trap }),
        prop::sample::select(LimitName::ALL.to_vec()).prop_map(|limit| Outcome::Stopped { limit }),
        prop::sample::select(by).prop_map(|by| Outcome::Cancelled { by }),
        prop::sample::select(faults).prop_map(|fault| Outcome::Failed { fault }),
    ]
}

proptest! {
    #[test]
    fn receipts_round_trip(
        outcome in outcomes(),
        key: [u8; 16],
        size: u64,
        deterministic in option::of(any::<u64>()),
        labelled: bool,
        started in option::of(0..LAST.millis()),
        credential in option::of(any::<[u8; 32]>()),
        attempts: u32,
    ) {
        let body = ReceiptBody {
            submitter_identity: full().submitter_identity.filter(|_| labelled),
            key: IdempotencyKey(key),
            stdout: Content { hash: ContentHash(Default::default()), size },
            deterministic,
            outcome,
            attempts,
            started: started.map(Timestamp::from_millis),
            executor_credential: credential.map(ContentHash),
            ..full()
        };
        let made = signed(body.clone());
        let read = Receipt::decode(made.bytes()).unwrap();
        prop_assert_eq!(read.verify(), Ok(&body));
        prop_assert_eq!(read, made);
    }

    #[test]
    fn any_bytes_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Receipt::decode(&bytes).is_err());
        let sealed = cose::sign1_seal(executor().signing(), Domain::Receipt, bytes);
        prop_assert!(Receipt::decode(&sealed).is_err());
    }
}
