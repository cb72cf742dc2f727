//! [`Gated`]: the outermost transport, which lets an upgrade succeed only through the gate.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, TransportError,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, Transport, TransportEvent},
    },
    swarm::DialError,
};
use thiserror::Error;

use super::{
    GateKeeper,
    exchange::{Exchange, origin},
    ledger::{Ledger, Slot},
};
use crate::{
    audit::Direction,
    identity::Refusal,
    network::{attribution, convert},
    types::{PeerId, PeerIdError},
};

type Secured = (libp2p::PeerId, StreamMuxerBox);
type Upgrade = BoxFuture<'static, Result<Secured, GateError>>;

/// Why an upgrade did not come through the gate.
#[derive(Debug, Error)]
pub enum GateError {
    /// The transport below failed; nothing is known of the peer.
    #[error(transparent)]
    Transport(#[from] io::Error),
    /// The peer's key is none this node can name.
    #[error("the peer's key: {0}")]
    Key(#[from] PeerIdError),
    /// Another peer answered than the one that was dialled; it was shown nothing.
    #[error("another peer answered than the one that was dialled")]
    WrongPeer,
    /// One side refused the other.
    #[error("identity gate: {0}")]
    Refused(#[source] Refusal),
}

/// The identity gate around a transport that yields an authenticated, multiplexed connection.
pub struct Gated {
    inner: Boxed<Secured>,
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    /// This node.
    me: PeerId,
    ledger: Ledger,
    keeper: Arc<dyn GateKeeper>,
    deadline: Duration,
}

impl Gated {
    /// Puts the gate of the node `me` around `inner`. `deadline` bounds the whole exchange.
    #[must_use]
    pub fn new(
        inner: Boxed<Secured>,
        me: PeerId,
        ledger: Ledger,
        keeper: Arc<dyn GateKeeper>,
        deadline: Duration,
    ) -> Self {
        Self {
            inner,
            gate: Gate {
                me,
                ledger,
                keeper,
                deadline,
            },
        }
    }
}

/// What is known of one upgrade before it begins.
struct Way {
    ip: Option<IpAddr>,
    direction: Direction,
    /// Opens the gate's stream.
    opener: bool,
    /// Asks for a credential.
    required: bool,
    /// The peer that was dialled, when the address names one.
    expected: Option<libp2p::PeerId>,
    slot: Slot,
}

impl Gate {
    fn pass(
        &self,
        upgrade: impl Future<Output = io::Result<Secured>> + Send + 'static,
        way: Way,
    ) -> Upgrade {
        let gate = self.clone();
        let mut upgrade = Box::pin(upgrade);
        async move {
            let handshake = std::future::poll_fn(|cx| {
                attribution::note_origin(origin(way.ip));
                upgrade.as_mut().poll(cx)
            });
            let (remote, muxer) = handshake.await?;
            if way.expected.is_some_and(|expected| expected != remote) {
                return Err(GateError::WrongPeer);
            }
            let peer = convert::from_libp2p(&remote)?;
            let exchange = Exchange::new(
                (muxer, gate.me, peer, way.ip),
                way.opener,
                way.direction,
                gate.keeper,
                gate.deadline,
            );
            let passed = if way.required {
                exchange.required().await
            } else {
                exchange.open().await
            };
            let (muxer, admitted) = passed.map_err(GateError::Refused)?;
            // A slot is used for one upgrade only, so it is still empty.
            let _ = way.slot.set(admitted);
            Ok((remote, muxer))
        }
        .boxed()
    }
}

impl Transport for Gated {
    type Output = Secured;
    type Error = GateError;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<GateError>> {
        let listening = self.inner.listen_on(id, address);
        listening.map_err(|error| error.map(GateError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        // The exemption stays until the listener reports itself closed: connections it has
        // accepted before may still come.
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Upgrade, TransportError<GateError>> {
        let way = Way {
            ip: convert::ip_of(&address),
            direction: Direction::Outbound,
            opener: opts.role.is_dialer(),
            required: true,
            expected: convert::split_p2p(&address).1,
            slot: self.gate.ledger.dial(&address),
        };
        let dial = self.inner.dial(address, opts);
        let dial = dial.map_err(|error| error.map(GateError::Transport))?;
        Ok(self.gate.pass(dial, way))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, GateError>> {
        let this = self.get_mut();
        let Poll::Ready(event) = Pin::new(&mut this.inner).poll(cx) else {
            return Poll::Pending;
        };
        let event = match event {
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => {
                let way = Way {
                    ip: convert::ip_of(&send_back_addr),
                    direction: Direction::Inbound,
                    opener: false,
                    required: !this.gate.ledger.is_open(listener_id),
                    expected: None,
                    slot: this.gate.ledger.arrive(&local_addr, &send_back_addr),
                };
                TransportEvent::Incoming {
                    listener_id,
                    upgrade: this.gate.pass(upgrade, way),
                    local_addr,
                    send_back_addr,
                }
            }
            TransportEvent::ListenerClosed {
                listener_id,
                reason,
            } => {
                this.gate.ledger.close(listener_id);
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason: reason.map_err(GateError::Transport),
                }
            }
            // No upgrade is left among the others.
            other => other
                .map_upgrade(|_| futures::future::pending().boxed())
                .map_err(GateError::Transport),
        };
        Poll::Ready(event)
    }
}

/// Why the gate refused a dial, when it was the gate.
#[must_use]
pub fn refusal_of(error: &DialError) -> Option<&Refusal> {
    let DialError::Transport(attempts) = error else {
        return None;
    };
    attempts.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => match error.get_ref()?.downcast_ref::<GateError>()? {
            GateError::Refused(refusal) => Some(refusal),
            GateError::Transport(_) | GateError::Key(_) | GateError::WrongPeer => None,
        },
        TransportError::MultiaddrNotSupported(_) => None,
    })
}
