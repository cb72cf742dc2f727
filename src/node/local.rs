//! What a program that runs a node inside itself may ask of it: to publish and to listen, by the
//! same rules as everybody.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    actors::swarm::SwarmActor,
    messages::swarm::{
        Delivered, DescribeSwarm, ListPeers, PeerReport, PublishFault, PublishMany, PublishedMany,
        Subscribe, SwarmReport,
    },
    supervision::{ActorRef, AskError},
    types::{PeerId, Topic},
};

/// How long the node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running node, from within its process. Cheap to clone; it does not keep the node running.
#[derive(Debug, Clone)]
pub struct Local {
    pub(super) peer: PeerId,
    pub(super) swarm: ActorRef<SwarmActor>,
}

impl Local {
    /// The node's peer id.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Publishes messages in order; answered when the last that was accepted was handed to the
    /// network. See [`PublishMany`].
    ///
    /// # Errors
    /// [`AskError`] when the network actor did not answer; what of it left is unknown then.
    pub async fn publish(
        &self,
        topic: &Topic,
        payloads: Vec<Vec<u8>>,
    ) -> Result<PublishedMany, AskError> {
        let publish = PublishMany {
            topic: topic.clone(),
            payloads,
            seal_to: Vec::new(),
        };
        self.swarm.ask(publish, DEADLINE).await
    }

    /// Delivers a topic's messages into `sink` until its receiver is dropped or the network actor
    /// is restarted. What does not fit is counted and told.
    ///
    /// # Errors
    /// [`AskError`] when the network actor did not answer.
    pub async fn subscribe(
        &self,
        topic: &Topic,
        sink: mpsc::Sender<Delivered>,
    ) -> Result<Result<(), PublishFault>, AskError> {
        let topic = topic.clone();
        self.swarm.ask(Subscribe { topic, sink }, DEADLINE).await
    }

    /// The connected peers.
    ///
    /// # Errors
    /// [`AskError`] when the network actor did not answer.
    pub async fn peers(&self) -> Result<Vec<PeerReport>, AskError> {
        self.swarm.ask(ListPeers, DEADLINE).await
    }

    /// Where the node listens.
    ///
    /// # Errors
    /// [`AskError`] when the network actor did not answer.
    pub async fn describe(&self) -> Result<SwarmReport, AskError> {
        self.swarm.ask(DescribeSwarm, DEADLINE).await
    }
}
