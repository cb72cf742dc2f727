//! [`Nearby`]: multicast DNS, of which a flood is survived.
//!
//! Anybody on the wire can answer, under any name, as often as it likes, and for as long as it likes
//! to be remembered. So: what it says are hints, so many a minute; no dial of anybody else goes
//! where it says; and when more is said than any honest network has nodes, it is not listened to for
//! a while ([`Ration`]).

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    mdns,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, ListenAddresses, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::scope::{self, Scope};
use crate::types::Clock;

/// Addresses that are handed on in one [`PERIOD`].
const MAX_NEW: usize = 64;
/// What multicast DNS may remember: it looks through all of it for each record that comes.
const MAX_KNOWN: usize = 512;
/// The time in which so many are handed on, and in which nobody is listened to once there were too
/// many.
const PERIOD: Duration = Duration::from_secs(60);

/// How much is listened to. Pure: time is the clock's `elapsed`.
#[derive(Debug, Default)]
pub struct Ration {
    since: Duration,
    taken: usize,
    deaf_until: Duration,
}

impl Ration {
    /// How many of `count` new addresses are handed on.
    pub fn take(&mut self, count: usize, now: Duration) -> usize {
        if now.saturating_sub(self.since) >= PERIOD {
            self.since = now;
            self.taken = 0;
        }
        let taken = count.min(MAX_NEW.saturating_sub(self.taken));
        self.taken = self.taken.saturating_add(taken);
        taken
    }

    /// So many are remembered; whether that is too many, and nobody is listened to for a while.
    pub fn is_too_much(&mut self, known: usize, now: Duration) -> bool {
        let much = known > MAX_KNOWN;
        if much {
            self.deaf_until = now.saturating_add(PERIOD);
        }
        much
    }

    /// Whether somebody may be listened to again.
    #[must_use]
    pub fn may_listen(&self, now: Duration) -> bool {
        now >= self.deaf_until
    }
}

/// Whether an address is one that multicast reaches: of this link or of a private network, but not
/// this machine and not the internet, to whose machines everybody on the wire could point. When all
/// is believed, any that makes sense.
#[must_use]
pub fn is_near(address: &Multiaddr, believing: bool) -> bool {
    let reach = scope::first_ip(address).and_then(scope::of);
    let near = believing || reach.is_some_and(|reach| reach <= Scope::Site);
    let least = match believing {
        true => Scope::Machine,
        false => Scope::Link,
    };
    near && scope::is_sane(address, least)
}

/// See the module.
pub struct Nearby {
    /// While it is listened to.
    inner: Option<mdns::tokio::Behaviour>,
    me: libp2p::PeerId,
    /// What a new one has to be told.
    listening: ListenAddresses,
    ration: Ration,
    clock: Arc<dyn Clock>,
}

impl Nearby {
    /// Looks for others, and tells them of this node.
    ///
    /// # Errors
    /// When the machine does not tell of its networks.
    pub fn new(me: libp2p::PeerId, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Self {
            inner: Some(mdns::tokio::Behaviour::new(mdns::Config::default(), me)?),
            me,
            listening: ListenAddresses::default(),
            ration: Ration::default(),
            clock,
        })
    }

    /// Listens again, after a time of not listening. It begins from nothing.
    fn listen_again(&mut self, now: Duration) {
        match mdns::tokio::Behaviour::new(mdns::Config::default(), self.me) {
            Ok(mut inner) => {
                for address in self.listening.iter() {
                    inner.on_swarm_event(FromSwarm::NewListenAddr(
                        libp2p::swarm::behaviour::NewListenAddr {
                            listener_id: libp2p::core::transport::ListenerId::next(),
                            addr: address,
                        },
                    ));
                }
                self.inner = Some(inner);
            }
            Err(error) => {
                tracing::warn!(%error, "multicast DNS is not to be had");
                self.ration.is_too_much(usize::MAX, now);
            }
        }
    }
}

impl NetworkBehaviour for Nearby {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = mdns::Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    /// Knows addresses, but adds none to dials of others: they were judged without them.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<libp2p::PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        if let Some(inner) = &mut self.inner {
            inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: libp2p::PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<mdns::Event, THandlerInEvent<Self>>> {
        let now = self.clock.elapsed();
        // The Swarm is polled many times a minute, whatever happens.
        if self.inner.is_none() && self.ration.may_listen(now) {
            self.listen_again(now);
        }
        loop {
            let Some(inner) = &mut self.inner else {
                return Poll::Pending;
            };
            let Poll::Ready(action) = inner.poll(cx) else {
                return Poll::Pending;
            };
            let known = inner.discovered_nodes().len();
            if self.ration.is_too_much(known, now) {
                tracing::warn!(known, "too much multicast DNS: not listened to for a while");
                self.inner = None;
                return Poll::Pending;
            }
            // Everything else is about addresses that would go round the judge of dials.
            if let ToSwarm::GenerateEvent(mdns::Event::Discovered(mut found)) = action {
                found.truncate(self.ration.take(found.len(), now));
                if !found.is_empty() {
                    let event: mdns::Event = mdns::Event::Discovered(found);
                    return Poll::Ready(ToSwarm::<_, Infallible>::GenerateEvent(event));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_names_is_a_trickle_of_hints() {
        let mut ration = Ration::default();
        let mut taken = 0;
        for second in 0..600 {
            let now = Duration::from_secs(second);
            taken += (0..10).map(|_| ration.take(100, now)).sum::<usize>();
        }
        assert_eq!(taken, 10 * MAX_NEW);
        assert_eq!(ration.take(3, PERIOD * 20), 3);
    }

    #[test]
    fn who_shouts_is_not_listened_to_for_a_while() {
        let mut ration = Ration::default();
        assert!(ration.may_listen(Duration::ZERO));
        assert!(!ration.is_too_much(MAX_KNOWN, Duration::ZERO));
        assert!(ration.is_too_much(MAX_KNOWN + 1, Duration::ZERO));
        assert!(!ration.may_listen(PERIOD / 2));
        assert!(ration.may_listen(PERIOD));
    }

    #[test]
    fn nobody_on_the_wire_points_at_the_internet_or_at_this_machine() {
        for (text, near) in [
            ("/ip4/10.0.0.1/tcp/1", true),
            ("/ip4/169.254.3.4/udp/1/quic-v1", true),
            ("/ip6/fe80::1/tcp/1", true),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/ip4/8.8.8.8/tcp/1", false),
            ("/dns4/example.org/tcp/1", false),
            ("/ip4/224.0.0.1/tcp/1", false),
        ] {
            let address = text.parse().unwrap();
            assert_eq!(is_near(&address, false), near, "{text}");
        }
        for (text, near) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip4/8.8.8.8/tcp/1", true),
            ("/ip4/224.0.0.1/tcp/1", false),
        ] {
            let address = text.parse().unwrap();
            assert_eq!(is_near(&address, true), near, "{text}");
        }
    }

    #[tokio::test]
    async fn dials_of_others_are_not_led_anywhere() {
        let me = libp2p::PeerId::random();
        let clock = Arc::new(crate::types::ManualClock::default());
        let mut nearby = Nearby::new(me, clock).unwrap();
        let id = ConnectionId::new_unchecked(1);
        let added = nearby.handle_pending_outbound_connection(id, Some(me), &[], Endpoint::Dialer);
        assert_eq!(added.unwrap(), Vec::<Multiaddr>::new());
    }
}
