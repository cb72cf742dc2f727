//! Group commit: one thread drains a bounded queue, writes once, syncs once, answers all.
//!
//! A writer belongs to one incarnation of the Audit actor. When the next one raises the
//! [`Fence`], the old thread stops before its next batch and answers what is queued with
//! `Stopped`; it holds the log's lock until then, so two never write at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    AuditEvent, Log,
    checkpoint::SignedCheckpoint,
    log::{Pending, fault_of},
    record::SegmentCause,
};
use crate::{
    messages::audit::{AuditFault, Recorded},
    types::{Clock, EventId},
};

/// Shortest wait for a checkpoint to fall due: a clock that stands still, as in tests, must not
/// make the thread spin.
const SHORTEST: Duration = Duration::from_millis(10);

type Answer<T> = oneshot::Sender<Result<T, AuditFault>>;

/// What the thread is asked.
enum Request {
    Record(EventId, Box<AuditEvent>, Answer<Recorded>),
    Rotate(Answer<String>),
    Checkpoint(Answer<SignedCheckpoint>),
    Flush(Answer<()>),
}

impl Request {
    fn refuse(self, fault: AuditFault) {
        // Whoever does not wait any more needs no answer.
        match self {
            Self::Record(_, _, answer) => drop(answer.send(Err(fault))),
            Self::Rotate(answer) => drop(answer.send(Err(fault))),
            Self::Checkpoint(answer) => drop(answer.send(Err(fault))),
            Self::Flush(answer) => drop(answer.send(Err(fault))),
        }
    }
}

/// Says which writer may write; shared by all incarnations.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<AtomicU64>);

impl Fence {
    /// Stops every writer made before, and returns the ticket of the next.
    #[must_use]
    pub fn raise(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn admits(&self, ticket: u64) -> bool {
        self.0.load(Ordering::SeqCst) == ticket
    }
}

/// What can be seen of the writer without asking it; shared by all incarnations.
#[derive(Debug, Default)]
pub struct Progress {
    /// When the batch at hand was begun, milliseconds of the clock, plus one; 0: none.
    busy_since: AtomicU64,
    batches: AtomicU64,
    records: AtomicU64,
}

impl Progress {
    /// How long the batch at hand has been taking; zero when there is none.
    pub fn busy(&self, clock: &dyn Clock) -> Duration {
        match self.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => clock
                .elapsed()
                .saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    /// Batches written.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Records written.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn begin(&self, clock: &dyn Clock) {
        let now = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.busy_since
            .store(now.saturating_add(1), Ordering::Release);
    }

    fn rest(&self) {
        self.busy_since.store(0, Ordering::Release);
    }

    fn end(&self, records: usize) {
        self.rest();
        self.batches.fetch_add(1, Ordering::Relaxed);
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        self.records.fetch_add(records, Ordering::Relaxed);
    }
}

/// The queue's end of a writer thread. Dropping it ends the thread once the queue is empty, or
/// at once when the fence was raised.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Request>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        log: Log,
        (fence, ticket): (Fence, u64),
        progress: Arc<Progress>,
        clock: Arc<dyn Clock>,
        queue: usize,
        batch: usize,
    ) -> io::Result<Self> {
        let (sender, requests) = sync_channel(queue.max(1));
        let thread = Thread {
            log,
            fence,
            ticket,
            progress,
            clock,
            batch: batch.max(1),
            requests,
        };
        std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self { queue: sender })
    }

    fn send(&self, request: Request) {
        match self.queue.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => request.refuse(AuditFault::QueueFull),
            Err(TrySendError::Disconnected(request)) => request.refuse(AuditFault::Stopped),
        }
    }

    /// Queues a record; the answer comes once it is durable.
    #[must_use]
    pub fn record(
        &self,
        id: EventId,
        event: AuditEvent,
    ) -> oneshot::Receiver<Result<Recorded, AuditFault>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Record(id, Box::new(event), answer));
        answered
    }

    /// Queues a rotation; answered with the new segment's file name.
    #[must_use]
    pub fn rotate(&self) -> oneshot::Receiver<Result<String, AuditFault>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Rotate(answer));
        answered
    }

    /// Queues a checkpoint of everything queued before; answered with it.
    #[must_use]
    pub fn checkpoint(&self) -> oneshot::Receiver<Result<SignedCheckpoint, AuditFault>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Checkpoint(answer));
        answered
    }

    /// Answered once everything queued before is durable, and a checkpoint of it was made as far as
    /// one can be.
    #[must_use]
    pub fn flush(&self) -> oneshot::Receiver<Result<(), AuditFault>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Flush(answer));
        answered
    }
}

struct Thread {
    log: Log,
    fence: Fence,
    ticket: u64,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    batch: usize,
    requests: Receiver<Request>,
}

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let mut taken = vec![first];
            while taken.len() < self.batch {
                match self.requests.try_recv() {
                    Ok(request) => taken.push(request),
                    Err(_) => break,
                }
            }
            if !self.fence.admits(self.ticket) {
                taken
                    .into_iter()
                    .for_each(|request| request.refuse(AuditFault::Stopped));
                // Senders see the queue closed from here on.
                self.requests
                    .try_iter()
                    .for_each(|r| r.refuse(AuditFault::Stopped));
                return;
            }
            self.progress.begin(&*self.clock);
            let records = self.carry_out(taken);
            self.log.checkpoint_if_due();
            self.progress.end(records);
        }
    }

    /// The next request; checkpoints are made meanwhile. `None`: nobody asks any more.
    fn next(&mut self) -> Option<Request> {
        loop {
            let Some(wait) = self.log.checkpoint_due_in() else {
                return self.requests.recv().ok();
            };
            match self.requests.recv_timeout(wait.max(SHORTEST)) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                // A writer that may not write any more waits for its end.
                Err(RecvTimeoutError::Timeout) if !self.fence.admits(self.ticket) => {
                    return self.requests.recv().ok();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.progress.begin(&*self.clock);
                    self.log.checkpoint_if_due();
                    self.progress.rest();
                }
            }
        }
    }

    /// Records between two other requests share one sync.
    fn carry_out(&mut self, requests: Vec<Request>) -> usize {
        let mut records = 0;
        let (mut batch, mut answers): (Vec<Pending>, Vec<Answer<Recorded>>) = Default::default();
        for request in requests {
            match request {
                Request::Record(id, event, answer) => {
                    records += 1;
                    batch.push((id, *event));
                    answers.push(answer);
                }
                Request::Rotate(answer) => {
                    self.commit(&mut batch, &mut answers);
                    let rotated = self.log.rotate(SegmentCause::Command);
                    let _ = answer.send(rotated.map_err(|e| fault_of(&e)));
                }
                Request::Checkpoint(answer) => {
                    self.commit(&mut batch, &mut answers);
                    let _ = answer.send(self.log.checkpoint());
                }
                Request::Flush(answer) => {
                    self.commit(&mut batch, &mut answers);
                    // The end of the node: nothing is left that no checkpoint covers.
                    self.log.checkpoint_or_warn();
                    let _ = answer.send(Ok(()));
                }
            }
        }
        self.commit(&mut batch, &mut answers);
        records
    }

    fn commit(&mut self, batch: &mut Vec<Pending>, answers: &mut Vec<Answer<Recorded>>) {
        if batch.is_empty() {
            return;
        }
        let results = self.log.append(batch);
        for (answer, result) in answers.drain(..).zip(results) {
            // Whoever does not wait any more needs no answer.
            let _ = answer.send(result);
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests;
