//! How everybody records: a grant waits until its record is durable, anything else is noted.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::mpsc;

use super::AuditActor;
use crate::{
    audit::AuditEvent,
    messages::audit::{AuditFault, RecordEvent, Recorded},
    supervision::{ActorRef, AskError},
    telemetry::Metrics,
    types::{Clock, EventId},
};

/// Notes that may wait: as many as the writer's default queue. What is noted grants nothing, so
/// beyond this it is counted and dropped.
pub(super) const NOTES: usize = 4_096;
/// Notes on their way at once; they share syncs.
const TOGETHER: usize = 64;
/// Wait before an event is asked again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long a note is tried again and again: longer than any restart of the actor takes.
const NOTE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether all notes are written.
const SETTLE_LOOK: Duration = Duration::from_millis(5);

/// Why an event is not known to be durable. What was to be granted is denied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditUnavailable {
    /// No answer in time, over all repetitions.
    #[error("the audit log did not answer in time")]
    Timeout,
    /// The actor is down for good.
    #[error("the audit log is down")]
    Down,
    /// The log refuses.
    #[error(transparent)]
    Refused(#[from] AuditFault),
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct AuditHandle {
    actor: ActorRef<AuditActor>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    metrics: Metrics,
    notes: mpsc::Sender<RecordEvent>,
    unwritten: Arc<AtomicUsize>,
}

impl fmt::Debug for AuditHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditHandle").finish_non_exhaustive()
    }
}

impl AuditHandle {
    /// A handle, and the task that writes notes. Must be called on the runtime that shall run
    /// the task. `timeout` is how long [`record`](Self::record) tries.
    #[must_use]
    pub fn new(
        actor: ActorRef<AuditActor>,
        clock: Arc<dyn Clock>,
        timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        let (notes, waiting) = mpsc::channel(NOTES);
        let handle = Self {
            actor,
            clock,
            timeout,
            metrics,
            notes,
            unwritten: Arc::default(),
        };
        // The task's clone does not hold the sender that would keep its own channel open.
        let (closed, _) = mpsc::channel(1);
        tokio::spawn(write_notes(
            Self {
                notes: closed,
                ..handle.clone()
            },
            waiting,
        ));
        handle
    }

    /// Records an event and waits until it is durable. An event that is caught by a restart or a
    /// full queue is asked again under the same id, so it stands in the log once.
    ///
    /// # Errors
    /// As [`AuditUnavailable`] says; then nothing may be granted.
    pub async fn record(&self, event: AuditEvent) -> Result<Recorded, AuditUnavailable> {
        self.record_once(EventId::random(), event).await
    }

    /// As [`AuditHandle::record`], under an id of the caller's: a repeat is recognised.
    ///
    /// # Errors
    /// As for [`AuditHandle::record`].
    pub async fn record_once(
        &self,
        id: EventId,
        event: AuditEvent,
    ) -> Result<Recorded, AuditUnavailable> {
        let record = RecordEvent { id, event };
        self.persist(record, self.timeout, AuditFault::is_passing)
            .await
    }

    /// Records an event that grants nothing, some time soon.
    pub fn note(&self, event: AuditEvent) {
        let record = RecordEvent {
            id: EventId::random(),
            event,
        };
        self.unwritten.fetch_add(1, Ordering::AcqRel);
        if self.notes.try_send(record).is_err() {
            self.unwritten.fetch_sub(1, Ordering::AcqRel);
            self.metrics.audit_dropped(1);
            tracing::error!("an audit event was dropped: the log does not keep up");
        }
    }

    /// Waits until everything noted so far is written or given up.
    pub async fn settle(&self) {
        while self.unwritten.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    async fn persist(
        &self,
        record: RecordEvent,
        patience: Duration,
        again: fn(&AuditFault) -> bool,
    ) -> Result<Recorded, AuditUnavailable> {
        let start = self.clock.elapsed();
        loop {
            let spent = self.clock.elapsed().saturating_sub(start);
            let Some(left) = patience.checked_sub(spent).filter(|left| !left.is_zero()) else {
                return Err(AuditUnavailable::Timeout);
            };
            match self.actor.ask(record.clone(), left).await {
                Ok(Ok(recorded)) => {
                    let latency = self.clock.elapsed().saturating_sub(start);
                    self.metrics.audit_recorded(latency);
                    return Ok(recorded);
                }
                Ok(Err(fault)) if !again(&fault) => return Err(fault.into()),
                Ok(Err(_)) | Err(AskError::Restarted | AskError::Overloaded) => {
                    tokio::time::sleep(AGAIN.min(left)).await;
                }
                Err(AskError::Timeout) => return Err(AuditUnavailable::Timeout),
                Err(AskError::Down) => return Err(AuditUnavailable::Down),
            }
        }
    }
}

/// Writes notes in the order they came, many with one sync.
async fn write_notes(handle: AuditHandle, mut waiting: mpsc::Receiver<RecordEvent>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        let written = together
            .drain(..)
            .map(|record| handle.persist(record, NOTE_PATIENCE, |_| true));
        for outcome in futures::future::join_all(written).await {
            if let Err(error) = outcome {
                handle.metrics.audit_dropped(1);
                tracing::error!(%error, "an audit event was dropped");
            }
            handle.unwritten.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
