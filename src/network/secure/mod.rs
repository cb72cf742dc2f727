//! The secure channel: what is offered, what is accepted, and the proof of what came of it.
//!
//! Over TCP and over relayed circuits four layers may be chosen from, by multistream-select in the
//! clear: TLS 1.3 with ML-KEM inside Noise ([`ChannelKind::Stacked`]), `/noise`, `/tls/1.0.0`; QUIC
//! brings its own. Whatever it is, its outcome is a [`Secured`]: the peer, a [`SecurityInfo`] taken
//! from the handshake itself, and the muxer. The gate consumes the proof; a connection without one
//! cannot be admitted, because an admission cannot be written down without it.
//!
//! Invariants:
//! - on the stacked channel both layers proved the same peer, the key exchange was X25519MLKEM768,
//!   and the protocol inside was agreed on, before a byte of application data is sent or read;
//! - no session is resumed, and no session secret is written anywhere;
//! - an active attacker can strip the choice down to `/noise`: only [`SecurityLevel::RequireHybrid`]
//!   stops that, for the whole node or for single peers ([`Policy`]).
//!
//! When anything fails the connection ends, with a [`ChannelFault`] when it is known why.

mod bounded;
mod error;
mod muxer;
mod policy;
mod tls;
mod transport;
mod upgrade;

pub use crate::types::{
    ChannelFault, ChannelKind, Cipher, Group, Layer, SecurityInfo, SecurityLevel,
};
pub use bounded::{Bounded, FEWEST_STREAMS, Limits, OnBreach, StreamLimits};
pub use error::{ChannelError, SetupError, fault_of};
pub use muxer::{Breach, CONNECTION_WINDOW, Frames, MAX_STREAMS, STRANGER_WINDOW, Window};
pub use policy::Policy;
pub use transport::{QUIC_CONNECTION_WINDOW, QUIC_STREAM_WINDOW};
pub use upgrade::Secure;

use libp2p::core::muxing::StreamMuxerBox;

use crate::identity::BINDING_BYTES;

/// A connection that is encrypted, authenticated and multiplexed, and the proof of it.
pub struct Secured {
    /// The peer, as every layer proved it.
    pub peer: libp2p::PeerId,
    /// What was negotiated.
    pub security: SecurityInfo,
    /// The TLS exporter of the stacked channel (RFC 9266); other channels have none.
    pub exporter: Option<[u8; BINDING_BYTES]>,
    /// The connection.
    pub muxer: StreamMuxerBox,
    /// Widens the connection once its peer is accepted, where the muxer is this node's own.
    pub window: Option<Window>,
}

#[cfg(test)]
mod tests;
