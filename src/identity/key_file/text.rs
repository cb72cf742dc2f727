//! The text of a key file, and the seeds in it.
//!
//! [`encode`] and [`decode`] alone know this text, which the head of `key_file` shows. Version 1
//! held an Ed25519 seed and nothing more.

use rand::{TryRng, rngs::SysRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::KeyFileError;

/// What kind of key a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Issuer,
}

impl Kind {
    const fn header(self) -> &'static str {
        match self {
            Self::Node => "quantraband-node-key-v2",
            Self::Issuer => "quantraband-issuer-key-v2",
        }
    }

    const fn old_header(self) -> &'static str {
        match self {
            Self::Node => "quantraband-node-key-v1",
            Self::Issuer => "quantraband-issuer-key-v1",
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Node => "expected `quantraband-node-key-v2`",
            Self::Issuer => "expected `quantraband-issuer-key-v2`",
        }
    }

    pub(super) const fn make(self) -> &'static str {
        match self {
            Self::Node => "quantraband init",
            Self::Issuer => "quantraband identity issuer init",
        }
    }
}

/// A secret of 32 bytes, overwritten when dropped.
pub(crate) type Seed = Zeroizing<[u8; 32]>;

/// The seeds of a node's or an issuer's keys, independent of one another.
pub(crate) struct Secrets {
    pub(crate) ed25519: Seed,
    pub(crate) ml_dsa: Seed,
    /// Nodes alone have it.
    pub(crate) x_wing: Option<Seed>,
}

impl Secrets {
    /// Fresh ones from the operating system's generator.
    pub(crate) fn generate(kind: Kind) -> Result<Self, KeyFileError> {
        let seed = || {
            let mut seed = Zeroizing::new([0; 32]);
            SysRng
                .try_fill_bytes(seed.as_mut_slice())
                .map_err(|error| KeyFileError::Random(error.to_string()))?;
            Ok::<Seed, KeyFileError>(seed)
        };
        Ok(Self {
            ed25519: seed()?,
            ml_dsa: seed()?,
            x_wing: matches!(kind, Kind::Node).then(seed).transpose()?,
        })
    }

    /// For tests and fixtures: the Ed25519 seed as it is, the others derived from it.
    pub(crate) fn derived(seed: &[u8; 32]) -> Self {
        let derive = |label: &[u8]| {
            let digest = Sha256::new().chain_update(label).chain_update(seed);
            Zeroizing::new(digest.finalize().into())
        };
        Self {
            ed25519: Zeroizing::new(*seed),
            ml_dsa: derive(b"quantraband test seed: ml-dsa-65"),
            x_wing: Some(derive(b"quantraband test seed: x-wing")),
        }
    }

    fn labelled(&self) -> impl Iterator<Item = (&'static str, &Seed)> {
        [
            (ED25519, Some(&self.ed25519)),
            (ML_DSA, Some(&self.ml_dsa)),
            (X_WING, self.x_wing.as_ref()),
        ]
        .into_iter()
        .filter_map(|(label, seed)| Some((label, seed?)))
    }
}

const ED25519: &str = "ed25519";
const ML_DSA: &str = "ml-dsa-65";
const X_WING: &str = "x-wing";

/// The text of a key file: what a passphrase would have to protect.
pub(super) fn encode(kind: Kind, name: Option<&str>, secrets: &Secrets) -> Zeroizing<String> {
    // Reserved at once, so that growing leaves no copy of a secret behind.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    for line in [Some(kind.header()), name].into_iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    for (label, seed) in secrets.labelled() {
        let digits = Zeroizing::new(hex::encode(seed.as_slice()));
        for part in [label, " ", digits.as_str(), "\n"] {
            text.push_str(part);
        }
    }
    text
}

/// Reads what [`encode`] writes; fails with the line, from 1, and what should be there.
pub(super) fn decode(text: &[u8], kind: Kind) -> Result<(Secrets, String), (usize, &'static str)> {
    const OLD: &str = "a key file of version 1 has no post-quantum keys and is not read any more";
    let text = std::str::from_utf8(text).map_err(|_| (1, kind.wanted()))?;
    let mut lines = text.split('\n');
    match lines.next() {
        Some(header) if header == kind.header() => {}
        Some(header) if header == kind.old_header() => return Err((1, OLD)),
        _ => return Err((1, kind.wanted())),
    }
    let (name, first) = match kind {
        Kind::Node => (String::new(), 2),
        Kind::Issuer => (lines.next().unwrap_or_default().to_owned(), 3),
    };
    let mut line = first;
    let mut next = |label: &str, wanted: &'static str| {
        let seed = seed_of(lines.next().unwrap_or_default(), label).ok_or((line, wanted))?;
        line += 1;
        Ok::<Seed, (usize, &'static str)>(seed)
    };
    let secrets = Secrets {
        ed25519: next(ED25519, "expected `ed25519` and 64 lower-case hex digits")?,
        ml_dsa: next(ML_DSA, "expected `ml-dsa-65` and 64 lower-case hex digits")?,
        x_wing: match kind {
            Kind::Node => Some(next(
                X_WING,
                "expected `x-wing` and 64 lower-case hex digits",
            )?),
            Kind::Issuer => None,
        },
    };
    if lines.next() != Some("") || lines.next().is_some() {
        return Err((line, "expected the end of the file after the keys' lines"));
    }
    Ok((secrets, name))
}

fn seed_of(line: &str, label: &str) -> Option<Seed> {
    let digits = line.strip_prefix(label)?.strip_prefix(' ')?;
    let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let mut seed = Zeroizing::new([0; 32]);
    if !digits.bytes().all(lower) || hex::decode_to_slice(digits, seed.as_mut_slice()).is_err() {
        return None;
    }
    Some(seed)
}
