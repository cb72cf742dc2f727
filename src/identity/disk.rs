//! The few ways this room touches the disk: bounded reads, atomic writes, files made once.
//!
//! Owner: the identity room (actor and commands). A write is complete or did not happen: temporary
//! file, `fsync`, rename, `fsync` of the directory. Reading refuses what is no regular file, since
//! a FIFO would hang the reader. It fails with [`DiskError`], which names the path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Mode of directories made here: keys and credentials are nobody else's business.
const DIR_MODE: u32 = 0o700;
/// Most bytes overwritten: more than any key file has.
const MAX_ERASED: u64 = 64 * 1024;

/// Why a file could not be read or written.
#[derive(Debug, Error)]
pub enum DiskError {
    /// There is none.
    #[error("there is no file {}", .0.display())]
    Missing(PathBuf),
    /// There is one already, and it is never overwritten.
    #[error("{} exists already and is not overwritten: move it away first", .0.display())]
    Exists(PathBuf),
    /// A directory, a device, a pipe.
    #[error("{} is no regular file", .0.display())]
    NotRegular(PathBuf),
    /// Longer than any document of its kind.
    #[error("{} is longer than the {max} bytes a file of its kind may have", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Most bytes.
        max: usize,
    },
    /// A counter that is none, or that has come to its end.
    #[error(
        "{}: no number as `quantraband identity issue` writes it, or the last one: restore it from \
         a backup, for a number that is given twice lets one revocation end two credentials",
        .0.display()
    )]
    Counter(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => DiskError::Missing(path.into()),
        io::ErrorKind::AlreadyExists => DiskError::Exists(path.into()),
        _ => DiskError::Io {
            doing,
            path: path.into(),
            source,
        },
    }
}

/// Reads a regular file of at most `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, DiskError> {
    let meta = fs::metadata(path).map_err(io_error("read", path))?;
    if !meta.is_file() {
        return Err(DiskError::NotRegular(path.into()));
    }
    let file = File::open(path).map_err(io_error("read", path))?;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    if bytes.len() > max {
        return Err(DiskError::TooLong {
            path: path.into(),
            max,
        });
    }
    Ok(bytes)
}

/// Makes a directory and its parents, private to this user; one that exists is left as it is.
pub(crate) fn make_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
        .map_err(io_error("create the directory", path))
}

/// Replaces a file as a whole, durably.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{:08x}.tmp", rand::random::<u32>()));
    let written = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("write", path)))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Best effort: the error that matters is the one returned.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a file that must not exist, durably.
pub(crate) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    match write_new(path, bytes, mode) {
        Ok(()) => sync_parent(path),
        Err(exists @ DiskError::Exists(_)) => Err(exists),
        Err(error) => {
            // Half a file is worse than none, and this one was made a moment ago by us.
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Gives a file another name, durably; one that has that name is replaced.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    fs::rename(from, to).map_err(io_error("rename", from))?;
    sync_parent(to)
}

/// As [`rename`]; what was there before is a secret, and is overwritten with zeroes unless it has
/// another name.
pub(crate) fn rename_over_secret(from: &Path, to: &Path) -> Result<(), DiskError> {
    let before = OpenOptions::new().write(true).open(to);
    let mut before = before.map_err(io_error("open", to))?;
    rename(from, to)?;
    let left = before.metadata().map_err(io_error("read", to))?;
    if left.is_file() && left.nlink() == 0 {
        overwrite(&mut before, left.len()).map_err(io_error("overwrite", to))?;
    }
    Ok(())
}

/// Overwrites a secret file with zeroes, durably, and removes it. A file system that writes anew
/// what is overwritten, and a disk that levels its wear, may keep the old blocks for a while.
pub(crate) fn erase(path: &Path) -> Result<(), DiskError> {
    let named = fs::symlink_metadata(path).map_err(io_error("read", path))?;
    // Under another name it may still be needed: then this name alone goes.
    if named.is_file() && named.nlink() == 1 {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| overwrite(&mut file, named.len()))
            .map_err(io_error("overwrite", path))?;
    }
    remove(path)
}

fn overwrite(file: &mut File, length: u64) -> io::Result<()> {
    let zeroes = vec![0; usize::try_from(length.min(MAX_ERASED)).unwrap_or(0)];
    file.write_all(&zeroes)?;
    file.sync_all()
}

/// Removes a file, durably.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    fs::remove_file(path).map_err(io_error("remove", path))?;
    sync_parent(path)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    // O_EXCL: follows no link and takes over no file that somebody prepared.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", path))
}

fn sync_parent(path: &Path) -> Result<(), DiskError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync the directory", parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_write_is_whole_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(dir.path(), b"", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn bounds_and_kinds_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        create_new(&path, b"four", 0o600).unwrap();
        assert!(matches!(
            read_bounded(&path, 3),
            Err(DiskError::TooLong { max: 3, .. })
        ));
        assert!(matches!(
            create_new(&path, b"", 0o600),
            Err(DiskError::Exists(_))
        ));
        assert_eq!(read_bounded(&path, 4).unwrap(), b"four");
        assert!(matches!(
            read_bounded(dir.path(), 3),
            Err(DiskError::NotRegular(_))
        ));
        remove(&path).unwrap();
        assert!(matches!(read_bounded(&path, 3), Err(DiskError::Missing(_))));
    }
}
