//! `publish_stream`: many messages over one connection, in order, no more at once than the network
//! takes.
//!
//! Lines are read in groups of what has come, each group is published as one, and only then are the
//! next read: a client that is faster than the network waits in its own socket.

use std::time::Duration;

use futures::FutureExt;
use tokio::{
    io::{AsyncBufRead, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{Desk, connection::send};
use crate::{
    admin::{
        lines::{LineError, LineReader},
        protocol::{Failure, FailureCode, Response, StreamedMessage},
    },
    identity::sealed::SealTo,
    messages::swarm::{PublishFault, PublishMany},
    types::Topic,
};

/// Messages of one group.
const GROUP: usize = 256;
/// Bytes of one group, but for its last message.
const GROUP_BYTES: usize = 1 << 20;
/// Longest pause when the network pushes back: then it is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves a stream to its end.
pub(super) async fn serve(
    (reader, writer): (
        &mut LineReader<BufReader<OwnedReadHalf>>,
        &mut OwnedWriteHalf,
    ),
    desk: &Desk,
    (topic, seal_to): (Topic, Vec<SealTo>),
) -> Result<(), LineError> {
    send(writer, &Response::StreamReady {}).await?;
    let (mut published, mut pushed_back) = (0_u64, 0_u64);
    loop {
        let (payloads, end) = match group(reader).await {
            Ok(group) => group,
            Err(error) => {
                let failure = Failure::new(FailureCode::Invalid, error.to_string());
                return send(writer, &Response::Error(failure)).await;
            }
        };
        let mut left = payloads;
        while !left.is_empty() {
            let publish = PublishMany {
                topic: topic.clone(),
                payloads: left.clone(),
                seal_to: seal_to.clone(),
            };
            let outcome = match desk.publish_many(publish).await {
                Ok(outcome) => outcome,
                Err(failure) => return send(writer, &Response::Error(failure)).await,
            };
            left.drain(..outcome.accepted.min(left.len()));
            published = published.saturating_add(count(outcome.accepted));
            send(
                writer,
                &Response::StreamProgress {
                    published,
                    pushed_back,
                },
            )
            .await?;
            match outcome.fault {
                None => {}
                Some(PublishFault::Backpressure(pause) | PublishFault::OverRate(pause)) => {
                    pushed_back = pushed_back.saturating_add(1);
                    tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
                }
                Some(fault) => {
                    let failure = super::desk::not_published(&fault);
                    return send(writer, &Response::Error(failure)).await;
                }
            }
        }
        if end {
            return send(
                writer,
                &Response::StreamDone {
                    published,
                    pushed_back,
                },
            )
            .await;
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Waits for a message and takes what came with it; whether the client is done is the second.
async fn group<R: AsyncBufRead + Unpin>(
    reader: &mut LineReader<R>,
) -> Result<(Vec<Vec<u8>>, bool), LineError> {
    let Some(StreamedMessage { payload }) = reader.next().await? else {
        return Ok((Vec::new(), true));
    };
    let mut bytes = payload.len();
    let mut payloads = vec![payload];
    while payloads.len() < GROUP && bytes < GROUP_BYTES {
        // Nothing of a line is lost when it is not whole yet.
        match reader.next::<StreamedMessage>().now_or_never() {
            None => break,
            Some(next) => match next? {
                Some(StreamedMessage { payload }) => {
                    bytes = bytes.saturating_add(payload.len());
                    payloads.push(payload);
                }
                None => return Ok((payloads, true)),
            },
        }
    }
    Ok((payloads, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_come_is_a_group_and_the_end_is_seen() {
        let mut input = String::new();
        for n in 0..=GROUP {
            input += &format!("{{\"payload\":\"{n:04x}\"}}\n");
        }
        let mut reader = LineReader::new(BufReader::new(input.as_bytes()));
        let (first, end) = group(&mut reader).await.unwrap();
        assert_eq!((first.len(), end), (GROUP, false));
        let (rest, end) = group(&mut reader).await.unwrap();
        assert_eq!((rest, end), (vec![vec![1, 0]], true));
        let mut reader = LineReader::new(BufReader::new(&b"{\"payload\":\"0\"}\n"[..]));
        assert!(group(&mut reader).await.is_err());
    }
}
