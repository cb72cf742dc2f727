//! The receipt: signed from what is on disk, on record before it is handed out.
//!
//! It can be made again from the record and the output at any time, so a job that ended just
//! before a crash gets its receipt afterwards.

use std::time::Duration;

use actix::{AsyncContext, Context, WrapFuture, fut::ActorFutureExt};

use super::SandboxActor;
use crate::{
    audit::AuditEvent,
    sandbox::{
        ContentHash, JobId, Stream,
        receipt::{Content, Label, Receipt, ReceiptBody},
    },
};

impl SandboxActor {
    /// Every finished job that has no receipt yet.
    pub(super) fn seal_all(&mut self, ctx: &mut Context<Self>) {
        let Some(running) = &self.running else {
            return;
        };
        let due: Vec<_> = running
            .registry
            .iter()
            .filter(|record| record.is_finished() && record.receipt.is_none())
            .map(|record| record.id)
            .collect();
        for id in due {
            self.seal(id, ctx);
        }
    }

    /// Signs a job's receipt and has it recorded; then it is there for whoever asks.
    pub(super) fn seal(&mut self, id: JobId, ctx: &mut Context<Self>) {
        if self.sealing.contains(&id) {
            return;
        }
        let Some(body) = self.body(id) else {
            return;
        };
        let (outcome, submitter) = (body.outcome.to_string(), body.submitter);
        let cpu = Duration::from_micros(body.usage.cpu_us);
        let receipt = Receipt::sign(body, &self.setup.key);
        let bytes = receipt.bytes().to_vec();
        let event = AuditEvent::JobFinished {
            job: id.to_string(),
            submitter,
            outcome,
            receipt: ContentHash::of(&bytes).0,
            cpu,
        };
        self.sealing.insert(id);
        let audit = self.setup.audit.clone();
        let recorded = async move { audit.record(event).await };
        ctx.spawn(recorded.into_actor(self).map(move |recorded, act, _| {
            act.sealing.remove(&id);
            match recorded {
                Ok(_) => {
                    if let Some(running) = act.running.as_mut() {
                        running.registry.set_receipt(&id, bytes);
                    }
                    act.persist(true);
                    act.waiters.wake(&id);
                }
                // Tried again at the next tick.
                Err(error) => tracing::warn!(job = %id, %error, "a receipt is not on record yet"),
            }
        }));
    }

    fn body(&mut self, id: JobId) -> Option<ReceiptBody> {
        let running = self.running.as_mut()?;
        let record = running.registry.job(&id)?;
        let outcome = record.outcome.clone()?;
        let spool = running.spools.get_mut(&id)?;
        let mut output = |stream| match spool.content(stream) {
            Ok(content) => Some(content),
            // Tried again at the next tick.
            Err(error) => {
                tracing::error!(job = %id, %error, "an output cannot be read");
                None
            }
        };
        let spec = &record.spec;
        let own = self.setup.own.load();
        Some(ReceiptBody {
            executor: self.setup.key.peer(),
            executor_credential: own
                .identity
                .as_ref()
                .map(|own| ContentHash(own.credential_hash)),
            submitter: record.submitter.peer,
            submitter_identity: record.submitter.identity.as_deref().and_then(label),
            key: spec.key,
            module: Content {
                hash: spec.module,
                size: spec.module_size,
            },
            arguments: spec.arguments_hash(),
            input: Content {
                hash: spec.input,
                size: spec.input_size,
            },
            stdout: output(Stream::Stdout)?,
            stderr: output(Stream::Stderr)?,
            limits: record.limits,
            deterministic: spec.deterministic,
            outcome,
            usage: record.usage,
            attempts: record.attempt,
            submitted: record.submitted,
            started: record.started,
            finished: record.finished?,
        })
    }
}

/// `issuer/subject`, in its two parts.
fn label(identity: &str) -> Option<Label> {
    let (issuer, subject) = identity.split_once('/')?;
    Some(Label {
        issuer: issuer.parse().ok()?,
        subject: subject.parse().ok()?,
    })
}
