//! The command line's end of the admin socket.
//!
//! One request, then answers; every wait has a deadline, every line a bound. It fails with
//! [`ClientError`], which tells apart that no node runs, that this user may not ask it, and that
//! the node does not answer.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use thiserror::Error;
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{
    admin::{
        lines::{self, LineError, LineReader},
        protocol::{Failure, Request, Response, SOCKET},
    },
    types::Span,
};

/// How long the node may take for one answer: longer than its own deadlines for asks between
/// actors and for audit records (5 s each, one after the other), so that its answer is heard.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// The same for what takes longer: a reload tries policies first, another node is far. Longer than
/// the node's own deadline for these (65 s).
pub const SLOW_DEADLINE: Duration = Duration::from_secs(75);

/// Why the node could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error(
        "no node runs on {}; start it with `quantraband run`, or name its configuration with \
         --config FILE",
        data_dir.display()
    )]
    NoNode {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error(
        "no permission for {}; only the user who runs the node may ask it",
        path.display()
    )]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be reached for another reason.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node did not answer in time.
    #[error("the node did not answer within {}; see its log, and try again", Span(*.0))]
    Deadline(Duration),
    /// The node closed the connection before it answered, as when it stops.
    #[error("the node closed the connection before it answered; try again")]
    Ended,
    /// The connection broke, or what came is no answer.
    #[error("talking to the node: {0}")]
    Line(#[from] LineError),
    /// An answer to another question.
    #[error("the node's answer does not fit the question: {0}; are both of one version?")]
    Unexpected(&'static str),
    /// The node answered that it did not do it.
    #[error("{0}")]
    Refused(#[from] Failure),
}

/// A connection to the node, for one request.
#[derive(Debug)]
pub struct AdminClient {
    reader: LineReader<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    deadline: Duration,
}

impl AdminClient {
    /// Connects to the node that runs on this data directory.
    ///
    /// # Errors
    /// [`ClientError::NoNode`], [`ClientError::Permission`], [`ClientError::Connect`].
    pub async fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let path = data_dir.join(SOCKET);
        let stream = UnixStream::connect(&path)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoNode {
                    data_dir: data_dir.to_owned(),
                },
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                _ => ClientError::Connect { path, source },
            })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: LineReader::new(BufReader::new(reader)),
            writer,
            deadline: ANSWER_DEADLINE,
        })
    }

    /// As [`AdminClient::connect`], with another deadline for each answer.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asks and reads the one answer.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn ask(mut self, request: &Request) -> Result<Response, ClientError> {
        self.send(request).await?;
        self.answer().await
    }

    /// Sends a request whose answers are read with [`AdminClient::answer`] or
    /// [`AdminClient::next`].
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let deadline = self.deadline;
        match timeout(deadline, lines::write(&mut self.writer, request)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(ClientError::Deadline(deadline)),
        }
    }

    /// Both ends, for a stream in both directions.
    pub(super) fn split(self) -> (LineSender, Answers) {
        (
            LineSender(BufWriter::new(self.writer)),
            Answers(self.reader),
        )
    }

    /// The next answer, which must come within the deadline.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn answer(&mut self) -> Result<Response, ClientError> {
        let deadline = self.deadline;
        match timeout(deadline, self.next()).await {
            Ok(answer) => answer?.ok_or(ClientError::Ended),
            Err(_) => Err(ClientError::Deadline(deadline)),
        }
    }

    /// The next answer of a stream, however long it takes; `None` when the node ended it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        match self.reader.next().await? {
            Some(Response::Error(failure)) => Err(failure.into()),
            other => Ok(other),
        }
    }
}

/// Sends the lines of a stream.
#[derive(Debug)]
pub(super) struct LineSender(BufWriter<OwnedWriteHalf>);

impl LineSender {
    /// Writes a line; it leaves with the next [`LineSender::flush`] or when many have come together.
    pub(super) async fn write<T: Serialize>(&mut self, line: &T) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(line).map_err(LineError::from)?;
        line.push(b'\n');
        Ok(self.0.write_all(&line).await.map_err(LineError::from)?)
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(self.0.flush().await.map_err(LineError::from)?)
    }

    /// Says that no more lines come.
    pub(super) async fn finish(mut self) -> Result<(), ClientError> {
        Ok(self.0.shutdown().await.map_err(LineError::from)?)
    }
}

/// Reads the answers of a stream.
#[derive(Debug)]
pub(super) struct Answers(LineReader<BufReader<OwnedReadHalf>>);

impl Answers {
    /// As [`AdminClient::next`].
    pub(super) async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        match self.0.next().await? {
            Some(Response::Error(failure)) => Err(failure.into()),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixListener};

    use super::*;
    use crate::admin::protocol::FailureCode;

    /// A node that answers its first request with these bytes and hangs up.
    fn fake(dir: &Path, answer: &'static [u8]) -> tokio::task::JoinHandle<Request> {
        let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let request = LineReader::new(BufReader::new(reader)).next().await;
            writer.write_all(answer).await.unwrap();
            request.unwrap().unwrap()
        })
    }

    async fn ask(answer: &'static [u8]) -> Result<Response, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let node = fake(dir.path(), answer);
        let client = AdminClient::connect(dir.path()).await?;
        let answer = client.ask(&Request::Bans {}).await;
        assert_eq!(node.await.unwrap(), Request::Bans {});
        answer
    }

    #[tokio::test]
    async fn answers_and_refusals() {
        let answer = ask(b"{\"answer\":\"bans\",\"bans\":[]}\n").await;
        assert_eq!(answer.unwrap(), Response::Bans { bans: vec![] });
        let refusal =
            ask(b"{\"answer\":\"error\",\"code\":\"again\",\"message\":\"busy\"}\n").await;
        assert!(matches!(
            refusal,
            Err(ClientError::Refused(Failure {
                code: FailureCode::Again,
                ..
            }))
        ));
        assert!(matches!(ask(b"").await, Err(ClientError::Ended)));
        assert!(matches!(
            ask(b"{\"ans").await,
            Err(ClientError::Line(LineError::Cut))
        ));
        assert!(matches!(
            ask(b"hello\n").await,
            Err(ClientError::Line(LineError::Json(_)))
        ));
    }

    #[tokio::test]
    async fn no_node_is_told_apart_from_a_silent_one() {
        let dir = tempfile::tempdir().unwrap();
        let gone = AdminClient::connect(dir.path()).await;
        assert!(matches!(gone, Err(ClientError::NoNode { .. })));
        // A socket that a killed node left behind.
        drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let stale = AdminClient::connect(dir.path()).await;
        assert!(matches!(stale, Err(ClientError::NoNode { .. })));

        let silent = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(silent.path().join(SOCKET)).unwrap();
        let client = AdminClient::connect(silent.path()).await.unwrap();
        let answer = client
            .with_deadline(Duration::from_millis(20))
            .ask(&Request::Status {});
        assert!(matches!(answer.await, Err(ClientError::Deadline(_))));
    }
}
