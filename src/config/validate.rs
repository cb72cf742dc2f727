//! What types alone cannot say: bounds, relations between keys, names that must exist.

mod check;
mod jobs;
mod reach;
mod trust;
mod wire;

use std::time::Duration;

use check::Check;
pub(super) use check::Complaint;
use jobs::{jobs, sandbox};
use reach::{discovery, outward, relay};
use trust::{policy, reputation};
use wire::{gossip, limits, network, transport};

use super::Config;
use crate::{identity::MAX_LIFETIME, types::Span};

/// The actors that `[supervision.actors.NAME]` may name.
pub const ACTORS: [&str; 13] = [
    "admin",
    "audit",
    "identity",
    "issuer",
    "jobs",
    "policy",
    "rate_limit",
    "renewal",
    "reputation",
    "revocation",
    "sandbox",
    "settings",
    "swarm",
];

/// Longest time after its end in which a credential is heard for renewal.
const LONGEST_GRACE: Duration = Duration::from_hours(24 * 180);
/// Smallest segment of the log: below, most of it would be headers.
const MIN_SEGMENT: u64 = 64 << 10;
/// Fewest records between two checkpoints: each costs two signatures and three syncs.
const MIN_CHECKPOINT: u64 = 100;
/// Most: a proof does not grow with them, but what is not covered yet does.
const MAX_CHECKPOINT: u64 = 10_000_000;
/// Longest time that a record may stand without a checkpoint over it.
const LONGEST_UNSIGNED: Duration = Duration::from_hours(1);
/// Largest segment: `audit verify` and rotation handle one at a time.
const MAX_SEGMENT: u64 = 10 << 30;

/// Checks every key; empty when all is well.
pub(super) fn check(config: &Config) -> Vec<Complaint> {
    let mut check = Check::default();
    if config.version != 1 {
        check.fail(
            "version",
            format!("{} is a version this program does not know", config.version),
            "write 1",
        );
    }
    node(&mut check, config);
    network(&mut check, config);
    transport(&mut check, config);
    outward(&mut check, config);
    discovery(&mut check, config);
    relay(&mut check, config);
    gossip(&mut check, config);
    limits(&mut check, config);
    reputation(&mut check, config);
    policy(&mut check, config);
    identity(&mut check, config);
    audit(&mut check, config);
    sandbox(&mut check, config);
    jobs(&mut check, config);
    admin_and_log(&mut check, config);
    supervision(&mut check, config);
    check.0
}

fn node(check: &mut Check, config: &Config) {
    check.that(
        !config.node.data_dir.as_os_str().is_empty(),
        "node.data_dir",
        "is empty",
        "name a directory, for example \"data\"",
    );
    check.span("node.shutdown_deadline", config.node.shutdown_deadline);
}

fn identity(check: &mut Check, config: &Config) {
    check.span("identity.renewal_grace", config.identity.renewal_grace);
    check.that(
        config.identity.renewal_grace.0 <= LONGEST_GRACE,
        "identity.renewal_grace",
        "is too long: a credential that nobody cared for would be good for half a year more",
        "write at most \"180d\"",
    );
    let issuer = &config.issuer;
    check.span("issuer.lifetime", issuer.lifetime);
    check.span("issuer.rotation_grace", issuer.rotation_grace);
    check.that(
        issuer.rotation_grace.0 <= LONGEST_GRACE,
        "issuer.rotation_grace",
        "is too long: keys that a node gave up would be good for half a year more",
        "write at most \"180d\"",
    );
    check.that(
        issuer.lifetime.0 <= MAX_LIFETIME && issuer.lifetime.0.as_secs() > 0,
        "issuer.lifetime",
        "no credential holds so long, or less than a second",
        "write a span from \"1s\" to \"365d\"",
    );
    check.list("issuer.deny", issuer.deny.len());
}

fn audit(check: &mut Check, config: &Config) {
    let audit = &config.audit;
    check.number(
        "audit.segment_size",
        audit.segment_size.0,
        MIN_SEGMENT,
        MAX_SEGMENT,
    );
    check.queue("audit.queue", audit.queue);
    check.queue("audit.batch", audit.batch);
    check.ordered(("audit.batch", audit.batch), ("audit.queue", audit.queue));
    check.span("audit.timeout", audit.timeout);
    check.span("audit.aggregate", audit.aggregate);
    check.span("audit.stall_exit", audit.stall_exit);
    check.table("audit.remembered_ids", audit.remembered_ids);
    check.number(
        "audit.checkpoint_records",
        audit.checkpoint_records,
        MIN_CHECKPOINT,
        MAX_CHECKPOINT,
    );
    check.span("audit.checkpoint_interval", audit.checkpoint_interval);
    check.that(
        audit.checkpoint_interval.0 <= LONGEST_UNSIGNED,
        "audit.checkpoint_interval",
        "is too long: what was recorded since the last checkpoint can be cut off unseen",
        "write at most \"1h\"",
    );
    check.relation(
        audit.remembered_ids >= audit.queue,
        &["audit.remembered_ids", "audit.queue"],
        "is less than audit.queue: a repeat of a waiting event would be written twice",
        "write at least audit.queue",
    );
    check.relation(
        audit.stall_exit.0 > audit.timeout.0,
        &["audit.stall_exit", "audit.timeout"],
        "is not above audit.timeout: one slow write would end the node",
        "write a span above audit.timeout",
    );
}

fn admin_and_log(check: &mut Check, config: &Config) {
    if let Some(http) = config.admin.http {
        check.that(
            http.ip().to_canonical().is_loopback(),
            "admin.http",
            "is not a loopback address, and nobody is asked for a password there",
            "write for example \"127.0.0.1:9464\" or \"[::1]:9464\", or \"off\"",
        );
    }
    check.number("admin.connections", config.admin.connections, 1, 1_024);
    check.that(
        config.testing.panic_on.is_empty() || config.testing.fault_injection,
        "testing.panic_on",
        "makes the node fail on purpose, and fault injection is off",
        "take it out, or set testing.fault_injection in a node made for tests",
    );
    if let Err(error) = config.log.level.parse::<tracing_subscriber::EnvFilter>() {
        check.fail(
            "log.level",
            format!("`{}` is no filter: {error}", super::clip(&config.log.level)),
            "write error, warn, info, debug or trace, or for example \
             \"info,quantraband::network=debug\"",
        );
    }
}

fn supervision(check: &mut Check, config: &Config) {
    let supervision = &config.supervision;
    restart(check, "supervision.default", config, None);
    for name in supervision.actors.keys() {
        let key = format!("supervision.actors.{name}");
        if ACTORS.contains(&name.as_str()) {
            restart(check, &key, config, Some(name));
        } else {
            check.fail(
                &key,
                format!("there is no actor `{}`", super::clip(name)),
                format!("the actors are {}", ACTORS.join(", ")),
            );
        }
    }
    let cool_down = &supervision.cool_down;
    check.span("supervision.cool_down.initial", cool_down.initial);
    check.span("supervision.cool_down.max", cool_down.max);
    check.ordered(
        ("supervision.cool_down.initial", cool_down.initial),
        ("supervision.cool_down.max", cool_down.max),
    );
    check.table("supervision.cool_down.tracked", cool_down.tracked);
    check.span("supervision.root_stall", supervision.root_stall.0);
}

/// One restart policy as it is in force, complaints under the keys of `section`.
fn restart(check: &mut Check, section: &str, config: &Config, actor: Option<&str>) {
    let policy = match actor {
        Some(name) => config.supervision.for_actor(name),
        None => config.supervision.default.clone(),
    };
    let key = |name: &str| format!("{section}.{name}");
    // More would make the sum of waits below meaningless.
    check.number(&key("faults"), policy.faults, 1, 1_000);
    check.span(&key("window"), policy.window);
    check.span(&key("backoff_initial"), policy.backoff_initial);
    check.span(&key("backoff_max"), policy.backoff_max);
    check.span(&key("stall"), policy.stall);
    check.queue(&key("mailbox"), policy.mailbox);
    check.ordered(
        (&key("backoff_initial"), policy.backoff_initial),
        (&key("backoff_max"), policy.backoff_max),
    );
    let waits = summed_backoff(&policy);
    if policy.window.0 < waits.saturating_mul(2) {
        check.fail(
            &key("window"),
            format!(
                "{} is less than twice the waits between {} faults ({}): a crash loop would \
                 never spend its budget",
                policy.window,
                policy.faults,
                Span(waits)
            ),
            format!(
                "write at least \"{}\", or lower backoff_max",
                Span(waits.saturating_mul(2))
            ),
        );
        let names = ["faults", "backoff_max", "backoff_initial"];
        let own = names.map(key);
        let general = ["window", "faults", "backoff_max", "backoff_initial"]
            .map(|name| format!("supervision.default.{name}"));
        check.related(own.iter().chain(&general).map(String::as_str));
    }
}

/// The waits before as many restarts as there are faults, each at its longest.
fn summed_backoff(policy: &super::RestartConfig) -> Duration {
    let mut wait = policy.backoff_initial.0;
    let mut sum = Duration::ZERO;
    for _ in 0..policy.faults.min(1_000) {
        sum = sum.saturating_add(wait);
        wait = wait.saturating_mul(2).min(policy.backoff_max.0);
    }
    sum
}
