//! What a job printed, on disk: read by cursor while it runs, hashed for the receipt.
//!
//! Owner: one actor, one value a job. Two files, `JOB.out` and `JOB.err`, only ever appended to.
//!
//! A job that is run again *replays*: what the new attempt prints is compared with what is there
//! until it has caught up, and appended from then on. The first difference is an error: part of
//! the output may have been handed out already, and nobody gets two results.
//!
//! # Invariants
//! - What was read once is never different later.
//! - No more than the job's limit of output is kept.
//!
//! # When it fails
//! Nothing is synced. A torn tail cannot matter: what is on disk is always a beginning of what
//! the attempt printed, only that was handed out, and the next attempt prints the same again or
//! fails. After `kill -9` the files are whole; after a power failure they may be shorter than
//! what was handed out, and the next attempt fills them with the same bytes (its submitter's
//! cursor and hashes show whether they are). A piece that is written in part is cut off.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    Content, ContentHash, Hasher, JobId, Stream,
    blobs::{hash_file, read_from},
};

/// Ends of the files' names: standard output, standard error.
const OUT: &str = ".out";
const ERR: &str = ".err";

/// Why output cannot be kept.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The new attempt printed something else than the one before.
    #[error("attempts differ on {stream:?} at byte {offset}")]
    Diverged {
        /// Where.
        stream: Stream,
        /// From which byte on.
        offset: u64,
    },
    /// More than the job may print.
    #[error("more than {most} bytes of output")]
    TooMuch {
        /// Most bytes of both streams.
        most: u64,
    },
    /// The disk.
    #[error("{path}: {source}: check space, permissions and health of the disk")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// One file. It is opened for each write: thousands of remembered jobs must not hold a
/// descriptor each.
#[derive(Debug)]
struct Side {
    path: PathBuf,
    /// Bytes in the file.
    length: u64,
    /// Where the attempt that runs is.
    at: u64,
    /// Of the whole file; `None`: not hashed since it was opened, for it may never be needed.
    hasher: Option<Hasher>,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    most: u64,
    out: Side,
    err: Side,
}

impl Side {
    fn open(path: PathBuf) -> Result<Self, SpoolError> {
        let length = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => {
                let source = io::Error::other("not a regular file");
                return Err(SpoolError::Io { path, source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(SpoolError::Io { path, source }),
        };
        Ok(Self {
            path,
            length,
            at: length,
            hasher: (length == 0).then(Hasher::default),
        })
    }

    /// Hashes what is there once, and remembers it.
    fn hasher(&mut self) -> Result<Hasher, SpoolError> {
        if let Some(hasher) = &self.hasher {
            return Ok(hasher.clone());
        }
        match hash_file(&self.path) {
            Ok((hasher, length)) if length == self.length => {
                self.hasher = Some(hasher.clone());
                Ok(hasher)
            }
            Ok(_) => Err(self.fail(io::Error::other("its length changed"))),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn fail(&self, source: io::Error) -> SpoolError {
        SpoolError::Io {
            path: self.path.clone(),
            source,
        }
    }

    /// Compares with what is there; how many of the bytes that were.
    fn compare(&mut self, stream: Stream, bytes: &[u8]) -> Result<usize, SpoolError> {
        let there = self.length.saturating_sub(self.at);
        let there = usize::try_from(there)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        if there == 0 {
            return Ok(0);
        }
        let known = read_from(&self.path, self.at, there).map_err(|error| self.fail(error))?;
        let same = known.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        self.at = self
            .at
            .saturating_add(u64::try_from(same).unwrap_or(u64::MAX));
        if same < there {
            return Err(SpoolError::Diverged {
                stream,
                offset: self.at,
            });
        }
        Ok(there)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut hasher = self.hasher()?;
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).mode(0o600);
        let mut file = opened.open(&self.path).map_err(|error| self.fail(error))?;
        if let Err(error) = file.write_all(bytes) {
            // Half a piece may be there: cut it off, so that the file stays what was hashed.
            let _ = file.set_len(self.length);
            return Err(self.fail(error));
        }
        hasher.update(bytes);
        self.hasher = Some(hasher);
        self.length = self.length.saturating_add(length);
        self.at = self.at.saturating_add(length);
        Ok(())
    }
}

impl Spool {
    /// Opens a job's output, making it when it is missing; `most` bytes in all.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn open(dir: &Path, job: JobId, most: u64) -> Result<Self, SpoolError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| SpoolError::Io {
                path: dir.to_owned(),
                source,
            })?;
        let (out, err) = paths(dir, &job);
        Ok(Self {
            most,
            out: Side::open(out)?,
            err: Side::open(err)?,
        })
    }

    /// Removes a job's output; there may be none.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn remove(dir: &Path, job: &JobId) -> Result<(), SpoolError> {
        let (out, err) = paths(dir, job);
        for path in [out, err] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SpoolError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the outputs of jobs that are not `known`: a crash may come between forgetting a
    /// job and removing its output. Files of other names are left alone.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn sweep(dir: &Path, known: impl Fn(&JobId) -> bool) -> Result<(), SpoolError> {
        let fail = |path: &Path, source| SpoolError::Io {
            path: path.to_owned(),
            source,
        };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| fail(dir, error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| fail(dir, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| {
                let id = name.strip_suffix(OUT).or(name.strip_suffix(ERR))?;
                id.parse::<JobId>().ok()
            });
            if id.is_some_and(|id| !known(&id)) {
                fs::remove_file(&path).map_err(|error| fail(&path, error))?;
            }
        }
        Ok(())
    }

    fn side(&self, stream: Stream) -> &Side {
        match stream {
            Stream::Stdout => &self.out,
            Stream::Stderr => &self.err,
        }
    }

    /// Bytes there are.
    #[must_use]
    pub fn len(&self, stream: Stream) -> u64 {
        self.side(stream).length
    }

    /// Whether nothing was printed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.length == 0 && self.err.length == 0
    }

    /// SHA-256 of all that is there.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn hash(&mut self, stream: Stream) -> Result<ContentHash, SpoolError> {
        let side = match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        Ok(side.hasher()?.finish())
    }

    /// Hash and length of all that is there.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn content(&mut self, stream: Stream) -> Result<Content, SpoolError> {
        Ok(Content {
            hash: self.hash(stream)?,
            size: self.len(stream),
        })
    }

    /// At most `most` bytes from `offset` on.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn read(&self, stream: Stream, offset: u64, most: usize) -> Result<Vec<u8>, SpoolError> {
        let side = self.side(stream);
        if offset >= side.length {
            return Ok(Vec::new());
        }
        read_from(&side.path, offset, most).map_err(|error| side.fail(error))
    }

    /// An attempt begins: what it prints must repeat what is there.
    pub fn begin_attempt(&mut self) {
        self.out.at = 0;
        self.err.at = 0;
    }

    /// Takes what the attempt printed next.
    ///
    /// # Errors
    /// As [`SpoolError`] says; the attempt is then of no use.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), SpoolError> {
        let most = self.most;
        let held = self.out.length.saturating_add(self.err.length);
        let side = match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        let known = side.compare(stream, bytes)?;
        let new = bytes.get(known..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(new.len()).unwrap_or(u64::MAX);
        if held.saturating_add(length) > most {
            return Err(SpoolError::TooMuch { most });
        }
        side.append(new)
    }

    /// The attempt ended by itself: it must have printed at least what is there.
    ///
    /// # Errors
    /// [`SpoolError::Diverged`].
    pub fn end_attempt(&self) -> Result<(), SpoolError> {
        for (stream, side) in [(Stream::Stdout, &self.out), (Stream::Stderr, &self.err)] {
            if side.at < side.length {
                return Err(SpoolError::Diverged {
                    stream,
                    offset: side.at,
                });
            }
        }
        Ok(())
    }
}

fn paths(dir: &Path, job: &JobId) -> (PathBuf, PathBuf) {
    (
        dir.join(format!("{job}{OUT}")),
        dir.join(format!("{job}{ERR}")),
    )
}

#[cfg(test)]
mod tests;
