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
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, Transport, TransportEvent},
    },
    multiaddr::Protocol,
    quic,
    swarm::{DialError, ListenError},
};
use thiserror::Error;

use super::{
    GateKeeper,
    exchange::{Connection, Exchange, origin},
    ledger::{Ledger, Slot},
};
use crate::{
    audit::Direction,
    identity::{Refusal, Role},
    network::{
        attribution, convert,
        secure::{Bounded, ChannelError, Policy, Secured, StreamLimits, Window, fault_of},
    },
    types::{ChannelFault, ChannelKind, Clock, PeerId, PeerIdError},
};

type Passed = (libp2p::PeerId, StreamMuxerBox);
type Upgrade = BoxFuture<'static, Result<Passed, GateError>>;

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
    /// There is no channel that both sides accept, and nothing is known of the other side.
    #[error("secure channel: {0}")]
    Channel(#[source] Refusal),
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
    ledger: Ledger,
    rules: Arc<Rules>,
}

/// What the gate goes by.
pub struct Rules {
    /// Who this node is.
    pub me: PeerId,
    /// Which channels are good enough.
    pub policy: Policy,
    /// Judges peers.
    pub keeper: Arc<dyn GateKeeper>,
    /// For the whole exchange.
    pub deadline: Duration,
    /// What an accepted peer may do with streams.
    pub streams: StreamLimits,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Gated {
    /// Puts the gate around `inner`.
    #[must_use]
    pub fn new(inner: Boxed<Secured>, ledger: Ledger, rules: Rules) -> Self {
        let rules = Arc::new(rules);
        let gate = Gate { ledger, rules };
        Self { inner, gate }
    }
}

/// What is known of one upgrade before it begins.
struct Way {
    ip: Option<IpAddr>,
    direction: Direction,
    /// This node's end: the opener opens the gate's stream.
    role: Role,
    /// Asks for a credential.
    required: bool,
    /// The peer that was dialled, when the address names one.
    expected: Option<libp2p::PeerId>,
    /// The address has a QUIC transport of its own.
    quic: bool,
    slot: Slot,
}

impl Gate {
    fn pass(
        &self,
        upgrade: impl Future<Output = io::Result<Secured>> + Send + 'static,
        way: Way,
    ) -> Upgrade {
        let rules = Arc::clone(&self.rules);
        let mut upgrade = Box::pin(upgrade);
        async move {
            // Before QUIC's handshake the address may be forged: nobody may be blamed by it.
            let ip = way.ip.filter(|_| !way.quic);
            let handshake = std::future::poll_fn(|cx| {
                attribution::note_origin(origin(ip));
                upgrade.as_mut().poll(cx)
            });
            let Secured {
                peer: remote,
                security,
                exporter,
                muxer,
                window,
            } = handshake.await.map_err(|error| rules.failed(error, &way))?;
            if way.expected.is_some_and(|expected| expected != remote) {
                return Err(GateError::WrongPeer);
            }
            let peer = convert::from_libp2p(&remote)?;
            let connection = Connection {
                muxer,
                me: rules.me,
                peer,
                ip: way.ip,
                direction: way.direction,
                role: way.role,
                security,
                exporter,
            };
            let exchange = Exchange::new(connection, Arc::clone(&rules.keeper), rules.deadline);
            let passed = if way.required {
                exchange.required(&rules.policy).await
            } else {
                exchange.open(&rules.policy).await
            };
            let (muxer, admitted) = passed.map_err(GateError::Refused)?;
            // A slot is written once; the Swarm finds it under the connection's id.
            let _ = way.slot.set(admitted);
            Ok((remote, rules.bounded(muxer, window, peer, way.ip)))
        }
        .boxed()
    }
}

impl Rules {
    /// The connection of an accepted peer, within its bounds.
    fn bounded(
        &self,
        muxer: StreamMuxerBox,
        window: Option<Window>,
        peer: PeerId,
        ip: Option<IpAddr>,
    ) -> StreamMuxerBox {
        let keeper = Arc::clone(&self.keeper);
        let told = Box::new(move |breach| keeper.breached(&peer, ip, breach));
        let (streams, keeper) = (self.streams, Arc::clone(&self.keeper));
        let limits = Box::new(move || streams.with_requests(keeper.request_rates()));
        let clock = Arc::clone(&self.clock);
        StreamMuxerBox::new(Bounded::new(muxer, window, limits, clock, told))
    }

    /// Names what went wrong below, and tells the keeper when it is known with whom.
    fn failed(&self, error: io::Error, way: &Way) -> GateError {
        let Some(ChannelError { fault, peer }) = fault_of(&error) else {
            return GateError::Transport(error);
        };
        let refusal = Refusal::Channel(fault);
        let peer = peer.or(way.expected);
        match peer.and_then(|peer| convert::from_libp2p(&peer).ok()) {
            Some(peer) => {
                self.keeper.refused(&peer, way.ip, way.direction, &refusal);
                GateError::Refused(refusal)
            }
            None => GateError::Channel(refusal),
        }
    }

    /// QUIC cannot prove what a strict peer must prove: it is not even dialled.
    fn may_dial(&self, way: &Way) -> Result<(), GateError> {
        let expected = way.expected;
        let peer = expected.and_then(|peer| convert::from_libp2p(&peer).ok());
        if way.quic && !self.policy.allows_quic(peer.as_ref()) {
            let fault = ChannelFault::HybridRequired(ChannelKind::Quic);
            return Err(self.failed(ChannelError::from(fault).into(), way));
        }
        Ok(())
    }
}

/// Whether the connection itself, and not only the way to a relay, is QUIC.
fn is_quic(address: &Multiaddr) -> bool {
    let has = |wanted: Protocol<'_>| address.iter().any(|part| part == wanted);
    has(Protocol::QuicV1) && !has(Protocol::P2pCircuit)
}

/// Which end this node is when it dials. A hole punch may ask for the listener's part; over QUIC
/// it gets it only with a new port, for libp2p's transport connects as a client otherwise.
fn dialled_role(opts: DialOpts, quic: bool) -> Role {
    match (opts.role, opts.port_use) {
        (Endpoint::Dialer, _) => Role::Opener,
        (Endpoint::Listener, PortUse::Reuse) if quic => Role::Opener,
        (Endpoint::Listener, _) => Role::Listener,
    }
}

impl Transport for Gated {
    type Output = Passed;
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
        let (quic, expected) = (is_quic(&address), convert::split_p2p(&address).1);
        let way = Way {
            ip: convert::ip_of(&address),
            direction: Direction::Outbound,
            role: dialled_role(opts, quic),
            required: true,
            expected,
            quic,
            slot: self.gate.ledger.dial(&address),
        };
        if let Err(error) = self.gate.rules.may_dial(&way) {
            return Err(TransportError::Other(error));
        }
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
                    role: Role::Listener,
                    required: !this.gate.ledger.is_open(listener_id),
                    expected: None,
                    quic: is_quic(&local_addr),
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

/// The channel below was not up in time.
pub const HANDSHAKE_TIMEOUT: &str = "handshake_timeout";
/// The peer hung up, or spoke something else, before the channel was up.
pub const HANDSHAKE_FAILED: &str = "handshake_failed";

/// Why an inbound connection failed of which no peer is known, as a stable name. `None`: the
/// keeper or the Swarm has told.
#[must_use]
pub fn inbound_failure(error: &ListenError) -> Option<&'static str> {
    let ListenError::Transport(TransportError::Other(error)) = error else {
        return None;
    };
    match error.get_ref()?.downcast_ref::<GateError>()? {
        GateError::Channel(refusal) => Some(refusal.code()),
        GateError::Transport(error) if timed_out(error) => Some(HANDSHAKE_TIMEOUT),
        GateError::Transport(_) | GateError::Key(_) => Some(HANDSHAKE_FAILED),
        GateError::WrongPeer | GateError::Refused(_) => None,
    }
}

/// libp2p's boxed transports wrap errors in each other.
fn timed_out(error: &io::Error) -> bool {
    let quic = |inner: &quic::Error| matches!(inner, quic::Error::HandshakeTimedOut);
    error.kind() == io::ErrorKind::TimedOut
        || error.get_ref().is_some_and(|inner| {
            inner.downcast_ref().is_some_and(timed_out) || inner.downcast_ref().is_some_and(quic)
        })
}

/// Why the gate refused a dial, when it was the gate or the channel below it.
#[must_use]
pub fn refusal_of(error: &DialError) -> Option<&Refusal> {
    let DialError::Transport(attempts) = error else {
        return None;
    };
    attempts.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => match error.get_ref()?.downcast_ref::<GateError>()? {
            GateError::Refused(refusal) | GateError::Channel(refusal) => Some(refusal),
            GateError::Transport(_) | GateError::Key(_) | GateError::WrongPeer => None,
        },
        TransportError::MultiaddrNotSupported(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_is_who_speaks_first_below() {
        let opts = |role, port_use| DialOpts { role, port_use };
        let (dialer, listener) = (Endpoint::Dialer, Endpoint::Listener);
        for port_use in [PortUse::New, PortUse::Reuse] {
            for quic in [true, false] {
                let role = dialled_role(opts(dialer, port_use), quic);
                assert_eq!(role, Role::Opener);
            }
            let role = dialled_role(opts(listener, port_use), false);
            assert_eq!(role, Role::Listener);
        }
        // A hole punch: libp2p's QUIC connects as a client when it may use the listener's port.
        let punched = |port_use| dialled_role(opts(listener, port_use), true);
        assert_eq!(punched(PortUse::Reuse), Role::Opener);
        assert_eq!(punched(PortUse::New), Role::Listener);
    }

    #[test]
    fn a_deadline_is_found_however_it_is_wrapped() {
        let wrapped = |inner| timed_out(&io::Error::other(inner));
        assert!(wrapped(io::Error::from(io::ErrorKind::TimedOut)));
        assert!(!wrapped(io::Error::from(io::ErrorKind::BrokenPipe)));
        let quic = |error: quic::Error| timed_out(&io::Error::other(io::Error::other(error)));
        assert!(quic(quic::Error::HandshakeTimedOut));
        assert!(!quic(quic::Error::NoActiveListenerForDialAsListener));
    }

    #[test]
    fn a_circuit_is_not_quic_because_the_way_to_its_relay_is() {
        let peer = libp2p::PeerId::random();
        let quic = |text: &str| is_quic(&text.parse().unwrap());
        assert!(quic("/ip4/10.0.0.1/udp/1/quic-v1"));
        assert!(quic(&format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{peer}")));
        assert!(!quic("/ip4/10.0.0.1/tcp/1"));
        let relayed = format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{peer}/p2p-circuit");
        assert!(!quic(&relayed));
    }
}
