//! Segments as files of a real directory.

use std::{
    any::Any,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Storage, StoredFile};

/// Name of the file whose lock keeps a second writer out.
const LOCK: &str = "lock";
/// Behind the name of a file that takes the place of another.
const NEXT: &str = ".next";
/// Segments are for their owner only: they tell who talked to whom.
const FILE_MODE: u32 = 0o600;
/// The directory likewise.
const DIRECTORY_MODE: u32 = 0o700;

/// A directory of segments.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, made (mode 0700) when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let directory = Self::at(path);
        directory.prepare()?;
        Ok(directory)
    }

    /// The directory at `path`, which is only read and never made.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn append_to(&self, name: &str, options: &mut OpenOptions) -> io::Result<Box<dyn StoredFile>> {
        let path = self.file(name);
        let file = options.append(true).mode(FILE_MODE).open(&path)?;
        Ok(Box::new(Segment { file, path }))
    }
}

impl Storage for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.path)?;
        let parent = self.path.parent();
        if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        self.append_to(name, OpenOptions::new().create_new(true))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        self.append_to(name, &mut OpenOptions::new())
    }

    fn read(&self, name: &str, offset: u64) -> io::Result<Box<dyn BufRead + Send>> {
        let mut file = File::open(self.file(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(BufReader::with_capacity(
            128 * 1024,
            file.take(u64::MAX),
        )))
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.file(name))?.len())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let next = self.file(&format!("{name}{NEXT}"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, self.file(name))?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(self.file(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct Segment {
    file: File,
    path: PathBuf,
}

impl StoredFile for Segment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn attached(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(named) => {
                Ok(own.nlink() > 0 && own.ino() == named.ino() && own.dev() == named.dev())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
