//! Sealed messages: whom a name stands for, and what this node may read.
//!
//! Keys come from credentials that were verified here, of peers that are connected or were: a key
//! that nobody vouches for is never sealed to.

use actix::{Context, Handler};

use super::SwarmActor;
use crate::{
    identity::sealed::{self, OpenFault, Purpose, SealTo, XWingPublic},
    messages::swarm::{GetSealingKey, PublishFault, SealingKey},
    network::Entry,
    types::{PeerId, Topic},
};

impl Handler<GetSealingKey> for SwarmActor {
    type Result = Result<SealingKey, PublishFault>;

    fn handle(&mut self, ask: GetSealingKey, _: &mut Context<Self>) -> Self::Result {
        let sender = self.me;
        let peer = ask.peer.unwrap_or(sender);
        let key = if peer == sender {
            self.tools.key.public().x_wing.clone()
        } else {
            let mut keys = self.recipients(&[SealTo::Peer(peer)])?;
            keys.pop()
                .ok_or_else(|| PublishFault::Failed("no key".to_owned()))?
        };
        Ok(SealingKey { sender, peer, key })
    }
}

impl SwarmActor {
    /// The keys behind the names; each name must stand for somebody.
    fn recipients(&self, names: &[SealTo]) -> Result<Vec<XWingPublic>, PublishFault> {
        let own = self.tools.own.load();
        let mut keys = Vec::new();
        for name in names {
            let before = keys.len();
            let known = self.peers.identities().chain(own.identity.as_deref());
            let meant = known.filter(|identity| match name {
                SealTo::Peer(peer) => identity.peer == *peer,
                SealTo::Group(group) => identity.groups.contains(group),
            });
            let public = meant.filter_map(|identity| Some(identity.keys.as_ref()?.x_wing.clone()));
            keys.extend(public);
            if keys.len() == before {
                return Err(PublishFault::Denied(format!(
                    "seal.unknown: no peer that is or was connected is `{name}`, or none showed a \
                     credential with a key to seal to"
                )));
            }
        }
        Ok(keys)
    }

    /// Seals a payload for a topic to whom the names stand for.
    pub(super) fn seal(
        &self,
        topic: &Topic,
        payload: &[u8],
        names: &[SealTo],
    ) -> Result<Vec<u8>, PublishFault> {
        let keys = self.recipients(names)?;
        let purpose = Purpose::Message(topic.as_str());
        sealed::seal(payload, &keys, self.me, purpose)
            .map_err(|fault| PublishFault::Failed(fault.to_string()))
    }

    /// What a message says to this node; `None` when it is not for it.
    pub(super) fn readable(
        &self,
        topic: &Topic,
        author: PeerId,
        entry: &mut Entry,
    ) -> Option<Vec<u8>> {
        let payload = std::mem::take(&mut entry.payload);
        if !entry.sealed {
            return Some(payload);
        }
        let limit = self.tools.config.limits.max_message_size.as_usize();
        let purpose = Purpose::Message(topic.as_str());
        match self.tools.key.open(&payload, limit, author, purpose) {
            Ok(opened) => Some(opened.to_vec()),
            Err(OpenFault::NotForUs) => {
                self.tools.metrics.message_refused("sealed_to_others");
                None
            }
            Err(fault) => {
                tracing::info!(peer = %author, %topic, %fault, "a sealed message does not open");
                self.tools.metrics.message_refused("sealed_wrong");
                None
            }
        }
    }
}
