//! Keys that verify notes: name, key id, what the signature is of.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{MAX_NAME, Note, Signature, base64, is_name};
use crate::{
    identity::{ML_DSA_PUBLIC_BYTES, MlDsaPublic, NodeKey, NodePublic, PublicKey},
    types::{PeerId, Timestamp},
};

/// Most keys of a file: a log's two, and those it had before it changed its keys.
const MAX_KEYS: usize = 64;
/// Longest verifier key: name, id, and a key of ML-DSA-65 behind its identifier in base 64.
const MAX_KEY_TEXT: usize = MAX_NAME + 16 + (ML_DSA_PUBLIC_BYTES + 64) * 4 / 3;

/// What a signature is of, and with which algorithm: C2SP's signature types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The log's own, Ed25519 over the note's text.
    Log,
    /// The log's own, ML-DSA-65 over the same bytes.
    LogMlDsa,
    /// A witness's, Ed25519 with a time: `cosignature/v1`.
    Witness,
    /// A witness's, ML-DSA-65 over the same bytes.
    WitnessMlDsa,
}

/// The kinds a log signs with.
pub(in crate::audit) const SIGNING_KINDS: [Kind; 2] = [Kind::Log, Kind::LogMlDsa];

impl Kind {
    const ALL: [Self; 4] = [Self::Log, Self::LogMlDsa, Self::Witness, Self::WitnessMlDsa];

    #[cfg(test)]
    pub(in crate::audit) const ALL_FOR_TESTS: [Self; 4] = Self::ALL;

    /// The signature type. C2SP gave ML-DSA-44 a byte (0x06) and ML-DSA-65 none; for those without
    /// one it has 0xff, followed by a longer identifier.
    fn identifier(self) -> &'static [u8] {
        match self {
            Self::Log => &[0x01],
            Self::Witness => &[0x04],
            Self::LogMlDsa => b"\xffquantraband/note/ml-dsa-65/v1",
            Self::WitnessMlDsa => b"\xffquantraband/cosignature/ml-dsa-65/v1",
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Log | Self::Witness => 32,
            Self::LogMlDsa | Self::WitnessMlDsa => ML_DSA_PUBLIC_BYTES,
        }
    }

    /// Whether its signatures carry the time they were made at.
    fn is_dated(self) -> bool {
        matches!(self, Self::Witness | Self::WitnessMlDsa)
    }
}

/// Why a text is no verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadKey {
    /// Not `name+id+key`.
    #[error("it is not of the form NAME+ID+KEY, as `quantraband audit key` prints it")]
    Form,
    /// Of a kind that is not known here, or of the wrong length.
    #[error("its key is of a kind that is not known here, or of the wrong length")]
    Kind,
    /// No valid key, or a weak one.
    #[error("its key is invalid or weak")]
    Key,
    /// The id is not the key's.
    #[error("its id is not that of its key and name: it was copied wrongly or changed")]
    Id,
    /// More keys than anybody needs.
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Ed25519(PublicKey),
    MlDsa(MlDsaPublic),
}

/// A key that verifies: C2SP's verifier key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: Kind,
    material: Material,
    id: u32,
}

impl VerifierKey {
    fn new(name: &str, kind: Kind, material: Material) -> Option<Self> {
        let raw = match &material {
            Material::Ed25519(key) => key.to_bytes().to_vec(),
            Material::MlDsa(key) => key.as_bytes().to_vec(),
        };
        let digest = Sha256::new()
            .chain_update(name)
            .chain_update(b"\n")
            .chain_update(kind.identifier())
            .chain_update(raw)
            .finalize();
        let id = u32::from_be_bytes(*digest.first_chunk()?);
        is_name(name).then(|| Self {
            name: name.to_owned(),
            kind,
            material,
            id,
        })
    }

    /// The Ed25519 key in a PeerId, under this name; `None` when it is no name, or the kind is not
    /// one of Ed25519.
    #[must_use]
    pub fn of_peer(name: &str, kind: Kind, peer: &PeerId) -> Option<Self> {
        let key = PublicKey::from_bytes(&peer.key_bytes())?;
        matches!(kind, Kind::Log | Kind::Witness)
            .then(|| Self::new(name, kind, Material::Ed25519(key)))?
    }

    /// A node's key of this kind, under this name; `None` when it is no name.
    #[must_use]
    pub fn of_node(name: &str, kind: Kind, node: &NodePublic) -> Option<Self> {
        match kind {
            Kind::Log | Kind::Witness => Self::of_peer(name, kind, &node.peer),
            Kind::LogMlDsa | Kind::WitnessMlDsa => {
                Self::new(name, kind, Material::MlDsa(node.ml_dsa.clone()))
            }
        }
    }

    /// Reads a verifier key: `NAME+ID+KEY`.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn read(text: &str) -> Result<Self, BadKey> {
        if text.len() > MAX_KEY_TEXT {
            return Err(BadKey::Form);
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadKey::Form);
        };
        let bytes = base64::decode(key).ok_or(BadKey::Form)?;
        let (kind, raw) = Kind::ALL
            .into_iter()
            .find_map(|kind| {
                let raw = bytes.strip_prefix(kind.identifier())?;
                (raw.len() == kind.key_bytes()).then_some((kind, raw))
            })
            .ok_or(BadKey::Kind)?;
        let material = match kind {
            Kind::Log | Kind::Witness => {
                let raw = raw.try_into().map_err(|_| BadKey::Key)?;
                Material::Ed25519(PublicKey::from_bytes(raw).ok_or(BadKey::Key)?)
            }
            Kind::LogMlDsa | Kind::WitnessMlDsa => {
                Material::MlDsa(MlDsaPublic::from_bytes(raw).ok_or(BadKey::Key)?)
            }
        };
        let read = Self::new(name, kind, material).ok_or(BadKey::Form)?;
        if format!("{:08x}", read.id) == id {
            Ok(read)
        } else {
            Err(BadKey::Id)
        }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs, and how.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Verifies this key's signature of the note. `Some` with whether it holds, and the time it was
    /// made at when it says so; `None`: this key did not sign it. The first line of this key counts.
    #[must_use]
    pub fn verify(&self, note: &Note) -> Option<Result<Option<Timestamp>, NotVerified>> {
        let own = |line: &&Signature| line.name == self.name && line.id == self.id;
        note.signatures()
            .iter()
            .find(own)
            .map(|line| self.check(note.text(), &line.bytes))
    }

    fn check(&self, text: &str, bytes: &[u8]) -> Result<Option<Timestamp>, NotVerified> {
        let (time, signature) = if self.kind.is_dated() {
            let (time, rest) = bytes.split_first_chunk().ok_or(NotVerified)?;
            (Some(u64::from_be_bytes(*time)), rest)
        } else {
            (None, bytes)
        };
        let message = signed_message(text, time);
        let verified = match &self.material {
            Material::Ed25519(key) => key.verify(&message, signature),
            Material::MlDsa(key) => key.verify(&message, signature),
        };
        verified.map_err(|_| NotVerified)?;
        Ok(time.map(Timestamp::from_secs))
    }

    /// Signs a note's text with the node's key of this kind; a witness's kinds at `now`.
    #[must_use]
    pub(in crate::audit) fn sign(&self, key: &NodeKey, text: &str, now: Timestamp) -> Signature {
        let time = self.kind.is_dated().then(|| now.secs());
        let message = signed_message(text, time);
        let mut bytes = time.map_or_else(Vec::new, |time| time.to_be_bytes().to_vec());
        match self.material {
            Material::Ed25519(_) => {
                let signature = ed25519_dalek::Signer::sign(key.signing(), &message);
                bytes.extend_from_slice(&signature.to_bytes());
            }
            Material::MlDsa(_) => bytes.extend(key.signer().ml_dsa().sign(&message)),
        }
        Signature {
            name: self.name.clone(),
            id: self.id,
            bytes,
        }
    }
}

/// A signature that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a signature does not verify")]
pub struct NotVerified;

/// What is signed: the note's text, for a witness after C2SP's `cosignature/v1` and the time.
fn signed_message(text: &str, time: Option<u64>) -> Vec<u8> {
    match time {
        None => text.as_bytes().to_vec(),
        Some(time) => format!("cosignature/v1\ntime {time}\n{text}").into_bytes(),
    }
}

/// The keys in a text, one a line; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// The number of the line, from 1, and [`BadKey`].
pub fn keys_of_text(text: &str) -> Result<Vec<VerifierKey>, (usize, BadKey)> {
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if keys.len() == MAX_KEYS {
            return Err((at + 1, BadKey::TooMany));
        }
        keys.push(VerifierKey::read(line).map_err(|why| (at + 1, why))?);
    }
    Ok(keys)
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.kind.identifier().to_vec();
        match &self.material {
            Material::Ed25519(key) => bytes.extend_from_slice(&key.to_bytes()),
            Material::MlDsa(key) => bytes.extend_from_slice(key.as_bytes()),
        }
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id,
            base64::encode(&bytes)
        )
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VerifierKey({}+{:08x}, {:?})",
            self.name, self.id, self.kind
        )
    }
}
