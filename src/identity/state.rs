//! What the Identity actor holds: read from the data directory, judged, published.
//!
//! Layout: `DATA/node.key`, `DATA/identity/credential.cose`, `DATA/trust/ISSUER.anchor`, and the
//! files of [`super::rotation`].
//! Owner: the Identity actor; readers see immutable views. Loading either yields a complete state
//! or a [`StateError`] that names the file: a half-read directory is never published.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{
    AnchorError, Chain, Channel, Continuity, ContinuityError, DiskError, Frame, KeyFileError,
    MAX_CHAIN_BYTES, MAX_CONTINUITY_BYTES, MAX_LIFETIME, Malformed, Name, NodeKey, Refusal, Role,
    SelfSigned, TrustAnchor, TrustAnchors, VerifiedIdentity,
    anchor::{MAX_ANCHORS, MAX_ENTRY_BYTES},
    disk, verify_chain,
};
use crate::types::{PeerId, Timestamp};

/// Extension of a trust entry's file.
const ANCHOR_EXTENSION: &str = "anchor";
/// Most directory entries looked at: trust entries, and a few files that are none.
const MAX_LISTED: usize = 4 * MAX_ANCHORS;

/// Where identity lives in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPaths {
    data: PathBuf,
}

impl IdentityPaths {
    /// Paths in the data directory `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The node's key.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.data.join("node.key")
    }

    /// The node's own credential, and the delegations above it.
    #[must_use]
    pub fn credential(&self) -> PathBuf {
        self.data.join("identity").join("credential.cose")
    }

    /// The node's next keys, while a rotation is under way.
    #[must_use]
    pub fn next_key(&self) -> PathBuf {
        self.data.join("node.key.next")
    }

    /// The node's former keys, for as long as they are kept.
    #[must_use]
    pub fn retired_key(&self) -> PathBuf {
        self.data.join("node.key.retired")
    }

    /// The continuity statement of the rotation under way.
    #[must_use]
    pub fn rotation(&self) -> PathBuf {
        self.data.join("identity").join("rotation.cose")
    }

    /// The last statement of a rotation that may have left this machine.
    #[must_use]
    pub fn stated(&self) -> PathBuf {
        self.data.join("identity").join("rotation.stated.cose")
    }

    /// The credential for the next keys, and the delegations above it.
    #[must_use]
    pub fn next_credential(&self) -> PathBuf {
        self.data.join("identity").join("credential.next.cose")
    }

    /// The continuity statement of the last rotation.
    #[must_use]
    pub fn continuity(&self) -> PathBuf {
        self.data.join("identity").join("continuity.cose")
    }

    /// The directory of trust entries.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.data.join("trust")
    }

    /// The entry of one issuer.
    #[must_use]
    pub fn anchor(&self, issuer: &Name) -> PathBuf {
        self.trust().join(format!("{issuer}.{ANCHOR_EXTENSION}"))
    }
}

/// Why identity could not be loaded; each names the file.
#[derive(Debug, Error)]
pub enum StateError {
    /// The node key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The own credential is no credential.
    #[error(
        "{}: {why}; import a good one with `quantraband identity import`, or remove the file",
        path.display()
    )]
    Credential {
        /// The file.
        path: PathBuf,
        /// The broken rule.
        why: Malformed,
    },
    /// The continuity statement is none.
    #[error("{}: {why}; peers need it no more than other nodes': remove the file", path.display())]
    Continuity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: ContinuityError,
    },
    /// The own credential is of another key.
    #[error(
        "{}: this credential is bound to the key of {bound}, but this node is {peer}; make a new \
         request with `quantraband identity request`",
        path.display()
    )]
    ForeignCredential {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        bound: PeerId,
        /// Who this node is.
        peer: PeerId,
    },
    /// A trust entry is wrong.
    #[error("{}: {why}", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: AnchorError,
    },
    /// A trust entry's file has another name than its issuer.
    #[error(
        "{}: the entry is of the issuer `{issuer}`; use `quantraband trust add` instead of \
         copying files",
        path.display()
    )]
    AnchorName {
        /// The file.
        path: PathBuf,
        /// The issuer inside.
        issuer: Name,
    },
}

/// This node's own identity as others will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnIdentity {
    /// Who this node is.
    pub peer: PeerId,
    /// The own credential and the delegations above it as read, when there is one.
    pub chain: Option<Arc<Chain>>,
    /// The identity, when this node's own anchors verify it.
    pub identity: Option<Arc<VerifiedIdentity>>,
    /// Why they do not: expired, issuer not trusted here. Peers may judge otherwise.
    pub problem: Option<Refusal>,
    /// What this node says of its former keys, for as long as it is shown.
    pub continuity: Option<Arc<Continuity>>,
}

impl OwnIdentity {
    /// A node without a credential.
    #[must_use]
    pub fn bare(peer: PeerId) -> Self {
        Self {
            peer,
            chain: None,
            identity: None,
            problem: None,
            continuity: None,
        }
    }

    /// A node with a credential of its own key, judged by its own anchors.
    #[must_use]
    pub fn with(peer: PeerId, chain: Chain, anchors: &TrustAnchors, now: Timestamp) -> Self {
        let judged = verify_chain(&chain, peer, anchors, now);
        let (identity, problem) = match judged {
            Ok(identity) => (Some(Arc::new(identity)), None),
            Err(refusal) => (None, Some(refusal)),
        };
        Self {
            peer,
            chain: Some(Arc::new(chain)),
            identity,
            problem,
            continuity: None,
        }
    }

    /// What this node presents, as the end of `role`, over `channel`: its chain and the proof that
    /// it holds its key, with the heads of its issuers' status lists; or that it has no credential.
    #[must_use]
    pub fn frame(&self, key: &NodeKey, channel: &Channel, role: Role, heads: Vec<u8>) -> Vec<u8> {
        let frame = match &self.chain {
            Some(chain) => {
                let statement = self.continuity.as_ref().map(|c| c.as_bytes().to_vec());
                Frame::of(chain, key, channel, role)
                    .with_heads(heads)
                    .with_continuity(statement)
            }
            None => Frame::bare(),
        };
        frame.encode()
    }

    /// The issuers of the own chain, the nearest first.
    pub fn issuers(&self) -> impl Iterator<Item = &Name> {
        self.chain.iter().flat_map(|chain| {
            let above = chain.delegations().iter().map(|d| &d.mandate().issuer);
            std::iter::once(&chain.credential().claims().issuer).chain(above)
        })
    }

    /// When the own credential expires, verified or not.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        let claims = self.chain.as_ref()?.credential().claims();
        Some(Timestamp::from_secs(claims.validity.expires()))
    }

    /// `issuer/subject` of the own credential, verified or not.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        let claims = self.chain.as_ref()?.credential().claims();
        Some(format!("{}/{}", claims.issuer, claims.subject))
    }
}

/// Whom this node trusts, published so that live peers can be judged again.
///
/// Each entry carries the epoch at which it came to be as it is: a peer that was verified at an
/// epoch is still covered when its issuer's entry is not younger ([`TrustView::covers`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustView {
    /// Grows by one whenever an entry is added, changed or removed.
    pub epoch: u64,
    /// The entries.
    pub anchors: Arc<TrustAnchors>,
    since: BTreeMap<Name, u64>,
}

impl TrustView {
    /// The view after `self` that shows `anchors`; unchanged when they are the same.
    #[must_use]
    pub fn next(&self, anchors: TrustAnchors) -> Self {
        if anchors == *self.anchors {
            return self.clone();
        }
        let epoch = self.epoch.saturating_add(1);
        let since = anchors
            .iter()
            .map(|anchor| {
                let same = self.anchors.get(&anchor.issuer) == Some(anchor);
                let old = self.since.get(&anchor.issuer).copied();
                let since = old.filter(|_| same).unwrap_or(epoch);
                (anchor.issuer.clone(), since)
            })
            .collect();
        Self {
            epoch,
            anchors: Arc::new(anchors),
            since,
        }
    }

    /// Whether what rests on `anchor` ([`VerifiedIdentity::anchor`]), as verified when this view's
    /// epoch was `verified_at`, still holds: its entry exists and has not changed since. A node
    /// that signed for itself is covered for as long as such nodes are let in.
    #[must_use]
    pub fn covers(&self, anchor: &Name, verified_at: u64) -> bool {
        if anchor.is_self_signed() {
            return self.anchors.self_signed() == SelfSigned::Allow;
        }
        self.since
            .get(anchor)
            .is_some_and(|&since| since <= verified_at)
    }
}

/// Reads the trust entries. No directory means that nobody is trusted.
///
/// # Errors
/// [`StateError`] for the first entry that is wrong: whom to trust is never guessed.
pub fn load_anchors(paths: &IdentityPaths) -> Result<TrustAnchors, StateError> {
    let directory = paths.trust();
    let listing = match fs::read_dir(&directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(TrustAnchors::default());
        }
        Err(error) => return Err(disk::io_error("list", &directory)(error).into()),
    };
    let mut files = Vec::new();
    for entry in listing.take(MAX_LISTED) {
        let path = entry.map_err(disk::io_error("list", &directory))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|found| found == ANCHOR_EXTENSION)
        {
            files.push(path);
        }
    }
    files.sort();
    let mut anchors = TrustAnchors::default();
    for path in files {
        let anchor = load_anchor(&path)?;
        anchors
            .add(anchor)
            .map_err(|why| StateError::Anchor { path, why })?;
    }
    Ok(anchors)
}

fn load_anchor(path: &Path) -> Result<TrustAnchor, StateError> {
    let bytes = disk::read_bounded(path, MAX_ENTRY_BYTES)?;
    let wrong = |why| StateError::Anchor {
        path: path.into(),
        why,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        wrong(AnchorError::Entry(
            "it is no text; an issuer's anchor is entered with `quantraband trust add FILE`".into(),
        ))
    })?;
    let anchor = TrustAnchor::from_text(text).map_err(wrong)?;
    if path
        .file_stem()
        .is_some_and(|stem| stem == anchor.issuer.as_str())
    {
        Ok(anchor)
    } else {
        Err(StateError::AnchorName {
            path: path.into(),
            issuer: anchor.issuer,
        })
    }
}

/// Reads the own credential and the delegations above it, if there is one, and judges them.
///
/// # Errors
/// [`StateError`] when it is malformed or of another key. One that expired, or whose issuer is
/// not trusted here, is loaded with its [`OwnIdentity::problem`]: the node must run to renew it.
pub fn load_own(
    paths: &IdentityPaths,
    peer: PeerId,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<OwnIdentity, StateError> {
    let path = paths.credential();
    let bytes = match disk::read_bounded(&path, MAX_CHAIN_BYTES) {
        Ok(bytes) => bytes,
        Err(DiskError::Missing(_)) => return Ok(OwnIdentity::bare(peer)),
        Err(error) => return Err(error.into()),
    };
    let chain = match Chain::decode(&bytes) {
        Ok(chain) => chain,
        Err(why) => return Err(StateError::Credential { path, why }),
    };
    let bound = chain.credential().claims().keys.peer;
    if bound != peer {
        return Err(StateError::ForeignCredential { path, bound, peer });
    }
    let continuity = load_continuity(paths, &chain, now)?;
    Ok(OwnIdentity {
        continuity,
        ..OwnIdentity::with(peer, chain, anchors, now)
    })
}

/// The statement of the last rotation, when it leads to this credential and is young enough to be
/// of use: nobody can know a credential that is older.
fn load_continuity(
    paths: &IdentityPaths,
    chain: &Chain,
    now: Timestamp,
) -> Result<Option<Arc<Continuity>>, StateError> {
    let path = paths.continuity();
    let bytes = match disk::read_bounded(&path, MAX_CONTINUITY_BYTES) {
        Ok(bytes) => bytes,
        Err(DiskError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let statement = Continuity::open(&bytes).map_err(|why| StateError::Continuity { path, why })?;
    let claims = chain.credential().claims();
    let names = (&claims.issuer, &claims.subject);
    let shown = now.since(statement.created()) <= MAX_LIFETIME
        && statement.leads_to(Some(&claims.keys), names).is_ok();
    Ok(shown.then(|| Arc::new(statement)))
}

/// Reads everything: the key (for the peer id alone), the anchors, the own credential.
///
/// # Errors
/// [`StateError`], the first that is met.
pub fn load(
    paths: &IdentityPaths,
    now: Timestamp,
) -> Result<(OwnIdentity, TrustAnchors), StateError> {
    let peer = NodeKey::load(&paths.node_key())?.peer();
    let anchors = load_anchors(paths)?;
    let own = load_own(paths, peer, &anchors, now)?;
    Ok((own, anchors))
}

#[cfg(test)]
mod tests;
