//! What goes on, read in questions: of this node, or through it of a connected peer.
//!
//! Each question begins where the last answer ended, and a peer judges each anew. Between two that
//! brought nothing there is a pause.

use std::{path::Path, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use super::{
    client::{AdminClient, ClientError},
    exit::{CliError, Exit},
    live,
    output::{Format, Out},
};
use crate::{
    admin::{
        protocol::{FailureCode, Request, Response},
        remote::MAX_TAIL,
    },
    telemetry::printable,
    types::PeerId,
};

/// Between two questions when there was nothing new.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Questions in a row that may be put off (a budget is spent, an actor restarts) before a stream is
/// given up: half a minute.
const PUT_OFF: u32 = 30;

/// Which running node a command asks.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The data directory of this machine's node.
    pub data_dir: &'a Path,
    /// The peer that shall answer instead of it.
    pub node: Option<PeerId>,
}

impl Target<'_> {
    /// Asks one question and prints the answer.
    ///
    /// # Errors
    /// As [`live::ask`].
    pub fn ask(&self, request: Request, out: &Out) -> Result<(), CliError> {
        live::ask(self.data_dir, &self.addressed(request, false), out)
    }

    /// Asks one question.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub(super) async fn question(&self, request: Request) -> Result<Response, ClientError> {
        live::question(self.data_dir, &self.addressed(request, false)).await
    }

    /// The request itself, or one to have the peer carry it out.
    fn addressed(&self, request: Request, again: bool) -> Request {
        match self.node {
            None => request,
            Some(node) => Request::Remote {
                node,
                request: Box::new(request),
                again,
            },
        }
    }

    /// What a stream says next, up to its end or to what fits into one answer. What is put off is
    /// asked again. `again`: the stream began before.
    pub(super) async fn read_on(
        &self,
        request: &Request,
        again: bool,
    ) -> Result<Vec<Response>, ClientError> {
        let mut left = PUT_OFF;
        loop {
            let lines = match self.node {
                None => self.read_here(request).await,
                Some(_) => self.read_far(request, again).await,
            };
            match lines {
                Err(ClientError::Refused(failure))
                    if again && failure.code == FailureCode::Again && left > 0 =>
                {
                    left = left.saturating_sub(1);
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn read_here(&self, request: &Request) -> Result<Vec<Response>, ClientError> {
        let mut client = AdminClient::connect(self.data_dir).await?;
        client.send(request).await?;
        let mut lines = Vec::new();
        loop {
            let line = client.answer().await?;
            let last = matches!(line, Response::Done {} | Response::Job(_));
            lines.push(line);
            if last {
                return Ok(lines);
            }
        }
    }

    async fn read_far(&self, request: &Request, again: bool) -> Result<Vec<Response>, ClientError> {
        let request = self.addressed(request.clone(), again);
        match live::question(self.data_dir, &request).await? {
            Response::Batch { lines } => Ok(lines),
            _ => Err(ClientError::Unexpected("a stream")),
        }
    }
}

/// `audit tail`.
///
/// # Errors
/// As [`ClientError`] says; exit code 77 when a peer does not permit it, or no longer.
pub fn audit_tail(
    target: &Target<'_>,
    count: usize,
    follow: bool,
    out: &Out,
) -> Result<(), CliError> {
    if target.node.is_some() && count > MAX_TAIL {
        let why = format!("another node tells at most {MAX_TAIL} records: -n {MAX_TAIL}");
        return Err(CliError::usage(why));
    }
    live::block_on(async {
        // What follows begins after a record.
        let (mut count, mut after) = (count.max(usize::from(follow)), None);
        let mut again = false;
        loop {
            let request = Request::AuditTail { count, after };
            let lines = target.read_on(&request, again).await?;
            again = true;
            let mut ended = false;
            for line in lines {
                match line {
                    Response::AuditRecord { line } => show(&line, &mut after, out)?,
                    Response::Done {} => ended = true,
                    _ => return Err(ClientError::Unexpected("audit tail").into()),
                }
            }
            if ended {
                if !follow {
                    return Ok(());
                }
                count = MAX_TAIL;
                sleep(PAUSE).await;
            }
        }
    })
}

/// Prints a record, and what was passed over before it: more was written than is read at once.
fn show(line: &str, after: &mut Option<u64>, out: &Out) -> Result<(), CliError> {
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let sequence = value.and_then(|value| value.get("metadata")?.get("sequence")?.as_u64());
    if let (Some(sequence), Some(last)) = (sequence, *after) {
        let between = sequence.saturating_sub(last).saturating_sub(1);
        if between > 0 {
            out.note(&format!("{between} records were passed over"));
        }
    }
    *after = sequence.or(*after);
    record(line, out)
}

/// A record of the log: its line as it is, or within an object that names its schema.
fn record(line: &str, out: &Out) -> Result<(), CliError> {
    match out.format() {
        Format::Text => out.line(&printable(line)),
        Format::Json => {
            let record: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| CliError::new(Exit::Data, format!("not a record: {error}")))?;
            let record = json!({"schema": "quantraband.audit-record/1", "record": record});
            out.line(&record.to_string())
        }
    }
}
