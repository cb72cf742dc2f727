//! The issuer: an organisation's keys that sign credentials, kept apart from any node.
//!
//! `DIR/issuer.key` is secret; `DIR/NAME.anchor` is handed to whoever shall trust the issuer.
//! Owner: the operator, through the commands; no running node ever reads it. Format and checks
//! of the key file: `key_file`.

use std::{fmt, path::Path};

use super::{
    Name,
    hybrid::{HybridPublic, HybridSigner},
    key_file::{self, KeyFileError, Kind, Secrets},
    keystore::Protection,
};

/// File name of the issuer's secret key in its directory.
pub const ISSUER_KEY_FILE: &str = "issuer.key";

/// An issuer's secret keys and name. Zeroised when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct IssuerKey {
    name: Name,
    signer: HybridSigner,
}

impl IssuerKey {
    /// Makes a new issuer key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that exists is never overwritten.
    pub fn create(path: &Path, name: Name) -> Result<Self, KeyFileError> {
        let secrets = Secrets::generate(Kind::Issuer)?;
        let key = Self::from_secrets(name, &secrets)?;
        key_file::create(path, Kind::Issuer, Some(key.name.as_str()), &secrets)?;
        Ok(key)
    }

    /// Reads the key, after checking that nobody else can.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong, where, and how to mend it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let (secrets, name) = key_file::load(path, Kind::Issuer)?;
        let name = Name::try_new(&name).map_err(|_| KeyFileError::Content {
            path: path.into(),
            line: 2,
            wanted: "expected the issuer's name: 1 to 64 of a-z 0-9 . _ -",
        })?;
        Self::from_secrets(name, &secrets)
    }

    /// What opens the file at `path`.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn protection(path: &Path) -> Result<Protection, KeyFileError> {
        key_file::protection(path, Kind::Issuer)
    }

    /// Seals the file at `path` in another way.
    ///
    /// # Errors
    /// [`KeyFileError`]; then the file is as it was.
    pub fn protect(path: &Path, protection: &Protection) -> Result<(), KeyFileError> {
        key_file::protect(path, Kind::Issuer, protection)
    }

    /// An issuer from one seed, for tests and fixtures.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "for tests and fixtures; a seed of 32 bytes always makes keys"
    )]
    pub fn from_seed(name: Name, seed: &[u8; 32]) -> Self {
        Self::from_secrets(name, &Secrets::derived(seed)).expect("keys of a seed")
    }

    fn from_secrets(name: Name, secrets: &Secrets) -> Result<Self, KeyFileError> {
        let signer = HybridSigner::from_seeds(&secrets.ed25519, &secrets.ml_dsa)
            .map_err(|_| KeyFileError::Library)?;
        Ok(Self { name, signer })
    }

    /// The issuer's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The public halves.
    #[must_use]
    pub fn public(&self) -> &HybridPublic {
        self.signer.public()
    }

    /// The keys that sign.
    #[must_use]
    pub fn signer(&self) -> &HybridSigner {
        &self.signer
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({}, secret)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeKey;

    #[test]
    fn an_issuer_key_reads_back_and_is_no_node_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ISSUER_KEY_FILE);
        let made = IssuerKey::create(&path, Name::try_new("acme").unwrap()).unwrap();
        let read = IssuerKey::load(&path).unwrap();
        assert_eq!((read.name(), read.public()), (made.name(), made.public()));
        assert!(
            NodeKey::load(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("acme", "Acme Inc")).unwrap();
        assert!(
            IssuerKey::load(&path)
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
    }
}
