//! The seal: a small file beside sled's, written after each durable flush, that says how far
//! every tree had come. A tree that is behind its seal was rolled back.
//!
//! Replaced by rename, so it is whole or the former one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file's name within the store's directory.
const FILE: &str = "seal";
const FORMAT: &str = "quantraband-seal/1";
/// Most bytes read: 64 trees with names of 64 bytes stay far below.
const MAX_BYTES: u64 = 64 * 1024;

/// The sequence number of every tree at the last durable flush.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) trees: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: String,
    trees: BTreeMap<String, u64>,
    /// SHA-256 over format and trees as JSON, hex.
    check: String,
}

impl Seal {
    pub(super) fn of(positions: impl Iterator<Item = (String, u64)>) -> Self {
        Self {
            trees: positions.collect(),
        }
    }

    /// The seal in `dir`: `None` when there is none.
    ///
    /// # Errors
    /// `InvalidData` when it is not a seal or its checksum is wrong.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(dir.join(FILE)) {
            Ok(file) => file,
            Err(none) if none.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let disk: OnDisk =
            serde_json::from_slice(&bytes).map_err(|_| invalid("the seal is unreadable"))?;
        if disk.format != FORMAT || disk.check != check(&disk.trees)? {
            return Err(invalid("the seal's format or checksum is wrong"));
        }
        Ok(Some(Self { trees: disk.trees }))
    }

    /// Replaces the seal in `dir`, durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let disk = OnDisk {
            format: FORMAT.to_owned(),
            check: check(&self.trees)?,
            trees: self.trees.clone(),
        };
        let fresh = dir.join("seal.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&disk)?)?;
        file.sync_all()?;
        fs::rename(&fresh, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}

fn check(trees: &BTreeMap<String, u64>) -> io::Result<String> {
    let text = serde_json::to_vec(&(FORMAT, trees))?;
    Ok(hex::encode(Sha256::digest(text)))
}
