//! `publish --lines`: each line of standard input is a message. Reading, sending and the node's
//! answers go on side by side; the node reads no faster than the network takes.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    path::Path,
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::{
    args::PublishArgs,
    client::{AdminClient, Answers, ClientError, LineSender},
    exit::{CliError, Exit},
    live::block_on,
    output::Out,
    render,
};
use crate::admin::protocol::{MAX_PAYLOAD, Request, Response, StreamedMessage};

/// Lines that wait between the reader of standard input and the socket.
const AHEAD: usize = 256;
/// How long the node may take to say why it hung up.
const LAST_WORDS: Duration = Duration::from_secs(2);

type Line = Result<Vec<u8>, CliError>;

/// Publishes standard input line by line and prints how many messages it was.
///
/// # Errors
/// Exit code 65 for a line that no configuration allows, otherwise as the node answers; how many
/// messages were published before is said.
pub(super) fn publish_lines(
    data_dir: &Path,
    args: &PublishArgs,
    out: &Out,
) -> Result<(), CliError> {
    let published = Cell::new(0);
    let done = block_on(async {
        let mut client = AdminClient::connect(data_dir).await?;
        let request = Request::PublishStream {
            topic: args.topic.clone(),
            seal_to: args.seal_to.clone(),
        };
        client.send(&request).await?;
        let Response::StreamReady {} = client.answer().await? else {
            return Err(ClientError::Unexpected("publish").into());
        };
        let (sender, answers) = client.split();
        let sending = send(sender, read());
        let receiving = receive(answers, &published);
        tokio::pin!(sending, receiving);
        tokio::select! {
            biased;
            done = &mut receiving => done,
            sent = &mut sending => match sent {
                Ok(()) => receiving.await,
                // Why it does not take any more, if it says so.
                Err(broken) => match timeout(LAST_WORDS, receiving).await {
                    Ok(Err(said)) => Err(said),
                    _ => Err(broken),
                },
            },
        }
    });
    match done {
        Ok(done) => render::answer(&done, out),
        Err(error) => {
            out.note(&format!(
                "{} messages were published before",
                published.get()
            ));
            Err(error)
        }
    }
}

/// Reads standard input on a thread of its own, which nobody waits for: a terminal may never end.
fn read() -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input).transpose() {
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    lines
}

/// The next line without its end. The last one need not have one.
fn next_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, CliError> {
    let mut line = Vec::new();
    let most = MAX_PAYLOAD as u64 + 1;
    let read = input.take(most + 1).read_until(b'\n', &mut line);
    read.map_err(|error| CliError::io("standard input", &error))?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_PAYLOAD {
        let text = format!(
            "standard input: a line of more than {MAX_PAYLOAD} bytes, which is the largest payload \
             of a message"
        );
        return Err(CliError::new(Exit::Data, text));
    }
    Ok(Some(line))
}

async fn send(mut sender: LineSender, mut lines: mpsc::Receiver<Line>) -> Result<(), CliError> {
    while let Some(line) = lines.recv().await {
        sender.write(&StreamedMessage { payload: line? }).await?;
        if lines.is_empty() {
            sender.flush().await?;
        }
    }
    Ok(sender.finish().await?)
}

async fn receive(mut answers: Answers, published: &Cell<u64>) -> Result<Response, CliError> {
    loop {
        // However long it takes: the input may be slow, and so may the network.
        match answers.next().await? {
            Some(Response::StreamProgress { published: now, .. }) => published.set(now),
            Some(done @ Response::StreamDone { .. }) => return Ok(done),
            Some(_) => return Err(ClientError::Unexpected("publish").into()),
            None => return Err(ClientError::Ended.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_and_the_last_needs_no_end() {
        let mut input = &b"one\n\ntwo"[..];
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut input).unwrap()).collect();
        assert_eq!(lines, [b"one".to_vec(), Vec::new(), b"two".to_vec()]);
        let long = vec![b'x'; MAX_PAYLOAD + 1];
        assert!(next_line(&mut long.as_slice()).is_err());
        let most = [vec![b'x'; MAX_PAYLOAD], vec![b'\n']].concat();
        assert_eq!(
            next_line(&mut most.as_slice()).unwrap().unwrap().len(),
            MAX_PAYLOAD
        );
    }
}
