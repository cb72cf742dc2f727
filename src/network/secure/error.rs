//! What goes wrong with a channel, and how to find it again inside libp2p's errors.

use std::io;

use libp2p::noise;
use thiserror::Error;

use crate::types::ChannelFault;

/// Nested errors looked through; libp2p's boxed transports add one or two.
const MAX_DEPTH: usize = 8;

/// A fault of the channel, and whom the outer layer had proved by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct ChannelError {
    /// What is wrong.
    pub fault: ChannelFault,
    /// Whom Noise or TLS proved before it went wrong.
    pub peer: Option<libp2p::PeerId>,
}

impl From<ChannelFault> for ChannelError {
    fn from(fault: ChannelFault) -> Self {
        Self { fault, peer: None }
    }
}

impl From<ChannelError> for io::Error {
    fn from(error: ChannelError) -> Self {
        Self::other(error)
    }
}

/// The channel's fault inside a transport's error, when it was the channel.
#[must_use]
pub fn fault_of(error: &io::Error) -> Option<ChannelError> {
    let mut error = error;
    for _ in 0..MAX_DEPTH {
        let inner = error.get_ref()?;
        if let Some(found) = inner.downcast_ref::<ChannelError>() {
            return Some(*found);
        }
        error = inner.downcast_ref::<io::Error>()?;
    }
    None
}

/// Why no channel can be set up at all. Each needs the system's randomness, and nothing else.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Noise could not make its key.
    #[error("Noise: {0}")]
    Noise(#[from] noise::Error),
    /// No certificate could be made.
    #[error("the TLS certificate: {0}")]
    Certificate(#[from] libp2p_tls::certificate::GenError),
    /// TLS refuses its configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
