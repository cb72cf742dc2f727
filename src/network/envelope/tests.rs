use super::*;
use ciborium::Value;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn sample(credential: bool, entries: Vec<Entry>) -> Envelope {
    Envelope {
        sent: Timestamp::from_millis(1_790_000_000_123),
        first: 42,
        credential: credential.then_some([0xab; 32]),
        entries,
    }
}

fn one(payload: &[u8]) -> Envelope {
    sample(false, vec![Entry::plain(payload)])
}

fn traced(payload: &[u8], state: Option<&str>) -> Entry {
    Entry {
        trace: Some(Box::new(Trace::new(PARENT, state).unwrap())),
        ..Entry::plain(payload)
    }
}

fn sealed(payload: &[u8]) -> Entry {
    Entry {
        sealed: true,
        ..Entry::plain(payload)
    }
}

fn samples() -> Vec<Envelope> {
    vec![
        sample(true, vec![Entry::plain(*b"hello")]),
        sample(false, vec![Entry::plain(*b"")]),
        sample(true, vec![Entry::plain([7; 300])]),
        sample(true, vec![sealed(b"hello")]),
        sample(true, vec![traced(b"hello", None)]),
        sample(true, vec![traced(b"hello", Some("rojo=00f0,t@s=x y"))]),
        sample(
            true,
            vec![
                Entry::plain(*b"one"),
                sealed(b"two"),
                traced(b"three", Some("a=1")),
            ],
        ),
        sample(false, (0..30).map(|n| Entry::plain([n])).collect()),
    ]
}

#[test]
fn the_bytes_are_frozen() {
    let written: Vec<String> = samples().iter().map(|e| hex::encode(e.encode())).collect();
    let path = "tests/fixtures/network/envelope.hex";
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        std::fs::write(path, written.join("\n") + "\n").unwrap();
    }
    let frozen = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, frozen.lines().collect::<Vec<_>>());
    for (line, sample) in frozen.lines().zip(&samples()) {
        let read = Envelope::decode(&hex::decode(line).unwrap(), 300);
        assert_eq!(read.as_ref(), Ok(sample));
    }
}

/// `docs/reference/envelope.cddl`, as far as it is needed here: rules by name, comments left out.
fn schema() -> BTreeMap<String, String> {
    let text = include_str!("../../../docs/reference/envelope.cddl");
    let bare: Vec<&str> = text
        .lines()
        .map(|line| line.split(';').next().unwrap_or_default().trim())
        .collect();
    let joined = bare.join(" ");
    let mut rules = BTreeMap::new();
    let mut rest = joined.as_str();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim();
        // A rule ends where the next name before a bare `=` begins.
        let next = after.match_indices(" = ").next().map(|(at, _)| at);
        let end = next.map_or(after.len(), |at| {
            after[..at].trim_end().rfind(' ').unwrap_or(0)
        });
        rules.insert(
            name.to_owned(),
            after[..end]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        );
        rest = &after[end..];
    }
    rules
}

/// Whether a document has the shape that a rule of the schema gives it.
fn fits(rules: &BTreeMap<String, String>, rule: &str, value: &Value) -> bool {
    let rule = rule.trim();
    if let Some(named) = rules.get(rule) {
        return fits(rules, named, value);
    }
    if let Some(group) = rule.strip_prefix('{').and_then(|r| r.strip_suffix('}')) {
        return fits_map(rules, group, value);
    }
    if let Some(list) = rule.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
        let (range, of) = list.trim().split_once(' ').unwrap();
        let (least, most) = range.split_once('*').unwrap();
        let Some(items) = value.as_array() else {
            return false;
        };
        return items.len() >= least.parse::<usize>().unwrap()
            && items.len() <= most.parse::<usize>().unwrap()
            && items.iter().all(|item| fits(rules, of, item));
    }
    if rule.contains(" / ") {
        return rule.split(" / ").any(|choice| fits(rules, choice, value));
    }
    let mut words = rule.split(' ');
    let (kind, control) = (words.next().unwrap(), words.next());
    let length = match (kind, value) {
        ("uint", Value::Integer(n)) => return control.is_none() && u64::try_from(*n).is_ok(),
        ("null", Value::Null) => return true,
        ("bstr", Value::Bytes(bytes)) => bytes.len(),
        ("tstr", Value::Text(text)) => text.len(),
        (number, Value::Integer(n)) => return number.parse::<i128>() == Ok(i128::from(*n)),
        _ => return false,
    };
    match (control, words.next()) {
        (Some(".size"), Some(range)) => {
            let range = range.trim_matches(['(', ')']);
            let (least, most) = range.split_once("..").unwrap_or((range, range));
            (least.parse::<usize>().unwrap()..=most.parse().unwrap()).contains(&length)
        }
        // What the text looks like is the Recommendation's business.
        (Some(".regexp") | None, _) => true,
        other => panic!("{other:?} in {rule}"),
    }
}

fn fits_map(rules: &BTreeMap<String, String>, group: &str, value: &Value) -> bool {
    let Some(entries) = value.as_map() else {
        return false;
    };
    let mut left: BTreeMap<i128, &Value> = entries
        .iter()
        .map(|(key, value)| (key.as_integer().unwrap().into(), value))
        .collect();
    let all = group.split(", ").all(|field| {
        let optional = field.trim().starts_with('?');
        let field = field.trim().trim_start_matches('?').trim();
        let (key, of) = field.split_once("=>").unwrap();
        match left.remove(&key.trim().parse().unwrap()) {
            Some(value) => fits(rules, of, value),
            None => optional,
        }
    });
    all && left.is_empty()
}

#[test]
fn the_fixtures_fit_the_schema_and_what_differs_does_not() {
    let rules = schema();
    for name in ["envelope", "entry", "plain", "sealed", "credential"] {
        assert!(rules.contains_key(name), "{rules:?}");
    }
    let read = |bytes: &[u8]| ciborium::from_reader::<Value, _>(bytes).unwrap();
    for sample in samples() {
        let value = read(&sample.encode());
        assert!(fits(&rules, "envelope", &value), "{value:?}");
        // Every field that is left out, and every field more, is one that the schema minds too.
        let Value::Map(fields) = value else { panic!() };
        for missing in 0..fields.len() {
            let mut fields = fields.clone();
            fields.remove(missing);
            assert!(!fits(&rules, "envelope", &Value::Map(fields)));
        }
        let more = Value::Map([fields, vec![(6.into(), 1.into())]].concat());
        assert!(!fits(&rules, "envelope", &more));
    }
    let empty = sample(false, Vec::new());
    assert!(!fits(&rules, "envelope", &read(&empty.encode())));
    assert!(Envelope::decode(&empty.encode(), 9).is_err());
    let many = sample(false, vec![Entry::plain(*b""); MAX_ENTRIES + 1]);
    assert!(!fits(&rules, "envelope", &read(&many.encode())));
    assert!(Envelope::decode(&many.encode(), 1 << 20).is_err());
}

#[test]
fn another_version_is_named_whatever_follows() {
    let bytes = hex::decode("a70103").unwrap();
    assert_eq!(Envelope::decode(&bytes, 10), Err(EnvelopeError::Version(3)));
}

#[test]
fn too_much_is_refused_before_it_is_copied() {
    let limit = 10;
    let too_large = Err(EnvelopeError::TooLarge { limit });
    assert_eq!(Envelope::decode(&one(&[0; 11]).encode(), limit), too_large);
    assert_eq!(
        Envelope::decode(&one(&[0; 1000]).encode(), limit),
        too_large
    );
    let many = sample(false, vec![Entry::plain([0; 10]); 100]);
    assert_eq!(Envelope::decode(&many.encode(), limit), too_large, "in all");
    // A payload that claims 2^63 bytes and has none.
    let mut liar = one(b"").encode();
    liar.pop();
    liar.extend([0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert!(Envelope::decode(&liar, limit).is_err());
    // A list that claims 1,024 entries and has one.
    let mut liar = one(b"").encode();
    let at = liar.len() - 4;
    assert_eq!(liar[at], 0x81);
    liar.splice(at..=at, [0x99, 4, 0]);
    assert_eq!(
        Envelope::decode(&liar, limit),
        Err(EnvelopeError::Malformed)
    );
}

#[test]
fn the_last_sequence_exists() {
    let mut last = one(b"x");
    last.first = u64::MAX - 1;
    assert!(Envelope::decode(&last.encode(), 10).is_ok());
    last.first = u64::MAX;
    assert!(Envelope::decode(&last.encode(), 10).is_err());
}

#[test]
fn a_second_spelling_is_refused() {
    let good = one(b"x").encode();
    assert_eq!(&good[..3], [0xa5, 0x01, 0x02]);
    let refused = |bytes: &[u8]| {
        assert_eq!(Envelope::decode(bytes, 100), Err(EnvelopeError::Malformed));
    };
    // The version in two bytes instead of one.
    let mut padded = good.clone();
    padded.splice(2..3, [0x18, 0x02]);
    refused(&padded);
    // The payload's length likewise.
    let mut padded = good.clone();
    let at = good.len() - 2;
    assert_eq!(padded[at], 0x41);
    padded.splice(at..=at, [0x58, 0x01]);
    refused(&padded);
    // An indefinite map, a wrong number of fields, bytes behind the end, an indefinite list.
    for (at, byte) in [(0, 0xbf), (0, 0xa4), (0, 0xa6), (good.len() - 5, 0x9f)] {
        let mut other = good.clone();
        other[at] = byte;
        refused(&other);
    }
    refused(&[good.as_slice(), &[0]].concat());
    // A trace context that is no trace context.
    let bad = traced(b"x", None);
    let mut bytes = sample(false, vec![bad]).encode();
    let last = bytes.len() - 1;
    bytes[last] = b'F';
    assert_eq!(Envelope::decode(&bytes, 100), Err(EnvelopeError::Trace));
}

/// What an envelope's content is named by.
fn named(envelope: &Envelope) -> Vec<u8> {
    let mut all = Vec::new();
    assert!(content(&envelope.encode(), |part| all.extend_from_slice(part)));
    all
}

#[test]
fn the_content_is_everything_but_the_trace_context() {
    let bare = sample(true, vec![Entry::plain(*b"x"), sealed(b"y")]);
    let mut other = bare.clone();
    other.entries[0] = traced(b"x", Some("a=1"));
    assert_eq!(named(&bare), named(&other));
    let mut moved = bare.clone();
    moved.entries = vec![Entry::plain(*b""), sealed(b"xy")];
    let mut swapped = bare.clone();
    swapped.entries.reverse();
    let mut opened = bare.clone();
    opened.entries[1].sealed = false;
    let mut later = bare.clone();
    later.first += 1;
    for different in [moved, swapped, opened, later] {
        assert_ne!(named(&bare), named(&different));
    }
    assert!(!content(b"junk", |_| {}));
}

fn traces() -> impl Strategy<Value = Option<Box<Trace>>> {
    let trace = ("[1-9a-f]{32}", "[1-9a-f]{16}", "[0-9a-f]{2}", any::<bool>());
    let trace = trace.prop_map(|(trace, span, flags, state)| {
        let parent = format!("00-{trace}-{span}-{flags}");
        let state = state.then_some("rojo=00f0,t@s=x y");
        Box::new(Trace::new(&parent, state).unwrap())
    });
    proptest::option::of(trace)
}

fn entries() -> impl Strategy<Value = Entry> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..400);
    (bytes, any::<bool>(), traces()).prop_map(|(payload, sealed, trace)| Entry {
        payload,
        sealed,
        trace,
    })
}

fn envelopes() -> impl Strategy<Value = Envelope> {
    let ids = (any::<u64>(), 0..u64::MAX - 100, any::<Option<[u8; 32]>>());
    let entries = proptest::collection::vec(entries(), 1..20);
    (ids, entries).prop_map(|((sent, first, credential), entries)| Envelope {
        sent: Timestamp::from_millis(sent),
        first,
        credential,
        entries,
    })
}

fn longest(envelope: &Envelope) -> usize {
    let lengths = envelope.entries.iter().map(|entry| entry.payload.len());
    lengths.max().unwrap_or_default()
}

proptest! {
    #[test]
    fn envelopes_round_trip_and_know_their_size(envelope in envelopes()) {
        let bytes = envelope.encode();
        let entries: usize = envelope.entries.iter().map(Entry::encoded_len).sum();
        prop_assert!(bytes.len() <= entries + HEAD);
        if let [entry] = envelope.entries.as_slice() {
            prop_assert!(bytes.len() <= entry.payload.len() + OVERHEAD);
        }
        // As long as one message of this size may be, it is read with that bound and no less.
        let most = bytes.len().saturating_sub(OVERHEAD).max(longest(&envelope));
        prop_assert_eq!(Envelope::decode(&bytes, most), Ok(envelope));
        prop_assert!(most == 0 || Envelope::decode(&bytes, most - 1).is_err());
    }

    #[test]
    fn a_general_cbor_reader_agrees(envelope in envelopes()) {
        let value: Value = ciborium::from_reader(envelope.encode().as_slice()).unwrap();
        let hash = envelope.credential.map_or(Value::Null, |hash| Value::Bytes(hash.to_vec()));
        let entries = envelope.entries.iter().map(|entry| {
            let key = if entry.sealed { 2 } else { 1 };
            let mut map = vec![(key.into(), Value::Bytes(entry.payload.clone()))];
            if let Some(trace) = &entry.trace {
                map.push((3.into(), trace.parent().into()));
                map.extend(trace.state().map(|state| (4.into(), state.into())));
            }
            Value::Map(map)
        });
        let fields = [
            Value::from(VERSION),
            Value::from(envelope.sent.millis()),
            Value::from(envelope.first),
            hash,
            Value::Array(entries.collect()),
        ];
        let map = [1, 2, 3, 4, 5].map(Value::from).into_iter().zip(fields).collect();
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
    fn a_head_made_longer_anywhere_is_refused(
        envelope in envelopes(),
        at: proptest::sample::Index,
        wider in 24_u8..28,
    ) {
        let mut bytes = envelope.encode();
        let at = at.index(bytes.len());
        let (major, info) = (bytes[at] & 0xe0, bytes[at] & 0x1f);
        let width = 1_usize << (wider - 24);
        let mut longer = vec![major | wider];
        longer.extend(vec![0; width - 1]);
        longer.push(info);
        bytes.splice(at..=at, longer);
        if let Ok(other) = Envelope::decode(&bytes, 1 << 20) {
            prop_assert_eq!(&other.encode(), &bytes);
        }
    }

    #[test]
    fn any_bytes_fail_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(&bytes, 100);
        let _ = content(&bytes, |_| {});
    }
}
