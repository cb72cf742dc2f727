//! `identity revoke | status`: the issuer takes back what it issued, and keeps its list fresh.
//!
//! Works on the issuer's directory, without a node: the list it writes is then handed to any node
//! (`quantraband status import`), which tells all others. It fails with [`EnrolError`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{delegation, enrol::EnrolError, identity::read_chain};
use crate::{
    identity::{
        ISSUER_KEY_FILE, IssuerKey, MAX_CHAIN_BYTES, Name, decode_delegations, read_bounded,
        status::{Folder, Revocation},
    },
    types::Timestamp,
};

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The credential, or the delegation, in this file.
    File(PathBuf),
    /// What has this index.
    Index(u32),
    /// All that was issued before.
    IssuedBefore(Timestamp),
    /// Nothing: the list is signed again.
    Nothing,
}

/// Answer of `identity revoke` and of `identity status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokeReport {
    /// The issuer.
    pub issuer: Name,
    /// The index that was taken back, if it was one.
    pub index: Option<u32>,
    /// The list's sequence.
    pub sequence: u64,
    /// Entries that are revoked.
    pub revoked: u32,
    /// What was issued before is revoked.
    pub issued_before: Option<Timestamp>,
    /// When a newer list must be known.
    pub next_update: Timestamp,
    /// The list, to be handed to a node.
    pub file: PathBuf,
}

/// Takes something back, and writes the next list of the issuer in `dir`.
///
/// # Errors
/// [`EnrolError`]; nothing was handed out then, but a sequence may be used up.
pub fn revoke(
    dir: &Path,
    what: &What,
    next_update: Duration,
    now: Timestamp,
) -> Result<RevokeReport, EnrolError> {
    let key = IssuerKey::load(&dir.join(ISSUER_KEY_FILE))?;
    let above = delegation::of_issuer(dir)?;
    let revocation = match what {
        What::File(path) => Revocation::Index(index_of(path, key.name())?),
        What::Index(index) => Revocation::Index(*index),
        What::IssuedBefore(before) => Revocation::IssuedBefore(*before),
        What::Nothing => Revocation::Refresh,
    };
    let folder = Folder::new(dir, &key);
    let list = folder.publish(&revocation, &above, next_update, now)?;
    let statement = list.statement();
    Ok(RevokeReport {
        issuer: statement.issuer.clone(),
        index: match revocation {
            Revocation::Index(index) => Some(index),
            Revocation::IssuedBefore(_) | Revocation::Refresh => None,
        },
        sequence: statement.sequence,
        revoked: list.revoked(),
        issued_before: Some(statement.issued_before).filter(|before| before.secs() > 0),
        next_update: statement.next_update,
        file: folder.list_file(),
    })
}

/// The index of a credential, or of a delegation, of this issuer.
fn index_of(path: &Path, issuer: &Name) -> Result<u32, EnrolError> {
    let head = match read_chain(path) {
        Ok(chain) => chain.credential().claims().head.clone(),
        Err(why @ EnrolError::Credential { .. }) => {
            let bytes = read_bounded(path, MAX_CHAIN_BYTES)?;
            let delegations = decode_delegations(&bytes).ok();
            let nearest = delegations.and_then(|all| Some(all.first()?.mandate().head.clone()));
            nearest.ok_or(why)?
        }
        Err(other) => return Err(other),
    };
    match head.status {
        Some(index) if head.issuer == *issuer => Ok(index),
        _ => Err(EnrolError::NotIssuedHere {
            path: path.into(),
            by: head.issuer,
            issuer: issuer.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
