//! Rotation of a node's keys: the files, and the switch at the start.
//!
//! ```text
//! identity rotate     DATA/node.key.next, then DATA/identity/rotation.cose (the statement)
//! it is sent          DATA/identity/rotation.stated.cose (a copy), before
//! an issuer answers   DATA/identity/credential.next.cose
//! the next start      node.key copied to node.key.retired
//!                     node.key.next -> node.key  (here it happens)
//!                     credential.next.cose -> credential.cose
//!                     the audit log is told; rotation.cose -> continuity.cose
//! a member is met     node.key.retired is overwritten and removed
//! ```
//!
//! Each step is one durable change of a name. Where it was interrupted is told by the one file that
//! counts: the statement names both keys, and `node.key` is either the old one, then nothing has
//! happened, or the new one, then the rest is done. So any step can be repeated.
//!
//! A statement that left this machine cannot be called back: an issuer that answered it ends the
//! present credential, whatever becomes of the answer. So giving it up means to state something
//! else in its place; only what was never sent is simply gone.
//!
//! Owner: the commands begin and abandon, the renewal actor brings the credential and erases, the
//! node switches. It fails with a [`RotationError`].

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{
    Chain, Continuity, ContinuityError, DiskError, IdentityPaths, KeyFileError, MAX_CHAIN_BYTES,
    MAX_CONTINUITY_BYTES, Malformed, NodeKey, NodePublic, disk,
};
use crate::types::Timestamp;

/// Mode of the files here: the statement and the credential are shown to peers, and to nobody else
/// on this machine.
const MODE: u32 = 0o600;

/// Why a rotation did not begin, or go on.
#[derive(Debug, Error)]
pub enum RotationError {
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The statement.
    #[error("{0}")]
    Statement(#[from] ContinuityError),
    /// The own credential cannot be read.
    #[error("this node's credential: {0}")]
    Credential(#[from] Malformed),
    /// There is nothing to go on with.
    #[error(
        "this node has no credential of an issuer, so nobody could tell that other keys are its \
         own: enrol it first (`quantraband join`, or `quantraband identity request`)"
    )]
    NoCredential,
    /// That is not possible meanwhile.
    #[error(
        "a rotation of this node's keys is under way: let it come to its end first, or give it up \
         with `quantraband identity rotate --abandon`"
    )]
    UnderWay,
    /// No rotation is under way.
    #[error("no rotation is under way")]
    None,
    /// It has gone too far to be abandoned.
    #[error(
        "the credential for the next keys is there, and its issuer is about to take the old one \
         back: start the node anew instead"
    )]
    TooLate,
    /// The former keys are there still.
    #[error(
        "this node's former keys ({}) are kept until a member is connected, and would stay sealed \
         as they are: let the node meet one first, or remove that file if they are not needed",
        .0.display()
    )]
    Retired(PathBuf),
    /// The files are of different rotations.
    #[error(
        "the files of the rotation do not fit together ({0}): `quantraband identity rotate \
         --abandon` removes them"
    )]
    Mixed(&'static str),
}

/// A rotation that has begun and is not done.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The statement.
    pub statement: Continuity,
    /// The credential for the next keys, once it is there.
    pub chain: Option<Chain>,
}

fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, DiskError> {
    match disk::read_bounded(path, max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(DiskError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn statement(path: &Path) -> Result<Option<Continuity>, RotationError> {
    let bytes = read(path, MAX_CONTINUITY_BYTES)?;
    Ok(bytes.map(|bytes| Continuity::open(&bytes)).transpose()?)
}

fn chain(path: &Path) -> Result<Option<Chain>, RotationError> {
    let bytes = read(path, MAX_CHAIN_BYTES)?;
    Ok(bytes.map(|bytes| Chain::decode(&bytes)).transpose()?)
}

/// What is under way; needs no secret.
///
/// # Errors
/// [`RotationError`].
pub fn pending(paths: &IdentityPaths) -> Result<Option<Pending>, RotationError> {
    let Some(statement) = statement(&paths.rotation())? else {
        return Ok(None);
    };
    let chain = chain(&paths.next_credential())?;
    let claims = chain.as_ref().map(|chain| chain.credential().claims());
    if claims.is_some_and(|claims| claims.keys != *statement.new_keys()) {
        return Err(RotationError::Mixed("the credential is of other keys"));
    }
    Ok(Some(Pending { statement, chain }))
}

/// Begins a rotation: makes the next keys, sealed as the present ones are, and the statement. One
/// that is under way is returned as it is; whether it was, says the second.
///
/// # Errors
/// [`RotationError`].
pub fn begin(paths: &IdentityPaths, now: Timestamp) -> Result<(Pending, bool), RotationError> {
    if let Some(pending) = pending(paths)? {
        return Ok((pending, true));
    }
    let own = chain(&paths.credential())?.ok_or(RotationError::NoCredential)?;
    if own.credential().claims().issuer.is_self_signed() {
        return Err(RotationError::NoCredential);
    }
    // One that was made and never stated (a crash in between) is as good as another.
    let (old, next) = NodeKey::with_next(&paths.node_key(), &paths.next_key(), true)?;
    let next = next.ok_or(RotationError::Mixed("the next keys are missing"))?;
    let last = [statement(&paths.continuity())?, statement(&paths.stated())?];
    let last = last.iter().flatten().map(Continuity::sequence).max();
    let statement = Continuity::seal((&old, &next), own.credential(), last, now)?;
    disk::write_atomic(&paths.rotation(), statement.as_bytes(), MODE)?;
    let chain = None;
    Ok((Pending { statement, chain }, false))
}

/// To be called before a statement leaves this machine, by whatever way: durable when it returns.
///
/// # Errors
/// [`DiskError`]; then it must not leave.
pub fn stating(paths: &IdentityPaths, statement: &Continuity) -> Result<(), DiskError> {
    let bytes = statement.as_bytes();
    if read(&paths.stated(), MAX_CONTINUITY_BYTES)?.as_deref() == Some(bytes) {
        return Ok(());
    }
    disk::write_atomic(&paths.stated(), bytes, MODE)
}

/// Whether a statement of the present keys may have been answered that came to no end here.
fn was_stated(paths: &IdentityPaths) -> Result<bool, RotationError> {
    let Some(stated) = statement(&paths.stated())? else {
        return Ok(false);
    };
    // A crash may have left that of the last rotation, which did come to its end.
    let done = statement(&paths.continuity())?;
    Ok(done.is_none_or(|done| done.hash() != stated.hash()))
}

/// Gives a rotation up: the next keys are erased. When the statement may have left this machine,
/// another rotation begins in its place, which is returned.
///
/// # Errors
/// [`RotationError::TooLate`] once the credential is there.
pub fn abandon(paths: &IdentityPaths, now: Timestamp) -> Result<Option<Pending>, RotationError> {
    let stated = was_stated(paths)?;
    if !paths.rotation().exists() && !paths.next_key().exists() && !stated {
        return Err(RotationError::None);
    }
    // Files that do not fit together are no credential for these keys.
    if pending(paths).is_ok_and(|pending| pending.is_some_and(|p| p.chain.is_some())) {
        return Err(RotationError::TooLate);
    }
    for path in [paths.next_credential(), paths.rotation()] {
        gone(disk::remove(&path))?;
    }
    gone(disk::erase(&paths.next_key()))?;
    // Interrupted before this, the command is repeated: it is known still what was stated.
    stated
        .then(|| begin(paths, now).map(|(pending, _)| pending))
        .transpose()
}

fn gone(removed: Result<(), DiskError>) -> Result<(), DiskError> {
    match removed {
        Err(DiskError::Missing(_)) => Ok(()),
        other => other,
    }
}

/// Keeps the credential for the next keys: from the next start on the node has them.
///
/// # Errors
/// [`RotationError`].
pub fn adopt(
    paths: &IdentityPaths,
    statement: &Continuity,
    chain: &Chain,
) -> Result<(), RotationError> {
    let claims = chain.credential().claims();
    let names = (&claims.issuer, &claims.subject);
    if statement.leads_to(Some(&claims.keys), names).is_err() {
        return Err(RotationError::Mixed("the credential is of another node"));
    }
    // While it was on its way the rotation may have been given up.
    let now = self::statement(&paths.rotation())?.ok_or(RotationError::None)?;
    if now != *statement || !paths.next_key().exists() {
        return Err(RotationError::Mixed(
            "the credential is of another rotation",
        ));
    }
    Ok(disk::write_atomic(
        &paths.next_credential(),
        &chain.encode(),
        MODE,
    )?)
}

type Step = fn(&IdentityPaths) -> Result<(), RotationError>;

/// What the switch consists of; after the second the node has its new keys.
const STEPS: [Step; 3] = [retire, change, replace];

fn retire(paths: &IdentityPaths) -> Result<(), RotationError> {
    // That of the last rotation, or what an interrupted switch left of this one.
    gone(disk::erase(&paths.retired_key()))?;
    Ok(NodeKey::copy(&paths.node_key(), &paths.retired_key())?)
}

fn change(paths: &IdentityPaths) -> Result<(), RotationError> {
    Ok(disk::rename_over_secret(
        &paths.next_key(),
        &paths.node_key(),
    )?)
}

fn replace(paths: &IdentityPaths) -> Result<(), RotationError> {
    let renamed = disk::rename(&paths.next_credential(), &paths.credential());
    Ok(gone(renamed)?)
}

/// What a start found.
#[derive(Debug)]
pub struct Started {
    /// The keys that the node has now.
    pub key: NodeKey,
    /// The statement of a rotation that has happened and is not on record yet: record it, then
    /// [`finish`].
    pub rotated: Option<Continuity>,
}

/// Loads the node's keys; changes them first when a rotation is ready. Whatever does not fit leaves
/// the node with the keys that it has, and is said in the log.
///
/// # Errors
/// [`RotationError`] when the keys cannot be read, or a change of a name failed.
pub fn start(paths: &IdentityPaths) -> Result<Started, RotationError> {
    switch(paths, STEPS.len())
}

fn switch(paths: &IdentityPaths, most: usize) -> Result<Started, RotationError> {
    let pending = pending(paths).unwrap_or_else(|error| {
        tracing::error!(%error, "the rotation of this node's keys cannot go on");
        None
    });
    let Some(Pending { statement, chain }) = pending else {
        let key = NodeKey::load(&paths.node_key())?;
        return Ok(Started { key, rotated: None });
    };
    let (key, next) = NodeKey::with_next(&paths.node_key(), &paths.next_key(), false)?;
    if *key.public() == *statement.new_keys() {
        if most == STEPS.len() {
            replace(paths)?;
        }
        let rotated = Some(statement);
        return Ok(Started { key, rotated });
    }
    let ready = chain.is_some() && statement.is_from(key.public());
    let next = next.filter(|next| next.public() == statement.new_keys());
    match (ready, next) {
        (true, Some(next)) => {
            for step in STEPS.iter().take(most) {
                step(paths)?;
            }
            Ok(Started {
                key: next,
                rotated: Some(statement),
            })
        }
        (true, None) => {
            tracing::error!("the next keys are not those of the rotation: it cannot go on");
            Ok(Started { key, rotated: None })
        }
        (false, _) => Ok(Started { key, rotated: None }),
    }
}

/// The rotation is on record: its statement is shown to peers from now on.
///
/// # Errors
/// [`DiskError`].
pub fn finish(paths: &IdentityPaths) -> Result<(), DiskError> {
    gone(disk::rename(&paths.rotation(), &paths.continuity()))?;
    gone(disk::remove(&paths.stated()))
}

/// Erases the former keys, when there are any and the rotation is done; whether there were.
///
/// # Errors
/// [`DiskError`].
pub fn erase_retired(paths: &IdentityPaths) -> Result<bool, DiskError> {
    if !has_retired(paths) {
        return Ok(false);
    }
    disk::erase(&paths.retired_key())?;
    Ok(true)
}

/// Whether former keys are there that are not needed any more once a member was met.
#[must_use]
pub fn has_retired(paths: &IdentityPaths) -> bool {
    paths.retired_key().exists() && !paths.rotation().exists()
}

/// Whether the present keys may be sealed in another way: none are there that would stay as they are.
///
/// # Errors
/// [`RotationError::UnderWay`] and [`RotationError::Retired`].
pub fn may_protect(paths: &IdentityPaths) -> Result<(), RotationError> {
    if paths.next_key().exists() {
        return Err(RotationError::UnderWay);
    }
    match paths.retired_key() {
        retired if retired.exists() => Err(RotationError::Retired(retired)),
        _ => Ok(()),
    }
}

/// Whether these keys may ask for a credential now: a statement is there, and none was got yet.
///
/// # Errors
/// [`RotationError`].
pub fn asking(
    paths: &IdentityPaths,
    own: &NodePublic,
) -> Result<Option<Continuity>, RotationError> {
    let pending = pending(paths)?.filter(|pending| pending.chain.is_none());
    let statement = pending.map(|pending| pending.statement);
    Ok(statement.filter(|statement| statement.is_from(own)))
}

#[cfg(test)]
mod tests;
