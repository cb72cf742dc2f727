//! Prints what a job prints, until it ends.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use tokio::time::sleep;

use super::super::{
    client::{AdminClient, ClientError},
    exit::{CliError, Exit},
    far::{self, Target},
    output::{Format, Out},
};
use crate::{
    admin::protocol::{Request, Response},
    messages::sandbox::JobReport,
    sandbox::{JobId, Stream},
    types::{Clock, SystemClock},
};

/// How long the node may be away, as for a restart, before this command gives up.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows to the end; the first Ctrl-C cancels the job, the second leaves it.
pub(super) async fn follow_or_cancel(
    job: JobId,
    data_dir: &Path,
    out: &Out,
) -> Result<JobReport, CliError> {
    let mut cursor = (0, 0);
    let mut cancelled = false;
    loop {
        tokio::select! {
            report = follow(job, &mut cursor, data_dir, out) => return report,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| CliError::io("signals", &error))?;
            }
        }
        if cancelled {
            return Err(goes_on(job));
        }
        cancelled = true;
        out.note(&format!(
            "cancelling job {job}; once more leaves it to itself"
        ));
        let client = AdminClient::connect(data_dir).await?;
        client.ask(&Request::JobCancel { job }).await?;
    }
}

fn goes_on(job: JobId) -> CliError {
    CliError::new(
        Exit::TryAgain,
        format!(
            "job {job} goes on without this command; see `quantraband job logs --follow {job}`"
        ),
    )
}

/// Prints output from the cursor on until the job's end, over broken connections to the node.
pub(super) async fn follow(
    job: JobId,
    cursor: &mut (u64, u64),
    data_dir: &Path,
    out: &Out,
) -> Result<JobReport, CliError> {
    let clock = SystemClock::new();
    let mut since = None;
    loop {
        match stream(job, cursor, true, data_dir, out).await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(Broken::Command(error)) => return Err(error),
            Err(Broken::Node { heard }) => {
                let now = clock.elapsed();
                if heard {
                    since = None;
                }
                if now.saturating_sub(*since.get_or_insert(now)) >= NODE_PATIENCE {
                    return Err(goes_on(job));
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Why a stream ended early.
pub(super) enum Broken {
    /// The node is away; whether it said anything before.
    Node {
        /// Whether it did.
        heard: bool,
    },
    /// It is of no use to try again.
    Command(CliError),
}

impl From<CliError> for Broken {
    fn from(error: CliError) -> Self {
        Self::Command(error)
    }
}

/// One connection to the node; `None` when the stream ended before the job.
pub(super) async fn stream(
    job: JobId,
    cursor: &mut (u64, u64),
    wait: bool,
    data_dir: &Path,
    out: &Out,
) -> Result<Option<JobReport>, Broken> {
    let mut heard = false;
    let broken = |error: ClientError, heard: bool| match error {
        ClientError::NoNode { .. } | ClientError::Ended | ClientError::Connect { .. } if wait => {
            Broken::Node { heard }
        }
        ClientError::Line(crate::admin::lines::LineError::Cut) if wait => Broken::Node { heard },
        ClientError::Line(crate::admin::lines::LineError::Io(_)) if wait => Broken::Node { heard },
        other => Broken::Command(other.into()),
    };
    let connected = AdminClient::connect(data_dir).await;
    let mut client = connected.map_err(|error| broken(error, heard))?;
    let request = Request::JobFollow {
        job,
        stdout: cursor.0,
        stderr: cursor.1,
        wait,
    };
    let sent = client.send(&request).await;
    sent.map_err(|error| broken(error, heard))?;
    loop {
        match client.next().await {
            Ok(Some(Response::JobOutput { stream, bytes })) => {
                heard = true;
                print(stream, &bytes, out)?;
                advance(cursor, stream, &bytes);
            }
            Ok(Some(Response::Job(report))) => return Ok(Some(*report)),
            Ok(Some(Response::Done {})) => return Ok(None),
            Ok(Some(_)) => return Err(CliError::from(ClientError::Unexpected("job")).into()),
            Ok(None) => return Err(broken(ClientError::Ended, heard)),
            Err(error) => return Err(broken(error, heard)),
        }
    }
}

/// Prints what a job of a peer's printed; with `wait` until it has ended, and gives its report.
pub(super) async fn follow_far(
    job: JobId,
    wait: bool,
    target: &Target<'_>,
    out: &Out,
) -> Result<Option<JobReport>, CliError> {
    let mut cursor = (0_u64, 0_u64);
    let mut again = false;
    loop {
        let request = Request::JobFollow {
            job,
            stdout: cursor.0,
            stderr: cursor.1,
            wait: false,
        };
        for line in target.read_on(&request, again).await? {
            match line {
                Response::JobOutput { stream, bytes } => {
                    print(stream, &bytes, out)?;
                    advance(&mut cursor, stream, &bytes);
                }
                Response::Job(report) => return Ok(wait.then_some(*report)),
                Response::Done {} if !wait => return Ok(None),
                Response::Done {} => sleep(far::PAUSE).await,
                _ => return Err(ClientError::Unexpected("job logs").into()),
            }
        }
        again = true;
    }
}

fn advance(cursor: &mut (u64, u64), stream: Stream, bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let side = match stream {
        Stream::Stdout => &mut cursor.0,
        Stream::Stderr => &mut cursor.1,
    };
    *side = side.saturating_add(length);
}

/// Guest output goes where the guest meant it to go, byte by byte; as JSON it is an object.
fn print(stream: Stream, bytes: &[u8], out: &Out) -> Result<(), CliError> {
    if out.format() == Format::Json {
        let value = serde_json::json!({
            "schema": "quantraband.job-output/1",
            "stream": stream,
            "bytes": hex::encode(bytes),
            "text": std::str::from_utf8(bytes).ok(),
        });
        return out.line(&value.to_string());
    }
    let written = match stream {
        Stream::Stdout => write_all(&mut io::stdout().lock(), bytes),
        Stream::Stderr => write_all(&mut io::stderr().lock(), bytes),
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::new(Exit::Ok, ""),
        _ => CliError::io("the guest's output", &error),
    })
}

fn write_all(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
