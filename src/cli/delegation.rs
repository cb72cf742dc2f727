//! `identity delegate | issuer import | self-sign`: issuers below issuers, and nodes without one.
//!
//! Works on files, without a running node. An issuer asks for a delegation by handing over its
//! anchor: that names it, names its keys, and proves that it holds them. What it gets back it takes
//! into its folder; from then on `identity issue` issues under it. It fails with [`EnrolError`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    enrol::EnrolError,
    identity::{self, CredentialReport, PRIVATE_MODE, PUBLIC_MODE},
};
use crate::{
    identity::{
        Chain, Delegation, DiskError, ISSUER_KEY_FILE, IdentityPaths, IssueError, IssuerKey,
        MAX_CHAIN_BYTES, MAX_LIFETIME, Name, NodeKey, Scope, Thumbprint, create_new,
        decode_delegations, delegate as sign_delegation, encode_delegations, read_bounded,
        self_sign as sign_own, verify_delegations, write_atomic,
    },
    types::Timestamp,
};

pub use crate::identity::DELEGATION_FILE;

/// Arguments of `identity delegate`.
#[derive(Debug, Clone)]
pub struct DelegateArgs {
    /// The folder of the issuer that delegates.
    pub dir: PathBuf,
    /// The anchor of the one who shall issue.
    pub anchor: PathBuf,
    /// Within what.
    pub scope: Scope,
    /// How long the delegation holds; `None`: as long as possible.
    pub lifetime: Option<Duration>,
    /// The file to write; must not exist.
    pub out: PathBuf,
}

/// Answer of `identity delegate` and of `identity issuer import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DelegationReport {
    /// Who delegates.
    pub issuer: Name,
    /// Who may issue: the name is its name space.
    pub subject: Name,
    /// The keys it issues with.
    pub thumbprint: Thumbprint,
    /// Within what.
    pub scope: Scope,
    /// Until when, exclusive.
    pub expires: Timestamp,
    /// Its place in the status list of who delegates.
    pub status_index: Option<u32>,
    /// The file written.
    pub file: PathBuf,
}

/// Lets another issuer issue.
///
/// # Errors
/// [`EnrolError`].
pub fn delegate(args: &DelegateArgs, now: Timestamp) -> Result<DelegationReport, EnrolError> {
    let issuer = IssuerKey::load(&args.dir.join(ISSUER_KEY_FILE))?;
    let above = of_issuer(&args.dir)?;
    let anchor = identity::read_anchor(&args.anchor)?;
    let lifetime = args.lifetime.unwrap_or_else(|| left(&above, now));
    let serial = identity::next_serial(&args.dir)?;
    let scope = args.scope.clone();
    let all = sign_delegation((&issuer, &above), &anchor, scope, lifetime, serial, now)?;
    create_new(&args.out, &encode_delegations(&all), PUBLIC_MODE)?;
    report(&all, &args.out)
}

/// The longest an issuer may delegate for.
fn left(above: &[Delegation], now: Timestamp) -> Duration {
    above.first().map_or(MAX_LIFETIME, |parent| {
        let expires = parent.mandate().validity.expires();
        MAX_LIFETIME.min(Duration::from_secs(expires.saturating_sub(now.secs())))
    })
}

/// Takes the delegation in `file` into the folder of the issuer it is for, after verifying it by
/// the anchor in `anchor`, at which it must end.
///
/// # Errors
/// [`EnrolError`]; the delegation that was there stays.
pub fn import(
    dir: &Path,
    file: &Path,
    anchor: &Path,
    now: Timestamp,
) -> Result<DelegationReport, EnrolError> {
    let issuer = IssuerKey::load(&dir.join(ISSUER_KEY_FILE))?;
    let all = read(file)?;
    let mine = all.first().map(Delegation::mandate).is_some_and(|mandate| {
        mandate.subject == *issuer.name() && mandate.keys == *issuer.public()
    });
    if !mine {
        return Err(IssueError::NotMine(issuer.name().clone()).into());
    }
    let anchors = identity::alone(anchor)?;
    verify_delegations(issuer.name(), &all, &anchors, now).map_err(|refusal| {
        EnrolError::Refused {
            path: file.into(),
            refusal,
        }
    })?;
    let target = dir.join(DELEGATION_FILE);
    write_atomic(&target, &encode_delegations(&all), PRIVATE_MODE)?;
    report(&all, &target)
}

/// The delegations to the issuer in `dir`, the nearest first; none: it is an anchor itself.
pub(super) fn of_issuer(dir: &Path) -> Result<Vec<Delegation>, EnrolError> {
    match read(&dir.join(DELEGATION_FILE)) {
        Err(EnrolError::Disk(DiskError::Missing(_))) => Ok(Vec::new()),
        other => other,
    }
}

fn read(path: &Path) -> Result<Vec<Delegation>, EnrolError> {
    let bytes = read_bounded(path, MAX_CHAIN_BYTES)?;
    decode_delegations(&bytes).map_err(|why| EnrolError::Delegation {
        path: path.into(),
        why,
    })
}

fn report(all: &[Delegation], file: &Path) -> Result<DelegationReport, EnrolError> {
    let Some(nearest) = all.first() else {
        return Err(DiskError::Missing(file.into()).into());
    };
    let mandate = nearest.mandate();
    Ok(DelegationReport {
        issuer: mandate.issuer.clone(),
        subject: mandate.subject.clone(),
        thumbprint: mandate.keys.thumbprint(),
        scope: mandate.scope.clone(),
        expires: Timestamp::from_secs(mandate.validity.expires()),
        status_index: mandate.status,
        file: file.into(),
    })
}

/// Answer of `identity self-sign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfSignReport {
    /// What was made.
    pub credential: CredentialReport,
    /// Where it is.
    pub file: PathBuf,
    /// Whether it took the place of an older one.
    pub replaced: bool,
}

/// Makes a credential by this node itself. It takes the place of an older one of this kind, and
/// never that of an issuer's.
///
/// # Errors
/// [`EnrolError`].
pub fn self_sign(
    paths: &IdentityPaths,
    subject: &Name,
    lifetime: Duration,
    now: Timestamp,
) -> Result<SelfSignReport, EnrolError> {
    let key = NodeKey::load(&paths.node_key())?;
    let path = paths.credential();
    match identity::read_chain(&path) {
        Ok(old) if old.credential().claims().issuer.is_self_signed() => {}
        Err(EnrolError::Disk(DiskError::Missing(_))) => {}
        Ok(_) => return Err(DiskError::Exists(path).into()),
        Err(error) => return Err(error),
    }
    let chain = Chain::of(sign_own(&key, subject, lifetime, rand::random(), now)?);
    let (file, replaced) = identity::put(paths, &chain)?;
    Ok(SelfSignReport {
        credential: CredentialReport::of(&chain),
        file,
        replaced,
    })
}

#[cfg(test)]
mod tests;
