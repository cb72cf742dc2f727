//! The node's key: who this node is. `DATA/node.key`, Ed25519; the PeerId is its public half.
//!
//! Owner: the node, which hands the seed to the transport. Losing the file loses the identity;
//! sharing it shares the identity. Format and checks: `key_file`.

use std::{fmt, path::Path};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::key_file::{self, KeyFileError, Kind};
use crate::types::PeerId;

/// The node's secret key. Zeroised when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// Makes a new key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that exists is never overwritten.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let key = key_file::generate()?;
        key_file::create(path, Kind::Node, None, &key)?;
        Ok(Self(key))
    }

    /// Reads the key, after checking that nobody else can.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong, where, and how to mend it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Ok(Self(key_file::load(path, Kind::Node)?.0))
    }

    /// A key from its seed, for tests and fixtures.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Who this node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId::from(&self.0.verifying_key())
    }

    /// The seed, for the transport's key pair.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret)", self.peer())
    }
}

#[cfg(test)]
mod tests;
