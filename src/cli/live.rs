//! The commands that ask the running node: status, peers, actors, bans, publish, subscribe,
//! audit rotate, stop. What they print is in [`super::render`].

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    args::{ActorsCommand, PeersCommand, PublishArgs, StatusCommand, SubscribeArgs},
    client::{ANSWER_DEADLINE, AdminClient, ClientError, SLOW_DEADLINE},
    enrol::EnrolError,
    exit::{CliError, Exit},
    output::Out,
    render,
};
use crate::{
    admin::protocol::{MAX_PAYLOAD, Request, Response},
    identity::{read_bounded, status::MAX_STATUS_BYTES},
};

/// Runs a client's future on a small runtime of its own.
///
/// # Errors
/// What the future fails with, or that no runtime can be made.
pub fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("cannot start a runtime", &error))?
        .block_on(future)
}

/// Asks one question and prints the answer.
///
/// # Errors
/// As [`ClientError`] and [`Out::answer`].
pub fn ask(data_dir: &Path, request: &Request, out: &Out) -> Result<(), CliError> {
    let answer = block_on(async { Ok(question(data_dir, request).await?) })?;
    render::answer(&answer, out)
}

/// Asks one question.
///
/// # Errors
/// As [`ClientError`] says.
pub(super) async fn question(data_dir: &Path, request: &Request) -> Result<Response, ClientError> {
    let client = AdminClient::connect(data_dir).await?;
    client.with_deadline(patience(request)).ask(request).await
}

/// How long the node may take for an answer.
fn patience(request: &Request) -> Duration {
    match request {
        // Policies are tried before they are used; another node is far.
        Request::ConfigReload {} | Request::Remote { .. } => SLOW_DEADLINE,
        _ => ANSWER_DEADLINE,
    }
}

/// `status list | show | import`.
///
/// # Errors
/// As [`ask`]; exit code 65 for an issuer without a list.
pub fn status_lists(data_dir: &Path, command: &StatusCommand, out: &Out) -> Result<(), CliError> {
    match command {
        StatusCommand::List => ask(data_dir, &Request::StatusLists {}, out),
        StatusCommand::Import { file } => {
            let bytes = read_bounded(file, MAX_STATUS_BYTES).map_err(EnrolError::from)?;
            ask(data_dir, &Request::StatusImport { bytes }, out)
        }
        StatusCommand::Show { issuer } => {
            let answer = block_on(async {
                let client = AdminClient::connect(data_dir).await?;
                Ok(client.ask(&Request::StatusLists {}).await?)
            })?;
            let Response::StatusLists { lists } = answer else {
                return Err(ClientError::Unexpected("no status lists").into());
            };
            let list = lists.into_iter().find(|list| list.issuer == *issuer);
            let list = list.ok_or_else(|| {
                let why = format!("no status list of `{issuer}` is known here");
                CliError::new(Exit::Data, why)
            })?;
            render::answer(&Response::StatusImported(list), out)
        }
    }
}

/// The request of `peers …`.
#[must_use]
pub fn peers_request(command: Option<&PeersCommand>) -> Request {
    match command {
        None => Request::Peers {},
        Some(PeersCommand::Bans) => Request::Bans {},
        Some(PeersCommand::Quarantined) => Request::Quarantines {},
        Some(PeersCommand::Release { party }) => Request::Release {
            party: party.clone(),
        },
        Some(PeersCommand::Quarantine {
            party,
            span,
            reason,
        }) => Request::Quarantine {
            party: party.clone(),
            span: *span,
            reason: reason.clone(),
        },
        Some(PeersCommand::Unban { party }) => Request::Unban {
            party: party.clone(),
        },
        Some(PeersCommand::Ban {
            party,
            span,
            reason,
        }) => Request::Ban {
            party: party.clone(),
            span: *span,
            reason: reason.clone(),
        },
    }
}

/// The request of `actors …`.
#[must_use]
pub fn actors_request(command: Option<&ActorsCommand>) -> Request {
    match command {
        None => Request::Actors {},
        Some(ActorsCommand::Restart { name }) => Request::Restart {
            actor: name.clone(),
        },
        Some(ActorsCommand::Show { name }) => Request::Observe {
            actor: name.clone(),
        },
        Some(ActorsCommand::Inject { name, kind }) => Request::Inject {
            actor: name.clone(),
            kind: (*kind).into(),
        },
    }
}

/// `publish`.
///
/// # Errors
/// As [`ask`]; exit code 65 for a payload that no configuration allows.
pub fn publish(data_dir: &Path, args: &PublishArgs, out: &Out) -> Result<(), CliError> {
    let payload = payload(args)?;
    let topic = args.topic.clone();
    let seal_to = args.seal_to.clone();
    let publish = Request::Publish {
        topic,
        payload,
        seal_to,
    };
    ask(data_dir, &publish, out)
}

fn payload(args: &PublishArgs) -> Result<Vec<u8>, CliError> {
    if let Some(text) = &args.data {
        return bounded(&mut text.as_bytes(), "--data");
    }
    let Some(path) = &args.file else {
        return bounded(&mut io::stdin().lock(), "standard input");
    };
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|error| CliError::io(&name, &error))?;
    bounded(&mut file, &name)
}

/// Reads no more than the largest payload.
fn bounded(reader: &mut dyn Read, name: &str) -> Result<Vec<u8>, CliError> {
    let mut payload = Vec::new();
    reader
        .take(MAX_PAYLOAD as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(|error| CliError::io(name, &error))?;
    if payload.len() > MAX_PAYLOAD {
        let text = format!(
            "{name}: more than {MAX_PAYLOAD} bytes, which is the largest payload of a message; \
             send it in parts"
        );
        return Err(CliError::new(Exit::Data, text));
    }
    Ok(payload)
}

/// `subscribe`: prints messages until `--count`, `--timeout`, or the node stops.
///
/// # Errors
/// Exit code 75 when the time is up before `--count` messages came, or when the node stops.
pub fn subscribe(data_dir: &Path, args: &SubscribeArgs, out: &Out) -> Result<(), CliError> {
    block_on(async {
        let mut client = AdminClient::connect(data_dir).await?;
        let topic = args.topic.clone();
        client.send(&Request::Subscribe { topic }).await?;
        match client.answer().await? {
            Response::Subscribed { topic } => out.note(&format!("subscribed to {topic}")),
            _ => return Err(ClientError::Unexpected("subscribe").into()),
        }
        let mut seen = 0;
        let reading = messages(&mut client, args.count, &mut seen, out);
        let Some(span) = args.timeout else {
            return reading.await;
        };
        match timeout(span.0, reading).await {
            Ok(end) => end,
            Err(_) => time_is_up(args.count, seen),
        }
    })
}

fn time_is_up(count: Option<u64>, seen: u64) -> Result<(), CliError> {
    match count {
        None => Ok(()),
        Some(count) => {
            let text = format!("the time is up: {seen} of {count} messages came");
            Err(CliError::new(Exit::TryAgain, text))
        }
    }
}

/// Prints messages until there were `count` of them.
async fn messages(
    client: &mut AdminClient,
    count: Option<u64>,
    seen: &mut u64,
    out: &Out,
) -> Result<(), CliError> {
    while count.is_none_or(|count| *seen < count) {
        match client.next().await? {
            Some(Response::Message(message)) => {
                *seen = seen.saturating_add(1);
                render::message(&message, out)?;
            }
            Some(Response::Lagged { dropped }) => {
                out.note(&format!("too slow: {dropped} messages were dropped"));
            }
            Some(_) => return Err(ClientError::Unexpected("subscribe").into()),
            None => return Err(ClientError::Ended.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
