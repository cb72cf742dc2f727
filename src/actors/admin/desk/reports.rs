//! What the desk says of actors, and of commands in the log.

use std::collections::BTreeMap;

use crate::{
    admin::protocol::{ActorFault, ActorReport, FaultKind, Request, Response, millis},
    audit::checkpoint::{Checkpoint, SignedCheckpoint},
    supervision::{ActorSnapshot, Inject},
};

pub(super) fn fault(kind: FaultKind) -> Inject {
    match kind {
        FaultKind::Panic => Inject::Panic,
        FaultKind::Error => Inject::Error,
        FaultKind::Hang => Inject::Hang,
        FaultKind::Block => Inject::Block,
    }
}

pub(super) fn checkpoint(signed: &SignedCheckpoint) -> Response {
    let Checkpoint { origin, size, root } = signed.checkpoint().clone();
    Response::Checkpoint {
        origin,
        size,
        root,
        note: signed.encode(),
    }
}

/// What a command is about, for the log.
pub(super) fn detail(request: &Request) -> String {
    match request {
        Request::Restart { actor } => actor.clone(),
        Request::Inject { actor, kind } => format!("{actor}: {}", fault(*kind)),
        Request::Ban {
            party,
            span,
            reason,
        } => format!("{party} for {span}: {reason}"),
        Request::Quarantine {
            party,
            span,
            reason,
        } => format!("{party} for {span}: {reason}"),
        Request::Unban { party } | Request::Release { party } => party.to_string(),
        Request::JobCancel { job } => job.to_string(),
        Request::Remote { node, request, .. } => {
            format!("{} at {node} {}", request.name(), detail(request))
        }
        Request::StatusImport { bytes } => format!("{} bytes", bytes.len()),
        Request::Invite { subject, .. } => subject.to_string(),
        _ => String::new(),
    }
}

pub(super) fn report(actor: ActorSnapshot) -> ActorReport {
    let by_cause: BTreeMap<String, u64> = actor
        .restarts_by_cause
        .iter()
        .map(|(cause, n)| (cause.to_string(), *n))
        .collect();
    ActorReport {
        name: actor.name,
        state: actor.state.name().to_owned(),
        generation: actor.generation,
        restarts: actor.restarts,
        restarts_by_cause: by_cause,
        last_fault: actor.last_fault.map(|fault| ActorFault {
            cause: fault.cause.to_string(),
            detail: fault.detail,
            at: fault.at,
            blamed: fault.blamed,
        }),
        mailbox: actor.mailbox,
        mailbox_capacity: actor.mailbox_capacity,
        uptime_ms: millis(actor.uptime),
    }
}
