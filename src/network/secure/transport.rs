//! TCP and QUIC side by side: authenticated, encrypted, multiplexed connections with a deadline.
//!
//! Knows nothing of credentials; [`crate::network::gate`] is put around it.

use std::{io, time::Duration};

use libp2p::{
    Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{
            Boxed, OptionalTransport,
            timeout::{TransportTimeout, TransportTimeoutError},
        },
    },
    identity::Keypair,
    quic, relay, tcp,
};

use super::{ChannelKind, Cipher, Group, Secure, Secured, SecurityInfo};

/// Streams a QUIC peer may have open at once. The transport holds it to that; before acceptance
/// the gate ends the connection at the second.
const QUIC_STREAMS: u32 = 128;

/// Bytes a QUIC peer may send on one stream before they are read. A stranger can fill it before
/// it is judged, and libp2p's QUIC cannot widen it then, so it is a twentieth of libp2p's; 50 ms
/// away it still carries 10 MB a second.
pub const QUIC_STREAM_WINDOW: u32 = 512 << 10;
/// Bytes a QUIC peer may send on all streams together before they are read.
pub const QUIC_CONNECTION_WINDOW: u32 = 2 << 20;

impl Secure {
    /// TCP (without Nagle's delay) and QUIC. A connection that is not through after
    /// `handshake_timeout`, connecting included, is dropped.
    ///
    /// `key` must be the one the layers were made with: QUIC brings its own TLS.
    #[must_use]
    pub fn transport(&self, key: &Keypair, handshake_timeout: Duration) -> Boxed<Secured> {
        self.transport_with(key, handshake_timeout, None)
    }

    /// As [`transport`](Self::transport), and through relays: what runs over a circuit is secured
    /// by its two ends as if there were no relay.
    #[must_use]
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's type is of a crate that is not named here"
    )]
    pub fn transport_with(
        &self,
        key: &Keypair,
        handshake_timeout: Duration,
        circuits: Option<relay::client::Transport>,
    ) -> Boxed<Secured> {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        let circuits = circuits.map_or_else(OptionalTransport::none, OptionalTransport::some);
        // Circuits first: TCP would take their addresses for its own.
        let over_tcp = self.over(circuits.or_transport(tcp));
        within(
            over_tcp
                .or_transport(quic(key, handshake_timeout))
                .map(|either, _| either.into_inner())
                .map_err(|error| error.into_inner()),
            handshake_timeout,
        )
    }
}

/// A deadline around a transport, in plain errors.
pub(crate) fn within<T>(transport: T, deadline: Duration) -> Boxed<Secured>
where
    T: Transport<Output = Secured, Error = io::Error> + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    TransportTimeout::new(transport, deadline)
        .map_err(|error| match error {
            TransportTimeoutError::Other(error) | TransportTimeoutError::TimerError(error) => error,
            TransportTimeoutError::Timeout => io::Error::new(
                io::ErrorKind::TimedOut,
                "the secure channel was not up within network.handshake_timeout",
            ),
        })
        .boxed()
}

fn quic(key: &Keypair, handshake_timeout: Duration) -> Boxed<Secured> {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = handshake_timeout;
    config.max_concurrent_stream_limit = QUIC_STREAMS;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| Secured {
            peer,
            // The transport proves TLS 1.3 and the peer; it shows neither group nor cipher.
            security: SecurityInfo {
                kind: ChannelKind::Quic,
                group: Group::Unproven,
                cipher: Cipher::Untold,
            },
            exporter: None,
            muxer: StreamMuxerBox::new(connection),
            window: None,
        })
        .boxed()
}
