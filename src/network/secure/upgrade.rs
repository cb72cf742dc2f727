//! One connection's way from a raw stream to a [`Secured`]: choose, encrypt, compare, multiplex.

use std::{io, sync::Arc};

use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use libp2p::{
    Transport,
    core::{
        ConnectedPoint, Endpoint,
        muxing::StreamMuxerBox,
        transport::Boxed,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
    noise,
};
use multistream_select::{
    Negotiated, NegotiationError, ProtocolError, Version, dialer_select_proto,
    listener_select_proto,
};

use super::{
    ChannelError, ChannelFault, ChannelKind, Cipher, Group, Policy, Secured, SecurityInfo,
    SetupError, Window,
    muxer::Muxer,
    tls::{ALPN_LIBP2P, ALPN_STACKED, ANY_GROUP, Certificate, HYBRID_ONLY, Proven, Tls},
};
use crate::network::convert;

/// Yamux as multistream-select names it.
const YAMUX: &str = "/yamux/1.0.0";

/// Everything that secures connections; made once for a node. Cheap to clone.
#[derive(Clone)]
pub struct Secure(Arc<Layers>);

struct Layers {
    noise: noise::Config,
    /// Inside Noise.
    hybrid: Tls,
    /// On its own.
    plain: Tls,
    policy: Policy,
}

/// Which side of the handshakes this node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Opener,
    Listener,
}

impl Secure {
    /// Layers that prove `key`, chosen by `policy`.
    ///
    /// # Errors
    /// [`SetupError`] when keys cannot be made, which needs the system's randomness.
    pub fn new(key: &Keypair, policy: Policy) -> Result<Self, SetupError> {
        let certificate = Certificate::generate(key)?;
        let hybrid = Tls::new(&certificate, HYBRID_ONLY, ALPN_STACKED)?;
        Self::with_inner(key, policy, &certificate, hybrid)
    }

    pub(super) fn with_inner(
        key: &Keypair,
        policy: Policy,
        certificate: &Certificate,
        hybrid: Tls,
    ) -> Result<Self, SetupError> {
        Ok(Self(Arc::new(Layers {
            noise: noise::Config::new(key)?,
            hybrid,
            plain: Tls::new(certificate, ANY_GROUP, ALPN_LIBP2P)?,
            policy,
        })))
    }

    /// What is offered, accepted and kept.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Secures what a stream transport yields: TCP, or a relayed circuit. Knows no deadline.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's type is of a crate that is not named here"
    )]
    pub fn over<T>(&self, transport: T) -> Boxed<Secured>
    where
        T: Transport + Send + Unpin + 'static,
        T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        T::Error: Send + Sync + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let secure = self.clone();
        transport
            .map_err(io::Error::other)
            .and_then(move |stream, point| secure.secure(stream, point))
            .map_err(|error| error.into_inner())
            .boxed()
    }

    fn secure<S>(self, stream: S, point: ConnectedPoint) -> BoxFuture<'static, io::Result<Secured>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let (side, expected) = match point {
                ConnectedPoint::Dialer {
                    address,
                    role_override,
                    ..
                } => {
                    let side = match role_override {
                        Endpoint::Dialer => Side::Opener,
                        Endpoint::Listener => Side::Listener,
                    };
                    (side, convert::split_p2p(&address).1)
                }
                ConnectedPoint::Listener { .. } => (Side::Listener, None),
            };
            let (kind, stream) = self.select(stream, side, expected).await?;
            self.encrypt(kind, stream, side).await
        })
    }

    /// Agrees on a kind of channel, in the clear.
    async fn select<S>(
        &self,
        stream: S,
        side: Side,
        expected: Option<libp2p::PeerId>,
    ) -> io::Result<(ChannelKind, Negotiated<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let expected = expected.and_then(|peer| convert::from_libp2p(&peer).ok());
        let policy = &self.0.policy;
        let kinds = match side {
            Side::Opener => policy.offers(expected.as_ref()),
            Side::Listener => policy.accepts(),
        };
        let names: Vec<&'static str> = kinds.iter().map(|kind| kind.protocol()).collect();
        let selected = match side {
            Side::Opener => dialer_select_proto(stream, names, Version::V1).await,
            Side::Listener => listener_select_proto(stream, names).await,
        };
        let strict = kinds == [ChannelKind::Stacked];
        let (name, stream) = selected.map_err(|error| match (error, side) {
            (NegotiationError::ProtocolError(ProtocolError::IoError(error)), _) => error,
            (_, Side::Opener) if strict => {
                ChannelError::from(ChannelFault::HybridNotAccepted).into()
            }
            (_, Side::Listener) if strict => {
                ChannelError::from(ChannelFault::HybridNotProposed).into()
            }
            _ => ChannelError::from(ChannelFault::NoneInCommon).into(),
        })?;
        let kind = ChannelKind::of_protocol(name);
        let kind = kind.ok_or_else(|| ChannelError::from(ChannelFault::NoneInCommon))?;
        Ok((kind, stream))
    }

    async fn encrypt<S>(&self, kind: ChannelKind, stream: S, side: Side) -> io::Result<Secured>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let client = side == Side::Opener;
        match kind {
            ChannelKind::Noise => {
                let (peer, stream) = self.noise(stream, side).await?;
                let security = SecurityInfo {
                    kind,
                    group: Group::X25519,
                    cipher: Cipher::ChaCha20Poly1305,
                };
                let (muxer, window) = negotiated_yamux(stream, side).await?;
                Ok(Secured {
                    peer,
                    security,
                    exporter: None,
                    muxer,
                    window: Some(window),
                })
            }
            ChannelKind::Tls => {
                let (stream, proven) = self.0.plain.handshake(stream, client).await?;
                let Proven {
                    peer,
                    group,
                    cipher,
                    ..
                } = proven;
                let (muxer, window) = negotiated_yamux(stream, side).await?;
                Ok(Secured {
                    peer,
                    security: SecurityInfo {
                        kind,
                        group,
                        cipher,
                    },
                    // Only the stacked channel's exporter binds a proof: see the gate.
                    exporter: None,
                    muxer,
                    window: Some(window),
                })
            }
            ChannelKind::Stacked => self.stack(stream, side).await,
            // Never selected by name.
            ChannelKind::Quic => Err(ChannelError::from(ChannelFault::NoneInCommon).into()),
        }
    }

    /// Noise, TLS inside it, and then both compared.
    async fn stack<S>(&self, stream: S, side: Side) -> io::Result<Secured>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (outer, stream) = self.noise(stream, side).await?;
        let client = side == Side::Opener;
        let inner = self.0.hybrid.handshake(stream, client).await;
        // Whatever goes wrong inside, Noise has proved who is at the other end.
        let (stream, proven) = inner.map_err(|error| match super::fault_of(&error) {
            Some(ChannelError { fault, .. }) => blamed(fault, outer),
            None => error,
        })?;
        if proven.peer != outer {
            return Err(blamed(ChannelFault::PeersDiffer, outer));
        }
        if proven.group != Group::X25519MlKem768 {
            return Err(blamed(ChannelFault::Group(Some(proven.group)), outer));
        }
        // ALPN has settled it.
        let (muxer, window) = multiplexed(stream, side);
        Ok(Secured {
            peer: outer,
            security: SecurityInfo {
                kind: ChannelKind::Stacked,
                group: proven.group,
                cipher: proven.cipher,
            },
            exporter: Some(proven.exporter),
            muxer,
            window: Some(window),
        })
    }

    async fn noise<S>(
        &self,
        stream: S,
        side: Side,
    ) -> io::Result<(libp2p::PeerId, noise::Output<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (config, name) = (self.0.noise.clone(), ChannelKind::Noise.protocol());
        let outcome = match side {
            Side::Opener => config.upgrade_outbound(stream, name).await,
            Side::Listener => config.upgrade_inbound(stream, name).await,
        };
        outcome.map_err(|error| match error {
            noise::Error::Io(error) => error,
            error => {
                tracing::debug!(%error, "a Noise handshake failed");
                ChannelError::from(ChannelFault::Handshake("noise")).into()
            }
        })
    }
}

fn blamed(fault: ChannelFault, peer: libp2p::PeerId) -> io::Error {
    let peer = Some(peer);
    ChannelError { fault, peer }.into()
}

/// Yamux, agreed on inside the channel as plain libp2p does.
async fn negotiated_yamux<S>(stream: S, side: Side) -> io::Result<(StreamMuxerBox, Window)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let selected = match side {
        Side::Opener => dialer_select_proto(stream, [YAMUX], Version::V1).await,
        Side::Listener => listener_select_proto(stream, [YAMUX]).await,
    };
    let (_, stream) = selected.map_err(|error| match error {
        NegotiationError::ProtocolError(ProtocolError::IoError(error)) => error,
        error => io::Error::other(error),
    })?;
    Ok(multiplexed(stream, side))
}

fn multiplexed<S>(stream: S, side: Side) -> (StreamMuxerBox, Window)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mode = match side {
        Side::Opener => yamux::Mode::Client,
        Side::Listener => yamux::Mode::Server,
    };
    let window = Window::default();
    let muxer = Muxer::new(stream, mode, window.clone());
    (StreamMuxerBox::new(muxer), window)
}
