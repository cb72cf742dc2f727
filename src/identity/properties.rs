//! Properties of every decoder: one encoding, no change unnoticed, no panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Anchor, Attributes, Claims, Credential, Frame, Grant, Groups, Name, Refusal, SigningRequest,
    TrustAnchor, TrustAnchors, Validity, issue,
    testing::{
        NOW, acme, anchors, attributes, credential, grant, name, node, request_of, trust_of,
    },
    verify_credential, verify_frame,
};
use crate::types::Timestamp;

fn any_name() -> impl Strategy<Value = Name> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|text| Name::try_new(&text).unwrap())
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    proptest::collection::btree_map("[a-z0-9][a-z0-9._-]{0,40}", "[^\\p{C}]{0,20}", 0..12)
        .prop_map(|map: BTreeMap<String, String>| Attributes::try_new(map).unwrap())
}

prop_compose! {
    fn any_grant()(
        subject in proptest::option::of(any_name()),
        groups in proptest::collection::btree_set(any_name(), 0..12),
        attributes in any_attributes(),
        seconds in 1_u64..=86_400 * 365,
    ) -> Grant {
        Grant {
            subject,
            groups: Groups::try_new(groups).unwrap(),
            attributes,
            lifetime: std::time::Duration::from_secs(seconds),
        }
    }
}

/// Every single-byte change of `bytes`: each position with each other value of one bit flipped,
/// and with `0x00` and `0xff`.
fn changes(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flips = (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit)));
    let sets = (0..bytes.len()).flat_map(|at| [(at, 0), (at, 0xff)]);
    let flipped = flips.map(|(at, mask)| {
        let mut changed = bytes.to_vec();
        changed[at] ^= mask;
        changed
    });
    let set = sets.map(|(at, value)| {
        let mut changed = bytes.to_vec();
        changed[at] = value;
        changed
    });
    flipped.chain(set).filter(move |changed| changed != bytes)
}

fn resized(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..bytes.len()).map(|n| bytes[..n].to_vec()).collect();
    all.extend([0x00_u8, 0xf6, 0xff].map(|extra| [bytes, &[extra]].concat()));
    all
}

fn refuses_every_change<T, E>(bytes: &[u8], accept: impl Fn(&[u8]) -> Result<T, E>) {
    assert!(accept(bytes).is_ok());
    for changed in changes(bytes).chain(resized(bytes)) {
        assert!(accept(&changed).is_err(), "{}", hex::encode(&changed));
    }
}

#[test]
fn any_single_byte_change_of_a_credential_is_refused() {
    let anchors = anchors();
    refuses_every_change(credential().as_bytes(), |bytes| {
        verify_credential(bytes, node().peer(), &anchors, NOW)
    });
}

#[test]
fn any_single_byte_change_of_a_frame_is_refused() {
    let anchors = anchors();
    let frame = Frame::of(Some(credential().as_bytes())).encode();
    refuses_every_change(&frame, |bytes| {
        verify_frame(bytes, node().peer(), &anchors, NOW)
    });
}

#[test]
fn any_single_byte_change_of_a_request_is_refused() {
    let bytes = SigningRequest::seal(&node(), &name("node-1"), &attributes(&[("a", "b")]), NOW);
    refuses_every_change(&bytes, SigningRequest::open);
}

#[test]
fn any_single_byte_change_of_an_anchor_is_refused() {
    refuses_every_change(&Anchor::seal(&acme(), NOW), Anchor::open);
}

/// Other ways to write the first CBOR items of a document, each of them valid CBOR.
fn second_encodings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (at, &head) in bytes.iter().enumerate() {
        let (major, small) = (head & 0xe0, head & 0x1f);
        let (before, after) = (&bytes[..at], &bytes[at + 1..]);
        if small < 24 {
            // The same number in one byte more, two more, four more, eight more.
            for width in [1_usize, 2, 4, 8] {
                let code = 24 + u8::try_from(width.trailing_zeros()).unwrap();
                let mut longer = vec![major | code];
                longer.extend(vec![0; width - 1]);
                longer.push(small);
                all.push([before, &longer, after].concat());
            }
        }
        if small == 24 {
            all.push([before, &[major | 25, 0], after].concat());
        }
        // An array or a map of indefinite length, its end put at the document's end.
        if matches!(major, 0x80 | 0xa0) {
            all.push([before, &[major | 31], after, &[0xff]].concat());
        }
    }
    all
}

#[test]
fn second_encodings_are_refused() {
    let anchors = anchors();
    let signed = credential();
    let frame = Frame::of(Some(signed.as_bytes())).encode();
    for other in second_encodings(signed.as_bytes()) {
        assert!(
            Credential::decode(&other).is_err(),
            "{}",
            hex::encode(other)
        );
    }
    for other in second_encodings(&frame) {
        assert!(verify_frame(&other, node().peer(), &anchors, NOW).is_err());
    }
    let request = SigningRequest::seal(&node(), &name("n"), &attributes(&[]), NOW);
    for other in second_encodings(&request) {
        assert!(SigningRequest::open(&other).is_err());
    }
    for other in second_encodings(&Anchor::seal(&acme(), NOW)) {
        assert!(Anchor::open(&other).is_err());
    }
}

/// The defence itself, apart from signatures: a second writing of what is *outside* the signed
/// bytes would otherwise verify and give one credential many hashes.
#[test]
fn a_second_writing_of_the_unsigned_wrapping_is_refused() {
    let bytes = credential().as_bytes().to_vec();
    // d8 62 84 40 a0 58 ..: tag 98, array of 4, empty protected, empty unprotected map.
    assert_eq!(bytes[..5], [0xd8, 0x62, 0x84, 0x40, 0xa0]);
    let long_array = [&bytes[..2], &[0x98, 0x04], &bytes[3..]].concat();
    let endless_map = [&bytes[..4], &[0xbf, 0xff], &bytes[5..]].concat();
    let extra_header = [&bytes[..4], &[0xa1, 0x04, 0x41, 0x00], &bytes[5..]].concat();
    let empty_map_protected = [&bytes[..3], &[0x41, 0xa0], &bytes[4..]].concat();
    let wide_tag = [&[0xd9, 0x00, 0x62], &bytes[2..]].concat();
    for other in [
        long_array,
        endless_map,
        extra_header,
        empty_map_protected,
        wide_tag,
    ] {
        assert_eq!(
            verify_credential(&other, node().peer(), &anchors(), NOW),
            Err(Refusal::Malformed("not the canonical encoding")),
            "{}",
            hex::encode(&other)
        );
    }
}

proptest! {
    #[test]
    fn what_is_issued_decodes_to_itself_and_verifies(grant in any_grant(), id: [u8; 16]) {
        let Ok(made) = issue(&acme(), &request_of(&node()), &grant, id, NOW) else {
            // Only a credential that would be too long may fail here.
            return Ok(());
        };
        let read = Credential::decode(made.as_bytes()).unwrap();
        prop_assert_eq!(&read, &made);
        prop_assert_eq!(&read.claims().attributes, &grant.attributes);
        let identity = verify_credential(made.as_bytes(), node().peer(), &anchors(), NOW).unwrap();
        prop_assert_eq!(&identity.attributes, grant.attributes.as_map());
        prop_assert_eq!(identity.groups.len(), grant.groups.iter().count());
    }

    #[test]
    fn claims_decode_to_themselves(
        grant in any_grant(), id: [u8; 16], issued in 0_u64..4_000_000_000, wait in 0_u64..1000,
    ) {
        let claims = Claims {
            issuer: name("acme"),
            subject: grant.subject.unwrap_or_else(|| name("x")),
            validity: Validity::try_new(issued, issued + wait, issued + wait + 1).unwrap(),
            id,
            key: node().peer(),
            algorithms: vec![-19],
            attributes: grant.attributes,
            groups: grant.groups,
        };
        prop_assert_eq!(Claims::decode(&claims.encode()).unwrap(), claims);
    }

    #[test]
    fn requests_decode_to_themselves(
        subject in any_name(), wishes in any_attributes(), secs in 0_u64..4_000_000_000,
    ) {
        let at = Timestamp::from_secs(secs);
        let read = SigningRequest::open(&SigningRequest::seal(&node(), &subject, &wishes, at));
        prop_assert_eq!(
            read.unwrap(),
            SigningRequest { peer: node().peer(), subject, attributes: wishes, created: at }
        );
    }

    #[test]
    fn trust_entries_read_as_written(days in 1_u64..10_000) {
        let mut entry = trust_of(&acme());
        let span = std::time::Duration::from_secs(days * 86_400);
        entry.grants.max_lifetime = crate::types::Span(span);
        entry.grants.groups = vec!["workers".parse().unwrap(), "o*".parse().unwrap()];
        prop_assert_eq!(TrustAnchor::from_text(&entry.to_text()).unwrap(), entry);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Credential::decode(&bytes);
        let _ = Frame::decode(&bytes);
        let _ = SigningRequest::open(&bytes);
        let _ = Anchor::open(&bytes);
        let _ = TrustAnchor::from_text(&String::from_utf8_lossy(&bytes));
        prop_assert!(verify_frame(&bytes, node().peer(), &TrustAnchors::default(), NOW).is_err());
    }

    #[test]
    fn two_bytes_changed_anywhere_are_refused(
        a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), x: u8, y: u8,
    ) {
        let original = credential().as_bytes().to_vec();
        let mut changed = original.clone();
        let (at, then) = (a.index(original.len()), b.index(original.len()));
        changed[at] = x;
        changed[then] = y;
        prop_assume!(changed != original);
        prop_assert!(verify_credential(&changed, node().peer(), &anchors(), NOW).is_err());
    }
}

#[test]
fn the_issuer_decides_and_refuses_what_is_out_of_bounds() {
    use super::IssueError;
    let request = request_of(&node());
    let issued = |grant: &Grant, now| issue(&acme(), &request, grant, [0; 16], now);
    // The request wishes `role = boss`; the grant says `worker`, and that is what counts.
    let role = issued(&grant(), NOW).unwrap();
    assert_eq!(
        role.claims().attributes.as_map().get("role").unwrap(),
        "worker"
    );
    for lifetime in [std::time::Duration::ZERO, super::MAX_LIFETIME * 2] {
        let grant = Grant {
            lifetime,
            ..grant()
        };
        assert_eq!(issued(&grant, NOW), Err(IssueError::Lifetime(lifetime)));
    }
    let late = NOW.after(super::MAX_REQUEST_AGE + std::time::Duration::from_secs(1));
    assert_eq!(issued(&grant(), late), Err(IssueError::Stale(NOW)));
    let early = Timestamp::from_secs(NOW.secs() - 3600);
    assert_eq!(issued(&grant(), early), Err(IssueError::Future(NOW)));
    let long: Vec<(String, String)> = (0..32)
        .map(|i| (format!("attribute-{i}"), "v".repeat(256)))
        .collect();
    let attributes = Attributes::try_new(long.into_iter().collect()).unwrap();
    assert!(matches!(
        issued(
            &Grant {
                attributes,
                ..grant()
            },
            NOW
        ),
        Err(IssueError::TooLong(_))
    ));
}
