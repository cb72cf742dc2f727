//! What must hold for any bytes a peer may send: one function for each decoder.
//!
//! Each panics when its property is broken, and only then. Two properties are common to all: no
//! bytes make a decoder panic, and what decodes has exactly one encoding. Where a signature stands
//! in the way of a mutated document, the function signs it itself, so that what comes after the
//! signature is reached as well.
//!
//! Used by the fuzz targets, and by `tests/fuzz_seeds.rs` of the package, which replays the
//! committed seeds.

use std::sync::LazyLock;

use ciborium::Value;
use ed25519_dalek::{Signer, SigningKey};
use quantraband::{
    admin::remote,
    audit::{
        checkpoint::{InclusionProof, SignedCheckpoint, log_keys},
        note::{MAX_NOTE, Note, VerifierKey},
        witness,
    },
    identity::{
        Anchor, BINDING_BYTES, Binding, Chain, Channel, Continuity, Credential, Delegation, Domain,
        Frame, Grants, IssuerKey, MAX_CREDENTIAL_BYTES, Name, NodeKey, Refusal, Role,
        SigningRequest, TrustAnchor, TrustAnchors,
        status::{StatusHead, StatusList, heads_of_bytes},
        verify_credential, verify_frame, wire as identity_wire,
    },
    network::{
        Envelope,
        envelope::{MAX_ENTRIES, OVERHEAD, Trace},
        gate::wire,
        secure::Frames,
    },
    sandbox::{
        Receipt,
        receipt::{MAX_RECEIPT_BYTES, ReceiptError},
        wire::{MAX_REQUEST, MAX_RESPONSE, Request, Response},
    },
    types::{PeerId, Timestamp},
};

/// Most payload of an envelope here: long enough for every length of a CBOR head but the longest.
const MAX_PAYLOAD: usize = 70_000;
/// COSE label of the algorithm, and Ed25519's number (RFC 9864).
const ALG: i64 = 1;
const ED25519: i64 = -19;
/// Seed of the issuer whose credentials are believed here; it made those of the fixtures.
const ISSUER: [u8; 32] = [0x49; 32];
/// Seed of the node that signs receipts here; it made that of the fixtures.
const EXECUTOR: [u8; 32] = [0x45; 32];

/// Seed of the node that signs the log of the fixtures.
const LOGGER: [u8; 32] = [0x4e; 32];
/// Records of that log, of which one checkpoint was signed.
const LOGGED: u64 = 7;

/// Panics when something that must hold for these bytes does not.
pub type Property = fn(&[u8]);

/// The name and the property of every target.
pub const TARGETS: [(&str, Property); 18] = [
    ("administration", administration),
    ("muxer_frames", muxer_frames),
    ("audit_proof", audit_proof),
    ("checkpoint", checkpoint),
    ("witness", witness),
    ("gate_message", gate_message),
    ("gate_frame", gate_frame),
    ("credential", credential),
    ("delegation", delegation),
    ("enrolment", enrolment),
    ("continuity", continuity),
    ("envelope", envelope),
    ("identity_request", identity_request),
    ("identity_response", identity_response),
    ("job_request", job_request),
    ("job_response", job_response),
    ("receipt", receipt),
    ("status_list", status_list),
];

/// Frames of a multiplexed connection, before and after its peer is accepted: no more is held than
/// the bounds allow, and it makes no difference in what pieces the bytes come.
pub fn muxer_frames(bytes: &[u8]) {
    for accepted in [false, true] {
        let mut whole = Frames::new(accepted);
        let taken = whole.take(bytes);
        assert!(whole.held() <= Frames::MOST);
        let mut pieces = Frames::new(accepted);
        let in_pieces = bytes.chunks(7).try_for_each(|piece| pieces.take(piece));
        assert_eq!(in_pieces, taken);
        assert_eq!(pieces.held(), whole.held());
    }
}

/// A message of the gate: its length prefix, then its body.
pub fn gate_message(bytes: &[u8]) {
    let Some((prefix, body)) = bytes.split_first_chunk::<{ wire::PREFIX }>() else {
        return;
    };
    if let Ok(length) = wire::body_length(*prefix) {
        assert!((1..=wire::MAX_MESSAGE).contains(&length));
    }
    // The transport reads as many bytes as the prefix says; here the body is what there is.
    if body.len() > wire::MAX_MESSAGE {
        return;
    }
    if let Ok(message) = wire::Message::decode(body.to_vec()) {
        let encoded = message.encode();
        let (prefix, again) = encoded.split_first_chunk().expect("a prefix");
        assert_eq!(wire::body_length(*prefix), Ok(body.len()));
        assert_eq!(again, body);
    }
}

/// A status list, or the head of one; its statement when the bytes have the form of neither, which
/// is then signed.
pub fn status_list(bytes: &[u8]) {
    if let Ok(list) = StatusList::decode(bytes) {
        assert_eq!(&*list.as_bytes(), bytes);
        assert!(list.revoked() <= list.statement().entries);
        let _ = list.verify(anchors());
        return;
    }
    if let Ok(heads) = heads_of_bytes(bytes) {
        let again: Vec<u8> = heads
            .iter()
            .flat_map(|head| head.as_bytes().to_vec())
            .collect();
        assert_eq!(again, bytes);
    }
    let sealed = issuer().signer().seal(Domain::StatusHead, bytes);
    if let Ok(head) = StatusHead::decode(&sealed) {
        assert_eq!(head.as_bytes(), sealed);
        assert!(head.statement().sequence > 0);
        assert!(head.statement().next_update > head.statement().issued);
        head.verify(issuer().public())
            .expect("the signatures are good");
    }
}

/// A continuity statement; its payload when the bytes have no tag of one, which is then signed by a
/// single pair of keys: never enough.
pub fn continuity(bytes: &[u8]) {
    if let Ok(statement) = Continuity::open(bytes) {
        assert_eq!(statement.as_bytes(), bytes);
        assert_ne!(statement.former(), statement.new_keys().peer);
        assert!(statement.sequence() > 0);
        return;
    }
    let sealed = issuer().signer().seal(Domain::Continuity, bytes);
    assert!(Continuity::open(&sealed).is_err(), "one pair is not two");
}

/// A command from afar, or its answer. JSON has many texts for one value; the value is one.
pub fn administration(bytes: &[u8]) {
    if let Ok(request @ remote::Request::Command(_)) = remote::Request::decode(bytes) {
        assert_eq!(remote::Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(answer) = remote::Response::decode(bytes) {
        let again = remote::Response::decode(&answer.encode());
        assert!(again.is_ok(), "{answer:?}");
    }
}

/// A signed note, and a checkpoint: nobody's is believed but the one that the log signed.
pub fn checkpoint(bytes: &[u8]) {
    if let Ok(note) = Note::read(bytes) {
        assert!(bytes.len() <= MAX_NOTE);
        assert_eq!(note.encode().as_bytes(), bytes);
    }
    if let Ok(signed) = SignedCheckpoint::read(bytes) {
        assert_eq!(signed.encode().as_bytes(), bytes);
        assert!(signed.note().text() == signed.checkpoint().text());
        if signed.verify(auditors()).is_ok() {
            assert_eq!(signed.checkpoint().size, LOGGED);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = VerifierKey::read(text)
    {
        assert_eq!(key.to_string(), text);
    }
}

/// A proof that a record is in a log.
pub fn audit_proof(bytes: &[u8]) {
    if let Ok(proof) = InclusionProof::read(bytes) {
        assert_eq!(proof.encode().as_bytes(), bytes);
        if proof.verify(auditors()).is_ok() {
            assert!(proof.index < LOGGED);
            assert_eq!(
                proof.line,
                format!("{{\"line\":{}}}", proof.index).as_bytes()
            );
        }
    }
}

/// What logs and witnesses say to one another.
pub fn witness(bytes: &[u8]) {
    if let Ok(request) = witness::Request::read(bytes) {
        assert_eq!(request.encode().as_bytes(), bytes);
        // Whatever it says, a witness without a head of the log takes only what the log signed.
        let verdict = witness::Witness::new(1).consider(&request, auditors());
        if let witness::Verdict::Persist(ticket) = verdict {
            assert_eq!(ticket.head().checkpoint().size, LOGGED);
        }
    }
    if let Ok(response) = witness::Response::read(bytes) {
        assert_eq!(response.encode().as_bytes(), bytes);
    }
    if let Ok(two) = witness::Equivocation::read(bytes) {
        assert_eq!(two.encode().as_bytes(), bytes);
        assert!(!two.verify(auditors()), "the log signed one history");
    }
}

/// A request of the identity protocol.
pub fn identity_request(bytes: &[u8]) {
    if let Ok(request) = identity_wire::Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
}

/// A response of the identity protocol.
pub fn identity_response(bytes: &[u8]) {
    if let Ok(response) = identity_wire::Response::decode(bytes) {
        assert_eq!(response.encode(), bytes);
    }
}

/// A credential frame, and what the gate does with it.
pub fn gate_frame(bytes: &[u8]) {
    let channel = channel();
    let peer = channel.opener;
    let judged = verify_frame(bytes, peer, &channel, Role::Opener, anchors(), now());
    match Frame::decode(bytes) {
        Ok(frame) => {
            assert_eq!(frame.encode(), bytes);
            if let Ok(identity) = judged {
                assert_eq!(identity.peer, peer);
            }
        }
        Err(refusal) => assert_eq!(judged, Err(refusal)),
    }
}

/// A credential; or, when the bytes have no tag of one, its claims, which are then signed.
pub fn credential(bytes: &[u8]) {
    if bytes.starts_with(&[0xd8, 0x62]) {
        let _ = judge(bytes);
        return;
    }
    let mut sealed = issuer().signer().seal(Domain::Credential, bytes);
    if let Some(Err(Refusal::Signature(why))) = judge(&sealed) {
        assert_ne!(why, "does not verify", "the signatures are good");
    }
    // The last byte is the ML-DSA signature's: a good Ed25519 signature alone is not enough.
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    assert!(!matches!(judge(&sealed), Some(Ok(()))));
}

/// A delegation; or, when the bytes have no tag of one, its claims, which are then signed.
pub fn delegation(bytes: &[u8]) {
    let whole = if bytes.starts_with(&[0xd8, 0x62]) {
        bytes.to_vec()
    } else {
        issuer().signer().seal(Domain::Delegation, bytes)
    };
    if let Ok(read) = Delegation::decode(&whole) {
        assert_eq!(read.as_bytes(), whole);
        assert!(
            Credential::decode(&whole).is_err(),
            "one document, two kinds"
        );
        let mandate = read.mandate();
        assert!(mandate.scope.depth < 2);
    }
    // As a file holds them, one after the other.
    if let Ok(chain) = Chain::decode(&whole) {
        assert_eq!(chain.encode(), whole);
    }
}

/// Verifies what decodes at the time it begins to hold; `None`: it does not decode.
fn judge(bytes: &[u8]) -> Option<Result<(), Refusal>> {
    let credential = Credential::decode(bytes).ok()?;
    assert!(bytes.len() <= MAX_CREDENTIAL_BYTES);
    assert_eq!(credential.as_bytes(), bytes);
    let claims = credential.claims();
    let from = Timestamp::from_secs(claims.validity.not_before());
    let bound = claims.keys.peer;
    let judged = verify_credential(bytes, bound, anchors(), from);
    if let Ok(identity) = &judged {
        assert_eq!(identity.peer, bound);
        assert_eq!(identity.issuer.as_str(), "acme");
        let stranger = channel().listener;
        let stolen = verify_credential(bytes, stranger, anchors(), from);
        assert!(stranger == bound || stolen == Err(Refusal::WrongKey));
    }
    Some(judged.map(drop))
}

/// What operators hand to one another: a signing request, an anchor.
pub fn enrolment(bytes: &[u8]) {
    if let Ok(request) = SigningRequest::open(bytes) {
        assert!(SigningRequest::open(bytes).is_ok_and(|again| again == request));
        assert!(Anchor::open(bytes).is_err(), "one document, two kinds");
    }
    let _ = Anchor::open(bytes);
}

/// A gossip message's envelope.
pub fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes, MAX_PAYLOAD) {
        assert_eq!(envelope.encode(), bytes);
        assert!((1..=MAX_ENTRIES).contains(&envelope.entries.len()));
        // A tighter limit refuses it, a just sufficient one does not.
        let lengths = envelope.entries.iter().map(|entry| entry.payload.len());
        let longest = lengths.max().unwrap_or_default();
        let least = longest.max(bytes.len().saturating_sub(OVERHEAD));
        assert!(Envelope::decode(bytes, least).is_ok());
        assert!(least == 0 || Envelope::decode(bytes, least - 1).is_err());
        for trace in envelope
            .entries
            .iter()
            .filter_map(|one| one.trace.as_deref())
        {
            let again = Trace::new(trace.parent(), trace.state());
            assert!(again.is_ok_and(|again| again == *trace));
        }
    }
}

/// A request of the job protocol.
pub fn job_request(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert!(bytes.len() <= MAX_REQUEST);
        assert_eq!(request.encode(), bytes);
        if let Request::Submit(spec) = request {
            assert_eq!(spec.check(), Ok(()));
        }
    }
}

/// A response of the job protocol.
pub fn job_response(bytes: &[u8]) {
    if let Ok(response) = Response::decode(bytes) {
        assert!(bytes.len() <= MAX_RESPONSE);
        assert_eq!(response.encode(), bytes);
        if let Response::Refused(refused) = response {
            assert!(!refused.detail.chars().any(char::is_control));
        }
    }
}

/// A receipt; or, when the bytes have no tag of one, its body, which is then signed.
pub fn receipt(bytes: &[u8]) {
    if bytes.starts_with(&[0xd2]) {
        if let Ok(read) = Receipt::decode(bytes) {
            assert!(bytes.len() <= MAX_RECEIPT_BYTES);
            assert_eq!(read.bytes(), bytes);
            same_when_signed_again(&read);
        }
        return;
    }
    let Ok(unsigned) = Receipt::decode(&seal_receipt(bytes, &[0; 64])) else {
        return;
    };
    assert_eq!(unsigned.verify(), Err(ReceiptError::Signature));
    let key = SigningKey::from_bytes(&EXECUTOR);
    let signature = key.sign(&receipt_to_be_signed(bytes)).to_bytes();
    let signed = Receipt::decode(&seal_receipt(bytes, &signature)).expect("as before");
    let own = unsigned.unverified().executor == NodeKey::from_seed(&EXECUTOR).peer();
    assert_eq!(signed.verify().is_ok(), own);
    same_when_signed_again(&signed);
}

fn same_when_signed_again(receipt: &Receipt) {
    let key = NodeKey::from_seed(&EXECUTOR);
    if let Ok(body) = receipt.verify()
        && body.executor == key.peer()
    {
        assert_eq!(Receipt::sign(body.clone(), &key).bytes(), receipt.bytes());
    }
}

/// 2026-11-24T12:00:00Z, within the fixtures' times.
fn now() -> Timestamp {
    Timestamp::from_secs(1_795_521_600)
}

/// The keys of the fixtures' log.
fn auditors() -> &'static [VerifierKey] {
    static MADE: LazyLock<Vec<VerifierKey>> =
        LazyLock::new(|| log_keys(NodeKey::from_seed(&LOGGER).public()));
    &MADE
}

fn issuer() -> &'static IssuerKey {
    static MADE: LazyLock<IssuerKey> =
        LazyLock::new(|| IssuerKey::from_seed(Name::try_new("acme").expect("a name"), &ISSUER));
    &MADE
}

fn anchors() -> &'static TrustAnchors {
    static MADE: LazyLock<TrustAnchors> = LazyLock::new(|| {
        let mut anchors = TrustAnchors::default();
        anchors
            .add(TrustAnchor {
                issuer: issuer().name().clone(),
                key: issuer().public().clone(),
                grants: Grants::default(),
            })
            .expect("the first");
        anchors
    });
    &MADE
}

/// The channel over which the fixtures' frame was presented.
fn channel() -> Channel {
    static ENDS: LazyLock<[PeerId; 2]> =
        LazyLock::new(|| [0x4e, 0x4c].map(|seed| NodeKey::from_seed(&[seed; 32]).peer()));
    let [opener, listener] = *ENDS;
    Channel {
        opener,
        listener,
        binding: Binding::Exporter([0x42; BINDING_BYTES]),
    }
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("a vector takes all");
    out
}

fn binary(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn sign1_header() -> Vec<u8> {
    cbor(&Value::Map(vec![(ALG.into(), ED25519.into())]))
}

fn seal_receipt(payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let parts = vec![
        binary(&sign1_header()),
        Value::Map(Vec::new()),
        binary(payload),
        binary(signature),
    ];
    cbor(&Value::Tag(18, Box::new(Value::Array(parts))))
}

fn receipt_to_be_signed(payload: &[u8]) -> Vec<u8> {
    cbor(&Value::Array(vec![
        "Signature1".into(),
        binary(&sign1_header()),
        binary(b"quantraband/receipt/1"),
        binary(payload),
    ]))
}
