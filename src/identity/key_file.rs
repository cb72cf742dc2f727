//! Files that hold a secret key: made once, mode 0600, read only when nobody else can.
//!
//! The format is text, so that a person who opens it sees what it is: a header line, for issuers
//! a line with the name, and the 32-byte Ed25519 seed in lower-case hex.
//!
//! ```text
//! quantraband-node-key-v1
//! 9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60
//! ```
//!
//! Owner: the identity room. Invariants: never overwritten, never followed through a link, never
//! accepted when group or others may read or write it; the seed is zeroised when dropped. It
//! fails with [`KeyFileError`], which says how to mend it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use rand::{TryRng, rngs::SysRng};
use thiserror::Error;
use zeroize::Zeroizing;

use super::disk::{self, DiskError};

/// Mode of a key file: its owner alone.
pub const KEY_MODE: u32 = 0o600;
/// Longest key file: header, longest name, seed.
const MAX_KEY_FILE: u64 = 256;

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
    /// The operating system's generator failed.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
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
            Self::Node => "quantraband-node-key-v1",
            Self::Issuer => "quantraband-issuer-key-v1",
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Node => "expected `quantraband-node-key-v1`",
            Self::Issuer => "expected `quantraband-issuer-key-v1`",
        }
    }

    const fn make(self) -> &'static str {
        match self {
            Self::Node => "quantraband init",
            Self::Issuer => "quantraband identity issuer init",
        }
    }
}

/// A fresh key from the operating system's generator.
pub(crate) fn generate() -> Result<SigningKey, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    SysRng
        .try_fill_bytes(seed.as_mut_slice())
        .map_err(|error| KeyFileError::Random(error.to_string()))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Writes a key file that must not exist yet.
pub(crate) fn create(
    path: &Path,
    kind: Kind,
    name: Option<&str>,
    key: &SigningKey,
) -> Result<(), KeyFileError> {
    let seed = Zeroizing::new(hex::encode(key.as_bytes()));
    let mut text = Zeroizing::new(String::with_capacity(256));
    let lines = [Some(kind.header()), name, Some(seed.as_str())];
    for line in lines.into_iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    Ok(disk::create_new(path, text.as_bytes(), KEY_MODE)?)
}

/// Reads a key file after checking what it is and who else may read it: the key, and for issuers
/// the name.
pub(crate) fn load(path: &Path, kind: Kind) -> Result<(SigningKey, String), KeyFileError> {
    let text = read_private(path, kind)?;
    parse(&text, kind).map_err(|(line, wanted)| KeyFileError::Content {
        path: path.into(),
        line,
        wanted,
    })
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
    if opened.len() > MAX_KEY_FILE || opened.len() < 64 {
        return Err(KeyFileError::Size {
            path: path.into(),
            found: opened.len(),
        });
    }
    // Reserved at once, so that growing leaves no copy of the secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(512));
    file.take(MAX_KEY_FILE)
        .read_to_end(&mut text)
        .map_err(missing)?;
    Ok(text)
}

fn parse(text: &[u8], kind: Kind) -> Result<(SigningKey, String), (usize, &'static str)> {
    let text = std::str::from_utf8(text).map_err(|_| (1, kind.wanted()))?;
    let mut lines = text.split('\n');
    if lines.next() != Some(kind.header()) {
        return Err((1, kind.wanted()));
    }
    let (name, line) = match kind {
        Kind::Node => (String::new(), 2),
        Kind::Issuer => (lines.next().unwrap_or_default().to_owned(), 3),
    };
    let digits = lines.next().unwrap_or_default();
    let mut seed = Zeroizing::new([0; 32]);
    let lower = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(digits, seed.as_mut_slice()).is_err() {
        return Err((line, "expected the key as 64 lower-case hex digits"));
    }
    if lines.next() != Some("") || lines.next().is_some() {
        return Err((
            line + 1,
            "expected the end of the file after the key's line",
        ));
    }
    Ok((SigningKey::from_bytes(&seed), name))
}
