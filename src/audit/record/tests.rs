//! Lines: canonical, bounded, sealed; and frozen, byte for byte, by a committed fixture.

use std::{collections::BTreeSet, fs, net::IpAddr, path::PathBuf, time::Duration};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    audit::{
        Direction, checkpoint::SignedCheckpoint, segment_name, storage::faulty::Faulty, verify,
    },
    types::{ChannelKind, Cipher, Group, Party, PeerId, SecurityInfo, Topic},
};

/// Variants of [`AuditEvent`]; [`place_of`] does not compile when one is added.
const VARIANTS: usize = 40;

fn place_of(event: &AuditEvent) -> usize {
    match event {
        AuditEvent::NodeStarted { .. } => 0,
        AuditEvent::NodeStopping { .. } => 1,
        AuditEvent::ConnectionAccepted { .. } => 2,
        AuditEvent::ConnectionClosed { .. } => 3,
        AuditEvent::ConnectionsRefused { .. } => 4,
        AuditEvent::AuthenticationFailed { .. } => 5,
        AuditEvent::Decided { .. } => 6,
        AuditEvent::MessagesRefused { .. } => 7,
        AuditEvent::Charged { .. } => 8,
        AuditEvent::BanStarted { .. } => 9,
        AuditEvent::BanEnded { .. } => 10,
        AuditEvent::ActorRestarted { .. } => 11,
        AuditEvent::ActorEscalated { .. } => 12,
        AuditEvent::Administration { .. } => 13,
        AuditEvent::IdentityLoaded { .. } => 14,
        AuditEvent::StoreSetAside { .. } => 15,
        AuditEvent::LogRecovered { .. } => 16,
        AuditEvent::JobAccepted { .. } => 17,
        AuditEvent::JobRefused { .. } => 18,
        AuditEvent::JobFinished { .. } => 19,
        AuditEvent::JobSent { .. } => 20,
        AuditEvent::JobResult { .. } => 21,
        AuditEvent::StatusListAccepted { .. } => 22,
        AuditEvent::StatusListForked { .. } => 23,
        AuditEvent::StatusListRefused { .. } => 24,
        AuditEvent::CredentialIssued { .. } => 25,
        AuditEvent::CredentialRenewed { .. } => 26,
        AuditEvent::RenewalRefused { .. } => 27,
        AuditEvent::InvitationMade { .. } => 28,
        AuditEvent::QuarantineStarted { .. } => 29,
        AuditEvent::QuarantineEnded { .. } => 30,
        AuditEvent::PolicyLoaded { .. } => 31,
        AuditEvent::PolicyRefused { .. } => 32,
        AuditEvent::PolicyErred { .. } => 33,
        AuditEvent::ShadowDiffered { .. } => 34,
        AuditEvent::SettingsChanged { .. } => 35,
        AuditEvent::SettingsRefused { .. } => 36,
        AuditEvent::KeyRotated { .. } => 37,
        AuditEvent::SettingsTaken { .. } => 38,
        AuditEvent::CallsChanged { .. } => 39,
    }
}

/// What the events of a test are made of.
#[derive(Debug, Clone)]
struct Stuff {
    text: String,
    number: u64,
    score: f64,
    ip: Option<IpAddr>,
    issuers: usize,
}

impl Stuff {
    fn plain() -> Self {
        Self {
            text: "plain".to_owned(),
            number: 7,
            score: 0.25,
            ip: Some([192, 0, 2, 1].into()),
            issuers: 2,
        }
    }

    fn peer() -> PeerId {
        // The base point of Ed25519: a valid key.
        let mut key = [0x66; 32];
        key[0] = 0x58;
        PeerId::from_key_bytes(key).unwrap()
    }

    fn text(&self) -> String {
        self.text.clone()
    }

    fn span(&self) -> (Timestamp, Timestamp) {
        let first = Timestamp::from_millis(self.number);
        (first, first.after(Duration::from_millis(1_500)))
    }

    /// Every variant, some of them twice to have all their branches.
    fn events(&self) -> Vec<AuditEvent> {
        let mut events = self.lifecycle();
        events.extend(self.connections());
        events.extend(self.access());
        events.extend(self.jobs());
        events.extend(self.statuses());
        events.extend(self.credentials());
        events.extend(self.policies());
        events
    }

    fn policies(&self) -> Vec<AuditEvent> {
        let (_, until) = self.span();
        let party = self.ip.map_or(Party::Peer(Self::peer()), Party::Address);
        vec![
            AuditEvent::QuarantineStarted {
                party: party.clone(),
                until,
                reason: self.text(),
            },
            AuditEvent::QuarantineEnded {
                party,
                cause: self.text(),
            },
            AuditEvent::PolicyLoaded {
                dir: Some(self.text()),
                policies: 12,
                hash: self.text(),
                shadow: Some(self.text()),
            },
            AuditEvent::PolicyRefused { why: self.text() },
            AuditEvent::PolicyErred {
                action: self.text(),
                what: self.text(),
                count: self.number,
            },
            AuditEvent::ShadowDiffered {
                action: self.text(),
                active: self.text(),
                shadow: self.text(),
                count: self.number,
            },
            AuditEvent::SettingsChanged {
                config_hash: self.text(),
                applied: vec![self.text(); self.issuers],
                waiting: vec![self.text()],
            },
            AuditEvent::SettingsTaken {
                config_hash: self.text(),
                restarted: vec![self.text(); self.issuers],
                failed: Vec::new(),
            },
            AuditEvent::SettingsTaken {
                config_hash: self.text(),
                restarted: Vec::new(),
                failed: vec![self.text(); self.issuers],
            },
            AuditEvent::SettingsRefused { why: self.text() },
        ]
    }

    fn credentials(&self) -> Vec<AuditEvent> {
        let (expires, _) = self.span();
        vec![
            AuditEvent::CredentialIssued {
                peer: Self::peer(),
                identity: self.text(),
                credential_hash: [9; 32],
                expires,
                rule: self.text(),
            },
            AuditEvent::CredentialRenewed {
                peer: Self::peer(),
                identity: self.text(),
                credential_hash: [9; 32],
                expires,
                rule: self.text(),
            },
            AuditEvent::KeyRotated {
                peer: Self::peer(),
                former: Self::peer(),
                identity: self.text(),
                sequence: self.number,
                rule: self.text(),
            },
            AuditEvent::RenewalRefused {
                peer: Self::peer(),
                code: self.text(),
                detail: self.text(),
            },
            AuditEvent::InvitationMade {
                invitation: self.text(),
                identity: self.text(),
                expires,
            },
        ]
    }

    fn lifecycle(&self) -> Vec<AuditEvent> {
        vec![
            AuditEvent::NodeStarted {
                version: self.text(),
                peer: Self::peer(),
                config_hash: self.text(),
            },
            AuditEvent::ActorRestarted {
                actor: self.text(),
                cause: self.text(),
                detail: self.text(),
                blamed: Some(Party::Peer(Self::peer())),
            },
            AuditEvent::ActorEscalated {
                actor: self.text(),
                detail: self.text(),
            },
            AuditEvent::IdentityLoaded {
                own: Some(self.text()),
                issuers: vec![self.text(); self.issuers],
            },
            AuditEvent::StoreSetAside {
                path: self.text(),
                reason: self.text(),
            },
            AuditEvent::LogRecovered {
                segment: self.text(),
                bytes: self.number,
            },
            AuditEvent::NodeStopping {
                reason: self.text(),
            },
        ]
    }

    fn statuses(&self) -> Vec<AuditEvent> {
        vec![
            AuditEvent::StatusListAccepted {
                issuer: self.text(),
                sequence: self.number,
                list: Some(self.number),
                revoked: 3,
                hash: self.text(),
                from: Some(Self::peer()),
            },
            AuditEvent::StatusListForked {
                issuer: self.text(),
                sequence: self.number,
                known: self.text(),
                other: self.text(),
                from: None,
            },
            AuditEvent::StatusListRefused {
                from: Some(Self::peer()),
                code: self.text(),
                detail: self.text(),
            },
        ]
    }

    fn connections(&self) -> Vec<AuditEvent> {
        let (first, last) = self.span();
        let accepted = |direction| AuditEvent::ConnectionAccepted {
            peer: Self::peer(),
            address: self.ip,
            direction,
            tier: self.text(),
            rule: self.text(),
            identity: Some(self.text()),
            credential_hash: Some([0xab; 32]),
            security: SecurityInfo {
                kind: ChannelKind::Stacked,
                group: Group::X25519MlKem768,
                cipher: Cipher::Aes256Gcm,
            },
            pq_auth: true,
        };
        vec![
            accepted(Direction::Inbound),
            accepted(Direction::Outbound),
            AuditEvent::ConnectionClosed {
                peer: Self::peer(),
                lasted: Duration::from_secs(self.number),
                cause: self.text(),
            },
            AuditEvent::CallsChanged {
                peer: Some(Self::peer()),
                state: self.text(),
                count: self.number,
                first,
                last,
            },
            AuditEvent::ConnectionsRefused {
                reason: self.text(),
                address: self.ip,
                count: self.number,
                first,
                last,
            },
            AuditEvent::AuthenticationFailed {
                peer: Self::peer(),
                address: self.ip,
                code: self.text(),
                detail: self.text(),
            },
        ]
    }

    fn jobs(&self) -> Vec<AuditEvent> {
        let job = "00112233445566778899aabbccddeeff".to_owned();
        vec![
            AuditEvent::JobAccepted {
                job: job.clone(),
                submitter: Self::peer(),
                identity: Some(self.text()),
                module: [7; 32],
                rule: self.text(),
            },
            AuditEvent::JobRefused {
                submitter: Self::peer(),
                code: self.text(),
                detail: self.text(),
            },
            AuditEvent::JobFinished {
                job: job.clone(),
                submitter: Self::peer(),
                outcome: self.text(),
                receipt: [8; 32],
                cpu: Duration::from_millis(self.number),
            },
            AuditEvent::JobSent {
                job: job.clone(),
                executor: Self::peer(),
                module: [7; 32],
            },
            AuditEvent::JobResult {
                job,
                executor: Self::peer(),
                outcome: self.text(),
                receipt: Some([8; 32]),
            },
        ]
    }

    fn access(&self) -> Vec<AuditEvent> {
        let (first, last) = self.span();
        let party = self.ip.map_or(Party::Peer(Self::peer()), Party::Address);
        let decided = |action: &str, verdict: &str| AuditEvent::Decided {
            action: action.to_owned(),
            peer: Self::peer(),
            topic: Topic::try_new("news").ok(),
            verdict: verdict.to_owned(),
            rule: self.text(),
        };
        vec![
            decided("connect", "quarantine"),
            decided("publish", "allow"),
            decided("subscribe", "deny"),
            decided(&self.text, &self.text),
            AuditEvent::MessagesRefused {
                author: self.ip.is_some().then(Self::peer),
                reason: self.text(),
                count: self.number,
                first,
                last,
            },
            AuditEvent::Charged {
                party: party.clone(),
                severity: self.text(),
                evidence: self.text(),
                before: self.score,
                after: self.score / 2.0,
            },
            AuditEvent::BanStarted {
                party: party.clone(),
                until: last,
                reason: self.text(),
            },
            AuditEvent::BanStarted {
                party: "acme/node-3".parse().unwrap(),
                until: last,
                reason: self.text(),
            },
            AuditEvent::BanEnded {
                party,
                cause: self.text(),
            },
            AuditEvent::Administration {
                command: self.text(),
                detail: self.text(),
                uid: u32::try_from(self.number).ok(),
                peer: None,
                success: true,
            },
            AuditEvent::Administration {
                command: self.text(),
                detail: self.text(),
                uid: None,
                peer: Some(Self::peer()),
                success: false,
            },
        ]
    }
}

fn time() -> Timestamp {
    Timestamp::from_secs(1_795_478_400)
}

/// The line of `body` after `head`, without its newline, and the head after it.
fn line(body: Body<'_>, head: &Head) -> (Vec<u8>, Head) {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&head.size.to_be_bytes());
    let draft = Draft {
        version: "test",
        id: EventId(id),
        time: time(),
        body,
    };
    let mut out = Vec::new();
    let next = write(&draft, head, &mut out).unwrap();
    assert_eq!(out.pop(), Some(b'\n'));
    (out, next)
}

/// The line of an event that is not the log's first.
fn event_line(event: &AuditEvent) -> Vec<u8> {
    let head = Head {
        size: 41,
        fingerprint: Fingerprint::genesis(),
        uid: Some(EventId([9; 16])),
    };
    line(Body::Event(event), &head).0
}

fn genesis() -> SegmentHead {
    SegmentHead {
        cause: SegmentCause::Genesis,
        format: FORMAT,
        head: Fingerprint::genesis(),
        number: 1,
        size: 0,
        tree: Vec::new(),
    }
}

/// A checkpoint as a node signs it.
fn note() -> String {
    let key = crate::identity::NodeKey::from_seed(&[0x4e; 32]);
    let signed = SignedCheckpoint::sign(41, Hash::leaf(b"a line"), &key);
    signed.unwrap().encode()
}

fn check(line: &[u8]) -> Value {
    assert!(line.len() <= MAX_LINE, "{} bytes", line.len());
    assert!(!line.contains(&b'\n'));
    let value: Value = serde_json::from_slice(line).unwrap();
    let canonical = serde_json_canonicalizer::to_vec(&value).unwrap();
    assert_eq!(
        String::from_utf8_lossy(line),
        String::from_utf8_lossy(&canonical)
    );
    value
}

#[test]
fn every_event_is_a_canonical_line_that_reads_back() {
    let mut seen = BTreeSet::new();
    for event in Stuff::plain().events() {
        seen.insert(place_of(&event));
        let line = event_line(&event);
        let value = check(&line);
        let entry = read(&line).unwrap();
        assert!(entry.sound);
        assert_eq!(entry.sequence, 41);
        assert_eq!(entry.previous, Some(Fingerprint::genesis()));
        assert_eq!(entry.segment, None);
        assert_ne!(entry.event, "other", "{event:?} is not rendered");
        let number = |name: &str| value[name].as_u64().unwrap();
        assert_eq!(
            number("type_uid"),
            number("class_uid") * 100 + number("activity_id")
        );
        assert_eq!(number("category_uid"), number("class_uid") / 1000);
    }
    assert_eq!(seen, (0..VARIANTS).collect());
}

#[test]
fn a_segments_first_line_reads_back_and_has_no_predecessor_only_in_a_new_log() {
    let (first, head) = line(Body::Segment(&genesis()), &Head::genesis());
    check(&first);
    let entry = read(&first).unwrap();
    assert!(entry.sound);
    assert_eq!(entry.head(), head);
    assert_eq!((entry.segment, entry.previous), (Some(genesis()), None));
    let second = SegmentHead {
        cause: SegmentCause::WriteFailed,
        head: head.fingerprint,
        number: 2,
        size: 1,
        tree: vec![Hash::leaf(&first)],
        ..genesis()
    };
    let entry = read(&line(Body::Segment(&second), &head).0).unwrap();
    assert_eq!(entry.previous, Some(head.fingerprint));
    assert_eq!(entry.segment, Some(second));
}

/// A note cut in the middle would verify for nobody.
#[test]
fn a_checkpoint_stands_whole_in_its_line() {
    let note = note();
    let (line, _) = line(Body::Checkpoint(&note), &Head::genesis());
    let value = check(&line);
    assert_eq!(value["metadata"].get("is_truncated"), None);
    let entry = read(&line).unwrap();
    assert!(entry.sound);
    assert_eq!(entry.checkpoint, Some(note));
}

#[test]
fn absurd_texts_are_cut_on_a_character_and_no_line_exceeds_its_bound() {
    for text in ["\u{1}", "\"", "é€😀", "x", "\u{7f}\n"] {
        let long = text.repeat(70_000);
        let stuff = Stuff {
            text: long.clone(),
            number: u64::MAX,
            score: f64::NAN,
            ip: Some([0xffff; 8].into()),
            issuers: 200,
        };
        for event in stuff.events() {
            let line = event_line(&event);
            let value = check(&line);
            assert!(read(&line).unwrap().sound);
            for field in ["/status_detail", "/status_code", "/unmapped/tier"] {
                if let Some(kept) = value.pointer(field).and_then(Value::as_str) {
                    let kept = kept.strip_suffix('…').expect("a mark where it was cut");
                    assert!(!kept.is_empty() && long.starts_with(kept), "{field}");
                    assert_eq!(value["metadata"]["is_truncated"], true);
                }
            }
        }
    }
}

/// Every bit of an event's line, and of a first line, which names no predecessor.
#[test]
fn no_bit_of_a_line_can_flip_unseen() {
    let reason = "a signal".to_owned();
    let lines = [
        event_line(&AuditEvent::NodeStopping { reason }),
        line(Body::Segment(&genesis()), &Head::genesis()).0,
    ];
    for line in lines {
        for at in 0..line.len() * 8 {
            let mut changed = line.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let unseen = read(&changed).is_ok_and(|entry| entry.sound);
            assert!(!unseen, "{}", String::from_utf8_lossy(&changed));
        }
    }
}

/// Sealing is not fooled by a text that looks like the seal.
#[test]
fn a_text_that_imitates_the_seal_changes_nothing() {
    let mut imitation = String::from_utf8(SEAL_OPEN.to_vec()).unwrap();
    imitation.push_str(&"0".repeat(64));
    for text in [imitation.clone(), format!("{imitation}\"}},")] {
        let stuff = Stuff {
            text,
            ..Stuff::plain()
        };
        for event in stuff.events() {
            assert!(read(&event_line(&event)).unwrap().sound);
        }
    }
}

fn stuff() -> impl Strategy<Value = Stuff> {
    let text = "\\PC{0,40}|[\\x00-\\x7f…€]{0,40}|.{0,600}";
    let score = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1.0..2.0f64];
    (
        text,
        any::<u64>(),
        score,
        any::<Option<IpAddr>>(),
        0usize..300,
    )
        .prop_map(|(text, number, score, ip, issuers)| Stuff {
            text,
            number,
            score,
            ip,
            issuers,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happened_its_line_is_canonical_bounded_and_sound(stuff in stuff()) {
        for event in stuff.events() {
            let line = event_line(&event);
            check(&line);
            prop_assert!(read(&line).unwrap().sound);
        }
    }

    #[test]
    fn no_byte_of_a_line_can_change_unseen(
        stuff in stuff(),
        which: prop::sample::Index,
        at: prop::sample::Index,
        change in 1u8..,
    ) {
        let events = stuff.events();
        let mut line = event_line(which.get(&events));
        let at = at.index(line.len());
        line[at] ^= change;
        prop_assert!(!read(&line).is_ok_and(|entry| entry.sound));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(read(&bytes).is_err());
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The line format, frozen: one byte that changes fails here until somebody changes the fixture
/// on purpose (`QUANTRABAND_BLESS=1 cargo test --lib audit::record`) and raises [`FORMAT`].
#[test]
fn the_line_format_is_frozen() {
    let (mut made, mut head) = (Vec::new(), Head::genesis());
    let mut push = |body: Body<'_>| {
        let (line, next) = line(body, &head);
        made.extend_from_slice(&line);
        made.push(b'\n');
        head = next;
    };
    push(Body::Segment(&genesis()));
    for event in &Stuff::plain().events() {
        push(Body::Event(event));
    }
    let path = root().join("tests/fixtures/audit/segment.jsonl");
    if std::env::var_os("QUANTRABAND_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    let made = String::from_utf8(made).unwrap();
    for (number, (kept, made)) in kept.lines().zip(made.lines()).enumerate() {
        assert_eq!(kept, made, "line {}: the format changed", number + 1);
    }
    assert_eq!(kept, made, "the format changed");

    let storage = Faulty::new(1);
    storage.put(&segment_name(1), kept.as_bytes());
    let report = verify(&storage).unwrap();
    assert!(report.is_intact(), "{:#?}", report.findings);
    assert_eq!(report.records, head.size);
}

/// The table of events in the reference names each event with its class, and no other.
#[test]
fn the_reference_lists_every_event() {
    let reference = fs::read_to_string(root().join("docs/reference/audit-log.md")).unwrap();
    let listed: BTreeSet<(String, String)> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once("` | "))
        .map(|(name, rest)| {
            let class: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (name.to_owned(), class)
        })
        // Other tables have no class there.
        .filter(|(_, class)| class.len() == 4)
        .collect();
    let mut lines: Vec<_> = Stuff::plain().events().iter().map(event_line).collect();
    lines.push(line(Body::Segment(&genesis()), &Head::genesis()).0);
    lines.push(line(Body::Checkpoint(&note()), &Head::genesis()).0);
    let made: BTreeSet<(String, String)> = lines
        .iter()
        .map(|line| {
            let value: Value = serde_json::from_slice(line).unwrap();
            let name = value["unmapped"]["event"].as_str().unwrap().to_owned();
            (name, value["class_uid"].to_string())
        })
        .collect();
    assert_eq!(listed, made);
}
