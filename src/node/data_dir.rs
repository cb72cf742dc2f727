//! The data directory: one node's alone, private, and known to be writable before anything runs.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Held as long as the node runs; the lock goes with it, however the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a directory cannot be a node's data directory.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// It cannot be made.
    #[error("cannot create the data directory {path}: {source}; set `node.data_dir` to a place this user may write")]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{0} is not a directory, so it cannot be the data directory; move it away, or set `node.data_dir`")]
    NotADirectory(PathBuf),
    /// Others may write in it.
    #[error("others may write in the data directory {path} (mode {mode:04o}); run `chmod 700 {path}`")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing can be written.
    #[error("cannot write in the data directory {path}: {source}")]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds its lock.
    #[error("another node runs on the data directory {0}; stop it, or set `node.data_dir` to another place")]
    InUse(PathBuf),
}

impl DataDir {
    /// Makes the directory if need be (mode 0700), checks it, and takes its lock.
    ///
    /// # Errors
    /// As [`DataDirError`] says. Nothing that was there is changed.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create(path)?;
        let fail = |source| DataDirError::NotWritable { path: path.to_owned(), source };
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        // The process id is for people who look; it also proves that the disk takes a write.
        lock.set_len(0).map_err(fail)?;
        writeln!(lock, "{}", std::process::id()).map_err(fail)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory if need be and checks that only its owner may write in it.
///
/// # Errors
/// As [`DataDirError`] says.
pub fn create(path: &Path) -> Result<(), DataDirError> {
    let fail = |source| DataDirError::Create { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(DataDirError::NotADirectory(path.to_owned())),
        Ok(found) => {
            let mode = found.mode() & 0o7777;
            if mode & 0o022 == 0 {
                Ok(())
            } else {
                Err(DataDirError::Exposed { path: path.to_owned(), mode })
            }
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)
        }
        Err(source) => Err(fail(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_node_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn exposed_directories_and_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(DataDir::open(root.path()), Err(DataDirError::Exposed { .. })));
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert!(matches!(DataDir::open(&file), Err(DataDirError::NotADirectory(_))));
        assert!(matches!(DataDir::open(&file.join("x")), Err(DataDirError::Create { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }
}
