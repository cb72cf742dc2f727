//! One worker process.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    process::{ChildStdin, ChildStdout, Command},
};

use super::pieces;
use crate::sandbox::worker::{
    CompileOrder, RunOrder,
    frame::{self, Frame, Kind},
};

/// The hidden command of this program that is a worker.
pub(crate) const COMMAND: &str = "sandbox-worker";
/// How long a worker may take to come up.
const READY: Duration = Duration::from_secs(10);

/// A worker. Dropping it kills it.
pub(super) struct Child {
    process: tokio::process::Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
    ready: bool,
}

impl Child {
    /// Starts one: without environment, in the root directory, with two pipes and nothing else.
    pub(super) fn spawn(program: &Path) -> io::Result<Self> {
        let mut process = Command::new(program)
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal is the node's to handle.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let input = process.stdin.take().ok_or_else(missing)?;
        let output = process.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            process,
            input: BufWriter::with_capacity(frame::MAX_PAYLOAD, input),
            output: BufReader::with_capacity(frame::MAX_PAYLOAD, output),
            ready: false,
        })
    }

    /// Waits until it is hardened.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if self.ready {
            // What was ready may have died since.
            return match self.process.try_wait()? {
                None => Ok(()),
                Some(status) => Err(io::Error::other(format!("it ended with {status}"))),
            };
        }
        let said = tokio::time::timeout(READY, frame::receive(&mut self.output)).await;
        match said.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            Some(Frame {
                kind: Kind::Ready, ..
            }) => {
                self.ready = true;
                Ok(())
            }
            Some(Frame {
                kind: Kind::Failed,
                bytes,
            }) => Err(io::Error::other(
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
            _ => Err(io::Error::other("it ended at once")),
        }
    }

    /// Has it run a job.
    pub(super) async fn order(&mut self, order: &RunOrder) -> io::Result<()> {
        frame::send(&mut self.input, Kind::Run, &serde_json::to_vec(order)?).await?;
        pieces(&mut self.input, Kind::Module, &order.compiled).await?;
        pieces(&mut self.input, Kind::Input, &order.input).await?;
        frame::send(&mut self.input, Kind::Go, &[]).await?;
        self.input.flush().await
    }

    /// Has it compile a module.
    pub(super) async fn order_compile(&mut self, order: &CompileOrder) -> io::Result<()> {
        frame::send(&mut self.input, Kind::Compile, &serde_json::to_vec(order)?).await?;
        pieces(&mut self.input, Kind::Module, &order.module).await?;
        frame::send(&mut self.input, Kind::Go, &[]).await?;
        self.input.flush().await
    }

    /// Asks it to stop.
    pub(super) async fn cancel(&mut self) -> io::Result<()> {
        frame::send(&mut self.input, Kind::Cancel, &[]).await?;
        self.input.flush().await
    }

    /// The next thing it says; `None` when it ended.
    pub(super) async fn hear(&mut self) -> io::Result<Option<Frame>> {
        frame::receive(&mut self.output).await
    }

    /// Ends it, whatever it does, and waits until it is gone.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "a worker could not be killed");
        }
    }
}
