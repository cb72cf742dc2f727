//! The job protocol on libp2p's request-response: framing and nothing else.
//!
//! A message is the whole of one direction of a stream, which its sender then closes; there is no
//! length prefix that could lie. At most one byte more than the longest message is read.
//!
//! A message that cannot be decoded ends its stream and leaves the connection as it is; whoever
//! sent it is charged by the Swarm actor. For a response it is an error of kind `InvalidData`
//! ([`is_malformed`]). For a request it must not be an error of this codec: request-response tells
//! its owner nothing of those. So it is handed up as what it is, see [`Incoming`].

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

/// A request as it came. Dropping the response channel of a malformed one ends its stream. What
/// is sent is always `Ok`.
pub type Incoming = Result<Request, Malformed>;

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

/// Whether a request of ours failed because the peer's answer is no message.
#[must_use]
pub fn is_malformed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

impl request_response::Codec for JobCodec {
    type Protocol = StreamProtocol;
    type Request = Incoming;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Incoming>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(Request::decode(&read(io, MAX_REQUEST).await?))
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
        request: Incoming,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.map_err(invalid)?.encode()).await
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
pub(super) async fn read<T: AsyncRead + Unpin>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    io.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

pub(super) fn invalid(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

#[cfg(test)]
mod tests;
