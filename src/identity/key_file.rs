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

use thiserror::Error;
use zeroize::Zeroizing;

mod text;

pub(crate) use text::{Kind, Secrets};

use text::{decode, encode};

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
