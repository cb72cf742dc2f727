//! What a decision costs beside bare Cedar, evaluated and remembered, and what loading costs.
//!
//! *Bare* is Cedar over the same policies with request and entities at hand. *Evaluated* builds
//! both from the facts, and looks at the answer: errors, obligations, names. *Remembered* is the
//! cache. All in the same run, in turns, so that a busy machine slows all alike; the ratios are
//! the result. `cargo bench --bench policy`, about forty seconds.
//!
//! *Reload under load*: one thread asks at a steady rate through a published view with a cache of its
//! own, as judges do; another loads, validates, tests and swaps a thousand policies again and again.
//! Quiet and busy turns alternate in one run. What an answer took is counted from when it was due, so
//! that a late one counts as late.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures with the machine's clock, and may stop at the first \
              surprise"
)]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cedar_policy::{Authorizer, Context, Entities, Request};
use quantraband::{
    config::PolicyConfig,
    policy::{
        BUILT_IN, Cache, Facts, PolicySet, Rules, SKETCH_NOW, Settings, Sketch, SketchPrincipal,
        Stock, evaluate,
    },
    types::{Publisher, Topic, View},
};
use serde_json::json;

/// Turns, each of a batch of everything.
const ROUNDS: usize = 15;
/// Decisions over one policy for each set: large sets get fewer of them.
const WORK: u32 = 20_000;
const SIZES: [u32; 3] = [20, 100, 1_000];
/// Policies that are loaded again and again under load.
const LOADED: u32 = 1_000;
/// Time between two questions: a busy node's thousand messages a second.
const PACE: Duration = Duration::from_millis(1);
/// Of so many questions one is new to the cache, besides those after a swap.
const FRESH: u64 = 10;
/// How long a turn with or without reloads takes; there are [`TURNS`] of each.
const TURN: Duration = Duration::from_secs(3);
const TURNS: usize = 3;

fn time(batch: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..batch {
        work();
    }
    micros(start.elapsed() / batch)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The built-in policies and `more` like them, all about the action that is asked.
fn files(size: u32) -> Vec<(String, String)> {
    let (name, text) = BUILT_IN;
    let built_in = u32::try_from(PolicySet::built_in().unwrap().len()).unwrap();
    let more: String = (built_in..size)
        .map(|n| {
            let effect = if n % 4 == 0 { "forbid" } else { "permit" };
            format!(
                "@id(\"more.p{n}\") {effect} (principal in Qb::Group::\"acme/g{n}\", \
                 action == Qb::Action::\"publish\", resource in Qb::TopicTree::\"acme/t{n}/\") \
                 when {{ principal.verified && principal.trust >= 30 && context.post_quantum }};\n"
            )
        })
        .collect();
    vec![
        (name.to_owned(), text.to_owned()),
        ("more.cedar".to_owned(), more),
    ]
}

fn facts() -> Facts {
    let sketch = Sketch {
        action: "publish".to_owned(),
        topic: Some(Topic::try_new("acme/orders").unwrap()),
        principal: SketchPrincipal {
            issuer: "acme".to_owned(),
            subject: "node-1".to_owned(),
            groups: vec!["acme/workers".to_owned(), "acme/eu".to_owned()],
            attributes: [("role".to_owned(), "operator".to_owned())].into(),
            ..SketchPrincipal::default()
        },
        ..Sketch::default()
    };
    let settings = Settings::new(&PolicyConfig::default(), Duration::from_secs(60));
    sketch.facts(&settings).unwrap()
}

/// The same question for bare Cedar.
fn question(facts: &Facts) -> (Request, Entities) {
    let peer = facts.principal.peer.to_string();
    let entity = |kind: &str, id: &str| json!({"type": format!("Qb::{kind}"), "id": id});
    let entities = json!([
        {
            "uid": entity("Peer", &peer),
            "attrs": {
                "issuer": "acme", "subject": "node-1", "tier": "member", "verified": true,
                "trust": 50, "anomaly": 0, "probation": false, "quarantined": false,
                "cred_expires": SKETCH_NOW + 3_600,
            },
            "parents": [entity("Group", "acme/workers"), entity("Group", "acme/eu")],
            "tags": {"role": "operator"},
        },
        {
            "uid": entity("Topic", "acme/orders"),
            "attrs": {
                "members": true, "open": false, "restricted": false, "min_trust": 0,
                "sensitive": false,
            },
            "parents": [entity("TopicTree", "acme/")],
        },
    ]);
    let context = json!({
        "transport": "stacked", "post_quantum": true, "pq_auth": false, "has_connection": true,
        "now": SKETCH_NOW, "settings": {"connect_min_trust": 10, "messages_min_trust": 20},
    });
    let request = Request::new(
        format!("Qb::Peer::\"{peer}\"").parse().unwrap(),
        "Qb::Action::\"publish\"".parse().unwrap(),
        "Qb::Topic::\"acme/orders\"".parse().unwrap(),
        Context::from_json_value(context, None).unwrap(),
        None,
    );
    let entities = Entities::from_json_value(entities, None).unwrap();
    (request.unwrap(), entities)
}

/// What a turn saw: microseconds of each answer, the remembered ones apart.
#[derive(Default)]
struct Seen {
    remembered: Vec<f64>,
    evaluated: Vec<f64>,
}

/// Asks at a steady rate for the time of a turn, through the view, with a cache of its own.
fn ask_on(view: &View<Rules>, cache: &mut Cache, facts: &Facts, seen: &mut Seen, next: &mut u64) {
    let start = Instant::now();
    let mut due = start;
    while due.duration_since(start) < TURN {
        due += PACE;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        *next += 1;
        let mut facts = facts.clone();
        if next.is_multiple_of(FRESH) {
            facts.principal.expires = Some(SKETCH_NOW + *next);
        }
        // The pause may end late; what the scheduler adds is in both turns.
        let misses = cache.counts().1;
        let decision = cache.decide(&view.load(), &facts);
        assert!(decision.permits());
        let took = micros(due.elapsed());
        if cache.counts().1 == misses {
            seen.remembered.push(took);
        } else {
            seen.evaluated.push(took);
        }
    }
}

/// Loads, validates, tests and swaps the folder until it is told to stop; milliseconds of each.
fn reload_on(dir: &std::path::Path, publisher: &Publisher<Rules>, go: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    while go.load(Ordering::Relaxed) {
        // Another set each time: the cache begins with nothing.
        let text = format!("// {}\n", times.len());
        std::fs::write(dir.join("turn.cedar"), text).unwrap();
        let start = Instant::now();
        let stock = Stock::load(Some(dir)).unwrap();
        assert!(
            stock
                .test()
                .unwrap()
                .iter()
                .all(|one| one.failure.is_none())
        );
        publisher.publish(Rules {
            active: stock.set,
            shadow: None,
        });
        times.push(micros(start.elapsed()) / 1e3);
    }
    times
}

fn quantile(times: &mut [f64], per_cent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    let place = times.len().saturating_sub(1) * per_cent / 100;
    times.get(place).copied().unwrap_or_default()
}

fn reload_under_load(facts: &Facts) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files(LOADED) {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let tests = include_str!("../config/policies/default.test.toml");
    std::fs::write(dir.path().join("default.test.toml"), tests).unwrap();
    let stock = Stock::load(Some(dir.path())).unwrap();
    let publisher = Publisher::new(Rules {
        active: stock.set,
        shadow: None,
    });
    let view = publisher.view();
    let (mut cache, mut next) = (Cache::default(), 0);
    let mut turns = [Seen::default(), Seen::default()];
    let mut reloads = Vec::new();
    for turn in 0..TURNS * 2 {
        let busy = turn % 2 == 1;
        let go = Arc::new(AtomicBool::new(busy));
        thread::scope(|scope| {
            let reloading = scope.spawn(|| reload_on(dir.path(), &publisher, &go));
            if let Some(seen) = turns.get_mut(usize::from(busy)) {
                ask_on(&view, &mut cache, facts, seen, &mut next);
            }
            go.store(false, Ordering::Relaxed);
            reloads.extend(reloading.join().unwrap());
        });
    }
    println!("\nreload under load: a question each {PACE:?}, {LOADED} policies, microseconds");
    println!("answer      quantile    quiet  reloading    ratio");
    let [mut quiet, mut busy] = turns;
    for (name, quiet, busy) in [
        ("remembered", &mut quiet.remembered, &mut busy.remembered),
        ("evaluated", &mut quiet.evaluated, &mut busy.evaluated),
    ] {
        for per_cent in [50, 99] {
            let (q, b) = (quantile(quiet, per_cent), quantile(busy, per_cent));
            println!(
                "{name:<10}       p{per_cent}  {q:>7.1}  {b:>9.1}  {:>7.2}",
                b / q
            );
        }
    }
    println!(
        "{} reloads: load, validate, test and swap take {:.0} ms (median), {:.0} ms at most",
        reloads.len(),
        median(&mut reloads),
        quantile(&mut reloads, 100)
    );
}

fn main() {
    let facts = facts();
    let (request, entities) = question(&facts);
    let authorizer = Authorizer::new();
    println!("one decision, microseconds (medians of {ROUNDS} turns)");
    println!("policies     bare  evaluated  remembered  evaluated/bare  remembered/bare");
    for size in SIZES {
        let files = files(size);
        let text: String = files.iter().map(|(_, text)| text.as_str()).collect();
        let bare: cedar_policy::PolicySet = text.parse().unwrap();
        let rules = Rules {
            active: PolicySet::load(&files).unwrap(),
            shadow: None,
        };
        assert_eq!(u32::try_from(rules.active.len()).unwrap(), size);
        let mut cache = Cache::default();
        assert!(cache.decide(&rules, &facts).permits());
        let answer = authorizer.is_authorized(&request, &bare, &entities);
        assert_eq!(answer.decision(), cedar_policy::Decision::Allow);
        let batch = (WORK / size).max(20);
        let mut times = [const { [0.0; ROUNDS] }; 3];
        for round in 0..ROUNDS {
            let turn = [
                time(batch, || {
                    let answer = authorizer.is_authorized(&request, &bare, &entities);
                    black_box(answer);
                }),
                time(batch, || {
                    black_box(evaluate(&rules.active, &facts));
                }),
                time(WORK, || {
                    black_box(cache.decide(&rules, &facts));
                }),
            ];
            for (all, one) in times.iter_mut().zip(turn) {
                if let Some(place) = all.get_mut(round) {
                    *place = one;
                }
            }
        }
        let [bare, evaluated, remembered] = times.map(|mut times| median(&mut times));
        println!(
            "{size:>8}  {bare:>7.1}  {evaluated:>9.1}  {remembered:>10.2}  {:>14.2}  {:>15.3}",
            evaluated / bare,
            remembered / bare
        );
    }
    println!("\nparse and validate, milliseconds");
    for size in SIZES {
        let files = files(size);
        let mut times: Vec<f64> = (0..5)
            .map(|_| time(1, || drop(black_box(PolicySet::load(&files)))))
            .collect();
        println!("{size:>8}  {:>7.1}", median(&mut times) / 1e3);
    }
    reload_under_load(&facts);
}
