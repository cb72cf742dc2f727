//! The identity gate: both sides show credentials before the Swarm knows of the connection.
//!
//! [`Gated`] is the outermost transport. Once the secure channel and the muxer stand, and still
//! inside the upgrade, the two ends exchange credential frames and verdicts on one stream
//! (`/quantraband/gate/2`). The peer is handed on only when *both* accepted; what the
//! [`GateKeeper`] said is filed in the [`Ledger`] under the connection's id, and
//! [`crate::network::admission`] denies any connection that has no such record.
//!
//! Invariants:
//! - no stream other than the gate's is served before this node accepted the peer; one that is
//!   opened earlier ends the connection;
//! - everything read is bounded in size, everything awaited is bounded in time;
//! - no answer is a refusal.
//!
//! What ties a proof of possession to the connection is its [`Channel`]: the TLS exporter of the
//! stacked channel, or else a fresh nonce of each side, exchanged first ([`Message::Hello`]). With
//! nonces the listener's frame can follow its nonce at once; the opener's comes a round trip later.
//!
//! The gate consumes the transport's [`SecurityInfo`]: it holds the peer to the configured
//! [`Policy`](crate::network::secure::Policy) before anything else, and writes the proof into the
//! [`Admitted`] record. No proof, no record; no record, no connection.
//!
//! Both sides show their credential before they judge the other's: whoever can open a connection
//! learns this node's issuer and subject. That is a choice: one of the two must go first, and
//! the dialler cannot be asked to trust more than the listener.

mod drive;
mod exchange;
mod gated;
mod ledger;
pub mod wire;

use std::{net::IpAddr, sync::Arc};

use futures::future::BoxFuture;

use crate::{
    audit::Direction,
    identity::{Channel, Refusal, Role, Tier, VerifiedIdentity, invitation::InvitationId},
    network::secure::Breach,
    types::{PeerId, SecurityInfo},
};

pub use gated::{
    GateError, Gated, HANDSHAKE_FAILED, HANDSHAKE_TIMEOUT, Rules, inbound_failure, refusal_of,
};
pub use ledger::Ledger;
pub use wire::{MAX_FRAME, Message, NONCE, PROTOCOL, Verdict, WireError};

/// What the gate asks of the node. Called from connection tasks, many at once.
pub trait GateKeeper: Send + Sync + 'static {
    /// The credential frame this node presents over `channel`, of which it is the end of `role`;
    /// at most [`MAX_FRAME`] bytes. It carries a proof made for this channel alone.
    fn own_frame(&self, channel: &Channel, role: Role) -> Arc<[u8]>;

    /// Bans and cool-downs, right after the peer's key was proved and before anything is read
    /// from it. Answers from published views: it runs on the connection's task.
    ///
    /// # Errors
    /// Why this peer is not even heard.
    fn precheck(&self, peer: &PeerId, ip: Option<IpAddr>) -> Result<(), Refusal>;

    /// Judges what the peer presented: credential, access decision, durable record. The gate
    /// bounds how long it waits; no answer is a refusal. May be asked twice by racing dials.
    fn judge(&self, presented: Presented) -> BoxFuture<'static, Result<Admitted, Refusal>>;

    /// Judges a peer of an open listener, who shows no credential.
    fn judge_open(
        &self,
        peer: PeerId,
        ip: Option<IpAddr>,
        security: SecurityInfo,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>>;

    /// Judges a renewed chain that a peer shows over a connection that stands: of the same keys,
    /// issuer and subject as `known`, whose possession it proved when it connected. `ip` is where
    /// that connection comes from.
    fn judge_renewed(
        &self,
        known: Arc<Admitted>,
        ip: Option<IpAddr>,
        chain: Vec<u8>,
    ) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        drop((known, ip, chain));
        Box::pin(futures::future::ready(Err(Refusal::Unavailable(
            "renewal is not served here",
        ))))
    }

    /// Told once for each exchange that failed, whichever side refused, before the other side
    /// learns of it; and for a secure channel that failed once it is known with whom (for a dial,
    /// whom it was meant to reach). Must not block.
    fn refused(&self, peer: &PeerId, ip: Option<IpAddr>, direction: Direction, refusal: &Refusal);

    /// Told once of an accepted peer's connection that ends because the peer went over a bound
    /// that no honest one reaches. Must not block.
    fn breached(&self, peer: &PeerId, ip: Option<IpAddr>, breach: Breach) {
        let _ = (peer, ip, breach);
    }

    /// Requests a second, and at once, that an accepted peer may make now; each takes a stream,
    /// so a connection allows as many streams. Asked for each stream.
    fn request_rates(&self) -> (u32, u32) {
        (0, 0)
    }
}

/// What a peer presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The key the connection proved.
    pub peer: PeerId,
    /// The remote address, when it has an IP of its own.
    pub ip: Option<IpAddr>,
    /// Who opened the connection.
    pub direction: Direction,
    /// The credential frame as received, at most [`MAX_FRAME`] bytes.
    pub frame: Vec<u8>,
    /// What a proof of possession in the frame must be about.
    pub channel: Channel,
    /// Which end this node is.
    pub role: Role,
    /// How the connection is encrypted.
    pub security: SecurityInfo,
}

/// A peer that was let in, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The peer.
    pub peer: PeerId,
    /// What its identity is worth.
    pub tier: Tier,
    /// Its verified identity; `None` on an open listener.
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// The invitation whose secret it proved, for [`Tier::Invited`].
    pub invitation: Option<InvitationId>,
    /// Who it was, when it showed that it goes on with other keys than its first.
    pub formerly: Option<PeerId>,
    /// The rule that let it in.
    pub rule: String,
    /// How the connection is encrypted, as the transport proved it.
    pub security: SecurityInfo,
    /// The epoch of this node's trust at which the identity was judged.
    pub epoch: u64,
}
