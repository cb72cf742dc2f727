//! What verifying a credential costs beside the signature checks it cannot avoid.
//!
//! Bare checks and whole verifications are measured in the same run, in turns, so that a busy
//! machine slows both alike; the ratio is the result. *Cold* is one verification after the other,
//! on one thread, with nothing remembered; *cached* is the same when the verified-identity cache
//! knows the chain; *batched* is cold, on every core at once.
//! `cargo bench --bench credential`, about twenty seconds.
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
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::KeyPair;
use aws_lc_rs::signature::{ML_DSA_65, ML_DSA_65_SIGNING, ParsedPublicKey, PqdsaKeyPair};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use quantraband::{
    identity::{
        Anchor, Attributes, BINDING_BYTES, Binding, By, Chain, Channel, Delegation, Frame, Grant,
        Grants, GroupPattern, Groups, IdentityCache, IssuerKey, ML_DSA_SIGNATURE_BYTES, Name,
        NodeKey, Role, Scope, Serial, SigningRequest, TrustAnchor, TrustAnchors, delegate,
        issue_chain, verify_chain, verify_frame,
    },
    types::{PeerId, Span, Timestamp},
};

const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);
/// Turns, each of a batch of everything.
const ROUNDS: usize = 20;
const BATCH: u32 = 100;

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        work();
    }
    start.elapsed() / BATCH
}

/// The same work on every core at once: the time per piece of work.
fn batched(threads: u32, work: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..BATCH).for_each(|_| work()));
        }
    });
    start.elapsed() / (BATCH * threads)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).unwrap().as_secs_f64() * 1e6
}

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

fn serial(index: u32) -> Serial {
    Serial { id: [3; 16], index }
}

fn anchor_of(issuer: &IssuerKey) -> Anchor {
    Anchor::open(&Anchor::seal(issuer, NOW)).unwrap()
}

/// acme -> acme.eu -> acme.eu.berlin, and what the node presents under each.
struct World {
    node: NodeKey,
    anchors: TrustAnchors,
    chains: [Chain; 3],
}

fn world() -> World {
    let node = NodeKey::from_seed(&[1; 32]);
    let [acme, europe, berlin] = ["acme", "acme.eu", "acme.eu.berlin"].map(|issuer| {
        IssuerKey::from_seed(name(issuer), &[u8::try_from(issuer.len()).unwrap(); 32])
    });
    let attributes: BTreeMap<String, String> = (0..4)
        .map(|i| (format!("attribute-{i}"), format!("value-{i}")))
        .collect();
    let grant = Grant {
        groups: Groups::try_new([name("workers"), name("gateways")]).unwrap(),
        attributes: Attributes::try_new(attributes).unwrap(),
        lifetime: Duration::from_hours(1),
        ..Grant::default()
    };
    let scope = |depth| Scope {
        groups: [GroupPattern::any()].into(),
        max_lifetime: Span(Duration::from_hours(1)),
        depth,
    };
    let hours = Duration::from_hours;
    let to = |below: &IssuerKey, from: (&IssuerKey, &[Delegation]), depth, lifetime| {
        delegate(
            from,
            &anchor_of(below),
            scope(depth),
            lifetime,
            serial(1),
            NOW,
        )
        .unwrap()
    };
    let to_europe = to(&europe, (&acme, &[]), 1, hours(3));
    let to_berlin = to(&berlin, (&europe, &to_europe), 0, hours(2));
    let request = SigningRequest::seal(&node, &name("node-1"), &Attributes::default(), NOW);
    let request = SigningRequest::open(&request).unwrap();
    let chain = |issuer: &IssuerKey, above: &[Delegation]| {
        issue_chain(issuer, above, &request, &grant, serial(2), NOW).unwrap()
    };
    let chains = [
        chain(&acme, &[]),
        chain(&europe, &to_europe),
        chain(&berlin, &to_berlin),
    ];
    let anchor = anchor_of(&acme);
    let mut anchors = TrustAnchors::default();
    let entry = TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants: Grants::default(),
    };
    anchors.add(entry).unwrap();
    World {
        node,
        anchors,
        chains,
    }
}

fn cores() -> u32 {
    u32::try_from(thread::available_parallelism().unwrap().get()).unwrap()
}

fn channel(opener: PeerId) -> Channel {
    Channel {
        opener,
        listener: NodeKey::from_seed(&[9; 32]).peer(),
        binding: Binding::Exporter([7; BINDING_BYTES]),
    }
}

/// The bare checks, over as many bytes as a credential has without its ML-DSA signature, so that
/// hashing counts on both sides.
struct Bare {
    message: Vec<u8>,
    ed25519: (VerifyingKey, Signature),
    ml_dsa: (ParsedPublicKey, Vec<u8>),
}

impl Bare {
    fn over(credential: &[u8]) -> Self {
        let mut message = credential.to_vec();
        message.truncate(credential.len() - ML_DSA_SIGNATURE_BYTES);
        let classical = SigningKey::from_bytes(&[4; 32]);
        let lattice = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &[5; 32]).unwrap();
        let mut signature = vec![0; ML_DSA_SIGNATURE_BYTES];
        lattice.sign(&message, &mut signature).unwrap();
        let public = ParsedPublicKey::new(&ML_DSA_65, lattice.public_key().as_ref()).unwrap();
        Self {
            ed25519: (classical.verifying_key(), classical.sign(&message)),
            ml_dsa: (public, signature),
            message,
        }
    }

    fn ed25519(&self) {
        let (key, signature) = &self.ed25519;
        black_box(key.verify_strict(black_box(&self.message), signature)).unwrap();
    }

    fn ml_dsa(&self) {
        let (key, signature) = &self.ml_dsa;
        black_box(key.verify_sig(black_box(&self.message), signature)).unwrap();
    }
}

#[expect(clippy::too_many_lines, reason = "what is measured, one line each")]
fn main() {
    let World {
        node,
        anchors,
        chains,
    } = world();
    let peer = node.peer();
    let channel = channel(peer);
    let frame = Frame::of(&chains[0], &node, &channel, Role::Opener).encode();
    let files = chains.each_ref().map(Chain::encode);
    let bare = Bare::over(chains[0].credential().as_bytes());
    let verify = |file: &[u8]| {
        let chain = Chain::decode(black_box(file)).unwrap();
        black_box(verify_chain(&chain, peer, &anchors, NOW)).unwrap();
    };
    let gate = || {
        let frame = black_box(&frame);
        let judged = verify_frame(frame, peer, &channel, Role::Opener, &anchors, NOW);
        black_box(judged).unwrap();
    };

    let by = By {
        anchors: &anchors,
        leniency: None,
        epoch: 1,
        now: NOW,
        elapsed: Duration::ZERO,
    };
    let mut cache = IdentityCache::default();
    let links: Vec<Vec<u8>> = chains[0].links().map(<[u8]>::to_vec).collect();
    black_box(cache.verify_chain(&links, peer, by).0).unwrap();

    let threads = cores();
    let mut times: [Vec<Duration>; 11] = Default::default();
    for _ in 0..ROUNDS {
        let turn = [
            time(|| bare.ed25519()),
            time(|| bare.ml_dsa()),
            time(|| verify(&files[0])),
            time(|| verify(&files[1])),
            time(|| verify(&files[2])),
            time(gate),
            time(|| drop(black_box(node.prove(&channel, Role::Opener)))),
            batched(threads, || {
                bare.ed25519();
                bare.ml_dsa();
            }),
            batched(threads, || verify(&files[0])),
            time(|| drop(black_box(cache.verify_chain(black_box(&links), peer, by)))),
            time(|| {
                let frame = black_box(&frame);
                let judged = cache.verify_frame(frame, peer, (&channel, Role::Opener), by);
                black_box(judged.0).unwrap();
            }),
        ];
        times
            .iter_mut()
            .zip(turn)
            .for_each(|(all, one)| all.push(one));
    }
    let [
        ed25519,
        ml_dsa,
        one,
        two,
        three,
        gated,
        proof,
        bare_batch,
        batch,
        cached,
        cached_gate,
    ] = times.map(median);
    report(
        [ed25519, ml_dsa],
        [one, two, three],
        [gated, proof],
        [bare_batch, batch],
        threads,
    );
    let line = |what: &str, time: f64, cold: f64| {
        println!(
            "{what:<35} {time:8.1} us  {:8.0} a second  {:.3} of cold",
            1e6 / time,
            time / cold
        );
    };
    line("credential, cached, one thread", cached, one);
    line("gate frame, chain cached", cached_gate, gated);
    println!(
        "bytes: credential {}, chains {:?}, frame {}",
        chains[0].credential().as_bytes().len(),
        files.each_ref().map(Vec::len),
        frame.len()
    );
}

fn report(
    [ed25519, ml_dsa]: [f64; 2],
    chains: [f64; 3],
    [gated, proof]: [f64; 2],
    [bare_batch, batch]: [f64; 2],
    threads: u32,
) {
    let bare = ed25519 + ml_dsa;
    println!("bare Ed25519 verify_strict          {ed25519:8.1} us");
    println!("bare ML-DSA-65 verify               {ml_dsa:8.1} us");
    println!(
        "both, one thread                    {bare:8.1} us  {:8.0} a second",
        1e6 / bare
    );
    for (links, time) in (1_u8..).zip(chains) {
        println!(
            "chain of {links}, cold, one thread        {time:8.1} us  {:8.0} a second  ratio {:.2}",
            1e6 / time,
            time / (bare * f64::from(links))
        );
    }
    println!(
        "gate frame, proof included          {gated:8.1} us  {:8.0} a second  ratio {:.2}",
        1e6 / gated,
        gated / (bare + ml_dsa)
    );
    println!("proof of possession, making it      {proof:8.1} us");
    println!(
        "both, {threads} threads                     {bare_batch:8.1} us  {:8.0} a second",
        1e6 / bare_batch
    );
    println!(
        "credential, cold, {threads} threads         {batch:8.1} us  {:8.0} a second  ratio {:.2}",
        1e6 / batch,
        batch / bare_batch
    );
}
