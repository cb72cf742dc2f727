//! The seeds of the fuzz targets, replayed: what a fuzzer found once stays found, without a fuzzer.
//! The seeds themselves are made of the frozen fixtures (`QUANTRABAND_BLESS=1 cargo test --test
//! fuzz_seeds` writes them), but those that begin with `found-`, which a fuzzer wrote.
#![cfg(test)]

use std::{collections::BTreeMap, fs, panic::catch_unwind, path::PathBuf};

use ciborium::Value;

#[path = "../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "a library of its own, read here as a module"
)]
mod properties;

use properties::{Property, TARGETS};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(path: &str) -> Vec<u8> {
    let path = root().join("tests/fixtures").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(path: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(fixture(path)).unwrap();
    text.lines()
        .map(|line| hex::decode(line).unwrap())
        .collect()
}

/// What a tagged COSE message signs.
fn payload(cose: &[u8]) -> Vec<u8> {
    let Value::Tag(_, parts) = ciborium::from_reader(cose).unwrap() else {
        panic!("no tag")
    };
    parts.into_array().unwrap().remove(2).into_bytes().unwrap()
}

/// Frames of Yamux: streams opened, filled, reset, and a ping.
fn frames() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, body: usize| {
        let length = u8::try_from(body).unwrap();
        let mut frame = vec![0, kind, 0, flags, 0, 0, 0, stream, 0, 0, 0, length];
        frame.resize(frame.len() + body, 7);
        frame
    };
    let open = frame(1, 1, 1, 0);
    let ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1].to_vec();
    let both = frame(0, 1, 3, 20);
    [open, frame(0, 0, 1, 40), both, ping, frame(0, 8, 1, 0)].concat()
}

/// What the fixtures make of each target's directory.
fn made() -> BTreeMap<String, Vec<u8>> {
    let credential = fixture("identity/credential.cose");
    let delegation = fixture("identity/delegation.cose");
    let receipt = fixture("sandbox/receipt.cose");
    let list = fixture("identity/acme.status");
    let statement = fixture("identity/continuity.cose");
    let checkpoint = fixture("audit/checkpoint");
    let log_keys = String::from_utf8(fixture("audit/log.keys")).unwrap();
    let log_key = log_keys.lines().next().unwrap().as_bytes().to_vec();
    let note = String::from_utf8(checkpoint.clone()).unwrap();
    let (_, signed) = note.split_once("\n\n").unwrap();
    let cosigned = format!("cosigned\n{signed}").into_bytes();
    let named = [
        ("muxer_frames/streams", frames()),
        ("gate_frame/credential", fixture("identity/frame.cbor")),
        ("gate_frame/empty", fixture("identity/empty-frame.cbor")),
        ("credential/claims", payload(&credential)),
        ("credential/whole", credential),
        ("delegation/claims", payload(&delegation)),
        ("delegation/whole", delegation),
        ("enrolment/request", fixture("identity/request.cose")),
        ("enrolment/anchor", fixture("identity/acme.anchor.cose")),
        ("gate_frame/rotated", fixture("identity/rotated-frame.cbor")),
        ("administration/peers", br#"{"command":"peers"}"#.to_vec()),
        (
            "administration/ban",
            br#"{"command":"ban","party":{"subject":"acme/n"},"span":"1h","reason":"x"}"#.to_vec(),
        ),
        (
            "administration/remote",
            br#"{"command":"remote","node":"12D3KooW","request":{"command":"bans"}}"#.to_vec(),
        ),
        ("administration/later", br#"{"command":"dance"}"#.to_vec()),
        (
            "administration/answer",
            br#"{"answer":"bans","bans":[]}"#.to_vec(),
        ),
        ("continuity/body", payload(&statement)),
        ("continuity/whole", statement),
        ("status_list/list", list),
        ("audit_proof/record", fixture("audit/record.tlog-proof")),
        ("checkpoint/signed", checkpoint.clone()),
        ("checkpoint/key", log_key),
        ("witness/cosigned", cosigned),
        ("witness/conflict", b"conflict 7\n".to_vec()),
        (
            "witness/request",
            [b"old 0\n\n".to_vec(), checkpoint].concat(),
        ),
        ("receipt/body", payload(&receipt)),
        ("receipt/whole", receipt),
    ];
    let listed = [
        ("gate_message", "network/gate.hex"),
        ("envelope", "network/envelope.hex"),
        ("identity_request", "identity/request.hex"),
        ("identity_response", "identity/response.hex"),
        ("job_request", "sandbox/request.hex"),
        ("job_response", "sandbox/response.hex"),
    ];
    let listed = listed.into_iter().flat_map(|(target, path)| {
        let numbered = lines(path).into_iter().zip(1..);
        numbered.map(move |(bytes, number)| (format!("{target}/line-{number}"), bytes))
    });
    let named = named.map(|(name, bytes)| (name.to_owned(), bytes));
    named.into_iter().chain(listed).collect()
}

/// The seeds of a target as they are committed.
fn committed(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = root().join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn the_seeds_are_what_the_fixtures_say() {
    let made = made();
    if std::env::var_os("QUANTRABAND_BLESS").is_some() {
        for (name, bytes) in &made {
            let path = root().join("fuzz/seeds").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let mut kept = BTreeMap::new();
    for (target, _) in TARGETS {
        let seeds = committed(target).into_iter();
        let seeds = seeds.filter(|(name, _)| !name.starts_with("found-"));
        kept.extend(seeds.map(|(name, bytes)| (format!("{target}/{name}"), bytes)));
    }
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        made.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &made {
        assert_eq!(hex::encode(&kept[name]), hex::encode(bytes), "{name}");
    }
}

#[test]
fn every_seed_and_its_neighbours_hold_what_the_targets_assert() {
    for (target, property) in TARGETS {
        for (name, bytes) in committed(target) {
            let held = catch_unwind(|| with_neighbours(property, &bytes));
            assert!(held.is_ok(), "{target}/{name}");
        }
    }
}

/// The seed, cut short everywhere, and with bits changed everywhere. What is long is keys and
/// signatures for the most part: there one place in eight will do.
fn with_neighbours(property: Property, bytes: &[u8]) {
    property(bytes);
    let step = if bytes.len() > 1024 { 8 } else { 1 };
    for at in (0..bytes.len()).filter(|at| *at < 512 || at % step == 0) {
        property(&bytes[..at]);
        let mut changed = bytes.to_vec();
        for bit in [0, 3, 5, 7] {
            changed[at] = bytes[at] ^ (1 << bit);
            property(&changed);
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        let program = root()
            .join("fuzz/fuzz_targets")
            .join(format!("{target}.rs"));
        let text = fs::read_to_string(&program).unwrap();
        assert!(
            text.contains(&format!("quantraband_fuzz::{target}(")),
            "{target}"
        );
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
    }
}
