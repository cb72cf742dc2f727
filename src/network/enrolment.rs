//! The enrolment protocol on libp2p's request-response: framing and nothing else, as in
//! [`super::jobs`].

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol,
    request_response::{self, ProtocolSupport},
};

use super::jobs::{invalid, read};
use crate::{
    cbor::Malformed,
    identity::enrolment::{MAX_REQUEST, MAX_RESPONSE, PROTOCOL, Request, Response},
};

/// A request as it came; see [`super::jobs::Incoming`].
pub type Incoming = Result<Request, Malformed>;

/// Reads and writes the enrolment protocol.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnrolmentCodec;

/// The behaviour that speaks the enrolment protocol in both directions. `timeout` covers a request
/// and its response; `max_streams` is of one connection, both directions together.
#[must_use]
pub fn behaviour(
    timeout: Duration,
    max_streams: usize,
) -> request_response::Behaviour<EnrolmentCodec> {
    request_response::Behaviour::with_codec(
        EnrolmentCodec,
        [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(timeout)
            .with_max_concurrent_streams(max_streams),
    )
}

impl request_response::Codec for EnrolmentCodec {
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
