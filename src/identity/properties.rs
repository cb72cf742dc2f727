//! Properties of every decoder: one encoding, no change unnoticed, no panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Anchor, Attributes, Chain, Claims, Credential, Delegation, Frame, Grant, Groups, Head, Name,
    Refusal, Role, Scope, SigningRequest, TrustAnchor, TrustAnchors, Validity, VerifiedIdentity,
    decode_delegations, issue,
    status::MAX_ENTRIES,
    testing::{
        NOW, acme, anchors, attributes, berlin, chain, chain_under, channel, credential, frame_of,
        grant, name, node, request_of, serial, to_berlin, to_europe, trust_of,
    },
    verify_chain, verify_credential, verify_frame,
};
use crate::types::{Span, Timestamp};

fn judge(frame: &[u8], anchors: &TrustAnchors) -> Result<VerifiedIdentity, Refusal> {
    verify_frame(frame, node().peer(), &channel(), Role::Opener, anchors, NOW)
}

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

/// Changes of every single byte of `bytes`: at each position one bit flipped (all eight in turn),
/// and at every fourth `0x00` and `0xff` put there.
fn changes(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flips = (0..bytes.len()).map(|at| (at, 1_u8 << (at % 8)));
    let sets = (0..bytes.len())
        .step_by(4)
        .flat_map(|at| [(at, 0), (at, 0xff)]);
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

fn resized(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let longer = [0x00_u8, 0xf6, 0xff].map(|extra| [bytes, &[extra]].concat());
    (0..bytes.len()).map(|n| bytes[..n].to_vec()).chain(longer)
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
    let frame = frame_of(&chain()).encode();
    assert!(judge(&frame, &anchors).is_ok());
    // The credential within is looked at byte for byte above: here one change of each byte.
    for at in 0..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(judge(&changed, &anchors).is_err(), "byte {at}");
        assert!(judge(&frame[..at], &anchors).is_err(), "cut at {at}");
    }
}

#[test]
fn any_single_byte_change_of_a_delegation_is_refused() {
    let anchors = anchors();
    let above = to_europe();
    let leaf = chain_under(&super::testing::europe(), &above);
    refuses_every_change(above[0].as_bytes(), |bytes| {
        let delegation = Delegation::decode(bytes)?;
        let chain = Chain::try_new(leaf.credential().clone(), vec![delegation])?;
        verify_chain(&chain, node().peer(), &anchors, NOW)
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

/// Other ways to write the CBOR items of a document, each of them valid CBOR where an item begins
/// there. Keys and signatures are 6 KB of a document; of what looks like an item within them, every
/// 16th byte is enough.
fn second_encodings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (at, &head) in bytes.iter().enumerate() {
        if at > 256 && at % 16 != 0 {
            continue;
        }
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
    let frame = frame_of(&chain()).encode();
    for other in second_encodings(signed.as_bytes()) {
        assert!(
            Credential::decode(&other).is_err(),
            "{}",
            hex::encode(other)
        );
    }
    for other in second_encodings(&frame) {
        assert!(judge(&other, &anchors).is_err());
    }
    let request = SigningRequest::seal(&node(), &name("n"), &attributes(&[]), NOW);
    for other in second_encodings(&request) {
        assert!(SigningRequest::open(&other).is_err());
    }
    for other in second_encodings(&Anchor::seal(&acme(), NOW)) {
        assert!(Anchor::open(&other).is_err());
    }
    for other in second_encodings(to_europe()[0].as_bytes()) {
        assert!(Delegation::decode(&other).is_err());
        assert!(decode_delegations(&other).is_err());
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
    fn what_is_issued_decodes_to_itself_and_verifies(
        grant in any_grant(), id: [u8; 16], index in 0..MAX_ENTRIES,
    ) {
        let serial = super::Serial { id, index };
        let Ok(made) = issue(&acme(), &request_of(&node()), &grant, serial, NOW) else {
            // Only a credential that would be too long may fail here.
            return Ok(());
        };
        let read = Credential::decode(made.as_bytes()).unwrap();
        prop_assert_eq!(&read, &made);
        prop_assert_eq!(&read.claims().attributes, &grant.attributes);
        let identity = verify_credential(made.as_bytes(), node().peer(), &anchors(), NOW).unwrap();
        prop_assert_eq!(&identity.attributes, grant.attributes.as_map());
        prop_assert_eq!(identity.groups.len(), grant.groups.iter().count());
        prop_assert_eq!(identity.statuses[0].index, index);
    }

    #[test]
    fn claims_decode_to_themselves(
        grant in any_grant(), id: [u8; 16], index in 0..MAX_ENTRIES,
        issued in 0_u64..4_000_000_000, wait in 0_u64..1000,
    ) {
        let claims = Claims {
            head: Head {
                issuer: name("acme"),
                subject: grant.subject.unwrap_or_else(|| name("x")),
                validity: Validity::try_new(issued, issued + wait, issued + wait + 1).unwrap(),
                id,
                status: Some(index),
                algorithms: vec![-19],
            },
            keys: node().public().clone(),
            attributes: grant.attributes,
            groups: grant.groups,
        };
        prop_assert_eq!(Claims::decode(&claims.encode()).unwrap(), claims);
    }

    #[test]
    fn an_index_that_no_list_has_is_neither_issued_nor_read(index in MAX_ENTRIES..) {
        let serial = super::Serial { id: [1; 16], index };
        let issued = issue(&acme(), &request_of(&node()), &grant(), serial, NOW);
        prop_assert_eq!(issued.unwrap_err(), super::IssueError::Full(index));
        let mut claims = credential().claims().clone();
        claims.head.status = Some(index);
        prop_assert!(Claims::decode(&claims.encode()).is_err());
    }

    #[test]
    fn requests_decode_to_themselves(
        subject in any_name(), wishes in any_attributes(), secs in 0_u64..4_000_000_000,
    ) {
        let at = Timestamp::from_secs(secs);
        let read = SigningRequest::open(&SigningRequest::seal(&node(), &subject, &wishes, at));
        prop_assert_eq!(
            read.unwrap(),
            SigningRequest {
                peer: node().peer(),
                keys: node().public().clone(),
                subject,
                attributes: wishes,
                created: at,
            }
        );
    }

    #[test]
    fn trust_entries_read_as_written(days in 1_u64..10_000) {
        let mut entry = trust_of(&acme());
        let span = std::time::Duration::from_secs(days * 86_400);
        entry.grants.max_lifetime = Span(span);
        entry.grants.groups = vec!["workers".parse().unwrap(), "o*".parse().unwrap()];
        prop_assert_eq!(TrustAnchor::from_text(&entry.to_text()).unwrap(), entry);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Credential::decode(&bytes);
        let _ = Frame::decode(&bytes);
        let _ = Delegation::decode(&bytes);
        let _ = Chain::decode(&bytes);
        let _ = SigningRequest::open(&bytes);
        let _ = Anchor::open(&bytes);
        let _ = TrustAnchor::from_text(&String::from_utf8_lossy(&bytes));
        prop_assert!(judge(&bytes, &TrustAnchors::default()).is_err());
    }

    #[test]
    fn delegations_decode_to_themselves(
        groups in proptest::collection::btree_set("[a-z]{1,8}[*]?", 0..20),
        seconds in 0_u64..=3_000_000_000, depth in 0_u8..2,
    ) {
        let groups = groups.into_iter().map(|g| g.parse().unwrap()).collect();
        let mut mandate = to_europe()[0].mandate().clone();
        mandate.scope = Scope {
            groups,
            max_lifetime: Span(std::time::Duration::from_secs(seconds)),
            depth,
        };
        let made = Delegation::sign(mandate.clone(), acme().signer()).unwrap();
        let read = Delegation::decode(made.as_bytes()).unwrap();
        prop_assert_eq!(read.mandate(), &mandate);
        prop_assert_eq!(read, made);
    }

    #[test]
    fn a_byte_changed_anywhere_in_a_chain_of_three_is_refused(
        at in any::<prop::sample::Index>(), mask in 1_u8..,
    ) {
        let frame = three().1;
        let mut changed = frame.clone();
        changed[at.index(frame.len())] ^= mask;
        prop_assert!(judge(frame, three().0).is_ok());
        prop_assert!(judge(&changed, three().0).is_err());
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

/// The anchors, and the frame of a chain of three links.
fn three() -> (&'static TrustAnchors, &'static Vec<u8>) {
    static MADE: std::sync::LazyLock<(TrustAnchors, Vec<u8>)> = std::sync::LazyLock::new(|| {
        let chain = chain_under(&berlin(), &to_berlin());
        (anchors(), frame_of(&chain).encode())
    });
    (&MADE.0, &MADE.1)
}

#[test]
fn sizes_are_what_the_bounds_were_chosen_for() {
    let (one, three) = (frame_of(&chain()).encode().len(), three().1.len());
    let credential = credential().as_bytes().len();
    assert!((6_600..7_200).contains(&credential), "{credential}");
    assert!((9_900..10_600).contains(&one), "{one}");
    assert!((20_000..24_000).contains(&three), "{three}");
    let anchor = Anchor::seal(&acme(), NOW).len();
    assert!((5_300..5_800).contains(&anchor), "{anchor}");
}

#[test]
fn the_issuer_decides_and_refuses_what_is_out_of_bounds() {
    use super::IssueError;
    let request = request_of(&node());
    let issued = |grant: &Grant, now| issue(&acme(), &request, grant, serial(0), now);
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
