//! Where the secret comes from that opens a sealed key: a person, a file, the service manager.

use std::{
    env, fs,
    io::{self, IsTerminal},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rand::{TryRng, rngs::SysRng};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{MIN_PASSPHRASE, MIN_SECRET, Protection};
use crate::identity::disk::{self, DiskError};

/// Names a file with the passphrase in its first line, for starts without a person.
pub const PASSPHRASE_FILE: &str = "QUANTRABAND_PASSPHRASE_FILE";
/// Where systemd puts credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Longest secret that is read.
const MAX_SECRET: usize = 4 * 1024;

/// A secret, overwritten when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Nobody can be asked.
    #[error(
        "it is sealed with a passphrase: start at a terminal, or let {PASSPHRASE_FILE} name a file \
         with it (mode 0600)"
    )]
    NoTerminal,
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// The two answers differ.
    #[error("the two passphrases differ: nothing was changed")]
    Differ,
    /// Too easy to guess.
    #[error("a passphrase needs at least {MIN_PASSPHRASE} characters: nothing was changed")]
    Short,
    /// Not run by systemd, or without that credential.
    #[error(
        "it is sealed with the systemd credential `{0}`, and there is none: add \
         `LoadCredentialEncrypted={0}:FILE` to the service"
    )]
    NoCredential(String),
    /// Too little to be a key.
    #[error("{} holds {found} bytes: a secret of at least {MIN_SECRET} is needed", path.display())]
    Weak {
        /// Which file.
        path: PathBuf,
        /// How much it holds.
        found: usize,
    },
    /// Others may read it.
    #[error("others may read {}: run `chmod 600` on it", .0.display())]
    Mode(PathBuf),
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The secret that opens a file in `folder`.
///
/// # Errors
/// [`SecretError`] says how to provide it.
pub(crate) fn unlock(protection: &Protection, folder: &Path) -> Result<Secret, SecretError> {
    match protection {
        Protection::None => Ok(Secret::default()),
        Protection::Passphrase => passphrase(),
        Protection::File(path) => strong(&folder.join(path)),
        Protection::Systemd(name) => strong(&credential(name)?),
    }
}

/// The secret to seal with from now on; a file that is not there yet is made.
///
/// # Errors
/// [`SecretError`].
pub(crate) fn choose(protection: &Protection, folder: &Path) -> Result<Secret, SecretError> {
    match protection {
        Protection::None => Ok(Secret::default()),
        Protection::Passphrase => {
            let secret = new_passphrase()?;
            let length = std::str::from_utf8(&secret).map_or(0, |text| text.chars().count());
            if length < MIN_PASSPHRASE {
                return Err(SecretError::Short);
            }
            Ok(secret)
        }
        Protection::File(path) => {
            let path = folder.join(path);
            if !path.exists() {
                make(&path)?;
            }
            strong(&path)
        }
        Protection::Systemd(name) => strong(&credential(name)?),
    }
}

fn credential(name: &str) -> Result<PathBuf, SecretError> {
    let folder = env::var_os(CREDENTIALS).filter(|folder| !folder.is_empty());
    let path = folder.map(|folder| Path::new(&folder).join(name));
    path.filter(|path| path.is_file())
        .ok_or_else(|| SecretError::NoCredential(name.to_owned()))
}

/// Thirty-two random bytes, as text, so that an editor does them no harm.
fn make(path: &Path) -> Result<(), SecretError> {
    let mut bytes = Zeroizing::new([0; MIN_SECRET]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(io::Error::other)?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(bytes.as_slice())));
    Ok(disk::create_new(path, text.as_bytes(), 0o600)?)
}

fn strong(path: &Path) -> Result<Secret, SecretError> {
    let secret = private(path)?;
    if secret.len() < MIN_SECRET {
        let found = secret.len();
        return Err(SecretError::Weak {
            path: path.to_owned(),
            found,
        });
    }
    Ok(secret)
}

fn private(path: &Path) -> Result<Secret, SecretError> {
    let meta = fs::metadata(path).map_err(disk::io_error("read", path))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(SecretError::Mode(path.to_owned()));
    }
    Ok(Zeroizing::new(disk::read_bounded(path, MAX_SECRET)?))
}

fn passphrase() -> Result<Secret, SecretError> {
    if let Some(secret) = passphrase_file()? {
        return Ok(secret);
    }
    if !io::stdin().is_terminal() {
        return Err(SecretError::NoTerminal);
    }
    ask("Passphrase of the key: ")
}

fn new_passphrase() -> Result<Secret, SecretError> {
    if let Some(secret) = passphrase_file()? {
        return Ok(secret);
    }
    if !io::stdin().is_terminal() {
        return Err(SecretError::NoTerminal);
    }
    let first = ask("New passphrase: ")?;
    if ask("Once more: ")? != first {
        return Err(SecretError::Differ);
    }
    Ok(first)
}

fn ask(prompt: &str) -> Result<Secret, SecretError> {
    Ok(Zeroizing::new(
        rpassword::prompt_password(prompt)?.into_bytes(),
    ))
}

/// The first line of the file that the environment names.
fn passphrase_file() -> Result<Option<Secret>, SecretError> {
    let Some(path) = env::var_os(PASSPHRASE_FILE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let text = private(Path::new(&path))?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Some(Zeroizing::new(line.to_vec())))
}
