//! The channel itself, over pipes in memory: what comes of it, and what is refused by name.

use std::{io, pin::Pin, task::Poll};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerExt,
        transport::{Boxed, DialOpts, ListenerId, MemoryTransport, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tls, yamux,
};
use rustls::crypto::{SupportedKxGroup, aws_lc_rs::kx_group};

use super::{
    tls::{ALPN_LIBP2P, ALPN_STACKED, Certificate, HYBRID_ONLY, Tls},
    *,
};

const STRICT: SecurityLevel = SecurityLevel::RequireHybrid;

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn id(seed: u8) -> libp2p::PeerId {
    key(seed).public().to_peer_id()
}

fn secure(seed: u8, level: SecurityLevel) -> Secure {
    Secure::new(&key(seed), Policy::from(level)).unwrap()
}

/// As [`secure`], with another TLS inside: of another key, other groups, another ALPN.
fn odd(
    seed: u8,
    inner: u8,
    groups: &[&'static dyn SupportedKxGroup],
    alpn: &'static [u8],
) -> Secure {
    let certificate = Certificate::generate(&key(inner)).unwrap();
    let inner = Tls::new(&certificate, groups, alpn).unwrap();
    Secure::with_inner(&key(seed), Policy::from(STRICT), &certificate, inner).unwrap()
}

/// Both ends of one connection in memory.
async fn meet<A, B>(
    mut dialler: Boxed<A>,
    mut listener: Boxed<B>,
) -> (io::Result<A>, io::Result<B>) {
    let anywhere: Multiaddr = "/memory/0".parse().unwrap();
    listener.listen_on(ListenerId::next(), anywhere).unwrap();
    let address = poll_fn(|cx| match Pin::new(&mut listener).poll(cx) {
        Poll::Ready(TransportEvent::NewAddress { listen_addr, .. }) => Poll::Ready(listen_addr),
        Poll::Ready(_) => panic!("no address"),
        Poll::Pending => Poll::Pending,
    })
    .await;
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = dialler.dial(address, opts).unwrap();
    let accept = async {
        let upgrade = poll_fn(|cx| match Pin::new(&mut listener).poll(cx) {
            Poll::Ready(TransportEvent::Incoming { upgrade, .. }) => Poll::Ready(upgrade),
            Poll::Ready(_) => panic!("no connection"),
            Poll::Pending => Poll::Pending,
        })
        .await;
        upgrade.await
    };
    futures::future::join(dial, accept).await
}

async fn pair(dialler: &Secure, listener: &Secure) -> (io::Result<Secured>, io::Result<Secured>) {
    let over = |secure: &Secure| secure.over(MemoryTransport::default());
    meet(over(dialler), over(listener)).await
}

fn fault(outcome: io::Result<Secured>) -> ChannelError {
    let error = outcome.err().expect("a refusal");
    fault_of(&error).unwrap_or_else(|| panic!("not named: {error}"))
}

/// A plain libp2p peer with one secure channel.
fn plain<U>(upgrade: U) -> Boxed<(libp2p::PeerId, StreamMuxerBox)>
where
    U: PlainUpgrade,
{
    upgrade.over_memory()
}

trait PlainUpgrade {
    fn over_memory(self) -> Boxed<(libp2p::PeerId, StreamMuxerBox)>;
}

impl PlainUpgrade for noise::Config {
    fn over_memory(self) -> Boxed<(libp2p::PeerId, StreamMuxerBox)> {
        let memory = MemoryTransport::default().upgrade(Version::V1);
        memory
            .authenticate(self)
            .multiplex(yamux::Config::default())
            .boxed()
    }
}

impl PlainUpgrade for tls::Config {
    fn over_memory(self) -> Boxed<(libp2p::PeerId, StreamMuxerBox)> {
        let memory = MemoryTransport::default().upgrade(Version::V1);
        memory
            .authenticate(self)
            .multiplex(yamux::Config::default())
            .boxed()
    }
}

#[tokio::test]
async fn two_strict_nodes_get_tls_with_ml_kem_inside_noise() {
    let (one, two) = pair(&secure(1, STRICT), &secure(2, STRICT)).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.peer, two.peer), (id(2), id(1)));
    for end in [&one, &two] {
        assert_eq!(end.security.kind, ChannelKind::Stacked);
        assert_eq!(end.security.group, Group::X25519MlKem768);
        assert_ne!(end.security.cipher, Cipher::Untold);
        assert_eq!(end.security.kind.layers(), [Layer::Noise, Layer::Tls13]);
    }
    assert!(one.exporter.is_some());
    assert_eq!(one.exporter, two.exporter);
    // Another connection of the same two has another value.
    let (again, _) = pair(&secure(1, STRICT), &secure(2, STRICT)).await;
    assert_ne!(again.unwrap().exporter, one.exporter);
}

#[tokio::test]
async fn what_is_sent_through_the_channel_arrives() {
    let (one, two) = pair(&secure(1, STRICT), &secure(2, STRICT)).await;
    let (mut one, mut two) = (one.unwrap().muxer, two.unwrap().muxer);
    let sent: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut opened = poll_fn(|cx| one.poll_outbound_unpin(cx)).await.unwrap();
    let writing = async {
        opened.write_all(&sent).await.unwrap();
        opened.close().await.unwrap();
        std::future::pending::<()>().await;
    };
    let sending = async {
        let drive = poll_fn(|cx| {
            while let Poll::Ready(Ok(_)) = one.poll_unpin(cx) {}
            Poll::<()>::Pending
        });
        futures::future::join(writing, drive).await;
    };
    let reading = async {
        let mut stream = poll_fn(|cx| two.poll_inbound_unpin(cx)).await.unwrap();
        let mut got = Vec::new();
        let drive = poll_fn(|cx| {
            while let Poll::Ready(Ok(_)) = two.poll_unpin(cx) {}
            Poll::<()>::Pending
        });
        futures::future::select(Box::pin(stream.read_to_end(&mut got)), Box::pin(drive)).await;
        got
    };
    match futures::future::select(Box::pin(sending), Box::pin(reading)).await {
        futures::future::Either::Right((got, _)) => assert_eq!(got, sent),
        futures::future::Either::Left(_) => panic!("the sender ended"),
    }
}

#[tokio::test]
async fn a_peer_without_ml_kem_inside_noise_is_refused_on_both_sides() {
    let classic: &[&dyn SupportedKxGroup] = &[kx_group::X25519, kx_group::SECP256R1];
    let weak = || odd(2, 2, classic, ALPN_STACKED);
    let (strict, other) = pair(&secure(1, STRICT), &weak()).await;
    assert_eq!(fault(strict).fault, ChannelFault::Group(None));
    assert!(other.is_err());
    let (other, strict) = pair(&weak(), &secure(1, STRICT)).await;
    let strict = fault(strict);
    assert_eq!(strict.fault, ChannelFault::Group(None));
    // Noise had proved who it is.
    assert_eq!(strict.peer, Some(id(2)));
    assert_eq!(fault(other).fault, ChannelFault::Group(None));
}

#[tokio::test]
async fn a_group_that_was_agreed_on_all_the_same_is_refused_afterwards() {
    // As if the offer had not been restricted: the check after the handshake stands alone.
    let lax: &[&dyn SupportedKxGroup] = &[kx_group::X25519MLKEM768, kx_group::X25519];
    let classic: &[&dyn SupportedKxGroup] = &[kx_group::X25519];
    let lax = || odd(1, 1, lax, ALPN_STACKED);
    let weak = || odd(2, 2, classic, ALPN_STACKED);
    let expected = ChannelError {
        fault: ChannelFault::Group(Some(Group::X25519)),
        peer: Some(id(2)),
    };
    assert_eq!(fault(pair(&lax(), &weak()).await.0), expected);
    assert_eq!(fault(pair(&weak(), &lax()).await.1), expected);
}

#[tokio::test]
async fn another_peer_in_the_inner_layer_is_refused() {
    let expected = ChannelError {
        fault: ChannelFault::PeersDiffer,
        peer: Some(id(2)),
    };
    let two_faced = || odd(2, 3, HYBRID_ONLY, ALPN_STACKED);
    let (honest, _) = pair(&secure(1, STRICT), &two_faced()).await;
    assert_eq!(fault(honest), expected);
    let (_, honest) = pair(&two_faced(), &secure(1, STRICT)).await;
    assert_eq!(fault(honest), expected);
}

#[tokio::test]
async fn another_protocol_inside_is_refused() {
    let other = || odd(2, 2, HYBRID_ONLY, ALPN_LIBP2P);
    let (honest, odd) = pair(&secure(1, STRICT), &other()).await;
    // It is the server that sees the difference; whether its alert gets through is luck.
    assert!(honest.is_err());
    assert_eq!(fault(odd).fault, ChannelFault::Alpn);
    let (_, honest) = pair(&other(), &secure(1, STRICT)).await;
    assert_eq!(fault(honest).fault, ChannelFault::Alpn);
}

#[tokio::test]
async fn levels_that_do_not_meet_are_named_on_both_sides() {
    let (strict, classic) = pair(&secure(1, STRICT), &secure(2, SecurityLevel::Classic)).await;
    assert_eq!(fault(strict).fault, ChannelFault::HybridNotAccepted);
    assert_eq!(fault(classic).fault, ChannelFault::NoneInCommon);
    let (classic, strict) = pair(&secure(2, SecurityLevel::Classic), &secure(1, STRICT)).await;
    assert_eq!(fault(strict).fault, ChannelFault::HybridNotProposed);
    assert_eq!(fault(classic).fault, ChannelFault::NoneInCommon);
}

#[tokio::test]
async fn plain_libp2p_is_spoken_unless_it_is_forbidden() {
    let lax = secure(1, SecurityLevel::PreferHybrid);
    let over = |secure: &Secure| secure.over(MemoryTransport::default());
    let noise = || plain(noise::Config::new(&key(2)).unwrap());
    let tls = || plain(tls::Config::new(&key(2)).unwrap());
    for (other, kind) in [(noise(), ChannelKind::Noise), (tls(), ChannelKind::Tls)] {
        let (one, two) = meet(over(&lax), other).await;
        let one = one.unwrap();
        assert_eq!((one.peer, one.security.kind), (id(2), kind));
        assert_eq!(two.unwrap().0, id(1));
        assert_eq!(one.exporter, None);
    }
    for (other, kind) in [(noise(), ChannelKind::Noise), (tls(), ChannelKind::Tls)] {
        let (two, one) = meet(other, over(&lax)).await;
        let one = one.unwrap();
        assert_eq!((one.peer, one.security.kind), (id(2), kind));
        assert_eq!(two.unwrap().0, id(1));
        // libp2p's TLS proves its group, but it is not the stacked channel.
        assert_eq!(one.security.is_hybrid(), kind == ChannelKind::Tls);
        assert!(STRICT.admits(&one.security).is_err());
    }
    let strict = secure(1, STRICT);
    for other in [noise(), tls()] {
        let (_, refused) = meet(other, over(&strict)).await;
        assert_eq!(fault(refused).fault, ChannelFault::HybridNotProposed);
    }
}

#[test]
fn session_secrets_are_never_written_and_sessions_never_kept() {
    let certificate = Certificate::generate(&key(1)).unwrap();
    for alpn in [ALPN_STACKED, ALPN_LIBP2P] {
        let tls = Tls::new(&certificate, HYBRID_ONLY, alpn).unwrap();
        assert!(!tls.logs_secrets());
        assert!(!tls.keeps_sessions());
    }
}
