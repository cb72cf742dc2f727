//! Audit: the log's owner. A thin shell over [`crate::audit`].
//!
//! Each incarnation opens the log anew and has a writer thread of its own; raising the
//! [`Fence`] stops the thread of the one before, whose queued records are then asked again by
//! their callers under the same id. Callers use [`AuditHandle`].
//!
//! When the mailbox or the queue is full the caller is told, and denies. When the disk hangs,
//! callers time out, and after `audit.stall_exit` the node ends ([`AuditTools::disk_stalled`]).

mod handle;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use actix::{Actor, Context, Handler, ResponseActFuture, WrapFuture};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    audit::{
        Checkpointing, Fence, Log, LogOptions, OpenError, Progress, Writer,
        checkpoint::SignedCheckpoint,
        storage::{Directory, Storage},
        tail,
    },
    config::AuditConfig,
    identity::NodeKey,
    messages::audit::{
        AuditFault, CheckpointLog, FlushLog, RecordEvent, Recorded, RotateLog, Tail,
    },
    supervised,
    supervision::{Fault, Incarnation, Supervise},
    types::Clock,
};

pub use handle::{AuditHandle, AuditUnavailable};

/// How long a new incarnation waits for the writer of the old one to let go of the log.
const HANDOVER: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const HANDOVER_LOOK: Duration = Duration::from_millis(5);
/// Between two looks whether the disk answers.
const DISK_LOOK: Duration = Duration::from_secs(1);

/// What every incarnation shares.
#[derive(Clone)]
pub struct AuditTools {
    /// The log's directory.
    pub directory: PathBuf,
    /// The same, as the log sees it.
    storage: Arc<dyn Storage>,
    /// `[audit]`.
    pub config: AuditConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Signs checkpoints; `None`: there are none.
    key: Option<NodeKey>,
    /// Keeps old writers out.
    pub fence: Fence,
    /// What the writer is doing.
    pub progress: Arc<Progress>,
}

impl fmt::Debug for AuditTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTools")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl AuditTools {
    /// Tools for the log in `directory`, whose checkpoints `key` signs.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        config: AuditConfig,
        clock: Arc<dyn Clock>,
        key: Option<NodeKey>,
    ) -> Self {
        let storage = Arc::new(Directory::at(&directory));
        Self {
            directory,
            storage,
            config,
            clock,
            key,
            fence: Fence::default(),
            progress: Arc::default(),
        }
    }

    /// Opens the log; repairs what a crash left. The node does so once before it starts the
    /// actor, so that damage is an error of the start and not of an actor.
    ///
    /// # Errors
    /// As [`OpenError`] says.
    pub fn open(&self) -> Result<Log, OpenError> {
        self.storage.prepare().map_err(|source| OpenError::Io {
            what: format!("cannot make {}", self.storage.place()),
            source,
        })?;
        let checkpoints = self.key.clone().map(|key| Checkpointing {
            key,
            records: self.config.checkpoint_records,
            interval: self.config.checkpoint_interval.0,
        });
        let options = LogOptions {
            checkpoints,
            segment_size: self.config.segment_size.0,
            remembered_ids: self.config.remembered_ids,
            version: crate::VERSION.to_owned(),
            clock: Arc::clone(&self.clock),
        };
        Log::open(Arc::clone(&self.storage), options)
    }

    /// As [`open`](Self::open), once the writer of before has let go.
    fn take_over(&self, incarnation: &Incarnation) -> Result<Log, OpenError> {
        let start = self.clock.elapsed();
        loop {
            match self.open() {
                Err(OpenError::Locked(_))
                    if self.clock.elapsed().saturating_sub(start) < HANDOVER =>
                {
                    incarnation.progress();
                    std::thread::sleep(HANDOVER_LOOK);
                }
                other => return other,
            }
        }
    }

    /// Resolves when the disk has not answered for `audit.stall_exit`.
    pub async fn disk_stalled(&self) {
        while self.progress.busy(&*self.clock) < self.config.stall_exit.0 {
            tokio::time::sleep(DISK_LOOK).await;
        }
    }
}

/// The actor.
pub struct AuditActor {
    incarnation: Incarnation,
    tools: AuditTools,
    writer: Option<Writer>,
    last_fault: Option<String>,
}

impl fmt::Debug for AuditActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditActor").finish_non_exhaustive()
    }
}

/// What the actor shows of itself.
#[derive(Debug, Clone, Serialize)]
pub struct AuditState {
    /// Batches written, one sync each.
    pub batches: u64,
    /// Records written.
    pub records: u64,
    /// How long the batch at hand has been taking, milliseconds.
    pub busy_ms: u64,
    /// Why a record was refused last.
    pub last_fault: Option<String>,
}

supervised!(AuditActor);

impl Actor for AuditActor {
    type Context = Context<Self>;
}

impl AuditActor {
    /// A value for one incarnation; opens nothing yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, tools: AuditTools) -> Self {
        Self {
            incarnation,
            tools,
            writer: None,
            last_fault: None,
        }
    }
}

impl Supervise for AuditActor {
    const NAME: &'static str = "audit";
    const EXCLUSIVE: bool = true;
    type Observable = AuditState;

    fn on_start(&mut self, _: &mut Context<Self>) -> Result<(), Fault> {
        let ticket = self.tools.fence.raise();
        let log = self
            .tools
            .take_over(&self.incarnation)
            .map_err(Fault::build)?;
        let AuditTools {
            config,
            clock,
            fence,
            progress,
            ..
        } = &self.tools;
        let writer = Writer::start(
            log,
            (fence.clone(), ticket),
            Arc::clone(progress),
            Arc::clone(clock),
            config.queue,
            config.batch,
        );
        self.writer = Some(writer.map_err(Fault::build)?);
        Ok(())
    }

    fn observe(&self) -> AuditState {
        let progress = &self.tools.progress;
        let busy = progress.busy(&*self.tools.clock);
        AuditState {
            batches: progress.batches(),
            records: progress.records(),
            busy_ms: u64::try_from(busy.as_millis()).unwrap_or(u64::MAX),
            last_fault: self.last_fault.clone(),
        }
    }
}

/// Waits for the writer's answer without keeping other messages waiting.
fn answer<T: 'static>(
    actor: &AuditActor,
    queue: impl FnOnce(&Writer) -> oneshot::Receiver<Result<T, AuditFault>>,
) -> ResponseActFuture<AuditActor, Result<T, AuditFault>> {
    let answered = actor.writer.as_ref().map(queue);
    let waiting = async move {
        match answered {
            Some(answered) => answered.await.unwrap_or(Err(AuditFault::Stopped)),
            None => Err(AuditFault::Stopped),
        }
    };
    Box::pin(actix::fut::ActorFutureExt::map(
        waiting.into_actor(actor),
        |result, act, _| {
            if let Err(fault) = &result {
                act.last_fault = Some(fault.to_string());
                if *fault == AuditFault::Stopped {
                    // The thread has ended under a living actor: only a new incarnation has a
                    // new one. (Of an old incarnation this does nothing.)
                    act.incarnation.fail("the writer's thread has ended");
                }
            }
            result
        },
    ))
}

impl Handler<RecordEvent> for AuditActor {
    type Result = ResponseActFuture<Self, Result<Recorded, AuditFault>>;

    fn handle(&mut self, message: RecordEvent, _: &mut Context<Self>) -> Self::Result {
        answer(self, |writer| writer.record(message.id, message.event))
    }
}

impl Handler<RotateLog> for AuditActor {
    type Result = ResponseActFuture<Self, Result<String, AuditFault>>;

    fn handle(&mut self, _: RotateLog, _: &mut Context<Self>) -> Self::Result {
        answer(self, Writer::rotate)
    }
}

impl Handler<CheckpointLog> for AuditActor {
    type Result = ResponseActFuture<Self, Result<SignedCheckpoint, AuditFault>>;

    fn handle(&mut self, _: CheckpointLog, _: &mut Context<Self>) -> Self::Result {
        answer(self, Writer::checkpoint)
    }
}

impl Handler<FlushLog> for AuditActor {
    type Result = ResponseActFuture<Self, Result<(), AuditFault>>;

    fn handle(&mut self, _: FlushLog, _: &mut Context<Self>) -> Self::Result {
        answer(self, Writer::flush)
    }
}

impl Handler<Tail> for AuditActor {
    type Result = ResponseActFuture<Self, Result<Vec<String>, AuditFault>>;

    fn handle(&mut self, message: Tail, _: &mut Context<Self>) -> Self::Result {
        let storage = Arc::clone(&self.tools.storage);
        let count = message.count.min(Tail::MAX);
        // Reading may take as long as the disk likes: no grant shall wait for it.
        let reading = tokio::task::spawn_blocking(move || tail(&*storage, count));
        let lines = async move {
            match reading.await {
                Ok(lines) => lines.map_err(|error| AuditFault::Io(error.to_string())),
                Err(error) => Err(AuditFault::Io(error.to_string())),
            }
        };
        Box::pin(lines.into_actor(self))
    }
}

#[cfg(test)]
mod tests;
