//! Only the recipients, only from that sender, only for that purpose, and not a bit changed.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> (XWingKey, XWingPublic) {
    let key = XWingKey::from_seed(&[n; 32]);
    let public = key.public().unwrap();
    (key, public)
}

fn peer(n: u8) -> PeerId {
    PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key())
}

const TOPIC: Purpose<'_> = Purpose::Message("acme/orders");

fn sealed(recipients: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = recipients.iter().map(|n| key(*n).1).collect();
    seal(b"forty-two", &keys, peer(1), TOPIC).unwrap()
}

fn opened(bytes: &[u8], n: u8, sender: PeerId, purpose: Purpose<'_>) -> Result<Vec<u8>, OpenFault> {
    let (secret, public) = key(n);
    open(bytes, 1024, &secret, &public, sender, purpose).map(|opened| opened.to_vec())
}

#[test]
fn every_recipient_opens_it_and_nobody_else() {
    let bytes = sealed(&[2, 3, 2]);
    for n in [2, 3] {
        assert_eq!(
            opened(&bytes, n, peer(1), TOPIC).as_deref(),
            Ok(&b"forty-two"[..])
        );
    }
    assert_eq!(opened(&bytes, 4, peer(1), TOPIC), Err(OpenFault::NotForUs));
    assert!(!bytes.windows(9).any(|window| window == b"forty-two"));
}

#[test]
fn another_sender_or_purpose_opens_nothing() {
    let bytes = sealed(&[2]);
    let wrong = Err(OpenFault::Wrong);
    assert_eq!(opened(&bytes, 2, peer(2), TOPIC), wrong);
    assert_eq!(
        opened(&bytes, 2, peer(1), Purpose::Message("acme/order")),
        wrong
    );
    assert_eq!(
        opened(&bytes, 2, peer(1), Purpose::JobInput(peer(2))),
        wrong
    );
}

#[test]
fn the_list_of_recipients_cannot_be_changed() {
    // A recipient less, or one more, whose key the changer knows.
    let (wrapped, payload) = decode(&sealed(&[2, 3]), 1 << 20).unwrap();
    let less = encode(&wrapped[..1], payload.clone());
    assert_eq!(opened(&less, 2, peer(1), TOPIC), Err(OpenFault::Wrong));
    let (more, _) = decode(&sealed(&[4]), 1 << 20).unwrap();
    let more = encode(&[wrapped, more].concat(), payload);
    assert_eq!(opened(&more, 2, peer(1), TOPIC), Err(OpenFault::Wrong));
}

#[test]
fn bounds_hold() {
    let (_, public) = key(2);
    assert_eq!(seal(b"", &[], peer(1), TOPIC), Err(SealFault::Nobody));
    let many: Vec<_> = (0..=64).map(|n| key(n).1).collect();
    let most = seal(&[7; 1024], &many[..MAX_RECIPIENTS], peer(1), TOPIC).unwrap();
    assert!(most.len() <= 1024 + MAX_OVERHEAD, "{}", most.len());
    assert!(opened(&most, 63, peer(1), TOPIC).is_ok());
    let too_many = seal(b"", &many, peer(1), TOPIC);
    assert_eq!(too_many, Err(SealFault::TooMany(65)));
    let long = seal(&[7; 1 << 20], &[public], peer(1), TOPIC).unwrap();
    assert!(matches!(
        opened(&long, 2, peer(1), TOPIC),
        Err(OpenFault::Malformed(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_byte_is_accepted(at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let mut bytes = sealed(&[2]);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(opened(&bytes, 2, peer(1), TOPIC).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(opened(&bytes, 2, peer(1), TOPIC).is_err());
    }
}
