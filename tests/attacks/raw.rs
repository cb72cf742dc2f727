//! A client of the test's own, as deep in the protocols as an attack needs it, and no deeper.

use std::{sync::Arc, task::Poll, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
};
use multistream_select::{Negotiated, Version, dialer_select_proto};
use quantraband::network::{
    convert,
    secure::{Policy, Secure, SecurityLevel},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// How long a write may take that the node need not read.
const SENDING: Duration = Duration::from_secs(2);

pub(crate) type Stream = Negotiated<SubstreamBox>;

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let outcome = timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not in {PATIENCE:?}"))
}

/// A secured, multiplexed connection that shows no credential; a task drives it.
pub(crate) struct Raw {
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    ended: Arc<Notify>,
}

impl Raw {
    pub(crate) async fn dial(seed: u8, address: &str) -> Self {
        Self::dialled(seed, address, true).await
    }

    /// As [`Raw::dial`], but what the node opens is reset at once.
    pub(crate) async fn dial_refusing(seed: u8, address: &str) -> Self {
        Self::dialled(seed, address, false).await
    }

    async fn dialled(seed: u8, address: &str, holds: bool) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let secure = Secure::new(&key, Policy::from(SecurityLevel::PreferHybrid)).unwrap();
        let mut transport = secure.transport(&key, PATIENCE);
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let (address, _) = convert::split_p2p(&address.parse::<Multiaddr>().unwrap());
        let dial = transport.dial(address, opts).unwrap();
        let secured = soon("a secure channel", dial).await.unwrap();
        if let Some(window) = &secured.window {
            window.accept();
        }
        Self::drive(secured.muxer, holds)
    }

    fn drive(mut muxer: StreamMuxerBox, holds: bool) -> Self {
        let (open, mut requests) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(4);
        let ended = Arc::new(Notify::new());
        let end = Arc::clone(&ended);
        let mut waiting: Option<oneshot::Sender<SubstreamBox>> = None;
        // What the node opens is held open and left unanswered, unless it is refused: then the
        // node's ping takes this for a peer without ping, and answers none itself.
        let mut held = Vec::new();
        let driving = poll_fn(move |cx| {
            while let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx) {
                match stream {
                    Ok(stream) if holds => held.push(stream),
                    Ok(stream) => drop(stream),
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
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            match muxer.poll_unpin(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        tokio::spawn(async move {
            driving.await;
            end.notify_one();
        });
        Self { open, ended }
    }

    /// Opens a stream and says one byte, for Yamux opens none without; `None` when the connection
    /// is gone.
    pub(crate) async fn one_byte(&self) -> Option<SubstreamBox> {
        let mut stream = self.bare().await?;
        stream.write_all(&[19]).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }

    async fn bare(&self) -> Option<SubstreamBox> {
        let (sender, stream) = oneshot::channel();
        self.open.send(sender).await.ok()?;
        soon("a stream", stream).await.ok()
    }

    /// Opens a stream and proposes `protocol`, without waiting for the answer.
    pub(crate) async fn stream(&self, protocol: &str) -> Option<Stream> {
        let stream = self.bare().await?;
        let select = dialer_select_proto(stream, [protocol], Version::V1Lazy);
        let (_, mut stream) = soon("a proposal", select).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }

    /// Waits until the node ends the connection.
    pub(crate) async fn cut_off(&self) {
        soon("the node hangs up", self.ended.notified()).await;
    }
}

pub(crate) async fn send(stream: &mut Stream, bytes: &[u8]) {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // The node may have hung up already, or read no further: that is its right.
    let _ = timeout(SENDING, sending).await;
}

/// Reads until the stream ends, in whatever way.
pub(crate) async fn ended(stream: &mut Stream) {
    soon("the stream ends", async {
        let mut buffer = [0; 4_096];
        while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
    })
    .await;
}
