//! TCP, Noise, Yamux: an authenticated, encrypted, multiplexed connection, with a deadline.
//!
//! Knows nothing of credentials; [`crate::network::gate`] is put around it.

use std::time::Duration;

use libp2p::{
    Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, tcp, yamux,
};

/// Streams one connection may have at once, both directions together. The node's protocols need
/// two each; a peer that opens more is cut off. Yamux buffers at most 256 KiB for each.
const MAX_STREAMS: usize = 128;

/// TCP (without Nagle's delay), secured by Noise with `key`, multiplexed by Yamux. A connection
/// that is not through after `handshake_timeout` is dropped.
///
/// # Errors
/// When Noise cannot make its key, which needs the operating system's randomness.
pub fn secured(
    key: &Keypair,
    handshake_timeout: Duration,
) -> Result<Boxed<(libp2p::PeerId, StreamMuxerBox)>, noise::Error> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    Ok(
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(key)?)
            .multiplex(yamux)
            .timeout(handshake_timeout)
            .boxed(),
    )
}
