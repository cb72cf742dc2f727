//! What each secure channel costs to open, beside Noise alone, and what the gate adds.
//!
//! All channels are measured in turns in one run on loopback, client and server in this process;
//! the ratio to Noise is the result. With the gate, both keepers answer at once: what remains is
//! the gate's own stream, nonces and frames. `cargo bench --bench handshake [ROUNDS]`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures with the machine's clock, and may stop at the first \
              surprise"
)]

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    tcp, tls, yamux,
};
use quantraband::{
    audit::Direction,
    config::Config,
    identity::{Channel, Refusal, Role, Tier},
    network::{
        Admitted, GateKeeper, Presented, convert,
        gate::{Gated, Ledger, Rules},
        secure::{Policy, Secure, Secured, SecurityLevel, StreamLimits},
    },
    types::{ChannelKind, Cipher, Group, PeerId, SecurityInfo, SystemClock},
};

/// Handshakes of each kind, when the command line names no other number.
const ROUNDS: usize = 200;
/// Handshakes before any is counted.
const WARM: usize = 5;
const DEADLINE: Duration = Duration::from_secs(30);
/// A frame as long as one with a credential of two signatures and a proof of possession.
const FRAME: usize = 8 * 1024;

type Wire = Boxed<(libp2p::PeerId, StreamMuxerBox)>;

/// Accepts everybody at once.
struct Open(Arc<[u8]>);

impl GateKeeper for Open {
    fn own_frame(&self, _: &Channel, _: Role) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }
    fn precheck(&self, _: &PeerId, _: Option<IpAddr>) -> Result<(), Refusal> {
        Ok(())
    }
    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        self.judge_open(presented.peer, presented.ip, presented.security)
    }
    fn judge_open(
        &self,
        peer: PeerId,
        _: Option<IpAddr>,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let admitted = Admitted {
            peer,
            tier: Tier::Member,
            identity: None,
            invitation: None,
            formerly: None,
            rule: "bench".to_owned(),
            security,
            epoch: 0,
        };
        futures::future::ok(admitted).boxed()
    }
    fn refused(&self, peer: &PeerId, _: Option<IpAddr>, _: Direction, refusal: &Refusal) {
        panic!("{peer} was refused: {refusal}");
    }
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

/// The node's own transport, or one that dials with libp2p's TLS and nothing else.
fn end(seed: u8, policy: Option<&Policy>, gate: bool) -> Wire {
    let key = key(seed);
    let policy = policy.cloned();
    let secured = match policy.clone() {
        Some(policy) => {
            let secure = Secure::new(&key, policy).unwrap();
            secure.transport(&key, DEADLINE)
        }
        None => tls_only(&key),
    };
    let policy = policy.unwrap_or_default();
    if !gate {
        return secured.map(|one, _| (one.peer, one.muxer)).boxed();
    }
    let rules = Rules {
        me: convert::from_libp2p(&key.public().to_peer_id()).unwrap(),
        policy,
        keeper: Arc::new(Open(vec![7; FRAME].into())),
        deadline: DEADLINE,
        streams: StreamLimits::from(&Config::default().limits),
        clock: Arc::new(SystemClock::new()),
    };
    Gated::new(secured, Ledger::default(), rules).boxed()
}

fn tls_only(key: &Keypair) -> Boxed<Secured> {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(tls::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| Secured {
            peer,
            security: SecurityInfo {
                kind: ChannelKind::Tls,
                group: Group::X25519MlKem768,
                cipher: Cipher::Aes256Gcm,
            },
            exporter: None,
            muxer: StreamMuxerBox::new(muxer),
            window: None,
        })
        .boxed()
}

/// One kind of connection, both ends ready.
struct Kind {
    name: &'static str,
    client: Wire,
    address: Multiaddr,
    times: Vec<f64>,
}

impl Kind {
    async fn new(
        name: &'static str,
        policies: [Option<&Policy>; 2],
        listen: &str,
        gate: bool,
    ) -> Self {
        let mut server = end(1, policies[0], gate);
        server
            .listen_on(ListenerId::next(), listen.parse().unwrap())
            .unwrap();
        let event = poll_fn(|cx| Pin::new(&mut server).poll(cx)).await;
        let TransportEvent::NewAddress { listen_addr, .. } = event else {
            panic!("{name}: the server does not listen");
        };
        tokio::spawn(serve(server));
        let peer = key(1).public().to_peer_id();
        Self {
            name,
            client: end(2, policies[1], gate),
            address: convert::with_p2p(&listen_addr, peer),
            times: Vec::new(),
        }
    }

    async fn once(&mut self) -> f64 {
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let start = Instant::now();
        let dial = self.client.dial(self.address.clone(), opts).unwrap();
        let (_, mut muxer) = dial.await.unwrap();
        let took = start.elapsed().as_secs_f64() * 1e3;
        let close = poll_fn(|cx| muxer.poll_close_unpin(cx));
        // What becomes of the connection afterwards is not measured.
        let _ = tokio::time::timeout(Duration::from_millis(100), close).await;
        took
    }
}

/// Accepts connections, and holds each until the client closes it.
async fn serve(mut server: Wire) {
    loop {
        let upgrade = poll_fn(|cx| match Pin::new(&mut server).poll(cx) {
            Poll::Ready(TransportEvent::Incoming { upgrade, .. }) => Poll::Ready(Some(upgrade)),
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let Some(upgrade) = upgrade.await else {
            continue;
        };
        tokio::spawn(async move {
            if let Ok((_, mut muxer)) = upgrade.await {
                // QUIC shows the end of a connection in its streams only.
                let gone = poll_fn(|cx| {
                    let inbound = muxer.poll_inbound_unpin(cx);
                    match (inbound, muxer.poll_unpin(cx)) {
                        (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
                        _ => Poll::Pending,
                    }
                });
                gone.await;
            }
        });
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    *times.get(times.len() / 2).unwrap()
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(ROUNDS);
    let (tcp, quic) = ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1");
    let classic = &Policy::from(SecurityLevel::Classic);
    let strict = &Policy::from(SecurityLevel::RequireHybrid);
    let (classic, strict) = (Some(classic), Some(strict));
    println!("{rounds} handshakes of each kind, in turns; milliseconds, median");
    let mut bare: Vec<f64> = Vec::new();
    for gate in [false, true] {
        let mut kinds = vec![
            Kind::new("noise", [classic, classic], tcp, gate).await,
            Kind::new("tls", [classic, None], tcp, gate).await,
            Kind::new("stacked", [strict, strict], tcp, gate).await,
            Kind::new("quic", [classic, classic], quic, gate).await,
        ];
        for round in 0..rounds + WARM {
            for kind in &mut kinds {
                let took = kind.once().await;
                if round >= WARM {
                    kind.times.push(took);
                }
            }
        }
        let title = if gate {
            "with the gate"
        } else {
            "without the gate"
        };
        println!(
            "\n{:>10} {:>8} {:>8} {:>8}   {title}",
            "channel", "ms", "ratio", "gate"
        );
        let mut noise = None;
        for (index, kind) in kinds.iter_mut().enumerate() {
            let took = median(&mut kind.times);
            let ratio = took / *noise.get_or_insert(took);
            // What the gate adds to the same channel, measured just before.
            let added = match bare.get(index) {
                Some(bare) => format!("{:+.3}", took - bare),
                None => String::new(),
            };
            println!("{:>10} {took:>8.3} {ratio:>8.2} {added:>8}", kind.name);
            if !gate {
                bare.push(took);
            }
        }
    }
}
