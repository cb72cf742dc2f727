//! Revocation: what the gate, Swarm and the operator bring it.

use actix::Message;

use crate::{
    identity::{Refusal, status::ListReport},
    types::PeerId,
};

// Used by the identity gate.

/// The heads in the frame of a peer that proved its identity. Answered once what is news among
/// them is in force.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct ShownHeads {
    /// The peer.
    pub peer: PeerId,
    /// The heads, as in the frame.
    pub heads: Vec<u8>,
}

// Used by Swarm.

/// A peer says that these heads are news to it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AnnouncedHeads {
    /// The peer.
    pub peer: PeerId,
    /// The heads, each as it came.
    pub heads: Vec<Vec<u8>>,
}

// Used by Admin.

/// Takes a list from the operator. Answered once it is in force and on the disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<ListReport, String>")]
pub struct ImportStatusList {
    /// The list.
    pub bytes: Vec<u8>,
}

/// The lists that are known.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<ListReport>")]
pub struct ListStatusLists;
