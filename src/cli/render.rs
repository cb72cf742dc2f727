//! What the running node answers, for people and for programs.

mod jobs;
mod limits;
mod policy;

use std::{fmt::Display, time::Duration};

use serde::Serialize;

use super::{
    client::ClientError,
    exit::CliError,
    output::{Format, Out},
};
use crate::{
    admin::protocol::{ActorReport, MessageReport, Response, StatusReport},
    identity::status::ListReport,
    messages::{
        enrolment::Invitation, identity::IdentityReport, reputation::BanInfo, sandbox::JobReport,
        swarm::PeerReport, swarm::Published,
    },
    network::outward::State,
    sandbox::JobState,
    telemetry::printable,
    types::{Span, Topic},
};

/// Prints an answer that is not part of a stream.
///
/// # Errors
/// When stdout cannot be written, or the answer is part of a stream.
#[expect(clippy::too_many_lines, reason = "one short arm for each answer")]
pub fn answer(answer: &Response, out: &Out) -> Result<(), CliError> {
    if let Some(done) = policy::answer(answer, out) {
        return done;
    }
    match answer {
        Response::Status(report) => {
            out.answer("quantraband.status/1", report, || status(report, out))
        }
        Response::Peers { peers } => {
            #[derive(Serialize)]
            struct Peers<'a> {
                peers: &'a [PeerReport],
            }
            out.answer("quantraband.peers/1", &Peers { peers }, || {
                peer_table(peers, out)
            })
        }
        Response::Limits { limits } => limits::answer(limits, out),
        Response::Actors { actors } => actors_answer(actors, out),
        Response::Bans { bans } => {
            #[derive(Serialize)]
            struct Bans<'a> {
                bans: &'a [BanInfo],
            }
            out.answer("quantraband.bans/1", &Bans { bans }, || {
                ban_table(bans, out)
            })
        }
        Response::StatusLists { lists } => {
            #[derive(Serialize)]
            struct Lists<'a> {
                lists: &'a [ListReport],
            }
            out.answer("quantraband.status-lists/1", &Lists { lists }, || {
                list_table(lists, out)
            })
        }
        Response::StatusImported(list) => {
            out.answer("quantraband.status-list/1", list, || one_list(list, out))
        }
        Response::Published(report) => {
            out.answer("quantraband.published/1", report, || published(report))
        }
        Response::StreamDone {
            published,
            pushed_back,
        } => {
            let report = serde_json::json!({"published": published, "pushed_back": pushed_back});
            out.answer("quantraband.published-lines/1", &report, || {
                format!("published {published} messages; {pushed_back} times told to wait")
            })
        }
        Response::IdentityReloaded(report) => {
            out.answer("quantraband.identity-reloaded/1", report, || {
                reloaded(report)
            })
        }
        Response::Invited(made) => out.answer("quantraband.invite/1", made, || invited(made)),
        Response::Banned(ban) => out.answer("quantraband.banned/1", ban, || {
            format!("banned {} until {}", ban.party, ban.until)
        }),
        Response::Jobs { jobs } => {
            #[derive(Serialize)]
            struct Jobs<'a> {
                jobs: &'a [JobReport],
            }
            out.answer("quantraband.jobs/1", &Jobs { jobs }, || {
                jobs::table(jobs, out)
            })
        }
        Response::Job(report) => out.answer("quantraband.job/1", report, || jobs::one(report, out)),
        other => short(other, out),
    }
}

fn invited(made: &Invitation) -> String {
    format!(
        "{}\nThis makes one new node `{}/{}`, once, until {}. Hand it over as a secret.\nNext, on \
         the new machine: quantraband join TOKEN --dir DIR",
        made.token, made.issuer, made.subject, made.expires
    )
}

/// Answers of a line.
fn short(answer: &Response, out: &Out) -> Result<(), CliError> {
    let (schema, text) = match answer {
        Response::Observed { actor, state } => {
            let text = serde_json::to_string_pretty(state).unwrap_or_else(|_| state.to_string());
            ("observed", format!("{actor}: {text}"))
        }
        Response::Restarted { actor } => ("restarted", format!("restarting {actor}")),
        Response::Injected { actor } => ("injected", format!("injected into {actor}")),
        // To be kept as it is: nothing but the note itself.
        Response::Checkpoint { note, .. } => ("checkpoint", note.trim_end().to_owned()),
        Response::Rotated { segment } => ("rotated", format!("the log goes on in {segment}")),
        Response::Unbanned { party, lifted } => (
            "unbanned",
            if *lifted {
                format!("the ban of {party} is lifted")
            } else {
                format!("{party} was not banned")
            },
        ),
        Response::Released { parties } => (
            "released",
            if parties.is_empty() {
                "it was not in quarantine".to_owned()
            } else {
                let names: Vec<_> = parties.iter().map(ToString::to_string).collect();
                format!("released: {}", names.join(", "))
            },
        ),
        Response::JobSubmitted { job, .. } => ("job-submitted", job.to_string()),
        Response::JobCancelled { job, state } => (
            "job-cancelled",
            match state {
                JobState::Finished => format!("job {job} had ended before"),
                JobState::Waiting | JobState::Queued | JobState::Running => {
                    format!("cancelling job {job}")
                }
            },
        ),
        Response::ShuttingDown {} => ("stopping", "the node stops".to_owned()),
        _ => return Err(ClientError::Unexpected("an answer of a stream, or none at all").into()),
    };
    // The wire's tag says the same as the schema.
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("answer");
    }
    out.answer(&format!("quantraband.{schema}/1"), &value, || {
        clean_lines(&text)
    })
}

/// A message of a subscription: one line.
///
/// # Errors
/// When stdout cannot be written.
pub fn message(message: &MessageReport, out: &Out) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Message<'a> {
        #[serde(flatten)]
        message: &'a MessageReport,
        /// The payload once more, when it is text.
        text: Option<&'a str>,
    }
    if out.format() == Format::Text {
        let text = String::from_utf8_lossy(&message.payload);
        // `echo hi | quantraband publish t -` ends in a line end that nobody means.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return out.line(&printable(text));
    }
    let text = std::str::from_utf8(&message.payload).ok();
    out.answer(
        "quantraband.message/1",
        &Message { message, text },
        String::new,
    )
}

/// Several lines, each printable.
fn clean_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn status(report: &StatusReport, out: &Out) -> String {
    let ready = if report.ready { "ready" } else { "not ready" };
    let mut items = vec![
        ("node", report.peer_id.to_string()),
        ("state", ready.to_owned()),
        ("version", report.version.clone()),
        (
            "since",
            format!("{} ({})", report.started, span(report.uptime_ms)),
        ),
        ("process", report.pid.to_string()),
        ("listen", joined(&report.listen)),
        ("reachability", report.reachability.name().to_owned()),
        ("announced", joined(&report.external)),
        ("connected", report.connected.to_string()),
        ("not reached", joined(&report.missing_bootstrap)),
        ("topics", joined(&report.topics)),
        (
            "credential",
            report
                .credential
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
        ),
        (
            "expires",
            report
                .credential_expires
                .map(|t| t.to_string())
                .unwrap_or_default(),
        ),
        ("trusts", joined(&report.trusted_issuers)),
        (
            "http",
            report
                .http
                .map_or_else(|| "off".to_owned(), |http| http.to_string()),
        ),
        ("data", report.data_dir.display().to_string()),
    ];
    let config = report
        .config
        .as_ref()
        .map(|path| path.display().to_string());
    items.push(("config", config.unwrap_or_default()));
    if report.fault_injection {
        items.push((
            "warning",
            "faults can be injected: never in production".to_owned(),
        ));
    }
    for reason in &report.reasons {
        items.push(("reason", reason.clone()));
    }
    out.list(&items)
}

fn peer_table(peers: &[PeerReport], out: &Out) -> String {
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            [
                peer.peer_id.to_string(),
                peer.tier.clone(),
                peer.identity.clone().unwrap_or_default(),
                channels(peer),
                peer.direction.clone(),
                address(peer),
                peer.since.to_string(),
                peer.rtt_us
                    .map(|rtt| format!("{rtt} µs"))
                    .unwrap_or_default(),
                calls(peer),
                topics(&peer.topics),
            ]
        })
        .collect();
    let head = [
        "peer",
        "tier",
        "identity",
        "channel",
        "direction",
        "address",
        "since",
        "rtt",
        "calls",
        "topics",
    ];
    out.table(head, &rows)
}

/// How a peer's connections are encrypted, each way once.
fn channels(peer: &PeerReport) -> String {
    let mut ways: Vec<String> = Vec::new();
    for one in &peer.connections {
        let proved = if one.pq_auth { " pq-auth" } else { "" };
        let (kind, group) = (one.security.kind.name(), one.security.group);
        let way = format!("{kind} {group}{proved}");
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways.join(" + ")
}

/// Where a peer is, and through whom it is reached.
fn address(peer: &PeerReport) -> String {
    let relayed = peer.connections.iter().all(|one| one.relay.is_some());
    match peer.connections.first().and_then(|one| one.relay.as_ref()) {
        Some(relay) if relayed => format!("{} (relayed by {relay})", peer.address),
        _ => peer.address.clone(),
    }
}

/// Whether this node calls a peer as usual; if not, why.
fn calls(peer: &PeerReport) -> String {
    let calls = &peer.calls;
    match (calls.breaker, calls.open_for_ms) {
        (State::Closed, _) => String::new(),
        (State::Open, Some(ms)) => format!("held for {}", span(ms)),
        (State::Open | State::HalfOpen, _) => "on trial".to_owned(),
    }
}

/// The first topics of a peer; a table has no room for all.
fn topics(topics: &[Topic]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = topics.iter().take(SHOWN).map(Topic::as_str).collect();
    match topics.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", names.join(" ")),
        _ => names.join(" "),
    }
}

fn actors_answer(actors: &[ActorReport], out: &Out) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Actors<'a> {
        actors: &'a [ActorReport],
    }
    out.answer("quantraband.actors/1", &Actors { actors }, || {
        actor_table(actors, out)
    })
}

fn actor_table(actors: &[ActorReport], out: &Out) -> String {
    let rows: Vec<_> = actors
        .iter()
        .map(|actor| {
            let fault = actor.last_fault.as_ref();
            [
                actor.name.clone(),
                actor.state.clone(),
                actor.restarts.to_string(),
                format!("{}/{}", actor.mailbox, actor.mailbox_capacity),
                span(actor.uptime_ms),
                fault
                    .map(|f| format!("{} {}: {}", f.at, f.cause, f.detail))
                    .unwrap_or_default(),
            ]
        })
        .collect();
    let head = ["actor", "state", "restarts", "mailbox", "up", "last fault"];
    out.table(head, &rows)
}

fn ban_table(bans: &[BanInfo], out: &Out) -> String {
    let rows: Vec<_> = bans
        .iter()
        .map(|ban| {
            [
                ban.party.to_string(),
                ban.since.to_string(),
                ban.until.to_string(),
                ban.reason.clone(),
            ]
        })
        .collect();
    out.table(["party", "since", "until", "reason"], &rows)
}

fn list_table(lists: &[ListReport], out: &Out) -> String {
    let rows: Vec<_> = lists
        .iter()
        .map(|list| {
            [
                list.issuer.to_string(),
                list.state.clone(),
                list.sequence.to_string(),
                list.revoked.to_string(),
                list.next_update.to_string(),
            ]
        })
        .collect();
    let titles = ["issuer", "state", "sequence", "revoked", "next update"];
    out.table(titles, &rows)
}

fn one_list(list: &ListReport, out: &Out) -> String {
    let mut items = vec![
        ("issuer", list.issuer.to_string()),
        ("state", list.state.clone()),
        ("sequence", list.sequence.to_string()),
        ("issued", list.issued.to_string()),
        ("next update", list.next_update.to_string()),
        ("entries", list.entries.to_string()),
        ("revoked", list.revoked.to_string()),
        ("hash", list.hash.clone()),
    ];
    if let Some(before) = list.issued_before {
        items.push(("revoked if issued before", before.to_string()));
    }
    out.list(&items)
}

fn published(report: &Published) -> String {
    match &report.message_id {
        Some(id) => format!(
            "published {} to {} listeners",
            printable(id),
            report.listeners
        ),
        None => "published; no neighbour listens to the topic now".to_owned(),
    }
}

fn reloaded(report: &IdentityReport) -> String {
    format!(
        "the node now is {} and trusts {}",
        report
            .credential
            .as_deref()
            .map_or("without a credential".into(), printable),
        if report.trusted_issuers.is_empty() {
            "nobody".to_owned()
        } else {
            printable(&report.trusted_issuers.join(", ")).into_owned()
        }
    )
}

fn joined<T: Display>(items: &[T]) -> String {
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

/// A span in whole seconds: people need no more here.
fn span(millis: u64) -> String {
    Span(Duration::from_secs(millis / 1000)).to_string()
}
