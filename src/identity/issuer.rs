//! The issuer: an organisation's key that signs credentials, kept apart from any node.
//!
//! `DIR/issuer.key` is secret; `DIR/NAME.anchor` is handed to whoever shall trust the issuer.
//! Owner: the operator, through the commands; no running node ever reads it. Format and checks
//! of the key file: `key_file`.

use std::{fmt, path::Path};

use ed25519_dalek::SigningKey;

use super::{
    Name,
    cose::PublicKey,
    key_file::{self, KeyFileError, Kind},
};

/// File name of the issuer's secret key in its directory.
pub const ISSUER_KEY_FILE: &str = "issuer.key";

/// An issuer's secret key and name. Zeroised when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct IssuerKey {
    name: Name,
    key: SigningKey,
}

impl IssuerKey {
    /// Makes a new issuer key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that exists is never overwritten.
    pub fn create(path: &Path, name: Name) -> Result<Self, KeyFileError> {
        let key = key_file::generate()?;
        key_file::create(path, Kind::Issuer, Some(name.as_str()), &key)?;
        Ok(Self { name, key })
    }

    /// Reads the key, after checking that nobody else can.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong, where, and how to mend it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let (key, name) = key_file::load(path, Kind::Issuer)?;
        let name = Name::try_new(&name).map_err(|_| KeyFileError::Content {
            path: path.into(),
            line: 2,
            wanted: "expected the issuer's name: 1 to 64 of a-z 0-9 . _ -",
        })?;
        Ok(Self { name, key })
    }

    /// An issuer from its seed, for tests and fixtures.
    #[must_use]
    pub fn from_seed(name: Name, seed: &[u8; 32]) -> Self {
        Self {
            name,
            key: SigningKey::from_bytes(seed),
        }
    }

    /// The issuer's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::of(&self.key)
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.key
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
