//! An issuer's folder, as a node that issues reads it: the key, and what stands above it.
//!
//! The key is read once; the delegations each time, for the operator may take in new ones. Owner:
//! the issuer actor and the commands. It fails with a [`FolderError`] that names the file.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{
    Anchor, Chain, Delegation, DiskError, Grant, ISSUER_KEY_FILE, IssueError, IssuerKey,
    KeyFileError, MAX_CHAIN_BYTES, Malformed, Serial, SigningRequest, decode_delegations, disk,
    issue_chain, longest, status, take_index,
};
use crate::types::Timestamp;

/// File name of the delegations to an issuer, in its folder.
pub const DELEGATION_FILE: &str = "delegation.cose";

/// Why an issuer's folder cannot be used, or nothing was issued.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The secret key's file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The delegations to the issuer.
    #[error("{}: {why}", path.display())]
    Delegation {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: Malformed,
    },
    /// Nothing was issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// An issuer whose key was read.
#[derive(Debug, Clone)]
pub struct IssuerFolder {
    dir: PathBuf,
    key: IssuerKey,
}

impl IssuerFolder {
    /// Reads the key in `dir`.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(dir: &Path) -> Result<Self, FolderError> {
        let key = IssuerKey::load(&dir.join(ISSUER_KEY_FILE))?;
        let folder = Self {
            dir: dir.into(),
            key,
        };
        // Read once here, so that what is wrong is an error of the start.
        folder.above()?;
        Ok(folder)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes documents back and signs the next list, which holds as long as the last one was meant
    /// to; the list, as it is handed out.
    ///
    /// # Errors
    /// [`status::FolderError`].
    pub fn take_back(
        &self,
        indexes: &[u32],
        now: Timestamp,
    ) -> Result<Vec<u8>, status::FolderError> {
        let above = self.above().map_err(|error| status::FolderError::State {
            path: self.dir.join(DELEGATION_FILE),
            why: error.to_string(),
        })?;
        let folder = status::Folder::new(&self.dir, &self.key);
        let next_update = folder.usual_span();
        let mut list = folder.publish(&status::Revocation::Refresh, &above, next_update, now)?;
        for index in indexes {
            let what = status::Revocation::Index(*index);
            list = folder.publish(&what, &above, next_update, now)?;
        }
        Ok(list.as_bytes().to_vec())
    }

    /// The issuer's key.
    #[must_use]
    pub fn key(&self) -> &IssuerKey {
        &self.key
    }

    /// The issuer's anchor, signed anew.
    #[must_use]
    pub fn anchor(&self, now: Timestamp) -> Vec<u8> {
        Anchor::seal(&self.key, now)
    }

    /// Issues for `request`, within what the issuer itself may. A lifetime that is longer than
    /// that is cut.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn issue(
        &self,
        request: &SigningRequest,
        mut grant: Grant,
        now: Timestamp,
    ) -> Result<Chain, FolderError> {
        let above = self.above()?;
        if !above.is_empty() {
            grant.lifetime = grant.lifetime.min(longest(&above, now));
        }
        let serial = Serial {
            id: rand::random(),
            index: take_index(&self.dir)?,
        };
        Ok(issue_chain(
            &self.key, &above, request, &grant, serial, now,
        )?)
    }

    fn above(&self) -> Result<Vec<Delegation>, FolderError> {
        let path = self.dir.join(DELEGATION_FILE);
        match disk::read_bounded(&path, MAX_CHAIN_BYTES) {
            Ok(bytes) => {
                decode_delegations(&bytes).map_err(|why| FolderError::Delegation { path, why })
            }
            Err(DiskError::Missing(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
