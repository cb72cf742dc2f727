use super::*;
use ciborium::Value;
use proptest::prelude::*;

fn sample(credential: bool, payload: &[u8]) -> Envelope {
    Envelope {
        sent: Timestamp::from_millis(1_790_000_000_123),
        sequence: 42,
        credential: credential.then_some([0xab; 32]),
        payload: payload.to_vec(),
        sealed: false,
    }
}

#[test]
fn the_bytes_are_frozen() {
    let samples = [
        sample(true, b"hello"),
        sample(false, b""),
        sample(true, &[7; 300]),
        Envelope {
            sealed: true,
            ..sample(true, b"hello")
        },
    ];
    let written: Vec<String> = samples.iter().map(|e| hex::encode(e.encode())).collect();
    let frozen = include_str!("../../../tests/fixtures/network/envelope.hex");
    assert_eq!(written, frozen.lines().collect::<Vec<_>>());
    for (line, sample) in frozen.lines().zip(&samples) {
        let read = Envelope::decode(&hex::decode(line).unwrap(), 300);
        assert_eq!(read.as_ref(), Ok(sample));
    }
}

#[test]
fn another_version_is_named_whatever_follows() {
    let bytes = hex::decode("a70102").unwrap();
    assert_eq!(Envelope::decode(&bytes, 10), Err(EnvelopeError::Version(2)));
}

#[test]
fn too_much_is_refused_before_it_is_copied() {
    let limit = 10;
    let long = sample(false, &[0; 11]).encode();
    assert_eq!(
        Envelope::decode(&long, limit),
        Err(EnvelopeError::TooLarge { limit })
    );
    let huge = sample(false, &[0; 1000]).encode();
    assert_eq!(
        Envelope::decode(&huge, limit),
        Err(EnvelopeError::TooLarge { limit })
    );
    // A payload that claims 2^63 bytes and has none.
    let mut liar = sample(false, b"").encode();
    liar.pop();
    liar.extend([0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert!(Envelope::decode(&liar, limit).is_err());
}

#[test]
fn a_second_spelling_is_refused() {
    let good = sample(false, b"x").encode();
    assert_eq!(&good[..3], [0xa5, 0x01, 0x01]);
    // The version in two bytes instead of one.
    let mut padded = good.clone();
    padded.splice(2..3, [0x18, 0x01]);
    assert_eq!(
        Envelope::decode(&padded, 100),
        Err(EnvelopeError::Malformed)
    );
    // An indefinite map, a wrong number of entries, bytes behind the end.
    for (at, byte) in [(0, 0xbf), (0, 0xa4), (0, 0xa6)] {
        let mut other = good.clone();
        other[at] = byte;
        assert_eq!(Envelope::decode(&other, 100), Err(EnvelopeError::Malformed));
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(
        Envelope::decode(&longer, 100),
        Err(EnvelopeError::Malformed)
    );
}

fn envelopes() -> impl Strategy<Value = Envelope> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..400);
    let ids = (any::<u64>(), any::<u64>(), any::<Option<[u8; 32]>>());
    (ids, bytes, any::<bool>()).prop_map(|((sent, sequence, credential), payload, sealed)| {
        Envelope {
            sent: Timestamp::from_millis(sent),
            sequence,
            credential,
            payload,
            sealed,
        }
    })
}

proptest! {
    #[test]
    fn envelopes_round_trip_within_the_overhead(envelope in envelopes()) {
        let bytes = envelope.encode();
        prop_assert!(bytes.len() <= envelope.payload.len() + OVERHEAD);
        prop_assert_eq!(Envelope::decode(&bytes, envelope.payload.len()), Ok(envelope));
    }

    #[test]
    fn a_general_cbor_reader_agrees(envelope in envelopes()) {
        let value: Value = ciborium::from_reader(envelope.encode().as_slice()).unwrap();
        let hash = envelope.credential.map_or(Value::Null, |hash| Value::Bytes(hash.to_vec()));
        let fields = [
            Value::from(VERSION),
            Value::from(envelope.sent.millis()),
            Value::from(envelope.sequence),
            hash,
            Value::Bytes(envelope.payload),
        ];
        let keys = [1, 2, 3, 4, if envelope.sealed { 6 } else { 5 }];
        let map = keys.map(Value::from).into_iter().zip(fields).collect();
        prop_assert_eq!(value, Value::Map(map));
    }

    #[test]
    fn what_decodes_has_exactly_one_encoding(
        envelope in envelopes(),
        at: proptest::sample::Index,
        bit in 0u8..8,
        cut: proptest::sample::Index,
    ) {
        let mut bytes = envelope.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Envelope::decode(&bytes, 1 << 20) {
            prop_assert_ne!(&other, &envelope);
            prop_assert_eq!(&other.encode(), &bytes);
        }
        prop_assert!(Envelope::decode(&bytes[..cut.index(bytes.len())], 1 << 20).is_err());
    }

    #[test]
    fn any_bytes_fail_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(&bytes, 100);
    }
}
