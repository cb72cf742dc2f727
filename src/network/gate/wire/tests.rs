use super::*;
use proptest::prelude::*;

fn body(message: &Message) -> Vec<u8> {
    let bytes = message.encode();
    let (prefix, body) = bytes.split_at(PREFIX);
    assert_eq!(body_length(prefix.try_into().unwrap()), Ok(body.len()));
    body.to_vec()
}

fn refused(code: &str, text: &str) -> Message {
    Message::Verdict(Verdict::Refused {
        code: code.to_owned(),
        text: text.to_owned(),
    })
}

#[test]
fn the_bytes_are_frozen() {
    let samples = [
        Message::Hello([0xab; NONCE]),
        Message::Credential(vec![0xa1, 0x00, 0x01]),
        Message::Verdict(Verdict::Accepted),
        refused(
            "expired",
            "the credential expired at 2026-01-01T00:00:00.000Z",
        ),
    ];
    let written: Vec<String> = samples.iter().map(|m| hex::encode(m.encode())).collect();
    let frozen = include_str!("../../../../tests/fixtures/network/gate.hex");
    assert_eq!(written, frozen.lines().collect::<Vec<_>>());
}

#[test]
fn lengths_are_refused_before_the_body() {
    let limit = u32::try_from(MAX_MESSAGE).unwrap();
    assert!(body_length(limit.to_be_bytes()).is_ok());
    for bad in [0, limit + 1, u32::MAX] {
        assert_eq!(body_length(bad.to_be_bytes()), Err(WireError::Length(bad)));
    }
}

#[test]
fn verdicts_have_one_encoding() {
    let good = body(&refused("missing", "no credential"));
    assert!(Message::decode(good.clone()).is_ok());
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Message::decode(longer), Err(WireError::Verdict));
    for cut in 1..good.len() {
        assert!(Message::decode(good[..cut].to_vec()).is_err(), "{cut}");
    }
    assert_eq!(Message::decode(vec![1, 2, 0]), Err(WireError::Version));
    assert_eq!(Message::decode(vec![1, 1, 2]), Err(WireError::Verdict));
    assert_eq!(Message::decode(vec![7, 1, 0]), Err(WireError::Kind));
    assert_eq!(Message::decode(Vec::new()), Err(WireError::Kind));
    // A refusal without a code, and a code longer than allowed.
    assert_eq!(
        Message::decode(vec![1, 1, 1, 0, 0]),
        Err(WireError::Verdict)
    );
    let mut long = vec![1, 1, 1, 33];
    long.extend([b'a'; 33]);
    long.push(0);
    assert_eq!(Message::decode(long), Err(WireError::Verdict));
}

#[test]
fn a_hello_has_one_length() {
    let good = body(&Message::Hello([7; NONCE]));
    let mut longer = good.clone();
    longer.push(7);
    assert_eq!(Message::decode(longer), Err(WireError::Hello));
    for cut in 1..good.len() {
        let short = good[..cut].to_vec();
        assert_eq!(Message::decode(short), Err(WireError::Hello), "{cut}");
    }
}

#[test]
fn an_overlong_refusal_is_clipped_not_broken() {
    let text = "ü".repeat(500);
    let message = Message::Verdict(Verdict::refused(&Refusal::Denied(text)));
    let Message::Verdict(Verdict::Refused { code, text }) =
        Message::decode(body(&message)).unwrap()
    else {
        panic!("not a refusal")
    };
    assert_eq!(code, "denied");
    assert!(text.len() <= MAX_TEXT && text.starts_with("denied by rule ü"));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_but_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        if let Ok(message) = Message::decode(bytes.clone()) {
            // What decodes has exactly one encoding.
            prop_assert_eq!(body(&message), bytes);
        }
    }

    #[test]
    fn messages_round_trip(
        nonce: [u8; NONCE],
        frame in proptest::collection::vec(any::<u8>(), 0..2000),
        code in "[a-z_]{1,32}",
        text in "[a-z ]{0,160}",
    ) {
        let hello = Message::Hello(nonce);
        prop_assert_eq!(Message::decode(body(&hello)), Ok(hello));
        let credential = Message::Credential(frame);
        prop_assert_eq!(Message::decode(body(&credential)), Ok(credential));
        let verdict = refused(&code, &text);
        prop_assert_eq!(Message::decode(body(&verdict)), Ok(verdict));
    }
}
