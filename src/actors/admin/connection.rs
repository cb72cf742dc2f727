//! One connection: one request, its answer, or a stream of answers.

use std::time::Duration;

use tokio::{
    io::BufReader,
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
};

use super::{Desk, desk::By, jobs::Follow};
use crate::{
    admin::{
        lines::{self, LineError, LineReader},
        protocol::{Failure, FailureCode, Request, Response},
    },
    messages::swarm::Delivered,
    types::Topic,
};

/// How long a client may take to send its request, or to take one line of an answer: it is on
/// this machine, and holds one of few slots.
const CLIENT_DEADLINE: Duration = Duration::from_secs(30);
/// Wait before a subscription that was lost with Swarm is made again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(50);

/// Serves one connection to its end.
pub(super) async fn serve(stream: UnixStream, desk: Desk, streams: &Semaphore) {
    let uid = stream.peer_cred().ok().map(|who| who.uid());
    let (reader, mut writer) = stream.into_split();
    let mut reader = LineReader::new(BufReader::new(reader));
    let request = match tokio::time::timeout(CLIENT_DEADLINE, reader.next::<Request>()).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(error)) => {
            let failure = Failure::new(FailureCode::Invalid, error.to_string());
            let _ = send(&mut writer, &Response::Error(failure)).await;
            return;
        }
    };
    let name = request.name();
    let done = match request {
        Request::Subscribe { topic } => {
            let Ok(_stream) = streams.try_acquire() else {
                let _ = send(&mut writer, &Response::Error(too_many())).await;
                return;
            };
            tokio::select! {
                streamed = subscribe(&mut writer, &desk, topic) => streamed,
                // The client says nothing more: whatever comes is its end.
                _ = reader.next_line() => Ok(()),
            }
        }
        Request::AuditTail { count, after } => tail(&mut writer, &desk, count, after).await,
        Request::JobFollow {
            job,
            stdout,
            stderr,
            wait,
        } => {
            let Ok(_stream) = streams.try_acquire() else {
                let _ = send(&mut writer, &Response::Error(too_many())).await;
                return;
            };
            let mut follow = Follow::new(job, (stdout, stderr), wait);
            tokio::select! {
                streamed = stream_job(&mut writer, &desk, &mut follow) => streamed,
                _ = reader.next_line() => Ok(()),
            }
        }
        other => {
            let answer = desk.answer(other, By::User(uid)).await;
            send(&mut writer, &answer).await
        }
    };
    if let Err(error) = done {
        tracing::debug!(command = name, %error, "a client did not take its answer");
    }
}

fn too_many() -> Failure {
    Failure::new(
        FailureCode::Again,
        "too many streams are served; end one, or raise `admin.connections`",
    )
}

/// Streams a job's output until its end. The follower keeps the cursors, so a restart of an
/// actor in between costs a pause and nothing else.
async fn stream_job(
    writer: &mut OwnedWriteHalf,
    desk: &Desk,
    follow: &mut Follow,
) -> Result<(), LineError> {
    loop {
        for line in desk.news(follow).await {
            let last = !matches!(line, Response::JobOutput { .. });
            send(writer, &line).await?;
            if last {
                return Ok(());
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, answer: &Response) -> Result<(), LineError> {
    match tokio::time::timeout(CLIENT_DEADLINE, lines::write(writer, answer)).await {
        Ok(sent) => sent,
        Err(_) => Err(LineError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

async fn tail(
    writer: &mut OwnedWriteHalf,
    desk: &Desk,
    count: usize,
    after: Option<u64>,
) -> Result<(), LineError> {
    match desk.tail(count, after).await {
        Ok(records) => {
            for line in records {
                send(writer, &Response::AuditRecord { line }).await?;
            }
            send(writer, &Response::Done {}).await
        }
        Err(failure) => send(writer, &Response::Error(failure)).await,
    }
}

/// Streams a topic. A subscription ends with the Swarm incarnation that holds it; then it is
/// made again, and the client notices nothing but a pause.
async fn subscribe(
    writer: &mut OwnedWriteHalf,
    desk: &Desk,
    topic: Topic,
) -> Result<(), LineError> {
    let mut told = false;
    loop {
        let (sink, mut messages) = mpsc::channel(desk.subscriber_queue());
        match desk.subscribe(topic.clone(), sink).await {
            Ok(()) => {}
            Err(failure) if told && failure.code == FailureCode::Again => {
                tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
                continue;
            }
            Err(failure) => return send(writer, &Response::Error(failure)).await,
        }
        if !told {
            send(
                writer,
                &Response::Subscribed {
                    topic: topic.clone(),
                },
            )
            .await?;
            told = true;
        }
        while let Some(delivered) = messages.recv().await {
            let line = match delivered {
                Delivered::Message(message) => Response::Message(message.into()),
                Delivered::Lagged(dropped) => Response::Lagged { dropped },
            };
            send(writer, &line).await?;
        }
        tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
    }
}
