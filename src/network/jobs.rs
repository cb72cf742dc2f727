//! The job protocol on libp2p's request-response: framing and nothing else.
//!
//! A message is the whole of one direction of a stream, which its sender then closes; there is no
//! length prefix that could lie. At most one byte more than the longest message is read. A message
//! that cannot be decoded is an error of kind `InvalidData` ([`is_malformed`]): that stream ends,
//! the connection stays, and the Swarm actor charges whoever sent it.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol,
    request_response::{self, ProtocolSupport},
};

use crate::{
    cbor::Malformed,
    sandbox::wire::{MAX_REQUEST, MAX_RESPONSE, PROTOCOL, Request, Response},
};

/// Reads and writes the job protocol.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobCodec;

/// The behaviour that speaks the job protocol in both directions. `timeout` covers a request and
/// its response, so it must exceed [`crate::sandbox::wire::MAX_WAIT`]; `max_streams` is of one
/// connection, both directions together: each holds at most a message.
#[must_use]
pub fn behaviour(timeout: Duration, max_streams: usize) -> request_response::Behaviour<JobCodec> {
    request_response::Behaviour::with_codec(
        JobCodec,
        [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(timeout)
            .with_max_concurrent_streams(max_streams),
    )
}

/// Whether a stream failed because the peer sent what is no message.
#[must_use]
pub fn is_malformed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

impl request_response::Codec for JobCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        Request::decode(&read(io, MAX_REQUEST).await?).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        Response::decode(&read(io, MAX_RESPONSE).await?).map_err(invalid)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.encode()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&response.encode()).await
    }
}

/// Reads to the end of the stream. Of what is longer than `max`, one byte too many is kept, so that
/// decoding refuses it; the rest is never read.
async fn read<T: AsyncRead + Unpin>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    io.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn invalid(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use libp2p::request_response::Codec;

    use super::*;
    use crate::sandbox::JobId;

    const NAME: StreamProtocol = StreamProtocol::new(PROTOCOL);

    #[test]
    fn messages_go_through_and_others_are_invalid_data() {
        let request = Request::Cancel {
            job: JobId([7; 16]),
        };
        let mut stream = Cursor::new(Vec::new());
        block_on(JobCodec.write_request(&NAME, &mut stream, request.clone())).unwrap();
        let mut stream = Cursor::new(stream.into_inner());
        let read = block_on(JobCodec.read_request(&NAME, &mut stream)).unwrap();
        assert_eq!(read, request);
        for bad in [&b""[..], b"GET / HTTP/1.1\r\n", &[0xa1]] {
            let mut stream = Cursor::new(bad);
            let error = block_on(JobCodec.read_request(&NAME, &mut stream)).unwrap_err();
            assert!(is_malformed(&error), "{error}");
            let mut stream = Cursor::new(bad);
            let error = block_on(JobCodec.read_response(&NAME, &mut stream)).unwrap_err();
            assert!(is_malformed(&error), "{error}");
        }
    }

    #[test]
    fn of_an_endless_stream_only_the_longest_message_is_read() {
        for max in [MAX_REQUEST, MAX_RESPONSE] {
            let mut stream = Cursor::new(vec![0x40; 2 * MAX_RESPONSE]);
            let error = if max == MAX_REQUEST {
                block_on(JobCodec.read_request(&NAME, &mut stream)).unwrap_err()
            } else {
                block_on(JobCodec.read_response(&NAME, &mut stream)).unwrap_err()
            };
            assert_eq!(error.to_string(), "longer than allowed");
            assert_eq!(usize::try_from(stream.position()).unwrap(), max + 1);
        }
    }
}
