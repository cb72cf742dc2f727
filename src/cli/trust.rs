//! `trust add | list | remove`: whom this node believes, and how far.
//!
//! Works on the data directory, without a running node; a running one is told to reload. A known
//! name with another key is refused: the operator removes the old entry first, on purpose.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    enrol::EnrolError,
    identity::{PRIVATE_MODE, read_anchor},
};
use crate::{
    identity::{
        DiskError, Grants, GroupPattern, IdentityPaths, Name, Thumbprint, TrustAnchor, make_dir,
        remove as remove_file, state, write_atomic,
    },
    types::Span,
};

/// Arguments of `trust add`.
#[derive(Debug, Clone, Default)]
pub struct AddArgs {
    /// The anchor the issuer handed out.
    pub anchor: PathBuf,
    /// The thumbprint the issuer told by another way, in hex; spaces and colons do not matter.
    pub thumbprint: Option<String>,
    /// Longest lifetime of a credential; `None` is the default for a new entry, and leaves a
    /// known one as it is.
    pub max_lifetime: Option<Span>,
    /// How many issuers may stand between it and a node; `None` as above.
    pub max_depth: Option<u8>,
    /// Groups it may grant; `None` as above.
    pub groups: Option<Vec<GroupPattern>>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// What it may grant was changed.
    Changed,
    /// It was as it is.
    Unchanged,
    /// It is gone.
    Removed,
}

/// One trust entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustReport {
    /// The issuer.
    pub issuer: Name,
    /// The name of its key.
    pub thumbprint: Thumbprint,
    /// What it may grant here.
    pub grants: Grants,
    /// The entry's file.
    pub file: PathBuf,
}

/// Answer of `trust add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddReport {
    /// What was done.
    pub change: Change,
    /// The entry as it is now.
    pub entry: TrustReport,
}

/// Answer of `trust remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoveReport {
    /// What was done.
    pub change: Change,
    /// The issuer that is no longer trusted.
    pub issuer: Name,
}

/// Trusts an issuer, or changes what a trusted one may grant.
///
/// # Errors
/// [`EnrolError`]; above all when the name is known with another key.
pub fn add(paths: &IdentityPaths, args: &AddArgs) -> Result<AddReport, EnrolError> {
    let anchor = read_anchor(&args.anchor)?;
    let thumbprint = anchor.key.thumbprint();
    if let Some(expected) = &args.thumbprint {
        let digits: String = expected
            .chars()
            .filter(|c| !c.is_whitespace() && *c != ':')
            .collect();
        if !digits.eq_ignore_ascii_case(&hex::encode(thumbprint.0)) {
            return Err(EnrolError::Thumbprint {
                path: args.anchor.clone(),
                found: thumbprint,
            });
        }
    }
    let mut anchors = state::load_anchors(paths)?;
    let known = anchors.get(&anchor.issuer).cloned();
    let mut grants = known.as_ref().map(|k| k.grants.clone()).unwrap_or_default();
    if let Some(span) = args.max_lifetime {
        grants.max_lifetime = span;
    }
    if let Some(depth) = args.max_depth {
        grants.max_depth = depth;
    }
    if let Some(groups) = &args.groups {
        grants.groups.clone_from(groups);
    }
    let entry = TrustAnchor {
        issuer: anchor.issuer,
        key: anchor.key,
        grants,
    };
    // What is written must be readable again, bounds and all.
    let readable = TrustAnchor::from_text(&entry.to_text());
    readable
        .and_then(|_| anchors.add(entry.clone()))
        .map_err(|why| EnrolError::Anchor {
            path: args.anchor.clone(),
            why,
        })?;
    let change = match known {
        None => Change::Added,
        Some(known) if known == entry => Change::Unchanged,
        Some(_) => Change::Changed,
    };
    if change != Change::Unchanged {
        make_dir(&paths.trust())?;
        let file = paths.anchor(&entry.issuer);
        write_atomic(&file, entry.to_text().as_bytes(), PRIVATE_MODE)?;
    }
    Ok(AddReport {
        change,
        entry: report(paths, &entry),
    })
}

/// All entries, by name.
///
/// # Errors
/// [`EnrolError`] when an entry is wrong.
pub fn list(paths: &IdentityPaths) -> Result<Vec<TrustReport>, EnrolError> {
    let anchors = state::load_anchors(paths)?;
    Ok(anchors.iter().map(|entry| report(paths, entry)).collect())
}

/// Trusts an issuer no longer. Works also when its entry cannot be read.
///
/// # Errors
/// [`EnrolError::NotTrusted`] when there is no such entry.
pub fn remove(paths: &IdentityPaths, issuer: &Name) -> Result<RemoveReport, EnrolError> {
    let file: &Path = &paths.anchor(issuer);
    match remove_file(file) {
        Ok(()) => Ok(RemoveReport {
            change: Change::Removed,
            issuer: issuer.clone(),
        }),
        Err(DiskError::Missing(_)) => Err(EnrolError::NotTrusted(issuer.clone())),
        Err(error) => Err(error.into()),
    }
}

fn report(paths: &IdentityPaths, entry: &TrustAnchor) -> TrustReport {
    TrustReport {
        issuer: entry.issuer.clone(),
        thumbprint: entry.key.thumbprint(),
        grants: entry.grants.clone(),
        file: paths.anchor(&entry.issuer),
    }
}
