//! Exchanges: one request, one response, a stream each, on libp2p's request-response. Framing and
//! nothing else; what is asked and answered is a [`Protocol`].
//!
//! A message is the whole of one direction of a stream, which its sender then closes; there is no
//! length prefix that could lie. At most one byte more than the longest message is read.
//!
//! A message that cannot be decoded ends its stream and leaves the connection as it is; whoever
//! sent it is charged by the Swarm actor. For a response it is an error of kind `InvalidData`
//! ([`is_malformed`]). For a request it must not be an error of this codec: request-response tells
//! its owner nothing of those. So it is handed up as what it is, see [`Incoming`].

use std::{fmt, io, marker::PhantomData, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol,
    request_response::{self, ProtocolSupport},
};

use tokio::time::timeout;

use crate::{
    admin::remote as admin,
    cbor::Malformed,
    identity::{enrolment, wire as identity},
    sandbox::wire as jobs,
};

/// What can be sent as the whole of one direction of a stream.
pub trait Wire: fmt::Debug + Sized + Send + 'static {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads what [`Wire::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are anything else.
    fn of_bytes(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// A protocol of requests and responses.
pub trait Protocol: fmt::Debug + Clone + Copy + Default + Send + Sync + 'static {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its name in logs and in what peers are charged with.
    const LABEL: &'static str;
    /// The longest request, bytes.
    const MAX_REQUEST: usize;
    /// The longest response, bytes.
    const MAX_RESPONSE: usize;
    /// What is asked.
    type Request: Wire;
    /// What is answered.
    type Response: Wire;
}

macro_rules! protocol {
    ($(#[$doc:meta])* $name:ident, $label:literal, $module:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name;

        impl Protocol for $name {
            const NAME: &'static str = $module::PROTOCOL;
            const LABEL: &'static str = $label;
            const MAX_REQUEST: usize = $module::MAX_REQUEST;
            const MAX_RESPONSE: usize = $module::MAX_RESPONSE;
            type Request = $module::Request;
            type Response = $module::Response;
        }

        protocol!(@wire $module::Request);
        protocol!(@wire $module::Response);
    };
    (@wire $message:ty) => {
        impl Wire for $message {
            fn to_bytes(&self) -> Vec<u8> {
                self.encode()
            }

            fn of_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
                Self::decode(bytes)
            }
        }
    };
}

protocol!(
    /// The job protocol. Its time-out must exceed [`crate::sandbox::wire::MAX_WAIT`].
    Jobs, "job", jobs
);
protocol!(
    /// The identity protocol: status lists and credentials of others.
    Identity, "identity", identity
);
protocol!(
    /// The enrolment protocol: credentials of one's own.
    Enrolment, "enrolment", enrolment
);

protocol!(
    /// The administration protocol: an operator's commands.
    Administration, "administration", admin
);

/// A request as it came. Dropping the response channel of a malformed one ends its stream. What
/// is sent is always `Ok`.
pub type Incoming<P> = Result<<P as Protocol>::Request, Malformed>;

/// What the behaviour of a protocol reports.
pub type Event<P> = request_response::Event<Incoming<P>, <P as Protocol>::Response>;

/// The behaviour of a protocol.
pub type Behaviour<P> = request_response::Behaviour<Codec<P>>;

/// Reads and writes a protocol.
#[derive(Debug, Clone, Copy)]
pub struct Codec<P> {
    /// How long a request may take to arrive whole.
    patience: Duration,
    protocol: PhantomData<P>,
}

/// A request that did not arrive within its time: no misdeed, a line may be slow, but counted.
pub const SLOW: Malformed = Malformed("it did not arrive in time");

/// The behaviour that speaks a protocol in both directions. `timeout` covers a request and its
/// response, `patience` the arrival of a peer's request alone; `max_streams` is of one connection, both directions together: each holds at most a
/// message.
#[must_use]
pub fn behaviour<P: Protocol>(
    timeout: Duration,
    patience: Duration,
    max_streams: usize,
) -> Behaviour<P> {
    let codec = Codec {
        patience,
        protocol: PhantomData,
    };
    request_response::Behaviour::with_codec(
        codec,
        [(StreamProtocol::new(P::NAME), ProtocolSupport::Full)],
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

impl<P: Protocol> request_response::Codec for Codec<P> {
    type Protocol = StreamProtocol;
    type Request = Incoming<P>;
    type Response = P::Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Incoming<P>>
    where
        T: AsyncRead + Unpin + Send,
    {
        match timeout(self.patience, read(io, P::MAX_REQUEST)).await {
            Ok(bytes) => Ok(P::Request::of_bytes(&bytes?)),
            Err(_) => Ok(Err(SLOW)),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<P::Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        P::Response::of_bytes(&read(io, P::MAX_RESPONSE).await?).map_err(invalid)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Incoming<P>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.map_err(invalid)?.to_bytes()).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: P::Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&response.to_bytes()).await
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
mod tests;
