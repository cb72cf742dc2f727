//! What verifying a credential costs beside the one signature check it cannot avoid.
//!
//! Both are measured in the same run, in turns, so that a busy machine slows both alike; the ratio
//! is the result. `cargo bench --bench credential`, about three seconds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures with the machine's clock, and may stop at the first \
              surprise"
)]

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use quantraband::{
    identity::{
        Anchor, Attributes, Frame, Grant, Grants, Groups, IssuerKey, Name, NodeKey, SigningRequest,
        TrustAnchor, TrustAnchors, issue, verify_frame,
    },
    types::Timestamp,
};

const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);
/// Turns, each of a batch of both.
const ROUNDS: usize = 40;
const BATCH: u32 = 250;

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        work();
    }
    start.elapsed() / BATCH
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).unwrap().as_secs_f64() * 1e6
}

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

fn main() {
    let node = NodeKey::from_seed(&[1; 32]);
    let acme = IssuerKey::from_seed(name("acme"), &[2; 32]);
    let attributes: BTreeMap<String, String> = (0..4)
        .map(|i| (format!("attribute-{i}"), format!("value-{i}")))
        .collect();
    let grant = Grant {
        groups: Groups::try_new([name("workers"), name("gateways")]).unwrap(),
        attributes: Attributes::try_new(attributes).unwrap(),
        ..Grant::default()
    };
    let request = SigningRequest::seal(&node, &name("node-1"), &Attributes::default(), NOW);
    let request = SigningRequest::open(&request).unwrap();
    let credential = issue(&acme, &request, &grant, [3; 16], NOW).unwrap();
    let frame = Frame::of(Some(credential.as_bytes())).encode();
    let anchor = Anchor::open(&Anchor::seal(&acme, NOW)).unwrap();
    let mut anchors = TrustAnchors::default();
    let entry = TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants: Grants::default(),
    };
    anchors.add(entry).unwrap();

    let signer = SigningKey::from_bytes(&[4; 32]);
    let verifier = signer.verifying_key();
    // As many bytes as a credential has, so that hashing counts on both sides.
    let signature = signer.sign(credential.as_bytes());

    let (mut bare, mut full) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(time(|| {
            black_box(verifier.verify_strict(black_box(credential.as_bytes()), &signature))
                .unwrap();
        }));
        full.push(time(|| {
            black_box(verify_frame(black_box(&frame), node.peer(), &anchors, NOW)).unwrap();
        }));
    }
    let (bare, full) = (median(bare), median(full));
    println!(
        "frame of {} bytes, credential of {}",
        frame.len(),
        credential.as_bytes().len()
    );
    println!("ed25519 verify_strict     {bare:8.1} us");
    println!("verify_frame, everything  {full:8.1} us");
    println!("ratio                     {:8.2}", full / bare);
}
