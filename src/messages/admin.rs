//! Admin: commands that come from afar.

use actix::Message;

use crate::{
    admin::protocol::{Request, Response},
    types::PeerId,
};

// Used by Swarm, which has judged it and written the decision down.

/// A command of a peer that may administer this node.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Response")]
pub struct RemoteCommand {
    /// The peer.
    pub peer: PeerId,
    /// The command.
    pub command: Request,
}
