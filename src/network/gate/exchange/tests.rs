//! What a peer that breaks the connection's bounds before the gate's stream comes to.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent, SubstreamBox};

use super::*;
use crate::network::secure::{ChannelKind, Cipher, Group, SecurityLevel};

/// A connection whose meter found a breach.
struct Broken(Breach);

impl Broken {
    fn end<T>(&self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self.0.into()))
    }
}

impl StreamMuxer for Broken {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.end()
    }
    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.end()
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end()
    }
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.end()
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Keeper(Mutex<Vec<Refusal>>);

impl GateKeeper for Keeper {
    fn own_frame(&self, _: &Channel, _: Role) -> Arc<[u8]> {
        Arc::default()
    }
    fn precheck(&self, _: &PeerId, _: Option<IpAddr>) -> Result<(), Refusal> {
        Ok(())
    }
    fn judge(&self, _: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        futures::future::ready(Err(Refusal::Missing)).boxed()
    }
    fn judge_open(
        &self,
        _: PeerId,
        _: Option<IpAddr>,
        _: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        futures::future::ready(Err(Refusal::Missing)).boxed()
    }
    fn refused(&self, _: &PeerId, _: Option<IpAddr>, _: Direction, refusal: &Refusal) {
        self.0.lock().unwrap().push(refusal.clone());
    }
}

#[tokio::test]
async fn a_breach_before_the_gates_stream_is_named_and_charged() {
    for role in [Role::Listener, Role::Opener] {
        for breach in [Breach::Controls, Breach::Frame] {
            let peer = |n: u8| {
                let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]);
                PeerId::from(&key.verifying_key())
            };
            let connection = Connection {
                muxer: StreamMuxerBox::new(Broken(breach)),
                me: peer(1),
                peer: peer(2),
                ip: None,
                direction: Direction::Inbound,
                role,
                security: SecurityInfo {
                    kind: ChannelKind::Noise,
                    group: Group::X25519,
                    cipher: Cipher::ChaCha20Poly1305,
                },
                exporter: None,
            };
            let keeper = Arc::new(Keeper::default());
            let exchange = Exchange::new(connection, keeper.clone(), Duration::from_secs(5));
            let policy = Policy::from(SecurityLevel::PreferHybrid);
            let refusal = exchange.required(&policy).await.err().unwrap();
            assert_eq!(refusal, Refusal::Violation(breach.code()));
            assert!(refusal.charged());
            assert_eq!(*keeper.0.lock().unwrap(), [refusal]);
        }
    }
}
