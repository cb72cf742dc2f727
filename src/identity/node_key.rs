//! The node's keys: who this node is. `DATA/node.key`; the PeerId is the Ed25519 key's public
//! half, the ML-DSA-65 key proves over a channel that a quantum computer did not take the PeerId
//! over, and messages for this node are sealed to the X-Wing key.
//!
//! Owner: the node, which hands the Ed25519 seed to the transport. Losing the file loses the
//! identity; sharing it shares the identity. Format and checks: `key_file`.

use std::{fmt, path::Path, sync::Arc};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::{
    binding::{Channel, Role},
    cose::PublicKey,
    hybrid::{HybridPublic, HybridSigner},
    kem::{XWingKey, XWingPublic},
    key_file::{self, KeyFileError, Kind, Secrets},
    keystore::Protection,
    ml_dsa::MlDsaPublic,
    sealed::{self, OpenFault, Purpose},
};
use crate::types::PeerId;

/// The public halves of a node's keys. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePublic {
    /// The Ed25519 key, as the name of the node.
    pub peer: PeerId,
    /// The ML-DSA-65 key.
    pub ml_dsa: MlDsaPublic,
    /// The X-Wing key.
    pub x_wing: XWingPublic,
}

impl NodePublic {
    /// The keys that sign; `None` never happens, since a [`PeerId`] holds no weak key.
    #[must_use]
    pub fn signing(&self) -> Option<HybridPublic> {
        let ed25519 = PublicKey::from_bytes(&self.peer.key_bytes())?;
        Some(HybridPublic::new(ed25519, self.ml_dsa.clone()))
    }
}

/// The node's secret keys. Zeroised when dropped; never shown by `Debug`. Cheap to clone.
#[derive(Clone)]
pub struct NodeKey(Arc<Keys>);

struct Keys {
    signer: HybridSigner,
    x_wing: XWingKey,
    public: NodePublic,
}

impl NodeKey {
    /// Makes new keys and writes them to `path`, which must not exist.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that exists is never overwritten.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let secrets = Secrets::generate(Kind::Node)?;
        let key = Self::from_secrets(&secrets)?;
        key_file::create(path, Kind::Node, None, &secrets)?;
        Ok(key)
    }

    /// Reads the keys, after checking that nobody else can.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong, where, and how to mend it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_secrets(&key_file::load(path, Kind::Node)?.0)
    }

    /// Reads the keys at `path`, and those at `next` when there is such a file; makes them when
    /// `make` says so, sealed as those at `path` are. What opened the first is tried on the second.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(crate) fn with_next(
        path: &Path,
        next: &Path,
        make: bool,
    ) -> Result<(Self, Option<Self>), KeyFileError> {
        let opened = key_file::open(path, Kind::Node)?;
        let own = Self::from_secrets(&opened.secrets)?;
        if next.exists() {
            let secrets = key_file::open_like(next, Kind::Node, Some(&opened))?.secrets;
            return Ok((own, Some(Self::from_secrets(&secrets)?)));
        }
        if !make {
            return Ok((own, None));
        }
        let secrets = Secrets::generate(Kind::Node)?;
        let key = Self::from_secrets(&secrets)?;
        key_file::create_like(next, Kind::Node, &secrets, &opened)?;
        Ok((own, Some(key)))
    }

    /// Copies the file at `from`, sealed as it is, to where there must be none.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), KeyFileError> {
        key_file::copy(from, Kind::Node, to)
    }

    /// What opens the file at `path`.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn protection(path: &Path) -> Result<Protection, KeyFileError> {
        key_file::protection(path, Kind::Node)
    }

    /// Seals the file at `path` in another way.
    ///
    /// # Errors
    /// [`KeyFileError`]; then the file is as it was.
    pub fn protect(path: &Path, protection: &Protection) -> Result<(), KeyFileError> {
        key_file::protect(path, Kind::Node, protection)
    }

    /// Keys from one seed, for tests and fixtures: a node's own are independent of one another.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "for tests and fixtures; a seed of 32 bytes always makes keys"
    )]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_secrets(&Secrets::derived(seed)).expect("keys of a seed")
    }

    fn from_secrets(secrets: &Secrets) -> Result<Self, KeyFileError> {
        let library = |_| KeyFileError::Library;
        let signer =
            HybridSigner::from_seeds(&secrets.ed25519, &secrets.ml_dsa).map_err(library)?;
        let seed = secrets.x_wing.as_ref().ok_or(KeyFileError::Library)?;
        let x_wing = XWingKey::from_seed(seed);
        let public = NodePublic {
            peer: PeerId::from(&signer.ed25519().verifying_key()),
            ml_dsa: signer.public().ml_dsa().clone(),
            x_wing: x_wing.public().ok_or(KeyFileError::Library)?,
        };
        Ok(Self(Arc::new(Keys {
            signer,
            x_wing,
            public,
        })))
    }

    /// Opens a payload of at most `max` bytes that `sender` sealed to this node.
    ///
    /// # Errors
    /// [`OpenFault`].
    pub fn open(
        &self,
        bytes: &[u8],
        max: usize,
        sender: PeerId,
        purpose: Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let Keys { x_wing, public, .. } = &*self.0;
        sealed::open(bytes, max, x_wing, &public.x_wing, sender, purpose)
    }

    /// Who this node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.public.peer
    }

    /// The public halves of all keys.
    #[must_use]
    pub fn public(&self) -> &NodePublic {
        &self.0.public
    }

    /// The Ed25519 seed, for the transport's key pair.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing().to_bytes())
    }

    /// The keys that sign documents.
    #[must_use]
    pub fn signer(&self) -> &HybridSigner {
        &self.0.signer
    }

    /// Proves to the other end of `channel` that this node, which is the end of `role`, holds its
    /// ML-DSA key: a signature over what both ends alone know.
    #[must_use]
    pub fn prove(&self, channel: &Channel, role: Role) -> Vec<u8> {
        self.signer().ml_dsa().sign(&channel.statement(role))
    }

    /// The secret X-Wing key.
    #[expect(dead_code, reason = "what opens sealed messages is not built yet")]
    pub(crate) fn x_wing(&self) -> &XWingKey {
        &self.0.x_wing
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        self.signer().ed25519()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret)", self.peer())
    }
}

#[cfg(test)]
mod tests;
