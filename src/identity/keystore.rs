//! Keys encrypted at rest: how a key file's text is sealed, and with what.
//!
//! A sealed file says itself what opens it, so that a node needs no setting to find its secret:
//!
//! ```text
//! quantraband-sealed-key-v1
//! with passphrase
//! kdf argon2id m=65536 t=3 p=4 salt=…
//! data …
//! ```
//!
//! `with` is `passphrase`, `file PATH` (relative to the key file's folder) or `systemd NAME` (a
//! credential that systemd hands the service). A passphrase goes through Argon2id (RFC 9106, the
//! second recommended choice, with a salt of 128 bits); a secret of at least 256 bits through HKDF
//! (RFC 5869). The text is encrypted with AES-256-GCM under a key that is used once; everything
//! above `data` is authenticated with it.
//!
//! Pure, but for the generator; `secret` reads what opens a file. Owner: the identity room. It
//! fails with [`SealError`].

use std::{fmt, path::PathBuf, str::FromStr};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use rand::{TryRng, rngs::SysRng};
use thiserror::Error;
use zeroize::Zeroizing;

pub(crate) mod secret;

/// First line of a sealed key file.
pub(crate) const SEALED_HEADER: &str = "quantraband-sealed-key-v1";
/// Fewest characters of a new passphrase: NIST SP 800-63B-4, 3.1.1.2, for a secret that stands
/// alone.
pub const MIN_PASSPHRASE: usize = 15;
/// Fewest bytes of a secret that is no passphrase: 256 bits, as strong as the cipher.
pub const MIN_SECRET: usize = 32;
/// Longest path or name in a file.
const MAX_WHERE: usize = 1024;
const SALT: usize = 16;
/// RFC 9106, 4: 64 MiB, three passes, four lanes.
const COST: Cost = Cost {
    memory_kib: 65_536,
    passes: 3,
    lanes: 4,
};
/// Most that a file may demand: it may have been changed by somebody who wants this node busy.
const MAX_COST: Cost = Cost {
    memory_kib: 1 << 20,
    passes: 16,
    lanes: 16,
};
const INFO: &[u8] = b"quantraband sealed key 1";

/// What opens a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: whoever can read the file has the key.
    None,
    /// What a person knows.
    Passphrase,
    /// Another file, on a medium or in a place of its own.
    File(PathBuf),
    /// A credential of the service manager (`LoadCredential=`, `LoadCredentialEncrypted=`).
    Systemd(String),
}

/// A text that names no [`Protection`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "expected `none`, `passphrase`, `file:PATH` or `systemd:NAME` (letters, digits, `.`, `_`, `-`)"
)]
pub struct ProtectionError;

impl FromStr for Protection {
    type Err = ProtectionError;

    fn from_str(text: &str) -> Result<Self, ProtectionError> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "passphrase" => Ok(Self::Passphrase),
            Some(("file", path)) => file(path),
            Some(("systemd", name)) => systemd(name),
            _ => Err(ProtectionError),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Passphrase => f.write_str("passphrase"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

fn file(path: &str) -> Result<Protection, ProtectionError> {
    let good = !path.is_empty() && path.len() <= MAX_WHERE && !path.contains(['\n', '\r']);
    good.then(|| Protection::File(path.into()))
        .ok_or(ProtectionError)
}

fn systemd(name: &str) -> Result<Protection, ProtectionError> {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = (1..=255).contains(&name.len()) && name.chars().all(word) && !name.starts_with('.');
    good.then(|| Protection::Systemd(name.to_owned()))
        .ok_or(ProtectionError)
}

/// Why a sealed file cannot be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SealError {
    /// Not the text that this module writes: the line, from 1, and what should be there.
    #[error("line {0}: {1}")]
    Content(usize, &'static str),
    /// The secret is another one, or the file was changed.
    #[error("the secret is not the one it was sealed with, or the file was changed")]
    Wrong,
    /// The library or the system's generator failed.
    #[error("the cryptographic library failed: there is no memory, or no random numbers")]
    Library,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kdf {
    Argon2id(Cost, [u8; SALT]),
    Hkdf([u8; SALT]),
}

impl Kdf {
    fn line(&self) -> String {
        match self {
            Self::Argon2id(cost, salt) => format!(
                "kdf argon2id m={} t={} p={} salt={}",
                cost.memory_kib,
                cost.passes,
                cost.lanes,
                hex::encode(salt)
            ),
            Self::Hkdf(salt) => format!("kdf hkdf-sha256 salt={}", hex::encode(salt)),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.strip_prefix("kdf ")?.split(' ').collect();
        let parsed = match parts.as_slice() {
            ["argon2id", m, t, p, salt] => {
                let number = |text: &str, key: &str| text.strip_prefix(key)?.parse().ok();
                let cost = Cost {
                    memory_kib: number(m, "m=")?,
                    passes: number(t, "t=")?,
                    lanes: number(p, "p=")?,
                };
                let bounded = cost.memory_kib <= MAX_COST.memory_kib
                    && cost.passes <= MAX_COST.passes
                    && cost.lanes <= MAX_COST.lanes;
                bounded.then_some(())?;
                Self::Argon2id(cost, parse_salt(salt)?)
            }
            ["hkdf-sha256", salt] => Self::Hkdf(parse_salt(salt)?),
            _ => return None,
        };
        // One way to write it.
        (parsed.line() == line).then_some(parsed)
    }

    fn key(&self, secret: &[u8]) -> Result<LessSafeKey, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        match self {
            Self::Argon2id(cost, salt) => {
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(key.len()))
                    .map_err(|_| SealError::Content(3, "the costs of argon2id are impossible"))?;
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(secret, salt, key.as_mut_slice())
                    .map_err(|_| SealError::Library)?;
            }
            Self::Hkdf(salt) => Salt::new(HKDF_SHA256, salt)
                .extract(secret)
                .expand(&[INFO], HKDF_SHA256)
                .and_then(|okm| okm.fill(key.as_mut_slice()))
                .map_err(|_| SealError::Library)?,
        }
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Library)?;
        Ok(LessSafeKey::new(key))
    }
}

fn parse_salt(text: &str) -> Option<[u8; SALT]> {
    let mut salt = [0; SALT];
    hex::decode_to_slice(text.strip_prefix("salt=")?, &mut salt).ok()?;
    Some(salt)
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| SealError::Library)?;
    Ok(bytes)
}

/// Whether a key file's text is sealed.
pub(crate) fn is_sealed(text: &[u8]) -> bool {
    text.starts_with(SEALED_HEADER.as_bytes())
}

/// Seals a key file's text. [`Protection::None`] leaves it as it is.
pub(crate) fn seal(
    text: &str,
    protection: &Protection,
    secret: &[u8],
) -> Result<Zeroizing<String>, SealError> {
    let with = match protection {
        Protection::None => return Ok(Zeroizing::new(text.to_owned())),
        Protection::Passphrase => "passphrase".to_owned(),
        Protection::File(path) => format!("file {}", path.display()),
        Protection::Systemd(name) => format!("systemd {name}"),
    };
    let kdf = match protection {
        Protection::Passphrase => Kdf::Argon2id(COST, random()?),
        _ => Kdf::Hkdf(random()?),
    };
    seal_with(text, &with, &kdf, secret, random()?)
}

fn seal_with(
    text: &str,
    with: &str,
    kdf: &Kdf,
    secret: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Result<Zeroizing<String>, SealError> {
    let head = format!("{SEALED_HEADER}\nwith {with}\n{}\n", kdf.line());
    let mut data = Zeroizing::new(Vec::with_capacity(text.len().saturating_add(32)));
    data.extend_from_slice(text.as_bytes());
    kdf.key(secret)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(head.as_bytes()),
            &mut *data,
        )
        .map_err(|_| SealError::Library)?;
    let data = hex::encode(data.as_slice());
    Ok(Zeroizing::new(format!(
        "{head}data {}{data}\n",
        hex::encode(nonce)
    )))
}

/// A sealed file, read but not opened.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    /// What opens it.
    pub(crate) protection: Protection,
    kdf: Kdf,
    head: &'a str,
    nonce: [u8; NONCE_LEN],
    data: Vec<u8>,
}

impl<'a> Sealed<'a> {
    /// Reads a sealed file's text.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, SealError> {
        const WITH: &str = "expected `with passphrase`, `with file PATH` or `with systemd NAME`";
        const KDF: &str = "expected `kdf`, its costs (m at most 1048576, t and p 16), its salt";
        const DATA: &str = "expected `data`, lower-case hex digits and the end of the file";
        let whole = std::str::from_utf8(text).map_err(|_| SealError::Content(1, "not text"))?;
        let lines: Vec<&str> = whole.split('\n').collect();
        let [header, with, kdf, data, ""] = lines.as_slice() else {
            return Err(SealError::Content(4, DATA));
        };
        if *header != SEALED_HEADER {
            return Err(SealError::Content(
                1,
                "expected `quantraband-sealed-key-v1`",
            ));
        }
        let protection = match with.strip_prefix("with ").and_then(|w| w.split_once(' ')) {
            None if *with == "with passphrase" => Ok(Protection::Passphrase),
            Some(("file", path)) => file(path),
            Some(("systemd", name)) => systemd(name),
            _ => Err(ProtectionError),
        };
        let protection = protection.map_err(|_| SealError::Content(2, WITH))?;
        let kdf = Kdf::parse(kdf).ok_or(SealError::Content(3, KDF))?;
        let bytes = data.strip_prefix("data ").and_then(|digits| {
            let lower = digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            lower.then(|| hex::decode(digits).ok()).flatten()
        });
        let bytes = bytes.ok_or(SealError::Content(4, DATA))?;
        let (nonce, data) = bytes
            .split_first_chunk()
            .ok_or(SealError::Content(4, DATA))?;
        let head = whole.len().saturating_sub(data_line(data.len()));
        Ok(Self {
            protection,
            kdf,
            head: whole.get(..head).unwrap_or_default(),
            nonce: *nonce,
            data: data.to_vec(),
        })
    }

    /// Opens it.
    pub(crate) fn open(mut self, secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let key = self.kdf.key(secret)?;
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let aad = Aad::from(self.head.as_bytes());
        let text = key
            .open_in_place(nonce, aad, &mut self.data)
            .map_err(|_| SealError::Wrong)?;
        let opened = Zeroizing::new(text.to_vec());
        // What was decrypted in place is a copy of the secret.
        zeroize::Zeroize::zeroize(&mut self.data);
        Ok(opened)
    }
}

/// Characters of the last line with so many bytes of data.
fn data_line(data: usize) -> usize {
    let digits = data.saturating_add(NONCE_LEN).saturating_mul(2);
    digits.saturating_add("data \n".len())
}

#[cfg(test)]
mod tests;
