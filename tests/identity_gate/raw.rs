//! A peer that speaks the secure channel correctly, and the gate as a test wants it to.

use std::{pin::Pin, task::Poll, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint, Transport,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use quantraband::network::{
    convert,
    gate::{Message, NONCE, PROTOCOL, Verdict},
    secure::{Policy, Secure, Secured, SecurityLevel},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::fakes::{GENEROUS, soon};

pub(crate) type Stream = Negotiated<SubstreamBox>;

pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn secured(seed: u8, level: SecurityLevel) -> Boxed<Secured> {
    let secure = Secure::new(&key(seed), Policy::from(level)).unwrap();
    secure.transport(&key(seed), GENEROUS)
}

/// One side of a connection, its muxer driven by a task.
pub(crate) struct Raw {
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    inbound: mpsc::Receiver<SubstreamBox>,
    driver: JoinHandle<()>,
}

impl Raw {
    /// Over the stacked channel, where the exchange has no hello.
    pub(crate) async fn dial(seed: u8, address: &Multiaddr) -> Self {
        Self::dial_as(SecurityLevel::RequireHybrid, seed, address).await
    }

    pub(crate) async fn dial_as(level: SecurityLevel, seed: u8, address: &Multiaddr) -> Self {
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let (address, _) = convert::split_p2p(address);
        let dial = secured(seed, level).dial(address, opts).unwrap();
        let secured = soon("a secure channel", dial).await.unwrap();
        Self::drive(secured.muxer)
    }

    fn drive(mut muxer: StreamMuxerBox) -> Self {
        let (open, mut requests) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(4);
        let (sender, inbound) = mpsc::channel(64);
        let mut waiting: Option<oneshot::Sender<SubstreamBox>> = None;
        let driver = tokio::spawn(poll_fn(move |cx| {
            while let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx) {
                match stream {
                    // A test that does not look for streams loses them.
                    Ok(stream) => drop(sender.try_send(stream)),
                    Err(_) => return Poll::Ready(()),
                }
            }
            loop {
                if let Some(request) = waiting.take() {
                    match muxer.poll_outbound_unpin(cx) {
                        Poll::Ready(Ok(stream)) => drop(request.send(stream)),
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {
                            waiting = Some(request);
                            break;
                        }
                    }
                }
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(request)) => waiting = Some(request),
                    // The test let go of the connection: it hangs up.
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            match muxer.poll_unpin(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        Self {
            open,
            inbound,
            driver,
        }
    }

    /// Opens a stream and proposes `protocol`, without waiting for the answer.
    pub(crate) async fn stream(&self, protocol: &str) -> Stream {
        let (sender, stream) = oneshot::channel();
        self.open.send(sender).await.unwrap();
        let stream = soon("a stream", stream).await.unwrap();
        let select = dialer_select_proto(stream, [protocol], Version::V1Lazy);
        let (_, mut stream) = soon("a proposal", select).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// Opens the gate's stream.
    pub(crate) async fn gate(&self) -> Stream {
        self.stream(PROTOCOL).await
    }

    /// Accepts the gate's stream.
    pub(crate) async fn accept_gate(&mut self) -> Stream {
        let stream = soon("the gate's stream", self.inbound.recv())
            .await
            .unwrap();
        let select = listener_select_proto(stream, [PROTOCOL]);
        soon("a proposal", select).await.unwrap().1
    }

    /// Waits until the other side hangs up.
    pub(crate) async fn hung_up(self) {
        soon("the other side hangs up", self.driver).await.unwrap();
    }
}

/// A listener that yields raw connections.
pub(crate) struct RawListener {
    transport: Boxed<Secured>,
    pub(crate) address: Multiaddr,
}

impl RawListener {
    pub(crate) async fn bind(seed: u8) -> Self {
        let mut transport = secured(seed, SecurityLevel::PreferHybrid);
        let loopback = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        transport.listen_on(ListenerId::next(), loopback).unwrap();
        let event = poll_fn(|cx| Pin::new(&mut transport).poll(cx));
        let TransportEvent::NewAddress { listen_addr, .. } = soon("a listener", event).await else {
            panic!("the listener does not listen")
        };
        let address = convert::with_p2p(&listen_addr, key(seed).public().to_peer_id());
        Self { transport, address }
    }

    pub(crate) async fn accept(&mut self) -> Raw {
        let transport = &mut self.transport;
        let incoming = poll_fn(|cx| {
            loop {
                match Pin::new(&mut *transport).poll(cx) {
                    Poll::Ready(TransportEvent::Incoming { upgrade, .. }) => {
                        return Poll::Ready(upgrade);
                    }
                    Poll::Ready(_) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let upgrade = soon("a connection", incoming).await;
        let secured = soon("a secure channel", upgrade).await.unwrap();
        Raw::drive(secured.muxer)
    }
}

pub(crate) async fn send(stream: &mut Stream, bytes: &[u8]) {
    soon("a write", async {
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    })
    .await;
}

pub(crate) async fn credential(stream: &mut Stream) {
    send(stream, &Message::Credential(b"raw".to_vec()).encode()).await;
}

pub(crate) async fn hello(stream: &mut Stream, nonce: u8) {
    send(stream, &Message::Hello([nonce; NONCE]).encode()).await;
}

pub(crate) async fn accept(stream: &mut Stream) {
    send(stream, &Message::Verdict(Verdict::Accepted).encode()).await;
}

/// Reads one message; `None` when the stream ends first.
pub(crate) async fn receive(stream: &mut Stream) -> Option<Message> {
    soon("a message", async {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut body).await.ok()?;
        Some(Message::decode(body).unwrap())
    })
    .await
}

/// Reads the other side's credential, then its refusal's code.
pub(crate) async fn refusal_code(stream: &mut Stream) -> String {
    loop {
        match receive(stream).await {
            Some(Message::Credential(_)) => {}
            Some(Message::Verdict(Verdict::Refused { code, .. })) => return code,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }
}

/// A pause for what must *not* happen; nothing is awaited with it.
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}
