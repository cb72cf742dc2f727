//! Whose input is being handled: so that a panic can be blamed on the peer that caused it.
//!
//! libp2p handles a peer's bytes in two places. Behaviours run inside the Swarm, on the actor's
//! thread: [`Attributed`] tells the node's [`Attribution`] before and after. Codecs, handlers,
//! muxers and the gate run in connection tasks: there the origin is noted for the thread, and
//! [`crate::network::Tasks`] reads it when such a task panics (it clears it before each poll, so
//! a note never outlives the poll it was made in).

use std::{
    cell::Cell,
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

use crate::{
    network::convert,
    types::{Origin, PeerId},
};

/// What one report of a connection carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages whose signature or form is wrong; they are in it no more.
    pub invalid: usize,
    /// Messages.
    pub messages: usize,
    /// Their bytes, and those of the invalid ones: they came and were checked.
    pub bytes: usize,
    /// What the neighbours' protocol says to itself: offers, requests, grafts and prunes.
    pub control: usize,
    /// Its bytes.
    pub control_bytes: usize,
}

/// What is handled of what a neighbour sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    /// All of it.
    Everything,
    /// All but the messages, for which it cannot pay: what it answers or asks is no less true.
    NoMessages,
    /// Nothing.
    Nothing,
}

/// What the node is told about whose input is handled.
pub trait Attribution: Send + Sync + 'static {
    /// A behaviour begins to handle input of `peer`, on the thread that polls the Swarm.
    fn begin(&self, peer: PeerId);

    /// It is done. Not called when it panicked: who began last is to blame.
    fn end(&self);

    /// A neighbour sent so many messages whose signature or form is wrong. An honest one checks
    /// before it forwards, so they are the neighbour's own doing.
    fn invalid_messages(&self, neighbour: PeerId, count: usize) {
        let _ = (neighbour, count);
    }

    /// What is handled of what a neighbour sent at once: as much as is within its budget.
    fn admits(&self, neighbour: PeerId, load: &Load) -> Admits {
        let _ = (neighbour, load);
        Admits::Everything
    }

    /// A connection task panicked while it handled input of `origin`. The Swarm does not learn
    /// of it and keeps a dead connection: its actor should be restarted.
    fn task_panicked(&self, origin: Origin, detail: &str);
}

thread_local! {
    static INPUT_OF: Cell<Option<Origin>> = const { Cell::new(None) };
}

/// Notes whose input this connection task handles from here to the end of its poll.
pub(crate) fn note(peer: PeerId, address: Option<IpAddr>) {
    note_origin(Origin {
        peer: Some(peer),
        address,
    });
}

pub(crate) fn note_origin(origin: Origin) {
    INPUT_OF.set(Some(origin));
}

pub(crate) fn clear() {
    INPUT_OF.set(None);
}

pub(crate) fn noted() -> Origin {
    INPUT_OF.get().unwrap_or_default()
}

/// A behaviour whose handling of peer input is attributed.
pub struct Attributed<B: NetworkBehaviour> {
    inner: B,
    attribution: Arc<dyn Attribution>,
    /// What an event of a connection carries.
    load: fn(&THandlerOutEvent<B>) -> Load,
    /// Takes the messages out of one.
    strip: fn(&mut THandlerOutEvent<B>),
}

impl<B: NetworkBehaviour> Attributed<B> {
    /// Attributes what `inner` does.
    #[must_use]
    pub fn new(inner: B, attribution: Arc<dyn Attribution>) -> Self {
        Self::counting(inner, attribution, |_| Load::default(), |_| {})
    }

    /// As [`new`](Self::new), for a behaviour whose connections report what has to be paid for;
    /// `strip` takes the messages out of a report.
    #[must_use]
    pub fn counting(
        inner: B,
        attribution: Arc<dyn Attribution>,
        load: fn(&THandlerOutEvent<B>) -> Load,
        strip: fn(&mut THandlerOutEvent<B>),
    ) -> Self {
        Self {
            inner,
            attribution,
            load,
            strip,
        }
    }
}

impl<B: NetworkBehaviour> Deref for Attributed<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B: NetworkBehaviour> DerefMut for Attributed<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Attributed<B> {
    type ConnectionHandler = AttributedHandler<B::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
            .map(|inner| AttributedHandler::new(inner, &peer, remote))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<libp2p::PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
            .map(|inner| AttributedHandler::new(inner, &peer, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        id: ConnectionId,
        mut event: THandlerOutEvent<Self>,
    ) {
        // Every connected peer has a name of ours, or the gate had not let it in.
        let Ok(ours) = convert::from_libp2p(&peer) else {
            return;
        };
        self.attribution.begin(ours);
        let load = (self.load)(&event);
        if load.invalid > 0 {
            self.attribution.invalid_messages(ours, load.invalid);
        }
        let admits = if load == Load::default() {
            Admits::Everything
        } else {
            self.attribution.admits(ours, &load)
        };
        if admits == Admits::NoMessages {
            (self.strip)(&mut event);
        }
        if admits != Admits::Nothing {
            self.inner.on_connection_handler_event(peer, id, event);
        }
        self.attribution.end();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

/// The handler beside an [`Attributed`] behaviour: notes the peer for its connection task.
pub struct AttributedHandler<H> {
    inner: H,
    origin: Origin,
}

impl<H> AttributedHandler<H> {
    fn new(inner: H, peer: &libp2p::PeerId, remote: &Multiaddr) -> Self {
        Self {
            inner,
            origin: Origin {
                peer: convert::from_libp2p(peer).ok(),
                address: convert::ip_of(remote),
            },
        }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for AttributedHandler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        // A connection polls its handler first, so this note also covers its streams and muxer.
        note_origin(self.origin);
        self.inner.poll(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        note_origin(self.origin);
        self.inner.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        note_origin(self.origin);
        self.inner.on_connection_event(event);
    }
}
