//! Commands about jobs. What this node gave away is asked of Jobs, what it runs of Sandbox; of a
//! job that is both (it gave it to itself) Jobs tells.

use std::time::Duration;

use super::desk::{DEADLINE, Desk, no_answer};
use crate::{
    admin::protocol::{Failure, FailureCode, Response},
    messages::{
        jobs::{JobsFault, SubmitJob, UploadPiece},
        sandbox::{CancelJob, DescribeJob, FollowJob, JobNews, JobReport, ListJobs},
    },
    sandbox::{ContentHash, JobId, JobSpec, Stream},
    supervision::AskError,
    types::PeerId,
};

/// How long one question of a follower waits for news; then it asks again.
const WAIT: Duration = Duration::from_secs(5);
/// Pause before a follower asks an actor again that was restarted.
const PAUSE: Duration = Duration::from_millis(50);

/// A client that follows a job's output.
#[derive(Debug)]
pub(super) struct Follow {
    job: JobId,
    cursor: (u64, u64),
    wait: bool,
}

impl Follow {
    pub(super) fn new(job: JobId, cursor: (u64, u64), wait: bool) -> Self {
        Self { job, cursor, wait }
    }
}

fn refused(fault: &JobsFault) -> Failure {
    let code = match fault {
        JobsFault::Spec(_)
        | JobsFault::KeyReused(_)
        | JobsFault::WrongHash(_)
        | JobsFault::OutOfPlace => FailureCode::Invalid,
        JobsFault::NoRoom | JobsFault::TooMany(_) | JobsFault::Missing(_) | JobsFault::Stopping => {
            FailureCode::Again
        }
        JobsFault::Io(_) | JobsFault::Audit(_) => FailureCode::Io,
    };
    Failure::new(code, fault.to_string())
}

fn unknown(job: JobId) -> Failure {
    Failure::new(
        FailureCode::UnknownJob,
        format!("there is no job {job}; see `quantraband job list`"),
    )
}

impl Desk {
    pub(super) async fn upload(
        &self,
        blob: ContentHash,
        size: u64,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Response, Failure> {
        let piece = UploadPiece {
            blob,
            size,
            offset,
            bytes,
        };
        let answer = self.tools().jobs.ask(piece, DEADLINE).await;
        let have = answer.map_err(no_answer)?.map_err(|why| refused(&why))?;
        Ok(Response::Uploaded { have })
    }

    pub(super) async fn submit(
        &self,
        executor: Option<PeerId>,
        spec: JobSpec,
    ) -> Result<Response, Failure> {
        let tools = self.tools();
        let submit = SubmitJob { executor, spec };
        let answer = tools.jobs.ask(submit, DEADLINE).await;
        let job = answer.map_err(no_answer)?.map_err(|why| refused(&why))?;
        Ok(Response::JobSubmitted {
            job,
            executor: executor.unwrap_or(tools.facts.peer_id),
        })
    }

    pub(super) async fn jobs(&self) -> Result<Response, Failure> {
        let tools = self.tools();
        let (sent, run) = tokio::join!(
            tools.jobs.ask(ListJobs, DEADLINE),
            tools.sandbox.ask(ListJobs, DEADLINE)
        );
        let mut jobs = sent.map_err(no_answer)?;
        jobs.extend(run.map_err(no_answer)?);
        jobs.sort_by_key(|job| std::cmp::Reverse(job.submitted));
        Ok(Response::Jobs { jobs })
    }

    pub(super) async fn job(&self, job: JobId) -> Result<Response, Failure> {
        let tools = self.tools();
        let ask = DescribeJob { job };
        let mut found: Option<JobReport> =
            tools.jobs.ask(ask, DEADLINE).await.map_err(no_answer)?;
        if found.is_none() {
            found = tools.sandbox.ask(ask, DEADLINE).await.map_err(no_answer)?;
        }
        found
            .map(|report| Response::Job(Box::new(report)))
            .ok_or_else(|| unknown(job))
    }

    pub(super) async fn cancel(&self, job: JobId) -> Result<Response, Failure> {
        let tools = self.tools();
        let ask = CancelJob { job };
        let mut state = tools.jobs.ask(ask, DEADLINE).await.map_err(no_answer)?;
        if state.is_none() {
            state = tools.sandbox.ask(ask, DEADLINE).await.map_err(no_answer)?;
        }
        state
            .map(|state| Response::JobCancelled { job, state })
            .ok_or_else(|| unknown(job))
    }

    /// The next lines for a follower; the last of them ends the stream when it is no output.
    pub(super) async fn news(&self, follow: &mut Follow) -> Vec<Response> {
        match self.ask_news(follow).await {
            Ok(Some(news)) => lines(follow, news),
            Ok(None) => vec![Response::Error(unknown(follow.job))],
            // The next incarnation knows the job as well.
            Err(AskError::Restarted | AskError::Timeout | AskError::Overloaded) if follow.wait => {
                tokio::time::sleep(PAUSE).await;
                Vec::new()
            }
            Err(error) => vec![Response::Error(no_answer(error))],
        }
    }

    async fn ask_news(&self, follow: &Follow) -> Result<Option<JobNews>, AskError> {
        let ask = FollowJob {
            job: follow.job,
            stdout: follow.cursor.0,
            stderr: follow.cursor.1,
            wait: if follow.wait { WAIT } else { Duration::ZERO },
        };
        let deadline = WAIT.saturating_add(DEADLINE);
        let tools = self.tools();
        match tools.jobs.ask(ask, deadline).await? {
            Some(news) => Ok(Some(news)),
            None => tools.sandbox.ask(ask, deadline).await,
        }
    }
}

fn lines(follow: &mut Follow, news: JobNews) -> Vec<Response> {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    follow.cursor.0 = follow.cursor.0.saturating_add(length(&news.stdout));
    follow.cursor.1 = follow.cursor.1.saturating_add(length(&news.stderr));
    let mut lines = Vec::new();
    for (stream, bytes) in [(Stream::Stdout, news.stdout), (Stream::Stderr, news.stderr)] {
        if !bytes.is_empty() {
            lines.push(Response::JobOutput { stream, bytes });
        }
    }
    match news.finished {
        Some(report) => lines.push(Response::Job(report)),
        None if lines.is_empty() && !follow.wait => lines.push(Response::Done {}),
        None => {}
    }
    lines
}
