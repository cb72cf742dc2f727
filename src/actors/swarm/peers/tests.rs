//! Who is thrown out stays out.

use super::*;
use crate::{
    identity::{
        Tier,
        testing::{mallory, node},
    },
    types::{ChannelKind, Cipher, Group},
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn admitted(peer: PeerId) -> Arc<Admitted> {
    Arc::new(Admitted {
        peer,
        tier: Tier::Unverified,
        identity: None,
        invitation: None,
        formerly: None,
        rule: "test".to_owned(),
        security: SecurityInfo {
            kind: ChannelKind::Noise,
            group: Group::X25519,
            cipher: Cipher::ChaCha20Poly1305,
        },
        epoch: 0,
    })
}

impl Peers {
    fn arrive(&mut self, peer: PeerId, id: usize) -> Arrival {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let id = ConnectionId::new_unchecked(id);
        self.connected(admitted(peer), id, (address, None), Direction::Inbound, NOW)
    }

    fn leave(&mut self, peer: &PeerId, id: usize) -> bool {
        self.closed(peer, ConnectionId::new_unchecked(id)).is_some()
    }
}

#[test]
fn a_connection_that_is_made_while_its_peer_is_thrown_out_keeps_nobody_in() {
    let (peer, other) = (node().peer(), mallory().peer());
    let nobody = |_: PeerId, _: &Peer| None;
    let mut peers = Peers::default();
    assert_eq!(peers.arrive(peer, 1), Arrival::First);
    assert_eq!(peers.arrive(peer, 2), Arrival::Another);
    assert_eq!(peers.arrive(other, 3), Arrival::First);
    let banned = |who: PeerId, _: &Peer| (who == peer).then_some("banned");
    assert_eq!(peers.doomed(banned), [(peer, "banned")]);
    peers.close(&peer, "banned");
    // Its next one was on its way, and the gate had let it in before.
    assert_eq!(peers.arrive(peer, 4), Arrival::Unwelcome);
    assert!(!peers.leave(&peer, 1) && !peers.leave(&peer, 2));
    // Whatever became of that: as long as it is here it is closed again, also by a review that finds
    // nothing against it any more.
    assert_eq!(peers.arrive(peer, 5), Arrival::Unwelcome);
    assert_eq!(peers.doomed(nobody), [(peer, "banned")]);
    assert!(!peers.leave(&peer, 4) && peers.leave(&peer, 5));
    // It is gone. Whether it may come again is for the gate to say, and nothing of this is left.
    assert!(peers.doomed(nobody).is_empty());
    assert_eq!(peers.arrive(peer, 6), Arrival::First);
    assert_eq!(
        peers.arrive(other, 7),
        Arrival::Another,
        "nobody else noticed"
    );
}
