//! Where segments live, as the log sees it: a flat directory of append-only files.
//!
//! The real one is [`Directory`]. Tests put a seeded one below the log that writes short, fills
//! up, fails, forgets what was never synced. Every method may block; only the writer's thread
//! calls those that write.

mod directory;
#[cfg(test)]
pub(crate) mod faulty;

use std::{
    any::Any,
    io::{self, BufRead},
};

pub use directory::Directory;

/// A directory of append-only files.
pub trait Storage: Send + Sync + 'static {
    /// What people call this place, for messages.
    fn place(&self) -> String;
    /// Makes the place when it is missing. Only the log's owner does so.
    ///
    /// # Errors
    /// When it cannot be made.
    fn prepare(&self) -> io::Result<()>;
    /// Names of the files in it.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist yet, readable by its owner only.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;
    /// Opens a file for appending.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;
    /// Reads a file from `offset` on.
    ///
    /// # Errors
    /// As the file system says.
    fn read(&self, name: &str, offset: u64) -> io::Result<Box<dyn BufRead + Send>>;
    /// Bytes of a file.
    ///
    /// # Errors
    /// As the file system says.
    fn size(&self, name: &str) -> io::Result<u64>;
    /// Puts a small file with these bytes in the place of the one of this name, or where there is
    /// none: whoever reads, also after a power failure, finds the old one or the new one, whole. When
    /// it succeeds the new one is durable.
    ///
    /// # Errors
    /// As the file system says; then it may be either.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's entries durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_directory(&self) -> io::Result<()>;
    /// Takes the place for one writer; held until the value is dropped. `None`: another has it.
    ///
    /// # Errors
    /// As the file system says.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>>;
}

/// A file open for appending.
pub trait StoredFile: Send {
    /// Appends some of `bytes` and says how many: possibly fewer, as `write(2)` does.
    ///
    /// # Errors
    /// As the file system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes what was appended durable: `fdatasync(2)`.
    ///
    /// # Errors
    /// As the file system says. What was appended since the last success may then be lost, even
    /// if a later call succeeds: nobody may call it again on this file.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `size` bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    /// Whether the file still is the one that its name leads to.
    ///
    /// # Errors
    /// As the file system says.
    fn attached(&self) -> io::Result<bool>;
}
