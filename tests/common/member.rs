//! A member of the test's own at a node's gate: it holds its connection and asks what it likes.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    request_response::{Event, Message},
    swarm::SwarmEvent,
};
use quantraband::{
    identity::{
        NodeKey,
        enrolment::{Request, Response},
    },
    network::{self, NodeBehaviour, NodeBehaviourEvent},
};

use super::{Node, peer::swarm_showing};

/// Longest wait for anything.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("it happens")
}

/// Connects to a node, which must let it in, with this credential, and a continuity statement.
pub(crate) async fn connected(
    node: &Node,
    key: &NodeKey,
    credential: &[u8],
    statement: Option<&[u8]>,
) -> Swarm<NodeBehaviour> {
    let mut swarm = swarm_showing(key, credential, statement);
    let address: Multiaddr = node.address().parse().expect("an address");
    swarm.dial(address).expect("dialling");
    soon(async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await;
    swarm
}

/// A node as libp2p names it.
pub(crate) fn peer_of(node: &Node) -> libp2p::PeerId {
    let peer = node.peer_id().parse().expect("a peer id");
    network::convert::to_libp2p(&peer).expect("an Ed25519 key")
}

/// Asks the node for a credential, over the connection that stands.
pub(crate) async fn ask(
    node: &Node,
    swarm: &mut Swarm<NodeBehaviour>,
    request: Request,
) -> Response {
    let enrolment = &mut swarm.behaviour_mut().enrolment;
    enrolment.send_request(&peer_of(node), Ok(request));
    soon(async {
        loop {
            let SwarmEvent::Behaviour(NodeBehaviourEvent::Enrolment(event)) =
                swarm.select_next_some().await
            else {
                continue;
            };
            match *event {
                Event::Message {
                    message: Message::Response { response, .. },
                    ..
                } => return response,
                Event::OutboundFailure { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await
}
