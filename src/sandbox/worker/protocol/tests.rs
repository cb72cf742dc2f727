//! What a hostile worker may send.

use proptest::prelude::*;
use tokio_util::codec::Decoder as _;

use super::*;
use crate::sandbox::JobFault;

fn encoded(frame: &FromWorker) -> Vec<u8> {
    let mut bytes = Vec::new();
    say(&mut bytes, frame).unwrap();
    bytes
}

fn decode(bytes: &[u8], artifact: bool) -> Result<Vec<FromWorker>, ProtocolError> {
    let mut buffer = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = (Decoder { artifact }).decode(&mut buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn verdict(outcome: Outcome) -> FromWorker {
    FromWorker::Verdict(Verdict {
        outcome,
        usage: Usage::default(),
        stale: false,
    })
}

#[test]
fn every_frame_survives_the_way() {
    let frames = [
        FromWorker::Ready(Ready {
            fingerprints: Some([ContentHash([7; 32]); 3]),
        }),
        FromWorker::Refused("no".into()),
        FromWorker::Started,
        FromWorker::Output(Stream::Stdout, b"out".to_vec()),
        FromWorker::Output(Stream::Stderr, vec![0; MAX_CHUNK]),
        FromWorker::Artifact(vec![1; 100_000]),
        verdict(Outcome::Trapped {
            trap: "unreachable".into(),
        }),
        verdict(Outcome::Failed {
            fault: JobFault::Link,
        }),
    ];
    let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
    assert_eq!(decode(&bytes, true).unwrap(), frames);
}

#[test]
fn announced_lengths_are_bounded_before_anything_is_kept() {
    let header = |kind: u8, length: u32| {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes
    };
    for (kind, length) in [
        (kind::STDOUT, 0),
        (kind::STDOUT, 65_537),
        (kind::STARTED, 1),
        (kind::VERDICT, 4_097),
        (kind::ARTIFACT, u32::MAX),
    ] {
        assert!(matches!(
            decode(&header(kind, length), true),
            Err(ProtocolError::Length { .. })
        ));
    }
    for kind in [0, kind::SETUP, kind::ORDER, kind::CANCEL, 255] {
        assert!(matches!(
            decode(&header(kind, 0), true),
            Err(ProtocolError::Kind(_))
        ));
    }
    assert!(matches!(
        decode(&header(kind::ARTIFACT, 1), false),
        Err(ProtocolError::Kind(kind::ARTIFACT))
    ));
}

#[test]
fn texts_keep_their_form() {
    for trap in ["", "Unreachable", "a b", "\u{1b}[31m", &"a".repeat(65)] {
        let bytes = encoded(&verdict(Outcome::Trapped { trap: trap.into() }));
        assert!(decode(&bytes, false).is_err(), "{trap:?}");
    }
    let refused = encoded(&FromWorker::Refused("a\u{1b}[31m\nb".into()));
    let [FromWorker::Refused(text)] = &decode(&refused, false).unwrap()[..] else {
        panic!("another frame");
    };
    assert!(text.chars().all(|letter| !letter.is_control()));
}

#[test]
fn an_order_fits_whatever_its_arguments_are() {
    use crate::sandbox::{MAX_ARGUMENT_BYTES, MAX_ARGUMENTS};
    let text = "\u{1}".repeat(MAX_ARGUMENT_BYTES / MAX_ARGUMENTS);
    let order = RunOrder {
        mode: Mode::Fuel,
        seed: u64::MAX,
        artifact_len: u64::MAX,
        input_len: u64::MAX,
        arguments: vec![text.clone(); MAX_ARGUMENTS],
        environment: vec![(text, String::new()); MAX_ARGUMENTS],
        limits: Limits {
            wall_clock_ms: u64::MAX,
            cpu_time_ms: u64::MAX,
            fuel: Some(u64::MAX),
            memory: u64::MAX,
            table: u64::MAX,
            stack: u64::MAX,
            output: u64::MAX,
        },
    };
    let bytes = from_node::run(order.clone()).unwrap();
    assert_eq!(hear_order(&mut &bytes[..]).unwrap(), Order::Run(order));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..200,
    ) {
        let whole = decode(&bytes, true).map_err(|error| error.to_string());
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let mut failed = None;
        for piece in [first, second] {
            buffer.extend_from_slice(piece);
            while failed.is_none() {
                match (Decoder { artifact: true }).decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => failed = Some(error.to_string()),
                }
            }
        }
        match (whole, failed) {
            (Ok(whole), None) => prop_assert_eq!(whole, frames),
            (Err(whole), Some(failed)) => prop_assert_eq!(whole, failed),
            (whole, failed) => prop_assert!(false, "{whole:?} against {failed:?}"),
        }
    }
}
