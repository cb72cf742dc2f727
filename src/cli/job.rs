//! `job …`: has others run a program. `job run` behaves as the program would: its output is this
//! command's output, its exit status this command's.
//!
//! A job belongs to the node, not to this command: when the connection to the node breaks, the
//! command comes back with its cursors, and when it gives up it says how to go on.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use tokio::time::sleep;

use super::{
    args::job::{Executor, JobCommand, JobRunArgs},
    client::{AdminClient, ClientError},
    exit::{CliError, Exit},
    live::{ask, block_on},
    output::{Format, Out},
    render,
};
use crate::{
    admin::protocol::{Request, Response},
    identity::{
        sealed::{self, XWingPublic},
        write_atomic,
    },
    messages::sandbox::JobReport,
    sandbox::{
        ContentHash, IdempotencyKey, JobFault, JobId, JobSpec, LimitsWanted, MAX_PIECE, Outcome,
        Stream, sent::SentFault,
    },
    telemetry::printable,
    types::{Clock, PeerId, SystemClock},
};

/// Most bytes of a module or an input that this command reads: above every node's
/// `sandbox.max_module` and `sandbox.max_input`.
const MAX_FILE: u64 = 1 << 30;
/// How long the node may be away, as for a restart, before this command gives up.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// A receipt is for everybody to check.
const RECEIPT_MODE: u32 = 0o644;
/// Pause between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(200);

/// `job …`.
///
/// # Errors
/// As the command: `run` and `logs --follow` end with the guest's exit status.
pub fn command(command: &JobCommand, data_dir: &Path, out: &Out) -> Result<(), CliError> {
    match command {
        JobCommand::Run(args) => run(args, data_dir, out),
        JobCommand::List => ask(data_dir, &Request::Jobs {}, out),
        JobCommand::Show { job, receipt: None } => {
            ask(data_dir, &Request::JobShow { job: *job }, out)
        }
        JobCommand::Show {
            job,
            receipt: Some(file),
        } => show(*job, file, data_dir, out),
        JobCommand::Logs { job, follow } => logs(*job, *follow, data_dir, out),
        JobCommand::Cancel { job } => ask(data_dir, &Request::JobCancel { job: *job }, out),
    }
}

fn run(args: &JobRunArgs, data_dir: &Path, out: &Out) -> Result<(), CliError> {
    let module = read(&args.module)?;
    let input = match &args.stdin {
        None => Vec::new(),
        Some(path) if path.as_os_str() == "-" => bounded(&mut io::stdin().lock(), "stdin")?,
        Some(path) => read(path)?,
    };
    if let Some(file) = &args.receipt {
        check_place(file)?;
    }
    block_on(async {
        let executor = executor(args.on.as_ref(), data_dir).await?;
        let input = if args.seal {
            seal(executor, &input, data_dir).await?
        } else {
            input
        };
        let spec = spec(args, &module, &input)?;
        for bytes in [&module, &input] {
            upload(data_dir, bytes).await?;
        }
        let request = Request::JobSubmit {
            executor,
            spec: Box::new(spec),
        };
        let answer = AdminClient::connect(data_dir).await?.ask(&request).await?;
        let Response::JobSubmitted { job, .. } = answer else {
            return Err(ClientError::Unexpected("job run").into());
        };
        if args.detach {
            return render::answer(&answer, out);
        }
        let report = follow_or_cancel(job, data_dir, out).await?;
        if let Some(file) = &args.receipt {
            save_receipt(&report, file)?;
        }
        end(&report, out)
    })
}

/// Seals an input to the executor, before it leaves this command.
async fn seal(
    executor: Option<PeerId>,
    input: &[u8],
    data_dir: &Path,
) -> Result<Vec<u8>, CliError> {
    let request = Request::SealingKey { peer: executor };
    let answer = AdminClient::connect(data_dir).await?.ask(&request).await?;
    let Response::SealingKey { sender, peer, key } = answer else {
        return Err(ClientError::Unexpected("job run").into());
    };
    let data = |text: String| CliError::new(Exit::Data, text);
    let key = XWingPublic::from_bytes(&key)
        .ok_or_else(|| data("the node names a key that is none".to_owned()))?;
    let purpose = sealed::Purpose::JobInput(peer);
    sealed::seal(input, &[key], sender, purpose).map_err(|fault| data(fault.to_string()))
}

fn spec(args: &JobRunArgs, module: &[u8], input: &[u8]) -> Result<JobSpec, CliError> {
    let name = args.module.file_name().unwrap_or_default();
    let mut arguments = vec![name.to_string_lossy().into_owned()];
    arguments.extend(args.arguments.iter().cloned());
    let millis = |span: &crate::types::Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let spec = JobSpec {
        key: args
            .idempotency_key
            .as_deref()
            .map_or_else(|| IdempotencyKey(rand::random()), IdempotencyKey::of_text),
        module: ContentHash::of(module),
        module_size: size(module),
        arguments,
        environment: args.environment.clone(),
        input: ContentHash::of(input),
        input_size: size(input),
        limits: LimitsWanted {
            wall_clock_ms: args.wall_clock.as_ref().map(millis),
            cpu_time_ms: args.cpu_time.as_ref().map(millis),
            fuel: args.fuel,
            memory: args.memory.map(|size| size.0),
            output: args.max_output.map(|size| size.0),
        },
        deterministic: args.deterministic,
        sealed: args.seal,
    };
    spec.check()
        .map_err(|error| CliError::usage(error.to_string()))?;
    Ok(spec)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let name = path.display().to_string();
    let mut file = fs::File::open(path).map_err(|error| CliError::io(&name, &error))?;
    bounded(&mut file, &name)
}

fn bounded(reader: &mut dyn Read, name: &str) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_FILE + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| CliError::io(name, &error))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE {
        let text = format!("{name}: more than {MAX_FILE} bytes, which no node takes");
        return Err(CliError::new(Exit::Data, text));
    }
    Ok(bytes)
}

/// The executor's id, looked up among the connected peers when it was named otherwise.
async fn executor(on: Option<&Executor>, data_dir: &Path) -> Result<Option<PeerId>, CliError> {
    let name = match on {
        None => return Ok(None),
        Some(Executor::Peer(peer)) => return Ok(Some(*peer)),
        Some(Executor::Identity(name)) => name,
    };
    let client = AdminClient::connect(data_dir).await?;
    let Response::Peers { peers } = client.ask(&Request::Peers {}).await? else {
        return Err(ClientError::Unexpected("peers").into());
    };
    let mut found = peers
        .iter()
        .filter(|peer| peer.identity.as_deref() == Some(name))
        .map(|peer| peer.peer_id);
    match (found.next(), found.next()) {
        (Some(peer), None) => Ok(Some(peer)),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "several connected peers are {name}: name one by its peer id"
        ))),
        (None, _) => Err(CliError::new(
            Exit::Unavailable,
            format!("no connected peer is {name}; see `quantraband peers`"),
        )),
    }
}

/// Hands a file to the node, piece by piece; what it has already is not sent again.
async fn upload(data_dir: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let blob = ContentHash::of(bytes);
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut offset = 0_u64;
    // One question without bytes tells what is there.
    let mut piece: &[u8] = &[];
    // Each answer must bring it further, or the node and this command talk past each other.
    let mut last = None;
    while last != Some(offset) {
        last = Some(offset);
        let request = Request::JobUpload {
            blob,
            size,
            offset,
            bytes: piece.to_vec(),
        };
        let answer = AdminClient::connect(data_dir).await?.ask(&request).await?;
        let Response::Uploaded { have } = answer else {
            return Err(ClientError::Unexpected("job run").into());
        };
        if have >= size {
            return Ok(());
        }
        if piece.is_empty() && have == offset {
            last = None;
        }
        offset = have;
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..);
        let rest = rest.unwrap_or_default();
        piece = rest.get(..MAX_PIECE).unwrap_or(rest);
    }
    Err(CliError::new(
        Exit::TryAgain,
        "the node does not take the file: was it restarted meanwhile? try again",
    ))
}

/// Follows to the end; the first Ctrl-C cancels the job, the second leaves it.
async fn follow_or_cancel(job: JobId, data_dir: &Path, out: &Out) -> Result<JobReport, CliError> {
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
async fn follow(
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
enum Broken {
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
async fn stream(
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
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let side = match stream {
                    Stream::Stdout => &mut cursor.0,
                    Stream::Stderr => &mut cursor.1,
                };
                *side = side.saturating_add(length);
            }
            Ok(Some(Response::Job(report))) => return Ok(Some(*report)),
            Ok(Some(Response::Done {})) => return Ok(None),
            Ok(Some(_)) => return Err(CliError::from(ClientError::Unexpected("job")).into()),
            Ok(None) => return Err(broken(ClientError::Ended, heard)),
            Err(error) => return Err(broken(error, heard)),
        }
    }
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

fn logs(job: JobId, wait: bool, data_dir: &Path, out: &Out) -> Result<(), CliError> {
    block_on(async {
        let mut cursor = (0, 0);
        if wait {
            let report = follow(job, &mut cursor, data_dir, out).await?;
            return end(&report, out);
        }
        match stream(job, &mut cursor, false, data_dir, out).await {
            Ok(_) => Ok(()),
            Err(Broken::Command(error)) => Err(error),
            Err(Broken::Node { .. }) => Err(ClientError::Ended.into()),
        }
    })
}

fn show(job: JobId, file: &Path, data_dir: &Path, out: &Out) -> Result<(), CliError> {
    let answer = block_on(async {
        let client = AdminClient::connect(data_dir).await?;
        Ok(client.ask(&Request::JobShow { job }).await?)
    })?;
    if let Response::Job(report) = &answer {
        save_receipt(report, file)?;
    }
    render::answer(&answer, out)
}

fn save_receipt(report: &JobReport, file: &Path) -> Result<(), CliError> {
    let Some(receipt) = &report.receipt else {
        let text = format!("job {} has no receipt", report.job);
        // Why there is none is the better answer.
        return if report.fault.is_some() {
            Ok(())
        } else {
            Err(CliError::new(Exit::TryAgain, text))
        };
    };
    // As a whole or not at all: half a receipt would look like a forged one.
    write_atomic(file, receipt, RECEIPT_MODE)
        .map_err(|error| CliError::new(Exit::CannotCreate, error.to_string()))
}

/// A receipt that has no place to go is found out before the job runs, not after.
fn check_place(file: &Path) -> Result<(), CliError> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    let text = format!(
        "cannot write a receipt to {}: name a file in a folder that is there",
        file.display()
    );
    Err(CliError::new(Exit::CannotCreate, text))
}

/// Ends as the job ended.
fn end(report: &JobReport, out: &Out) -> Result<(), CliError> {
    if out.format() == Format::Json {
        render::answer(&Response::Job(Box::new(report.clone())), out)?;
    }
    match exit(report) {
        Exit::Guest(0) => Ok(()),
        exit @ Exit::Guest(_) => Err(CliError::new(exit, "")),
        exit => Err(CliError::new(exit, why(report))),
    }
}

/// The exit code of a job's end.
#[must_use]
pub fn exit(report: &JobReport) -> Exit {
    match (&report.outcome, &report.fault) {
        (Some(outcome), None) => match outcome {
            // More than a process can say: the shells' "out of range".
            Outcome::Exited { status } => Exit::Guest(u8::try_from(*status).unwrap_or(255)),
            Outcome::Trapped { .. } => Exit::Trap,
            Outcome::Stopped { .. } => Exit::Limit,
            Outcome::Cancelled { .. } => Exit::Cancelled,
            Outcome::Failed { fault } => match fault {
                JobFault::InvalidModule | JobFault::Link | JobFault::SealedInput => Exit::Data,
                JobFault::WorkerDied
                | JobFault::Interrupted
                | JobFault::InputMissing
                | JobFault::Executor => Exit::TryAgain,
            },
        },
        (_, Some(fault)) => match fault {
            SentFault::Refused { code, .. } if code == "denied" || code == "disabled" => {
                Exit::NoPermission
            }
            SentFault::Refused { code, .. }
                if ["invalid", "limit_above_ceiling", "key_reused", "too_large"]
                    .contains(&code.as_str()) =>
            {
                Exit::Data
            }
            SentFault::Refused { .. } | SentFault::Forgotten | SentFault::Overdue => Exit::TryAgain,
            SentFault::Unreachable => Exit::Unavailable,
            SentFault::BadResult { .. } => Exit::Data,
            SentFault::TooMuchOutput => Exit::Limit,
            SentFault::Disk { .. } => Exit::Io,
            SentFault::Cancelled => Exit::Cancelled,
        },
        (None, None) => Exit::TryAgain,
    }
}

fn why(report: &JobReport) -> String {
    let text = match (&report.outcome, &report.fault) {
        (_, Some(fault)) => fault.to_string(),
        (Some(Outcome::Stopped { limit }), None) => {
            format!("the guest was stopped by limit {limit}")
        }
        (Some(Outcome::Trapped { trap }), None) => format!("the guest trapped: {trap}"),
        (Some(Outcome::Cancelled { by }), None) => {
            format!("the job was cancelled by the {}", by.name())
        }
        (Some(Outcome::Failed { fault }), None) => fault.to_string(),
        (Some(Outcome::Exited { .. }), None) => String::new(),
        (None, None) => format!("job {} has not ended", report.job),
    };
    printable(&text).into_owned()
}
