//! Who waits for news of a job. Bounded: beyond the bound nobody waits, and asks again instead.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::sandbox::JobId;

/// Most who wait at the same time; each holds a few hundred bytes and a slot of its asker.
const MAX_WAITERS: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: HashMap<JobId, Vec<oneshot::Sender<()>>>,
    count: usize,
}

impl Waiters {
    /// Resolves at the next news of the job; at once when too many wait.
    pub(super) fn wait(&mut self, job: JobId) -> oneshot::Receiver<()> {
        let (waker, news) = oneshot::channel();
        if self.count >= MAX_WAITERS {
            self.forget_gone();
        }
        if self.count < MAX_WAITERS {
            self.waiting.entry(job).or_default().push(waker);
            self.count = self.count.saturating_add(1);
        }
        news
    }

    /// There is news of the job.
    pub(super) fn wake(&mut self, job: &JobId) {
        for waker in self.waiting.remove(job).unwrap_or_default() {
            self.count = self.count.saturating_sub(1);
            // Who waited may have given up.
            let _ = waker.send(());
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn forget_gone(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.retain(|waker| !waker.is_closed());
        }
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        self.count = self.waiting.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u8) -> JobId {
        JobId([n; 16])
    }

    #[tokio::test]
    async fn news_wakes_those_of_the_job_alone() {
        let mut waiters = Waiters::default();
        let (one, mut other) = (waiters.wait(job(1)), waiters.wait(job(2)));
        waiters.wake(&job(1));
        assert_eq!(one.await, Ok(()));
        assert!(other.try_recv().is_err());
        assert_eq!(waiters.len(), 1);
    }

    #[tokio::test]
    async fn beyond_the_bound_nobody_waits_and_those_who_left_make_room() {
        let mut waiters = Waiters::default();
        let held: Vec<_> = (0..MAX_WAITERS).map(|_| waiters.wait(job(1))).collect();
        assert!(waiters.wait(job(1)).await.is_err(), "answered at once");
        drop(held);
        let _last = waiters.wait(job(2));
        assert_eq!(waiters.len(), 1);
    }
}
