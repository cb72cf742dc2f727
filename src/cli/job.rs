//! `job …`: has others run a program. `job run` behaves as the program would: its output is this
//! command's output, its exit status this command's.
//!
//! A job belongs to the node, not to this command: when the connection to the node breaks, the
//! command comes back with its cursors, and when it gives up it says how to go on.

mod end;
mod follow;

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use super::{
    args::job::{Executor, JobCommand, JobRunArgs},
    client::{AdminClient, ClientError},
    exit::{CliError, Exit},
    far::Target,
    live::block_on,
    output::Out,
    render,
};
use crate::{
    admin::protocol::{Request, Response},
    identity::{
        sealed::{self, XWingPublic},
        write_atomic,
    },
    messages::sandbox::JobReport,
    sandbox::{ContentHash, IdempotencyKey, JobId, JobSpec, LimitsWanted, MAX_PIECE},
    types::PeerId,
};

pub use end::exit;

use end::end;
use follow::{Broken, follow, follow_far, follow_or_cancel, stream};

/// Most bytes of a module or an input that this command reads: above every node's
/// `sandbox.max_module` and `sandbox.max_input`.
const MAX_FILE: u64 = 1 << 30;
/// A receipt is for everybody to check.
const RECEIPT_MODE: u32 = 0o644;

/// `job …`.
///
/// # Errors
/// As the command: `run` and `logs --follow` end with the guest's exit status.
pub fn command(command: &JobCommand, target: &Target<'_>, out: &Out) -> Result<(), CliError> {
    match command {
        JobCommand::Run(args) => run(args, target.data_dir, out),
        JobCommand::List => target.ask(Request::Jobs {}, out),
        JobCommand::Show { job, receipt: None } => target.ask(Request::JobShow { job: *job }, out),
        JobCommand::Show {
            job,
            receipt: Some(file),
        } => show(*job, file, target, out),
        JobCommand::Logs { job, follow } => logs(*job, *follow, target, out),
        JobCommand::Cancel { job } => target.ask(Request::JobCancel { job: *job }, out),
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

fn logs(job: JobId, wait: bool, target: &Target<'_>, out: &Out) -> Result<(), CliError> {
    let data_dir = target.data_dir;
    block_on(async {
        let mut cursor = (0, 0);
        if target.node.is_some() {
            let report = follow_far(job, wait, target, out).await?;
            return report.map_or(Ok(()), |report| end(&report, out));
        }
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

fn show(job: JobId, file: &Path, target: &Target<'_>, out: &Out) -> Result<(), CliError> {
    let answer = block_on(async { Ok(target.question(Request::JobShow { job }).await?) })?;
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
