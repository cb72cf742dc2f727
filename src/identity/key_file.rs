//! Files that hold secret keys: made once, mode 0600, read only when nobody else can.
//!
//! The format is text, so that a person who opens it sees what it is: a header line, for issuers
//! a line with the name, and a line per key with its independent 32-byte seed in lower-case hex.
//!
//! ```text
//! quantraband-node-key-v2
//! ed25519 9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60
//! ml-dsa-65 6f1c…
//! x-wing 4be0…
//! ```
//!
//! [`encode`] and [`decode`] alone know this text. Version 1 held an Ed25519 seed and nothing more.
//!
//! The text may be sealed ([`super::keystore`]); then it is opened with the secret that the sealed
//! file names.
//!
//! Owner: the identity room. Invariants: never overwritten, never followed through a link, never
//! accepted when group or others may read or write it; seeds are zeroised when dropped. It
//! fails with [`KeyFileError`], which says how to mend it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rand::{TryRng, rngs::SysRng};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    disk::{self, DiskError},
    keystore::{
        self, Protection, SealError,
        secret::{Secret, SecretError},
    },
};

/// Mode of a key file: its owner alone.
pub const KEY_MODE: u32 = 0o600;
/// Longest key file: header, longest name, three seeds with their labels, sealed in hexadecimal
/// under the longest path of a secret.
const MAX_KEY_FILE: u64 = 4 * 1024;
/// Shortest that is looked into: one seed, so that a file of version 1 is told as such.
const MIN_KEY_FILE: u64 = 64;

/// Why a key file cannot be used, and what to do about it.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no key file {}: make one with `{make}`", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// The command that makes one.
        make: &'static str,
    },
    /// A link, a directory, a pipe.
    #[error(
        "{} is no regular file (a link, a directory or a device): put the key file itself there",
        .0.display()
    )]
    NotRegular(PathBuf),
    /// Group or others may read or write it.
    #[error(
        "the key file {path} has mode {mode:04o}, so others may read or change it: run \
         `chmod 600 {path}`, and make a new key if anybody else uses this machine",
        path = path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too long or too short to be a key file.
    #[error(
        "{} has {found} bytes and is no key file of this kind: restore it from a backup, or move \
         it away to make a new key (which is a new identity)",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// The content does not parse. Never quotes the content.
    #[error(
        "{}, line {line}: {wanted}; restore it from a backup, or move it away to make a new key \
         (which is a new identity)",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What should be there.
        wanted: &'static str,
    },
    /// It is sealed, and the secret that opens it is not to be had.
    #[error("the key file {} cannot be opened: {why}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// How to provide the secret.
        #[source]
        why: SecretError,
    },
    /// It is sealed, and does not open.
    #[error(
        "the key file {} does not open with this secret: it is another passphrase, file or \
         credential than it was sealed with, or the key file was changed",
        .0.display()
    )]
    Wrong(PathBuf),
    /// It is sealed in a way that is not understood. Never quotes the content.
    #[error("{}, line {line}: {wanted}; restore it from a backup", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What should be there.
        wanted: &'static str,
    },
    /// The operating system's generator failed.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
    /// The cryptographic library failed.
    #[error("the cryptographic library could not make a key: it has no memory")]
    Library,
    /// Reading or writing failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

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

    const fn make(self) -> &'static str {
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

/// Writes a key file that must not exist yet.
pub(crate) fn create(
    path: &Path,
    kind: Kind,
    name: Option<&str>,
    secrets: &Secrets,
) -> Result<(), KeyFileError> {
    let text = encode(kind, name, secrets);
    Ok(disk::create_new(path, text.as_bytes(), KEY_MODE)?)
}

/// A key file that was opened, and with what.
pub(crate) struct Opened {
    /// The keys.
    pub(crate) secrets: Secrets,
    /// The name, of an issuer.
    name: String,
    seal: Seal,
}

/// How a key file is sealed, and the secret that opened it.
struct Seal {
    protection: Protection,
    secret: Secret,
}

/// Reads a key file after checking what it is and who else may read it: the key, and for issuers
/// the name.
pub(crate) fn load(path: &Path, kind: Kind) -> Result<(Secrets, String), KeyFileError> {
    let opened = open(path, kind)?;
    Ok((opened.secrets, opened.name))
}

/// As [`load`], with what opened it.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<Opened, KeyFileError> {
    open_like(path, kind, None)
}

/// As [`open`]; what opened `like` is tried first, so that nobody is asked twice.
pub(crate) fn open_like(
    path: &Path,
    kind: Kind,
    like: Option<&Opened>,
) -> Result<Opened, KeyFileError> {
    let mut text = read_private(path, kind)?;
    let mut seal = Seal {
        protection: Protection::None,
        secret: Secret::default(),
    };
    if keystore::is_sealed(&text) {
        (text, seal) = unseal(path, &text, like)?;
    }
    let decoded = decode(&text, kind).map_err(|(line, wanted)| KeyFileError::Content {
        path: path.into(),
        line,
        wanted,
    });
    let (secrets, name) = decoded?;
    Ok(Opened {
        secrets,
        name,
        seal,
    })
}

fn unseal(
    path: &Path,
    text: &[u8],
    like: Option<&Opened>,
) -> Result<(Zeroizing<Vec<u8>>, Seal), KeyFileError> {
    let read = || keystore::Sealed::read(text).map_err(|error| seal_error(path, error));
    let sealed = read()?;
    let protection = sealed.protection.clone();
    if let Some(like) = like.filter(|like| like.seal.protection == protection)
        && let Ok(opened) = sealed.open(&like.seal.secret)
    {
        let secret = like.seal.secret.clone();
        return Ok((opened, Seal { protection, secret }));
    }
    let secret = keystore::secret::unlock(&protection, folder(path)).map_err(|why| {
        KeyFileError::Locked {
            path: path.into(),
            why,
        }
    })?;
    let opened = read()?
        .open(&secret)
        .map_err(|error| seal_error(path, error))?;
    Ok((opened, Seal { protection, secret }))
}

/// Writes a key file that must not exist yet, sealed as `like` is.
pub(crate) fn create_like(
    path: &Path,
    kind: Kind,
    secrets: &Secrets,
    like: &Opened,
) -> Result<(), KeyFileError> {
    let text = encode(kind, None, secrets);
    let Seal { protection, secret } = &like.seal;
    let sealed =
        keystore::seal(&text, protection, secret).map_err(|error| seal_error(path, error))?;
    Ok(disk::create_new(path, sealed.as_bytes(), KEY_MODE)?)
}

/// Copies a key file as it is to where there must be none. Not a second name of the same file:
/// overwriting one would overwrite the other.
pub(crate) fn copy(from: &Path, kind: Kind, to: &Path) -> Result<(), KeyFileError> {
    let text = read_private(from, kind)?;
    Ok(disk::create_new(to, &text, KEY_MODE)?)
}

fn seal_error(path: &Path, error: SealError) -> KeyFileError {
    match error {
        SealError::Content(line, wanted) => KeyFileError::Sealed {
            path: path.into(),
            line,
            wanted,
        },
        SealError::Wrong => KeyFileError::Wrong(path.into()),
        SealError::Library => KeyFileError::Library,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// What opens a key file now.
///
/// # Errors
/// [`KeyFileError`].
pub(crate) fn protection(path: &Path, kind: Kind) -> Result<Protection, KeyFileError> {
    let text = read_private(path, kind)?;
    if !keystore::is_sealed(&text) {
        return Ok(Protection::None);
    }
    let sealed = keystore::Sealed::read(&text).map_err(|error| seal_error(path, error))?;
    Ok(sealed.protection)
}

/// Seals a key file in another way, or not at all; it is replaced as a whole, after what will open
/// it was seen to do so.
///
/// # Errors
/// [`KeyFileError`]; then the file is as it was.
pub(crate) fn protect(
    path: &Path,
    kind: Kind,
    protection: &Protection,
) -> Result<(), KeyFileError> {
    let (secrets, name) = load(path, kind)?;
    let name = Some(name.as_str()).filter(|name| !name.is_empty());
    let text = encode(kind, name, &secrets);
    let secret =
        keystore::secret::choose(protection, folder(path)).map_err(|why| KeyFileError::Locked {
            path: path.into(),
            why,
        })?;
    let sealed =
        keystore::seal(&text, protection, &secret).map_err(|error| seal_error(path, error))?;
    if *protection != Protection::None {
        let again = keystore::Sealed::read(sealed.as_bytes())
            .and_then(|sealed| sealed.open(&secret))
            .map_err(|error| seal_error(path, error))?;
        if again.as_slice() != text.as_bytes() {
            return Err(KeyFileError::Library);
        }
    }
    Ok(disk::write_atomic(path, sealed.as_bytes(), KEY_MODE)?)
}

fn read_private(path: &Path, kind: Kind) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => KeyFileError::Missing {
            path: path.into(),
            make: kind.make(),
        },
        _ => disk::io_error("read", path)(error).into(),
    };
    let named = fs::symlink_metadata(path).map_err(missing)?;
    if !named.is_file() {
        return Err(KeyFileError::NotRegular(path.into()));
    }
    let file = File::open(path).map_err(missing)?;
    let opened = file.metadata().map_err(missing)?;
    // The file that was looked at is the file that was opened: no link slipped in between.
    if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
        return Err(KeyFileError::NotRegular(path.into()));
    }
    let mode = opened.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode {
            path: path.into(),
            mode,
        });
    }
    if opened.len() > MAX_KEY_FILE || opened.len() < MIN_KEY_FILE {
        return Err(KeyFileError::Size {
            path: path.into(),
            found: opened.len(),
        });
    }
    // Reserved at once, so that growing leaves no copy of the secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(5 * 1024));
    file.take(MAX_KEY_FILE)
        .read_to_end(&mut text)
        .map_err(missing)?;
    Ok(text)
}

/// The text of a key file: what a passphrase would have to protect.
fn encode(kind: Kind, name: Option<&str>, secrets: &Secrets) -> Zeroizing<String> {
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
fn decode(text: &[u8], kind: Kind) -> Result<(Secrets, String), (usize, &'static str)> {
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
