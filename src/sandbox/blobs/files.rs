//! The files of blobs: their names, and reading and writing them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{ContentHash, Hasher, Name};

/// Bytes hashed at a time.
const BUFFER: usize = 64 << 10;

/// What a file of this name is.
pub(super) fn name_of(name: &str) -> Option<Name> {
    let Some((blob, rest)) = name.split_once('.') else {
        return Some(Name::Complete(hash(name)?));
    };
    let owner = rest.strip_suffix(".part")?;
    Some(Name::Arriving((hash(blob)?, owner.parse().ok()?)))
}

/// A hash as this module writes it: in lower case, so that no blob has two names.
fn hash(name: &str) -> Option<ContentHash> {
    let hash: ContentHash = name.parse().ok()?;
    (hash.to_string() == name).then_some(hash)
}

/// The hash of a whole file, and its length.
pub(in crate::sandbox) fn hash_file(path: &Path) -> io::Result<(Hasher, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
    let mut length = 0_u64;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher, length));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        length = length.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}

pub(super) fn append_to(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    // Whatever lies there from before is none of ours.
    options.truncate(offset == 0);
    let mut file = options.open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

/// At most `most` bytes of a file, from `offset` on.
pub(in crate::sandbox) fn read_from(path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
