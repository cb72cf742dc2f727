//! What a decision costs beside bare Cedar, evaluated and remembered, and what loading costs.
//!
//! *Bare* is Cedar over the same policies with request and entities at hand. *Evaluated* builds
//! both from the facts, and looks at the answer: errors, obligations, names. *Remembered* is the
//! cache. All in the same run, in turns, so that a busy machine slows all alike; the ratios are
//! the result. `cargo bench --bench policy`, about twenty seconds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures with the machine's clock, and may stop at the first \
              surprise"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cedar_policy::{Authorizer, Context, Entities, Request};
use quantraband::{
    config::PolicyConfig,
    policy::{
        BUILT_IN, Cache, Facts, PolicySet, Rules, SKETCH_NOW, Settings, Sketch, SketchPrincipal,
        evaluate,
    },
    types::Topic,
};
use serde_json::json;

/// Turns, each of a batch of everything.
const ROUNDS: usize = 15;
/// Decisions over one policy for each set: large sets get fewer of them.
const WORK: u32 = 20_000;
const SIZES: [u32; 3] = [20, 100, 1_000];

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
}
